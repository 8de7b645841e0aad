#pragma once
#include <infcore/base/clock.hpp>
#include <infcore/base/ids.hpp>
#include <infcore/engine/actions.hpp>

#include <atomic>
#include <cstdint>

namespace infcore::engine {

struct LiveRequest;

/// What came of a flight for those who waited in it.
enum class Landed : std::uint8_t {
  not_yet,
  answered,
  failed  ///< a device's failure, which all of them share
};

/// Requests with equal keys that are under way together: those that run, and those that wait for one of them. It lies
/// in an object of the caller's, who keeps it for as long as any request has a seat in it. But for `owner`, the
/// engine's owner alone writes it.
struct Flight {
  void* owner{};                  ///< the caller's object, which this lies in
  LiveRequest* running{};         ///< linked by their seats, the latest first; mostly one
  LiveRequest *first{}, *last{};  ///< who waits, in the order in which they came; nobody where nothing runs
  Flight* next_landing{};
  bool lands{};

  /// [F1] release: what follows is readable by whoever sees that it has landed; callers look, so acquire. Once only.
  std::atomic<Landed> landed{Landed::not_yet};
  void* payload{};  ///< borrowed of the request that it landed with, until that has been looked into
  std::uint32_t member{};
  base::NodeId node{base::no_node};
  Reason reason{};
  bool is_cheaper{};         ///< its fallback's answer, which is no answer for later
  base::TimeNs run_ns{};     ///< from arrival to the answer
  base::TimeNs landed_ns{};  ///< when
};

/// A request's place in a flight. The engine's owner writes all but `flight`, which is set before the request comes.
struct Seat {
  enum class Role : std::uint8_t { none, runs, waits };

  Flight* flight{};  ///< nullptr: its answer is nobody else's
  LiveRequest *before{}, *after{};
  std::uint32_t timer{}, heap_place{};  ///< of its deadline while it waits
  Role role{};
  bool is_passenger{};  ///< it ended as another's run did: what it has is the flight's
};

[[nodiscard]] inline Landed landed_of(const Flight& flight) noexcept {
  return flight.landed.load(std::memory_order_acquire);  // [F1]
}

}  // namespace infcore::engine
