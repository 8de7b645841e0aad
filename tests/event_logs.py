"""What the tests of the event log share: a log taken apart into blocks and put together again, honestly checksummed."""

import struct
from pathlib import Path

import numpy as np

from infcore import Fleet
from infcore._core.machine import Machine

HEADER_BYTES = 16
M64 = 2**64 - 1


def checksum(index, body):
    """As block_checksum of event_format.hpp, from its description."""
    value = index
    words = [len(body)] + [int.from_bytes(body[at : at + 8], "little") for at in range(0, len(body) + 1, 8)]
    for word in words:
        value = (value ^ word) * 0x9E3779B97F4A7C15 & M64
        value ^= value >> 32
    return value


def blocks_of(path):
    """The bodies of a log's blocks, each checked."""
    data, at, bodies = Path(path).read_bytes(), HEADER_BYTES, []
    while at < len(data):
        n, said = struct.unpack_from("<IQ", data, at)
        body = data[at + 12 : at + 12 + n]
        assert len(body) == n and checksum(len(bodies), body) == said
        bodies.append(body)
        at += 12 + n
    return bodies


def write_blocks(path, bodies, like):
    """A log of these bodies, with the file header of another."""
    out = Path(like).read_bytes()[:HEADER_BYTES]
    for index, body in enumerate(bodies):
        out += struct.pack("<IQ", len(body), checksum(index, body)) + body
    Path(path).write_bytes(out)


def changed(path, old, new, into):
    """The same log with the first `old` bytes of its first block that holds them replaced; checksums fit again."""
    bodies = blocks_of(path)
    at = next(i for i, body in enumerate(bodies) if old in body)
    bodies[at] = bodies[at].replace(old, new, 1)
    write_blocks(into, bodies, like=path)


def record_every_kind(path, policy):
    """A log in one block: requests, labels, prompts, tokens, refusals, failures and each event of membership."""
    options = {"price_us_per_usd": 1e7} if policy == "slo_cost" else None
    fleet = Fleet(max_nodes=4)
    machine = Machine(
        fleet,
        policy=policy,
        policy_options=options,
        log=str(path),
        max_requests=8,
        n_tiers=2,
        hedge_quantile=0.5,
        log_terms=True,
        health=True,
    )
    models = [machine.add_model(name, max_batch_size=2) for name in ("a", "b")]
    for name, zone in (("x", "eu"), ("y", "us"), ("z", "us")):
        node = machine.fleet.add(name, zone=zone, slots=2, price_per_hour=1.0, labels={"disk": "ssd"}, pending_max=64)
        machine.add_node(node, run_limit_ns=10**9)
        for model in models:
            machine.set_resident(0, model, node, prior=(1e-3, 1e-4, 1e-5, 0.0))
    running = []
    for i in range(30):
        now_ns = i * 1_000_000
        require = {"zone": "eu"} if i % 5 == 0 else None
        handle = machine.arrive(now_ns, i, models[i % 2], work=i * 0.5, tier=i % 2, require=require, deadline_ns=10**9)
        for _ in range(10 if i == 20 else 0):  # more than it takes
            machine.arrive(
                now_ns, 100 + i, models[0], blocks=np.arange(1, 4, dtype=np.uint64), session=7, prompt_tokens=48
            )
        if i % 7 == 0 and handle:
            machine.cancel(now_ns, handle)
        for node in range(3):
            if (taken := machine.claim(now_ns, node)) is not None:
                machine.started(now_ns, node, taken[0])
                machine.first_token(now_ns, node, taken[0])
                machine.progress(now_ns, node)
                running.append((node, taken[0]))
        if i % 3 == 2:
            for node, batch in running:
                machine.complete(now_ns + 500_000, node, batch, i % 6 != 2)
            running.clear()
        machine.tick(now_ns)
        machine.schedule(now_ns)
        machine.actions()
    machine.fleet.signal(0, cpu=0.5, queue_wait_s=0.01)
    machine.node_failed(10**9, 2)
    machine.node_back(10**9, 2)
    machine.node_lost(10**9, 1)
    machine.checked(10**9, 0, ok=True)
    machine.drain_node(10**9, 0)
    machine.remove_node(10**9, 1)
    machine.cancel_all(10**9)
    machine.end_log()
