#pragma once
#include <infcore/base/draw.hpp>
#include <infcore/batch/continuous_batcher.hpp>
#include <infcore/batch/kv_blocks.hpp>
#include <infcore/sim/token_content.hpp>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace infcore::sim {

/// A modelled device that makes tokens: the live engine's own continuous batcher over its own KV blocks, and a curve
/// that says how long each step takes. Requests come in by run; nothing here knows of the engine.
class TokenNode {
 public:
  /// What a step did to one run.
  struct Event {
    std::uint32_t run{};
    std::uint32_t n_tokens{};  ///< that it has made by now
    bool ends{};
    bool expired{};            ///< its deadline passed while it waited; no token
    TimeNs before_ns{};        ///< when it made its last token, or came
    std::uint32_t n_cached{};  ///< of its prompt, found in the cache when it came in
  };
  struct Totals {
    std::uint64_t steps{}, prefill_tokens{}, output_tokens{}, preempted{};
  };

  /// Throws InvalidArgument.
  TokenNode(const TokenService& service, std::uint32_t n_runs, base::Draw draw);
  ~TokenNode();
  TokenNode(TokenNode&&) noexcept;
  TokenNode& operator=(TokenNode&&) noexcept;

  /// A request is on its way; `recorded` as in TokenContent.
  void expect(std::uint32_t run, const TokenWork& work, std::span<const std::uint64_t> recorded, TimeNs deadline_ns,
              std::uint16_t tier);
  /// It comes in. Throws InvalidArgument for what can never fit.
  void add(std::uint32_t run, TimeNs now_ns);
  /// Begins the next step if there is anything to do; `factor`: how many times as long as by the curve, `more_s`
  /// longer.
  void begin_step(TimeNs now_ns, double factor, double more_s);
  /// When the step that is out ends; never_ns: none is out.
  [[nodiscard]] TimeNs next_ns() const noexcept { return step_end_ns_; }
  [[nodiscard]] TimeNs step_begin_ns() const noexcept { return step_begin_ns_; }
  [[nodiscard]] bool step_is_out() const noexcept { return step_is_out_; }
  /// The step ends: what it did, valid until the next call.
  std::span<const Event> end_step(TimeNs now_ns);
  /// It stood still for so long.
  void delay(TimeNs by_ns) noexcept;
  /// Its memory is gone.
  void crash();

  [[nodiscard]] std::uint32_t n_sequences() const noexcept { return n_sequences_; }
  [[nodiscard]] const Totals& totals() const noexcept { return totals_; }
  /// What does not hold, in words; empty where everything does. O(1).
  [[nodiscard]] const char* broken() const noexcept;

 private:
  struct Sequence {
    TokenWork work{};
    std::vector<std::uint64_t> recorded{};
    TimeNs deadline_ns{};
    TimeNs last_ns{};  ///< made its last token, or came
    std::uint32_t n_tokens{}, n_cached{};
    std::uint16_t tier{};
    bool active{}, began{};
  };

  void make();

  TokenService service_;
  base::Draw draw_;
  base::LognormalFactor spread_;
  std::unique_ptr<batch::KVBlocks> blocks_;
  std::unique_ptr<batch::ContinuousBatcher> batcher_;
  std::vector<Sequence> sequences_;  ///< by run, from the node's first
  std::vector<Event> events_;
  std::vector<std::int64_t> tokens_;
  std::vector<std::uint64_t> names_;
  TimeNs step_begin_ns_{}, step_end_ns_{base::never_ns};
  std::uint32_t n_sequences_{};
  bool step_is_out_{};
  const char* broken_{""};
  Totals totals_{};
};

}  // namespace infcore::sim
