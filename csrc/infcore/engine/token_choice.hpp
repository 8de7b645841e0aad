#pragma once
#include <infcore/base/ids.hpp>
#include <infcore/contracts/first_token.hpp>
#include <infcore/contracts/request.hpp>
#include <infcore/engine/picked_blocks.hpp>

#include <cstdint>
#include <span>
#include <vector>

namespace infcore::engine {

/// Where a request of a token model goes, of the nodes that have a slot for it: to the one where its first token is
/// predicted first, counting what those that run there lose by it. The prediction is about tokens that the node must
/// compute: those of prompts that wait there, and of this one as far as earlier requests have not brought them there.
/// So a prefix goes where it was before until that costs more than computing it anew. Nodes of a kind are taken for
/// equal: one that is slower has more before it, and is told from the others by that.
///
/// Source: routing by cached prefix and load together, as B. Sun et al., Preble, 2024 (arXiv:2407.00023), section 3,
///   and NVIDIA Dynamo's KV router do. Differs: seconds, learned from first tokens, not weights of blocks; the loss
///   of others is in it; nothing is asked of the nodes.
/// Cost: for each free node a few probes of its blocks. Tunables: JointWeights::beside.
class TokenChoice {
 public:
  using NodeId = base::NodeId;
  using TimeNs = base::TimeNs;

  /// A request's part of what its node has to compute: from its dispatch to its first token, or its end before that.
  struct Share {
    std::uint32_t n_tokens{};  ///< of its prompt that were not there; 0: none, or over
    float n_ahead{};           ///< tokens to compute when it was sent, its own included
    float n_beside{};          ///< requests that were there then
    TimeNs sent_ns{};
  };

  static constexpr std::uint32_t blocks_max = 1u << 16;  ///< that are kept of a node, however many it has

  void resize(std::uint32_t max_nodes) { nodes_.resize(max_nodes); }
  /// `n_blocks`: of its KV cache; 0: not known.
  void add_node(NodeId node, std::uint32_t kind, std::uint32_t n_blocks);
  /// Its memory is gone.
  void forget(NodeId node);

  /// Cost in seconds of sending it there, where `n_beside` requests are.
  [[nodiscard]] double cost_s(const contracts::Request& request, NodeId node, std::uint32_t n_beside,
                              double beside_weight) const noexcept;
  /// It was sent there.
  [[nodiscard]] Share send(TimeNs now_ns, const contracts::Request& request, NodeId node, std::uint32_t n_beside);
  void first_token(TimeNs now_ns, base::ModelId model, NodeId node, Share& share);
  /// It is there no more, or waits no more for its first token.
  void leave(base::ModelId model, NodeId node, Share& share) noexcept;

 private:
  /// What a node has of one model.
  struct Part {
    base::ModelId model{};
    PickedBlocks blocks{};
    std::uint64_t n_ahead{};  ///< tokens that it still has to compute for first tokens
  };
  struct Node {
    std::uint32_t kind{}, n_blocks_max{1};
    std::vector<Part> parts{};
  };
  /// Nodes of one kind, for one model.
  struct Class {
    base::ModelId model{};
    std::uint32_t kind{};
    contracts::FirstTokenModel first{};
  };
  [[nodiscard]] static std::uint32_t n_new(const contracts::Request& request, const Part* part) noexcept;
  [[nodiscard]] const Part* find_part(NodeId node, base::ModelId model) const noexcept;
  Part& part_of(NodeId node, base::ModelId model);
  [[nodiscard]] const Class* find_class(base::ModelId model, std::uint32_t kind) const noexcept;
  Class& class_of(base::ModelId model, std::uint32_t kind);

  std::vector<Node> nodes_{};
  std::vector<Class> classes_{};
};

}  // namespace infcore::engine
