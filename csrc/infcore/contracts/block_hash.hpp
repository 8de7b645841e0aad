#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

namespace infcore::contracts {

/// Chained names of token blocks: the name of block i stands for every token up to its end, so equal names mean equal
/// prefixes, whoever computed them. 64 bits: among n different prefixes two share a name with probability n^2 / 2^65,
/// one in 30 million at a million. tests/unit/test_block_hashes.py looks for collisions and measures the avalanche.
/// Not meant against somebody who searches for collisions on purpose: give each tenant that is not trusted a secret
/// salt.
///
/// A block: the sum, over its pairs of tokens, of the folded 128-bit product of both, each with a key of its place; so
/// pairs don't wait for each other. The chain: a step that is one-to-one in the name before, for any block, and in the
/// block's sum, for any name before. Tokens are taken as int64: int32 and int64 tokens of equal value name alike.
namespace detail {

__extension__ using Wide = unsigned __int128;

/// Bits of the cube roots of the first sixteen primes (the constants of SHA-512, FIPS 180-4): nothing up a sleeve.
inline constexpr std::uint64_t place_keys[16] = {
    0x428a2f98d728ae22u, 0x7137449123ef65cdu, 0xb5c0fbcfec4d3b2fu, 0xe9b5dba58189dbbcu,
    0x3956c25bf348b538u, 0x59f111f1b605d019u, 0x923f82a4af194f9bu, 0xab1c5ed5da6d8118u,
    0xd807aa98a3030242u, 0x12835b0145706fbeu, 0x243185be4ee4b28cu, 0x550c7dc3d5ffb4e2u,
    0x72be5d74f27b896fu, 0x80deb1fe3b1696b1u, 0x9bdc06a725c71235u, 0xc19bf174cf692694u};
/// Odd, so that multiplying is one-to-one: bits of the square roots of 2, 3 and 5 (SHA-512's starting values).
inline constexpr std::uint64_t root_2 = 0x6a09e667f3bcc909u;
inline constexpr std::uint64_t root_3 = 0xbb67ae8584caa73bu;
inline constexpr std::uint64_t root_5 = 0x3c6ef372fe94f82bu;

[[nodiscard]] inline std::uint64_t fold(std::uint64_t a, std::uint64_t b) noexcept {
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

/// One-to-one; every input bit moves about half of the output's.
[[nodiscard]] inline std::uint64_t stir(std::uint64_t x) noexcept {
  x = (x ^ (x >> 32)) * root_2;
  x = (x ^ (x >> 29)) * root_3;
  return x ^ (x >> 32);
}

template <class Token>
[[nodiscard]] inline std::uint64_t keyed(const Token* tokens, std::size_t at) noexcept {
  return static_cast<std::uint64_t>(static_cast<std::int64_t>(tokens[at])) ^ place_keys[at];
}

template <class Token>
[[nodiscard]] inline std::uint64_t sum_of_16(const Token* tokens) noexcept {
  std::uint64_t sum = 0;
#pragma GCC unroll 8
  for (std::size_t i = 0; i < 16; i += 2) sum += fold(keyed(tokens, i), keyed(tokens, i + 1));
  return sum;
}

/// Sixteen tokens at a time; a rest shorter than that in pairs, the odd one with the key of its place.
template <class Token>
[[nodiscard]] inline std::uint64_t block_sum(const Token* tokens, std::size_t block_size) noexcept {
  std::uint64_t sum = 0;
  std::size_t at = 0;
  for (; at + 16 <= block_size; at += 16) sum = (sum ^ (sum >> 31)) * root_5 + sum_of_16(tokens + at);
  if (at == block_size) return sum;
  std::uint64_t rest = 0;
  const Token* const last = tokens + at;
  std::size_t i = 0;
  for (; i + 1 < block_size - at; i += 2) rest += fold(keyed(last, i), keyed(last, i + 1));
  if (i < block_size - at) rest += fold(keyed(last, i), root_3);
  return (sum ^ (sum >> 31)) * root_5 + rest;
}

}  // namespace detail

/// The name before the first block. Block sizes differ in it: names of different paging never meet.
[[nodiscard]] inline std::uint64_t chain_start(std::uint32_t block_size, std::uint64_t salt) noexcept {
  return detail::stir(detail::stir(salt + detail::root_5) + block_size);
}

/// The name of a block after the one named `before`. Precondition: `tokens` has block_size tokens.
template <class Token>
[[nodiscard]] inline std::uint64_t chain(std::uint64_t before, const Token* tokens, std::uint32_t block_size) noexcept {
  return detail::stir(before + detail::block_sum(tokens, block_size));
}

/// A block's name in an index that several models share. One-to-one for each model; those of two meet by chance alone.
[[nodiscard]] inline std::uint64_t name_of(std::uint64_t block, std::uint32_t model) noexcept {
  return detail::stir(block + detail::root_5 * (std::uint64_t{model} + 1));
}

/// names[i] = the name of tokens[0, (i + 1) * block_size). Precondition: names.size() full blocks of tokens are there.
/// O(tokens), allocates nothing.
template <class Token>
inline void hash_blocks(const Token* tokens, std::uint32_t block_size, std::uint64_t salt,
                        std::span<std::uint64_t> names) noexcept {
  std::uint64_t name = chain_start(block_size, salt);
  if (block_size == 16) {  // most engines' size, unrolled
    for (std::uint64_t& next : names) {
      next = name = detail::stir(name + detail::sum_of_16(tokens));
      tokens += 16;
    }
    return;
  }
  for (std::uint64_t& next : names) {
    next = name = chain(name, tokens, block_size);
    tokens += block_size;
  }
}

}  // namespace infcore::contracts
