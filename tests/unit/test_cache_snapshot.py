"""Snapshots: what goes in comes out the same, the file is whole or refused, and loading gives up nothing worth more."""

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import infcore
from infcore.cache import load_snapshot, save_snapshot
from infcore.cache.plain_values import NotPlain, decode, encode, encode_key


def _cache(capacity: int = 1 << 30, **arguments: Any) -> infcore.Cache:
    return infcore.Cache(capacity, **{"policy": "gdsf", "clock": infcore.ManualClock(100.0), **arguments})


def _same(a: Any, b: Any) -> bool:
    """Equal, and of the very same types."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray | np.generic):
        same = a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        return same and a.flags.writeable == b.flags.writeable and a.flags.f_contiguous == b.flags.f_contiguous
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict):
        return _same(list(a.items()), list(b.items()))
    return bool(a == b) or (isinstance(a, float) and math.isnan(a) and math.isnan(b))


_read_only = np.arange(3)
_read_only.flags.writeable = False
VALUES: list[Any] = [
    None, True, False, 0, -1, 2**62, -(2**63), 2**63, -(2**200), 0.0, -0.0, math.inf, math.nan, 1e-308,
    "", "text", "\ud800 \u20ac", b"", b"\x00\xff", [], (), {}, [1, [2.0, ("x", None)], {}],
    {"a": [1], 2: b"x", (1, "b"): None},
    {True: 1, None: 2, 1.5: 3}, np.arange(12).reshape(3, 4), np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    np.arange(12).reshape(3, 4)[:, ::2], np.zeros((0, 5), np.float32), np.array(3.5), np.array(["ab", "c"]),
    np.array([b"ab"]), np.array(["2026-11-26", "NaT"], "M8[s]"), np.array([1 + 2j]), np.arange(4, dtype=">i2"),
    np.array([(1, 2.0, "x")], [("a", "<i4"), ("b", "<f8", (2,)), ("c", "<U3")]), _read_only, np.float32(1.5),
    np.int64(3),
    np.str_("abc"), np.bool_(True), np.array([(1, 2)], {"names": ["a", "b"], "formats": ["i1", "<i8"],
    "offsets": [0, 8]}),
]  # fmt: skip


@pytest.mark.parametrize("at", range(len(VALUES)))
def test_plain_values_come_back_the_very_same(at: int) -> None:
    data = b"".join(encode(VALUES[at]))
    back = decode(data)
    assert _same(back, VALUES[at]) or (VALUES[at] is not None and _same(back, np.array(VALUES[at])))
    for end in range(len(data)):
        with pytest.raises(NotPlain):
            decode(data[:end])


class Odd:
    """Of no plain kind; pickles."""

    def __init__(self, x: int):
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Odd) and other.x == self.x


class OddInt(int):
    pass


def _deep() -> list[Any]:
    deep: list[Any] = []
    for _ in range(1000):
        deep = [deep]
    return deep


@pytest.mark.parametrize(
    "value",
    [
        Odd(1),
        OddInt(1),
        {1, 2},
        np.array([object()]),
        [np.array([None])],
        {Odd(1).x: Odd(1)},
        bytearray(b"x"),
        range(3),
    ],
)
def test_other_kinds_are_refused(value: Any) -> None:
    with pytest.raises(NotPlain):
        encode(value)


def test_depth_and_number_of_items_are_bounded() -> None:
    with pytest.raises(NotPlain, match="deep"):
        encode(_deep())
    with pytest.raises(NotPlain, match="containers in each other"):
        decode(b"l\x01\0\0\0\0\0\0\0" * 1000 + b"n")
    itself: list[Any] = []
    itself.append(itself)
    with pytest.raises(NotPlain, match="deep"):
        encode(itself)


@pytest.mark.parametrize("key", [1.5, None, True, (1, [2]), (1.0,), frozenset((1,)), OddInt(1)])
def test_odd_keys_are_refused(key: Any) -> None:
    with pytest.raises(NotPlain, match="key"):
        encode_key(key)


def test_everything_that_put_was_told_comes_back(tmp_path: Path) -> None:
    cache = _cache()
    cache.put("a", {"x": np.arange(3)}, size_bytes=10, cost_us=5.0)
    told = {"ttl_s": 30.0, "stale_s": 7.0, "tags": ("t", "\ud800"), "version": 3, "reuse": 2.0}
    cache.put(("k", 1, b"b"), [1, None], size_bytes=20, cost_us=9.0, **told)
    cache.put(7, "seven", size_bytes=1, cost_us=0.0)
    saved = save_snapshot(cache, tmp_path / "s")
    assert (saved.entries, saved.skipped, saved.n_bytes) == (3, 0, os.path.getsize(tmp_path / "s"))
    other = _cache(shards=4)
    assert load_snapshot(other, tmp_path / "s").entries == 3
    row = {key: (value, told) for key, value, told in other.entries()}
    value, back = row["k", 1, b"b"]
    assert value == [1, None] and back.pop("ttl_s") == pytest.approx(30.0)
    assert back == {"size_bytes": 20, "cost_us": 9.0, **{name: told[name] for name in told if name != "ttl_s"}}
    assert _same(row["a"][0], {"x": np.arange(3)}) and row["a"][1]["ttl_s"] is None
    assert other.get(7) == "seven"
    assert other.stats().cost_missed_us == 0.0 and other.stats().bytes_missed == 0  # nobody asked for it


def test_two_saves_of_one_cache_are_the_same_file(tmp_path: Path) -> None:
    cache = _cache()
    for i in range(50):
        cache.put(i, str(i), size_bytes=1 + i % 7, cost_us=float(i % 5))
    save_snapshot(cache, tmp_path / "a")
    save_snapshot(cache, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_time_goes_on_while_nobody_runs(tmp_path: Path) -> None:
    cache = _cache()
    for key, ttl_s in (("short", 5.0), ("long", 50.0), ("ever", None)):
        cache.put(key, key, ttl_s=ttl_s)
    save_snapshot(cache, tmp_path / "s", at_s=1000.0)
    other = _cache()
    loaded = load_snapshot(other, tmp_path / "s", at_s=1010.0)
    assert (loaded.entries, loaded.expired) == (2, 1)
    assert {key: told["ttl_s"] for key, _, told in other.entries()} == {"long": 40.0, "ever": None}
    stopped = _cache()
    assert load_snapshot(stopped, tmp_path / "s").entries == 3
    save_snapshot(cache, tmp_path / "n")
    with pytest.raises(infcore.InvalidArgument, match="at_s is 3"):
        load_snapshot(stopped, tmp_path / "n", at_s=3.0)


def test_what_is_there_and_newer_stays(tmp_path: Path) -> None:
    cache = _cache()
    for key, version in (("same", 0), ("older", 1), ("newer", 5), ("floor", 1)):
        cache.put(key, "saved", version=version, tags=("f",) if key == "floor" else ())
    save_snapshot(cache, tmp_path / "s")
    other = _cache()
    for key, version in (("same", 0), ("older", 2), ("newer", 4)):
        other.put(key, "there", version=version)
    other.invalidate_older(2, tag="f")
    loaded = load_snapshot(other, tmp_path / "s")
    assert (loaded.entries, loaded.present) == (1, 3)
    assert [other.get(key) for key in ("same", "older", "newer", "floor")] == ["there", "there", "saved", None]


def test_loading_gives_up_nothing_worth_more(tmp_path: Path) -> None:
    cache = _cache()
    for i in range(20):
        cache.put(f"s{i}", i, size_bytes=10, cost_us=10.0 * i)
    save_snapshot(cache, tmp_path / "s")
    for policy in ("lru", "gdsf"):
        other = _cache(100, policy=policy)
        for i in range(10):
            other.put(f"o{i}", i, size_bytes=10, cost_us=20.0 * i + 1.0)
        other.pin("o0")
        worth = sum(told["cost_us"] for _, _, told in other.entries())
        loaded = load_snapshot(other, tmp_path / "s")
        costs = sorted(told["cost_us"] for _, _, told in other.entries())
        everything = sorted([20.0 * i + 1.0 for i in range(1, 10)] + [10.0 * i for i in range(20)])
        assert "o0" in other and costs == [1.0, *everything[-9:]]
        assert sum(costs) > worth and other.stats().bytes_used <= 100
        assert loaded.evicted == loaded.entries > 0 and loaded.entries + loaded.no_room == 20


def test_loading_evicts_nothing_for_what_is_refused(tmp_path: Path) -> None:
    cache, path = _cache(), tmp_path / "s"
    cache.put("refused", "v", size_bytes=80, cost_us=1e6, tags=("t",))
    cache.put("pickled", Odd(1), size_bytes=80, cost_us=1e5)
    cache.put("comes", "v", size_bytes=80, cost_us=100.0)
    save_snapshot(cache, path, pickle=True)
    other = _cache(100)
    other.put("there", "v", size_bytes=90, cost_us=50.0)
    other.invalidate_older(5, tag="t")
    loaded = load_snapshot(other, path)
    assert (loaded.present, loaded.skipped, loaded.entries, loaded.evicted) == (1, 1, 1, 1)
    assert [key for key, *_ in other.entries()] == ["comes"]  # the others took no room from it


@pytest.mark.parametrize("pinned", [False, True])
def test_what_a_newer_version_replaced_is_not_there_any_more(tmp_path: Path, pinned: bool) -> None:
    """Its row would stand for the newer one, which is worth more, and its bytes would be missed."""
    cache, path = _cache(), tmp_path / "s"
    cache.put("dear", 0, size_bytes=60, cost_us=6000.0)
    cache.put("again", "new", size_bytes=40, cost_us=800.0, version=1)
    cache.put("last", 0, size_bytes=40, cost_us=80.0)
    save_snapshot(cache, path)
    other = _cache(140)
    for key, size, cost in (("again", 40, 2.0), ("least", 40, 1.0), ("none", 60, 0.5)):
        other.put(key, 0, size_bytes=size, cost_us=cost)
    if pinned:
        other.pin("again")
    loaded = load_snapshot(other, path)
    assert (loaded.entries, loaded.evicted) == (3, 2)
    assert {key: told["cost_us"] for key, _, told in other.entries()} == {"dear": 6000.0, "again": 800.0, "last": 80.0}


def test_the_worthiest_come_first_where_room_ends(tmp_path: Path) -> None:
    cache = _cache()
    for i in range(30):
        cache.put(i, i, size_bytes=10, cost_us=float(i * 7 % 30))
    save_snapshot(cache, tmp_path / "s")
    other = _cache(95)
    loaded = load_snapshot(other, tmp_path / "s")
    assert (loaded.entries, loaded.no_room, loaded.evicted) == (9, 21, 0)
    assert sorted(told["cost_us"] for *_, told in other.entries()) == [float(x) for x in range(21, 30)]


def test_others_are_skipped_refused_or_pickled(tmp_path: Path) -> None:
    cache, path = _cache(), tmp_path / "s"
    cache.put("odd", Odd(3))
    cache.put("plain", 1)
    cache.put(2.5, "key")
    saved = save_snapshot(cache, path)
    assert (saved.entries, saved.skipped) == (1, 2)
    before = path.read_bytes()
    with pytest.raises(infcore.InvalidType, match=r"allowed: plain values, or unwritable='skip'"):
        save_snapshot(cache, path, unwritable="refuse")
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["s"]
    assert save_snapshot(cache, path, pickle=True).entries == 2
    other = _cache()
    loaded = load_snapshot(other, path)
    assert (loaded.entries, loaded.skipped, "odd" in other) == (1, 1, False)
    with pytest.raises(infcore.SnapshotError, match="pickle=True"):
        load_snapshot(_cache(), path, unreadable="refuse")
    assert load_snapshot(other, path, pickle=True).entries == 1
    assert other.get("odd") == Odd(3)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda data: b"", "the header is cut off"),
        (lambda data: data[:10], "byte 0: the header is cut off"),
        (lambda data: data[:-1], "the end is cut off"),
        (lambda data: data[: len(data) // 2], "byte"),
        (lambda data: data + b"x", "1 bytes follow the end"),
        (lambda data: data[:60] + bytes([data[60] ^ 1]) + data[61:], "byte 28: "),
        (lambda data: b"PK" + data[2:], "byte 0: "),
        (lambda data: b"\0" * len(data), "byte 0: "),
    ],
)
def test_a_broken_file_is_refused_whole(tmp_path: Path, change: Callable[[bytes], bytes], why: str) -> None:
    cache, path = _cache(), tmp_path / "s"
    for i in range(10):
        cache.put(i, "x" * 50)
    save_snapshot(cache, path)
    path.write_bytes(change(path.read_bytes()))
    other = _cache()
    with pytest.raises(infcore.SnapshotError, match=why) as refused:
        load_snapshot(other, path)
    assert str(path) in str(refused.value) and len(other) == 0
    assert 0 <= refused.value.offset <= path.stat().st_size


def test_a_file_of_two_whole_halves_is_refused(tmp_path: Path) -> None:
    sizes, data = [], []
    for text in ("a", "b"):
        cache = _cache()
        for i in range(2):
            cache.put(i, text * 20, cost_us=2.0 - i)
        save_snapshot(cache, tmp_path / text)
        data.append((tmp_path / text).read_bytes())
        sizes.append(len(data[-1]))
    half = 28 + (sizes[0] - 28 - 29) // 2
    (tmp_path / "c").write_bytes(data[0][:half] + data[1][half:])
    with pytest.raises(infcore.SnapshotError, match="of another file"):
        load_snapshot(_cache(), tmp_path / "c")


KILLED = """
import os, random, signal, sys, time
import infcore
from infcore.cache import save_snapshot, snapshot_file

path, rng = sys.argv[1], random.Random(3)
snapshot_file._CHUNK = 4096  # so that much of the file is written before its end
cache, killed = infcore.Cache(1 << 30, policy="lru"), 0

def fill(generation):
    for i in range(30):
        cache.put(i, [generation] * 50)

def step(call, left):
    def stepped(*arguments):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments)
    return stepped

def attempt(generation, n_steps):
    fill(generation)
    child = os.fork()
    if child == 0:
        if n_steps:  # killed before its n-th write, fsync or rename
            left = [n_steps]
            snapshot_file._Sink._out = step(snapshot_file._Sink._out, left)
            os.fsync, os.rename = step(os.fsync, left), step(os.rename, left)
        while True:
            save_snapshot(cache, path)
            if n_steps:
                os._exit(0)
    if not n_steps:
        time.sleep(rng.uniform(0.0, 0.02))
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    other = infcore.Cache(1 << 30, policy="lru")
    assert infcore.cache.load_snapshot(other, path).entries == 30
    (written,) = {value[0] for _, value, _ in other.entries()}
    assert written in (generation - 1, generation) or not n_steps, (written, generation)
    return os.WIFSIGNALED(status), written == generation

fill(0)
save_snapshot(cache, path)
n, seen = 1, []
while True:
    fill(2 * n)
    save_snapshot(cache, path)
    seen.append(attempt(2 * n + 1, n))
    if not seen[-1][0]:
        break
    n += 1 + n // 4
for generation in range(8):
    attempt(generation, 0)
print(len(seen), seen[:-3] == [(True, False)] * (len(seen) - 3), seen[-1], os.path.exists(path + ".tmp"))
"""


def test_killed_in_the_middle_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "s"
    run = subprocess.run([sys.executable, "-c", KILLED, str(path)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    n, outcome = run.stdout.split(maxsplit=1)
    assert int(n) > 8 and outcome.startswith("True (False, True)"), run.stdout
    assert set(os.listdir(tmp_path)) <= {"s", "s.tmp"}
    save_snapshot(_cache(), path)  # what the killed one left is in nobody's way
    assert os.listdir(tmp_path) == ["s"]


def test_what_lay_in_its_place_makes_it_no_more_readable(tmp_path: Path) -> None:
    (tmp_path / "s.tmp").touch()
    (tmp_path / "s.tmp").chmod(0o666)
    save_snapshot(_cache(), tmp_path / "s")
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600


def test_one_saver_at_a_time(tmp_path: Path) -> None:
    from infcore.cache import snapshot_file

    with snapshot_file._locked(str(tmp_path / "s.tmp")), pytest.raises(infcore.InvalidArgument, match="writing"):
        save_snapshot(_cache(), tmp_path / "s")
    save_snapshot(_cache(), tmp_path / "s")


def test_arguments_are_checked(tmp_path: Path) -> None:
    cache = _cache()
    with pytest.raises(infcore.InvalidType, match="path"):
        save_snapshot(cache, 3)  # type: ignore[arg-type]
    with pytest.raises(infcore.InvalidArgument, match="unwritable is 'no'"):
        save_snapshot(cache, tmp_path / "s", unwritable="no")  # type: ignore[arg-type]
    with pytest.raises(infcore.InvalidArgument, match="at_s"):
        save_snapshot(cache, tmp_path / "s", at_s=math.nan)
    with pytest.raises(infcore.InvalidType, match="pickle"):
        load_snapshot(cache, tmp_path / "s", pickle=1)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        load_snapshot(cache, tmp_path / "s")
    with pytest.raises(infcore.InvalidType, match=r"put\(\) has no \['colour'\]"):
        cache.bring(1, 2, colour=3)
