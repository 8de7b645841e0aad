#pragma once
#include <infcore/contracts/request.hpp>
#include <infcore/device/packer.hpp>
#include <infcore/engine/actions.hpp>
#include <infcore/engine/flight.hpp>
#include <infcore/engine/hub.hpp>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>

namespace infcore::engine {

enum class LiveState : std::uint8_t { pending, done, cancelled };

/// A request of the live engine: plain data inside the caller's future, which the engine borrows from submit until it
/// puts the request on its hub's chain, exactly once. In between the state machine's owner writes it; `state` alone is
/// shared: whoever moves it from pending first, the engine or the cancelling caller, decides how it ended.
struct LiveRequest {
  static constexpr std::uint32_t rows_inline = 2, dims_inline = 8;

  LiveRequest* next{};  ///< in the hub's chain
  void* owner{};        ///< the future that this lies in
  Hub* hub{};
  contracts::Request request{};
  std::uint32_t epoch{};   ///< of the model's definition that the inputs were checked against
  std::uint64_t handle{};  ///< of the state machine
  std::atomic<LiveState> state{LiveState::pending};
  bool ended{}, cancel_seen{};  ///< owner's: a cancelled request leaves when both are true
  /// Owner's: workers that copy the inputs just now. One that was hedged may have been answered meanwhile: its outcome
  /// is held back until nobody reads them, since they are the caller's again then.
  std::uint16_t n_readers{};
  bool held_back{};
  Seat seat{};
  Reason reason{};
  std::atomic<Reason> form{Reason::none};  ///< in which it was served, where that is not as it came
  float hint_s{};                          ///< Action::hint_s
  ActionKind kind{};
  base::NodeId node{base::no_node};
  std::uint32_t member{};  ///< its place in the batch whose result this is
  void* payload{};         ///< one reference to the batch's result or error; nullptr where there is none
  base::TimeNs end_ns{};
  device::RowSource* rows{rows_here.data()};
  std::array<device::RowSource, rows_inline> rows_here{};
  std::array<std::int64_t, dims_inline> dims_here{};
  std::unique_ptr<device::RowSource[]> rows_more{};  ///< only where a model has more inputs than fit here
  std::unique_ptr<std::int64_t[]> dims_more{};
  std::unique_ptr<std::uint64_t[]> blocks{};  ///< what request.blocks points to

  void room_for_rows(std::uint32_t n) {
    if (n > rows_inline) rows_more = std::make_unique<device::RowSource[]>(n), rows = rows_more.get();
  }
  /// Where the lengths of ragged inputs are kept: the caller may reshape his array.
  [[nodiscard]] std::int64_t* room_for_dims(std::uint32_t n) {
    if (n > dims_inline) dims_more = std::make_unique<std::int64_t[]>(n);
    return n > dims_inline ? dims_more.get() : dims_here.data();
  }
};

/// Blocks a thread until the request has ended; false at the time-out (seconds; negative: none).
inline bool wait_ended(LiveRequest& request, double timeout_s) {
  return request.hub->wait([&] { return request.state.load(std::memory_order_acquire) != LiveState::pending; },
                           timeout_s);
}

[[nodiscard]] inline LiveState state_of(const LiveRequest& request) noexcept {
  return request.state.load(std::memory_order_acquire);
}

/// In which form it was, or is to be, served; none: as it came.
[[nodiscard]] inline Reason form_of(const LiveRequest& request) noexcept {
  return request.form.load(std::memory_order_relaxed);
}

}  // namespace infcore::engine
