#pragma once
#include <infcore/base/align.hpp>
#include <infcore/base/clock.hpp>
#include <infcore/contracts/credit_cell.hpp>

#include <atomic>
#include <cstdint>
#include <limits>

namespace infcore::contracts {

/// A figure of a Signal that was not given.
inline constexpr double not_given = std::numeric_limits<double>::quiet_NaN();

/// What a node says of itself. Fractions are 0..1; inflight is its total, running and waiting, ours included.
struct Signal {
  base::TimeNs as_of_ns{};
  double queue_depth{not_given};
  double inflight{not_given};
  double cpu{not_given};
  double gpu{not_given};
  double memory{not_given};
  double network{not_given};
  double packet_loss{not_given};
  double queue_wait_s{not_given};  ///< what a request that came now would wait
  double error_rate{not_given};    ///< share of its requests that fail
};

/// One node's signals, and what of them counts together with our credit. What scorers read is published from here and
/// from the CreditCells into the columns.
///
/// Written by one thread at a time: signals of a node exclude each other. Who reserves reads the atomics meanwhile.
struct alignas(base::false_sharing_bytes) NodeRow {
  std::atomic<double> inflight_signalled;   ///< its own total at a time stamp, 0 where it never said
  std::atomic<std::int64_t> inflight_then;  ///< and our credit at that time
  std::atomic<double> wait_signalled_ns;    ///< the same of its queue wait
  std::atomic<std::int64_t> reserved_then_ns;
  std::atomic<std::uint32_t> slots;
  /// Requests in flight at which nothing more is sent: as it was configured, at most 2^24 (0: no bound), and, while
  /// health lets the node in by and by, a power of two as well: its exponent + 1 (0: none). Both under the signal lock.
  std::uint32_t pending_max : 25, limit : 7;
  double rtt_s;
  Signal last;  ///< the newest value of each figure
};

}  // namespace infcore::contracts
