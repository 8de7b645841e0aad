# The fleet's tables as structured arrays.

cdef _rows_of(Fleet self):
    cdef CppFleet* fleet = self.c_obj.get()
    cdef NodeId id
    cdef Credit own
    cdef Signal last
    cdef const NodeSpec* spec
    cdef int64_t now_ns = self.clock.now_ns()
    fleet.beat_if_due(now_ns)
    fleet.end_leases(now_ns)
    cdef vector[uint64_t] used = fleet.used_bytes()
    rows = []
    for id.value in range(min(fleet.n_nodes(), used.size())):
        if fleet.state(id) == NodeState.absent:
            continue
        spec = &fleet.spec(id)
        fleet.read(id, own, last)
        age_s = np.nan if last.as_of_ns == untimed else (now_ns - last.as_of_ns) * 1e-9
        rows.append((id.value, spec.name.decode(), spec.kind.decode(), spec.zone.decode(), spec.location.decode(),
                     name_of(fleet.state(id)).decode(), spec.slots, fleet.pending_max(id), spec.memory_bytes,
                     used[id.value], spec.price_per_hour, spec.rtt_s, fleet.inflight(id), fleet.wait_s(id), age_s,
                     last.queue_depth, last.cpu, last.gpu, last.memory, last.network, last.packet_loss,
                     last.queue_wait_s, last.error_rate))
    widest = [max([len(row[i]) for row in rows], default=1) or 1 for i in range(1, 5)]
    return np.array(rows, dtype=[
        ("id", "u4"), ("name", f"U{widest[0]}"), ("kind", f"U{widest[1]}"), ("zone", f"U{widest[2]}"),
        ("location", f"U{widest[3]}"), ("state", "U8"), ("slots", "u4"), ("pending_max", "u4"),
        ("memory_bytes", "u8"), ("used_bytes", "u8"), ("price_per_hour", "f8"), ("rtt_s", "f8"), ("inflight", "u4"),
        ("wait_s", "f8"), ("signal_age_s", "f8"), ("queue_depth", "f8"), ("cpu", "f8"), ("gpu", "f8"),
        ("memory", "f8"), ("network", "f8"), ("packet_loss", "f8"), ("queue_wait_s", "f8"), ("error_rate", "f8")])


cdef _models_of(Fleet self, object node):
    cdef CppFleet* fleet = self.c_obj.get()
    cdef ModelId model
    cdef NodeId id
    cdef ModelSize size
    rows = []
    for model.value in range(fleet.n_models()):
        if fleet.model_version(model) == 0:
            continue
        n_nodes = 0
        for id.value in range(fleet.n_nodes()):
            n_nodes += fleet.resident(id, model)
        if node is not None:
            id.value = node
            if not fleet.resident(id, model):
                continue
        size = fleet.size_of(model)
        rows.append((fleet.model_name(model).decode(), fleet.model_version(model), size.weights_bytes, size.load_s,
                     fleet.is_declared(model), n_nodes))
    widest = max([len(row[0]) for row in rows], default=1)
    return np.array(rows, dtype=[("model", f"U{widest}"), ("version", "u4"), ("weights_bytes", "u8"),
                                 ("load_s", "f8"), ("declared", "?"), ("n_nodes", "u4")])


cdef _load_costs_of(Fleet self, object model):
    text("model", model)
    if self.find_model(model) is None:
        raise UnknownName(f"model is {model!r}; known: {', '.join(self.model_ids) or 'none yet'}")
    cdef ModelId id
    id.value = self.model_ids[model]
    column = np.full((self.c_obj.get().max_nodes() + 63) // 64 * 64, np.inf, np.float32)
    cdef float[::1] view = column
    self.c_obj.get().load_costs(id, &view[0])
    return column[:self.c_obj.get().n_nodes()].astype(np.float64) * 1e-6
