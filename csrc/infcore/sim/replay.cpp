#include <infcore/base/errors.hpp>
#include <infcore/sim/replay.hpp>

#include <algorithm>
#include <utility>

namespace infcore::sim {
namespace {

using engine::Action;
using engine::ActionKind;
using engine::EventKind;

void add(engine::Digest& digest, TimeNs now_ns, const Action& action) noexcept {
  digest.add(static_cast<std::uint64_t>(now_ns));
  digest.add(action.cookie);
  digest.add(action.batch_id);
  digest.add(std::uint64_t{action.node.value} << 32 | action.member);
  digest.add(std::uint64_t{static_cast<std::uint8_t>(action.kind)} << 8 | static_cast<std::uint8_t>(action.reason));
}

bool same(const Action& a, const Action& b) noexcept {
  return a.cookie == b.cookie && a.batch_id == b.batch_id && a.node == b.node && a.member == b.member &&
         a.kind == b.kind && a.reason == b.reason;
}

bool ends(ActionKind kind) noexcept {
  return kind == ActionKind::complete || kind == ActionKind::cancel || kind == ActionKind::shed ||
         kind == ActionKind::reject;
}

std::string text_of(const Action& a) {
  return "action " + std::to_string(static_cast<int>(a.kind)) + ", reason " +
         std::to_string(static_cast<int>(a.reason)) + ", request " + std::to_string(a.cookie) + ", batch " +
         std::to_string(a.batch_id) + ", node " + std::to_string(a.node.value) + ", member " + std::to_string(a.member);
}

/// A name out of a log that is wrong may be no text at all.
std::string printable(std::string text) {
  for (char& c : text) c = c >= ' ' && c <= '~' ? c : '?';
  return text;
}

}  // namespace

bool Replay::run(std::uint64_t n_records) {
  for (; n_records > 0; --n_records) {
    if (!reader_.next(record_)) {
      // Of a crashed engine's last step, not every action need have been written.
      if (reader_.complete()) nothing_left_over();
      for (RecordedModel& model : models_)
        model.config.load_s = machine_ ? machine_->load_s(model.id, model.config.load_s) : 0.0;
      for (const RecordedNode& node : nodes_) {
        if (node_at_[node.id.value] == static_cast<std::uint32_t>(&node - nodes_.data())) keep_curves(node.id);
      }
      return false;
    }
    step();
  }
  return true;
}

void Replay::step() {
  if (record_.is_action) return match_action();
  nothing_left_over();
  ++n_events_;
  if (derailed_) return pass_over();
  try {
    event();
  } catch (const engine::BadLog&) {
    throw;
  } catch (const Error& e) {                    // what the fleet or a registry says does not tell where
    derailed_ = first_difference_.has_value();  // an id may be in use still that was free when things went otherwise
    if (derailed_) return pass_over();
    reader_.fail(record_, "record", "one that can't be carried out (" + printable(e.what()) + ")",
                 "a log of this engine");
  }
  if (!machine_) return;
  due_.clear();
  due_terms_.clear();
  n_matched_ = n_terms_matched_ = 0;
  due_.swap(machine_->actions());
  due_terms_.swap(machine_->terms());
  due_ns_ = record_.now_ns;
  for (const Action& action : due_) {
    if (!ends(action.kind)) continue;
    handles_.erase(action.cookie);
    blocks_.erase(action.cookie);
  }
}

/// What the log says was decided still counts.
void Replay::pass_over() {
  due_.clear();
  n_matched_ = 0;
  const EventKind kind = record_.kind;
  if (kind == EventKind::claim) recorded_.add(record_.batch_id);
  if (kind == EventKind::cancel || kind == EventKind::complete || kind == EventKind::signal ||
      kind == EventKind::loaded) {
    recorded_.add(1);
  }
  if (kind == EventKind::arrive) ++n_requests_;
}

// ---- decisions

void Replay::match_action() {
  ++n_actions_;
  add(recorded_, record_.now_ns, record_.action);
  if (n_matched_ == due_.size()) return differ(text_of(record_.action), "nothing");
  const Action& replayed = due_[n_matched_++];
  add(replayed_, due_ns_, replayed);
  if (!same(replayed, record_.action)) return differ(text_of(record_.action), text_of(replayed));
  if (record_.has_terms) match_terms();
}

/// They decide nothing, so that they are in no digest; but they are what a policy of costs would have decided by.
void Replay::match_terms() {
  if (n_terms_matched_ == due_terms_.size()) return;  // after a difference there may be fewer
  const route::CostTerms& replayed = due_terms_[n_terms_matched_++];
  for (std::size_t i = 0; i < engine::cost_terms.size(); ++i) {
    const auto ours = static_cast<float>(replayed.*engine::cost_terms[i]);
    if (ours == record_.terms[i]) continue;
    const std::string name = std::string(engine::cost_term_names[i]) + " of ";
    return differ(name + std::to_string(record_.terms[i]) + " us", name + std::to_string(ours) + " us");
  }
}

void Replay::nothing_left_over() {
  if (n_matched_ < due_.size()) differ("nothing", text_of(due_[n_matched_]));
  for (; n_matched_ < due_.size(); ++n_matched_) add(replayed_, due_ns_, due_[n_matched_]);
}

void Replay::differ(std::string recorded, std::string replayed) {
  if (first_difference_) return;
  first_difference_ = {.byte = record_.byte,
                       .record = record_.index,
                       .now_ns = record_.now_ns,
                       .recorded = std::move(recorded),
                       .replayed = std::move(replayed)};
}

void Replay::compare(std::uint64_t recorded, std::uint64_t replayed, const char* what) {
  recorded_.add(recorded);
  replayed_.add(replayed);
  if (recorded != replayed) differ(what + std::to_string(recorded), what + std::to_string(replayed));
}

// ---- events

void Replay::event() {
  const engine::EventRecord& r = record_;
  switch (r.kind) {
    case EventKind::run:
      return build();
    case EventKind::end:
      return;
    case EventKind::prompt:
      next_prompt_ = r.prompt;
      next_blocks_ = r.blocks;
      return;
    case EventKind::arrive:
      return arrive();
    case EventKind::cancel: {
      const auto found = handles_.find(r.request);
      const bool cancelled = found != handles_.end() && machine_->cancel(r.now_ns, found->second, r.reason);
      return compare(1, cancelled ? 1 : 0, "cancelled ");
    }
    case EventKind::cancel_all:
      return machine_->cancel_all(r.now_ns, r.reason);
    case EventKind::tick:
      return machine_->tick(r.now_ns);
    case EventKind::schedule:
      return machine_->schedule(r.now_ns);
    case EventKind::claim:
      return claim();
    case EventKind::complete:
      return complete_batch();
    case EventKind::model:
    case EventKind::label:
    case EventKind::add_model:
    case EventKind::remove_model:
    case EventKind::preload:
    case EventKind::add_node:
    case EventKind::prior:
      return membership();
    default:
      return node_event();
  }
}

void Replay::build() {
  config_ = record_.run;
  const engine::EngineConfig& config = config_.engine;
  auto routing = route::make_routing_policy(config_.policy, config_.seed, config_.options);
  auto batching = batch::make_batching_policy(config_.batching);
  fleet_ = std::make_unique<route::Fleet>(config.max_nodes, config.max_models);
  latency_ = std::make_unique<contracts::LatencyTable>(config.max_nodes, config.max_models);
  machine_ =
      std::make_unique<engine::StateMachine>(config, *fleet_, *latency_, std::move(routing), std::move(batching));
  node_at_.assign(config.max_nodes, none);
  model_at_.assign(config.max_models, none);
  running_.resize(config.max_nodes);
}

void Replay::membership() {
  const engine::EventRecord& r = record_;
  switch (r.kind) {
    case EventKind::model:
      fleet_->model_id(r.name, r.version);
      return;
    case EventKind::label:
      fleet_->label_bits({{r.name, r.value}}, true);
      labels_.emplace_back(r.name, r.value);
      return;
    case EventKind::add_model: {
      if (r.model.value >= fleet_->n_models())
        reader_.fail(r, "model", std::to_string(r.model.value), "one named before");
      std::uint32_t& at = model_at_[r.model.value];
      if (at == none) {
        at = static_cast<std::uint32_t>(models_.size());
        models_.push_back({.id = r.model});
      }
      models_[at].name = fleet_->model_name(r.model);
      models_[at].version = fleet_->model_version(r.model);
      models_[at].config = r.model_config;
      return machine_->add_model(r.model, r.model_config);
    }
    case EventKind::preload:
      check_model(r.model);
      if (config_.engine.residency.empty()) reader_.fail(r, "preload", "", "none without residency");
      return machine_->preload(r.model);
    case EventKind::remove_model:
      check_model(r.model);
      return machine_->remove_model(r.now_ns, r.model);
    case EventKind::add_node:
      if (node_at_[r.node.value] != none) keep_curves(r.node);
      fleet_->add_at(r.node, r.spec);
      node_at_[r.node.value] = static_cast<std::uint32_t>(nodes_.size());
      nodes_.push_back({.id = r.node, .added_ns = r.now_ns, .spec = r.spec, .config = r.node_config});
      running_[r.node.value].clear();
      return machine_->add_node(r.node, r.node_config);
    default:
      check_model(r.model);
      check_node(r.node);
      return latency_->set_prior(r.model, r.node, r.curve);
  }
}

void Replay::node_event() {
  const engine::EventRecord& r = record_;
  check_node(r.node);
  switch (r.kind) {
    case EventKind::residency:
      return residency();
    case EventKind::drain_node:
      return machine_->drain_node(r.now_ns, r.node);
    case EventKind::remove_node:
      nodes_[node_at_[r.node.value]].removed_ns = r.now_ns;
      return machine_->remove_node(r.now_ns, r.node);
    case EventKind::node_lost:
      return machine_->node_lost(r.now_ns, r.node);
    case EventKind::node_back:
      return machine_->node_back(r.now_ns, r.node);
    case EventKind::node_failed:
      return machine_->node_failed(r.now_ns, r.node);
    case EventKind::progress:
      return machine_->progress(r.now_ns, r.node);
    case EventKind::may_hold:
      check_model(r.model);
      return machine_->may_hold(r.now_ns, r.node, r.model, r.ok);
    case EventKind::loaded:
      check_model(r.model);
      return compare(1, machine_->loaded(r.now_ns, r.node, r.model, r.ok, r.load_s) ? 1 : 0, "load counted ");
    case EventKind::checked:
      return machine_->checked(r.now_ns, r.node, r.ok);
    case EventKind::first_token:
      return machine_->first_token(r.now_ns, r.node, r.batch_id);
    case EventKind::signal:
      return compare(1, fleet_->signal(r.node, r.signal) ? 1 : 0, "signal taken ");
    default:  // started
      for (Running& batch : running_[r.node.value]) {
        if (batch.id == r.batch_id) batch.start_ns = r.now_ns;
      }
      return machine_->started(r.now_ns, r.node, r.batch_id);
  }
}

void Replay::residency() {
  const std::uint32_t n_models = fleet_->n_models();
  for (const ModelId model : record_.held) {
    if (model.value >= n_models) reader_.fail(record_, "model", std::to_string(model.value), "one named before");
  }
  for (ModelId model{0}; model.value < n_models; ++model.value) {
    if (fleet_->model_version(model) == 0) continue;
    const bool wanted = std::find(record_.held.begin(), record_.held.end(), model) != record_.held.end();
    if (wanted == fleet_->resident(record_.node, model)) continue;
    if (wanted) {
      fleet_->load_model(record_.node, model);
    } else {
      fleet_->unload_model(record_.node, model);
    }
  }
  machine_->residency_changed(record_.now_ns, record_.node);
}

void Replay::arrive() {
  check_model(record_.arrived.model);
  ++n_requests_;
  contracts::Request request = record_.arrived;
  request.session = next_prompt_.session;
  request.prompt_tokens = next_prompt_.prompt_tokens;
  request.block_size = next_prompt_.block_size;
  request.n_blocks = next_prompt_.n_blocks;
  if (request.n_blocks > 0) {
    request.blocks = blocks_.insert_or_assign(record_.request, std::move(next_blocks_)).first->second.data();
  }
  next_prompt_ = {};
  const engine::RequestHandle handle = machine_->arrive(record_.now_ns, request);
  if (handle != 0) handles_.emplace(record_.request, handle);  // step() erases it again if it ended at once
  if (!collect_) return;
  arrivals_.push_back(record_.arrived);
  arrivals_.back().model.value = model_at_[record_.arrived.model.value];
}

void Replay::claim() {
  check_node(record_.node);
  const engine::Batch* batch = machine_->claim(record_.now_ns, record_.node);
  if (batch != nullptr && collect_) {
    running_[record_.node.value].push_back({.id = batch->id, .model = batch->model, .shape = batch->shape});
  }
  compare(record_.batch_id, batch == nullptr ? 0 : batch->id, "claimed batch ");
}

void Replay::complete_batch() {
  const engine::EventRecord& r = record_;
  check_node(r.node);
  const bool counted = machine_->complete(r.now_ns, r.node, r.batch_id, r.ok);
  compare(1, counted ? 1 : 0, "completion counted ");
  std::vector<Running>& running = running_[r.node.value];
  const auto it = std::find_if(running.begin(), running.end(), [&](const Running& b) { return b.id == r.batch_id; });
  if (it == running.end()) return;
  if (counted) {
    batches_.push_back({.model = model_at_[it->model.value],
                        .node = node_at_[r.node.value],
                        .shape = it->shape,
                        .start_ns = it->start_ns,
                        .end_ns = r.now_ns,
                        .ok = r.ok});
  }
  running.erase(it);
}

void Replay::keep_curves(NodeId node) {
  if (!collect_) return;
  for (std::uint32_t at = 0; at < models_.size(); ++at) {
    const contracts::LatencyModel& learned = latency_->at(models_[at].id, node);
    if (!learned.has_prior() && learned.n_observed() == 0) continue;
    curves_.push_back({.model = at,
                       .node = node_at_[node.value],
                       .curve = learned.curve(),
                       .spread = learned.spread(),
                       .n_observed = learned.n_observed()});
  }
}

void Replay::check_node(NodeId node) const {
  if (node_at_[node.value] == none) reader_.fail(record_, "node", std::to_string(node.value), "one added before");
}

void Replay::check_model(ModelId model) const {
  if (model_at_[model.value] == none) reader_.fail(record_, "model", std::to_string(model.value), "one added before");
}

}  // namespace infcore::sim
