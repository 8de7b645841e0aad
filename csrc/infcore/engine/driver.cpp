#include <infcore/engine/driver.hpp>

#include <sys/prctl.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>
#include <utility>

namespace infcore::engine {
namespace {

constexpr std::uintptr_t cancel_tag = 1;       ///< low bit of a ring item: not an arrival but a cancel
constexpr std::uint32_t undrained_max = 1024;  ///< ended requests of threads that nobody has looked at
/// Arrivals that may be under way to a machine which makes room for them, besides those it holds.
constexpr std::uint32_t beyond_full_max = 1024;
constexpr TimeNs manual_poll_ns = 1'000'000;  ///< how often a clock that only a test moves is looked at

std::uint32_t open_max(const EngineConfig& config) noexcept {
  return config.max_requests + (config.shed_lowest ? std::min(config.max_requests, beyond_full_max) : 0);
}

}  // namespace

Driver::Driver(const EngineConfig& config, route::Fleet& fleet, contracts::LatencyTable& latency,
               const std::string& policy, const std::string& batching, std::uint64_t seed,
               const std::atomic<TimeNs>* manual_clock, const route::RoutingOptions& options)
    : ingress_(2 * static_cast<std::size_t>(open_max(config))),  // each request: one arrival, at most one cancel
      fleet_(fleet),
      machine_(config, fleet, latency, route::make_routing_policy(policy, seed, options),
               batch::make_batching_policy(batching)),
      flights_(open_max(config), config.max_models),
      model_epochs_(config.max_models),
      mailboxes_(config.max_nodes),
      n_refused_(config.max_models),
      rungs_(config.max_models),
      run_{config, policy, batching, seed, options},
      built_under_(base::fork_generation()),
      // Where the machine makes room, it is the one that bounds tiers.
      places_(open_max(config), config.shed_lowest ? std::span<const std::uint32_t>() : run_.engine.tier_capacity),
      manual_clock_(manual_clock) {
  for (auto& mailbox : mailboxes_) mailbox = std::make_unique<Mailbox>();
}

// ---- callers

bool Driver::submit(LiveRequest& request, bool defer) noexcept {
  const std::uint16_t tier = request.request.tier;
  using Took = queue::Places<>::Took;
  if (const Took took = places_.take(tier); took != Took::place) {
    if (took == Took::none_after_all && places_.is_wanted()) wake_for_room();
    return false;
  }
  request.request.arrival_ns = request.request.arrival_ns == 0 ? now_ns() : request.request.arrival_ns;
  request.request.cookie = reinterpret_cast<std::uintptr_t>(&request);
  const bool pushed = ingress_.try_push(reinterpret_cast<std::uintptr_t>(&request));
  if (!pushed) {
    places_.give(tier);
    if (places_.is_wanted()) wake_for_room();
  } else if (!defer) {
    dispatcher_.notify();
  }
  return pushed;
}

void Driver::wait_for_room(const LiveRequest& request, double timeout_s) {
  places_.want();
  static_cast<void>(room_.wait([&] { return places_.has_room(request.request.tier) || refuses(); }, timeout_s));
  places_.want_no_more();
}

void Driver::want_room(Hub& hub) {
  const std::scoped_lock lock(want_room_mutex_);
  if (std::find(want_room_.begin(), want_room_.end(), &hub) != want_room_.end()) return;
  want_room_.push_back(&hub);
  places_.want();
}

void Driver::wake_for_room() noexcept {
  room_.wake();
  const std::scoped_lock lock(want_room_mutex_);
  for (Hub* hub : want_room_) hub->wake();
  places_.want_no_more(static_cast<std::uint32_t>(want_room_.size()));
  want_room_.clear();
}

bool Driver::end_outside(LiveRequest& request, ActionKind kind, Reason reason) noexcept {
  request.kind = kind;
  request.reason = reason;
  request.end_ns = now_ns();
  LiveState expected = LiveState::pending;
  return request.state.compare_exchange_strong(expected, LiveState::done, std::memory_order_acq_rel,
                                               std::memory_order_acquire);
}

bool Driver::cancel_outside(LiveRequest& request) noexcept {
  request.end_ns = now_ns();
  LiveState expected = LiveState::pending;
  return request.state.compare_exchange_strong(expected, LiveState::cancelled, std::memory_order_acq_rel,
                                               std::memory_order_acquire);
}

bool Driver::cancel(LiveRequest& request) noexcept {
  LiveState expected = LiveState::pending;
  // [L1] whoever moves the state from pending first says how it ended; pairs with end().
  if (!request.state.compare_exchange_strong(expected, LiveState::cancelled, std::memory_order_acq_rel,
                                             std::memory_order_acquire)) {
    return false;
  }
  request.end_ns = now_ns();
  // Room is certain: the ring holds two items for each request that may be open.
  while (!ingress_.try_push(reinterpret_cast<std::uintptr_t>(&request) | cancel_tag)) dispatcher_.notify();
  dispatcher_.notify();
  return true;
}

void Driver::flush() noexcept {
  if (ingress_.empty()) return;
  std::unique_lock lock(owner_, std::try_to_lock);
  if (!lock.owns_lock()) return dispatcher_.notify();
  Outbox& outbox = outbox_of_thread();
  settle(outbox, now_ns());
  lock.unlock();
  deliver(outbox);
}

Hub& Driver::add_hub(bool for_loop) {
  const std::scoped_lock lock(owner_);
  hubs_.push_back(std::make_unique<Hub>(for_loop));
  return *hubs_.back();
}

// ---- the owner's step

Driver::Outbox& Driver::outbox_of_thread() noexcept {
  thread_local Outbox outbox;
  return outbox;
}

/// Brings the machine up to date and carries out what it asks for, as far as that needs the lock.
void Driver::settle(Outbox& outbox, TimeNs now_ns) noexcept {
  std::array<std::uintptr_t, 64> items;
  for (std::size_t n = ingress_.try_pop_bulk(items); n > 0; n = ingress_.try_pop_bulk(items)) {
    for (std::size_t i = 0; i < n; ++i) {
      LiveRequest& request = *reinterpret_cast<LiveRequest*>(items[i] & ~cancel_tag);
      if ((items[i] & cancel_tag) == 0) {
        // Rejected ones end in the action below; an arrival never finds its cancel first, the ring keeps their order.
        arrive(outbox, request, now_ns);
      } else {
        request.cancel_seen = true;
        if (request.ended && !request.held_back) {
          release(outbox, request);
        } else if (!request.ended && !leave_flight(outbox, request, now_ns)) {
          machine_.cancel(now_ns, request.handle, Reason::caller);
        }
      }
    }
  }
  expire_waiting(outbox, now_ns);
  do {
    machine_.tick(now_ns);
    machine_.schedule(now_ns);
    carry_out(outbox, now_ns);
  } while (land(outbox, now_ns));
  next_timer_ns_.store(std::min(machine_.next_timer_ns(), flights_.next_deadline_ns()),
                       std::memory_order_seq_cst);  // [T1], see deliver()
}

void Driver::carry_out(Outbox& outbox, TimeNs now_ns) noexcept {
  for (const Action& action : machine_.actions()) {
    if (action.kind == ActionKind::dispatch || action.kind == ActionKind::hedge) {
      Mailbox& mailbox = *mailboxes_[action.node.value];
      // [M1] release: the open batch is there; pairs with the acquire in wait_batch().
      if (!mailbox.called.exchange(true, std::memory_order_acq_rel)) outbox.called.push_back(action.node);
      if (action.reason != Reason::none) note_form(action);
    } else if (action.kind == ActionKind::defer) {
      note_form(action);
    } else if (is_of_model(action.kind)) {
      orders_.push_back({.node = action.node,
                         .model = ModelId{action.member},
                         .generation = generation(action.node),
                         .loads = action.kind == ActionKind::load});
      outbox.orders = true;
    } else if (action.kind != ActionKind::retry) {
      end(outbox, *reinterpret_cast<LiveRequest*>(action.cookie), action, now_ns);
    }
  }
  machine_.clear_actions();
}

void Driver::end(Outbox& outbox, LiveRequest& request, const Action& action, TimeNs now_ns) noexcept {
  request.ended = true;
  const bool was_open = request.state.load(std::memory_order_acquire) == LiveState::pending;
  if (was_open) {
    request.kind = action.kind;
    request.reason = action.reason;
    request.node = action.node;
    request.member = action.member;
    request.hint_s = action.hint_s;
    request.end_ns = now_ns;
    const bool carries = action.kind == ActionKind::complete && outbox.payload != nullptr &&
                         !request.seat.is_passenger &&
                         (action.batch_id == outbox.batch_id ||
                          (outbox.batch_id == every_batch && action.reason == Reason::device_failed));
    request.payload = carries ? outbox.payload : nullptr;
    if (carries) ++outbox.n_payload_used;  // its reference is the request's from here on, whoever ends it
  }
  if (request.seat.flight != nullptr) flights_.ended(request, action, was_open, now_ns);
  request.held_back = request.n_readers > 0;
  if (!request.held_back) hand_over(outbox, request);
}

/// The request ends for its caller, unless he has cancelled it: then its future lets go of the payload.
void Driver::hand_over(Outbox& outbox, LiveRequest& request) noexcept {
  LiveState expected = LiveState::pending;
  // [L1] release: the outcome above is readable by whoever sees `done`.
  if (request.state.compare_exchange_strong(expected, LiveState::done, std::memory_order_acq_rel,
                                            std::memory_order_acquire)) {
    release(outbox, request);
  } else if (request.cancel_seen) {
    release(outbox, request);
  }
  places_.give(request.request.tier);
  outbox.room = outbox.room || places_.is_wanted();
}

/// The worker has copied the batch's inputs. Members that ended meanwhile, since another node was first, are let go.
void Driver::inputs_read(Outbox& outbox, const WorkBatch& batch) noexcept {
  for (LiveRequest* const request : batch.members) {
    if (--request->n_readers == 0 && std::exchange(request->held_back, false)) hand_over(outbox, *request);
  }
}

/// Not as it came: what its future says of that.
void Driver::note_form(const Action& action) noexcept {
  LiveRequest& request = *reinterpret_cast<LiveRequest*>(action.cookie);
  // relaxed: for the future it is ordered by `state`
  request.form.store(action.reason, std::memory_order_relaxed);
}

/// The engine lets go of the request: onto its hub's chain.
void Driver::release(Outbox& outbox, LiveRequest& request) noexcept {
  if (request.hub->fd() < 0) n_undrained_.fetch_add(1, std::memory_order_relaxed);
  for (Ended& ended : outbox.ended) {
    if (ended.hub != request.hub) continue;
    ended.last->next = &request;
    ended.last = &request;
    return;
  }
  outbox.ended.push_back({request.hub, &request, &request});
}

void Driver::deliver(Outbox& outbox) noexcept {
  for (const NodeId node : outbox.called) mailboxes_[node.value]->sleeper.notify();
  bool look =
      false;  // callbacks are to run, or many were never looked at; whoever made this step may be without the GIL
  for (const Ended& ended : outbox.ended) {
    Hub& hub = *ended.hub;  // the requests may be gone after the push, the hub not
    if (hub.chain().push_chain(ended.first, ended.last) || hub.fd() < 0) hub.wake();
    look = look || (hub.fd() < 0 && wants_drain(hub));
  }
  outbox.called.clear();
  outbox.ended.clear();
  outbox.batch_id = 0;
  outbox.payload = nullptr;
  outbox.n_payload_used = 0;
  if (std::exchange(outbox.room, false)) wake_for_room();
  if (std::exchange(outbox.orders, false)) order_taker_.notify();
  // A step may have set an earlier timer than the one that the dispatcher sleeps for. Each side writes its own and then
  // reads the other's, all seq_cst, so that one of them sees both [T1].
  if (look || next_timer_ns_.load(std::memory_order_seq_cst) < asleep_until_ns_.load(std::memory_order_seq_cst)) {
    dispatcher_.notify();
  }
}

// ---- threads

bool Driver::wants_drain(Hub& threads) const noexcept {
  if (threads.chain().empty()) return false;
  return prompt() || n_undrained_.load(std::memory_order_relaxed) > undrained_max;
}

bool Driver::dispatch_loop(Hub& threads) noexcept {
  while (!stopping_.load(std::memory_order_acquire)) {
    const TimeNs timer_ns = next_timer_ns_.load(std::memory_order_acquire);
    asleep_until_ns_.store(timer_ns, std::memory_order_seq_cst);  // [T1], see deliver()
    const TimeNs until_ns = manual_clock_ == nullptr ? timer_ns : base::monotonic_ns() + manual_poll_ns;
    static_cast<void>(dispatcher_.wait(
        [&] {
          return !ingress_.empty() || stopping_.load(std::memory_order_acquire) || wants_drain(threads) ||
                 next_timer_ns_.load(std::memory_order_seq_cst) < timer_ns;  // [T1]
        },
        until_ns));
    asleep_until_ns_.store(std::numeric_limits<TimeNs>::min(),
                           std::memory_order_seq_cst);  // awake: nobody need wake it
    with_machine([](LoggedMachine&, TimeNs) {});
    if (wants_drain(threads)) return false;
  }
  return true;
}

void Driver::stop() noexcept {
  stopping_.store(true, std::memory_order_release);
  dispatcher_.notify();
  order_taker_.notify();
  for (const auto& mailbox : mailboxes_) mailbox->sleeper.notify();
}

void Driver::control(NodeId node) noexcept {
  mailboxes_[node.value]->control.store(true, std::memory_order_release);
  mailboxes_[node.value]->sleeper.notify();
}

void Driver::want_punctual_sleeps() noexcept { prctl(PR_SET_TIMERSLACK, 1'000, 0, 0, 0); }

Wake Driver::wait_batch(NodeId node) noexcept { return wait_batch_until(node, base::never_ns); }

Wake Driver::wait_batch_until(NodeId node, TimeNs until_ns) noexcept {
  Mailbox& mailbox = *mailboxes_[node.value];
  const bool ready = mailbox.sleeper.wait(
      [&] {
        return mailbox.called.load(std::memory_order_acquire) || mailbox.control.load(std::memory_order_acquire) ||
               stopping_.load(std::memory_order_acquire);
      },
      until_ns);
  if (mailbox.control.exchange(false, std::memory_order_acq_rel)) return Wake::control;
  if (stopping_.load(std::memory_order_acquire)) return Wake::stop;
  return ready ? Wake::batch : Wake::nothing;
}

bool Driver::claim(NodeId node, WorkBatch& batch) {
  batch.members.clear();
  Outbox& outbox = outbox_of_thread();
  {
    const std::scoped_lock lock(owner_);
    const TimeNs t_ns = now_ns();
    settle(outbox, t_ns);
    mailboxes_[node.value]->called.store(false, std::memory_order_relaxed);
    if (const Batch* taken = machine_.claim(t_ns, node)) {
      mailboxes_[node.value]->in_run = true;
      batch.id = taken->id;
      batch.model = taken->model;
      batch.shape = taken->shape;
      for (const std::uint32_t slot : taken->members) {
        batch.members.push_back(reinterpret_cast<LiveRequest*>(machine_.cookie(slot)));
        ++batch.members.back()->n_readers;
      }
    }
    settle(outbox, t_ns);
    if (machine_.has_open_batch(node)) mailboxes_[node.value]->called.store(true, std::memory_order_relaxed);
  }
  deliver(outbox);
  return !batch.members.empty();
}

void Driver::started(NodeId node, const WorkBatch& batch) noexcept {
  Outbox& outbox = outbox_of_thread();
  with_machine([&](LoggedMachine& machine, TimeNs now_ns) {
    inputs_read(outbox, batch);
    machine.started(now_ns, node, batch.id);
  });
}

std::uint32_t Driver::finish(NodeId node, const WorkBatch& batch, bool ok, void* payload, bool runs_more) noexcept {
  Outbox& outbox = outbox_of_thread();
  std::uint32_t n_used = 0;
  {
    const std::scoped_lock lock(owner_);
    const TimeNs t_ns = now_ns();
    outbox.batch_id = batch.id;
    outbox.payload = payload;
    Mailbox& mailbox = *mailboxes_[node.value];
    mailbox.in_run = runs_more;
    if (!machine_.complete(t_ns, node, batch.id, ok) && !runs_more && !mailbox.kept_lost) {
      machine_.node_back(t_ns, node);
    }
    settle(outbox, t_ns);
    n_used = outbox.n_payload_used;
  }
  deliver(outbox);
  return static_cast<std::uint32_t>(batch.members.size()) - n_used;
}

Wake Driver::run_emulated(NodeId node, device::EmulatedTimer& timer, const std::vector<contracts::Curve>& curves,
                          std::uint32_t generation) noexcept {
  const std::atomic<std::uint32_t>& present = mailboxes_[node.value]->generation;
  WorkBatch batch;
  while (present.load(std::memory_order_acquire) == generation) {
    const Wake wake = wait_batch(node);
    if (wake != Wake::batch) return wake;
    if (!claim(node, batch)) continue;
    started(node, batch);
    const TimeNs until_ns =
        base::add_ns(base::monotonic_ns(), base::to_ns(timer.service_s(curves[batch.model.value], batch.shape)));
    const timespec until{until_ns / 1'000'000'000, until_ns % 1'000'000'000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr) == EINTR) {
    }
    // Abandoned meanwhile: its batch was given up, and the node is another device's.
    if (present.load(std::memory_order_acquire) != generation) break;
    static_cast<void>(finish(node, batch, true, nullptr));
  }
  return Wake::stop;
}

}  // namespace infcore::engine
