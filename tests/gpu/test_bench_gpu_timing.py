"""The timing of bench/gpu on a device whose every time is known. Only its clock is made up, as there is no GPU."""

import time

import numpy as np
import overhead
import printed
import pytest
import run
from bandwidth import Bench, alike, copy_time, measured
from gpu import interpreter
from measuring import DELAY_US_MIN, N_DOUBLED, device_us, gb_per_s, host_us, n_sets, share, spread, wall_us
from operations import OPERATIONS
from pack_workloads import PACK_SHAPES, pack_workload
from places import TorchDevice

MIB = 1 << 20
RUN_OPS = list(OPERATIONS)


class QueueClock:
    """A device that does what is queued one after another, and a host that queues; both in microseconds."""

    def __init__(self) -> None:
        self.host = 0.0
        self.device_free_at = 0.0
        self.delays: list[float] = []

    def queue(self, device_us: float, host_us: float = 0.0) -> None:
        self.host += host_us
        self.device_free_at = max(self.device_free_at, self.host) + device_us

    def record(self) -> float:
        self.queue(0.0)
        return self.device_free_at

    def reached(self, event: float) -> bool:
        return event <= self.host

    def elapsed_us(self, begin: float, end: float) -> float:
        return end - begin

    def delay(self, us: float) -> None:
        self.delays.append(us)
        self.queue(us)

    def synchronize(self) -> None:
        self.host = max(self.host, self.device_free_at)

    def host_us(self) -> float:
        return self.host


def test_device_time_is_without_the_host_s() -> None:
    clock = QueueClock()
    times = iter(range(1000))
    taken = device_us(clock, [lambda: clock.queue(2.0 + next(times) % 3, host_us=50.0)], n_calls=99, n_warm_up=3)
    assert taken is not None
    assert taken == (3.0, 2.0, 4.0, 2.0, 99)


def test_a_queue_that_ran_dry_is_measured_again() -> None:
    clock = QueueClock()
    calls = iter(range(10_000))

    def slow_later() -> None:
        clock.queue(7.0, host_us=1.0 if next(calls) < 5 else 30.0)

    taken = device_us(clock, [slow_later], n_calls=64, n_warm_up=2)
    assert taken is not None and (taken.p50, taken.p75) == (7.0, 7.0)
    # 32 calls of 30 us each do not fit into the first delay, nor into the second, nor the third.
    assert clock.delays == [DELAY_US_MIN, 2 * DELAY_US_MIN, 4 * DELAY_US_MIN, 8 * DELAY_US_MIN, 8 * DELAY_US_MIN]


def test_a_call_that_waits_for_the_device_has_no_device_time() -> None:
    clock = QueueClock()

    def waits() -> None:
        clock.queue(7.0, host_us=1.0)
        clock.synchronize()

    assert device_us(clock, [waits], n_calls=64, n_warm_up=2) is None
    assert len(clock.delays) == N_DOUBLED + 1


def test_calls_take_turns() -> None:
    clock = QueueClock()
    called: list[int] = []
    calls = [lambda k=k: called.append(k) for k in range(3)]
    device_us(clock, calls, n_calls=40, n_warm_up=4)
    assert called[:5] == [0, 1, 2, 0, 0]  # warm-up, and one that is timed on the host
    assert called[5:] == [k % 3 for k in range(40)]


def test_wall_and_host_times() -> None:
    clock = QueueClock()
    assert wall_us(clock, [lambda: clock.queue(2.0, host_us=10.0)], n_calls=100) == pytest.approx(10.0, rel=0.01)
    assert wall_us(clock, [lambda: clock.queue(40.0, host_us=10.0)], n_calls=100) == pytest.approx(40.0, rel=0.01)
    assert host_us(clock, [lambda: clock.queue(40.0, host_us=10.0)], n_calls=100).p50 == pytest.approx(10.0)


def test_buffers_take_turns_through_more_than_the_cache() -> None:
    l2_bytes = 50 * MIB
    for set_bytes in (MIB, 3 * MIB, 49 * MIB, 51 * MIB, 2000 * MIB):
        n = n_sets(set_bytes, l2_bytes, 80_000 * MIB)
        assert n >= 2
        assert (n - 1) * set_bytes >= 2 * l2_bytes
        assert n == 2 or (n - 2) * set_bytes < 2 * l2_bytes
    assert n_sets(10 * MIB, l2_bytes, 40 * MIB) == 4
    assert n_sets(30 * MIB, l2_bytes, 59 * MIB) == 0


def test_bandwidth_and_shares() -> None:
    assert gb_per_s(3_000_000, 1.5) == 2000.0
    assert share(2 * MIB, 2.0, 2 * MIB, 1.5) == pytest.approx(0.75)
    assert share(4 * MIB, 2.0, 2 * MIB, 1.5) == pytest.approx(1.5)
    assert spread([1.0, 5.0, 3.0, 2.0, 4.0]) == (3.0, 2.0, 4.0, 1.0, 5)


class QueuedDevice(TorchDevice):
    """Copies that take the made-up device a known time."""

    def __init__(self, clock: QueueClock, copy_us: float) -> None:
        super().__init__("cpu")
        self.clock = clock
        self.copy_us = copy_us

    def copy(self, source: object, target: object) -> None:
        super().copy(source, target)
        self.clock.queue(self.copy_us, host_us=1.0)


def queued_bench(copy_us: float) -> tuple[QueueClock, Bench]:
    clock = QueueClock()
    device = QueuedDevice(clock, copy_us)
    return clock, Bench(device, clock, l2_bytes=1 << 10, free_bytes=1 << 24, n_calls=4, n_warm_up=1)


def test_a_row_of_the_bandwidth_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real kernels, interpreted, and PyTorch's real ways; each launch is said to take 5 us, each way 20."""
    interpreter.require()
    clock, bench = queued_bench(copy_us=4.0)
    workload = pack_workload(np.random.default_rng(1), PACK_SHAPES[1]._replace(trailing=(8,)), 1 << 13)

    def build(device: TorchDevice) -> object:
        turn = workload.build(device)
        ways = {name: lambda way=way: (clock.queue(20.0, host_us=3.0), way())[1] for name, way in turn.ways.items()}
        return turn._replace(call=lambda: (clock.queue(5.0, host_us=9.0), turn.call())[1], ways=ways)

    row = measured(bench, workload._replace(build=build))
    assert row["left_out"] is None
    assert row["n_sets"] == 2
    assert row["device_us"]["p50"] == pytest.approx(5.0)
    assert row["wall_us"] == pytest.approx(9.0, rel=0.2)
    assert row["gb_per_s"] == pytest.approx(workload.floor_bytes / 5e3)
    assert row["copy_us"] == pytest.approx(4.0)
    assert row["share_of_copy"] == pytest.approx(0.8, rel=1e-3)
    assert len(row["ways"]) == 4
    for way in row["ways"]:
        assert way["same"] is True, way
        assert way["device_ratio"] == pytest.approx(4.0)
        assert way["wall_ratio"] == pytest.approx(20 / 9, rel=0.2)


class TickClock(QueueClock):
    """The host's real time; between two events of the device there is always a microsecond."""

    waited = 0.0

    @property
    def host(self) -> float:
        return time.perf_counter() * 1e6 + self.waited

    @host.setter
    def host(self, at: float) -> None:
        self.waited += max(0.0, at - self.host)

    def record(self) -> float:
        self.queue(1.0)
        return self.device_free_at


def test_everything_that_is_done_on_a_gpu_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it but the GPU: interpreted kernels, and a clock whose numbers mean nothing."""
    interpreter.require()
    monkeypatch.setattr(overhead, "N_CALLS", 6)
    monkeypatch.setattr(overhead, "N_WARM_UP", 2)
    bench = Bench(TorchDevice("cpu"), TickClock(), l2_bytes=1 << 8, free_bytes=1 << 24, n_calls=4, n_warm_up=1)
    options = run.arguments(
        ["--smoke", "--seed", "3", "--op", "block_table", "unpack", "--size", "4KiB", "--backend", "triton"], RUN_OPS
    )
    rows = list(run.on_gpu(options, [bench]))
    kinds = {kind: [row for row in rows if row["kind"] == kind] for kind in ("correctness", "bandwidth", "overhead")}
    assert [row["op"] for row in kinds["correctness"]] == [row["op"] for row in kinds["overhead"]] == options.op
    assert [row["n_wrong"] for row in kinds["correctness"]] == [0, 0]
    n_workloads = sum(len(list(OPERATIONS[op].workloads(np.random.default_rng(3), 4096))) for op in options.op)
    assert len(kinds["bandwidth"]) == n_workloads
    for row in kinds["bandwidth"]:
        assert row["left_out"] is None, row
        assert row["ways"] and all(way["same"] for way in row["ways"]), row
        assert row["device_us"]["p50"] == pytest.approx(1.0)
    assert all(row["op"] in run.progress(row) for row in rows)
    for kind, of_it in kinds.items():
        text = printed.part(kind, rows)
        assert all(row["op"] in text for row in of_it)


def test_what_gives_wrong_answers_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    interpreter.require()
    from infcore.kernels.block_table import triton_kernel

    monkeypatch.setattr(triton_kernel, "launch", lambda *arguments: None)
    _, bench = queued_bench(copy_us=4.0)
    options = run.arguments(["--smoke", "--seed", "3", "--op", "block_table", "--backend", "triton"], RUN_OPS)
    (row,) = run.on_gpu(options, [bench])
    assert row["n_wrong"] > 0


def test_another_answer_is_told_from_ours() -> None:
    torch = interpreter.require()
    ours = torch.arange(8, dtype=torch.float32)
    assert alike(ours, ours.clone(), 0.0)
    assert not alike(ours, ours + torch.eye(8)[3] * 1e-3, 0.0)
    assert alike(ours, ours + torch.eye(8)[3] * 1e-3, 1e-2)
    assert not alike(ours, ours[:7], 0.0) and not alike(ours, ours.half(), 0.0)
    assert not alike((ours, ours), (ours, ours + 1), 0.0)


def test_where_memory_does_not_suffice_there_is_a_reason_and_no_number() -> None:
    _, bench = queued_bench(copy_us=4.0)
    workload = pack_workload(np.random.default_rng(1), PACK_SHAPES[0], 1 << 20)
    row = measured(bench._replace(free_bytes=1 << 20), workload)
    assert "bytes of free memory" in row["left_out"] and "device_us" not in row
    assert copy_time(bench._replace(free_bytes=1 << 10), 1 << 20) is None
