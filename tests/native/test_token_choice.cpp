// Requests of token models: which blocks a node is believed to hold, and what sending one there costs.
#include <infcore/base/draw.hpp>
#include <infcore/engine/token_choice.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <list>
#include <vector>

using infcore::base::ModelId;
using infcore::base::NodeId;
using infcore::contracts::FirstTokenModel;
using infcore::contracts::Request;
using infcore::engine::PickedBlocks;
using infcore::engine::TokenChoice;

namespace {

using Names = std::vector<std::uint64_t>;

constexpr std::uint32_t block_size = 4;
constexpr ModelId llm{0};
constexpr double beside = 0.3;

/// A list, the latest first, no hash table, no search by halves.
struct PlainBlocks {
  std::size_t n_max;
  std::list<std::uint64_t> names{};

  void picked(const Names& prompt) {
    for (std::size_t i = std::min(prompt.size(), n_max); i > 0; --i) {
      names.remove(prompt[i - 1]);
      names.push_front(prompt[i - 1]);
      if (names.size() > n_max) names.pop_back();
    }
  }
  [[nodiscard]] std::uint32_t n_held(const Names& prompt) const {
    std::uint32_t n = 0;
    while (n < prompt.size() && std::find(names.begin(), names.end(), prompt[n]) != names.end()) ++n;
    return n;
  }
};

/// Names of a tree of prompts: block i of a branch is named by all choices up to it.
Names prompt_of(infcore::base::Draw& draw) {
  Names names;
  std::uint64_t name = 0;
  const auto n = static_cast<std::size_t>(draw.uniform() * 9.0);
  for (std::size_t i = 0; i < n; ++i) {
    name = name * 3 + 1 + static_cast<std::uint64_t>(draw.uniform() * 3.0);
    names.push_back(name);
  }
  return names;
}

Request request_of(const Names& names, std::uint32_t n_more = 1) {
  Request request;
  request.model = llm;
  request.blocks = names.data();
  request.n_blocks = static_cast<std::uint32_t>(names.size());
  request.block_size = block_size;
  request.prompt_tokens = request.n_blocks * block_size + n_more;
  return request;
}

TokenChoice choice_of(std::uint32_t n_nodes, std::uint32_t n_blocks = 100) {
  TokenChoice choice;
  choice.resize(n_nodes);
  for (NodeId node{0}; node.value < n_nodes; ++node.value) choice.add_node(node, 0, n_blocks);
  return choice;
}

Names counted(std::uint64_t from, std::uint64_t n) {
  Names names;
  for (std::uint64_t i = 0; i < n; ++i) names.push_back(from + i);
  return names;
}

}  // namespace

TEST(PickedBlocks, IsThePlainListOfTheLatest) {
  for (const std::uint32_t n_max : {1u, 5u, 64u, 1000u}) {
    infcore::base::Draw draw(n_max, 0);
    PickedBlocks blocks;
    blocks.reset(n_max);
    PlainBlocks plain{n_max};
    for (int i = 0; i < 2000; ++i) {
      const Names names = prompt_of(draw);
      ASSERT_EQ(blocks.n_held(names), plain.n_held(names)) << "request " << i << " of room for " << n_max;
      if (draw.uniform() < 0.5) continue;
      blocks.picked(names);
      plain.picked(names);
      ASSERT_EQ(blocks.n_blocks(), plain.names.size());
    }
    EXPECT_GT(blocks.n_blocks(), 0u);
    blocks.reset(n_max);
    EXPECT_EQ(blocks.n_blocks(), 0u);
    EXPECT_EQ(blocks.n_held(prompt_of(draw)), 0u);
  }
}

TEST(FirstTokenModel, LearnsItsTermsAndStaysPositive) {
  FirstTokenModel model;
  infcore::base::Draw draw(1, 0);
  for (int i = 0; i < 500; ++i) {
    const double tokens = 100.0 + 8000.0 * draw.uniform(), others = 40.0 * draw.uniform();
    model.observe({tokens, others}, (0.02 + 3e-5 * tokens + 2e-4 * others) * (0.95 + 0.1 * draw.uniform()));
  }
  EXPECT_NEAR(model.seconds({1000.0, 10.0}), 0.052, 0.003);
  EXPECT_NEAR(model.per_token_s(), 3e-5, 2e-6);
  for (int i = 0; i < 500; ++i) model.observe({1.0 + 100.0 * draw.uniform(), 30.0}, 1e-6 + 1e-3 * draw.uniform());
  EXPECT_GT(model.per_token_s(), 0.0);
  EXPECT_GE(model.seconds({0.0, 0.0}), 0.0);
  const FirstTokenModel before = model;
  for (const double bad : {0.0, -1.0, 1e300, 0.0 / 0.0}) model.observe({100.0, 1.0}, bad);
  EXPECT_EQ(model.seconds({100.0, 1.0}), before.seconds({100.0, 1.0}));
  EXPECT_EQ(model.n_observed(), before.n_observed());
}

TEST(TokenChoice, APrefixGoesWhereItWasUntilThatCostsMoreThanComputingIt) {
  TokenChoice choice = choice_of(2);
  const Names names = counted(1, 20);
  const Request request = request_of(names);
  EXPECT_EQ(choice.cost_s(request, NodeId{0}, 0, beside), choice.cost_s(request, NodeId{1}, 0, beside));
  TokenChoice::Share first = choice.send(0, request, NodeId{1}, 0);
  EXPECT_EQ(first.n_tokens, 81u);
  choice.first_token(10'000'000, llm, NodeId{1}, first);
  EXPECT_EQ(first.n_tokens, 0u);
  EXPECT_LT(choice.cost_s(request, NodeId{1}, 0, beside), choice.cost_s(request, NodeId{0}, 0, beside));
  // What it found is all full blocks; the rest of one it computes.
  std::vector<TokenChoice::Share> shares;
  for (int i = 0; choice.cost_s(request, NodeId{1}, 0, 0.0) < choice.cost_s(request, NodeId{0}, 0, 0.0); ++i) {
    ASSERT_LT(i, 100);
    shares.push_back(choice.send(0, request, NodeId{1}, 0));
    EXPECT_EQ(shares.back().n_tokens, 1u);
  }
  EXPECT_EQ(shares.size(), 80u);  // as many tokens as the whole prompt has more
  for (TokenChoice::Share& share : shares) choice.leave(llm, NodeId{1}, share);
  EXPECT_LT(choice.cost_s(request, NodeId{1}, 0, beside), choice.cost_s(request, NodeId{0}, 0, beside));
  choice.forget(NodeId{1});
  EXPECT_EQ(choice.cost_s(request, NodeId{1}, 0, 0.0), choice.cost_s(request, NodeId{0}, 0, 0.0));
}

TEST(TokenChoice, TheLastTokenIsComputedInAnyCase) {
  TokenChoice choice = choice_of(1);
  const Names names = counted(1, 5);
  const Request request = request_of(names, 0);
  static_cast<void>(choice.send(0, request, NodeId{0}, 0));
  EXPECT_EQ(choice.send(0, request, NodeId{0}, 0).n_tokens, block_size);
}

TEST(TokenChoice, ModelsOfANodeShareNoBlocks) {
  TokenChoice choice = choice_of(1);
  const Names names = counted(1, 5);
  Request request = request_of(names);
  static_cast<void>(choice.send(0, request, NodeId{0}, 0));
  request.model = ModelId{1};
  EXPECT_EQ(choice.send(0, request, NodeId{0}, 0).n_tokens, 21u);
}

TEST(TokenChoice, KindsAreToldApartByWhatTheyTake) {
  TokenChoice choice;
  choice.resize(3);
  for (NodeId node{0}; node.value < 3; ++node.value) choice.add_node(node, node.value / 2, 100);
  std::uint64_t next = 1'000'000;
  infcore::base::Draw draw(7, 0);
  for (int i = 0; i < 100; ++i) {
    for (NodeId node{0}; node.value < 3; ++node.value) {
      const Names names = counted(next += 1000, 1 + static_cast<std::uint64_t>(500.0 * draw.uniform()));
      TokenChoice::Share share = choice.send(0, request_of(names), node, 0);
      choice.first_token(infcore::base::to_ns(0.01 + share.n_tokens * (node.value == 2 ? 4e-5 : 1e-5)), llm, node,
                         share);
    }
  }
  const Names names = counted(1, 250);
  const Request request = request_of(names);
  EXPECT_EQ(choice.cost_s(request, NodeId{0}, 0, beside), choice.cost_s(request, NodeId{1}, 0, beside));
  EXPECT_NEAR(choice.cost_s(request, NodeId{0}, 0, beside), 0.02, 0.001);
  EXPECT_NEAR(choice.cost_s(request, NodeId{2}, 0, beside), 0.05, 0.002);
}

TEST(TokenChoice, WhoRunsBesideCounts) {
  TokenChoice choice = choice_of(2);
  const Names names = counted(1, 50);
  const Request request = request_of(names);
  EXPECT_GT(choice.cost_s(request, NodeId{0}, 10, beside), choice.cost_s(request, NodeId{1}, 0, beside));
}
