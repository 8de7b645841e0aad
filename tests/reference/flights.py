"""Which of the requests with equal keys run, and which wait for one that runs; and what becomes of those."""

from dataclasses import dataclass, field


@dataclass
class Request:
    id: int
    tier: int
    deadline_s: float
    flight: "Flight"
    role: str = "runs"  # or "waits", or None: it has ended
    end: tuple | None = None  # of one that waited: ("answered", id of the run), ("failed",), ("expired", when) ...


@dataclass
class Flight:
    key: object
    running: list[Request] = field(default_factory=list)
    waiting: list[Request] = field(default_factory=list)
    landed: tuple | None = None


class Flights:
    def __init__(self):
        self.current = {}  # key -> the flight that who comes boards
        self.known = {}  # key -> id of the run whose answer the cache has, or would have if anybody asked
        self.requests = {}

    def submit(self, id, key, tier, deadline_s):
        if key in self.known:
            flight = Flight(key, landed=("answered", self.known[key]))
        else:
            flight = self.current.setdefault(key, Flight(key))
        request = self.requests[id] = Request(id, tier, deadline_s, flight)
        if flight.landed:
            request.role, request.end = None, flight.landed
        else:
            self._board(request)
        return request

    def forget(self):
        """The cache is cleared."""
        self.current.clear()
        self.known.clear()

    def _board(self, request):
        flight = request.flight
        if any(run.tier <= request.tier and run.deadline_s <= request.deadline_s for run in flight.running):
            request.role = "waits"
            flight.waiting.append(request)
        else:
            request.role = "runs"
            flight.running.append(request)

    def expire(self, now_s):
        for request in list(self.requests.values()):
            if request.role == "waits" and request.deadline_s <= now_s:
                self.leave(request, ("expired", now_s))

    def leave(self, request, end):
        """It ends by itself while it waits."""
        request.flight.waiting.remove(request)
        request.role, request.end = None, end

    def ended(self, runs):
        """[(request, how)] of what ran and ended together: "ok", "failed" or anything else."""
        landing = []
        for run, how in runs:
            flight = run.flight
            flight.running.remove(run)
            run.role = None
            if flight.landed is None and how in ("ok", "failed"):
                flight.landed = ("answered", run.id) if how == "ok" else ("failed",)
                if self.current.get(flight.key) is flight:
                    del self.current[flight.key]
                    if how == "ok":
                        self.known[flight.key] = run.id
            if flight not in landing:
                landing.append(flight)
        for flight in landing:
            waiting, flight.waiting = flight.waiting, []
            for request in waiting:
                if flight.landed:
                    request.role, request.end = None, flight.landed
                else:
                    self._board(request)
