#pragma once
#include <atomic>

namespace infcore::queue {

/// Hand-off of intrusively linked nodes to one consumer, any number at a time: a whole batch of completions costs one
/// exchange. Node has a plain member `Node* next`; the chain borrows nodes from push_chain to take_all.
///
/// Threads    any number of pushers; one consumer calls take_all.
/// Progress   push_chain lock-free; take_all wait-free but for putting what it took in order, O(what it took).
/// Ordering   linearizable; take_all gives push order, and a chain's own order inside it.
/// Capacity   that of the nodes; never full.
///
/// `newest_` heads the list newest first, so a pusher turns its own chain round and the consumer turns the lot.
/// A node may come back at once: the exchange depends on the head's value alone, and the consumer takes all or nothing.
template <class Node, template <class> class Atom = std::atomic>
class DoneChain {
 public:
  DoneChain() = default;
  DoneChain(const DoneChain&) = delete;
  DoneChain& operator=(const DoneChain&) = delete;

  /// Adds `first` -> ... -> `last`, linked by next, oldest first; last->next is ignored. True if there was nothing
  /// before: this pusher, and no other until the next take_all, has to see to it that the consumer wakes.
  [[nodiscard]] bool push_chain(Node* first, Node* last) noexcept {
    Node* const oldest = first;
    Node* node = first;
    Node* newer = nullptr;
    Node* older = nullptr;
    while (node != last) {
      newer = node->next;
      node->next = older;
      older = node;
      node = newer;
    }
    last->next = older;

    Node* seen = newest_.load(std::memory_order_relaxed);
    do {
      oldest->next = seen;
      // [C1] release: publishes the nodes; pairs with the acquire [C1] in take_all.
    } while (!newest_.compare_exchange_weak(seen, last, std::memory_order_release, std::memory_order_relaxed));
    return seen == nullptr;
  }

  /// Everything pushed so far, linked by next, oldest first; nullptr if nothing.
  [[nodiscard]] Node* take_all() noexcept {
    // [C1] acquire: the nodes are readable; pairs with the release [C1] in push_chain.
    Node* node = newest_.exchange(nullptr, std::memory_order_acquire);
    Node* newer = nullptr;
    while (node != nullptr) {
      Node* const older = node->next;
      node->next = newer;
      newer = node;
      node = older;
    }
    return newer;
  }

  /// A hint for the consumer: what is pushed meanwhile is not seen.
  [[nodiscard]] bool empty() const noexcept { return newest_.load(std::memory_order_relaxed) == nullptr; }

 private:
  Atom<Node*> newest_{nullptr};
};

}  // namespace infcore::queue
