#include <infcore/base/errors.hpp>
#include <infcore/cache/replay.hpp>
#include <infcore/cache/replayed_entries.hpp>

#include <string>
#include <unordered_map>
#include <vector>

namespace infcore::cache {
namespace {

using contracts::EntryId;
using contracts::EvictionEntry;
using contracts::no_entry;

/// Accesses ahead whose place in the table is asked for: it has come when its turn comes (12 probes are as long as a
/// miss of the memory, as in KVBlocks).
constexpr std::size_t n_ahead = 12;

constexpr std::size_t asked_every = std::size_t{1} << 20;

/// For each access, after how many accesses in all its key comes next.
std::vector<std::uint64_t> next_uses(const ReplayTrace& trace) {
  std::vector<std::uint64_t> next(trace.n);
  std::unordered_map<std::uint64_t, std::uint64_t> last;
  for (std::size_t i = trace.n; i-- > 0;) {
    const auto [found, is_new] = last.try_emplace(trace.keys[i], i);
    next[i] = is_new ? EvictionEntry::unknown_use : found->second;
    found->second = i;
  }
  return next;
}

/// What both kinds of replay share: entries, bytes, counts, and the policy that chooses among them.
class ReplayedCache : public contracts::EvictionView {
 protected:
  ReplayedCache(const ReplayTrace& trace, const ReplayConfig& config, contracts::EvictionPolicy& policy)
      : trace_(trace), config_(config), policy_(policy) {
    if (policy.asks_future()) next_uses_ = next_uses(trace);
    next_use_of_.resize(next_uses_.empty() ? 0 : entries_.n_entries_max());
    policy_.attach(*this, {.n_entries_max = n_told_, .capacity_bytes = config.capacity_bytes});
  }

  [[nodiscard]] EvictionEntry entry(EntryId id) const noexcept override {
    EvictionEntry shown{entries_[id].key, entries_[id].bytes, entries_[id].cost_us, 0, false};
    if (!next_use_of_.empty()) shown.next_use = next_use_of_[id];
    return shown;
  }
  [[nodiscard]] std::uint64_t key(EntryId id) const noexcept override { return entries_[id].key; }

  [[nodiscard]] std::uint64_t bytes_at(std::size_t i) const noexcept {
    return trace_.bytes == nullptr ? 1 : trace_.bytes[i] + (trace_.bytes[i] == 0 ? 1 : 0);
  }
  [[nodiscard]] double cost_at(std::size_t i) const noexcept {
    return trace_.costs_us == nullptr ? 1.0 : trace_.costs_us[i];
  }
  [[nodiscard]] bool is_admitted(std::size_t i) const noexcept {
    return (trace_.is_admitted == nullptr || trace_.is_admitted[i] != 0) && bytes_at(i) <= config_.capacity_bytes;
  }
  /// At the access i: see ReplayConfig::goes_on.
  [[nodiscard]] bool is_stopped(std::size_t i) const {
    return i % asked_every == 0 && config_.goes_on != nullptr && !config_.goes_on();
  }
  void prefetch(std::size_t i) const noexcept {
    if (i + n_ahead < trace_.n) entries_.prefetch(trace_.keys[i + n_ahead]);
  }

  void count_hit(std::size_t i) noexcept {
    ++stats_.hits;
    stats_.bytes_requested += bytes_at(i);
    stats_.cost_requested_us += cost_at(i);
  }
  void count_miss(std::size_t i) noexcept {
    ++stats_.misses;
    stats_.bytes_requested += bytes_at(i);
    stats_.bytes_missed += bytes_at(i);
    stats_.cost_requested_us += cost_at(i);
    stats_.cost_missed_us += cost_at(i);
  }

  /// An access found it: what it would cost now is what its next miss will.
  void touch(EntryId id, std::size_t i) noexcept {
    if (trace_.costs_us != nullptr) entries_[id].cost_us = trace_.costs_us[i];
    if (!next_use_of_.empty()) next_use_of_[id] = next_uses_[i];
  }

  /// The policy is not told yet.
  EntryId add(std::size_t i) {
    if (entries_.full()) grow();
    const EntryId id = entries_.add({trace_.keys[i], bytes_at(i), cost_at(i)});
    if (id >= n_told_) {  // as a Cache would: what policies remember of others goes by it
      n_told_ = id + 1 + (id + 1) / 8;
      policy_.grow(n_told_);
    }
    if (!next_use_of_.empty()) next_use_of_[id] = next_uses_[i];
    stats_.bytes_used += bytes_at(i);
    return id;
  }

  void remove(EntryId id) noexcept {
    policy_.on_remove(id);
    stats_.bytes_used -= entries_[id].bytes;
    entries_.remove(id);
  }

  virtual void grow() {
    entries_.grow();
    if (!next_use_of_.empty()) next_use_of_.resize(entries_.n_entries_max());
  }

  const ReplayTrace& trace_;
  const ReplayConfig& config_;
  contracts::EvictionPolicy& policy_;
  ReplayedEntries entries_;
  EntryId n_told_{16};                      ///< places that the policy has
  std::vector<std::uint64_t> next_uses_;    ///< of each access; empty: the policy does not ask
  std::vector<std::uint64_t> next_use_of_;  ///< of each entry
  ReplayStats stats_;
};

/// Accesses that have nothing to do with one another.
class PlainReplay final : public ReplayedCache {
 public:
  PlainReplay(const ReplayTrace& trace, const ReplayConfig& config, contracts::EvictionPolicy& policy)
      : ReplayedCache(trace, config, policy), made_s_(has_ttl() ? entries_.n_entries_max() : 0) {}

  ReplayStats run() {
    for (std::size_t i = 0; i < trace_.n && !is_stopped(i); ++i) {
      prefetch(i);
      const EntryId found = entries_.find(trace_.keys[i]);
      if (found != no_entry && is_good(found, i)) {
        count_hit(i);
        touch(found, i);
        policy_.on_hit({&found, 1});
        continue;
      }
      count_miss(i);
      if (found != no_entry) {
        if (is_old(found, i)) ++stats_.expired;
        remove(found);
      }
      if (is_admitted(i)) {
        put(i);
      } else {
        ++stats_.rejected;
      }
    }
    stats_.requests = stats_.hits + stats_.misses;
    return stats_;
  }

 private:
  [[nodiscard]] bool has_ttl() const noexcept { return config_.ttl_s < std::numeric_limits<double>::infinity(); }
  [[nodiscard]] bool is_good(EntryId id, std::size_t i) const noexcept {
    return entries_[id].bytes == bytes_at(i) && !is_old(id, i);
  }
  [[nodiscard]] bool is_old(EntryId id, std::size_t i) const noexcept {
    return !made_s_.empty() && trace_.times_s[i] - made_s_[id] >= config_.ttl_s;
  }

  void put(std::size_t i) {
    const EntryId added = add(i);
    if (!made_s_.empty()) made_s_[added] = trace_.times_s[i];
    policy_.on_insert(added);
    policy_.on_evictable(added);
    while (stats_.bytes_used > config_.capacity_bytes) {
      const EntryId victim = policy_.victim();
      if (victim == no_entry) throw Error("the eviction policy names nothing, though everything is evictable");
      remove(victim);
      ++(victim == added ? stats_.rejected : stats_.evictions);
    }
  }

  void grow() override {
    ReplayedCache::grow();
    if (!made_s_.empty()) made_s_.resize(entries_.n_entries_max());
  }

  std::vector<double> made_s_;  ///< of each entry; empty: nothing gets too old
};

/// Prompts: chains of blocks, each of no use without the one before it.
class PromptReplay final : public ReplayedCache {
 public:
  PromptReplay(const ReplayTrace& trace, const ReplayConfig& config, contracts::EvictionPolicy& policy)
      : ReplayedCache(trace, config, policy), links_(entries_.n_entries_max()) {}

  ReplayStats run() {
    for (std::size_t begin = 0, end = 0; begin < trace_.n; begin = end) {
      bool stopped = false;
      for (; end < trace_.n && trace_.requests[end] == trace_.requests[begin]; ++end) stopped |= is_stopped(end);
      if (stopped) break;
      run_prompt(begin, end);
    }
    stats_.requests = stats_.hits + stats_.misses;
    return stats_;
  }

 private:
  struct Link {
    EntryId parent{no_entry};
    std::uint32_t n_uses{};
    std::uint32_t n_children{};
    std::uint32_t n_held_children{};
    [[nodiscard]] bool held() const noexcept { return n_uses > 0 || n_held_children > 0; }
  };

  [[nodiscard]] EvictionEntry entry(EntryId id) const noexcept override {
    EvictionEntry shown = ReplayedCache::entry(id);
    shown.n_children = links_[id].n_children;
    shown.pinned = links_[id].held();
    return shown;
  }

  void run_prompt(std::size_t begin, std::size_t end) {
    used_.clear();
    std::size_t i = begin;
    for (; i < end; ++i) {
      prefetch(i);
      const EntryId found = entries_.find(trace_.keys[i]);
      if (found == no_entry) break;
      use(found, i);
      count_hit(i);
    }
    if (!used_.empty()) policy_.on_hit(used_);
    store(i, end);
    if (!used_.empty()) policy_.on_release(used_);
    // Last first: a leaf becomes evictable at once, without a walk to the root.
    for (std::size_t u = used_.size(); u > 0; --u) unuse(used_[u - 1]);
  }

  /// What the prefix in the cache left to compute. What stands behind a block that is not stored is not stored either.
  void store(std::size_t i, std::size_t end) {
    bool is_chain = true;
    for (; i < end; ++i) {
      prefetch(i);
      count_miss(i);
      const EntryId found = is_chain ? entries_.find(trace_.keys[i]) : no_entry;
      if (found != no_entry) {  // from behind another prefix
        use(found, i);
        policy_.on_hit({&found, 1});
      } else if (is_chain && is_admitted(i) && make_room(bytes_at(i))) {
        chain(i);
      } else {
        is_chain = false;
        ++stats_.rejected;
      }
    }
  }

  void chain(std::size_t i) {
    const EntryId added = add(i);
    const EntryId parent = used_.empty() ? no_entry : used_.back();
    links_[added] = Link{.parent = parent, .n_uses = 1};
    held_bytes_ += bytes_at(i);
    if (parent != no_entry) {
      ++links_[parent].n_children;
      ++links_[parent].n_held_children;
    }
    used_.push_back(added);
    policy_.on_insert(added);
  }

  [[nodiscard]] bool make_room(std::uint64_t bytes) {
    if (bytes > config_.capacity_bytes - held_bytes_) return false;
    while (bytes > config_.capacity_bytes - stats_.bytes_used) {
      const EntryId victim = policy_.victim();
      if (victim == no_entry) throw Error("the eviction policy names nothing, though leaves are evictable");
      const EntryId parent = links_[victim].parent;
      remove(victim);
      ++stats_.evictions;
      if (parent != no_entry && --links_[parent].n_children == 0 && !links_[parent].held()) {
        policy_.on_evictable(parent);
      }
    }
    return true;
  }

  void use(EntryId id, std::size_t i) {
    if (entries_[id].bytes != bytes_at(i)) {
      throw InvalidArgument("sizes[" + std::to_string(i) + "]", std::to_string(bytes_at(i)),
                            std::to_string(entries_[id].bytes) +
                                ", as at its key's access before: with requests a "
                                "key's size stays");
    }
    touch(id, i);
    used_.push_back(id);
    const bool was_held = links_[id].held();
    ++links_[id].n_uses;
    if (!was_held) became_held(id);
  }

  void unuse(EntryId id) noexcept {
    --links_[id].n_uses;
    if (!links_[id].held()) became_unheld(id);
  }

  void became_held(EntryId id) noexcept {
    for (;;) {
      held_bytes_ += entries_[id].bytes;
      if (links_[id].n_children == 0) policy_.on_held(id);
      id = links_[id].parent;
      if (id == no_entry) return;
      const bool was_held = links_[id].held();
      ++links_[id].n_held_children;
      if (was_held) return;
    }
  }

  void became_unheld(EntryId id) noexcept {
    for (;;) {
      held_bytes_ -= entries_[id].bytes;
      if (links_[id].n_children == 0) policy_.on_evictable(id);
      id = links_[id].parent;
      if (id == no_entry) return;
      --links_[id].n_held_children;
      if (links_[id].held()) return;
    }
  }

  void grow() override {
    ReplayedCache::grow();
    links_.resize(entries_.n_entries_max());
  }

  std::vector<Link> links_;
  std::vector<EntryId> used_;  ///< by the request that runs, in its order
  std::uint64_t held_bytes_{};
};

}  // namespace

ReplayStats replay(const ReplayTrace& trace, const ReplayConfig& config, contracts::EvictionPolicy& policy) {
  if (trace.requests != nullptr) return PromptReplay(trace, config, policy).run();
  return PlainReplay(trace, config, policy).run();
}

}  // namespace infcore::cache
