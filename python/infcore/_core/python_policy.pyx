"""Routing policies written in Python: C++ calls them here, for each choice and each outcome."""
import operator

import numpy as np

from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.memory cimport unique_ptr
from libcpp.vector cimport vector

from infcore._core.fleet cimport text as utf8_of
from infcore._cpp.base cimport NodeId, never_ns, seconds
from infcore._cpp.foreign_policy cimport (Blocks, ForeignCalls, ForeignOption, Options, RouteOutcome as CppOutcome,
                                          RouteView, blocks_of, copy_candidates, figure_names, foreign_policy,
                                          infcore_wait_politely, n_figures, number, register_foreign_policy, take_all,
                                          text)
from infcore._cpp.route cimport Fleet as CppFleet, RouteQuery as CppQuery, RoutingPolicy

from infcore.errors import InvalidArgument, InvalidType

cdef extern from "Python.h":
    void PyErr_SetObject(object, object)

infcore_wait_politely()


cdef class RouteQuery:
    """One request, as a policy in Python sees it; times in seconds of the router's clock.

    model, work, tier, now_s, deadline_s (None: none), session (a 64-bit hash, 0: none), blocks ((n,) uint64, a copy)
    """

    cdef readonly object model, deadline_s, blocks
    cdef readonly double work, now_s
    cdef readonly int tier
    cdef readonly uint64_t session


cdef class RouteCandidates:
    """The nodes that a request may go to, and what each would cost it: a copy, as it was when the choice began.

    nodes          (n,) uint32, ids in the fleet, ascending; at least one
    inflight, slots, price_per_hour                                 (n,) float64
    wait_us, service_us, pressure_us, load_us, network_us, saving_us, cost_us   (n,) float64, predicted microseconds
    """

    cdef readonly object nodes
    cdef object figures

    def __getattr__(self, name):
        try:
            return self.figures[_FIGURES[name]]
        except KeyError:
            raise AttributeError(f"no figure {name!r}; there are nodes, {', '.join(_FIGURES)}") from None


cdef class RouteOutcome:
    """How a request ended: node, model, now_s, latency_s since it was routed, ok, confidence (None: not reported)."""

    cdef readonly object node, model, ok, confidence
    cdef readonly double now_s, latency_s


cdef dict _FIGURES = {figure_names[i].decode(): i for i in range(n_figures)}


cdef class _Foreign:
    """What C++ holds of a policy."""

    cdef object policy, select, observe, error

    def __init__(self, policy):
        self.policy = policy
        self.select = getattr(policy, "select", None)
        self.observe = getattr(policy, "observe", None)
        if not callable(self.select):
            raise InvalidType(f"policy is {type(policy).__name__}; allowed: an object with a method select(query, view)")


cdef object _query_of(const CppQuery& query, const CppFleet& fleet):
    cdef RouteQuery q = RouteQuery.__new__(RouteQuery)
    q.model = fleet.model_name(query.model).decode()
    q.work, q.tier, q.session = query.work, query.tier, query.session
    q.now_s = seconds(query.now_ns)
    q.deadline_s = None if query.deadline_ns == never_ns else seconds(query.deadline_ns)
    cdef Blocks blocks = blocks_of(query)
    q.blocks = np.empty(0, np.uint64)
    if blocks.size():
        q.blocks = np.array(<const uint64_t[:blocks.size()]>blocks.data())
    return q


cdef uint32_t id_of(object chosen) except? 0xFFFFFFFF:
    """The id of no node for what is no id."""
    try:
        number = operator.index(chosen)
    except TypeError:
        return 0xFFFFFFFF
    return <uint32_t>number if 0 <= number < 0xFFFFFFFF else 0xFFFFFFFF


cdef cbool _select(void* self, const CppQuery& query, RouteView& view, NodeId& node) noexcept with gil:
    cdef _Foreign foreign = <_Foreign>self
    cdef RouteCandidates candidates
    cdef vector[uint32_t] nodes
    cdef vector[double] figures
    cdef size_t i
    cdef uint32_t id
    try:
        copy_candidates(query, view, nodes, figures)
        candidates = RouteCandidates.__new__(RouteCandidates)
        candidates.nodes = np.array(<uint32_t[:nodes.size()]>nodes.data())
        candidates.figures = np.array(<double[:n_figures, :nodes.size()]>figures.data())
        chosen = foreign.select(_query_of(query, view.fleet()), candidates)
        if chosen is None:
            return True
        id = id_of(chosen)
        for i in range(nodes.size()):
            if nodes[i] == id:
                node.value = id
                return True
        raise InvalidArgument(f"select() of policy {_name_of(foreign.policy)} returned {chosen!r}; allowed: None, or one "
                              "of view.nodes")
    except BaseException as error:
        foreign.error = error
    return False


cdef cbool _observe(void* self, const CppOutcome& outcome, const CppFleet& fleet) noexcept with gil:
    cdef _Foreign foreign = <_Foreign>self
    cdef RouteOutcome o
    if foreign.observe is None:
        return True
    try:
        o = RouteOutcome.__new__(RouteOutcome)
        o.node, o.model, o.ok = outcome.node.value, fleet.model_name(outcome.model).decode(), bool(outcome.ok)
        o.now_s, o.latency_s = seconds(outcome.now_ns), outcome.latency_s
        o.confidence = outcome.confidence if outcome.confidence >= 0.0 else None
        foreign.observe(o)
        return True
    except BaseException as error:
        foreign.error = error
    return False


cdef void _raise(void* self) noexcept with gil:
    cdef _Foreign foreign = <_Foreign>self
    error, foreign.error = foreign.error, None
    if error is not None:
        PyErr_SetObject(type(error), error)


cdef void _release(void* self) noexcept with gil:
    Py_DECREF(<object>self)


cdef void* _take(object held) noexcept:
    Py_INCREF(held)
    return <void*>held


cdef void* _make(void* maker, uint64_t seed, Options& options) noexcept with gil:
    failure = None
    try:
        return _take(_Foreign((<object>maker)(seed=seed, **_options_of(take_all(options)))))
    except BaseException as error:
        failure = error
    PyErr_SetObject(type(failure), failure)  # pending: infcore_translate lets it through
    return NULL


cdef dict _options_of(const vector[ForeignOption]& options):
    given = {}
    for i in range(options.size()):
        name = options[i].name.decode()
        if options[i].kind == number:
            given[name] = options[i].as_number
        elif options[i].kind == text:
            given[name] = options[i].as_text.decode()
        else:
            given[name] = [each.decode() for each in options[i].as_texts]
    return given


cdef ForeignCalls _calls() noexcept:
    cdef ForeignCalls calls
    calls.make, calls.select, calls.observe = _make, _select, _observe
    calls.raise_, calls.release, calls.release_maker = _raise, _release, _release
    return calls


cdef str _name_of(object policy):
    name = getattr(policy, "name", None)
    return name if isinstance(name, str) and name else type(policy).__name__


cdef int policy_of(object policy, unique_ptr[RoutingPolicy]& made) except -1:
    cdef _Foreign foreign = _Foreign(policy)
    made.reset(foreign_policy(_name_of(policy).encode(), _take(foreign), _calls()).release())
    return 0


def register_policy(name, factory) -> None:
    """Make `name` a routing policy: of Router, Engine and simulate, by that name, in this process.

    name     not one of Router.policies(); one registered before is replaced, and policies made of it stay
    factory  called with seed= and the policy's options by name (numbers as floats) for each router or engine; returns an
             object with select(query, view) -> the id of a node, one of view.nodes, or None for none of them, and, if it
             learns, observe(outcome). query is a RouteQuery, view RouteCandidates, outcome RouteOutcome, all of
             infcore._core.python_policy. A class with these methods is a factory
    Raises   InvalidType, InvalidArgument. What the factory raises, the constructor of the Router or Engine raises; what
             select or observe raises, Router.pick, simulate and the engine's next submit raise. Until then the engine
             sends requests to the node with the fewest in flight
    Threads  one call at a time for each policy; not to call the router or the engine that is asking
    Slow     each choice takes the GIL and copies the candidates into arrays: 6, 16 and 53 us at 4, 64 and 1,024 nodes, 13
             to 80 times a compiled policy (measured as bench/micro/test_python_policy.py does, on a busy machine with
             the extension not optimised). To try an idea; a policy to keep is a file of C++
    Source   the shape is that of csrc/infcore/route/routing_policy.hpp
    """
    if not callable(factory):
        raise InvalidType(f"factory is {type(factory).__name__}; allowed: a callable that returns a policy")
    register_foreign_policy(utf8_of("name", name), _take(factory), _calls())
