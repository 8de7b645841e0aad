#pragma once
#include <infcore/contracts/block_hash.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace infcore::contracts {

/// A session's name as routing knows it: the same in every process and on every machine, never 0 (no session). Not
/// meant against somebody who searches for collisions on purpose: they would share a node, no more.
[[nodiscard]] inline std::uint64_t session_hash(std::uint64_t number) noexcept {
  const std::uint64_t hash = detail::stir(number + detail::root_5);
  return hash != 0 ? hash : 1;
}

/// Of a text's bytes, eight at a time; its length is part of it, so that what fills the last eight up is no byte.
[[nodiscard]] inline std::uint64_t session_hash(const char* text, std::size_t n_bytes) noexcept {
  std::uint64_t hash = detail::stir(n_bytes + detail::root_3);
  for (std::size_t at = 0; at < n_bytes; at += 8) {
    std::uint64_t eight = 0;
    std::memcpy(&eight, text + at, n_bytes - at < 8 ? n_bytes - at : 8);
    hash = detail::stir(hash + eight);
  }
  return session_hash(hash);
}

}  // namespace infcore::contracts
