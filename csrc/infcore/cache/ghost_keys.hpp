#pragma once
#include <infcore/base/column.hpp>
#include <infcore/base/id_table.hpp>

#include <cstddef>
#include <cstdint>

namespace infcore::cache {

/// Keys of what was evicted, as many as were asked for at most: the oldest make room. Single-threaded; O(1); allocates
/// in grow() only.
class GhostKeys {
 public:
  /// From now on it remembers n_keys_max > 0, not less than before; what it knows stays.
  void grow(std::uint32_t n_keys_max) {
    if (n_keys_max == n_keys_max_) return;
    GhostKeys larger;
    larger.ring_.grow(n_keys_max);
    larger.slots_.grow(n_keys_max + n_keys_max / 3 + 2);
    larger.n_keys_max_ = n_keys_max;
    larger.n_gone_ = n_gone_;
    for (std::uint64_t age = n_gone_ < n_keys_max_ ? n_gone_ : n_keys_max_; age-- > 0;) {
      const std::uint64_t key = ring_[slot(n_gone_ - age)];
      if (find(key) == slot(n_gone_ - age)) larger.stand(key, larger.slot(n_gone_ - age));
    }
    ring_.swap(larger.ring_);
    slots_.swap(larger.slots_);
    n_keys_max_ = n_keys_max;
    newest_ = slot(n_gone_);
  }

  /// Also a key that it knows: it counts as new.
  void remember(std::uint64_t key) noexcept {
    forget(key);
    ++n_gone_;
    newest_ = newest_ + 1 < n_keys_max_ ? newest_ + 1 : 0;
    // The one that stood here is the oldest, unless it was taken or came again.
    if (n_gone_ > n_keys_max_ && find(ring_[newest_]) == newest_) forget(ring_[newest_]);
    stand(key, newest_);
  }

  /// Whether it was among the last `n_latest` to go, n_latest <= n_keys_max; it is forgotten.
  [[nodiscard]] bool take(std::uint64_t key, std::uint64_t n_latest) noexcept {
    const std::uint32_t slot = forget(key);
    if (slot == base::IdTable::no_id) return false;
    return newest_ - slot + (slot > newest_ ? n_keys_max_ : 0) < n_latest;
  }

 private:
  [[nodiscard]] std::uint32_t slot(std::uint64_t n_th) const noexcept {
    return static_cast<std::uint32_t>(n_th % n_keys_max_);
  }
  [[nodiscard]] std::uint32_t find(std::uint64_t key) const noexcept {
    return slots_.find(base::IdTable::tag_of(key), [&](std::uint32_t slot) { return ring_[slot] == key; });
  }
  void stand(std::uint64_t key, std::uint32_t slot) noexcept {
    ring_[slot] = key;
    slots_.insert(base::IdTable::tag_of(key), slot);
  }
  /// Where it stood, or no_id.
  std::uint32_t forget(std::uint64_t key) noexcept {
    const std::uint32_t slot = find(key);
    if (slot != base::IdTable::no_id) slots_.erase(base::IdTable::tag_of(key), slot);
    return slot;
  }

  base::Column<std::uint64_t> ring_;  ///< the n-th to go stands at n % n_keys_max
  base::IdTable slots_;               ///< of the ring, by their keys; at most three quarters full
  std::uint32_t n_keys_max_{};
  std::uint32_t newest_{};  ///< its slot
  std::uint64_t n_gone_{};
};

}  // namespace infcore::cache
