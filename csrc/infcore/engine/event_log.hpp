#pragma once
#include <infcore/engine/event_format.hpp>
#include <infcore/engine/log_file.hpp>
#include <infcore/route/routing_options.hpp>

#include <string>
#include <string_view>
#include <vector>

namespace infcore::engine {

/// With what a state machine was built.
struct RunConfig {
  EngineConfig engine{};
  std::string policy, batching;
  std::uint64_t seed{};
  route::RoutingOptions options{};  ///< of the policy
};

/// Encodes what a state machine was told and what it decided (event_format.hpp). The machine's owner's; each call
/// appends to a block in memory, 10-30 ns, and a full block goes to the LogFile. Calls come after the machine's own, so
/// that a record holds what came of it; actions follow the event that caused them.
class EventLog {
 public:
  /// Throws InvalidArgument where the configuration is beyond the format's bounds.
  EventLog(LogFile&, const route::Fleet&, const RunConfig&);

  /// Names and versions that the fleet has heard of since. Throws InvalidArgument beyond the format's bounds.
  void name_models();
  void add_model(ModelId, const ModelConfig&);
  void remove_model(TimeNs now_ns, ModelId);
  /// Throws InvalidArgument where names and labels are beyond the format's bounds.
  void add_node(NodeId, const NodeConfig&);
  void residency(TimeNs now_ns, NodeId);
  void node_event(EventKind, TimeNs now_ns, NodeId);  ///< those of a node alone
  void prior(ModelId, NodeId, const contracts::Curve&);
  void signal(NodeId, const contracts::Signal&);
  void arrive(TimeNs now_ns, const contracts::Request&, RequestHandle);
  void cancel(TimeNs now_ns, RequestHandle, Reason);
  void cancel_all(TimeNs now_ns, Reason);
  void claim(TimeNs now_ns, NodeId, std::uint64_t batch_id);
  void started(TimeNs now_ns, NodeId, std::uint64_t batch_id);
  void complete(TimeNs now_ns, NodeId, std::uint64_t batch_id, bool ok);
  void first_token(TimeNs now_ns, NodeId, std::uint64_t batch_id);
  void checked(TimeNs now_ns, NodeId, bool ok);
  void may_hold(TimeNs now_ns, NodeId, ModelId, bool may);
  void loaded(TimeNs now_ns, NodeId, ModelId, bool ok, double load_s);
  void tick(TimeNs now_ns) { open(EventKind::tick), time(now_ns); }
  void schedule(TimeNs now_ns) { open(EventKind::schedule), time(now_ns); }
  /// `terms`: what the node of a dispatch or hedge cost, where the run logs them; else nullptr.
  void action(const Action&, const route::CostTerms* terms);

  /// What is there goes to the file, so that a crash costs no more than what came since.
  void seal();
  void end();

 private:
  void run(const RunConfig&);
  void health(const EngineConfig&);
  void name_labels();
  void prompt(const contracts::Request&);

  void room(std::size_t n_bytes);
  void open(EventKind kind, std::size_t n_bytes_max = small_record_bytes) {
    room(n_bytes_max);
    ++n_records_;
    byte(static_cast<std::uint8_t>(kind));
  }
  void byte(std::uint8_t b) noexcept { *at_++ = b; }
  void number(std::uint64_t value) noexcept {
    for (; value >= 0x80; value >>= 7) byte(static_cast<std::uint8_t>(value | 0x80));
    byte(static_cast<std::uint8_t>(value));
  }
  /// Differences wrap: whatever was given comes back.
  void difference(std::uint64_t value, std::uint64_t from) noexcept { number(zigzag(value - from)); }
  void signed_number(TimeNs value) noexcept { difference(static_cast<std::uint64_t>(value), 0); }
  void time(TimeNs now_ns) noexcept {
    difference(static_cast<std::uint64_t>(now_ns), static_cast<std::uint64_t>(last_ns_));
    last_ns_ = now_ns;
  }
  void request(std::uint64_t number) noexcept { difference(number, last_request_), last_request_ = number; }
  void batch(std::uint64_t id) noexcept { difference(id, last_batch_), last_batch_ = id; }
  void options(const route::RoutingOptions&) noexcept;
  void real(double value) noexcept;
  void single(double value) noexcept;
  void text(std::string_view value) noexcept;

  static constexpr std::size_t small_record_bytes = 128;  ///< of any record without text or list: 88 at most

  LogFile& file_;
  const route::Fleet& fleet_;
  std::vector<std::uint8_t> block_;
  std::uint8_t *at_{}, *block_end_{};
  std::vector<std::uint64_t> number_of_slot_;
  std::uint64_t n_requests_{}, n_actions_{}, n_records_{};
  /// The slot that the last arrival took, and whose it was: an arrival displaces before it takes.
  std::uint32_t taken_slot_{Action::no_slot};
  std::uint64_t displaced_{};
  TimeNs last_ns_{};
  std::uint64_t last_request_{}, last_batch_{};
  std::uint32_t n_models_named_{}, n_labels_named_{};
};

}  // namespace infcore::engine
