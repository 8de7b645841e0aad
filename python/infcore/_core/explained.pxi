# Of route.pyx: what explain() returns.


cdef list explained(Router router, vector[Explanation]& explanations, object model, object deadline_s, object require):
    cdef Fleet fleet = router.fleet
    out = []
    for i in range(explanations.size()):
        terms = explanations[i].terms
        id = explanations[i].node
        reason = reason_of(router, explanations[i], model, deadline_s, require)
        out.append({
            "node": id.value,
            "name": fleet.c_obj.get().spec(id).name.decode(),
            "cost_us": terms.cost_us if reason is None else None,
            "terms": {"wait": terms.wait_us, "service": terms.service_us, "pressure": terms.pressure_us,
                      "load": terms.load_us, "network": terms.network_us, "saving": 0.0 - terms.saving_us,
                      "price": terms.price_us, "risk": terms.risk_us, "explore": terms.explore_us},
            "reason": reason,
        })
    return out


cdef object reason_of(Router router, const Explanation& explanation, object model, object deadline_s, object require):
    if explanation.filtered == Filtered.no:
        return explanation.left_out.decode() or None
    if explanation.filtered == Filtered.not_up:
        state = name_of(router.fleet.c_obj.get().state(explanation.node)).decode()
        if router.health is None:
            return state
        return f"{state} {router.health.c_obj.get().why_out(explanation.node).decode()}".rstrip()
    if explanation.filtered == Filtered.no_model:
        return f"model {model!r} is not loaded"
    if explanation.filtered == Filtered.no_label:
        return f"lacks a label of {dict(require)!r}"
    if explanation.filtered == Filtered.late:
        return f"too late for deadline_s={deadline_s!r}"
    return f"full: {router.fleet.c_obj.get().inflight(explanation.node)} in flight reach its bound"
