#pragma once
#include <infcore/contracts/block_hash.hpp>
#include <infcore/engine/live_request.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

namespace infcore::engine {

/// Room for the names of a prompt's blocks, which the request keeps until it goes.
inline std::uint64_t* room_for_blocks(LiveRequest& request, std::uint32_t n_blocks) {
  request.blocks = std::make_unique_for_overwrite<std::uint64_t[]>(std::max(n_blocks, 1u));
  request.request.blocks = request.blocks.get();
  request.request.n_blocks = n_blocks;
  return request.blocks.get();
}

/// Names the blocks of a token model's prompt: its first input, (n,) int64. O(tokens), about .3 ns each.
inline void name_blocks(LiveRequest& request, std::uint32_t block_size) {
  const std::uint32_t n = request.request.prompt_tokens / block_size;
  const std::span<std::uint64_t> names(room_for_blocks(request, n), n);
  const std::byte* const tokens = request.rows[0].data;
  if (reinterpret_cast<std::uintptr_t>(tokens) % alignof(std::int64_t) == 0) {
    return contracts::hash_blocks(reinterpret_cast<const std::int64_t*>(tokens), block_size, 0, names);
  }
  std::vector<std::int64_t> aligned(std::size_t{n} * block_size);  // a view into packed bytes
  std::memcpy(aligned.data(), tokens, aligned.size() * sizeof(std::int64_t));
  contracts::hash_blocks(aligned.data(), block_size, 0, names);
}

inline void copy_blocks(LiveRequest& request, const std::uint64_t* names, std::uint32_t n_blocks) {
  std::copy_n(names, n_blocks, room_for_blocks(request, n_blocks));
}

}  // namespace infcore::engine
