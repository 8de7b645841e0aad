# Of route.pyx: what explain() returns.


cdef list explained(Fleet fleet, vector[Explanation]& explanations, object model, object deadline_s, object require):
    out = []
    for i in range(explanations.size()):
        terms = explanations[i].terms
        id = explanations[i].node
        reason = reason_of(fleet, explanations[i], model, deadline_s, require)
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


cdef object reason_of(Fleet fleet, const Explanation& explanation, object model, object deadline_s, object require):
    if explanation.filtered == Filtered.no:
        return None
    if explanation.filtered == Filtered.not_up:
        return name_of(fleet.c_obj.get().state(explanation.node)).decode()
    if explanation.filtered == Filtered.no_model:
        return f"model {model!r} is not loaded"
    if explanation.filtered == Filtered.no_label:
        return f"lacks a label of {dict(require)!r}"
    if explanation.filtered == Filtered.late:
        return f"too late for deadline_s={deadline_s!r}"
    return f"full: {fleet.c_obj.get().inflight(explanation.node)} in flight reach its bound"
