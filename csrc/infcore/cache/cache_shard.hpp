#pragma once
#include <infcore/base/border_mutex.hpp>
#include <infcore/base/clock.hpp>
#include <infcore/base/column.hpp>
#include <infcore/base/id_table.hpp>
#include <infcore/cache/tag_table.hpp>
#include <infcore/contracts/eviction.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace infcore::cache {

using contracts::EntryId;
using contracts::no_entry;

/// What a put says of an entry.
struct NewEntry {
  std::uint64_t key;   ///< of its content, for ghosts: the same in every process
  std::uint32_t kind;  ///< the owner's: what the key is, 0 to 3
  std::uint64_t bytes;
  double cost_us;
  double reuse{1.0};
  base::TimeNs expires_ns{base::never_ns};
  base::TimeNs stale_until_ns{};  ///< after it expired, until when it may still be served
  std::uint64_t version{};
  std::span<const std::string_view> tags;
  bool asked{true};  ///< somebody missed it; false: it was brought in before anybody did, and counts as no miss
};

struct CacheCounters {
  std::uint64_t hits, misses, evictions, rejected, expired, invalidated;
  std::uint64_t bytes_used, n_entries;
  std::uint64_t bytes_hit, bytes_missed;
  double cost_hit_us;     ///< of making again what was found
  double cost_missed_us;  ///< of what was put
};

/// A part of the result cache: which entries there are, what they weigh and cost, how long they live, and who goes when
/// there is no room. Keys and values are the owner's, under the entry's id.
///
/// Finding: probe() over the entries with the same 32 bits of the key's hash, of which the owner compares the keys. A
/// hit is noted in an array, counted and handed to the policy 64 at a time. What is dead (expired, invalidated, of an
/// old version) is removed when somebody meets it: put() looks at two entries each time. What is pinned outlives its
/// death, so that pins do not depend on who met it: it is not found, but what is put in its place is pinned.
///
/// The owner locks `lock` around each call but the constructor; no call runs the owner's code. Throws std::bad_alloc
/// where it says so, and then nothing has changed.
class CacheShard final : private contracts::EvictionView {
 public:
  CacheShard(std::uint64_t capacity_bytes, std::unique_ptr<contracts::EvictionPolicy> policy);
  CacheShard(const CacheShard&) = delete;
  CacheShard& operator=(const CacheShard&) = delete;

  using Probe = base::IdTable::Probe;  ///< where a search stands
  static_assert(base::IdTable::no_id == no_entry);
  [[nodiscard]] Probe probe(std::uint32_t hash) const noexcept { return ids_.first(hash); }
  [[nodiscard]] Probe next(Probe probe, std::uint32_t hash) const noexcept { return ids_.next(probe, hash); }
  [[nodiscard]] std::uint64_t key(EntryId id) const noexcept override { return entries_[id].key; }
  [[nodiscard]] std::uint32_t kind(EntryId id) const noexcept { return entries_[id].kind; }

  [[nodiscard]] bool is_live(EntryId id, base::TimeNs now_ns) const noexcept {
    return is_plain(id) || is_alive(entries_[id], now_ns);
  }
  /// Dead by its time alone, and not for so long that it may not be served while a new one is made.
  [[nodiscard]] bool is_stale(EntryId id, base::TimeNs now_ns) const noexcept;

  /// Whether put() would refuse it in the place of `old`, as of an older version than what is there or may come.
  [[nodiscard]] bool is_outdated(const NewEntry& entry, EntryId old, base::TimeNs now_ns) const noexcept;

  void hit(EntryId id) noexcept {
    hits_[n_hits_++] = id;
    if (n_hits_ == hits_.size()) tell_hits();
  }
  void miss() noexcept { ++counters_.misses; }

  enum class Outcome : std::uint8_t { stored, rejected, older };
  /// Under `hash`, in place of `old` where that is an entry, whose id it keeps. Stored: `id` is the entry's. Rejected:
  /// not worth the room, or too big; what was there before is gone as well. Throws std::bad_alloc.
  Outcome put(std::uint32_t hash, const NewEntry& entry, EntryId old, base::TimeNs now_ns, EntryId& id);
  void remove(EntryId id) noexcept;
  /// Removes it to make room, unless it is pinned; whether it did. The owner's choice, of which the policy learns no
  /// more than that it is gone.
  bool evict(EntryId id) noexcept;
  /// Whether it was dead and is removed; not while it may be served stale, nor while it is pinned.
  bool met(EntryId id, base::TimeNs now_ns) noexcept;
  void clear() noexcept;
  /// The id of an entry that is gone and whose key and value are to be let go: each once, no_entry where there is none.
  /// Until then the id is not used again.
  [[nodiscard]] EntryId take_gone() noexcept;

  /// While its pins are more than its unpins, it is not evicted. Throws std::bad_alloc.
  void pin(EntryId id);
  /// False where it has no pins.
  bool unpin(EntryId id) noexcept;

  std::uint64_t invalidate(std::string_view tag) noexcept;
  /// What bears the tag dies unless its version is at least this. Throws std::bad_alloc.
  void raise_floor(std::string_view tag, std::uint64_t version);
  /// Everything does.
  void raise_floor(std::uint64_t version) noexcept;

  [[nodiscard]] CacheCounters counters() const noexcept;
  [[nodiscard]] std::uint64_t n_entries() const noexcept { return counters_.n_entries; }
  [[nodiscard]] std::uint64_t capacity_bytes() const noexcept { return capacity_bytes_; }
  [[nodiscard]] EntryId n_ids() const noexcept { return n_ids_; }
  [[nodiscard]] bool in_use(EntryId id) const noexcept { return entries_[id].in_use; }
  /// What put() was told of it, but for its tags. Precondition: in use.
  [[nodiscard]] NewEntry told(EntryId id) const noexcept;
  [[nodiscard]] std::vector<std::string_view> tags(EntryId id) const;
  /// Precondition: in use.
  [[nodiscard]] bool is_pinned(EntryId id) const noexcept {
    return entries_[id].life != no_life && lives_[entries_[id].life].n_pins > 0;
  }

  base::BorderMutex lock;

 private:
  static constexpr std::uint32_t no_life = (1u << 29) - 1;
  struct Entry {  // what a search compares beside what it asks then: they are fetched together
    std::uint64_t key;
    std::uint32_t hash;
    std::uint32_t life : 29, kind : 2, in_use : 1;
    float cost_us;
    std::uint32_t bytes_low;  // the upper half is in its life
  };
  /// Of the entries that are more than a cost and bytes below 2^32.
  struct Life {
    base::TimeNs expires_ns, stale_until_ns;
    std::uint64_t version;
    double reuse;
    std::uint32_t n_pins;
    std::uint32_t bytes_high;
    std::vector<TagRef> tags;
  };

  contracts::EvictionEntry entry(EntryId id) const noexcept override;
  [[nodiscard]] std::uint64_t bytes(const Entry& entry) const noexcept {
    return entry.bytes_low | (entry.life == no_life ? 0 : std::uint64_t{lives_[entry.life].bytes_high} << 32);
  }
  void make_place();
  std::uint32_t make_life(const NewEntry& entry, EntryId old, bool always = false);
  void end_life(std::uint32_t life) noexcept;
  void update(EntryId id, const NewEntry& entry, std::uint32_t life) noexcept;
  void drop(EntryId id) noexcept;
  bool make_room(EntryId newest) noexcept;
  void sweep(base::TimeNs now_ns) noexcept;
  void tell_hits() noexcept;
  void count_hits(CacheCounters& counters) const noexcept;
  [[nodiscard]] bool is_plain(EntryId id) const noexcept { return entries_[id].life == no_life && version_floor_ == 0; }
  [[nodiscard]] bool is_alive(const Entry& entry, base::TimeNs now_ns) const noexcept;
  [[nodiscard]] bool is_invalid(const Entry& entry) const noexcept;

  std::uint64_t capacity_bytes_;
  std::unique_ptr<contracts::EvictionPolicy> policy_;
  base::IdTable ids_;
  base::Column<Entry> entries_;
  std::size_t n_places_{};  // that all of these, and the policy, have room for
  EntryId n_ids_{};
  EntryId free_{no_entry};  // the first of those not in use; the next is in its key
  EntryId gone_{no_entry};  // the same of those whose keys and values the owner still has
  std::vector<Life> lives_;
  std::vector<std::uint32_t> free_lives_;
  TagTable tag_table_;
  std::uint64_t version_floor_{};
  EntryId hand_{};  // of sweep()
  CacheCounters counters_{};
  std::size_t n_hits_{};
  std::array<EntryId, 64> hits_{};
};

}  // namespace infcore::cache
