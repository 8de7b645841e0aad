"""Fleet(shared=): one fleet for several real processes; what is left when one is killed."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

import infcore
from infcore import Fleet, InvalidArgument, InvalidType, NoNodeAvailable, Router

PEER = """
import sys, infcore
fleet = infcore.Fleet(shared=sys.argv[1], max_nodes=8, heartbeat_s=float(sys.argv[2]))
router = infcore.Router(fleet, policy="least_outstanding")
for line in sys.stdin:
    try:
        print(eval(line), flush=True)
    except infcore.InfcoreError as error:
        print(type(error).__name__, error, flush=True)
"""


class Peer:
    """Another process with the fleet open; it evaluates a line and answers with one."""

    def __init__(self, name, heartbeat_s):
        self.process = subprocess.Popen(
            [sys.executable, "-c", PEER, name, str(heartbeat_s)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.ask("fleet.n_processes") != ""

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def leave(self):
        self.process.stdin.close()
        assert self.process.wait(timeout=20) == 0


@contextmanager
def peers(name, n, heartbeat_s=3600.0):
    started = [Peer(name, heartbeat_s) for _ in range(n)]
    try:
        yield started
    finally:
        for peer in started:
            peer.kill()
            peer.process.stdin.close()
            peer.process.stdout.close()


@pytest.fixture
def name(request):
    return f"test-{os.getpid()}-{request.node.name[:40].replace('[', '-').replace(']', '')}"


def opened(name, **options):
    return Fleet(shared=name, **{"max_nodes": 8, "heartbeat_s": 3600.0} | options)


def block_of(name):
    return Path("/dev/shm") / f"infcore-{name}"


def test_processes_see_each_other(name):
    fleet = opened(name)
    with peers(name, 1) as [peer]:
        assert fleet.n_processes == 2
        node = fleet.add("ä", zone="z1", memory_bytes=1 << 30, labels={"rack": "7"}, pending_max=3)
        assert peer.ask("fleet.nodes()[['id', 'name', 'zone', 'pending_max']].tolist()") == "[(0, 'ä', 'z1', 3)]"
        assert peer.ask("fleet.load_model('ä', 'm', version=2)") == "None"
        assert Router(fleet).pick("m", require={"rack": "7"}).node == node
        assert peer.ask("router.pick('m').node") == "0"
        assert fleet.nodes()["inflight"].tolist() == [2]
        assert fleet.signal(node, inflight=5, error_rate=0.5)
        assert peer.ask("fleet.nodes()['inflight'].tolist(), fleet.nodes()['error_rate'].tolist()") == "([5], [0.5])"
        fleet.add_model("big", weights_bytes=1 << 30, load_s=2.0)
        assert peer.ask("fleet.load_costs('big').tolist(), fleet.models()['model'].tolist()") == "([2.0], ['m', 'big'])"
        fleet.drain(node)
        assert peer.ask("router.pick('m')").startswith("NoNodeAvailable")
        fleet.remove(node)
        assert peer.ask("len(fleet)") == "0"


def test_credit_of_a_killed_process_is_taken_back(name):
    clock = infcore.ManualClock(start_s=time.monotonic())
    fleet = opened(name, heartbeat_s=30.0, clock=clock)
    fleet.load_model(fleet.add("a"), "m")
    router = Router(fleet, policy="least_outstanding")
    mine = router.pick("m")
    with peers(name, 2, heartbeat_s=30.0) as [one, two]:
        for peer in (one, two):
            assert peer.ask("[router.pick('m').node for _ in range(3)]") == "[0, 0, 0]"
        assert fleet.nodes()["inflight"].tolist() == [7]
        one.kill()
        assert fleet.nodes()["inflight"].tolist() == [7], "nobody has noticed yet"
        clock.advance(1000.0)
        fleet.beat()
        assert fleet.n_processes == 1, "of the other there was no sign for as long"
        assert fleet.nodes()["inflight"].tolist() == [1]
        two.kill()
        assert router.done(mine, service_s=0.1)
        assert fleet.nodes()["inflight"].tolist() == [0]


@pytest.mark.parametrize("by", ["nodes", "explain"])
def test_who_only_looks_takes_back_the_credit_of_the_dead(name, by):
    clock = infcore.ManualClock(start_s=time.monotonic())
    fleet = opened(name, heartbeat_s=30.0, clock=clock)
    fleet.load_model(fleet.add("a"), "m")
    router = Router(fleet)
    look = (
        (lambda: fleet.nodes()["wait_s"][0])
        if by == "nodes"
        else (lambda: router.explain("m", now_s=clock.now_s())[0]["terms"]["wait"])
    )
    with peers(name, 1, heartbeat_s=30.0) as [peer]:
        assert peer.ask("router.pick('m').node") == "0"
        assert look() > 0.0
        peer.kill()
        clock.advance(1000.0)
        assert look() == 0.0
        clock.advance(1000.0)
        assert fleet.n_processes == 1, "its own slot counts as long as it asks"


def test_a_process_killed_with_the_lock_held_holds_up_nobody(name):
    """Processes that are killed again and again while they add and remove nodes as fast as they can."""
    fleet = opened(name)
    fleet.load_model(fleet.add("stays"), "m")
    once = "fleet.load_model(fleet.add('x'), 'm'), fleet.signal('x', cpu=.5), fleet.remove('x')"
    loop = f"[({once}) for _ in iter(int, 1)]\n"
    for _ in range(3):
        peer = Peer(name, 3600.0)
        peer.process.stdin.write(loop)
        peer.process.stdin.flush()
        version = len(fleet)
        for _ in range(50):
            fleet.signal("stays", cpu=0.5)
            version = max(version, len(fleet))
        peer.kill()
        peer.process.stdin.close()
        peer.process.stdout.close()
        if "x" in fleet.nodes()["name"].tolist():
            fleet.remove("x")
        node = fleet.add("x")
        assert fleet.nodes()["name"].tolist() == ["stays", "x"]
        fleet.remove(node)
    assert Router(fleet).pick("m").node == 0


def test_the_last_one_out_takes_the_name_away(name):
    fleet = opened(name)
    fleet.add("a")
    with peers(name, 1) as [peer]:
        del fleet
        assert peer.ask("len(fleet)") == "1"
        assert block_of(name).exists()
        peer.leave()
    assert not block_of(name).exists()


def test_a_block_left_by_the_dead_begins_anew(name):
    with peers(name, 1) as [peer]:
        assert peer.ask("fleet.add('a')") == "0"
        peer.kill()
    assert block_of(name).exists()
    fleet = opened(name, max_nodes=9)  # nobody is there whose sizes it would have to have
    assert (len(fleet), fleet.n_processes) == (0, 1)
    del fleet
    assert not block_of(name).exists()


def test_unlink(name):
    fleet = opened(name)
    fleet.add("a")
    assert fleet.unlink() is True
    assert fleet.unlink() is False
    other = opened(name)
    assert (len(fleet), len(other)) == (1, 0)
    assert Fleet().unlink() is False


def test_sizes_must_agree(name):
    fleet = opened(name)
    for options, field in (({"max_nodes": 9}, "max_nodes is 9"), ({"heartbeat_s": 1.0}, "heartbeat_s")):
        with pytest.raises(InvalidArgument, match=field):
            opened(name, **options)
    assert len(fleet) == 0


def test_a_block_of_something_else_is_refused(name):
    path = block_of(name)
    holder = subprocess.Popen(
        [sys.executable, "-c",
         "import fcntl, sys; f = open(sys.argv[1], 'w+b'); f.write(b'x' * 9999); f.flush(); "
         "fcntl.flock(f, fcntl.LOCK_SH); print('held', flush=True); sys.stdin.read()", str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(InvalidArgument, match="shared is"):
            opened(name)
    finally:
        holder.communicate(b"")
        path.unlink()


@pytest.mark.parametrize("bad", ["", "a/b", "..\0", "ü", "x" * 201, " "])
def test_names(bad):
    with pytest.raises(InvalidArgument, match="shared is"):
        Fleet(shared=bad)


def test_no_name():
    with pytest.raises(InvalidType, match="shared is int"):
        Fleet(shared=7)
    with pytest.raises(InvalidArgument, match="heartbeat_s is 0"):
        Fleet(shared="x", heartbeat_s=0)


def test_words_of_a_shared_node_are_bounded(name):
    fleet = opened(name)
    with pytest.raises(InvalidArgument, match="at most 256"):
        fleet.add("n" * 260)
    with pytest.raises(InvalidArgument, match="at most 256"):
        fleet.add("n", labels={str(i): "x" * 20 for i in range(20)})
    with pytest.raises(InvalidArgument, match="model is 2"):
        fleet.add_model("m" * 200)
    assert len(fleet) == 0 and len(fleet.models()) == 0
    with pytest.raises(NoNodeAvailable):
        Router(fleet).pick("m" * 200)


def test_a_forked_child_may_not_use_it_and_takes_nothing_with_it(name):
    fleet = opened(name)
    fleet.load_model(fleet.add("a"), "m")
    decision = Router(fleet, policy="least_outstanding").pick("m")
    child = os.fork()
    if child == 0:
        try:
            fleet.nodes()
        except infcore.ForkedProcess:
            del fleet, decision
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert fleet.nodes()["inflight"].tolist() == [1]
    assert block_of(name).exists()
