"""A machine that decides what is loaded where, on nodes that load and run when a test says."""

from infcore import Fleet
from infcore._core.machine import Machine

SECOND = 1_000_000_000
MIB = 2**20
MILLISECOND_EACH = (0.001, 0.0, 0.0, 0.0)
ENDS = ("complete", "reject", "shed", "cancel")


class World:
    """loading  by node: the model that it was told to load, and not yet told of
    loads    (node, model), unloads alike: all that was ever decided
    ends     by request: how it ended and why
    """

    def __init__(self, *, policy="slo_cost", residency="lru", **options):
        self.fleet = Fleet(max_nodes=4)
        self.machine = Machine(self.fleet, policy=policy, batching="greedy", residency=residency, **options)
        self.now_ns = 0
        self.models, self.nodes, self.names, self.curves = {}, {}, {}, {}
        self.loading, self.loads, self.unloads, self.ends = {}, [], [], {}
        self.handles = {}

    def model(self, *names, mib=1, **config):
        for name in names:
            config = {"max_batch_size": 1, "batch_delay_ns_max": 0, "weights_bytes": mib * MIB, **config}
            self.models[name] = self.machine.add_model(name, **config)
            self.names[self.models[name]] = name
            for node, curve in self.curves.items():
                self.place(name, node, curve)

    def node(self, name, mib, *, holds=(), curve=MILLISECOND_EACH, labels=None, slots=1, **config):
        """It may hold all models; what it `holds` was asked for before, in this order."""
        self.nodes[name] = self.fleet.add(name, labels=labels or {}, slots=slots, memory_bytes=mib * MIB)
        self.machine.add_node(self.nodes[name], **config)
        self.curves[name] = curve
        for model in [*holds, *(each for each in self.models if each not in holds)]:
            self.place(model, name, curve, model in holds)

    def place(self, model, node, curve, is_there=False):
        for resident in (False, True)[: 1 + is_there]:
            self.machine.set_resident(self.now_ns, self.models[model], self.nodes[node], resident, prior=curve)
        self.allow(model, node)

    def allow(self, model, node, may=True):
        self.machine.may_hold(self.now_ns, self.models[model], self.nodes[node], may)

    def told(self, what, node):
        """node_lost, node_back, drain_node, remove_node"""
        getattr(self.machine, what)(self.now_ns, self.nodes[node])
        return self.step()

    def ask(self, model, *, deadline_s=None, **options):
        cookie = len(self.handles) + 1
        deadline_ns = None if deadline_s is None else self.now_ns + int(deadline_s * SECOND)
        self.handles[cookie] = None
        self.handles[cookie] = self.machine.arrive(
            self.now_ns, cookie, self.models[model], deadline_ns=deadline_ns, **options
        )
        self.step()
        return cookie

    def cancel(self, cookie):
        assert self.machine.cancel(self.now_ns, self.handles[cookie])
        self.step()

    def preload(self, model):
        self.machine.preload(self.now_ns, self.models[model])
        self.step()

    def step(self, seconds=0.0):
        self.now_ns += int(seconds * SECOND)
        self.machine.tick(self.now_ns)
        self.machine.schedule(self.now_ns)
        nodes = {id: name for name, id in self.nodes.items()}
        for kind, cookie, node, _, model, reason in self.machine.actions():
            if kind in ENDS:
                assert cookie not in self.ends
                self.ends[cookie] = (kind, reason)
            elif kind == "load":
                assert nodes[node] not in self.loading
                self.loading[nodes[node]] = self.names[model]
                self.loads.append((nodes[node], self.names[model]))
            elif kind == "unload":
                self.unloads.append((nodes[node], self.names[model]))

    def loaded(self, node, *, ok=True, load_s=0.01):
        model = self.models[self.loading.pop(node)]
        assert self.machine.loaded(self.now_ns, model, self.nodes[node], ok=ok, load_s=load_s)
        self.step()

    def begins(self, node):
        """The model of the batch that the node begins; None: it was given none."""
        claimed = self.machine.claim(self.now_ns, self.nodes[node])
        if claimed is None:
            return None
        self.machine.started(self.now_ns, self.nodes[node], claimed[0])
        self.running = claimed[0]
        self.step()
        return self.names[claimed[1]]

    def ends_run(self, node):
        self.machine.complete(self.now_ns, self.nodes[node], self.running)
        self.step()

    def runs(self, node):
        model = self.begins(node)
        if model is not None:
            self.ends_run(node)
        return model
