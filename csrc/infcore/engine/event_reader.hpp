#pragma once
#include <infcore/base/errors.hpp>
#include <infcore/engine/event_log.hpp>

#include <array>
#include <cstdint>
#include <istream>
#include <string>
#include <utility>
#include <vector>

namespace infcore::engine {

/// What is wrong with a log, and where.
struct BadLog : InvalidArgument {
  using InvalidArgument::InvalidArgument;
};

/// One record of an event log. Which fields mean something follows from the kind; see event_format.hpp.
struct EventRecord {
  EventKind kind{};
  bool is_action{};               ///< then `action` is what counts, and `kind` is nothing
  std::uint64_t byte{}, index{};  ///< where it begins in the file, and how many came before it
  TimeNs now_ns{};                ///< of the record, or of the last one before it that had a time
  NodeId node{base::no_node};
  ModelId model{};
  std::uint64_t request{}, batch_id{};
  bool ok{};
  Reason reason{};
  Action action{};                               ///< its cookie is the request's number
  bool has_terms{};                              ///< a dispatch or hedge of a run that logs them
  std::array<float, cost_terms.size()> terms{};  ///< in the order of cost_terms
  contracts::Request arrived{};                  ///< its cookie is the request's number
  RunConfig run{};
  ModelConfig model_config{};
  NodeConfig node_config{};
  route::NodeSpec spec{};
  contracts::Curve curve{};
  double load_s{};
  contracts::Signal signal{};
  std::vector<ModelId> held{};
  contracts::Request prompt{};  ///< what it says of the next arrival; its blocks:
  std::vector<std::uint64_t> blocks{};
  std::string name{}, value{};  ///< of a model, of a label
  std::uint32_t version{};
  std::uint64_t n_requests{}, n_actions{}, n_records{};
};

/// Reads an event log, block by block. Checks the form and the bounds of every field, so that nothing in a file takes
/// unbounded memory; whether an id is known is the replay's to check. Throws BadLog that names the file, byte,
/// record and field. `partial`: a file that ends early, a crashed engine's, ends at its last whole block.
class EventReader {
 public:
  EventReader(std::istream& in, std::string name, bool partial);

  /// false: the end. The record's strings and lists are used again.
  [[nodiscard]] bool next(EventRecord&);
  /// Whether the log was closed properly: after next() returned false.
  [[nodiscard]] bool complete() const noexcept { return ended_; }

  /// For whoever finds a record's content wrong.
  [[noreturn]] void fail(const EventRecord&, const std::string& field, const std::string& value,
                         const std::string& allowed) const;

 private:
  [[noreturn]] void fail_here(const char* field, const std::string& value, const std::string& allowed) const;
  [[noreturn]] void fail_at(std::uint64_t byte, const std::string& field, const std::string& value,
                            const std::string& allowed) const;
  void read_header();
  [[nodiscard]] bool next_block();
  [[nodiscard]] bool at_end();
  void event(EventRecord&);
  void action(EventRecord&);
  void run(RunConfig&);
  void health(EngineConfig&);
  void options(route::RoutingOptions&);
  void model_config(EventRecord&);
  void node(EventRecord&);
  void node_event(EventRecord&);
  void prior(EventRecord&);
  void signal(EventRecord&);
  void end(EventRecord&);
  void arrival(EventRecord&);
  void prompt(EventRecord&);
  void cancellation(EventRecord&);

  [[nodiscard]] std::uint8_t byte(const char* field);
  [[nodiscard]] std::uint64_t number(const char* field, std::uint64_t most, std::uint64_t least = 0);
  [[nodiscard]] std::uint64_t difference(const char* field, std::uint64_t from);
  [[nodiscard]] TimeNs time(const char* field, TimeNs from, bool may_be_never);
  [[nodiscard]] float single(const char* field);
  [[nodiscard]] double real(const char* field, double most, double least = 0.0);
  void text(const char* field, std::string&);
  void now(EventRecord&);
  [[nodiscard]] NodeId node_id();
  [[nodiscard]] ModelId model_id();
  void batch(EventRecord&);
  [[nodiscard]] Reason reason();

  std::istream& in_;
  std::string name_;
  bool partial_, ended_{};
  std::vector<std::uint8_t> block_;
  std::size_t at_{};
  std::uint64_t block_byte_{}, next_byte_{}, n_blocks_{}, n_records_{};
  EngineConfig bounds_{};
  TimeNs last_ns_{};
  std::uint64_t n_requests_{}, n_actions_{}, last_request_{}, last_batch_{};
};

}  // namespace infcore::engine
