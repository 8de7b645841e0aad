#pragma once
#include <infcore/route/fleet.hpp>

#include <cstdint>
#include <vector>

namespace infcore::route {

/// Something of each node that holds from its add() to its remove(), worked out once: a name's hash, whether it carries
/// a label. Of a policy, whose calls are one at a time. 8 bytes and a T a node.
template <class T>
class NodeFacts {
 public:
  void attach(const Fleet& fleet) {
    fleet_ = &fleet;
    born_.resize(fleet.max_nodes());
    facts_.resize(fleet.max_nodes());
  }

  /// After RouteView::filter(), so that whoever is a candidate is known: facts of new nodes are `read(id, spec)`, once
  /// a node. True where there were any. O(1) unless membership changed.
  template <class Read>
  bool follow(Read read) noexcept {
    const std::uint64_t version = fleet_->version();
    if (version == version_) return false;
    version_ = version;
    bool any = false;
    for (NodeId node{0}; node.value < fleet_->n_nodes(); ++node.value) {
      const std::uint64_t born = fleet_->born(node);
      if (born == born_[node.value]) continue;
      born_[node.value] = born;
      facts_[node.value] = fleet_->read_spec(node, [&](const NodeSpec& spec) { return read(node, spec); });
      any = true;
    }
    return any;
  }

  [[nodiscard]] const T& operator[](NodeId node) const noexcept { return facts_[node.value]; }
  /// Fleet::born of the node that the fact is about; 0: none.
  [[nodiscard]] std::uint64_t born(NodeId node) const noexcept { return born_[node.value]; }

 private:
  const Fleet* fleet_{};
  std::uint64_t version_{};
  std::vector<std::uint64_t> born_;
  std::vector<T> facts_;
};

/// Whether the node carries the label; its zone and location count as such.
[[nodiscard]] inline bool carries(const NodeSpec& spec, std::string_view key, std::string_view value) noexcept {
  if (key == "zone") return spec.zone == value;
  if (key == "location") return spec.location == value;
  for (const auto& label : spec.labels)
    if (label.first == key && label.second == value) return true;
  return false;
}

}  // namespace infcore::route
