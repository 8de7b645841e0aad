#include <infcore/cache/cache_shard.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <new>
#include <utility>

namespace infcore::cache {
namespace {

/// Entries that put() looks at, whether they are dead: more than come, so that the dead ones do not pile up.
constexpr int n_swept = 2;
constexpr std::size_t n_places_min = 16;
constexpr std::size_t n_places_roomy = std::size_t{1} << 15;

/// Half the bytes of a double; beyond what it holds, its most.
float kept_cost(double cost_us) noexcept {
  return static_cast<float>(std::min<double>(cost_us, std::numeric_limits<float>::max()));
}

}  // namespace

CacheShard::CacheShard(std::uint64_t capacity_bytes, std::unique_ptr<contracts::EvictionPolicy> policy)
    : capacity_bytes_(capacity_bytes), policy_(std::move(policy)) {
  ids_.grow(n_places_min);
  policy_->attach(*this, {.n_entries_max = 0, .capacity_bytes = capacity_bytes});
}

contracts::EvictionEntry CacheShard::entry(EntryId id) const noexcept {
  const Entry& entry = entries_[id];
  const bool plain = entry.life == no_life;
  return {.key = entry.key,
          .bytes = std::max<std::uint64_t>(1, bytes(entry)),
          .cost_us = static_cast<double>(entry.cost_us),
          .n_children = 0,
          .pinned = !plain && lives_[entry.life].n_pins > 0,
          .reuse = plain ? 1.0 : lives_[entry.life].reuse};
}

bool CacheShard::is_invalid(const Entry& entry) const noexcept {
  if (entry.life == no_life) return version_floor_ > 0;
  const Life& life = lives_[entry.life];
  return life.version < version_floor_ || std::any_of(life.tags.begin(), life.tags.end(), [&](TagRef tag) {
           return tag_table_.is_dead(tag, life.version);
         });
}

bool CacheShard::is_alive(const Entry& entry, base::TimeNs now_ns) const noexcept {
  return !is_invalid(entry) && (entry.life == no_life || now_ns < lives_[entry.life].expires_ns);
}

bool CacheShard::is_stale(EntryId id, base::TimeNs now_ns) const noexcept {
  const Entry& entry = entries_[id];
  if (entry.life == no_life || is_invalid(entry)) return false;
  const Life& life = lives_[entry.life];
  return now_ns >= life.expires_ns && now_ns < life.stale_until_ns;
}

/// Those that the policy was not told of yet: an entry changes or goes only after that.
void CacheShard::count_hits(CacheCounters& counters) const noexcept {
  counters.hits += n_hits_;
  for (std::size_t i = 0; i < n_hits_; ++i) {
    const Entry& entry = entries_[hits_[i]];
    counters.cost_hit_us += static_cast<double>(entry.cost_us);
    counters.bytes_hit += bytes(entry);
  }
}

/// Asking changes nothing: not even when the policy is told.
CacheCounters CacheShard::counters() const noexcept {
  CacheCounters counters = counters_;
  count_hits(counters);
  return counters;
}

void CacheShard::tell_hits() noexcept {
  if (n_hits_ == 0) return;
  count_hits(counters_);
  policy_->on_hit({hits_.data(), std::exchange(n_hits_, 0)});
}

/// What is dead is as if it were not there, whether somebody has met it yet or not.
bool CacheShard::is_outdated(const NewEntry& entry, EntryId old, base::TimeNs now_ns) const noexcept {
  if (entry.version < version_floor_) return true;
  if (old != no_entry && entries_[old].life != no_life && entry.version < lives_[entries_[old].life].version &&
      (is_live(old, now_ns) || is_stale(old, now_ns)))
    return true;
  return std::any_of(entry.tags.begin(), entry.tags.end(),
                     [&](std::string_view tag) { return entry.version < tag_table_.version_floor(tag); });
}

CacheShard::Outcome CacheShard::put(std::uint32_t hash, const NewEntry& entry, EntryId old, base::TimeNs now_ns,
                                    EntryId& id) {
  id = no_entry;
  if (is_outdated(entry, old, now_ns)) return Outcome::older;
  if (entry.bytes <= capacity_bytes_ && old == no_entry) make_place();
  const std::uint32_t life =
      entry.bytes <= capacity_bytes_ ? make_life(entry, old) : no_life;  // the last that may throw
  if (entry.asked && (old == no_entry || !is_live(old, now_ns))) {
    counters_.cost_missed_us += kept_cost(entry.cost_us);
    counters_.bytes_missed += entry.bytes;
  }
  if (entry.bytes > capacity_bytes_) {
    ++counters_.rejected;
    if (old != no_entry) remove(old);
    return Outcome::rejected;
  }
  tell_hits();
  if (old != no_entry) {
    id = old;
    policy_->on_remove(id);
    counters_.bytes_used -= bytes(entries_[id]);
    if (entries_[id].life != no_life) end_life(entries_[id].life);
  } else {
    id = free_;
    free_ = static_cast<EntryId>(entries_[id].key);
    entries_[id].hash = hash;
    ids_.insert(hash, id);
    ++counters_.n_entries;
  }
  update(id, entry, life);
  policy_->on_insert(id);
  if (life == no_life || lives_[life].n_pins == 0) policy_->on_evictable(id);
  counters_.bytes_used += entry.bytes;
  sweep(now_ns);
  return make_room(id) ? Outcome::stored : Outcome::rejected;
}

void CacheShard::update(EntryId id, const NewEntry& entry, std::uint32_t life) noexcept {
  Entry& kept = entries_[id];
  kept.key = entry.key;
  kept.kind = entry.kind & 3u;
  kept.in_use = true;
  kept.life = life & no_life;
  kept.cost_us = kept_cost(entry.cost_us);
  kept.bytes_low = static_cast<std::uint32_t>(entry.bytes);
}

/// False where the newest had to go.
bool CacheShard::make_room(EntryId newest) noexcept {
  while (counters_.bytes_used > capacity_bytes_) {
    EntryId victim = policy_->victim();
    if (victim == contracts::no_entry) victim = newest;  // everything else is pinned
    ++(victim == newest ? counters_.rejected : counters_.evictions);
    drop(victim);
    if (victim == newest) return false;
  }
  return true;
}

/// Two at a time: a full round takes as many puts as half the entries. May remove what put() has just put, where it was
/// dead from the start.
void CacheShard::sweep(base::TimeNs now_ns) noexcept {
  if (lives_.size() == free_lives_.size() && version_floor_ == 0) return;
  for (int i = 0; i < n_swept; ++i) {
    hand_ = hand_ + 1 < n_ids() ? hand_ + 1 : 0;
    if (entries_[hand_].in_use) met(hand_, now_ns);
  }
}

bool CacheShard::met(EntryId id, base::TimeNs now_ns) noexcept {
  if (is_live(id, now_ns) || is_stale(id, now_ns)) return false;
  const Entry& entry = entries_[id];
  if (entry.life != no_life && lives_[entry.life].n_pins > 0) return false;  // or its pins would be lost, now or later
  ++(is_invalid(entry) ? counters_.invalidated : counters_.expired);
  remove(id);
  return true;
}

void CacheShard::remove(EntryId id) noexcept {
  tell_hits();
  drop(id);
}

bool CacheShard::evict(EntryId id) noexcept {
  if (is_pinned(id)) return false;
  ++counters_.evictions;
  remove(id);
  return true;
}

/// Hits were told.
void CacheShard::drop(EntryId id) noexcept {
  policy_->on_remove(id);
  Entry& entry = entries_[id];
  ids_.erase(entry.hash, id);
  counters_.bytes_used -= bytes(entry);
  --counters_.n_entries;
  if (entry.life != no_life) end_life(entry.life);
  entry.in_use = false;
  entry.key = std::exchange(gone_, id);
}

void CacheShard::clear() noexcept {
  for (EntryId id = 0; id < n_ids(); ++id)
    if (entries_[id].in_use) remove(id);
}

EntryId CacheShard::take_gone() noexcept {
  const EntryId id = gone_;
  if (id == no_entry) return id;
  gone_ = static_cast<EntryId>(entries_[id].key);
  entries_[id].key = std::exchange(free_, id);
  return id;
}

void CacheShard::pin(EntryId id) {
  if (entries_[id].life == no_life) {
    const std::uint32_t life = make_life({}, no_entry, true);
    entries_[id].life = life & no_life;
  }
  if (lives_[entries_[id].life].n_pins++ > 0) return;
  tell_hits();
  policy_->on_held(id);
}

bool CacheShard::unpin(EntryId id) noexcept {
  const std::uint32_t life = entries_[id].life;
  if (life == no_life || lives_[life].n_pins == 0) return false;
  if (--lives_[life].n_pins == 0) policy_->on_evictable(id);
  return true;
}

std::uint64_t CacheShard::invalidate(std::string_view tag) noexcept { return tag_table_.invalidate(tag); }

void CacheShard::raise_floor(std::string_view tag, std::uint64_t version) { tag_table_.raise_floor(tag, version); }

void CacheShard::raise_floor(std::uint64_t version) noexcept { version_floor_ = std::max(version_floor_, version); }

NewEntry CacheShard::told(EntryId id) const noexcept {
  const Entry& entry = entries_[id];
  NewEntry told{.key = entry.key,
                .kind = entry.kind,
                .bytes = bytes(entry),
                .cost_us = static_cast<double>(entry.cost_us),
                .tags = {}};
  if (entry.life == no_life) return told;
  const Life& life = lives_[entry.life];
  told.reuse = life.reuse;
  told.expires_ns = life.expires_ns;
  told.stale_until_ns = life.stale_until_ns;
  told.version = life.version;
  return told;
}

std::vector<std::string_view> CacheShard::tags(EntryId id) const {
  std::vector<std::string_view> names;
  if (entries_[id].life == no_life) return names;
  for (const TagRef tag : lives_[entries_[id].life].tags) names.push_back(tag_table_.name(tag.tag));
  return names;
}

/// Room for one entry more, in everything that has a place for each.
void CacheShard::make_place() {
  if (free_ != no_entry) return;
  const std::size_t n = std::size_t{n_ids_} + 1;
  if (n > n_places_) {
    const std::size_t wanted = std::max<std::size_t>(16, n + n / 8);  // what is not touched yet takes no memory
    entries_.grow(wanted);
    policy_->grow(static_cast<std::uint32_t>(wanted));
    n_places_ = wanted;  // last: where one of them had no memory, all are asked again
  }
  // Half full while it fits a near cache and short searches pay, then a little fuller.
  const std::size_t n_ids_max = ids_.n_places() / 8 * (ids_.n_places() < n_places_roomy ? 4 : 5);
  if (n > n_ids_max) ids_.grow(ids_.n_places() + ids_.n_places() / 4);
  entries_[n - 1].key = no_entry;
  entries_[n - 1].life = no_life;
  free_ = n_ids_++;
}

/// For an entry in the place of `old`, whose pins it keeps and whose own life goes on; no_life where it needs none.
std::uint32_t CacheShard::make_life(const NewEntry& entry, EntryId old, bool always) {
  const std::uint32_t before = old == no_entry ? no_life : entries_[old].life;
  const std::uint32_t bytes_high = static_cast<std::uint32_t>(entry.bytes >> 32);
  const bool plain = entry.expires_ns == base::never_ns && entry.version == 0 && entry.reuse == 1.0 &&
                     entry.tags.empty() && bytes_high == 0 && !always;
  const std::uint32_t n_pins = before == no_life ? 0 : lives_[before].n_pins;
  if (plain && n_pins == 0) return no_life;
  Life made{entry.expires_ns, entry.stale_until_ns, entry.version, entry.reuse, n_pins, bytes_high, {}};
  made.tags.reserve(entry.tags.size());
  if (free_lives_.empty()) {
    if (lives_.size() >= no_life) throw std::bad_alloc();
    const std::size_t wanted = lives_.size() + 1;
    if (wanted > lives_.capacity()) lives_.reserve(wanted + wanted / 4);
    free_lives_.reserve(lives_.capacity());  // so that end_life() need not allocate
    lives_.emplace_back();
    free_lives_.push_back(static_cast<std::uint32_t>(lives_.size() - 1));
  }
  try {
    for (const std::string_view tag : entry.tags) made.tags.push_back(tag_table_.take(tag));
  } catch (...) {
    for (const TagRef tag : made.tags) tag_table_.give_back(tag);
    throw;
  }
  const std::uint32_t life = free_lives_.back();
  free_lives_.pop_back();
  lives_[life] = std::move(made);
  return life;
}

void CacheShard::end_life(std::uint32_t life) noexcept {
  for (const TagRef tag : lives_[life].tags) tag_table_.give_back(tag);
  lives_[life] = {};
  free_lives_.push_back(life);
}

}  // namespace infcore::cache
