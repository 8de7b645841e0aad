"""A live engine's log, told again: the same decisions, and errors that say what is wrong with a log and where."""

import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from engine_rig import PATHS, WAIT_S, Gated, answer, double, engine_of, model, wait_until, x_of
from event_logs import HEADER_BYTES, blocks_of, changed, record_every_kind, write_blocks

import infcore
from infcore import CallableDevice, EmulatedDevice, Fleet, InvalidArgument, InvalidType, Router, sim
from infcore._core.machine import Machine


def sometimes_fails(name, inputs):
    if any(int(row.flat[0]) % 11 == 3 for row in inputs["x"]):
        raise ValueError("three")
    return {"y": inputs["x"] * 2}


def record(path, policy, *, n=60, seed=5):
    """A day with everything in it: threads, failures, cancels, deadlines, a hang, devices and models come and go."""
    hung, rng = Gated(), random.Random(seed)
    models = [model("a", max_batch_size=4), model("b", work="x"), model("once", idempotent=False)]
    devices = [
        CallableDevice("fails", sometimes_fails, zone="eu", labels={"disk": "ssd"}),
        EmulatedDevice("fast", base_s=1e-4, per_request_s=1e-5, cv=0.2, price_per_hour=2.0, zone="us"),
        EmulatedDevice("slow", base_s=5e-4, per_request_s=1e-4, slots=2, rtt_s=1e-4, zone="eu"),
        CallableDevice("hangs", hung, run_limit_s=0.02),
    ]
    health = {
        "eject_s": 0.01,
        "eject_s_max": 0.02,
    }  # or who needs the disk waits for 5, 10, 20 s for the one that fails
    with engine_of(
        *devices, models=models, policy=policy, seed=seed, max_requests=256, log=path, health=health
    ) as engine:

        def submit(draws):
            for i in range(n):
                name = draws.choice(["a", "b", "once"])
                try:
                    future = engine.submit(
                        name,
                        x_of(i),
                        work=draws.choice([None, 0.5, 3]) if name == "a" else None,
                        tier=draws.randrange(3),
                        deadline_s=draws.choice([None, 1e-4, 1.0]),
                        require=draws.choice([None, None, {"zone": "eu"}, {"disk": "ssd"}]),
                    )
                except infcore.InfcoreError:
                    continue
                if i % 9 == 0:
                    future.cancel()

        threads = [threading.Thread(target=submit, args=(random.Random(rng.random()),)) for _ in range(3)]
        for thread in threads:
            thread.start()
        engine.add_device(EmulatedDevice("late", base_s=2e-4, per_work_s=1e-6))
        engine.load_model(model("c"))
        engine.fleet.signal("late", queue_wait_s=0.001, cpu=0.9)
        engine.load_model(model("a", version=2, max_batch_size=8))
        engine.remove_device("slow")
        engine.unload_model("b")
        rows = np.array([(0, 0.5), (1, 0.25)], [("node", "u4"), ("gpu", "f8")])
        engine.fleet.signal_many(rows)
        for thread in threads:
            thread.join()
        engine.add_device(EmulatedDevice("slow", base_s=1e-4))  # its name again
        for i in range(5):
            engine.submit("c", x_of(i))
        hung.open()
    return engine


@pytest.mark.parametrize("policy", PATHS)
def test_a_live_engines_log_replays_to_the_same_decisions(tmp_path, policy):
    path = tmp_path / "day.log"
    record(path, policy)
    found = sim.replay(path)
    assert found.equal and found.complete and found.first_difference is None, found
    assert found.digest == found.recorded_digest
    assert found.n_requests > 100 and sim.replay(path) == found
    ended = [e.fields["request"] for e in sim.events(path) if e.is_action and e.kind not in ("dispatch", "retry")]
    assert sorted(ended) == list(range(1, found.n_requests + 1))
    kinds = {event.kind for event in sim.events(path)}
    assert kinds >= {
        "run", "model", "label", "add_model", "remove_model", "add_node", "residency", "drain_node", "remove_node",
        "signal", "prior", "arrive", "claim", "started", "complete", "tick", "schedule", "dispatch", "end",
    }  # fmt: skip


def test_a_device_lost_by_its_run_limit_and_back_replays(tmp_path):
    path, hung = tmp_path / "lost.log", Gated()
    clock = infcore.ManualClock()
    with engine_of(CallableDevice("hangs", hung, run_limit_s=5.0), clock=clock, log=path) as engine:
        futures = [engine.submit("m", x_of(i)) for i in range(5)]
        hung.wait_entered()
        engine.add_device(CallableDevice("other", double))
        clock.advance(6.0)
        assert [answer(future) for future in futures] == [0, 2, 4, 6, 8]
        hung.open()
        wait_until(lambda: (engine.fleet.nodes()["state"] == "up").all(), "the device to be back")
    found = sim.replay(path)
    assert found.equal, found
    kinds = [(event.kind, event.fields.get("reason")) for event in sim.events(path)]
    assert ("retry", "device_lost") in kinds and ("node_back", None) in kinds


def test_another_seed_decides_otherwise(tmp_path):
    """And so the digests can differ."""
    for policy in ("power_of_two", "peak_ewma", "prequal"):
        path, other = tmp_path / f"{policy}.log", tmp_path / "other.log"
        with engine_of(*[EmulatedDevice(f"e{i}", base_s=1e-4) for i in range(4)], policy=policy, seed=5, log=path) as e:
            for future in [e.submit("m", x_of(i)) for i in range(200)]:
                future.result(timeout_s=WAIT_S)
        changed(path, b"dynamic" + (5).to_bytes(8, "little"), b"dynamic" + (6).to_bytes(8, "little"), other)
        assert sim.replay(path).equal
        found = sim.replay(other)
        assert not found.equal
        assert found.recorded_digest == sim.replay(path).digest


def test_another_policy_decides_otherwise(tmp_path):
    path, other = tmp_path / "day.log", tmp_path / "other.log"
    record(path, "round_robin")
    changed(path, b"\x0bround_robin", b"\x11least_outstanding", other)
    found = sim.replay(other)
    assert not found.equal and found.digest != found.recorded_digest
    assert found.recorded_digest == sim.replay(path).digest
    first = found.first_difference
    assert first is not None and first["recorded"] != first["replayed"] and first["record"] > 0


def test_a_policy_that_is_not_there_is_named(tmp_path):
    path, other = tmp_path / "day.log", tmp_path / "other.log"
    record(path, "round_robin", n=3)
    changed(path, b"\x0bround_robin", b"\x0bround_rabin", other)
    with pytest.raises(InvalidArgument, match=r"other\.log, byte 28, record 0: .*round_rabin.*known: .*round_robin"):
        sim.replay(other)


def test_recorded_arrivals_are_what_came_in_and_ran(tmp_path):
    path = tmp_path / "day.log"
    options = {"zone": "eu", "price_per_hour": 3.0, "labels": {"disk": "ssd"}, "slots": 2, "rtt_s": 2e-3}
    device = EmulatedDevice("e", base_s=1e-3, per_work_s=1e-5, **options)
    with engine_of(device, models=[model("a", max_batch_size=3), model("b")], log=path) as engine:
        begin_s = time.monotonic()
        futures = [
            engine.submit(
                "ab"[i % 2], x_of(i), work=float(i), tier=i % 3, deadline_s=1.0 if i % 4 else None, require=want
            )
            for i, want in enumerate([None, {"disk": "ssd"}] * 20)
        ]
        for future in futures:
            future.result(timeout_s=WAIT_S)
        took_s = time.monotonic() - begin_s
    day = sim.recorded_arrivals(path)
    assert [m["name"] for m in day.models] == ["a", "b"] and day.models[0]["max_batch_size"] == 3
    assert [n["name"] for n in day.nodes] == ["e"]
    assert {key: day.nodes[0][key] for key in options} == options
    arrivals = day.arrivals
    assert arrivals["at_ns"][0] == 0 and (np.diff(arrivals["at_ns"]) >= 0).all()
    assert arrivals["at_ns"][-1] <= took_s * 1e9
    assert arrivals["work"].tolist() == [float(i) for i in range(40)]
    assert arrivals["model"].tolist() == [i % 2 for i in range(40)]
    assert arrivals["tier"].tolist() == [i % 3 for i in range(40)]
    assert (arrivals["deadline_ns"] == -1).tolist() == [i % 4 == 0 for i in range(40)]
    assert np.allclose(arrivals["deadline_ns"][1], 10**9)
    assert day.labels == [("disk", "ssd")] and arrivals["require"].tolist() == [0, 1] * 20
    batches = day.batches
    assert batches["n"].sum() == 40 and batches["work_sum"].sum() == sum(range(40)) and batches["ok"].all()
    assert (batches["end_ns"] - batches["start_ns"] >= 1_000_000).all()
    assert (batches["n"][batches["model"] == 0] <= 3).all()
    assert set(day.curves) == {(0, 0), (1, 0)}
    assert sum(curve[5] for curve in day.curves.values()) == len(batches)
    assert all(curve[0] > 0 and curve[4] > 0 for curve in day.curves.values())
    assert day.config["policy"] == "slo_cost" and day.config["batching"] == "dynamic"


def test_curves_of_a_removed_device_are_kept(tmp_path):
    path = tmp_path / "day.log"
    with engine_of(EmulatedDevice("first", base_s=1e-3), log=path) as engine:
        engine.submit("m", x_of(1)).result(timeout_s=WAIT_S)
        engine.add_device(EmulatedDevice("spare", base_s=3e-3, kind="other"))
        engine.remove_device("first")
        engine.add_device(EmulatedDevice("second", base_s=2e-3, kind="third"))  # takes the first one's id
        engine.submit("m", x_of(1)).result(timeout_s=WAIT_S)
    day = sim.recorded_arrivals(path)
    assert [n["name"] for n in day.nodes] == ["first", "spare", "second"]
    assert day.nodes[0]["id"] == day.nodes[2]["id"] and day.nodes[0]["removed_ns"] is not None
    assert set(day.curves) == {(0, 0), (0, 1), (0, 2)} and day.curves[0, 0][5] == 1


def test_a_log_of_nothing_is_a_log(tmp_path):
    path = tmp_path / "empty.log"
    infcore.Engine(log=path).close()
    found = sim.replay(path)
    assert found.equal and found.n_requests == 0 and found.n_actions == 0
    day = sim.recorded_arrivals(path)
    assert len(day.arrivals) == len(day.batches) == 0 and day.curves == {}


# ---- logs that are wrong


def test_a_log_that_was_not_closed_is_refused_or_read_as_far_as_it_goes(tmp_path):
    path = tmp_path / "crashed.log"
    code = (
        "import os, sys, time, infcore\n"
        "m = infcore.Model('m', inputs={'x': ('float32', (2,))}, outputs={'y': ('float32', (2,))})\n"
        "import numpy as np\n"
        "e = infcore.Engine([infcore.EmulatedDevice('e', base_s=1e-4)], [m], log=sys.argv[1], log_buffer_bytes=4096)\n"
        "e.start()\n"
        "for i in range(500): e.submit('m', {'x': np.zeros(2, np.float32)}).result()\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, timeout=WAIT_S)
    with pytest.raises(InvalidArgument, match=r"crashed\.log, byte \d+, record \d+: end is missing"):
        sim.replay(path)
    found = sim.replay(path, partial=True)
    assert found.digest == found.recorded_digest and not found.complete and found.n_requests > 100


def test_files_that_are_no_log_are_named(tmp_path):
    wrong = tmp_path / "wrong.log"
    for content in (b"", b"\x00", b"infclog\n", b"a line of text\n" * 100):
        wrong.write_bytes(content)
        with pytest.raises(InvalidArgument, match=r"wrong\.log, byte 0, record 0: magic is another"):
            sim.replay(wrong)
        with pytest.raises(InvalidArgument, match="magic"):
            list(sim.events(wrong))
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InvalidArgument, match=r"path is .*allowed: an event log that can be read"):
            sim.replay(path)
    with pytest.raises(InvalidType, match="path is int"):
        sim.replay(3)
    with pytest.raises(InvalidType, match="partial is str"):
        sim.replay(wrong, partial="yes")


def test_versions_of_another_format_or_action_list_are_named(tmp_path):
    path = tmp_path / "day.log"
    infcore.Engine(log=path).close()
    data = path.read_bytes()
    for at, name in ((8, "format version"), (12, "action_list_version")):
        path.write_bytes(data[:at] + b"\xff" + data[at + 1 :])
        said = rf"day\.log, byte {at}, record 0: {name} is 255; allowed: {data[at]}"
        with pytest.raises(InvalidArgument, match=said):
            sim.replay(path)


def test_blocks_that_were_swapped_or_left_out_are_found(tmp_path):
    path, other = tmp_path / "day.log", tmp_path / "other.log"
    with engine_of(EmulatedDevice("e", base_s=1e-5), log=path, log_buffer_bytes=4096) as engine:
        for future in [engine.submit("m", x_of(i)) for i in range(400)]:
            future.result(timeout_s=WAIT_S)
    bodies = blocks_of(path)
    assert len(bodies) > 3
    data, at, blocks = path.read_bytes(), HEADER_BYTES, []
    for body in bodies:
        blocks.append(data[at : at + 12 + len(body)])
        at += 12 + len(body)
    swapped = [blocks[0], blocks[2], blocks[1], *blocks[3:]]
    for wrong in (swapped, blocks[1:], blocks[:2] + blocks[3:]):
        other.write_bytes(data[:HEADER_BYTES] + b"".join(wrong))
        with pytest.raises(InvalidArgument, match=r"other\.log, byte \d+, record \d+: checksum is another"):
            sim.replay(other)
    other.write_bytes(data + blocks[0])
    with pytest.raises(InvalidArgument, match="end is followed by more"):
        sim.replay(other)
    write_blocks(other, bodies[:-2] + bodies[-1:], like=path)
    with pytest.raises(InvalidArgument, match=r"other\.log, byte \d+, record \d+: "):
        sim.replay(other)


# ---- the engine's side


def test_arguments_of_the_log_are_checked(tmp_path):
    with pytest.raises(InvalidArgument, match=r"log is '.*nowhere.*'; allowed: a file that can be written"):
        infcore.Engine(log=tmp_path / "nowhere" / "a.log")
    with pytest.raises(InvalidType, match="log is int; allowed: a path"):
        infcore.Engine(log=3)
    with pytest.raises(InvalidArgument, match="log is ''"):
        infcore.Engine(log="")
    with pytest.raises(InvalidArgument, match="log_buffer_bytes is 10; allowed"):
        infcore.Engine(log=tmp_path / "a.log", log_buffer_bytes=10)


def test_a_router_on_the_fleet_of_a_logged_engine_is_refused(tmp_path):
    engine = infcore.Engine(log=tmp_path / "a.log")
    with pytest.raises(InvalidArgument, match="fleet is that of an Engine with a log"):
        Router(engine.fleet)
    Router(infcore.Engine().fleet)


def test_a_full_disk_ends_the_log_and_not_the_engine():
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    engine = engine_of(EmulatedDevice("e", base_s=1e-5), log="/dev/full", log_buffer_bytes=4096).start()
    for future in [engine.submit("m", x_of(i)) for i in range(2000)]:
        future.result(timeout_s=WAIT_S)
    with pytest.warns(RuntimeWarning, match="the log ends early: No space left on device"):
        engine.close()


def test_a_disk_slower_than_the_engine_slows_it_down_and_loses_nothing(tmp_path):
    """A pipe that nobody reads is a disk that stands still."""
    fifo, path = tmp_path / "fifo", tmp_path / "copied.log"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    engine = engine_of(EmulatedDevice("e", base_s=1e-5), log=fifo, log_buffer_bytes=4096, max_requests=50_000).start()
    futures = [engine.submit("m", x_of(i)) for i in range(30_000)]
    assert not futures[-1].done()  # some 300 KiB of log, and room for 68 KiB
    data = bytearray()

    def read_all():
        os.set_blocking(reader, True)
        while part := os.read(reader, 1 << 16):
            data.extend(part)

    thread = threading.Thread(target=read_all)
    thread.start()
    for future in futures:
        future.result(timeout_s=WAIT_S)
    engine.close()
    thread.join()
    os.close(reader)
    path.write_bytes(data)
    found = sim.replay(path)
    assert found.equal and found.n_requests == 30_000


@pytest.mark.parametrize("name", ["slo_cost", "round_robin"])
def test_fuzzers_corpus_is_of_this_format(name, tmp_path, request):
    """Else every seed ends at its header or first record, and the fuzzer begins with nothing. --update-golden."""
    corpus = Path(__file__).parents[1] / "fuzz" / "corpus" / "event_log"
    log = tmp_path / "seed.log"
    if request.config.getoption("--update-golden"):
        record_every_kind(log, name)
        (corpus / f"{name}_file").write_bytes(b"\0" + log.read_bytes())
        (corpus / f"{name}_body").write_bytes(b"\1" + blocks_of(log)[0])
    log.write_bytes((corpus / f"{name}_file").read_bytes()[1:])
    kinds = {event.kind for event in sim.events(log)}
    assert kinds >= {"run", "add_node", "arrive", "reject", "node_failed", "first_token", "progress", "end"}
    assert sim.replay(log).equal
    assert blocks_of(log) == [(corpus / f"{name}_body").read_bytes()[1:]]


@pytest.mark.parametrize("policy", ["power_of_two", "locality", "slo_cost"])
def test_bounds_and_models_that_may_be_loaded_replay(tmp_path, policy):
    """A node's bound is in the log; what could be loaded decides nothing there, for a machine loads nothing."""
    path = str(tmp_path / "log")
    fleet = Fleet(max_nodes=8)
    options = {"zone": "near"} if policy == "locality" else {}
    machine = Machine(fleet, policy=policy, seed=3, log=path, policy_options=options, health=True)
    model = machine.add_model("m", max_batch_size=2)
    for at in range(4):
        node = fleet.add(f"n{at}", zone="near" if at % 2 else "far", slots=4, pending_max=2 + at)
        machine.add_node(node)
        if at != 3:
            machine.set_resident(0, model, node, prior=(1e-3, 1e-4, 0, 0))
    fleet.add_model("m", load_s=1e-4)
    sent = []
    for cookie in range(60):
        now_ns = 200_000 * cookie
        machine.arrive(now_ns, cookie, model)
        machine.tick(now_ns)
        machine.schedule(now_ns)
        for node in range(3):
            if cookie % 3 == node and (claimed := machine.claim(now_ns, node)) is not None:
                machine.started(now_ns, node, claimed[0])
                machine.complete(now_ns + 100_000, node, claimed[0])
        machine.schedule(now_ns + 100_000)
        sent += [action for action in machine.actions() if action[0] == "dispatch"]
    machine.end_log()
    assert {action[2] for action in sent} <= {0, 1, 2}, "nobody is sent to a device that does not hold the model"
    result = infcore.sim.replay(path)
    assert result.equal, result.first_difference
    added = [event.fields for event in infcore.sim.events(path) if event.kind == "add_node"]
    assert [fields["pending_max"] for fields in added] == [2, 3, 4, 5]


def test_a_device_s_bound_is_the_engine_s_and_in_its_log(tmp_path):
    path = tmp_path / "log"
    gated = Gated()
    device = CallableDevice("a", gated, slots=4, pending_max=1)
    with engine_of(device, models=[model(max_batch_size=1)], log=path) as engine:
        futures = [engine.submit("m", x_of(i)) for i in range(6)]
        gated.wait_entered()
        gated.open()
        assert [answer(future) for future in futures] == [2.0 * i for i in range(6)]
        assert engine.fleet.nodes()["pending_max"].tolist() == [1]
    result = infcore.sim.replay(path)
    assert result.equal, result.first_difference
    assert {len(batch) for batch in gated.batches} == {1}
