#pragma once
#include <infcore/base/clock.hpp>
#include <infcore/base/ids.hpp>

#include <array>
#include <cstdint>

namespace infcore::engine {

/// Version of the two lists below; it changes with any of their rows, and stands in every log.
inline constexpr std::uint32_t action_list_version = 6;

/// All that the engine ever asks of its driver. Closed: this is the log's format, too.
enum class ActionKind : std::uint8_t {
  dispatch,  ///< request joins `batch` on `node`
  load,      ///< make a model resident on `node`
  unload,    ///< drop a model from `node`
  reject,    ///< request refused at the door
  shed,      ///< request dropped after it was accepted
  defer,     ///< request put off to a later time
  retry,     ///< request goes back to its queue
  hedge,     ///< request sent to a second node as well: the first answer ends it
  cancel,    ///< request ended by its caller
  preempt,   ///< running request paused
  complete   ///< request ended with a result or a failure
};

/// Why an action was taken; for complete, how it ended.
enum class Reason : std::uint8_t {
  none,
  ok,
  queue_full,      ///< reject: the configured bound of requests is reached
  deadline,        ///< shed: passed, or cannot be met any more
  device_failed,   ///< retry, complete: the device's run raised
  device_lost,     ///< retry, complete: the device stopped answering
  device_removed,  ///< retry: the device it was bound to is leaving
  caller,          ///< cancel
  unloaded,        ///< reject: its model is there no more
  closing,         ///< cancel: the engine is being closed
  infeasible,      ///< reject: no device could meet its deadline
  overload,        ///< reject: an admission policy's limit is reached; dispatch: it did not wait for company
  displaced,       ///< shed: its place went to a more urgent one
  early_drop,      ///< shed: so that others, more than it costs, meet their deadlines
  memory,          ///< preempt: its KV blocks went to a more urgent one
  off_peak,        ///< defer: it is not urgent, and will be cheaper later
  cheaper,         ///< dispatch: to another model or device than asked for, since that is overloaded
  stale,           ///< complete: with an answer from before, since devices are overloaded
  cached,          ///< complete: an equal request's answer was in the cache
  forecast         ///< load: nobody waits for it, but it is likely to be asked for
};

/// As logs and answers spell them.
inline constexpr std::array<const char*, 11> action_names{"dispatch", "load",  "unload", "reject",  "shed",    "defer",
                                                          "retry",    "hedge", "cancel", "preempt", "complete"};
inline constexpr std::array<const char*, 20> reason_names{
    "none",   "ok",       "queue_full", "deadline",   "device_failed", "device_lost", "device_removed",
    "caller", "unloaded", "closing",    "infeasible", "overload",      "displaced",   "early_drop",
    "memory", "off_peak", "cheaper",    "stale",      "cached",        "forecast"};
static_assert(action_names.size() == static_cast<std::size_t>(ActionKind::complete) + 1);
static_assert(reason_names.size() == static_cast<std::size_t>(Reason::forecast) + 1);

/// Whether it is about a model on a node, and no request.
[[nodiscard]] constexpr bool is_of_model(ActionKind kind) noexcept {
  return kind == ActionKind::load || kind == ActionKind::unload;
}

struct Action {
  static constexpr std::uint32_t no_slot = 0xFFFF'FFFFu;

  std::uint64_t cookie{};    ///< the request's, as the driver gave it
  std::uint64_t batch_id{};  ///< dispatch, complete
  base::NodeId node{base::no_node};
  std::uint32_t member{};  ///< dispatch, complete: its place in the batch; load, unload: the model
  ActionKind kind{};
  Reason reason{};
  std::uint32_t slot{no_slot};  ///< the machine's slot of the request; no_slot: it was refused
  float hint_s{};  ///< reject, shed: when it is worth another try; infeasible: the best time; defer, load: how long
};

}  // namespace infcore::engine
