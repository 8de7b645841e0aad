#include <infcore/cache/tag_table.hpp>

#include <algorithm>
#include <utility>

namespace infcore::cache {

std::uint32_t TagTable::find_or_make(std::string_view name) {
  if (const auto found = known_.find(name); found != known_.end()) return found->second;
  if (free_.empty()) {
    free_.reserve(tags_.size() + 1 > tags_.capacity() ? 2 * tags_.size() + 1 : tags_.capacity());
    tags_.reserve(free_.capacity());  // so that give_back() need not allocate
    tags_.emplace_back();
    free_.push_back(static_cast<std::uint32_t>(tags_.size() - 1));
  }
  const std::uint32_t tag = free_.back();
  tags_[tag].known = &*known_.emplace(name, tag).first;
  free_.pop_back();
  return tag;
}

TagRef TagTable::take(std::string_view name) {
  const std::uint32_t at = find_or_make(name);
  Tag& tag = tags_[at];
  ++tag.n_current;
  ++tag.n_entries;
  return {at, tag.generation};
}

void TagTable::give_back(TagRef ref) noexcept {
  Tag& tag = tags_[ref.tag];
  if (tag.generation == ref.generation) --tag.n_current;
  if (--tag.n_entries > 0 || tag.version_floor > 0) return;
  // Nobody bears it, so nobody can be mistaken for whoever bears the next tag in this place.
  known_.erase(known_.find(tag.known->first));
  tag = {};
  free_.push_back(ref.tag);
}

std::uint64_t TagTable::invalidate(std::string_view name) noexcept {
  const auto found = known_.find(name);
  if (found == known_.end()) return 0;
  Tag& tag = tags_[found->second];
  if (tag.n_current == 0) return 0;  // or an entry that outlives 2^32 of these would live again
  ++tag.generation;
  return std::exchange(tag.n_current, 0);
}

void TagTable::raise_floor(std::string_view name, std::uint64_t version) {
  Tag& tag = tags_[find_or_make(name)];
  tag.version_floor = std::max(tag.version_floor, version);
}

}  // namespace infcore::cache
