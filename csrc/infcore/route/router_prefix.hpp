#pragma once
#include <infcore/route/guarded_router.hpp>
#include <infcore/route/prefix_index.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace infcore::route {

/// A router's prefix index for others than its picks: each call under the router's lock, after what became of the
/// fleet.
class RouterPrefix {
 public:
  using Blocks = std::span<const std::uint64_t>;

  /// The router outlives it.
  explicit RouterPrefix(GuardedRouter& router) noexcept : router_(&router) {}

  std::size_t stored(base::NodeId node, Blocks blocks, KvTier tier, const std::uint64_t* after) {
    return router_->with_prefix([&](PrefixIndex& index) { return index.stored(node, blocks, tier, after); });
  }
  std::size_t removed(base::NodeId node, Blocks blocks, KvTier tier) {
    return router_->with_prefix([&](PrefixIndex& index) { return index.removed(node, blocks, tier); });
  }
  void cleared(base::NodeId node) {
    router_->with_prefix([&](PrefixIndex& index) { index.cleared(node); });
  }
  void match(Blocks blocks, base::TimeNs now_ns, std::vector<std::int32_t>& nodes, std::vector<std::int32_t>& held) {
    router_->with_prefix([&](PrefixIndex& index) {
      index.advance(now_ns);
      const PrefixIndex::Match match = index.match(blocks);
      nodes.assign(match.nodes.begin(), match.nodes.end());
      held.assign(match.held.begin(), match.held.end());
    });
  }
  [[nodiscard]] PrefixStats stats() {
    return router_->with_prefix([](PrefixIndex& index) { return index.stats(); });
  }

 private:
  GuardedRouter* router_;
};

}  // namespace infcore::route
