"""Reading an engine's event log, and telling it to a state machine again. What it does is in csrc/infcore/sim."""
import os

import numpy as np

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libcpp.memory cimport unique_ptr
from libcpp.string cimport string
from libcpp.vector cimport vector

from infcore._cpp.base cimport TimeNs, never_ns
from infcore._cpp.engine cimport (ModelConfig, Request, RunConfig, action_names, n_actions, n_reasons,
                                  reason_names, unbounded)
from infcore._cpp.latency cimport Curve
from infcore._cpp.replay cimport (EventKind, EventReader, EventRecord, RecordedBatch, RecordedCurve, RecordedModel,
                                  RecordedNode, Replay as CppReplay, binary, cost_term_names, ifstream, n_cost_terms)
from infcore._cpp.route cimport Labels, NodeSpec, Signal, no_node

from infcore.errors import InvalidArgument

_RECORDS_A_CALL = 1 << 20  # then Python may look at signals
_EVENTS = {
    <uint8_t>EventKind.run: "run", <uint8_t>EventKind.model: "model", <uint8_t>EventKind.label: "label",
    <uint8_t>EventKind.add_model: "add_model", <uint8_t>EventKind.remove_model: "remove_model",
    <uint8_t>EventKind.add_node: "add_node", <uint8_t>EventKind.residency: "residency",
    <uint8_t>EventKind.drain_node: "drain_node", <uint8_t>EventKind.remove_node: "remove_node",
    <uint8_t>EventKind.node_lost: "node_lost", <uint8_t>EventKind.node_back: "node_back",
    <uint8_t>EventKind.prior: "prior", <uint8_t>EventKind.signal: "signal", <uint8_t>EventKind.arrive: "arrive",
    <uint8_t>EventKind.cancel: "cancel", <uint8_t>EventKind.cancel_all: "cancel_all",
    <uint8_t>EventKind.claim: "claim", <uint8_t>EventKind.started: "started", <uint8_t>EventKind.complete: "complete",
    <uint8_t>EventKind.first_token: "first_token", <uint8_t>EventKind.progress: "progress",
    <uint8_t>EventKind.node_failed: "node_failed", <uint8_t>EventKind.tick: "tick", <uint8_t>EventKind.schedule: "schedule", <uint8_t>EventKind.end: "end",
    <uint8_t>EventKind.prompt: "prompt", <uint8_t>EventKind.checked: "checked",
    <uint8_t>EventKind.may_hold: "may_hold", <uint8_t>EventKind.loaded: "loaded"}
_ACTIONS = [action_names[i].decode() for i in range(n_actions)]
_TERMS = [cost_term_names[i].decode() for i in range(n_cost_terms)]
_REASONS = [reason_names[i].decode() for i in range(n_reasons)]


cdef class LogFile:
    """An open log; what reads it keeps it."""

    cdef unique_ptr[ifstream] c_obj
    cdef string name

    def __init__(self, str path not None):
        self.name = path.encode("utf-8", "backslashreplace")
        self.c_obj.reset(new ifstream(<bytes>os.fsencode(path), binary))
        if not self.c_obj.get().is_open() or os.path.isdir(path):
            raise InvalidArgument(f"path is {path!r}; allowed: an event log that can be read")


cdef class Events:
    """The records of a log: (kind, at_ns, is_action, {field: value} of that kind); times in ns, None: never."""

    cdef LogFile file
    cdef unique_ptr[EventReader] c_obj
    cdef EventRecord record

    def __init__(self, path, bint partial):
        self.file = LogFile(path)
        self.c_obj.reset(new EventReader(self.file.c_obj.get()[0], self.file.name, partial))

    def __iter__(self):
        return self

    def __next__(self) -> tuple:
        cdef EventRecord* r = &self.record
        if not self.c_obj.get().next(self.record):
            raise StopIteration
        if r.is_action:
            fields = {
                "request": r.request, "reason": _REASONS[<uint8_t>r.action.reason],
                "node": None if r.action.node.value == no_node.value else r.action.node.value,
                "batch": r.batch_id, "member": r.action.member}
            if r.has_terms:
                fields["terms"] = {name: r.terms[i] for i, name in enumerate(_TERMS)}
            return _ACTIONS[<uint8_t>r.action.kind], r.now_ns, True, fields
        return _EVENTS[<uint8_t>r.kind], r.now_ns, False, fields_of(r)


cdef dict fields_of(EventRecord* r):
    cdef EventKind kind = r.kind
    if kind == EventKind.arrive:
        return {"request": r.request, "model": r.arrived.model.value, "arrival_ns": r.arrived.arrival_ns,
                "deadline_ns": _time(r.arrived.deadline_ns), "work": r.arrived.work, "tier": r.arrived.tier,
                "require": r.arrived.require, "tenant": r.arrived.tenant, "has_stale": r.arrived.has_stale,
                "defer_ns": r.arrived.defer_ns, "cached": r.arrived.is_cached}
    if kind == EventKind.claim or kind == EventKind.started or kind == EventKind.first_token:
        return {"node": r.node.value, "batch": r.batch_id}
    if kind == EventKind.complete:
        return {"node": r.node.value, "batch": r.batch_id, "ok": r.ok}
    if kind == EventKind.checked:
        return {"node": r.node.value, "ok": r.ok}
    if kind == EventKind.may_hold:
        return {"node": r.node.value, "model": r.model.value, "may": r.ok}
    if kind == EventKind.loaded:
        return {"node": r.node.value, "model": r.model.value, "ok": r.ok, "load_s": r.load_s}
    if kind == EventKind.cancel:
        return {"request": r.request, "reason": _REASONS[<uint8_t>r.reason]}
    if kind == EventKind.cancel_all:
        return {"reason": _REASONS[<uint8_t>r.reason]}
    if kind == EventKind.run:
        return config_of(r.run)
    if kind == EventKind.model:
        return {"name": _text(r.name), "version": r.version}
    if kind == EventKind.label:
        return {"key": _text(r.name), "value": _text(r.value)}
    if kind == EventKind.add_model:
        return {"model": r.model.value, **model_config_of(r.model_config)}
    if kind == EventKind.remove_model:
        return {"model": r.model.value}
    if kind == EventKind.add_node:
        return {"node": r.node.value, "run_limit_ns": _time(r.node_config.run_limit_ns),
                "kv_blocks": r.node_config.kv_blocks, "loads_beside_runs": r.node_config.loads_beside_runs, **spec_of(r.spec)}
    if kind == EventKind.residency:
        return {"node": r.node.value, "models": [model.value for model in r.held]}
    if kind == EventKind.prior:
        return {"model": r.model.value, "node": r.node.value, "curve": curve_of(r.curve)}
    if kind == EventKind.signal:
        return {"node": r.node.value, **signal_of(r.signal)}
    if kind == EventKind.prompt:
        return {"session": r.prompt.session, "prompt_tokens": r.prompt.prompt_tokens,
                "block_size": r.prompt.block_size, "blocks": list(r.blocks)}
    if kind == EventKind.tick or kind == EventKind.schedule:
        return {}
    if kind == EventKind.end:
        return {"n_requests": r.n_requests, "n_actions": r.n_actions, "n_records": r.n_records}
    return {"node": r.node.value}


cdef class Replay:
    """A log told to a state machine again, all of it.

    collect  keep arrivals, batches and curves
    """

    cdef LogFile file
    cdef unique_ptr[CppReplay] c_obj

    def __init__(self, path, bint partial, bint collect):
        cdef bint more = True
        cdef uint64_t n_records = _RECORDS_A_CALL
        self.file = LogFile(path)
        self.c_obj.reset(new CppReplay(self.file.c_obj.get()[0], self.file.name, partial, collect))
        while more:
            with nogil:
                more = self.c_obj.get().run(n_records)
            PyErr_CheckSignals()

    def result(self) -> dict:
        cdef CppReplay* c = self.c_obj.get()
        difference = None
        if c.first_difference().has_value():
            d = c.first_difference().value()
            difference = {"byte": d.byte, "record": d.record, "at_ns": d.now_ns, "recorded": d.recorded.decode(),
                          "replayed": d.replayed.decode()}
        return {"digest": c.digest(), "recorded_digest": c.recorded_digest(), "first_difference": difference,
                "n_events": c.n_events(), "n_requests": c.n_requests(), "n_actions": c.n_actions(),
                "complete": c.complete()}

    def config(self) -> dict:
        return config_of(self.c_obj.get().config())

    def nodes(self) -> list:
        cdef vector[RecordedNode] nodes = self.c_obj.get().nodes()
        return [{"id": n.id.value, "added_ns": n.added_ns, "removed_ns": _time(n.removed_ns),
                 "run_limit_ns": _time(n.config.run_limit_ns), **spec_of(n.spec)} for n in nodes]

    def models(self) -> list:
        cdef vector[RecordedModel] models = self.c_obj.get().models()
        return [{"name": _text(m.name), "version": m.version, **model_config_of(m.config)} for m in models]

    def labels(self) -> list:
        """(key, value) of each bit of an arrival's `require`."""
        cdef Labels labels = self.c_obj.get().labels()
        return [(_text(label.first), _text(label.second)) for label in labels]

    def curves(self) -> list:
        cdef vector[RecordedCurve] curves = self.c_obj.get().curves()
        return [(c.model, c.node, *curve_of(c.curve), c.spread, c.n_observed) for c in curves]

    def arrivals(self):
        """(request, model, arrival_ns, deadline_ns or -1, work, tier, require, tenant), a structured array."""
        cdef size_t i, n = self.c_obj.get().arrivals().size()
        cdef const Request* r
        out = np.empty(n, [("request", "u8"), ("model", "u4"), ("arrival_ns", "i8"), ("deadline_ns", "i8"),
                           ("work", "f8"), ("tier", "u2"), ("require", "u8"), ("tenant", "u4")])
        cdef uint64_t[::1] request = np.empty(n, np.uint64), require = np.empty(n, np.uint64)
        cdef uint32_t[::1] model = np.empty(n, np.uint32), tier = np.empty(n, np.uint32)
        cdef uint32_t[::1] tenant = np.empty(n, np.uint32)
        cdef int64_t[::1] arrival = np.empty(n, np.int64), deadline = np.empty(n, np.int64)
        cdef double[::1] work = np.empty(n)
        for i in range(n):
            r = &self.c_obj.get().arrivals()[i]
            request[i], model[i], arrival[i], work[i] = r.cookie, r.model.value, r.arrival_ns, r.work
            deadline[i] = -1 if r.deadline_ns == never_ns else r.deadline_ns
            tier[i], require[i], tenant[i] = r.tier, r.require, r.tenant
        for name, column in (("request", request), ("model", model), ("arrival_ns", arrival),
                             ("deadline_ns", deadline), ("work", work), ("tier", tier), ("require", require), ("tenant", tenant)):
            out[name] = column
        return out

    def batches(self):
        """(model, node, n, work_sum, work_max, start_ns, end_ns, ok), a structured array."""
        cdef size_t i, n = self.c_obj.get().batches().size()
        cdef const RecordedBatch* b
        out = np.empty(n, [("model", "u4"), ("node", "u4"), ("n", "u4"), ("work_sum", "f8"), ("work_max", "f8"),
                           ("start_ns", "i8"), ("end_ns", "i8"), ("ok", "?")])
        cdef uint32_t[:, ::1] ids = np.empty((3, n), np.uint32)
        cdef double[:, ::1] works = np.empty((2, n))
        cdef int64_t[:, ::1] times = np.empty((3, n), np.int64)
        for i in range(n):
            b = &self.c_obj.get().batches()[i]
            ids[0, i], ids[1, i], ids[2, i] = b.model, b.node, b.shape.n_requests
            works[0, i], works[1, i] = b.shape.work_sum, b.shape.work_max
            times[0, i], times[1, i], times[2, i] = b.start_ns, b.end_ns, b.ok
        out["model"], out["node"], out["n"] = ids
        out["work_sum"], out["work_max"] = works
        out["start_ns"], out["end_ns"], out["ok"] = times
        return out


cdef object _time(TimeNs at_ns):
    return None if at_ns == never_ns else at_ns


cdef str _text(const string& text):
    return text.decode("utf-8", "replace")


cdef tuple curve_of(const Curve& curve):
    return curve.base_s, curve.per_request_s, curve.per_work_s, curve.per_padded_work_s


cdef dict config_of(const RunConfig& run):
    cdef vector[string] admission = run.engine.admission
    cdef vector[uint32_t] tier_capacity = run.engine.tier_capacity
    return {"policy": _text(run.policy), "batching": _text(run.batching), "seed": run.seed,
            "max_requests": run.engine.max_requests, "max_nodes": run.engine.max_nodes,
            "max_models": run.engine.max_models, "n_tiers": run.engine.n_tiers,
            "ageing_ns": _time(run.engine.ageing_ns), "attempts_max": run.engine.attempts_max,
            "admission": [name.decode("utf-8", "replace") for name in admission],
            "overload_wait_ns": _time(run.engine.overload_wait_ns),
            "tier_capacity": list(tier_capacity), "shed_lowest": run.engine.shed_lowest,
            "hedge_quantile": run.engine.hedge_quantile or None, "hedge_budget": run.engine.hedge_budget,
            "retry_budget": None if run.engine.retry_budget == unbounded else run.engine.retry_budget,
            "log_terms": run.engine.log_terms, "residency": _text(run.engine.residency)}


cdef dict model_config_of(const ModelConfig& config):
    return {"max_batch_size": config.max_batch_size, "batch_delay_ns_max": _time(config.batch_delay_ns_max),
            "idempotent": config.idempotent, "runs_share": config.runs_share,
            "fallback": None if config.fallback.value == <uint32_t>0xFFFFFFFF else config.fallback.value,
            "length_buckets": list(config.length_buckets),
            "preferred_batch_sizes": list(config.preferred_batch_sizes),
            "weights_bytes": config.weights_bytes, "load_s": config.load_s}


cdef dict spec_of(const NodeSpec& spec):
    return {"name": _text(spec.name), "kind": _text(spec.kind), "zone": _text(spec.zone),
            "location": _text(spec.location), "memory_bytes": spec.memory_bytes,
            "price_per_hour": spec.price_per_hour, "rtt_s": spec.rtt_s, "slots": spec.slots,
            "pending_max": spec.pending_max, "labels": labels_of(spec.labels)}


cdef dict labels_of(Labels labels):
    return {_text(label.first): _text(label.second) for label in labels}


cdef dict signal_of(const Signal& s):
    figures = {"queue_depth": s.queue_depth, "inflight": s.inflight, "cpu": s.cpu, "gpu": s.gpu, "memory": s.memory,
               "network": s.network, "packet_loss": s.packet_loss, "queue_wait_s": s.queue_wait_s}
    return {"as_of_ns": s.as_of_ns, **{name: x for name, x in figures.items() if x == x}}
