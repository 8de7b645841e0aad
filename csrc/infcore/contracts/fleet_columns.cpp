#include <infcore/base/errors.hpp>
#include <infcore/contracts/fleet_columns.hpp>

#include <new>
#include <type_traits>

namespace infcore::contracts {
namespace {

constexpr std::uint64_t fleet_magic = 0x31656574666e69ull;  // "infeet1"

std::uint32_t padded(std::uint32_t max_nodes) noexcept { return (max_nodes + 63u) & ~63u; }

void check_same(const char* field, std::int64_t ours, std::int64_t theirs, const std::string& name) {
  if (ours == theirs) return;
  throw InvalidArgument(field, std::to_string(ours),
                        std::to_string(theirs) + ", with which fleet '" + name + "' was made");
}

}  // namespace

FleetColumns::FleetColumns(std::uint32_t max_nodes, std::uint32_t max_models)
    : max_nodes_(padded(max_nodes)),
      max_models_(max_models),
      n_words_(max_nodes_ / 64),
      n_processes_(1),
      block_(lay_out(nullptr)) {
  lay_out(block_.data());
  start(max_nodes);
}

FleetColumns::FleetColumns(const std::string& name, std::uint32_t max_nodes, std::uint32_t max_models,
                           base::TimeNs heartbeat_ns)
    : max_nodes_(padded(max_nodes)),
      max_models_(max_models),
      n_words_(max_nodes_ / 64),
      n_processes_(processes_max),
      block_(name, lay_out(nullptr)) {
  if (block_.is_new()) {
    lay_out(block_.data());
    header_->heartbeat_ns = heartbeat_ns;
    start(max_nodes);
    return;
  }
  const auto& header = *std::launder(reinterpret_cast<const Header*>(block_.data()));
  if (block_.bytes() < sizeof(Header) || header.magic != fleet_magic || header.layout != layout_version)
    throw InvalidArgument("shared", "'" + name + "'", "the name of a fleet that was made by this version of infcore");
  check_same("max_nodes", max_nodes, header.max_nodes, name);
  check_same("max_models", max_models, header.max_models, name);
  check_same("heartbeat_s, in nanoseconds,", heartbeat_ns, header.heartbeat_ns, name);
  lay_out(block_.data());
}

void FleetColumns::start(std::uint32_t max_nodes) {
  header_->layout = layout_version;
  header_->max_nodes = max_nodes;
  header_->max_models = max_models_;
  header_->membership.init(is_shared());
  for (base::RobustMutex& lock : header_->signals) lock.init(is_shared());
  header_->magic = fleet_magic;
}

/// Every column begins on lines of its own. Zeroed memory is what each of them begins as, so that nothing is written,
/// and a page that is never used costs nothing.
template <class T>
T* FleetColumns::place(std::byte* block, std::size_t& at, std::size_t count) {
  static_assert(alignof(T) <= base::false_sharing_bytes && std::is_trivially_destructible_v<T>);
  const std::size_t begin = at;
  constexpr std::size_t line = base::false_sharing_bytes;
  at += (count * sizeof(T) + line - 1) / line * line;
  return block == nullptr ? nullptr : std::launder(reinterpret_cast<T*>(block + begin));
}

/// Returns the bytes it takes; without a block that is all.
std::size_t FleetColumns::lay_out(std::byte* block) {
  std::size_t at = 0;
  header_ = place<Header>(block, at, 1);
  blocks_ = place<Block>(block, at, max_nodes_ / block_nodes);
  price_ = place<std::atomic<double>>(block, at, max_nodes_);
  slots_ = place<std::atomic<std::uint32_t>>(block, at, max_nodes_);
  memory_ = place<std::atomic<std::uint64_t>>(block, at, max_nodes_);
  kind_id_ = place<std::atomic<std::uint32_t>>(block, at, max_nodes_);
  born_ = place<std::atomic<std::uint64_t>>(block, at, max_nodes_);
  state_ = place<std::atomic<std::uint8_t>>(block, at, max_nodes_);
  up_ = place<std::atomic<std::uint64_t>>(block, at, n_words_);
  resident_ = place<std::atomic<std::uint64_t>>(block, at, std::size_t{max_models_} * n_words_);
  labelled_ = place<std::atomic<std::uint64_t>>(block, at, std::size_t{n_labels} * n_words_);
  facts_ = place<ModelFacts>(block, at, max_models_);
  wanted_ = place<std::atomic<base::TimeNs>>(block, at, max_models_);
  rows_ = place<NodeRow>(block, at, max_nodes_);
  cells_ = place<CreditCell<>>(block, at, std::size_t{n_processes_} * max_nodes_);
  const bool shared = n_processes_ > 1;
  node_texts_ = place<char>(block, at, shared ? std::size_t{max_nodes_} * node_text_bytes : 0);
  label_texts_ = place<char>(block, at, shared ? std::size_t{n_labels} * label_text_bytes : 0);
  model_texts_ = place<char>(block, at, shared ? std::size_t{max_models_} * model_text_bytes : 0);
  return at;
}

}  // namespace infcore::contracts
