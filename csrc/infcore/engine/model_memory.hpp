#pragma once
#include <infcore/base/ids.hpp>
#include <infcore/contracts/eviction.hpp>

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

namespace infcore::engine {

/// Why a model does not leave a node's memory.
enum class Hold : std::uint8_t {
  on_its_way = 1,  ///< its load is under way
  in_use = 2,      ///< a batch of it is there
  wanted = 8,      ///< something waits for it, and others may go
  awaited = 4      ///< it was loaded for requests that have not begun: each load serves at least one batch
};

/// One node's memory: the models that are there or on their way, and the eviction policy that says which goes next. The
/// owner calls remove() for what it says; nothing goes by itself. Entries are numbered as the models are. Allocates in
/// the constructor and grow() alone. Cost of a call: the policy's.
class ModelMemory final : public contracts::EvictionView {
 public:
  using ModelId = base::ModelId;

  /// `capacity_bytes` 0: not bounded. Throws UnknownName for a policy that is not in the registry.
  ModelMemory(std::string_view policy, std::uint32_t n_models, std::uint64_t capacity_bytes);
  /// From now on models below `n_models` may come.
  void grow(std::uint32_t n_models);

  [[nodiscard]] contracts::EvictionEntry entry(contracts::EntryId) const noexcept override;

  [[nodiscard]] bool holds(ModelId model) const noexcept {
    return model.value < places_.size() && places_[model.value].taken;
  }
  /// That it takes; 0 where it is not there.
  [[nodiscard]] std::uint64_t bytes(ModelId model) const noexcept {
    return holds(model) ? places_[model.value].bytes : 0;
  }
  [[nodiscard]] std::uint64_t capacity_bytes() const noexcept { return capacity_bytes_; }
  [[nodiscard]] std::uint64_t used_bytes() const noexcept { return used_bytes_; }
  [[nodiscard]] std::uint64_t free_bytes() const noexcept {
    return capacity_bytes_ > used_bytes_ ? capacity_bytes_ - used_bytes_ : 0;
  }
  /// Whether so many bytes would fit if all that may go had gone.
  [[nodiscard]] bool can_fit(std::uint64_t bytes) const noexcept { return bytes <= free_bytes() + evictable_bytes_; }
  /// What goes next; no_model: nothing may.
  [[nodiscard]] ModelId victim() noexcept;

  /// Its place is taken from now on. `cost_us`: of loading it again; `reuse` as EvictionEntry has it. Precondition: it
  /// is not there.
  void insert(ModelId, std::uint64_t bytes, double cost_us, double reuse, bool on_its_way);
  void remove(ModelId) noexcept;
  void hold(ModelId, Hold why, bool on) noexcept;
  /// Requests are served with it.
  void used(ModelId) noexcept;

 private:
  struct Place {
    std::uint64_t bytes{};
    double cost_us{}, reuse{1.0};
    bool taken{};
    std::uint8_t held{};
  };

  std::vector<Place> places_;  ///< by model
  std::unique_ptr<contracts::EvictionPolicy> policy_;
  std::uint64_t capacity_bytes_, used_bytes_{}, evictable_bytes_{};
};

}  // namespace infcore::engine
