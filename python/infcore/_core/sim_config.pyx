"""From a checked scenario to the simulator's configuration: names become indices, seconds stay seconds."""
from libc.stdint cimport int32_t, uint16_t, uint32_t, uint64_t
from libcpp.vector cimport vector

from infcore._core.fleet cimport labels_of, whole
from infcore._core.route_args cimport options_of
from infcore._cpp.base cimport ModelId, to_ns
from infcore._cpp.sim cimport (AntagonistConfig, FaultConfig, FaultKind, Gaps, ModelConfig, NodeConfig, RandomFaultConfig,
                               RateKind, RateShape, Residency, Service, SimConfig, TokenService, WorkDist, WorkKind,
                               WorkloadConfig)
from infcore._cpp.route cimport RoutingOptions

from infcore.errors import InvalidType


cdef dict _WORK = {"constant": <int>WorkKind.constant, "lognormal": <int>WorkKind.lognormal,
                   "exponential": <int>WorkKind.exponential, "uniform": <int>WorkKind.uniform,
                   "gamma": <int>WorkKind.gamma, "pareto": <int>WorkKind.pareto}
cdef dict _RATES = {"onoff": <int>RateKind.onoff, "diurnal": <int>RateKind.diurnal, "weekly": <int>RateKind.weekly,
                    "flash_sale": <int>RateKind.flash_sale, "follow_the_sun": <int>RateKind.diurnal}
cdef dict _GAPS = {"gamma": <int>Gaps.gamma, "regular": <int>Gaps.regular, "trace": <int>Gaps.rows}
cdef dict _FAULTS = {"crash": <int>FaultKind.crash, "slow": <int>FaultKind.slow, "hang": <int>FaultKind.hang,
                     "errors": <int>FaultKind.errors, "lost_completions": <int>FaultKind.lost_completions,
                     "partition": <int>FaultKind.partition, "freeze_signals": <int>FaultKind.freeze_signals}
# What can leave a request unanswered until somebody's patience ends.
cdef frozenset _SILENT = frozenset(("hang", "lost_completions", "partition"))


cdef SimConfig config_of(object scenario, str policy, object seed, object policy_options=None) except *:
    cdef SimConfig config
    run = scenario.run
    config.seed = <uint64_t>whole("seed", seed, 0, (1 << 63) - 1)
    config.policy_options = options_of(policy_options)
    config.policy, config.batching = policy.encode(), run.batching.encode()
    config.seconds, config.warmup_s = run.seconds, run.warmup_s
    config.max_requests = run.max_requests
    config.ageing_s = run.ageing_s or 0.0
    config.attempts_max = run.attempts_max
    config.hedge_quantile, config.hedge_budget = run.hedge_quantile or 0.0, run.hedge_budget
    config.retry_budget = run.retry_budget
    config.attempts_max, config.judges_health = run.attempts_max, run.health
    config.residency = (run.residency or "").encode()
    config.admission = [name.encode() for name in run.admission]
    config.overload_wait_s = run.overload_wait_s or 0.0
    config.shed_lowest = run.overflow == "shed_lowest"
    config.run_limit_s = _run_limit_s(scenario)
    config.detect_s, config.probe_s = run.detect_s, run.probe_s
    config.handoff_s, config.answer_s, config.curves_known = run.handoff_s, run.answer_s, run.curves_known
    config.signal_period_s, config.signal_delay_s, config.signal_loss = \
        run.signal_period_s, run.signal_delay_s, run.signal_loss
    models = {model.name: i for i, model in enumerate(scenario.models)}
    groups = {}
    for model in scenario.models:
        config.models.push_back(_model(model, models, groups.setdefault(model.group or model.name, len(groups))))
    _add_nodes(config, scenario, models)
    config.n_tiers = 1
    tenants = {"": 0}
    for workload in scenario.workloads:
        tenant = tenants.setdefault(workload.tenant, len(tenants))
        config.workloads.push_back(_workload(workload, models[workload.model], tenant, scenario))
        config.n_tiers = max(<int>config.n_tiers, workload.tier + 1)
    if run.tier_capacity:
        config.n_tiers = max(<int>config.n_tiers, len(run.tier_capacity))
        config.tier_capacity = [*run.tier_capacity, *[run.max_requests] * (config.n_tiers - len(run.tier_capacity))]
    _add_disturbances(config, scenario)
    return config


def _run_limit_s(scenario) -> float:
    """The scenario's; where it gives none, ten times the slowest goal, and only if runs may stay without an answer. A
    token model's is no less than its mean answer takes in full steps (a trace's answers: 1,000 tokens)."""
    if scenario.run.run_limit_s is not None:
        return scenario.run.run_limit_s
    if not any(fault.kind in _SILENT for fault in (*scenario.faults, *scenario.random_faults)):
        return 0.0
    goals = [model.slo_s for model in scenario.models] + [w.deadline_s or 0.0 for w in scenario.workloads]
    goals += [_full_answer_s(scenario, workload) for workload in scenario.workloads]
    return max(1.0, 10.0 * max(goals))


def _full_answer_s(scenario, workload) -> float:
    n_tokens = 1000.0 if workload.arrivals == "trace" else workload.output_tokens.mean
    n_context = workload.prompt_tokens.mean + n_tokens
    step_s = [row.base_s + row.prefill_base_s + row.per_prefill_token_s * row.token_budget
              + row.per_prefill_token2_s * row.token_budget ** 2 + row.decode_base_s
              + row.max_running * (row.per_decode_s + row.per_context_token_s * n_context)
              for row in scenario.token_latencies if row.model == workload.model]
    return n_tokens * max(step_s, default=0.0)


cdef ModelConfig _model(object model, dict models, uint32_t figures) except *:
    cdef ModelConfig config
    config.name, config.figures = model.name.encode(), figures
    config.engine.weights_bytes = model.weights_bytes
    config.engine.max_batch_size = model.max_batch_size
    config.engine.batch_delay_ns_max = to_ns(model.batch_delay_s)
    config.engine.idempotent, config.engine.runs_share = model.idempotent, model.tokens
    if model.fallback:
        config.engine.fallback.value = <uint32_t>models[model.fallback]
    config.engine.length_buckets, config.engine.preferred_batch_sizes = model.length_buckets, model.preferred_batch_sizes
    config.slo_s, config.load_s, config.warmup_s = model.slo_s, model.load_s, model.warmup_s
    config.tokens = model.tokens
    config.slo_ttft_s, config.slo_itl_s = model.slo_ttft_s, model.slo_itl_s
    return config


cdef int _add_nodes(SimConfig& config, object scenario, dict models) except -1:
    """A latency row for the node itself goes before one for its group."""
    cdef Service service
    cdef NodeConfig node
    rows = {}
    for i, row in enumerate(scenario.latencies):
        service.curve.base_s, service.curve.per_request_s = row.base_s, row.per_request_s
        service.curve.per_work_s, service.curve.per_padded_work_s = row.per_work_s, row.per_padded_work_s
        service.cv = row.cv
        config.services.push_back(service)
        rows[row.model, row.node] = i
    token_rows = _add_token_services(config, scenario)
    for spec in scenario.nodes:
        node = NodeConfig()
        node.spec.name, node.spec.kind = spec.name.encode(), spec.kind.encode()
        node.spec.zone, node.spec.location = spec.zone.encode(), spec.location.encode()
        node.spec.memory_bytes, node.spec.price_per_hour = spec.memory_bytes, spec.price_per_hour
        node.spec.rtt_s, node.spec.slots = spec.rtt_s, spec.slots
        node.spec.labels = labels_of("labels", spec.labels)
        node.loads_beside_runs = spec.loads_beside_runs
        free_bytes = spec.memory_bytes or float("inf")
        for model in scenario.models:
            if model.name in spec.initial_models:
                free_bytes -= model.weights_bytes
        for model in scenario.models:
            of_kind = token_rows if model.tokens else rows
            at = of_kind.get((model.name, spec.name), of_kind.get((model.name, spec.group), -1))
            if at < 0 or (spec.models is not None and model.name not in spec.models):
                node.service.push_back(-1)
                node.residency.push_back(Residency.never)
            else:
                node.service.push_back(-1 if model.tokens else <int32_t>at)
                if model.tokens:
                    node.token_service = <int32_t>at
                fits = model.weights_bytes <= free_bytes or (scenario.run.residency and _fits(model, spec))
                if model.name in spec.initial_models:
                    node.residency.push_back(Residency.holds)
                elif fits:
                    free_bytes -= model.weights_bytes
                    node.residency.push_back(Residency.loads)
                else:
                    node.residency.push_back(Residency.never)
        config.nodes.push_back(node)
    return 0


def _fits(model, spec) -> bool:
    return not spec.memory_bytes or model.weights_bytes <= spec.memory_bytes


cdef dict _add_token_services(SimConfig& config, object scenario):
    """The index of each row by its model and node."""
    cdef TokenService service
    contexts = {model.name: model.context_tokens_max for model in scenario.models}
    rows = {}
    for i, row in enumerate(scenario.token_latencies):
        service.curve.base_s, service.curve.swap_block_s = row.base_s, row.swap_block_s
        service.curve.prefill_base_s, service.curve.per_prefill_token_s = row.prefill_base_s, row.per_prefill_token_s
        service.curve.per_prefill_token2_s = row.per_prefill_token2_s
        service.curve.decode_base_s, service.curve.per_decode_s = row.decode_base_s, row.per_decode_s
        service.curve.per_context_token_s = row.per_context_token_s
        service.curve.per_context_token2_s = row.per_context_token2_s
        service.cv = row.cv
        service.n_blocks, service.block_size, service.host_blocks = row.n_blocks, row.block_size, row.host_blocks
        service.token_budget, service.max_running = row.token_budget, row.max_running
        service.context_tokens_max = contexts[row.model]
        config.token_services.push_back(service)
        rows[row.model, row.node] = i
    return rows


cdef WorkDist _work(object dist) except *:
    cdef WorkDist work
    work.kind = <WorkKind><int>_WORK[dist.dist]
    work.mean, work.cv, work.low, work.high = dist.mean, dist.cv, dist.low, dist.high
    if dist.min is not None:
        work.at_least = dist.min
    if dist.max is not None:
        work.at_most = dist.max
    return work


cdef RateShape _rate(object workload) except *:
    cdef RateShape rate
    if workload.arrivals in _RATES:
        rate.kind = <RateKind><int>_RATES[workload.arrivals]
    rate.on_s, rate.off_s, rate.on_factor = workload.on_s, workload.off_s, workload.on_factor
    rate.period_s, rate.peak_to_mean = workload.period_s, workload.peak_to_mean
    rate.weekend_factor, rate.phase_s = workload.weekend_factor, workload.phase_s
    rate.at_s, rate.ramp_s, rate.for_s = workload.at_s, workload.ramp_s, workload.for_s
    rate.peak_factor = workload.peak_factor
    return rate


cdef WorkloadConfig _workload(object workload, uint32_t model, uint32_t tenant, object scenario) except *:
    cdef WorkloadConfig config
    config.model.value = model
    config.rate_rps = workload.rate_rps
    config.gaps = <Gaps><int>_GAPS.get(workload.arrivals, <int>Gaps.poisson)
    config.gap_cv = workload.arrival_cv
    config.rate, config.work = _rate(workload), _work(workload.work)
    config.tier, config.tenant = <uint16_t>workload.tier, tenant
    config.tenant_name = workload.tenant.encode()
    config.deadline_s = workload.deadline_s or 0.0
    config.defer_s, config.stale_share = workload.defer_s, workload.stale_share
    config.start_s = workload.start_s
    config.end_s = scenario.run.seconds if workload.end_s is None else workload.end_s
    config.require = labels_of("require", workload.require)
    if workload.session is not None:
        config.turns_mean, config.think_s_mean = workload.session.turns_mean, workload.session.think_s_mean
    config.context_tokens_max = scenario.models[model].context_tokens_max
    config.prompt_tokens, config.output_tokens = _work(workload.prompt_tokens), _work(workload.output_tokens)
    if workload.prefix is not None:
        config.prefix.groups, config.prefix.tokens = workload.prefix.groups, workload.prefix.tokens
        config.prefix.share, config.prefix.zipf = workload.prefix.share, workload.prefix.zipf
    return config


cdef vector[uint32_t] _places(object scenario, str node, str zone) except *:
    """Of the nodes that a fault may come over: of that name or group, in that zone; both empty: all."""
    cdef vector[uint32_t] places
    for i, spec in enumerate(scenario.nodes):
        if (not node or node in (spec.name, spec.group)) and (not zone or zone == spec.zone):
            places.push_back(<uint32_t>i)
    return places


cdef int _add_disturbances(SimConfig& config, object scenario) except -1:
    cdef FaultConfig fault
    cdef RandomFaultConfig random
    cdef AntagonistConfig antagonist
    for row in scenario.faults:
        fault.kind = <FaultKind><int>_FAULTS[row.kind]
        fault.at_s, fault.for_s, fault.factor, fault.rate = row.at_s, row.for_s, row.factor, row.rate
        fault.nodes = _places(scenario, row.node, row.zone)
        config.faults.push_back(fault)
    for row in scenario.random_faults:
        random.kind = <FaultKind><int>_FAULTS[row.kind]
        random.rate_per_node_hour, random.for_s = row.rate_per_node_hour, row.for_s
        random.factor, random.rate = row.factor, row.rate
        random.nodes = _places(scenario, row.node, row.zone)
        config.random_faults.push_back(random)
    for row in scenario.antagonists:
        antagonist.factor, antagonist.on_s, antagonist.off_s = row.factor, row.on_s, row.off_s
        for place in _places(scenario, row.node, ""):
            antagonist.node = place
            config.antagonists.push_back(antagonist)
    return 0
