#pragma once
#include <infcore/route/routing_policy.hpp>

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <vector>

namespace infcore::route {

/// What a binding does for policies written in its language: plain functions, of which each policy has one `self`.
/// Any thread calls them, one at a time for each policy.
struct ForeignCalls {
  /// A policy of that seed and those options; null where it failed, with its failure pending in the binding's own way.
  void* (*make)(void* maker, std::uint64_t seed, RoutingOptions& options);
  /// After filter() of the view found candidates; base::no_node: none of them. False: it failed.
  bool (*select)(void* self, const RouteQuery& query, RouteView& view, NodeId& node);
  bool (*observe)(void* self, const RouteOutcome& outcome, const Fleet& fleet);
  /// Makes pending in the binding's own way what select or observe met last.
  void (*raise)(void* self);
  void (*release)(void* self);
  void (*release_maker)(void* maker);
};

/// Makes policies of `name` by `calls.make(maker, ...)` from now on, in place of one registered before. Throws
/// InvalidArgument for a name of the registry. Takes `maker` over where it returns.
void register_foreign_policy(const std::string& name, void* maker, const ForeignCalls& calls);
/// The policy that `self` is; takes `self` over.
[[nodiscard]] std::unique_ptr<RoutingPolicy> foreign_policy(std::string_view name, void* self,
                                                            const ForeignCalls& calls);
/// Null where none is registered.
[[nodiscard]] std::unique_ptr<RoutingPolicy> make_foreign_policy(std::string_view name, std::uint64_t seed,
                                                                 RoutingOptions& options);

[[nodiscard]] inline std::span<const std::uint64_t> blocks_of(const RouteQuery& query) noexcept { return query.blocks; }
/// The candidates that filter() of the view left, and n_figures numbers of each, one figure after the other: in the
/// order of `figure_names`.
void copy_candidates(const RouteQuery& query, RouteView& view, std::vector<std::uint32_t>& nodes,
                     std::vector<double>& figures);
inline constexpr const char* figure_names[] = {"inflight",    "slots",   "price_per_hour", "wait_us",   "service_us",
                                               "pressure_us", "load_us", "network_us",     "saving_us", "cost_us"};
inline constexpr std::size_t n_figures = std::size(figure_names);

/// An option in plain fields: `kind` says which of the last three holds.
struct ForeignOption {
  enum Kind : std::uint8_t { number, text, texts };
  std::string name;
  Kind kind;
  double as_number;
  std::string as_text;
  std::vector<std::string> as_texts;
};
/// All that were given; none of them counts as unknown any more.
[[nodiscard]] std::vector<ForeignOption> take_all(RoutingOptions& options);

}  // namespace infcore::route
