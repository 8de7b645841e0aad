#pragma once
#include <infcore/base/ids.hpp>
#include <infcore/engine/actions.hpp>
#include <infcore/engine/timers.hpp>
#include <infcore/queue/admission_ladder.hpp>
#include <infcore/queue/admission_policy.hpp>
#include <infcore/queue/slot_heap.hpp>

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

namespace infcore::engine {

/// In which form a request enters.
struct Entrance {
  Reason reason{Reason::none};  ///< why not as it came
  base::TimeNs until_ns{};      ///< it is put off until then at the latest; 0: it is not
  bool displaces{};
};

/// What the engine's door keeps: the policies in the order in which they are asked, how things stand for each model,
/// who could be given up, who was put off.
struct AdmissionState {
  static constexpr base::TimeNs never_looked = std::numeric_limits<base::TimeNs>::min();

  /// What the devices of a model can do, as somebody last looked.
  struct Look {
    double capacity_per_s{};  ///< as of looked_ns
    double full_batch_s{};    ///< of the fastest device, likewise
    base::TimeNs looked_ns{never_looked};
    std::uint64_t membership{};            ///< as of which `sharers` are
    std::vector<base::ModelId> sharers{};  ///< models on its devices, itself first
  };

  struct Model : Look {
    queue::AdmissionLadder ladder{};
    std::uint32_t n_open{};                                       ///< accepted, not yet ended and not put off
    double work_mean{};                                           ///< of those that came lately; 0: none came
    double slack_s{};                                             ///< their time until the deadline; 0: they have none
    std::uint32_t witness{};                                      ///< a node that was in time the last time
    base::TimeNs refusing_until_ns{never_looked}, best_end_ns{};  ///< the last look at every node: none is in time
    double refusing_work{};                                       ///< for as much work, or more
    std::uint64_t refusing_require{};
    queue::SlotHeap deferred{};  ///< by when they are let in at the latest
    [[nodiscard]] static bool goal_reached(double wait_s, double goal_s) noexcept { return wait_s >= 0.5 * goal_s; }
  };

  std::vector<std::unique_ptr<queue::AdmissionPolicy>> policies{};
  std::vector<std::uint32_t> rung{};  ///< by policy: the ladder's from which on it is asked; 0: always
  std::vector<std::string> step_names{};
  std::uint32_t n_rungs{}, off_peak_rung{};
  bool by_best{};  ///< a policy looks at the best time
  bool by_load{};  ///< one looks at loads
  bool learns{};   ///< one wants to know how requests ended
  bool sheds{};    ///< who waits can be given up for another
  std::vector<Model> models{};
  std::uint64_t membership{1};  ///< counts changes of what nodes hold
  std::vector<std::uint32_t> n_in_tier{};
  /// Who waits, by tier, the least urgent on top; only where `sheds`. A slot is here or put off, never both.
  std::vector<queue::SlotHeap> lowest{};
  std::vector<std::uint32_t> positions{};
  Timers release{};  ///< by model: when to look at who was put off
};

/// How a model's door stands, for figures.
struct AdmissionFigures {
  std::uint32_t rung{};  ///< steps of the ladder in force
  std::uint32_t n_open{}, n_put_off{};
  double wait_s{}, limit{};
  double retry_after_s{};  ///< until one of those that are open is done
};

}  // namespace infcore::engine
