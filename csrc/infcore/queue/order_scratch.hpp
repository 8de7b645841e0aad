#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace infcore::queue {

/// What it takes to read a lane in order without taking anything out; room for all of it is made at construction.
struct OrderScratch {
  static constexpr std::uint32_t n_items_max = 256;

  OrderScratch() {
    frontier.reserve(std::size_t{6} * n_items_max + 4);  // three places an item, and aged ones are passed twice
    flows.reserve(n_items_max);
    items.reserve(std::size_t{2} * n_items_max);
    ends.reserve(n_items_max);
  }

  std::vector<std::uint32_t> frontier, flows, items, ends;
};

}  // namespace infcore::queue
