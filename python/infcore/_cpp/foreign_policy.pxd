from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.memory cimport unique_ptr
from libcpp.string cimport string
from libcpp.vector cimport vector

from infcore._cpp.base cimport ModelId, NodeId, TimeNs
from infcore._cpp.errors cimport infcore_translate
from infcore._cpp.route cimport Fleet, RouteQuery, RoutingPolicy


cdef extern from "<infcore/route/routing_policy.hpp>" namespace "infcore::route" nogil:
    cdef cppclass RouteOutcome:
        NodeId node
        ModelId model
        TimeNs now_ns
        double latency_s, confidence
        cbool ok


cdef extern from "<infcore/route/foreign_policy.hpp>" namespace "infcore::route" nogil:
    cdef cppclass Options "infcore::route::RoutingOptions":
        pass
    cdef cppclass Blocks "std::span<const std::uint64_t>":
        const uint64_t* data() noexcept
        size_t size() noexcept
    Blocks blocks_of "infcore::route::blocks_of"(const RouteQuery&) noexcept
    cdef cppclass RouteView:
        const Fleet& fleet() noexcept
    cdef cppclass ForeignCalls:
        void* (*make)(void*, uint64_t, Options&) noexcept
        cbool (*select)(void*, const RouteQuery&, RouteView&, NodeId&) noexcept
        cbool (*observe)(void*, const RouteOutcome&, const Fleet&) noexcept
        void (*raise_ "raise")(void*) noexcept
        void (*release)(void*) noexcept
        void (*release_maker)(void*) noexcept
    void register_foreign_policy(string, void*, const ForeignCalls&) except +infcore_translate
    unique_ptr[RoutingPolicy] foreign_policy(string, void*, const ForeignCalls&) except +infcore_translate
    const size_t n_figures
    const char** figure_names
    void copy_candidates(const RouteQuery&, RouteView&, vector[uint32_t]&, vector[double]&) except +infcore_translate
    cdef enum ForeignOptionKind "infcore::route::ForeignOption::Kind":
        number "infcore::route::ForeignOption::number"
        text "infcore::route::ForeignOption::text"
        texts "infcore::route::ForeignOption::texts"
    cdef cppclass ForeignOption:
        string name, as_text
        ForeignOptionKind kind
        double as_number
        vector[string] as_texts
    vector[ForeignOption] take_all(Options&) except +infcore_translate


cdef extern from * nogil:
    """
    #include <infcore/base/patience.hpp>
    #include <Python.h>

    // Whoever holds the lock may be inside a policy in Python, and need the GIL to come out.
    [[maybe_unused]] static void infcore_wait_without_gil(void (*blocking)(void*), void* what) {
      if (!PyGILState_Check()) return blocking(what);
      PyThreadState* const state = PyEval_SaveThread();
      blocking(what);
      PyEval_RestoreThread(state);
    }
    [[maybe_unused]] static void infcore_wait_politely() noexcept {
      infcore::base::Patience::hook.store(&infcore_wait_without_gil, std::memory_order_release);
    #ifndef Py_GIL_DISABLED
      infcore::base::Patience::exclusive.store(true, std::memory_order_relaxed);
    #endif
    }
    """
    void infcore_wait_politely() noexcept
