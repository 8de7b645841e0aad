#pragma once
#include <infcore/route/routing_policy.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

namespace infcore::route {

/// Nodes of a fleet, as RouteQuery::among takes them.
class NodeSet {
 public:
  void attach(const Fleet& fleet) { words_.resize(fleet.columns().n_words()); }
  void clear() noexcept { std::fill(words_.begin(), words_.end(), 0); }
  void add(NodeId node) noexcept { words_[node.value / 64] |= std::uint64_t{1} << (node.value % 64); }
  [[nodiscard]] bool holds(NodeId node) const noexcept {
    return (words_[node.value / 64] >> (node.value % 64) & 1) != 0;
  }
  [[nodiscard]] const std::uint64_t* words() const noexcept { return words_.data(); }

 private:
  std::vector<std::uint64_t> words_;
};

std::unique_ptr<RoutingPolicy> make_slo_cost(std::uint64_t seed, RoutingOptions& options);

/// What policies have in common that show slo_cost a part of the nodes: it weighs those, with its own options, learns
/// from all outcomes, and each policy says when it is shown which.
class NarrowingPolicy : public RoutingPolicy {
 public:
  void attach(const Fleet& fleet) override { inner_->attach(fleet); }
  void observe(const RouteOutcome& outcome) noexcept override { inner_->observe(outcome); }
  JointWeights joint() const noexcept override { return inner_->joint(); }
  bool reads_blocks() const noexcept override { return inner_->reads_blocks(); }
  CostWeights weights() const noexcept override { return inner_->weights(); }
  CostTerms terms(const RouteQuery& /*query*/, RouteView& /*view*/, NodeId /*node*/) noexcept override {
    return terms_;
  }
  Nudge nudge(const RouteQuery& query, RouteView& view) noexcept override {
    consider(query, view);
    RouteQuery narrowed = query;
    if (const NodeSet* const set = taken()) narrowed.among = set->words();
    return inner_->nudge(narrowed, view);
  }

 protected:
  /// The nodes that select() would show slo_cost, by what consider() saw; null: all.
  [[nodiscard]] virtual const NodeSet* taken() const noexcept { return nullptr; }

  NarrowingPolicy(std::uint64_t seed, RoutingOptions& options) : inner_(make_slo_cost(seed, options)) {}

  struct Choice {
    NodeId node{base::no_node};
    CostTerms terms;
    [[nodiscard]] bool found() const noexcept { return node != base::no_node; }
  };
  Choice of_all(const RouteQuery& query, RouteView& view) noexcept {
    const NodeId node = inner_->select(query, view);
    if (node == base::no_node) return {};
    return {node, inner_->terms(query, view, node)};
  }
  Choice of(const NodeSet& set, const RouteQuery& query, RouteView& view) noexcept {
    RouteQuery narrowed = query;
    narrowed.among = set.words();
    return of_all(narrowed, view);
  }
  /// What the cheapest candidate of the set costs, or of all for null; +inf: there is none in time.
  Least least(const NodeSet* set, const RouteQuery& query, RouteView& view) const noexcept {
    RouteQuery narrowed = query;
    if (set != nullptr) narrowed.among = set->words();
    if (view.prepare(narrowed, weights())) return view.least_cost();
    return {std::numeric_limits<float>::infinity(), 0};
  }
  /// What select() ends with.
  NodeId take(const Choice& choice) noexcept {
    terms_ = choice.terms;
    return choice.node;
  }

 private:
  std::unique_ptr<RoutingPolicy> inner_;
  CostTerms terms_;  // of what was taken last
};

}  // namespace infcore::route
