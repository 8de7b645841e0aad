#pragma once
#include <infcore/base/clock.hpp>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace infcore::route {

/// Things that end at a time unless they end before: a table of slots with a heap of end times over it.
///
/// A handle names a slot and its generation, so a handle that has ended stays ended when its slot is used again.
/// Size: the most leases held at once, plus those ended early whose time has not come. One thread at a time.
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
    Slot& slot = slots_[static_cast<std::uint32_t>(handle)];
    if (slot.generation != static_cast<std::uint32_t>(handle >> 32)) return false;
    ++slot.generation;
    free_.push_back(static_cast<std::uint32_t>(handle));
    return true;
  }

  /// Ends what is due and tells `on_end` of each, in the order of their ends.
  template <class OnEnd>
  void end_due(base::TimeNs now_ns, OnEnd on_end) noexcept {
    while (!ends_.empty() && ends_.front().at_ns <= now_ns) {
      const End due = ends_.front();
      std::pop_heap(ends_.begin(), ends_.end(), later);
      ends_.pop_back();
      if (end(due.handle)) on_end(slots_[static_cast<std::uint32_t>(due.handle)].item, due.at_ns);
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

  std::vector<Slot> slots_;
  std::vector<std::uint32_t> free_;
  std::vector<End> ends_;
};

}  // namespace infcore::route
