#include <infcore/base/errors.hpp>
#include <infcore/route/foreign_policy.hpp>

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>

namespace infcore::route {
namespace {

/// A factory; whoever makes a policy of it holds it meanwhile.
struct Maker {
  Maker(void* outside, const ForeignCalls& by) noexcept : context(outside), calls(by) {}
  Maker(const Maker&) = delete;
  Maker& operator=(const Maker&) = delete;
  ~Maker() {
    if (owned) calls.release_maker(context);
  }
  void* context;
  ForeignCalls calls;
  bool owned{};
};

class ForeignPolicy final : public RoutingPolicy {
 public:
  ForeignPolicy(std::string_view name, void* self, const ForeignCalls& calls)
      : name_(name), self_(self), calls_(calls) {}
  ~ForeignPolicy() override { calls_.release(self_); }

  const char* name() const noexcept override { return name_.c_str(); }
  bool binds_on_arrival() const noexcept override { return true; }
  bool reads_blocks() const noexcept override { return true; }
  void attach(const Fleet& fleet) override { fleet_ = &fleet; }

  NodeId select(const RouteQuery& query, RouteView& view) noexcept override {
    NodeId node = base::no_node;
    if (failed()) return node;  // in observe(): its owner is to hear of it first
    if (view.filter(query) && !calls_.select(self_, query, view, node)) fail();
    return node;
  }

  void observe(const RouteOutcome& outcome) noexcept override {
    if (!calls_.observe(self_, outcome, *fleet_)) fail();
  }

  bool failed() const noexcept override { return failed_.load(std::memory_order_acquire); }

  void rethrow() override {
    if (!failed_.exchange(false, std::memory_order_acq_rel)) return;
    calls_.raise(self_);
    throw Error("policy '" + name_ + "' failed");
  }

 private:
  void fail() noexcept { failed_.store(true, std::memory_order_release); }

  std::string name_;
  void* self_;
  ForeignCalls calls_;
  const Fleet* fleet_{};
  std::atomic<bool> failed_{false};  // an engine's callers look at it from any thread
};

struct Makers {
  std::mutex mutex;
  std::map<std::string, std::shared_ptr<Maker>, std::less<>> by_name;
};

Makers& makers() {
  static Makers* const all =
      new Makers;  // never destroyed: releasing a factory when the process ends needs its language
  return *all;
}

/// Swaps under the lock; what stood there is released after it, for that may run code of another language.
std::shared_ptr<Maker> put(const std::string& name, std::shared_ptr<Maker> maker) {
  Makers& all = makers();
  const std::lock_guard hold(all.mutex);
  std::swap(all.by_name[name], maker);
  return maker;
}

}  // namespace

void register_foreign_policy(const std::string& name, void* maker, const ForeignCalls& calls) {
  const std::vector<std::string> compiled = routing_policies();
  if (std::find(compiled.begin(), compiled.end(), name) != compiled.end())
    throw InvalidArgument("name", "'" + name + "'", "one that no policy of infcore has");
  if (name.empty()) throw InvalidArgument("name", "''", "a name of at least one character");
  const auto made = std::make_shared<Maker>(maker, calls);
  const auto before = put(name, made);
  made->owned = true;
}

std::unique_ptr<RoutingPolicy> foreign_policy(std::string_view name, void* self, const ForeignCalls& calls) {
  return std::make_unique<ForeignPolicy>(name, self, calls);
}

std::unique_ptr<RoutingPolicy> make_foreign_policy(std::string_view name, std::uint64_t seed, RoutingOptions& options) {
  std::shared_ptr<Maker> maker;
  {
    Makers& all = makers();
    const std::lock_guard hold(all.mutex);
    const auto found = all.by_name.find(name);
    if (found != all.by_name.end()) maker = found->second;
  }
  if (!maker) return nullptr;
  void* const self = maker->calls.make(maker->context, seed, options);
  if (self == nullptr) throw Error("policy '" + std::string(name) + "' could not be made");
  return foreign_policy(name, self, maker->calls);
}

void copy_candidates(const RouteQuery& query, RouteView& view, std::vector<std::uint32_t>& nodes,
                     std::vector<double>& figures) {
  nodes.clear();
  for (NodeId node = view.next_candidate(0); node != base::no_node; node = view.next_candidate(node.value + 1))
    nodes.push_back(node.value);
  const std::size_t n = nodes.size();
  figures.resize(n * n_figures);
  for (std::size_t i = 0; i < n; ++i) {
    const NodeId node{nodes[i]};
    const CostTerms terms = view.terms(query, node);
    const double row[n_figures] = {view.inflight(node),
                                   static_cast<double>(view.fleet().slots(node)),
                                   view.fleet().price_per_hour(node),
                                   terms.wait_us,
                                   terms.service_us,
                                   terms.pressure_us,
                                   terms.load_us,
                                   terms.network_us,
                                   terms.saving_us,
                                   terms.cost_us};
    for (std::size_t k = 0; k < n_figures; ++k) figures[k * n + i] = row[k];
  }
}

std::vector<ForeignOption> take_all(RoutingOptions& options) {
  std::vector<ForeignOption> all;
  for (const auto& [name, value] : options.take_all()) {
    ForeignOption option{.name = name, .kind = ForeignOption::texts, .as_number = 0.0, .as_text = {}, .as_texts = {}};
    if (const auto* number = std::get_if<double>(&value)) {
      option.kind = ForeignOption::number;
      option.as_number = *number;
    } else if (const auto* text = std::get_if<std::string>(&value)) {
      option.kind = ForeignOption::text;
      option.as_text = *text;
    } else {
      option.as_texts = std::get<RoutingOptions::Texts>(value);
    }
    all.push_back(std::move(option));
  }
  return all;
}

}  // namespace infcore::route
