#include <infcore/route/node_sets.hpp>

#include <algorithm>
#include <bit>
#include <cstring>

namespace infcore::route {
namespace {

constexpr std::size_t set_places_at_first = 16;
constexpr std::size_t allocation_bytes = 16;  // what the allocator adds, about

/// SplitMix64's finaliser (Steele, Lea, Flood, OOPSLA 2014): one-to-one.
std::uint64_t key_of(base::NodeId node, std::size_t tier) noexcept {
  std::uint64_t x = (std::uint64_t{node.value} * n_kv_tiers + tier + 1) * 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

std::uint64_t bit_of(base::NodeId node) noexcept { return std::uint64_t{1} << (node.value % 64); }

}  // namespace

NodeSets::NodeSets(std::uint32_t max_nodes)
    : stride_((max_nodes + 63) / 64),
      sets_(1),
      places_(set_places_at_first),
      bits_(n_kv_tiers * stride_ + 1),
      at_(n_kv_tiers * stride_ + 1) {
  sets_[empty].forward = none;
}

void NodeSets::clear() noexcept {
  sets_.resize(1);
  free_ = none;
  n_sets_ = n_forwarding_ = n_payload_bytes_ = 0;
  n_words_ = 1;
  std::fill(places_.begin(), places_.end(), Id{0});
}

void NodeSets::copy(const Set& set) noexcept {
  n_made_ = set.n_words;
  if (n_made_ == 0) return;
  std::memcpy(bits_.data(), set.words.get(), n_made_ * sizeof(std::uint64_t));
  std::memcpy(at_.data(), set.places(), n_made_ * sizeof(std::uint16_t));
}

/// Sets or clears a bit of the set that is being made. False where it was so before.
bool NodeSets::change(std::uint16_t place, std::uint64_t bit, bool add) noexcept {
  const auto end = at_.begin() + static_cast<std::ptrdiff_t>(n_made_);
  const auto found = std::lower_bound(at_.begin(), end, place);
  const auto i = static_cast<std::size_t>(found - at_.begin());
  const bool there = found != end && *found == place;
  if (add == (((there ? bits_[i] : 0) & bit) != 0)) return false;
  if (!there) {
    std::copy_backward(found, end, end + 1);
    std::copy_backward(bits_.begin() + static_cast<std::ptrdiff_t>(i),
                       bits_.begin() + static_cast<std::ptrdiff_t>(n_made_),
                       bits_.begin() + static_cast<std::ptrdiff_t>(n_made_ + 1));
    at_[i] = place;
    bits_[i] = bit;
    ++n_made_;
    return true;
  }
  bits_[i] ^= bit;
  if (bits_[i] != 0) return true;
  std::copy(found + 1, end, found);
  std::copy(bits_.begin() + static_cast<std::ptrdiff_t>(i + 1), bits_.begin() + static_cast<std::ptrdiff_t>(n_made_),
            bits_.begin() + static_cast<std::ptrdiff_t>(i));
  --n_made_;
  return true;
}

NodeSets::Id NodeSets::with(Id id, base::NodeId node, KvTier tier) {
  const auto t = static_cast<std::size_t>(tier);
  copy(sets_[id]);
  if (!change(place_of(node, t), bit_of(node), true)) {
    keep(id);
    return id;
  }
  n_words_ = std::max(n_words_, node.value / 64 + 1);
  return intern(sets_[id].hash ^ key_of(node, t));
}

NodeSets::Id NodeSets::without(Id id, base::NodeId node, KvTier tier) {
  const auto t = static_cast<std::size_t>(tier);
  copy(sets_[id]);
  if (!change(place_of(node, t), bit_of(node), false)) {
    keep(id);
    return id;
  }
  return n_made_ == 0 ? empty : intern(sets_[id].hash ^ key_of(node, t));
}

bool NodeSets::contains(Id id, base::NodeId node, KvTier tier) const noexcept {
  const Set& set = sets_[id];
  if (set.n_words == 0) return false;
  const std::uint16_t place = place_of(node, static_cast<std::size_t>(tier));
  const std::uint16_t* const places = set.places();
  const std::uint16_t* const found = std::lower_bound(places, places + set.n_words, place);
  if (found == places + set.n_words || *found != place) return false;
  return (set.words[static_cast<std::size_t>(found - places)] & bit_of(node)) != 0;
}

/// The id of the set that was made, with a reference for the caller.
NodeSets::Id NodeSets::intern(std::uint64_t hash) {
  Id id = find(hash);
  if (id == none) {
    if ((n_sets_ + 1) * 2 > places_.size()) grow();
    id = new_id();
    try {
      fill(sets_[id], hash);
    } catch (...) {
      sets_[id].forward = free_;
      free_ = id;
      throw;
    }
    insert(id);
    ++n_sets_;
  }
  ++sets_[id].n_uses;
  return id;
}

NodeSets::Id NodeSets::find(std::uint64_t hash) const noexcept {
  for (std::size_t at = home(hash); places_[at] != 0; at = (at + 1) & (places_.size() - 1)) {
    const Set& set = sets_[places_[at]];
    if (set.hash != hash || set.n_words != n_made_) continue;
    if (std::memcmp(set.words.get(), bits_.data(), n_made_ * sizeof(std::uint64_t)) == 0 &&
        std::memcmp(set.places(), at_.data(), n_made_ * sizeof(std::uint16_t)) == 0)
      return places_[at];
  }
  return none;
}

NodeSets::Id NodeSets::new_id() {
  if (free_ == none) {
    sets_.emplace_back();
    return static_cast<Id>(sets_.size() - 1);
  }
  const Id id = free_;
  free_ = sets_[id].forward;
  return id;
}

/// Makes `set` the one that was made; its id is in no table yet, or no longer.
void NodeSets::fill(Set& set, std::uint64_t hash) {
  const std::size_t n = payload_words(n_made_);
  if (n > set.n_room) {
    std::unique_ptr<std::uint64_t[]> words(new std::uint64_t[n]);
    release(set);
    set.words = std::move(words);
    set.n_room = static_cast<std::uint32_t>(n);
    n_payload_bytes_ += n * sizeof(std::uint64_t) + allocation_bytes;
  }
  set.hash = hash;
  set.forward = none;
  set.n_words = static_cast<std::uint16_t>(n_made_);
  set.is_tiered = at_[n_made_ - 1] >= stride_;
  std::memcpy(set.words.get(), bits_.data(), n_made_ * sizeof(std::uint64_t));
  std::memcpy(set.words.get() + n_made_, at_.data(), n_made_ * sizeof(std::uint16_t));
}

void NodeSets::release(Set& set) noexcept {
  if (!set.words) return;
  n_payload_bytes_ -= set.n_room * sizeof(std::uint64_t) + allocation_bytes;
  set.words.reset();
  set.n_words = 0;
  set.n_room = 0;
}

void NodeSets::drop(Id id) noexcept {
  while (id != empty && id != none) {
    Set& set = sets_[id];
    const Id next = set.forward;
    if (--set.n_uses == 0) {
      if (next == none) {
        erase(id);
        --n_sets_;
      } else {
        --n_forwarding_;
      }
      release(set);
      set.forward = free_;
      free_ = id;
    }
    id = next;
  }
}

std::size_t NodeSets::clear_node(base::NodeId node) noexcept {
  std::size_t n_emptied = 0;
  for (Id id = 1; id < sets_.size(); ++id) {
    if (sets_[id].n_uses == 0 || sets_[id].forward != none) continue;
    copy(sets_[id]);
    std::uint64_t hash = sets_[id].hash;
    bool changed = false;
    for (std::size_t t = 0; t < n_kv_tiers; ++t) {
      if (!change(place_of(node, t), bit_of(node), false)) continue;
      hash ^= key_of(node, t);
      changed = true;
    }
    if (!changed) continue;
    const Id same = n_made_ == 0 ? empty : find(hash);
    if (same == none) {
      erase(id);
      fill(sets_[id], hash);  // smaller than it was: allocates nothing
      insert(id);
      continue;
    }
    erase(id);
    --n_sets_;
    ++n_forwarding_;
    if (same == empty) n_emptied += sets_[id].n_uses;
    if (same != empty) sets_[same].n_uses += sets_[id].n_uses;
    release(sets_[id]);
    sets_[id].forward = same;
    sets_[id].is_tiered = false;
  }
  return n_emptied;
}

void NodeSets::holders(Id id, std::span<std::uint64_t> out) const noexcept {
  std::fill(out.begin(), out.end(), std::uint64_t{0});
  const Set& set = sets_[id];
  if (set.n_words == 0) return;
  const std::uint16_t* const places = set.places();
  for (std::size_t i = 0; i < set.n_words; ++i) {
    std::size_t at = places[i];
    while (at >= stride_) at -= stride_;
    if (at < out.size()) out[at] |= set.words[i];
  }
}

void NodeSets::holders(Id id, KvTier tier, std::span<std::uint64_t> out) const noexcept {
  std::fill(out.begin(), out.end(), std::uint64_t{0});
  const Set& set = sets_[id];
  if (set.n_words == 0) return;
  const std::size_t from = static_cast<std::size_t>(tier) * stride_;
  const std::uint16_t* const places = set.places();
  for (std::size_t i = 0; i < set.n_words; ++i)
    if (places[i] >= from && places[i] < from + std::min<std::size_t>(stride_, out.size()))
      out[places[i] - from] = set.words[i];
}

void NodeSets::insert(Id id) noexcept {
  std::size_t at = home(sets_[id].hash);
  while (places_[at] != 0) at = (at + 1) & (places_.size() - 1);
  places_[at] = id;
}

/// Closes the gap, so that no probe has to step over what is gone (Knuth, volume 3, 6.4, algorithm R).
void NodeSets::erase(Id id) noexcept {
  const std::size_t mask = places_.size() - 1;
  std::size_t gap = home(sets_[id].hash);
  while (places_[gap] != id) gap = (gap + 1) & mask;
  for (std::size_t at = (gap + 1) & mask; places_[at] != 0; at = (at + 1) & mask) {
    if (((at - home(sets_[places_[at]].hash)) & mask) < ((at - gap) & mask)) continue;
    places_[gap] = places_[at];
    gap = at;
  }
  places_[gap] = 0;
}

void NodeSets::grow() {
  std::vector<Id> old(places_.size() * 2);
  old.swap(places_);
  for (const Id id : old)
    if (id != 0) insert(id);
}

std::size_t NodeSets::n_bytes() const noexcept {
  return sets_.capacity() * sizeof(Set) + n_payload_bytes_ + places_.size() * sizeof(Id);
}

}  // namespace infcore::route
