#include <infcore/contracts/fleet_columns.hpp>

#include <new>

namespace infcore::contracts {

void FleetColumns::Release::operator()(std::byte* block) const noexcept {
  ::operator delete[](block, std::align_val_t{base::false_sharing_bytes});
}

FleetColumns::FleetColumns(std::uint32_t max_nodes, std::uint32_t max_models)
    : max_nodes_((max_nodes + 63u) & ~63u), max_models_(max_models), n_words_(max_nodes_ / 64) {
  lay_out();
  block_.reset(static_cast<std::byte*>(::operator new[](used_bytes_, std::align_val_t{base::false_sharing_bytes})));
  used_bytes_ = 0;
  lay_out();
  header_->max_nodes = max_nodes;
  header_->max_models = max_models;
}

/// Every column begins on lines of its own.
template <class T>
T* FleetColumns::place(std::size_t count) {
  static_assert(alignof(T) <= base::false_sharing_bytes);
  const std::size_t begin = used_bytes_;
  constexpr std::size_t line = base::false_sharing_bytes;
  used_bytes_ += (count * sizeof(T) + line - 1) / line * line;
  if (!block_) return nullptr;
  std::byte* at = block_.get() + begin;
  T* const first = new (at) T();
  for (std::size_t i = 1; i < count; ++i) new (at + i * sizeof(T)) T();
  return first;
}

void FleetColumns::lay_out() {
  header_ = place<Header>(1);
  blocks_ = place<Block>(max_nodes_ / block_nodes);
  price_ = place<std::atomic<double>>(max_nodes_);
  slots_ = place<std::atomic<std::uint32_t>>(max_nodes_);
  memory_ = place<std::atomic<std::uint64_t>>(max_nodes_);
  kind_id_ = place<std::atomic<std::uint32_t>>(max_nodes_);
  born_ = place<std::atomic<std::uint64_t>>(max_nodes_);
  state_ = place<std::atomic<std::uint8_t>>(max_nodes_);
  up_ = place<std::atomic<std::uint64_t>>(n_words_);
  resident_ = place<std::atomic<std::uint64_t>>(std::size_t{max_models_} * n_words_);
  labelled_ = place<std::atomic<std::uint64_t>>(std::size_t{n_labels} * n_words_);
  facts_ = place<ModelFacts>(max_models_);
  wanted_ = place<std::atomic<base::TimeNs>>(max_models_);
  credit_ = place<NodeCredit>(max_nodes_);
}

}  // namespace infcore::contracts
