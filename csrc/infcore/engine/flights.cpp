#include <infcore/engine/flights.hpp>

namespace infcore::engine {
namespace {

/// Whether who waits for `run` waits no longer for a device than if it ran itself.
bool is_as_urgent(const contracts::Request& run, const contracts::Request& other) noexcept {
  return run.tier <= other.tier && run.deadline_ns <= other.deadline_ns && run.defer_ns <= other.defer_ns &&
         run.require == other.require;  // labels may say where data goes, not only who is quick
}

void unlink(LiveRequest& request, LiveRequest*& first, LiveRequest** last) noexcept {
  Seat& seat = request.seat;
  (seat.before == nullptr ? first : seat.before->seat.after) = seat.after;
  if (seat.after != nullptr) {
    seat.after->seat.before = seat.before;
  } else if (last != nullptr) {
    *last = seat.before;
  }
  seat.before = seat.after = nullptr;
  seat.role = Seat::Role::none;
}

}  // namespace

Flights::Flights(std::uint32_t n_max, std::uint32_t n_models) : counts_(n_models) {
  deadlines_.reserve(n_max);
  timed_.reserve(n_max);
  free_timers_.reserve(n_max);
}

bool Flights::board(LiveRequest& request) noexcept {
  Flight& flight = *request.seat.flight;
  // relaxed: the owner wrote it
  if (const Landed landed = flight.landed.load(std::memory_order_relaxed); landed != Landed::not_yet) {
    if (landed == Landed::failed) return false;  // on its own: what it would have shared is over
    request.request.is_cached = request.seat.is_passenger = true;
    if (flight.is_cheaper) request.form.store(Reason::cheaper, std::memory_order_relaxed);  // as in note_form()
    ++counts_[request.request.model.value].answered;
    return false;
  }
  for (const LiveRequest* run = flight.running; run != nullptr; run = run->seat.after) {
    if (!is_as_urgent(run->request, request.request)) continue;
    request.seat.before = flight.last;
    (flight.last == nullptr ? flight.first : flight.last->seat.after) = &request;
    flight.last = &request;
    request.seat.role = Seat::Role::waits;
    if (request.request.deadline_ns != base::never_ns) set_timer(request);
    return true;
  }
  request.seat.after = flight.running;
  if (flight.running != nullptr) flight.running->seat.before = &request;
  flight.running = &request;
  request.seat.role = Seat::Role::runs;
  return false;
}

void Flights::stay_behind(LiveRequest& request) noexcept {
  if (request.seat.role == Seat::Role::runs) unlink(request, request.seat.flight->running, nullptr);
}

bool Flights::leave(LiveRequest& request) noexcept {
  if (request.seat.role != Seat::Role::waits) return false;
  drop_timer(request);
  unlink(request, request.seat.flight->first, &request.seat.flight->last);
  return true;
}

void Flights::ended(LiveRequest& request, const Action& action, bool was_open, base::TimeNs now_ns) noexcept {
  if (request.seat.role != Seat::Role::runs) return;
  Flight& flight = *request.seat.flight;
  unlink(request, flight.running, nullptr);
  const Reason reason = action.reason;
  const bool completed = was_open && action.kind == ActionKind::complete;
  const bool failed = completed && (reason == Reason::device_failed || reason == Reason::device_lost);
  if ((failed || (completed && reason == Reason::ok)) &&
      flight.landed.load(std::memory_order_relaxed) == Landed::not_yet) {
    flight.payload = request.payload;
    flight.member = action.member;
    flight.node = action.node;
    flight.reason = reason;
    flight.is_cheaper = form_of(request) == Reason::cheaper;
    flight.run_ns = now_ns - request.request.arrival_ns;
    flight.landed_ns = now_ns;
    flight.landed.store(failed ? Landed::failed : Landed::answered, std::memory_order_release);  // [F1]
  }
  if (flight.first == nullptr || flight.lands) return;
  flight.lands = true;
  flight.next_landing = nullptr;
  (last_landing_ == nullptr ? first_landing_ : last_landing_->next_landing) = &flight;
  last_landing_ = &flight;
}

Flight* Flights::next_landing() noexcept {
  Flight* const flight = first_landing_;
  if (flight == nullptr) return nullptr;
  first_landing_ = flight->next_landing;
  if (first_landing_ == nullptr) last_landing_ = nullptr;
  flight->lands = false;
  return flight;
}

LiveRequest* Flights::take_waiting(Flight& flight) noexcept {
  LiveRequest* const first = flight.first;
  for (LiveRequest* waits = first; waits != nullptr; waits = waits->seat.after) {
    drop_timer(*waits);
    waits->seat.before = nullptr;
    waits->seat.role = Seat::Role::none;
  }
  flight.first = flight.last = nullptr;
  return first;
}

LiveRequest* Flights::take_expired(base::TimeNs now_ns) noexcept {
  if (next_deadline_ns() > now_ns) return nullptr;
  LiveRequest* const request = timed_[deadlines_.top()];
  static_cast<void>(leave(*request));
  return request;
}

void Flights::add_to(Stats& stats, base::ModelId model) const noexcept {
  const Counts& counts = counts_[model.value];
  stats.attached += counts.answered;
  stats.failed += counts.failed;
  stats.lost += counts.lost;
  stats.expired += counts.expired;
  stats.cancelled += counts.cancelled;
}

void Flights::set_timer(LiveRequest& request) noexcept {
  if (free_timers_.empty()) {
    request.seat.timer = static_cast<std::uint32_t>(timed_.size());
    timed_.push_back(&request);
  } else {
    request.seat.timer = free_timers_.back();
    free_timers_.pop_back();
    timed_[request.seat.timer] = &request;
  }
  deadlines_.push(Index{this}, request.request.deadline_ns, request.seat.timer);
}

void Flights::drop_timer(LiveRequest& request) noexcept {
  if (request.request.deadline_ns == base::never_ns) return;
  deadlines_.remove(Index{this}, request.seat.timer);
  free_timers_.push_back(request.seat.timer);
}

}  // namespace infcore::engine
