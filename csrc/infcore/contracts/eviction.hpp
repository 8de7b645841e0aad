#pragma once
#include <cstdint>
#include <limits>
#include <span>

namespace infcore::contracts {

/// An entry's place in its owner's table, used again after on_remove. A plain number: owners hand whole arrays of them
/// over, and a block's id is its entry's.
using EntryId = std::uint32_t;
inline constexpr EntryId no_entry = std::numeric_limits<EntryId>::max();

/// What a policy may know of an entry.
struct EvictionEntry {
  std::uint64_t key;         ///< of its content: names it again after it was evicted (ghosts)
  std::uint64_t bytes;       ///< > 0
  double cost_us;            ///< of making it again, finite, >= 0
  std::uint32_t n_children;  ///< entries that are of no use without this one
  bool pinned;               ///< somebody uses it
  double reuse{1.0};         ///< what its owner knows of its future: so many times likelier to be asked for than others
  /// After how many lookups in all, from the replay's first, the next one is for it; replays alone know.
  std::uint64_t next_use{unknown_use};
  static constexpr std::uint64_t unknown_use = std::numeric_limits<std::uint64_t>::max();
};

/// What an owner is bounded by.
struct EvictionLimits {
  std::uint32_t n_entries_max;   ///< ids are below it
  std::uint64_t capacity_bytes;  ///< of all entries together
};

/// The owner's table as policies see it: result cache, resident models, KV blocks.
class EvictionView {
 public:
  virtual ~EvictionView() = default;
  /// Precondition: `id` was inserted and not removed.
  [[nodiscard]] virtual EvictionEntry entry(EntryId id) const noexcept = 0;
  /// entry(id).key, without a look at the rest.
  [[nodiscard]] virtual std::uint64_t key(EntryId id) const noexcept { return entry(id).key; }
};

/// Chooses what goes next, among entries that its owner calls evictable: not pinned, no children. So a policy need not
/// look for pins, and chains of prefixes go leaf first under every policy.
///
/// The owner calls, for one entry: on_insert, then on_evictable and on_held in turn as it becomes free to go and is
/// wanted again, at the end on_remove, in either state. on_hit and on_release in between.
/// Contract: victim() answers an entry that is evictable now, or no_entry where none is; it removes nothing, and asked
/// again without another call it answers the same. An owner that inserts before it makes room may so be told to let the
/// newest entry go: it is not admitted. What victim() named last is evicted when it is removed next; other removals are
/// the owner's own wish. Ties go to the lowest id. No clock, no random source but one handed to the maker. Allocates in
/// attach() and grow() only. One thread at a time.
class EvictionPolicy {
 public:
  virtual ~EvictionPolicy() = default;
  /// Once, before all else; `view` outlives the policy's use.
  virtual void attach(const EvictionView& view, const EvictionLimits& limits) = 0;
  /// From now on ids are below `n_entries_max`, which is not less than before. Where it throws, nothing has changed.
  virtual void grow(std::uint32_t n_entries_max) = 0;
  virtual void on_insert(EntryId id) noexcept = 0;
  /// Lookups found these, in this order.
  virtual void on_hit(std::span<const EntryId> ids) noexcept = 0;
  /// Somebody who used these until now has let them go, all at one time; others may still use them.
  virtual void on_release(std::span<const EntryId> ids) noexcept = 0;
  virtual void on_evictable(EntryId id) noexcept = 0;
  virtual void on_held(EntryId id) noexcept = 0;
  virtual void on_remove(EntryId id) noexcept = 0;
  [[nodiscard]] virtual EntryId victim() noexcept = 0;
  /// Whether it decides by next_use, and so is of use in replays alone.
  [[nodiscard]] virtual bool asks_future() const noexcept { return false; }
};

}  // namespace infcore::contracts
