# Checks of the figures that a node says of itself.

cdef double figure(str field, object value) except? -1.0:
    cdef double number
    try:
        number = value
    except OverflowError:  # an int that no double holds
        number = INFINITY if value > 0 else -INFINITY
    except TypeError:
        raise InvalidType(f"{field} is {type(value).__name__}; allowed: a number") from None
    if number >= 0.0 and number <= (1.0 if field in _FRACTIONS else 1e9):
        return number
    allowed = "a fraction from 0 to 1" if field in _FRACTIONS else "a number from 0 to 1e9"
    raise InvalidArgument(f"{field} is {number}; allowed: {allowed}")


cdef inline double said(str field, object value) except? -1.0:
    return not_given if value is None else figure(field, value)


def _signal_table(rows):
    """(as_of_s and each figure, rows) of a structured array, checked; NaN where it has none."""
    names = getattr(getattr(rows, "dtype", None), "names", None)
    if names is None or "node" not in names:
        raise InvalidType("rows is no structured array with a field 'node'")
    if rows.ndim > 1:
        raise InvalidArgument(f"rows has {rows.ndim} dimensions; allowed: 1")
    rows = np.atleast_1d(rows)
    unknown = set(names) - {"node", "as_of_s", *_SIGNALS}
    if unknown:
        raise InvalidArgument(f"rows has fields {sorted(unknown)}; allowed: node, as_of_s, {', '.join(_SIGNALS)}")
    table = np.full((1 + len(_SIGNALS), rows.size), np.nan)
    for i, name in enumerate(("as_of_s", *_SIGNALS)):
        if name in names:
            table[i] = _checked_column(name, rows[name])
    return table


def _checked_column(str name, column):
    if column.ndim != 1 or column.dtype.kind not in "iufb":
        raise InvalidType(f"{name} is a field of {column.dtype} with shape {column.shape[1:]}; allowed: one number a row")
    column = column.astype(np.float64)
    least, most = (-9e9, 9e9) if name == "as_of_s" else (0.0, 1.0 if name in _FRACTIONS else 1e9)
    wrong = ~np.isnan(column) & ~((column >= least) & (column <= most))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise InvalidArgument(f"{name} is {column[row]} in row {row}; allowed: {least:g} to {most:g}, or NaN")
    return column


def _ids_of(Fleet self, nodes):
    """Ids or names, checked, as uint32; columns of ids at once."""
    nodes = np.atleast_1d(nodes)
    if nodes.dtype.kind in "iu" and nodes.size and 0 <= nodes.min() and nodes.max() < self.c_obj.get().n_nodes():
        ids = nodes.astype(np.uint32)
        if _all_present(self, ids):
            return ids
    return np.array([self.node_of(node).value for node in nodes.tolist()], np.uint32)


cdef bint _all_present(Fleet self, const uint32_t[::1] ids) except *:
    cdef NodeId id
    cdef Py_ssize_t i
    for i in range(ids.shape[0]):
        id.value = ids[i]
        if self.c_obj.get().state(id) == NodeState.absent:
            return False
    return True


cdef size_t _signal_all(Fleet self, const uint32_t[::1] ids, const double[:, ::1] table) except? 0:
    cdef Signal signal
    cdef NodeId id
    cdef Py_ssize_t i
    cdef size_t n_taken = 0
    cdef int64_t now_ns = self.clock.now_ns()
    self.c_obj.get().beat_if_due(now_ns)
    for i in range(ids.shape[0]):
        id.value = ids[i]
        signal.as_of_ns = now_ns if isnan(table[0, i]) else min(now_ns, to_ns(table[0, i]))
        signal.queue_depth, signal.inflight = table[1, i], table[2, i]
        signal.cpu, signal.gpu = table[3, i], table[4, i]
        signal.memory, signal.network = table[5, i], table[6, i]
        signal.packet_loss, signal.queue_wait_s, signal.error_rate = table[7, i], table[8, i], table[9, i]
        n_taken += self.take(id, signal)
    return n_taken
