"""Figures of the host, from psutil and from /proc; a machine without GPUs; what importing brings. GPUs: tests/gpu."""

import dataclasses
import subprocess
import sys

import pytest
from engine_rig import wait_until

import infcore
from infcore import Fleet, InvalidArgument, InvalidType, ManualClock, UnknownName, telemetry
from infcore.telemetry.host import Host, ProcFiles, Psutil, carrying, speed_bytes_per_s
from infcore.telemetry.reading import gpus

STAT = "cpu  {user} 0 10 {idle} 5 0 0 0 {guest} 0\ncpu0 1 2 3 4\n"
MEMINFO = "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    400 kB\n"
NET = "Inter-|   Receive\n face |bytes\n    lo: 5 0 0 0 0 0 0 0 5 0\n  eth0:{received} 1 0 0 0 0 0 0 {sent} 1\n"


class Root:
    """A made-up / with the files that are read."""

    def __init__(self, path):
        self.path = path

    def put(self, name, text):
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def system(self, *, user=100, idle=1000, guest=0, sent=0, received=0):
        self.put("proc/stat", STAT.format(user=user, idle=idle, guest=guest))
        self.put("proc/meminfo", MEMINFO)
        self.put("proc/net/dev", NET.format(sent=sent, received=received))
        self.put("proc/cpuinfo", "processor : 0\nmodel name\t: Made-up CPU @ 3 GHz\n")

    def host(self):
        return Host(ProcFiles(str(self.path)))


@pytest.fixture
def root(tmp_path):
    return Root(tmp_path)


def test_what_proc_says(root):
    root.system(sent=1000, received=2000)
    root.put("sys/class/net/eth0/speed", "100\n")
    host = root.host()
    first = host.read(10.0)
    assert (first.name, first.memory_used_bytes, first.memory_total_bytes) == (
        "Made-up CPU @ 3 GHz",
        600 * 1024,
        1000 * 1024,
    )
    assert first.memory_fraction == 0.6
    assert (first.network_sent_bytes, first.network_received_bytes) == (1000, 2000)
    assert first.network_bytes_per_s_max == 12.5e6
    assert (first.utilization, first.network_sent_bytes_per_s, first.network_fraction) == (None, None, None)
    # 30 ticks of work, of which 20 were a guest's and are not counted twice; 10 of idling.
    root.system(user=130, idle=1010, guest=20, sent=1000 + 5_000_000, received=2000 + 2_500_000)
    second = host.read(12.0)
    assert second.utilization == pytest.approx(0.75)
    assert (second.network_sent_bytes_per_s, second.network_received_bytes_per_s) == (2.5e6, 1.25e6)
    assert second.network_fraction == pytest.approx(0.2)


def test_counters_that_step_back_give_no_rate(root):
    root.system(user=100, sent=1000)
    host = root.host()
    host.read(1.0)
    root.system(user=90, sent=10)
    figures = host.read(2.0)
    assert (figures.utilization, figures.network_sent_bytes_per_s, figures.network_sent_bytes) == (None, None, 10)
    root.system(user=190, sent=20)
    figures = host.read(3.0)
    assert (figures.utilization, figures.network_sent_bytes_per_s) == (1.0, 10.0)
    assert host.read(3.0).network_sent_bytes_per_s is None, "no time has gone by"


def test_idle_counters_may_step_back_a_little(root):
    root.system(user=100, idle=1000)
    host = root.host()
    host.read(1.0)
    root.system(user=120, idle=999)
    assert host.read(2.0).utilization == 1.0


@pytest.mark.parametrize("gone", ["stat", "meminfo", "net/dev", "cpuinfo"])
@pytest.mark.parametrize("text", [None, "", "no such thing\n", "cpu x y\nMemTotal: x\n\n\neth0: x\n"])
def test_a_file_that_is_missing_or_odd_costs_its_own_figures_alone(root, gone, text):
    root.system()
    if text is None:
        (root.path / "proc" / gone).unlink()
    else:
        root.put(f"proc/{gone}", text)
    host = root.host()
    host.read(1.0)
    if gone != "stat":
        root.put("proc/stat", STAT.format(user=110, idle=1010, guest=0))
    figures = host.read(2.0)
    assert (figures.utilization is None) == (gone == "stat")
    assert (figures.memory_used_bytes is None) == (gone == "meminfo")
    assert (figures.network_sent_bytes is None) == (gone == "net/dev")
    assert figures.name


def test_bridges_do_not_count_beside_wires(root):
    names = ["lo", "eth0", "eth1", "docker0", "veth9"]
    assert carrying(names, str(root.path)) == ["docker0", "eth0", "eth1", "veth9"]
    root.put("sys/class/net/eth0/device/vendor", "0x8086")
    root.put("sys/class/net/eth1/device/vendor", "0x8086")
    assert carrying(names, str(root.path)) == ["eth0", "eth1"]
    root.put("sys/class/net/eth0/speed", "25000\n")
    root.put("sys/class/net/eth1/speed", "-1\n")  # down
    assert speed_bytes_per_s(["eth0", "eth1", "eth2"], str(root.path)) == 25e9 / 8
    assert speed_bytes_per_s(["eth1", "eth2"], str(root.path)) is None


def test_psutil_and_proc_say_the_same():
    pytest.importorskip("psutil", reason="psutil is not installed: the extra [telemetry] brings it")
    if sys.platform != "linux":
        pytest.skip("/proc is Linux's")
    two = (Psutil(), ProcFiles())
    ours, theirs = (source.processors() for source in two)
    assert theirs.idle / theirs.total == pytest.approx(ours.idle / ours.total, rel=0.05)
    memory, other_memory = (source.memory() for source in two)
    assert memory.total == other_memory.total
    assert memory.used == pytest.approx(other_memory.used, abs=0.1 * memory.total)
    traffic, later = (source.traffic() for source in two)
    assert set(traffic) == set(later)
    assert all(later[name].received >= traffic[name].received for name in traffic)


@pytest.mark.parametrize("there", [True, False])
def test_psutil_is_used_where_it_is_installed(monkeypatch, there):
    if there:
        pytest.importorskip("psutil", reason="psutil is not installed: the extra [telemetry] brings it")
    else:
        monkeypatch.setitem(sys.modules, "psutil", None)
    host = Host()
    assert type(host._source) is (Psutil if there else ProcFiles)
    first = host.read(1.0)
    assert 0 < first.memory_used_bytes < first.memory_total_bytes
    assert first.isa in ("baseline", "avx2", "avx512")
    assert first.cores >= 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.cores = 3
    assert not hasattr(first, "__dict__")


def test_devices_without_pynvml_is_the_host_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    (host,) = telemetry.devices()
    assert host.kind == "cpu"
    assert gpus() == ([], "the package nvidia-ml-py (module pynvml) is not installed: pip install 'infcore[telemetry]'")


def test_a_sampler_of_the_host(root):
    clock = ManualClock(5.0)
    fleet = Fleet(clock=clock)
    fleet.add("node")
    root.system()
    root.put("sys/class/net/eth0/speed", "100\n")
    sampler = telemetry.Sampler(fleet, {"node": "cpu"}, clock=clock, source=ProcFiles(str(root.path)))
    sampler.sample_once()
    root.system(user=130, idle=1010, sent=5_000_000, received=2_000_000)
    clock.advance(1.0)
    sampler.sample_once()
    (row,) = fleet.nodes()
    assert (row["cpu"], row["memory"]) == (0.75, 0.6)
    assert abs(row["network"] - 0.4) < 1e-6, "of 100 Mbit/s, the busier direction"
    assert sampler.latest()["node"].utilization == 0.75
    assert sampler.stats().as_of_s == 6.0
    assert sampler.close() is True
    with pytest.raises(InvalidArgument, match="the Sampler is closed"):
        sampler.watch("node", "cpu")


def test_a_source_that_fails_is_no_error_and_no_signal():
    class Failing:
        root = "/"

        def processors(self):
            raise RuntimeError("processors")

        memory = traffic = processors

    fleet = Fleet()
    fleet.add("node")
    sampler = telemetry.Sampler(fleet, {"node": "cpu"}, source=Failing())
    sampler.sample_once()
    assert sampler.stats().n_errors == 0
    assert sampler.latest()["node"].memory_fraction is None
    sampler.close()


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_times_that_threads_cannot_wait():
    fleet = Fleet()
    fleet.add("node")
    with telemetry.Sampler(fleet, {"node": "cpu"}, interval_s=1e300) as sampler:
        wait_until(lambda: sampler.stats().n_samples > 0, "a round")
        assert sampler.close(timeout_s=1e300) is True
    assert sampler.stats().n_errors == 0


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (("fleet", {}), {}, InvalidType, "target is str; allowed: infcore.Engine or infcore.Fleet"),
        ((Fleet(), {"a": "cpu"}), {"interval_s": 0}, InvalidArgument, "interval_s is 0; allowed"),
        ((Fleet(), {"a": "cpu"}), {"interval_s": "1"}, InvalidType, "interval_s is str"),
        ((Fleet(), {"a": "cpu"}), {"clock": 3}, InvalidType, "clock is int; allowed: None or an object with now_s"),
        ((Fleet(), ["a"]), {}, InvalidType, "cards is list; allowed: a mapping"),
        ((Fleet(), {"": "cpu"}), {}, InvalidArgument, "a key of cards is ''"),
        ((Fleet(), {"a": 1.5}), {}, InvalidType, r"cards\['a'\] is float; allowed: \"cpu\", the UUID or the index"),
    ],
)
def test_bad_arguments_of_a_sampler(arguments, options, error, message):
    with pytest.raises(error, match=message):
        telemetry.Sampler(*arguments, **options)


def test_a_gpu_that_cannot_be_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(UnknownName, match=r"cards\['a'\] is 0; allowed: \"cpu\": the package nvidia-ml-py"):
        telemetry.Sampler(Fleet(), {"a": 0})


def test_importing_brings_neither_pynvml_nor_the_sampler():
    program = (
        "import sys, infcore, infcore.telemetry as t; t.Histogram();"
        "print([m for m in sys.modules if m in ('pynvml', 'psutil') or m.startswith('infcore.telemetry.')])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_all_names_are_there():
    assert {name for name in telemetry.__all__ if not hasattr(telemetry, name)} == set()
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = telemetry.nope
    assert infcore.telemetry.Histogram is infcore.Histogram
