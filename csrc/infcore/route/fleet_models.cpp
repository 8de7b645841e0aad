// What nodes hold and could load: models and versions, and what it costs to make one resident.
#include <infcore/base/errors.hpp>
#include <infcore/route/fleet.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>

namespace infcore::route {
namespace {

constexpr float never = std::numeric_limits<float>::infinity();
/// A load takes this long and more; which of two models was wanted later is of no account below it, and a store of each
/// request's time would pull the line from core to core.
constexpr base::TimeNs wanted_step_ns = 10'000'000;

}  // namespace

ModelId Fleet::model_id(std::string_view name, std::uint32_t version) {
  if (name.empty()) throw InvalidArgument("model", "''", "a name of at least one character");
  const Hold hold(*this);
  const auto find_or_add = [&](std::uint32_t wanted, ModelId any) {
    for (std::uint32_t i = 0; i < models_.size(); ++i)
      if (models_[i].version == wanted && models_[i].name == name) return ModelId{i};
    if (models_.size() == max_models())
      throw InvalidArgument("model", "'" + std::string(name) + "'",
                            "at most " + std::to_string(max_models()) + " names and versions in one fleet");
    const ModelId id{static_cast<std::uint32_t>(models_.size())};
    models_.push_back({std::string(name), wanted, wanted == 0 ? id : any});
    write_model(id);
    return id;
  };
  const ModelId any = find_or_add(0, {});
  return version == 0 ? any : find_or_add(version, any);
}

void Fleet::load_model(NodeId node, ModelId model) {
  const Hold hold(*this);
  check_present(node);
  check_model(model);
  set_resident(node, model, true);
  set_resident(node, models_[model.value].any, true);
}

void Fleet::unload_model(NodeId node, ModelId model) {
  const Hold hold(*this);
  check_present(node);
  check_model(model);
  const ModelId any = models_[model.value].any;
  set_resident(node, model, false);
  bool held = false;
  for (std::uint32_t i = 0; i < models_.size() && !held; ++i)
    held = ModelId{i} != any && models_[i].any == any && resident(node, ModelId{i});
  set_resident(node, any, held);
}

void Fleet::check_model(ModelId model) const {
  if (model.value < models_.size()) return;
  throw UnknownName("model", std::to_string(model.value), "the ids that model_id() returned");
}

void Fleet::declare_model(ModelId model, const ModelSize& size) {
  const auto bad = [](double x) { return !(x >= 0.0 && x <= 1e6); };
  if (bad(size.load_s)) throw InvalidArgument("load_s", std::to_string(size.load_s), "0 to 1e6");
  const Hold hold(*this);
  check_model(model);
  auto& facts = columns_.facts(model.value);
  facts.weights_bytes.store(size.weights_bytes, std::memory_order_relaxed);
  facts.load_us.store(size.load_s * 1e6, std::memory_order_relaxed);
  facts.require.store(size.require, std::memory_order_relaxed);
  facts.declared.store(1, std::memory_order_relaxed);
  columns_.header().any_declared.store(1, std::memory_order_relaxed);
  columns_.header().residency.fetch_add(1, std::memory_order_release);
}

ModelSize Fleet::size_of(ModelId model) const noexcept {
  const auto& facts = columns_.facts(model.value);
  return {.weights_bytes = facts.weights_bytes.load(std::memory_order_relaxed),
          .load_s = facts.load_us.load(std::memory_order_relaxed) * 1e-6,
          .require = facts.require.load(std::memory_order_relaxed)};
}

bool Fleet::is_declared(ModelId model) const noexcept {
  return columns_.facts(model.value).declared.load(std::memory_order_relaxed) != 0;
}

void Fleet::want(ModelId model, base::TimeNs now_ns) noexcept {
  auto& wanted = columns_.wanted_ns(model.value);
  const base::TimeNs known = wanted.load(std::memory_order_relaxed);  // relaxed: nothing is read by it
  if (now_ns > known && (known == 0 || now_ns - known >= wanted_step_ns))
    wanted.store(now_ns, std::memory_order_relaxed);
}

std::vector<std::uint64_t> Fleet::used_bytes() const {
  const Hold hold(*this);
  std::vector<std::uint64_t> used(n_nodes());
  for (const ModelId each : least_wanted_first()) {
    const std::uint64_t bytes = size_of(each).weights_bytes;
    for (std::uint32_t word = 0; word * 64 < n_nodes(); ++word)
      for (std::uint64_t left = columns_.resident(each.value, word).load(std::memory_order_acquire); left != 0;
           left &= left - 1)
        used[word * 64 + static_cast<std::size_t>(std::countr_zero(left))] += bytes;
  }
  return used;
}

std::vector<ModelId> Fleet::least_wanted_first() const {
  std::vector<std::pair<base::TimeNs, ModelId>> order;
  for (std::uint32_t i = 0; i < models_.size(); ++i) {
    if (models_[i].version == 0 || columns_.facts(i).weights_bytes.load(std::memory_order_relaxed) == 0) continue;
    order.emplace_back(std::max(columns_.wanted_ns(i).load(std::memory_order_relaxed),
                                columns_.wanted_ns(models_[i].any.value).load(std::memory_order_relaxed)),
                       ModelId{i});
  }
  std::sort(order.begin(), order.end());
  std::vector<ModelId> models;
  for (const auto& [wanted_ns, model] : order) models.push_back(model);
  return models;
}

/// Lowers `column` to what loading that version costs on the 64 nodes of a word, where it may be loaded.
void Fleet::load_costs_of_word(ModelId model, std::uint32_t word, std::span<const ModelId> least_wanted,
                               float* column) const {
  const ModelSize size = size_of(model);
  std::uint64_t able = columns_.labelled_all(size.require, word);
  std::array<std::uint64_t, 64> used{};
  for (const ModelId each : least_wanted) {
    const std::uint64_t bytes = size_of(each).weights_bytes;
    for (std::uint64_t left = columns_.resident(each.value, word).load(std::memory_order_acquire); left != 0;
         left &= left - 1)
      used[static_cast<std::size_t>(std::countr_zero(left))] += bytes;
  }
  for (const auto& l : columns_.header().loadings) {  // what is on its way there needs its room, too
    if (l.in_use != 0 && l.node / 64 == word && l.model != model.value)
      used[l.node % 64] += size_of(ModelId{l.model}).weights_bytes;
  }
  std::array<std::uint64_t, 64> missing{};
  std::array<double, 64> cost_us{};
  std::uint64_t tight = 0;  // able, once something has gone
  for (std::uint64_t left = able; left != 0; left &= left - 1) {
    const auto at = static_cast<std::uint32_t>(std::countr_zero(left));
    const std::uint64_t bytes = columns_.memory_bytes(word * 64 + at).load(std::memory_order_relaxed);
    cost_us[at] = size.load_s * 1e6;
    if (size.weights_bytes > bytes) {
      able &= ~(std::uint64_t{1} << at);
    } else if (used[at] > bytes - size.weights_bytes) {
      missing[at] = used[at] - (bytes - size.weights_bytes);
      tight |= std::uint64_t{1} << at;
    }
  }
  for (const ModelId each : least_wanted) {
    if (tight == 0) break;
    const ModelSize gone = size_of(each);
    for (std::uint64_t left = tight & columns_.resident(each.value, word).load(std::memory_order_acquire); left != 0;
         left &= left - 1) {
      const auto at = static_cast<std::uint32_t>(std::countr_zero(left));
      cost_us[at] += gone.load_s * 1e6;
      if (gone.weights_bytes >= missing[at]) tight &= ~(std::uint64_t{1} << at);
      missing[at] -= std::min(missing[at], gone.weights_bytes);
    }
  }
  for (std::uint64_t left = able; left != 0; left &= left - 1) {
    const auto at = static_cast<std::uint32_t>(std::countr_zero(left));
    column[at] = std::min(column[at], static_cast<float>(cost_us[at]));
  }
}

bool Fleet::load_costs(ModelId model, float* column) const {
  const Hold hold(*this);
  check_model(model);
  const std::vector<ModelId> least_wanted = least_wanted_first();
  bool any = false;
  for (std::uint32_t word = 0; word < columns_.n_words(); ++word) {
    float* const here = column + std::size_t{word} * 64;
    std::fill_n(here, 64, never);
    for (std::uint32_t i = 0; i < models_.size() && word * 64 < n_nodes(); ++i) {
      const bool is_it = i == model.value || (models_[i].any == model && i != model.value);
      if (is_it && is_declared(ModelId{i})) load_costs_of_word(ModelId{i}, word, least_wanted, here);
    }
    const std::uint64_t held = columns_.resident(model.value, word).load(std::memory_order_acquire);
    for (std::uint32_t at = 0; at < 64; ++at) {
      const NodeId node{word * 64 + at};
      if (node.value >= n_nodes() || state(node) == NodeState::absent) {
        here[at] = never;
      } else if ((held >> at & 1u) != 0) {
        here[at] = 0.0f;
      }
      any = any || (here[at] != never && here[at] != 0.0f);
    }
  }
  return any;
}

std::uint32_t Fleet::n_models() const {
  const Hold hold(*this);
  return static_cast<std::uint32_t>(models_.size());
}

void Fleet::set_resident(NodeId node, ModelId model, bool on) noexcept {
  auto& word = columns_.resident(model.value, node.value / 64);
  const std::uint64_t bit = std::uint64_t{1} << (node.value & 63u);
  if (((word.load(std::memory_order_relaxed) & bit) != 0) == on) return;  // relaxed: under the membership lock
  if (on) end_loads_of(node, &model);
  // The count after the bit, release [F2]: who sees it works the costs out anew, with the bit.
  on ? word.fetch_or(bit, std::memory_order_release) : word.fetch_and(~bit, std::memory_order_release);
  columns_.header().residency.fetch_add(1, std::memory_order_release);
}

}  // namespace infcore::route
