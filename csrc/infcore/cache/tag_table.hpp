#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace infcore::cache {

/// A tag as an entry bears it: which, and as of which of its generations.
struct TagRef {
  std::uint32_t tag;
  std::uint32_t generation;
};

/// Names that entries have in common, so that all that bear one go at once: a generation is counted up, and who bears
/// an older one is dead. A tag is known as long as some entry, dead or alive, bears it, or it has a floor.
///
/// One thread at a time. O(1) each, but for the name's hash.
class TagTable {
 public:
  /// One more entry bears it. Throws std::bad_alloc; then nothing has changed.
  [[nodiscard]] TagRef take(std::string_view name);
  /// That entry is no more.
  void give_back(TagRef ref) noexcept;

  /// How many live entries died of it.
  std::uint64_t invalidate(std::string_view name) noexcept;
  /// From now on an entry that bears it is dead unless its version is at least this one, for good: the tag is not
  /// forgotten any more. Throws std::bad_alloc.
  void raise_floor(std::string_view name, std::uint64_t version);

  [[nodiscard]] bool is_dead(TagRef ref, std::uint64_t version) const noexcept {
    const Tag& tag = tags_[ref.tag];
    return tag.generation != ref.generation || version < tag.version_floor;
  }
  [[nodiscard]] std::uint64_t version_floor(std::string_view name) const noexcept {
    const auto found = known_.find(name);
    return found == known_.end() ? 0 : tags_[found->second].version_floor;
  }
  [[nodiscard]] std::string_view name(std::uint32_t tag) const noexcept { return tags_[tag].known->first; }

 private:
  std::uint32_t find_or_make(std::string_view name);

  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view name) const noexcept { return std::hash<std::string_view>{}(name); }
  };
  using Known = std::unordered_map<std::string, std::uint32_t, Hash, std::equal_to<>>;
  struct Tag {
    std::uint32_t generation{};
    std::uint64_t n_current{};  ///< entries of this generation
    std::uint64_t n_entries{};  ///< of any
    std::uint64_t version_floor{};
    const Known::value_type* known{};  ///< stays where it is while the table grows; an iterator need not
  };

  Known known_;
  std::vector<Tag> tags_;
  std::vector<std::uint32_t> free_;
};

}  // namespace infcore::cache
