// What the driver does with requests that have equal keys: the first runs, and those who come meanwhile wait for it.
#include <infcore/engine/driver.hpp>

#include <utility>

namespace infcore::engine {

void Driver::arrive(Outbox& outbox, LiveRequest& request, TimeNs now_ns) noexcept {
  const ModelId model = request.request.model;
  const bool is_keyed = request.seat.flight != nullptr;
  if (is_keyed && flights_.board(request)) return;
  if (closing_ && !request.seat.is_passenger) {  // no worker would run it
    if (is_keyed) flights_.stay_behind(request);
    ++flights_.counts(model).cancelled;
    return end(outbox, request, {.kind = ActionKind::cancel, .reason = Reason::closing}, now_ns);
  }
  if (request.epoch != model_epochs_[model.value]) {
    if (is_keyed) flights_.stay_behind(request);
    if (request.seat.is_passenger) {  // of a run that its model's leaving did not stop
      end(outbox, request, {.kind = ActionKind::complete, .reason = Reason::cached}, now_ns);
    } else {
      end(outbox, request, {.kind = ActionKind::reject, .reason = Reason::unloaded}, now_ns);
    }
    return;
  }
  request.handle = machine_.arrive(now_ns, request.request);
  if (is_keyed && request.handle == 0) flights_.stay_behind(request);  // the next of those who waited may run at once
  rungs_[model.value].store(static_cast<std::uint8_t>(machine_.rung(model)), std::memory_order_relaxed);
}

bool Driver::leave_flight(Outbox& outbox, LiveRequest& request, TimeNs now_ns) noexcept {
  if (request.seat.flight == nullptr || !flights_.leave(request)) return false;
  ++flights_.counts(request.request.model).cancelled;
  end(outbox, request, {.kind = ActionKind::cancel, .reason = Reason::caller}, now_ns);
  return true;
}

void Driver::expire_waiting(Outbox& outbox, TimeNs now_ns) noexcept {
  while (LiveRequest* const late = flights_.take_expired(now_ns)) {
    ++flights_.counts(late->request.model).expired;
    end(outbox, *late, {.kind = ActionKind::shed, .reason = Reason::deadline}, now_ns);
  }
}

/// Those whose run has ended hear of it; where it ended without an answer the first of them runs in its place. true:
/// the machine has something to do again.
bool Driver::land(Outbox& outbox, TimeNs now_ns) noexcept {
  bool any = false;
  while (Flight* const flight = flights_.next_landing()) {
    any = true;
    const Landed landed = flight->landed.load(std::memory_order_relaxed);  // the owner wrote it
    LiveRequest* waits = flights_.take_waiting(*flight);
    while (waits != nullptr) {
      LiveRequest& request = *waits;
      waits = std::exchange(request.seat.after, nullptr);  // before it may board again
      Flights::Counts& counts = flights_.counts(request.request.model);
      if (state_of(request) != LiveState::pending) {  // its caller's cancel is under way
        ++counts.cancelled;
        end(outbox, request, {.kind = ActionKind::cancel, .reason = Reason::caller}, now_ns);
      } else if (landed == Landed::failed) {
        request.seat.is_passenger = true;
        ++(flight->reason == Reason::device_lost ? counts.lost : counts.failed);
        end(outbox, request, {.node = flight->node, .kind = ActionKind::complete, .reason = flight->reason}, now_ns);
      } else {
        arrive(outbox, request, now_ns);
      }
    }
  }
  return any;
}

}  // namespace infcore::engine
