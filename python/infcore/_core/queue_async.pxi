# Part of queue.pyx: how getters that await are told.

@cython.final
cdef class LoopWake:
    """Tells the getters of one loop that it is their turn: one call into the loop for all whose turn comes meanwhile."""

    def __cinit__(self, loop):
        self.loop = loop
        self.due = []

    cdef int tell(self, QueueStore queue, object future) except -1:
        """From whatever thread. Raises RuntimeError if the loop is closed: then take_back()."""
        self.queue = queue  # only while somebody is due, or the two would keep each other alive
        self.due.append(future)
        if self.once.arm():
            self.loop.call_soon_threadsafe(self)
        return 0

    cdef Py_ssize_t take_back(self) except -1:
        """How many were due."""
        cdef Py_ssize_t n
        self.once.disarm()
        self.queue = None
        n = len(self.due)
        self.due.clear()
        return n

    def __call__(self):
        # On the loop. A getter that has gone meanwhile hands its turn on.
        cdef QueueStore queue
        cdef Py_ssize_t n_gone = 0
        self.once.disarm()
        queue, self.queue = self.queue, None
        while self.due:
            future = self.due.pop(0)
            if future.done():
                n_gone += 1
            else:
                future.set_result(None)
        if n_gone != 0 and queue is not None:
            queue._wake_async(n_gone)
