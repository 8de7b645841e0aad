#pragma once
#include <cstdint>

namespace infcore::engine {

/// A 64-bit fingerprint of a sequence of words: of decisions, to compare two runs, and of bytes, to find damage. Any
/// one word that differs gives another value, since each step is a bijection of the word and of what came before.
/// Nothing to keep secrets with.
class Digest {
 public:
  constexpr explicit Digest(std::uint64_t seed = 0) noexcept : value_(seed) {}
  constexpr void add(std::uint64_t word) noexcept {
    value_ = (value_ ^ word) * 0x9E37'79B9'7F4A'7C15ull;  // odd: 2^64 / golden ratio
    value_ ^= value_ >> 32;
  }
  [[nodiscard]] constexpr std::uint64_t value() const noexcept { return value_; }

 private:
  std::uint64_t value_;
};

}  // namespace infcore::engine
