#pragma once
#include <infcore/base/clock.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace infcore::route {

/// Things that end at a time unless they end before: a table of slots with a heap of end times over it.
///
/// A handle names a slot and its generation, so a handle that has ended stays ended when its slot is used again.
/// Size: the most leases held at once, at most as many again that ended early, and 64.
/// One thread at a time.
template <class T>
class Leases {
 public:
  using Handle = std::uint64_t;
  static constexpr Handle none = ~std::uint64_t{0};

  Handle add(const T& item, base::TimeNs end_ns) {
    std::uint32_t at;
    if (free_.empty()) {
      at = static_cast<std::uint32_t>(slots_.size());
      slots_.push_back({});
      free_.reserve(slots_.size());  // so that ending one never allocates
    } else {
      at = free_.back();
      free_.pop_back();
    }
    slots_[at].item = item;
    const Handle handle = std::uint64_t{slots_[at].generation} << 32 | at;
    ends_.push_back({end_ns, handle});
    std::push_heap(ends_.begin(), ends_.end(), later);
    return handle;
  }

  /// True for the first end of a handle.
  bool end(Handle handle) noexcept {
    if (!is_held(handle)) return false;
    retire(static_cast<std::uint32_t>(handle));
    ++n_early_;
    if (n_early_ > few && 2 * n_early_ > ends_.size()) drop_early();
    return true;
  }

  /// When the next one ends that did not end early, or before; never_ns: none is held.
  [[nodiscard]] base::TimeNs first_end_ns() const noexcept {
    return ends_.empty() ? base::never_ns : ends_.front().at_ns;
  }

  /// End times that are kept.
  [[nodiscard]] std::size_t n_ends() const noexcept { return ends_.size(); }

  /// Ends what is due and tells `on_end` of each, in the order of their ends.
  template <class OnEnd>
  void end_due(base::TimeNs now_ns, OnEnd on_end) noexcept {
    while (!ends_.empty() && ends_.front().at_ns <= now_ns) {
      const End due = ends_.front();
      std::pop_heap(ends_.begin(), ends_.end(), later);
      ends_.pop_back();
      const auto at = static_cast<std::uint32_t>(due.handle);
      if (!is_held(due.handle)) {
        --n_early_;
        continue;
      }
      retire(at);
      on_end(slots_[at].item, due.at_ns);
    }
  }

 private:
  struct Slot {
    T item;
    std::uint32_t generation;
  };
  struct End {
    base::TimeNs at_ns;
    Handle handle;
  };
  static bool later(const End& a, const End& b) noexcept {
    return a.at_ns != b.at_ns ? a.at_ns > b.at_ns : a.handle > b.handle;
  }

  /// Ended early so few, the heap is left as it is.
  static constexpr std::size_t few = 64;

  [[nodiscard]] bool is_held(Handle handle) const noexcept {
    return slots_[static_cast<std::uint32_t>(handle)].generation == static_cast<std::uint32_t>(handle >> 32);
  }
  void retire(std::uint32_t at) noexcept {
    ++slots_[at].generation;
    free_.push_back(at);
  }
  /// Leases are long and most end early: without this the heap would hold a lease's length of requests.
  void drop_early() noexcept {
    std::erase_if(ends_, [this](const End& end) { return !is_held(end.handle); });
    std::make_heap(ends_.begin(), ends_.end(), later);
    n_early_ = 0;
  }

  std::vector<Slot> slots_;
  std::vector<std::uint32_t> free_;
  std::vector<End> ends_;
  std::size_t n_early_{};  // of ends_, ended before their time
};

}  // namespace infcore::route
