#include <infcore/contracts/block_hash.hpp>
#include <infcore/route/engine_blocks.hpp>

namespace infcore::route {
namespace {

constexpr std::size_t places_at_first = 64;

}  // namespace

EngineBlocks::EngineBlocks(std::uint32_t max_nodes, std::uint32_t max_names)
    : max_names_(max_names),
      epochs_(max_nodes),
      memory_((std::size_t{max_names} + 1) * sizeof(Name)),  // untouched pages take no memory
      names_(reinterpret_cast<Name*>(memory_.data())),
      places_(places_at_first) {
  for (std::uint32_t& epoch : epochs_) epoch = ++n_epochs_;
}

std::uint64_t EngineBlocks::key_of(base::NodeId node, std::uint64_t id) const noexcept {
  return contracts::detail::stir(id + contracts::detail::stir(epochs_[node.value]));
}

/// Of the key's name, or the free one where it would be.
std::size_t EngineBlocks::place_of(std::uint64_t key) const noexcept {
  const std::size_t mask = places_.size() - 1;
  std::size_t at = key & mask;
  while (places_[at] != 0 && names_[places_[at] & ~asked].key != key) at = (at + 1) & mask;
  return at;
}

bool EngineBlocks::find(base::NodeId node, std::uint64_t id, std::uint64_t& block) noexcept {
  const std::size_t at = place_of(key_of(node, id));
  if (places_[at] == 0) return false;
  block = names_[places_[at] & ~asked].block;
  places_[at] |= asked;
  return true;
}

void EngineBlocks::put(base::NodeId node, std::uint64_t id, std::uint64_t block) {
  const std::uint64_t key = key_of(node, id);
  std::size_t at = place_of(key);
  if (places_[at] != 0) {
    names_[places_[at] & ~asked].block = block;
    places_[at] |= asked;
    return;
  }
  if (n_names_ < max_names_ && (std::size_t{n_names_} + 1) * 4 > places_.size() * 3) grow();
  const std::uint32_t name = n_names_ < max_names_ ? ++n_names_ : forget_one();
  names_[name] = {key, block};
  at = place_of(key);
  places_[at] = name;
}

/// The first name under the hand that was not asked for, taken out of the table.
std::uint32_t EngineBlocks::forget_one() noexcept {
  const std::size_t mask = places_.size() - 1;
  std::size_t gap = 0;
  for (;;) {
    hand_ = hand_ >= n_names_ ? 1 : hand_ + 1;
    gap = place_of(names_[hand_].key);
    if ((places_[gap] & asked) == 0) break;
    places_[gap] &= ~asked;
  }
  for (std::size_t at = (gap + 1) & mask; places_[at] != 0; at = (at + 1) & mask) {
    const std::size_t home = names_[places_[at] & ~asked].key & mask;
    if (((at - home) & mask) < ((at - gap) & mask)) continue;
    places_[gap] = places_[at];
    gap = at;
  }
  places_[gap] = 0;
  return hand_;
}

void EngineBlocks::grow() {
  std::vector<std::uint32_t> old(places_.size() * 2);
  old.swap(places_);
  for (const std::uint32_t place : old)
    if (place != 0) places_[place_of(names_[place & ~asked].key)] = place;
}

}  // namespace infcore::route
