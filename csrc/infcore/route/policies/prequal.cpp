// Of a pool of probes, each what a node said of itself a moment ago: nodes with many requests in flight count as hot
// and are avoided; of the others, the one with the least latency. So load is spread by latency as long as nobody is
// near the edge, and by requests in flight there.
//
// Source: B. Wydrowski, R. Kleinberg, S. M. Rumble, A. Archer, Load is not what you should balance: Introducing Prequal
//   (NSDI 2024, sections 4 and 5): hot/cold lexicographic choice, hot above the q_rif quantile of requests in flight;
//   probes are used several times, counted up by each request sent, and go by age, by use, and one at each request, in
//   turn the worst and the oldest.
// Differs: no probe travels: it is a read of the node's published figures at the moment of a pick, with the latency
// that
//   our curves predict of a request of work 1 at its queue and load, not the node's own median. A node has one probe in
//   a pool, its newest. Uses are an option, not a formula of pool, probes and fleet size. One pool for each model, the
//   quantile over the last 64 probes of all.
// Cost: O(nodes / 64) words and `probes` reads, O(pool) to choose. 2.5 KB for each model that was asked for.
// Tunables: q_rif .84, 0 to 1 (0: requests in flight alone; 1: latency alone), probes 3 a pick (1 to 16), pool 16
//   (1 to 64), reuse 2 uses (1 to 64), age_s 1; the seed. Ties: fewer in flight, less latency, the lowest id.
// In an engine: binds on arrival.
#include <infcore/base/draw.hpp>
#include <infcore/route/routing_policy.hpp>

#include <algorithm>
#include <array>
#include <limits>
#include <new>

namespace infcore::route {
namespace {

constexpr std::uint32_t pool_max = 64, n_recent_max = 64;

struct ProbeOptions {
  double q_rif;
  std::uint32_t n_probes, n_pool, n_uses;
  base::TimeNs age_ns;
};

struct Probe {
  NodeId node;
  std::uint32_t n_uses;  ///< left
  std::uint64_t born;
  double inflight, latency_us;
  base::TimeNs at_ns;
};

/// One model's probes, the oldest first.
struct Pool {
  std::array<Probe, pool_max> probes;
  std::uint32_t n{};
  bool worst_next{true};  ///< else the oldest

  void remove(std::uint32_t i) noexcept {
    std::copy(probes.begin() + i + 1, probes.begin() + n, probes.begin() + i);
    --n;
  }
};

class Prequal final : public RoutingPolicy {
 public:
  Prequal(std::uint64_t seed, const ProbeOptions& options) noexcept : options_(options), draw_(seed) {}
  const char* name() const noexcept override { return "prequal"; }
  bool binds_on_arrival() const noexcept override { return true; }
  void attach(const Fleet& fleet) override { pools_.resize(fleet.max_models()); }

  NodeId select(const RouteQuery& query, RouteView& view) noexcept override {
    if (!view.filter(query)) return base::no_node;
    auto& pool = pools_[query.model.value];
    if (!pool) pool.reset(new (std::nothrow) Pool);
    if (!pool) return view.least_inflight();
    expire(*pool, query.now_ns, view);
    probe(*pool, query, view);
    const double hot_from = quantile();
    const std::uint32_t best = best_of(*pool, hot_from, view);
    if (best == pool->n) return view.least_inflight();  // never: what was just probed is a candidate
    const NodeId node = pool->probes[best].node;
    pool->probes[best].inflight += 1.0;
    if (--pool->probes[best].n_uses == 0) pool->remove(best);
    shrink(*pool, hot_from);
    return node;
  }

 private:
  void expire(Pool& pool, base::TimeNs now_ns, const RouteView& view) noexcept {
    for (std::uint32_t i = pool.n; i-- > 0;) {
      const Probe& probe = pool.probes[i];
      if (now_ns - probe.at_ns > options_.age_ns || view.fleet().born(probe.node) != probe.born) pool.remove(i);
    }
  }

  void probe(Pool& pool, const RouteQuery& query, RouteView& view) noexcept {
    const std::uint32_t n = view.n_candidates();
    RouteQuery unit = query;
    unit.work = 1.0;
    for (std::uint32_t i = 0; i < options_.n_probes; ++i) {
      const NodeId node = view.candidate(static_cast<std::uint32_t>((draw_.bits() >> 32) * n >> 32));
      for (std::uint32_t at = pool.n; at-- > 0;)
        if (pool.probes[at].node == node) pool.remove(at);
      if (pool.n == options_.n_pool) pool.remove(0);
      pool.probes[pool.n++] = {
          node,        options_.n_uses, view.fleet().born(node), view.inflight(node), view.terms(unit, node).cost_us,
          query.now_ns};
      recent_[n_recent_++ % n_recent_max] = pool.probes[pool.n - 1].inflight;
    }
  }

  /// Above it a node is hot.
  [[nodiscard]] double quantile() const noexcept {
    if (options_.q_rif >= 1.0) return std::numeric_limits<double>::infinity();
    const std::size_t n = std::min<std::size_t>(n_recent_, n_recent_max);
    std::array<double, n_recent_max> sorted = recent_;
    const auto at = static_cast<std::ptrdiff_t>(options_.q_rif * static_cast<double>(n));
    std::nth_element(sorted.begin(), sorted.begin() + at, sorted.begin() + static_cast<std::ptrdiff_t>(n));
    return sorted[static_cast<std::size_t>(at)];
  }

  /// Cold before hot, the cold by latency, the hot by requests in flight.
  [[nodiscard]] static bool better(const Probe& a, const Probe& b, double hot_from) noexcept {
    const bool a_hot = a.inflight > hot_from, b_hot = b.inflight > hot_from;
    if (a_hot != b_hot) return b_hot;
    if (a_hot && a.inflight != b.inflight) return a.inflight < b.inflight;
    if (a.latency_us != b.latency_us) return a.latency_us < b.latency_us;
    if (a.inflight != b.inflight) return a.inflight < b.inflight;
    return a.node < b.node;
  }

  /// Of the candidates; `n` where none was probed.
  [[nodiscard]] static std::uint32_t best_of(const Pool& pool, double hot_from, const RouteView& view) noexcept {
    std::uint32_t best = pool.n;
    for (std::uint32_t i = 0; i < pool.n; ++i) {
      const NodeId node = pool.probes[i].node;
      if (view.next_candidate(node.value) != node) continue;
      if (best == pool.n || better(pool.probes[i], pool.probes[best], hot_from)) best = i;
    }
    return best;
  }

  /// One probe goes at each pick: bad ones are not used, and would fill the pool.
  static void shrink(Pool& pool, double hot_from) noexcept {
    if (pool.n < 2) return;
    std::uint32_t worst = 0;
    for (std::uint32_t i = 1; pool.worst_next && i < pool.n; ++i)
      if (better(pool.probes[worst], pool.probes[i], hot_from)) worst = i;
    pool.remove(worst);
    pool.worst_next = !pool.worst_next;
  }

  ProbeOptions options_;
  base::Draw draw_;
  std::array<double, n_recent_max> recent_{};  // requests in flight of the last probes
  std::uint64_t n_recent_{};
  std::vector<std::unique_ptr<Pool>> pools_;  // by model
};

std::uint32_t whole(RoutingOptions& options, const char* name, double otherwise, double most) {
  return static_cast<std::uint32_t>(options.number(name, otherwise, 1.0, most));
}

}  // namespace

std::unique_ptr<RoutingPolicy> make_prequal(std::uint64_t seed, RoutingOptions& options) {
  return std::make_unique<Prequal>(
      seed, ProbeOptions{.q_rif = options.number("q_rif", 0.84, 0.0, 1.0),
                         .n_probes = whole(options, "probes", 3.0, 16.0),
                         .n_pool = whole(options, "pool", 16.0, pool_max),
                         .n_uses = whole(options, "reuse", 2.0, 64.0),
                         .age_ns = static_cast<base::TimeNs>(options.number("age_s", 1.0, 1e-6, 1e6) * 1e9)});
}

}  // namespace infcore::route
