#include <infcore/engine/picked_blocks.hpp>

#include <algorithm>

namespace infcore::engine {
namespace {

constexpr std::size_t n_places_least = 64;

}  // namespace

void PickedBlocks::reset(std::uint32_t n_blocks_max) {
  n_blocks_max_ = n_blocks_max;
  n_blocks_ = 0;
  newest_ = oldest_ = none;
  blocks_.clear();
  places_.clear();
}

std::uint32_t PickedBlocks::tag_of(std::uint64_t name) noexcept {
  // Stirred, since callers may name blocks 1, 2, 3. The constant: 2^64 over the golden ratio, odd.
  return static_cast<std::uint32_t>((name * 0x9E37'79B9'7F4A'7C15u) >> 32);
}

std::uint32_t PickedBlocks::find(std::uint64_t name) const noexcept {
  if (places_.empty()) return none;
  const std::size_t mask = places_.size() - 1;
  for (std::size_t at = tag_of(name) & mask; places_[at] != none; at = (at + 1) & mask) {
    if (blocks_[places_[at]].name == name) return places_[at];
  }
  return none;
}

std::uint32_t PickedBlocks::n_held(std::span<const std::uint64_t> names) const noexcept {
  std::size_t least = 0, beyond = names.size() + 1;  // names[least - 1] is held, names[beyond - 1] is not
  // Most often nothing is, or all: two probes.
  for (std::size_t at = names.empty() ? 0 : 1; beyond - least > 1; at = least + (beyond - least) / 2) {
    (find(names[at - 1]) != none ? least : beyond) = at;
    if (least == 1 && at == 1 && names.size() > 2) {
      (find(names.back()) != none ? least : beyond) = names.size();
    }
  }
  return static_cast<std::uint32_t>(least);
}

void PickedBlocks::picked(std::span<const std::uint64_t> names) {
  names = names.first(std::min<std::size_t>(names.size(), n_blocks_max_));
  for (std::size_t i = names.size(); i > 0; --i) use(names[i - 1]);
}

void PickedBlocks::use(std::uint64_t name) {
  if (const std::uint32_t known = find(name); known != none) {
    if (known == newest_) return;
    unlink(known);
    return push_newest(known);
  }
  std::uint32_t block = n_blocks_;
  if (n_blocks_ == n_blocks_max_) {
    block = oldest_;
    erase(block);
    unlink(block);
  } else {
    if (blocks_.size() == n_blocks_) blocks_.push_back({});
    ++n_blocks_;
    if (std::size_t{n_blocks_} * 2 > places_.size()) grow();
  }
  blocks_[block].name = name;
  push_newest(block);
  const std::size_t mask = places_.size() - 1;
  std::size_t at = tag_of(name) & mask;
  while (places_[at] != none) at = (at + 1) & mask;
  places_[at] = block;
}

void PickedBlocks::unlink(std::uint32_t block) noexcept {
  const Block& b = blocks_[block];
  (b.newer == none ? newest_ : blocks_[b.newer].older) = b.older;
  (b.older == none ? oldest_ : blocks_[b.older].newer) = b.newer;
}

void PickedBlocks::push_newest(std::uint32_t block) noexcept {
  blocks_[block].newer = none;
  blocks_[block].older = newest_;
  (newest_ == none ? oldest_ : blocks_[newest_].newer) = block;
  newest_ = block;
}

void PickedBlocks::erase(std::uint32_t block) noexcept {
  const std::size_t mask = places_.size() - 1;
  std::size_t hole = tag_of(blocks_[block].name) & mask;
  while (places_[hole] != block) hole = (hole + 1) & mask;
  // What stands behind moves up unless that would put it before its own place: no tombstones.
  for (std::size_t at = (hole + 1) & mask; places_[at] != none; at = (at + 1) & mask) {
    const std::size_t own = tag_of(blocks_[places_[at]].name) & mask;
    if (((at - own) & mask) >= ((at - hole) & mask)) {
      places_[hole] = places_[at];
      hole = at;
    }
  }
  places_[hole] = none;
}

/// Every block but the last one, which is about to be put in, gets a place in a table twice as large.
void PickedBlocks::grow() {
  places_.assign(std::max(n_places_least, places_.size() * 2), none);
  const std::size_t mask = places_.size() - 1;
  for (std::uint32_t block = 0; block + 1 < n_blocks_; ++block) {
    std::size_t at = tag_of(blocks_[block].name) & mask;
    while (places_[at] != none) at = (at + 1) & mask;
    places_[at] = block;
  }
}

}  // namespace infcore::engine
