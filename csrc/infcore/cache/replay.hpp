#pragma once
#include <infcore/contracts/eviction.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>

namespace infcore::cache {

/// A trace in columns of n rows, one row an access; a column that is not given is null. They stay the caller's.
struct ReplayTrace {
  std::size_t n{};
  const std::uint64_t* keys{};
  const std::uint64_t* bytes{};    ///< null: 1 each; 0 counts as 1
  const double* costs_us{};        ///< of making the answer anew, finite and >= 0; null: 1 each
  const double* times_s{};         ///< finite, none below the one before; asked with a ttl alone
  const std::int64_t* requests{};  ///< equal for the accesses of one prompt, in order: strict use of prefixes
  const std::uint8_t*
      is_admitted{};  ///< 0: looked up, never stored (a prompt's last block that is not full); null: all
};

struct ReplayConfig {
  std::uint64_t capacity_bytes{};
  double ttl_s{std::numeric_limits<double>::infinity()};  ///< since an entry was made; infinite with `requests`
  /// Asked every million accesses, where it is given; false: the replay ends there, and its counts are of what it saw.
  bool (*goes_on)(){};
};

struct ReplayStats {
  std::uint64_t requests{};  ///< accesses: hits + misses
  std::uint64_t hits{};
  std::uint64_t misses{};
  std::uint64_t evictions{};  ///< what made room, without what was never admitted
  std::uint64_t rejected{};   ///< misses that were not stored
  std::uint64_t expired{};    ///< entries that were met after their time
  std::uint64_t bytes_used{};
  std::uint64_t bytes_requested{};
  std::uint64_t bytes_missed{};
  double cost_requested_us{};
  double cost_missed_us{};
};

/// Runs a trace through a cache of such a capacity that lets go what `policy` says; the policy is used up by it.
///
/// Without `requests`: an access hits where its key is in, not older than the ttl, and of the size that it has now;
/// else it is made anew, stored, and room is made, by which it may lose its own place at once.
/// With them: a hit counts only while all before it in its request hit. A block's parent is the one before it; leaves
/// go first; what a request uses is held until its end, found blocks and new ones alike, as KVBlocks does it. Throws
/// InvalidArgument where a block's size is another than before, Error where a policy breaks its contract.
[[nodiscard]] ReplayStats replay(const ReplayTrace& trace, const ReplayConfig& config,
                                 contracts::EvictionPolicy& policy);

}  // namespace infcore::cache
