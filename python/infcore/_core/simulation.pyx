"""The simulator's border: a scenario and rows of arrivals in, totals out. No decision is made here."""
from cython.operator cimport dereference as deref
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libcpp.memory cimport unique_ptr
from libcpp.vector cimport vector

from infcore._core.sim_config cimport config_of
from infcore._core.telemetry cimport copy_of
from infcore._cpp.base cimport ModelId, never_ns
from infcore._cpp.engine cimport Outcomes, n_reasons, reason_names
from infcore._cpp.kv cimport ConstNames
from infcore._cpp.sim cimport (Arrival, Arrivals, FaultEvent, Ledger, NodeUse, Part, Pause, SimConfig,
                               Simulation as CppSimulation, TokenFigures, TokenTotals, Totals)

from infcore.errors import InvalidArgument

OUTCOMES = ("ok", "rejected", "expired", "shed", "failed", "cancelled")
FAULTS = ("crash", "slow", "hang", "errors", "lost_completions", "partition", "freeze_signals")
cdef tuple _PAUSES = ("steps", "rows", "log", "end")


cdef class Simulation:
    """The engine under a virtual clock, in a scenario's world.

    scenario   infcore.sim.scenario_schema.Scenario, as its reader checked it
    policy     one of Router.policies(), or "clairvoyant": no policy but the least that any could take
    log        True: a JSON line per request, taken with take_log()
    Raises     InvalidArgument, UnknownName
    One thread at a time; run() gives up the GIL. Arrivals of workloads with arrivals = "trace" are fed.
    """

    cdef unique_ptr[CppSimulation] c_obj
    cdef uint32_t n_workloads, n_tiers
    cdef uint64_t n_fed
    cdef vector[uint32_t] contexts  # by workload: tokens of a request at most; 0: its model makes none

    def __init__(self, scenario, *, str policy, seed=0, bint log=False, policy_options=None):
        cdef bint rows
        cdef SimConfig config = config_of(scenario, policy, seed, policy_options)
        rows = any(workload.arrivals == "trace" for workload in scenario.workloads)
        self.n_workloads = <uint32_t>config.workloads.size()
        self.n_tiers = config.n_tiers
        for i in range(self.n_workloads):
            self.contexts.push_back(config.workloads[i].context_tokens_max)
        with nogil:
            self.c_obj.reset(new CppSimulation(config, rows, log))

    def run(self, uint64_t steps_max) -> str:
        """Goes on for so many events at most: "steps", "rows" (feed or close_rows first), "log" (take it), "end"."""
        cdef Pause pause
        with nogil:
            pause = self.c_obj.get().run(steps_max)
        return _PAUSES[<int>pause]

    def feed(self, const int64_t[::1] at_ns not None, const uint32_t[::1] workload not None,
             const double[::1] work not None, const int64_t[::1] deadline_ns not None,
             const uint16_t[::1] tier not None, const uint32_t[::1] tenant not None,
             const uint64_t[::1] session not None,
             const uint32_t[::1] prompt not None, const uint32_t[::1] output not None,
             const uint32_t[::1] n_names not None, const uint64_t[::1] names not None) -> None:
        """More arrivals, times in order and not before those fed earlier; deadline_ns after arrival, negative: none.
        prompt, output: tokens, 0 where the model makes none; names: of prompts' blocks, n_names of each row."""
        cdef vector[Arrival] arrivals
        cdef Arrival arrival
        cdef Py_ssize_t i, n = at_ns.shape[0]
        cdef int64_t before_ns = self.c_obj.get().now_ns()
        cdef uint64_t n_named = 0
        cdef uint32_t context
        if not n == workload.shape[0] == work.shape[0] == deadline_ns.shape[0] == tier.shape[0] == session.shape[0] == \
                prompt.shape[0] == output.shape[0] == n_names.shape[0] == tenant.shape[0]:
            raise InvalidArgument(f"columns are of {n} rows and of others; allowed: as many in each")
        arrivals.reserve(n)
        for i in range(n):
            if at_ns[i] < before_ns or workload[i] >= self.n_workloads or tier[i] >= self.n_tiers or \
                    not 0.0 <= work[i] <= 1e15:
                raise InvalidArgument(f"row {i} is at {at_ns[i]} ns, workload {workload[i]}, work {work[i]}, tier {tier[i]}; "
                                      f"allowed: from {before_ns} ns on, {self.n_workloads} workloads, {self.n_tiers} tiers")
            context = self.contexts[workload[i]]
            if <uint64_t>prompt[i] + output[i] > context or (context > 0 and (prompt[i] == 0 or output[i] == 0)):
                raise InvalidArgument(f"row {i} has {prompt[i]} prompt tokens and {output[i]} to make; "
                                      f"allowed: together {context}, each at least 1 unless that is 0")
            arrival.at_ns = before_ns = at_ns[i]
            arrival.workload, arrival.work, arrival.tier = workload[i], work[i], tier[i]
            arrival.deadline_ns = never_ns if deadline_ns[i] < 0 else deadline_ns[i]
            arrival.tenant, arrival.session = tenant[i], session[i]
            self.n_fed += 1
            arrival.tokens.prompt, arrival.tokens.output = prompt[i], output[i]
            # A conversation's turns have their beginning in common; what stands alone has tokens of its own.
            arrival.tokens.content = session[i] if session[i] else (1ULL << 63) | self.n_fed
            arrival.tokens.known = prompt[i] if n_names[i] or session[i] else 0
            arrival.n_names = n_names[i]
            n_named += n_names[i]
            arrivals.push_back(arrival)
        if n_named != <uint64_t>names.shape[0]:
            raise InvalidArgument(f"names are {names.shape[0]}; allowed: the sum of n_names, {n_named}")
        self.c_obj.get().feed(Arrivals(arrivals.data(), arrivals.size()),
                              ConstNames(&names[0] if n_named else NULL, n_named))

    def close_rows(self) -> None:
        """There are no more arrivals."""
        self.c_obj.get().close_rows()

    def take_log(self) -> bytes:
        """The lines since the last call."""
        cdef bytes lines = self.c_obj.get().log().lines()
        self.c_obj.get().log().clear()
        return lines

    # ---- what came of it

    @property
    def now_s(self) -> float:
        """Simulated seconds so far."""
        return self.c_obj.get().now_ns() * 1e-9

    @property
    def n_requests(self) -> int:
        """Arrivals so far, those in the warm-up included."""
        return self.c_obj.get().n_requests()

    def totals(self, group=None) -> dict:
        """Counts and histograms of the requests after the warm-up: of all, or of a group of models by its index."""
        cdef uint32_t n_groups = self.c_obj.get().ledger().n_figures()
        if group is None:
            return _totals(self.c_obj.get().ledger().all())
        if not 0 <= group < n_groups:
            raise InvalidArgument(f"group is {group}; allowed: below {n_groups}")
        return _totals(self.c_obj.get().ledger().models(<uint32_t>group))

    def nodes(self) -> list:
        """A mapping per node: busy_s, requests, batches (after the warm-up), faults, loads (that the engine asked for), busy_part_s."""
        cdef const vector[NodeUse]* nodes = &self.c_obj.get().ledger().nodes()
        cdef size_t i
        return [{"busy_s": deref(nodes)[i].busy_s, "requests": deref(nodes)[i].requests,
                 "batches": deref(nodes)[i].batches, "faults": deref(nodes)[i].faults, "loads": deref(nodes)[i].loads,
                 "busy_part_s": list(deref(nodes)[i].busy_part_s)} for i in range(nodes.size())]

    def parts(self) -> dict:
        """The run in equal parts of part_s seconds: arrivals of each, and what became of them, as lists."""
        cdef const vector[Part]* parts = &self.c_obj.get().ledger().parts()
        cdef size_t i
        return {"part_s": self.c_obj.get().ledger().part_s(),
                "arrivals": [deref(parts)[i].arrivals for i in range(parts.size())],
                "ok": [deref(parts)[i].ok for i in range(parts.size())],
                "within_slo": [deref(parts)[i].within_slo for i in range(parts.size())],
                "latency_mean_s": [deref(parts)[i].latency_sum_s / max(1, deref(parts)[i].ok)
                                   for i in range(parts.size())],
                "latency_max_s": [deref(parts)[i].latency_max_s for i in range(parts.size())]}

    def faults(self) -> tuple:
        """(how many there were, the first of them: (at_s, index of the node, kind, begins))."""
        cdef const vector[FaultEvent]* events = &self.c_obj.get().fault_events()
        cdef size_t i
        return self.c_obj.get().n_faults(), [
            (deref(events)[i].at_ns * 1e-9, deref(events)[i].node, FAULTS[<int>deref(events)[i].kind],
             bool(deref(events)[i].begins)) for i in range(events.size())]

    def tokens(self) -> dict:
        """Of all token nodes, warm-up or not: steps, prefill_tokens (computed), output_tokens, preempted."""
        cdef TokenTotals sum = self.c_obj.get().token_totals()
        return {"steps": sum.steps, "prefill_tokens": sum.prefill_tokens, "output_tokens": sum.output_tokens,
                "preempted": sum.preempted}

    def state(self) -> dict:
        """retried, unretried, hedged, hedge_won, hedge_wasted_s, of all requests; steps, digest (of every decision, in order), lost, duplicated, violations, first_violation, last_ok_s,
        last_run_s; bound_cost_usd under "clairvoyant"."""
        cdef CppSimulation* sim = self.c_obj.get()
        cdef bytes first = sim.first_violation()
        cdef Outcomes runs = sim.second_runs()
        return {"retried": runs.retried, "unretried": runs.unretried, "hedged": runs.hedged,
                "hedge_won": runs.hedge_won, "hedge_wasted_s": runs.hedge_wasted_s,
                "steps": sim.n_steps(), "digest": f"{sim.digest():016x}", "lost": sim.n_lost(),
                "duplicated": sim.n_duplicated(), "violations": sim.n_violations(),
                "first_violation": first.decode(),
                "last_ok_s": sim.ledger().last_ok_ns() * 1e-9,
                "last_run_s": sim.ledger().last_run_ns() * 1e-9, "bound_cost_usd": sim.bound_cost_usd()}


cdef dict _totals(const Totals& totals):
    cdef int i
    return {"arrivals": totals.arrivals, "within_slo": totals.within_slo, "work": totals.work,
            "latency_mean_s": totals.latency_sum_s / totals.outcomes[0] if totals.outcomes[0] else None,
            "outcomes": {name: totals.outcomes[i] for i, name in enumerate(OUTCOMES)},
            "reasons": {reason_names[i].decode(): totals.reasons[i] for i in range(n_reasons) if totals.reasons[i]},
            "degraded": {reason_names[i].decode(): totals.forms[i] for i in range(1, n_reasons) if totals.forms[i]},
            "latency_s": copy_of(totals.latency_s), "wait_s": copy_of(totals.wait_s),
            "regret_s": copy_of(totals.regret_s), "tokens": _tokens(totals)}


cdef object _tokens(const Totals& totals):
    """None where no model makes tokens."""
    cdef const TokenFigures* tokens = totals.tokens.get()
    if tokens == NULL:
        return None
    n_gaps = copy_of(tokens.itl_s).count
    return {"ttft_s": copy_of(tokens.ttft_s), "itl_s": copy_of(tokens.itl_s),
            "ttft_mean_s": tokens.ttft_sum_s / totals.outcomes[0] if totals.outcomes[0] else None,
            "itl_mean_s": tokens.itl_sum_s / n_gaps if n_gaps else None,
            "prompt_tokens": tokens.prompt_tokens, "cached_tokens": tokens.cached_tokens,
            "output_tokens": tokens.output_tokens}
