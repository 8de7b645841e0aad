#include <infcore/engine/token_choice.hpp>

#include <algorithm>
#include <utility>

namespace infcore::engine {
namespace {

constexpr std::uint32_t blocks_unknown = 1u << 14;

std::span<const std::uint64_t> names_of(const contracts::Request& request) noexcept {
  return {request.blocks, request.n_blocks};
}

}  // namespace

void TokenChoice::add_node(NodeId id, std::uint32_t kind, std::uint32_t n_blocks) {
  nodes_[id.value] = {kind, std::min(n_blocks == 0 ? blocks_unknown : n_blocks, blocks_max), {}};
}

void TokenChoice::forget(NodeId id) {
  Node& node = nodes_[id.value];
  for (Part& part : node.parts) part.blocks.reset(node.n_blocks_max);
}

const TokenChoice::Part* TokenChoice::find_part(NodeId id, base::ModelId model) const noexcept {
  for (const Part& part : nodes_[id.value].parts)
    if (part.model == model) return &part;
  return nullptr;
}

TokenChoice::Part& TokenChoice::part_of(NodeId id, base::ModelId model) {
  Node& node = nodes_[id.value];
  for (Part& part : node.parts)
    if (part.model == model) return part;
  node.parts.push_back({.model = model});
  node.parts.back().blocks.reset(node.n_blocks_max);
  return node.parts.back();
}

const TokenChoice::Class* TokenChoice::find_class(base::ModelId model, std::uint32_t kind) const noexcept {
  for (const Class& one : classes_)
    if (one.model == model && one.kind == kind) return &one;
  return nullptr;
}

TokenChoice::Class& TokenChoice::class_of(base::ModelId model, std::uint32_t kind) {
  for (Class& one : classes_)
    if (one.model == model && one.kind == kind) return one;
  return classes_.emplace_back(Class{.model = model, .kind = kind});
}

/// The last token of a prompt is computed in any case: its output is the first one's input.
std::uint32_t TokenChoice::n_new(const contracts::Request& request, const Part* part) noexcept {
  if (request.n_blocks == 0 || part == nullptr) return request.prompt_tokens;
  const std::uint32_t n_most = (request.prompt_tokens - 1) / request.block_size;
  return request.prompt_tokens - std::min(part->blocks.n_held(names_of(request)), n_most) * request.block_size;
}

double TokenChoice::cost_s(const contracts::Request& request, NodeId id, std::uint32_t n_beside,
                           double beside_weight) const noexcept {
  static constexpr contracts::FirstTokenModel unknown{};
  const Part* const part = find_part(id, request.model);
  const Class* const known = find_class(request.model, nodes_[id.value].kind);
  const contracts::FirstTokenModel& model = known != nullptr ? known->first : unknown;
  const double own = n_new(request, part), others = n_beside;
  const double ahead = part != nullptr ? static_cast<double>(part->n_ahead) : 0.0;
  return model.seconds({ahead + own, others}) + beside_weight * others * own * model.per_token_s();
}

TokenChoice::Share TokenChoice::send(TimeNs now_ns, const contracts::Request& request, NodeId id,
                                     std::uint32_t n_beside) {
  Part& part = part_of(id, request.model);
  const std::uint32_t own = n_new(request, &part);
  part.n_ahead += own;
  part.blocks.picked(names_of(request));
  return {own, static_cast<float>(part.n_ahead), static_cast<float>(n_beside), now_ns};
}

void TokenChoice::first_token(TimeNs now_ns, base::ModelId model, NodeId id, Share& share) {
  if (share.n_tokens == 0) return;
  class_of(model, nodes_[id.value].kind)
      .first.observe({static_cast<double>(share.n_ahead), static_cast<double>(share.n_beside)},
                     base::seconds(now_ns - share.sent_ns));
  leave(model, id, share);
}

void TokenChoice::leave(base::ModelId model, NodeId id, Share& share) noexcept {
  const std::uint64_t n_tokens = std::exchange(share.n_tokens, 0);
  for (Part& part : nodes_[id.value].parts)
    if (part.model == model) part.n_ahead -= std::min(n_tokens, part.n_ahead);
}

}  // namespace infcore::engine
