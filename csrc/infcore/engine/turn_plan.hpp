#pragma once
#include <infcore/base/clock.hpp>
#include <infcore/contracts/latency.hpp>

#include <cstdint>
#include <vector>

namespace infcore::engine {

/// Which of several queues a device that is free should serve first, where not all that wait can be in time: each is
/// tried as the first, and what happens then is played through for all that waits, by earliest deadline and by first
/// come, first served. The one counts with which most are in time.
///
/// Source: rollout, one step of policy iteration on a rule that is known to be fair (D. Bertsekas, J. Tsitsiklis, C.
/// Wu, "Rollout algorithms for combinatorial optimization", J. of Heuristics 3, 1997): never worse than the rule, in
/// what is waiting. Differs: two rules, as earliest deadline first is the worst of all under overload. Cost: O(queues^2
/// * batches), a batch O(log its size). No allocation once its vectors have grown.
class TurnPlan {
 public:
  /// A request that waits.
  struct Waiting {
    base::TimeNs deadline_ns, arrival_ns;
  };

  void clear() noexcept;
  /// A queue of requests of this mean work, each of its batches at most so large. Then add(Waiting) its own.
  void add_queue(const contracts::Curve&, double work_mean, std::uint32_t max_batch_size);
  void add(Waiting);
  /// Index of the queue to begin with. 0 where that loses nobody, and among equals the lowest.
  [[nodiscard]] std::uint32_t best(base::TimeNs now_ns);

  static constexpr std::uint32_t n_queues_max = 8;
  static constexpr std::uint32_t n_waiting_max = 256;  ///< of a queue

 private:
  struct Queue {
    contracts::Curve curve;
    double work_mean;
    std::uint32_t max_batch_size, begin, end;
    std::uint32_t at{};  ///< the first that was not served yet
    [[nodiscard]] base::TimeNs run_ns(std::uint32_t n) const noexcept;
  };
  enum class Rule : std::uint8_t { earliest_deadline, first_come };

  [[nodiscard]] std::uint32_t n_in_time(base::TimeNs now_ns, std::uint32_t first, Rule) noexcept;
  [[nodiscard]] Queue* next(base::TimeNs now_ns, Rule) noexcept;
  [[nodiscard]] std::uint32_t serve(Queue&, base::TimeNs& now_ns) const noexcept;

  std::vector<Queue> queues_;
  std::vector<Waiting> waiting_;
};

}  // namespace infcore::engine
