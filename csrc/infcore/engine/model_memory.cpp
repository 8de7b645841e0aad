#include <infcore/cache/eviction_policy.hpp>
#include <infcore/engine/model_memory.hpp>

#include <algorithm>
#include <limits>

namespace infcore::engine {
namespace {

/// Ghosts tell keys apart by their bits: neighbours' numbers are spread over all of them (Fibonacci hashing).
constexpr std::uint64_t spread_bits = 0x9E37'79B9'7F4A'7C15u;

}  // namespace

ModelMemory::ModelMemory(std::string_view policy, std::uint32_t n_models, std::uint64_t capacity_bytes)
    : places_(n_models),
      policy_(cache::make_eviction_policy(policy)),
      capacity_bytes_(capacity_bytes == 0 ? std::numeric_limits<std::uint64_t>::max() : capacity_bytes) {
  policy_->attach(*this, {.n_entries_max = n_models, .capacity_bytes = capacity_bytes_});
}

void ModelMemory::grow(std::uint32_t n_models) {
  policy_->grow(n_models);
  places_.resize(n_models);
}

contracts::EvictionEntry ModelMemory::entry(contracts::EntryId id) const noexcept {
  const Place& place = places_[id];
  return {.key = (std::uint64_t{id} + 1) * spread_bits,
          .bytes = std::max<std::uint64_t>(place.bytes, 1),
          .cost_us = place.cost_us,
          .n_children = 0,
          .pinned = place.held != 0,
          .reuse = place.reuse};
}

base::ModelId ModelMemory::victim() noexcept {
  const contracts::EntryId id = policy_->victim();
  return id == contracts::no_entry ? base::no_model : ModelId{id};
}

void ModelMemory::insert(ModelId model, std::uint64_t bytes, double cost_us, double reuse, bool on_its_way) {
  Place& place = places_[model.value];
  place = {.bytes = bytes, .cost_us = cost_us, .reuse = reuse, .taken = true};
  used_bytes_ += bytes;
  if (on_its_way) place.held = static_cast<std::uint8_t>(Hold::on_its_way);
  policy_->on_insert(model.value);
  if (place.held != 0) return;
  evictable_bytes_ += bytes;
  policy_->on_evictable(model.value);
}

void ModelMemory::remove(ModelId model) noexcept {
  Place& place = places_[model.value];
  policy_->on_remove(model.value);
  used_bytes_ -= place.bytes;
  if (place.held == 0) evictable_bytes_ -= place.bytes;
  place = {};
}

void ModelMemory::hold(ModelId model, Hold why, bool on) noexcept {
  Place& place = places_[model.value];
  const std::uint8_t before = place.held;
  const auto bit = static_cast<std::uint8_t>(why);
  place.held = static_cast<std::uint8_t>(on ? before | bit : before & ~bit);
  if ((before == 0) == (place.held == 0)) return;
  if (place.held == 0) {
    evictable_bytes_ += place.bytes;
    policy_->on_evictable(model.value);
  } else {
    evictable_bytes_ -= place.bytes;
    policy_->on_held(model.value);
  }
}

void ModelMemory::used(ModelId model) noexcept {
  const contracts::EntryId id = model.value;
  policy_->on_hit({&id, 1});
}

}  // namespace infcore::engine
