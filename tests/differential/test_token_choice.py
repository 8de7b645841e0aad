"""Each request of a token model goes where the plain Python model sends it, whatever happens to the nodes.

Seeded random histories of a machine under slo_cost: prompts that share prefixes, two models, unlike nodes with small
caches, first tokens, ends, cancels, losses and returns. Each dispatch is compared; afterwards the log is told again.
"""

import random
from itertools import pairwise

import numpy as np
import pytest
from reference.token_choice import Prompt, TokenChoice

from infcore import Fleet
from infcore._core.machine import Machine
from infcore.sim import events, replay

MS = 1_000_000
BLOCK_SIZE = 4


class Pair:
    def __init__(self, seed, log=None):
        self.draw = random.Random(seed)
        self.fleet = Fleet(max_nodes=4)
        self.machine = Machine(self.fleet, policy="slo_cost", log=log, attempts_max=2)
        self.choice = TokenChoice()
        self.models = [self.machine.add_model(f"t{i}", max_batch_size=1, runs_share=True) for i in range(2)]
        self.slots, self.kinds = {}, {}
        for at in range(4):
            slots, kind = self.draw.choice([2, 5]), at % 2
            node = self.fleet.add(f"node{at}", kind=f"kind{kind}", slots=slots)
            n_blocks = self.draw.choice([0, 8, 30])
            self.machine.add_node(node, kv_blocks=n_blocks)
            self.choice.add_node(node, kind, n_blocks)
            for model in self.models:
                self.machine.set_resident(0, model, node)
            self.slots[node] = slots
        self.up = dict.fromkeys(self.slots, True)
        self.prompts, self.handles = {}, {}
        self.running = {}  # (node, batch) -> (cookie, share)
        self.ended = []
        self.now_ns = 0
        self.seen = set()

    def arrive(self):
        cookie, name, blocks = len(self.prompts), 0, []
        for _ in range(self.draw.randrange(8)):
            name = name * 3 + 1 + self.draw.randrange(3)
            blocks.append(name)
        model = self.draw.choice(self.models)
        n_tokens = len(blocks) * BLOCK_SIZE + self.draw.randrange(BLOCK_SIZE)
        n_tokens = max(n_tokens, 1)
        self.prompts[cookie] = Prompt(model, tuple(blocks), BLOCK_SIZE, n_tokens)
        self.handles[cookie] = self.machine.arrive(
            self.now_ns,
            cookie,
            model,
            work=n_tokens + 5.0,
            blocks=np.array(blocks, np.uint64),
            block_size=BLOCK_SIZE,
            prompt_tokens=n_tokens,
        )
        assert self.handles[cookie] != 0

    def settle(self):
        """What the machine decided, one by one; what was handed to a node is started there."""
        self.machine.tick(self.now_ns)
        self.machine.schedule(self.now_ns)
        for kind, cookie, node, batch, _, _ in self.machine.actions():
            if kind in ("complete", "cancel"):
                self.ended.append(cookie)
            if kind != "dispatch":
                continue
            beside = {id: sum(key[0] == id for key in self.running) for id in self.slots}
            free = [(id, n) for id, n in beside.items() if self.up[id] and n < self.slots[id]]
            prompt = self.prompts[cookie]
            assert node == self.choice.choose(prompt, free), (cookie, self.now_ns)
            self.running[node, batch] = cookie, self.choice.send(self.now_ns, prompt, node, beside[node])
            self.seen.add("found" if self.running[node, batch][1].n_tokens < prompt.n_tokens else "new")
        for node in self.slots:
            while (claimed := self.machine.claim(self.now_ns, node)) is not None:
                self.machine.started(self.now_ns, node, claimed[0])

    def first_token(self):
        node, batch = self.draw.choice(sorted(self.running))
        self.machine.first_token(self.now_ns, node, batch)
        self.choice.first_token(self.now_ns, self.running[node, batch][1])

    def complete(self):
        node, batch = self.draw.choice(sorted(self.running))
        assert self.machine.complete(self.now_ns, node, batch)
        self.choice.leave(self.running.pop((node, batch))[1])

    def cancel(self):
        """It runs on to its end, and nobody waits for its first token."""
        cookie, share = self.running[self.draw.choice(sorted(self.running))]
        if self.machine.cancel(self.now_ns, self.handles[cookie]):
            self.choice.leave(share)

    def lose(self):
        node = self.draw.choice([id for id, up in self.up.items() if up])
        (self.machine.node_lost if self.draw.random() < 0.5 else self.machine.node_failed)(self.now_ns, node)
        self.up[node] = False
        self.choice.forget(node)
        for key in [key for key in self.running if key[0] == node]:
            self.choice.leave(self.running.pop(key)[1])

    def return_all(self):
        for node in [id for id, up in self.up.items() if not up]:
            self.machine.node_back(self.now_ns, node)
            self.up[node] = True

    def step(self):
        self.now_ns += self.draw.randint(0, 8 * MS)
        choices = [self.arrive, self.arrive, self.arrive, self.return_all]
        if self.running:
            choices += [self.first_token, self.first_token, self.first_token, self.complete, self.complete, self.cancel]
        if sum(self.up.values()) > 1 and self.draw.random() < 0.1:
            choices = [self.lose]
        what = self.draw.choice(choices)
        self.seen.add(what.__name__)
        what()
        self.settle()


@pytest.mark.parametrize("seed", range(6))
def test_each_request_goes_where_the_model_sends_it(seed, tmp_path):
    log = str(tmp_path / "engine.log")
    pair = Pair(seed, log)
    for _ in range(500):
        pair.step()
    pair.return_all()
    pair.settle()
    while pair.running:
        pair.now_ns += MS
        pair.complete()
        pair.settle()
    assert pair.seen >= {"arrive", "first_token", "complete", "cancel", "lose", "return_all", "found", "new"}
    assert sorted(pair.ended) == sorted(pair.prompts)  # each once
    assert pair.machine.n_pending == 0
    assert [pair.machine.credit(node) for node in pair.slots] == [(0, 0)] * 4
    pair.machine.end_log()
    assert replay(log).equal
    records = list(events(log))
    told = [b for a, b in pairwise(records) if a.kind == "prompt"]
    assert {event.kind for event in told} == {"arrive"}
    assert len(told) == len(pair.prompts)
