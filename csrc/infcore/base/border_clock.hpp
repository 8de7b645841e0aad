#pragma once
#include <infcore/base/clock.hpp>

namespace infcore::base {

/// monotonic_ns() to some 20 ns, for bindings that read it with every call: by the processor's counter, where the
/// system itself trusts it and the binding's callers hold their language's lock (Patience::exclusive). Elsewhere it is
/// monotonic_ns().
[[nodiscard]] TimeNs border_now_ns() noexcept;

}  // namespace infcore::base
