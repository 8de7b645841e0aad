"""A request router for Ray Serve: every handle and proxy of a deployment chooses replicas as infcore.Router does.

    from ray.serve.config import RequestRouterConfig

    @serve.deployment(
        request_router_config=RequestRouterConfig(
            request_router_class="infcore.integrations.ray:InfcoreRequestRouter",
            request_router_kwargs={"slots": 1},
        )
    )
    class Model: ...

Ray makes one router per handle and proxy, and each sees its own requests alone. What replicas report (their count of
ongoing requests, with each request they accept or reject and when they are asked) corrects it: see partial_view. Ray's
own part stays: it asks a replica before it sends where it knows of none or no free place there, sends, and tries again.
"""

import asyncio
import logging
import os
import time
import weakref
from collections.abc import Mapping
from concurrent.futures import CancelledError, Future
from contextvars import ContextVar
from functools import partial
from typing import Any

from infcore.errors import NoNodeAvailable
from infcore.integrations.partial_view import PartialView, Pick, Replica

try:
    from ray.exceptions import RayTaskError
    from ray.serve.request_router import LocalityMixin, PendingRequest, ReplicaID, RequestRouter, RunningReplica
except ImportError as e:
    raise ImportError(f"infcore.integrations.ray needs Ray Serve: pip install 'infcore[ray]' ({e})") from e

__all__ = ["InfcoreRequestRouter"]

logger = logging.getLogger("ray.serve")
# Of routing_stats: what does not change from one millisecond to the next, for they are seconds old.
FIGURES = ("cpu", "gpu", "memory", "network", "packet_loss")
FACTS = ("kind", "zone", "slots", "price_per_hour")
REPLICAS_ASKED = 2  # where none is known to have a free place


class InfcoreRequestRouter(LocalityMixin, RequestRouter):  # type: ignore[misc]  # Any, where Ray is not looked into
    """Least cost, by default: waiting, service, model load, network, price and risk, as infcore.Router's slo_cost.

    request_router_kwargs, all optional:

    slots        requests that a replica runs at once without slowing down (1: as if one after the other)
    models_max   the deployment's max_num_models_per_replica, where it is multiplexed (3, as Ray's; 0: any number)
    load_s       what loading a multiplexed model is taken to cost (1.0)
    node_s, zone_s   what another host (0.0005) or zone (0.001) costs, where Ray was told to prefer its own
    watch_errors  True: replicas whose answers to calls are exceptions are ejected for a while, as `health` says; each
                 answer is unpickled once more for that. Ray tells nothing of exceptions in streams, as HTTP's are
    seed         None: drawn, as routers should differ
    and those of PartialView: policy, ask_s, believe_s, replicas_max, health, prefix, the policy's options

    A deployment tells of its replicas: record_replica_metadata() may return {"infcore": {...}} with kind, zone, slots
    and price_per_hour, record_routing_stats() fractions named cpu, gpu, memory, network, packet_loss.
    What is told of a request: pick_arguments.

    Knows     multiplexed model ids (510 of them; what comes later is routed as if it were the deployment's own model)
    Raises    nothing into Ray's loops: what is wrong with a request becomes that request's error
    """

    def initialize_state(
        self,
        *,
        slots: int = 1,
        models_max: int = 3,
        node_s: float = 0.0005,
        zone_s: float = 0.001,
        watch_errors: bool = False,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        """Called by Ray, once, with request_router_kwargs. Raises what PartialView does."""
        self._slots, self._node_s, self._zone_s, self._watch_errors = slots, node_s, zone_s, watch_errors
        seed = int.from_bytes(os.urandom(7)) if seed is None else seed
        self._view = PartialView(self._deployment_id.name, seed=seed, models_max=models_max, **options)
        self._by_name: dict[str, RunningReplica] = {}
        self._reported: tuple[str, int] | None = None
        self._asking: set[asyncio.Task[Any]] = set()
        # Whose replica a task looks for. Weak: a context may outlive its request, with which its credit goes. Not the
        # module's own, since Ray pickles the module of this class by value.
        self._chosen_for: ContextVar[weakref.ref[PendingRequest] | None] = ContextVar("chosen_for", default=None)

    def pick_arguments(self, request: "PendingRequest") -> dict[str, Any]:
        """What Router.pick is told of a request: work, tier, deadline_s, session, blocks, require. Override it.

        Here: the mapping that the caller gave as keyword argument `infcore` (which the deployment's method gets, too),
        and the session that Ray knows. deadline_s counts from the call.
        """
        told = request.kwargs.get("infcore")
        arguments = dict(told) if isinstance(told, Mapping) else {}
        session = getattr(request.metadata, "session_id", "")
        if session:
            arguments.setdefault("session", session)
        return arguments

    def describe(self, replica: "RunningReplica") -> Replica:
        """What the fleet is told of a replica. Override it where more is known."""
        facts = (getattr(replica, "replica_metadata", None) or {}).get("infcore", {})
        far_s = self._node_s if self._prefer_local_node_routing and replica.node_id != self._self_node_id else 0.0
        if self._prefer_local_az_routing and replica.availability_zone != self._self_availability_zone:
            far_s += self._zone_s
        told: dict[str, Any] = {"slots": self._slots, "zone": replica.availability_zone or ""}
        return Replica(
            name=replica.replica_id.unique_id,
            pending_max=replica.max_ongoing_requests,
            rtt_s=far_s,
            labels={"host": replica.node_id or ""},
            models=frozenset(self._model(model) for model in replica.multiplexed_model_ids),
            **(told | {fact: facts[fact] for fact in FACTS if fact in facts}),
        )

    def _model(self, multiplexed: str) -> str:
        return f"{self._view.model}/{multiplexed}" if multiplexed else self._view.model

    # Replicas come, go, and tell.

    def update_replicas(self, replicas: list["RunningReplica"]) -> None:
        """Called by Ray with all that run, whenever one of them, or what it told, has changed."""
        self._by_name = {replica.replica_id.unique_id: replica for replica in replicas}
        try:
            self._view.update([self.describe(replica) for replica in replicas])
            for replica in replicas:
                stats = replica.routing_stats or {}
                self._view.signal(replica.replica_id.unique_id, **{f: stats[f] for f in FIGURES if f in stats})
        except Exception:  # raised here, it would end Ray's updates
            logger.exception("infcore: what replicas say of themselves is not taken")
            self._view.update([Replica(name, replica.max_ongoing_requests) for name, replica in self._by_name.items()])
        super().update_replicas(replicas)

    def on_replica_actor_died(self, replica_id: "ReplicaID") -> None:
        """Called by Ray; the controller lists the replica no more, some time later."""
        super().on_replica_actor_died(replica_id)
        self._by_name.pop(replica_id.unique_id, None)
        self._view.remove(replica_id.unique_id)

    def on_replica_actor_unavailable(self, replica_id: "ReplicaID") -> None:
        """Called by Ray; it is asked from time to time, until it answers."""
        super().on_replica_actor_unavailable(replica_id)
        self._view.lost(replica_id.unique_id)

    def on_new_queue_len_info(self, replica_id: "ReplicaID", num_ongoing_requests: int) -> None:
        """Called by Ray with a replica's answer to a request; if it accepted, on_request_routed follows at once."""
        super().on_new_queue_len_info(replica_id, num_ongoing_requests)
        self._take_report()
        self._reported = replica_id.unique_id, num_ongoing_requests

    def _take_report(self) -> None:
        """What was reported without on_request_routed: as of now."""
        if self._reported is not None:
            self._view.heard(*self._reported)
            self._reported = None

    async def _probe_queue_lens(self, replicas: list["RunningReplica"], backoff_index: int) -> Any:
        """Ray's, which also tells the view. If it were not called, only answers to requests would correct the view."""
        asked_s = self._view.now_s()
        answers = await super()._probe_queue_lens(replicas, backoff_index)
        for replica, ongoing in answers:
            if ongoing is None:
                self._view.lost(replica.replica_id.unique_id)
            else:
                self._view.heard(replica.replica_id.unique_id, ongoing, as_of_s=asked_s)
        return answers

    # A request: chosen for, sent, ended.

    async def choose_replicas(
        self, candidate_replicas: list["RunningReplica"], pending_request: "PendingRequest | None" = None
    ) -> list[list["RunningReplica"]]:
        """The one replica to try; none where all are full or silent, then Ray asks again after a pause."""
        self._take_report()
        self._ask_who_was_silent()
        if pending_request is None:
            return [candidate_replicas]
        pending_request.routing_context.should_backoff = True  # from the second time on; without it Ray would spin
        vars(pending_request).pop("infcore_pick", None)  # it was chosen before, and refused or full
        try:
            pick = self._pick(pending_request)
            if pick is None:
                full = [self._by_name[name] for name in self._view.to_ask(REPLICAS_ASKED, silent_s=0.0)]
                await self._probe_queue_lens(full, 0)
                pick = self._pick(pending_request)
        except Exception as e:  # it is the request's; raised here, it would end Ray's task and leave the request behind
            if not pending_request.future.done():
                pending_request.future.set_exception(e)
            return [candidate_replicas[:1]]  # lets Ray see that the request has ended
        if pick is None:
            return []
        pending_request.infcore_pick = pick
        self._chosen_for.set(weakref.ref(pending_request))
        return [[self._by_name[pick.name]]]

    def _pick(self, request: "PendingRequest") -> Pick | None:
        arguments = self.pick_arguments(request)
        if arguments.get("deadline_s") is not None:
            arguments["deadline_s"] = max(0.0, arguments["deadline_s"] - (time.time() - request.created_at))
        try:
            return self._view.pick(self._model(request.metadata.multiplexed_model_id), **arguments)
        except NoNodeAvailable:
            return None

    def _ask_who_was_silent(self) -> None:
        """At most one a request: there is nothing to know where nothing is sent."""
        for name in self._view.to_ask(1):
            task = self._event_loop.create_task(self._probe_queue_lens([self._by_name[name]], 0))
            self._asking.add(task)  # the loop itself holds tasks weakly
            task.add_done_callback(self._asking.discard)

    def _get_pending_request_matching_internal_request_id(self, request_metadata: Any = None) -> Any:
        """The very request that this task chose for. By its id, as Ray looks for it, it may be a sibling: calls that
        a replica makes for one request share that one's."""
        chosen_for = self._chosen_for.get()
        request = None if chosen_for is None else chosen_for()
        return None if request is None or request.future.done() else request

    async def _choose_replica_for_request(self, pending_request: "PendingRequest", *, is_retry: bool = False) -> Any:
        """Ray's, in the task that sends the request: with that task a credit ends that no replica took over. It would
        end with the request, but a cancelled task's traceback keeps that for as long as somebody has the response."""
        task = asyncio.current_task()
        if task is not None and not is_retry:
            task.add_done_callback(lambda _: vars(pending_request).pop("infcore_pick", None))
        return await super()._choose_replica_for_request(pending_request, is_retry=is_retry)

    def on_request_routed(self, pending_request: "PendingRequest", replica_id: "ReplicaID", result: Any) -> None:
        """Called by Ray once the replica has accepted."""
        pick: Pick | None = vars(pending_request).pop("infcore_pick", None)
        if pick is None or pick.name != replica_id.unique_id:
            return
        reported, self._reported = self._reported, None
        pick.accepted(None if reported is None or reported[0] != pick.name else reported[1])
        if self._watch_errors and not pending_request.metadata.is_streaming:
            result.to_object_ref().future().add_done_callback(partial(self._answered, pick))
        else:
            result.add_done_callback(partial(self._ended, pick))

    # The two below run on a thread of Ray's: any thread may call a router.

    def _ended(self, pick: Pick, outcome: Any) -> None:
        """An exception here is Ray's own: the request was taken back, or its replica is gone."""
        cancelled = getattr(outcome, "cancelled", None)  # a gRPC call, where Ray uses them
        taken_back = isinstance(outcome, BaseException) or (callable(cancelled) and cancelled())
        pick.ended(None if taken_back else True)

    def _answered(self, pick: Pick, answer: "Future[Any]") -> None:
        error = CancelledError() if answer.cancelled() else answer.exception()
        failed = isinstance(error, RayTaskError) and not isinstance(error.cause, CancelledError)
        pick.ended(True if error is None else False if failed else None)
