#pragma once
/// Runs the product's own lock-free code under the Relacy model checker. Include the product's headers first: Relacy
/// redefines the names of memory orders.
///
/// A model's main() is model::run<Suites...>(argc, argv). Each suite is searched exhaustively under its context bound.
/// Without arguments the program prints a line "site FILE:LINE order" for every operation it met whose order is
/// stronger than relaxed. With `--weaken FILE:LINE` that one operation is weakened, and the search has to fail:
/// this is the negative control, which run.py performs for each site.
/// Exit status: 0 exhausted without a failure, 3 the checker found a failure, 2 bad arguments.
#include <infcore/queue/futex.hpp>
#include <relacy/relacy.hpp>

#undef memory_order_relaxed
#undef memory_order_consume
#undef memory_order_acquire
#undef memory_order_release
#undef memory_order_acq_rel
#undef memory_order_seq_cst
#undef new
#undef delete
#undef malloc
#undef calloc
#undef realloc
#undef free

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ostream>
#include <streambuf>

namespace model {

/// Where in the product an operation stands. Nothing here allocates: Relacy accounts for every allocation in a search.
struct Site {
  const char* file;
  int line;
  const char* order = nullptr;

  [[nodiscard]] rl::debug_info info() const { return rl::debug_info("", file, static_cast<unsigned>(line)); }
};

inline Site sites_met[64];
inline int n_sites_met = 0;
inline const char* weak_file = nullptr;
inline int weak_line = 0;

/// Whether this operation is the one to weaken; notes it as met.
inline bool is_weak(const Site& site, const char* order) {
  int i = 0;
  while (i < n_sites_met && (sites_met[i].line != site.line || std::strcmp(sites_met[i].file, site.file) != 0)) ++i;
  if (i == n_sites_met) {
    if (i == 64) std::abort();
    sites_met[n_sites_met++] = {site.file, site.line, order};
  }
  return weak_file != nullptr && site.line == weak_line && std::strcmp(site.file, weak_file) == 0;
}

inline rl::memory_order order_at(std::memory_order order, const Site& site, bool is_rmw = false) {
  switch (order) {
    case std::memory_order_relaxed:
      return rl::mo_relaxed;
    case std::memory_order_acquire:
      return is_weak(site, "acquire") ? rl::mo_relaxed : rl::mo_acquire;
    case std::memory_order_release:
      return is_weak(site, "release") ? rl::mo_relaxed : rl::mo_release;
    case std::memory_order_acq_rel:
      return is_weak(site, "acq_rel") ? rl::mo_relaxed : rl::mo_acq_rel;
    default:
      return !is_weak(site, "seq_cst") ? rl::mo_seq_cst : is_rmw ? rl::mo_acq_rel : rl::mo_relaxed;
  }
}

/// std::atomic's interface over Relacy's, which may return any value that the memory model allows.
template <class T>
class Atom {
 public:
  Atom() : Atom(T{}) {}
  explicit(false) Atom(T value) { value_.store(value, rl::mo_relaxed, rl::debug_info("", __FILE__, __LINE__)); }

  T load(std::memory_order order, const char* file = __builtin_FILE(), int line = __builtin_LINE()) const {
    const Site site{file, line};
    return value_.load(order_at(order, site), site.info());
  }
  void store(T value, std::memory_order order, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    const Site site{file, line};
    value_.store(value, order_at(order, site), site.info());
  }
  T exchange(T value, std::memory_order order, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    const Site site{file, line};
    return value_.exchange(value, order_at(order, site, true), site.info());
  }
  T fetch_add(T value, std::memory_order order, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    const Site site{file, line};
    return value_.fetch_add(value, order_at(order, site, true), site.info());
  }
  T fetch_sub(T value, std::memory_order order, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    const Site site{file, line};
    return value_.fetch_sub(value, order_at(order, site, true), site.info());
  }
  bool compare_exchange_weak(T& seen, T value, std::memory_order order, std::memory_order failed,
                             const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    const Site site{file, line};
    const rl::memory_order strong = order_at(order, site, true);
    const rl::memory_order weak = failed == std::memory_order_relaxed ? rl::mo_relaxed : order_at(failed, site, true);
    return value_.compare_exchange_weak(seen, value, strong, site.info(), weak, site.info());
  }
  bool compare_exchange_strong(T& seen, T value, std::memory_order order, std::memory_order failed,
                               const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    const Site site{file, line};
    const rl::memory_order strong = order_at(order, site, true);
    const rl::memory_order weak = failed == std::memory_order_relaxed ? rl::mo_relaxed : order_at(failed, site, true);
    return value_.compare_exchange_strong(seen, value, strong, site.info(), weak, site.info());
  }

 private:
  rl::atomic<T> value_;
};

/// Plain memory of the product, with every access checked for data races.
template <class T>
class Plain {
 public:
  Plain() noexcept : Plain(T{}) {}
  explicit(false) Plain(T value) noexcept { *this = value; }
  Plain(const Plain& other) noexcept : Plain(static_cast<T>(other)) {}
  Plain& operator=(const Plain& other) noexcept { return *this = static_cast<T>(other); }
  Plain& operator=(T value) noexcept {
    value_(rl::debug_info("", __FILE__, __LINE__)) = value;
    return *this;
  }
  explicit(false) operator T() const noexcept { return value_(rl::debug_info("", __FILE__, __LINE__)); }

 private:
  rl::var<T> value_;
};

/// The kernel's futex: it looks at the word under the lock that wake() takes too. Never times out, so that a lost
/// wake-up is a deadlock. A suite that uses it makes a Kernel in before() and destroys it in after().
struct Futex {
  struct Kernel {
    rl::mutex lock;
    rl::condition_variable sleepers;
    Kernel() { kernel = this; }
  };
  static inline Kernel* kernel = nullptr;

  static infcore::queue::WaitOutcome wait(const Atom<std::uint32_t>& word, std::uint32_t expected, std::int64_t) {
    const rl::debug_info here("", __FILE__, __LINE__);
    kernel->lock.lock(here);
    if (word.load(std::memory_order_relaxed) == expected) kernel->sleepers.wait(kernel->lock, here);
    kernel->lock.unlock(here);
    return infcore::queue::WaitOutcome::look_again;
  }
  static void wake(const Atom<std::uint32_t>&, std::uint32_t) {
    const rl::debug_info here("", __FILE__, __LINE__);
    kernel->lock.lock(here);
    kernel->sleepers.notify_all(here);
    kernel->lock.unlock(here);
  }
  static void fence(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    const Site site{file, line};
    if (!is_weak(site, "fence")) rl::atomic_thread_fence(rl::mo_seq_cst, site.info());
  }
};

/// Searches one suite; prints what it did. True if nothing failed.
template <class Suite>
bool search(const char* name, int context_bound) {
  static char text[1 << 20];  // Relacy's account of a failure; what does not fit is cut
  struct Fixed : std::streambuf {
    Fixed() { setp(text, text + sizeof(text) - 1); }
    [[nodiscard]] int size() const { return static_cast<int>(pptr() - pbase()); }
  } buffer;
  std::ostream out(&buffer);
  rl::test_params params;
  params.search_type = rl::fair_context_bound_scheduler_type;
  params.context_bound = static_cast<unsigned>(context_bound);
  params.execution_depth_limit = 4000;
  params.output_stream = &out;
  params.progress_stream = &out;
  params.progress_output_period = 1000000000;
  const bool ok = rl::simulate<Suite>(params);
  std::printf("%s: %s, %llu interleavings, context bound %d\n", name,
              ok ? "holds" : rl::test_result_str(params.test_result),
              static_cast<unsigned long long>(params.stop_iteration), context_bound);
  if (!ok && weak_file == nullptr) std::printf("%.*s\n", buffer.size(), text);
  return ok;
}

/// Suite has `static constexpr const char* name` and `static constexpr int context_bound`.
template <class... Suites>
int run(int argc, char** argv) {
  if (argc == 3 && std::strcmp(argv[1], "--weaken") == 0) {
    char* colon = std::strrchr(argv[2], ':');
    if (colon == nullptr) return 2;
    *colon = 0;
    weak_file = argv[2];
    weak_line = std::atoi(colon + 1);
  } else if (argc != 1) {
    std::fprintf(stderr, "usage: %s [--weaken FILE:LINE]\n", argv[0]);
    return 2;
  }
  const bool ok = (search<Suites>(Suites::name, Suites::context_bound) && ...);
  if (weak_file == nullptr) {
    for (int i = 0; i < n_sites_met; ++i) {
      std::printf("site %s:%d %s\n", sites_met[i].file, sites_met[i].line, sites_met[i].order);
    }
  }
  return ok ? 0 : 3;
}

}  // namespace model
