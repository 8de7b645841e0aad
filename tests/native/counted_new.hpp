#pragma once
// Counts what is allocated in the program that includes it, once.
#include <cstddef>
#include <cstdlib>
#include <new>

namespace {
std::size_t n_allocations = 0;
}  // namespace

// Not inlined: where one of the pair is, GCC takes them for a mismatch.
[[gnu::noinline]] void* operator new(std::size_t size) {
  ++n_allocations;
  if (void* const memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
