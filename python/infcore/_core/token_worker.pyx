"""The worker of a token device: requests join and leave between its steps, and tokens are passed on as they come."""
cimport numpy as cnp
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libcpp cimport bool as cbool

from infcore._cpp.base cimport monotonic_ns, never_ns, to_ns
from infcore._cpp.engine cimport Driver, LiveRequest, LiveState, Reason, Wake, WorkBatch, state_of
from infcore._cpp.token_run cimport SequenceRequest
from infcore._core.future cimport Future
from infcore._core.live cimport Arrivals
from infcore._core.staging cimport failure_of
from infcore._core.token_run cimport TokenRun, checked_tokens
from infcore._core.token_sequence cimport TokenSequence, TokenSpec
from infcore._core.workers cimport Workers

import numpy as np

cnp.import_array()

cdef int64_t pause_ns_min = 50_000_000      # of a device all of whose rows raise; doubled each time, up to
cdef int64_t pause_ns_max = 5_000_000_000
cdef int64_t idle_ns = 1_000_000            # until a step that found nothing to compute is asked for again


cdef class TokenWorkers(Workers):
    def _work_tokens(self, uint32_t node, device, controls):
        """As _work, for a TokenDevice."""
        cdef TokenWorker worker = TokenWorker.__new__(TokenWorker)
        worker.owner = self
        worker.driver = self.driver
        worker.node.value = node
        worker.device = device
        worker.controls = controls
        worker.runs = {}
        worker.touched = set()
        worker.pause_ns = pause_ns_min
        worker.progress_every_ns = never_ns if device.run_limit_s is None else to_ns(device.run_limit_s / 4)
        worker.loop()


cdef class Running:
    cdef bint is_wanted(self):
        """Whether it has not ended, and is not others'."""
        return self.sequence.attempt == self.attempt and state_of(self.future.c) == LiveState.pending


cdef class TokenWorker:
    cdef bint abandoned(self):
        """Whether the engine has given this thread up: its node may be another's."""
        return len(self.controls) > 0 and self.controls[0] is None

    cdef int loop(self) except -1:
        cdef Wake wake
        Driver.want_punctual_sleeps()
        while True:
            if self.n_running > 0 or len(self.controls) > 0:  # calls may be due whose wake-up a wait elsewhere took
                wake = self.driver.wait_batch_until(self.node, 0)
            else:
                with nogil:
                    wake = self.driver.wait_batch_until(self.node, self.paused_until_ns or never_ns)
                if self.paused_until_ns != 0 and monotonic_ns() >= self.paused_until_ns:
                    self.paused_until_ns = 0
                    self.driver.resume(self.node)
            if wake == Wake.stop:
                return self.forget_all()
            if len(self.controls) > 0 and not self.obey():
                return 0
            if wake == Wake.batch:
                self.claim_all()
            if self.n_running > 0:
                self.step()
                if self.abandoned():
                    return 0
            if self.driver.prompt() and not self.owner.live.threads.hub.chain().empty():
                self.owner.live.threads.tell()

    cdef bint obey(self) except -1:
        """Makes the calls that are due; False: the last one, or it was given up."""
        while self.controls:
            call = self.controls[0]
            if call is None:
                return False
            leaving = [id for id, of in self.runs.items() if (<ModelRun>of).run_name == call.after]
            if any([(<ModelRun>self.runs[id]).running for id in leaving]):
                return True  # a model leaves once what runs of it has been answered
            for id in leaving:
                del self.runs[id]
            if call.last:
                self.forget_all()
            call = self.controls.popleft()
            if call is None or not call():
                return False
        return True

    # ---- requests come

    cdef int claim_all(self) except -1:
        cdef WorkBatch batch
        cdef Wake wake = Wake.batch
        while wake == Wake.batch:
            if self.driver.claim(self.node, batch):
                self.take(batch)
            wake = self.driver.wait_batch_until(self.node, 0)
        return 0

    cdef int take(self, WorkBatch& batch) except -1:
        cdef Running running = Running.__new__(Running)
        cdef SequenceRequest request
        cdef LiveRequest* member = batch.members[0]
        cdef ModelRun of
        # Until started() the member stays as it is, whoever cancels it.
        running.future = <Future>member.owner
        running.sequence = <TokenSequence>running.future.held
        running.batch = batch
        running.sequence.attempt += 1
        running.attempt = running.sequence.attempt
        request.arrival_ns = member.request.arrival_ns
        request.deadline_ns = member.request.deadline_ns
        request.tier = member.request.tier
        request.tenant = member.request.tenant
        request.n_new_max = running.sequence.n_new - <uint32_t>running.sequence.made.size()
        tokens = running.sequence.so_far()
        self.driver.started(self.node, batch)
        self.n_running += 1
        if state_of(running.future.c) != LiveState.pending:
            self.driver.take_back(running.future.c, Reason.caller)
            return self.finish(running, False, None)
        if running.sequence.over(<TokenSpec>running.future.spec):  # its last device was lost after its last token
            return self.finish(running, True, running.sequence.answer(<TokenSpec>running.future.spec, self.device.name))
        try:
            of = self.run_of(<TokenSpec>self.owner.by_id[batch.model.value])
            running.place = of.run.add_tokens(tokens, request)
            of.running[running.place] = running
        except BaseException as e:
            self.finish(running, False, failure_of(self.device.name, running.future.spec.name, e))
        return 0

    cdef ModelRun run_of(self, TokenSpec spec):
        cdef ModelRun of = self.runs.get(spec.id)
        if of is None or of.spec is not spec:
            of = ModelRun.__new__(ModelRun)
            of.spec = spec
            of.run_name = self.owner.run_names[self.node.value, spec.id]
            of.run = self.device.new_run(of.run_name)
            of.running = {}
            self.runs[spec.id] = of
        return of

    # ---- steps

    cdef int step(self) except -1:
        self.now_ns = self.driver.now_ns()
        for of in list(self.runs.values()):
            if self.n_running > 0:
                self.step_model(<ModelRun>of)
            if self.abandoned():
                return 0
        if self.n_running > 0 and self.driver.is_out(self.node):
            self.forget_all()  # it was given to others; what was cached is still good
            self.driver.resume(self.node)
        return 0

    cdef bint goes_on(self, ModelRun of, Running running) except -1:
        """Whether it does; one that has ended meanwhile, or must now, makes room."""
        cdef bint late = running.future.c.request.deadline_ns <= self.now_ns
        if running.is_wanted() and not late:
            return True
        if running.sequence.attempt == running.attempt:
            self.driver.take_back(running.future.c, Reason.deadline if late else Reason.caller)
        self.leave(of, running, None)
        return False

    cdef int step_model(self, ModelRun of) except -1:
        for running in list(of.running.values()):
            self.goes_on(of, <Running>running)
        if not of.running:
            return 0
        step = of.run.step_at(self.now_ns)
        if step is None:
            with nogil:
                self.driver.wait_batch_until(self.node, monotonic_ns() + idle_ns)
            return 0
        if self.now_ns - self.progress_ns >= self.progress_every_ns:
            self.progress_ns = self.now_ns
            self.driver.progress(self.node)
        places = of.run.places()
        try:
            made = self.made_by(of, step, len(places))
        except BaseException as e:  # whatever it is, the worker lives on
            if not self.abandoned():
                self.row_by_row(of, step, e)
            return 0
        if not self.abandoned():
            self.carry_on(of, places, made)
        return 0

    cdef cnp.ndarray made_by(self, ModelRun of, object step, Py_ssize_t n):
        return checked_tokens(self.device.name, of.spec, self.device.run_step(of.run_name, step), n)

    cdef int carry_on(self, ModelRun of, list places, object made) except -1:
        """The step's tokens go to their requests; what ends is finished."""
        cdef const int64_t[::1] tokens = made
        cdef cnp.ndarray ended = np.zeros(len(places), np.bool_)
        cdef list last = []
        cdef Running running
        cdef TokenSequence sequence
        cdef Py_ssize_t i
        self.pause_ns = pause_ns_min
        self.first_tokens.clear()
        for i in range(len(places)):
            running = <Running>of.running.get(places[i])
            # Before advance(): if this was its last token, its place is another's from there on.
            if running is None or not self.goes_on(of, running):
                continue
            sequence = running.sequence
            if sequence.made.empty():
                self.first_tokens.push_back(running.batch.id)
            if sequence.push(tokens[i]):
                running.future.arrivals.parts.append(sequence)
                self.touched.add(running.future.arrivals)
            if sequence.over(of.spec):
                ended[i] = True
                last.append(running)
        for arrivals in self.touched:  # one wake-up for all that a loop's readers get of a step
            (<Arrivals>arrivals).hub.wake()
        self.touched.clear()
        of.run.advance(made, ended)
        if not self.first_tokens.empty():
            self.driver.first_token(self.node, self.first_tokens)
        for each in last:
            running = <Running>each
            del of.running[running.place]
            self.finish(running, True, running.sequence.answer(of.spec, self.device.name))
        return 0

    # ---- and go

    cdef int finish(self, Running running, bint ok, object payload) except -1:
        """Its batch is over, whatever became of it; `payload`: its answer, or why there is none."""
        cdef void* carried = NULL if payload is None else <void*>payload
        self.n_running -= 1
        Py_INCREF(payload)
        if self.driver.finish(self.node, running.batch, ok, carried, self.n_running > 0) > 0:
            Py_DECREF(payload)
        return 0

    cdef int leave(self, ModelRun of, Running running, object why) except -1:
        of.run.cancel(running.place)
        del of.running[running.place]
        return self.finish(running, False, why)

    cdef int forget_all(self) except -1:
        """Frees what it runs; those requests are others' now, or have ended."""
        for each in self.runs.values():
            for place in list((<ModelRun>each).running):
                (<ModelRun>each).run.cancel(place)
            (<ModelRun>each).running.clear()
        self.n_running = 0
        return 0

    cdef int row_by_row(self, ModelRun of, object step, object error) except -1:
        """After a step that raised: each row alone, so that one which raises fails alone."""
        cdef list row_places = of.run.row_places(), bad = []
        cdef cnp.ndarray made = np.zeros(len(of.run.places()), np.int64)
        cdef Py_ssize_t r, at = 0
        moved = len(step.swap_outs) + len(step.copies) + len(step.swap_ins)
        if moved or len(row_places) == 1 or not of.spec.model.idempotent:
            return self.fail_all(error)
        for r in range(len(row_places)):
            emits = bool(step.emits[r])
            try:
                made[at:at + emits] = self.made_by(of, of.run.row_of(step, r), emits)
            except BaseException as e:
                bad.append((row_places[r], e))
            if self.abandoned():
                return 0
            at += emits
        if len(bad) == len(row_places):
            return self.fail_all(error)
        for place, e in bad:
            running = of.running.get(place)
            if running is not None:
                self.leave(of, running, failure_of(self.device.name, of.spec.name, e))
        return self.carry_on(of, of.run.places(), made)

    cdef int fail_all(self, object error) except -1:
        """Everything that it runs fails together: it goes elsewhere as far as that may be, and this device pauses."""
        cdef uint32_t n = self.n_running
        names = sorted({(<ModelRun>of).spec.name for of in self.runs.values() if (<ModelRun>of).running})
        payload = failure_of(self.device.name, ", ".join(names), error)
        self.forget_all()
        self.runs.clear()  # nothing of what is cached is believed
        for _ in range(n):
            Py_INCREF(payload)
        for _ in range(n - self.driver.fail(self.node, <void*>payload)):
            Py_DECREF(payload)
        self.paused_until_ns = monotonic_ns() + self.pause_ns
        self.pause_ns = min(2 * self.pause_ns, pause_ns_max)
        return 0
