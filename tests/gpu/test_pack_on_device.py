"""infcore.pack(device=...) end to end: staged, copied, packed by the interpreted kernel; and what is refused."""

import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from gpu import interpreter

import infcore
from infcore import InvalidArgument, InvalidType
from infcore.packing_device import _pack_on_device

ROWS = [np.arange(length * 6, dtype=np.float32).reshape(length, 2, 3) * 0.3 - 4 for length in (5, 0, 1, 37)]


def pack_interpreted(rows, **options):
    interpreter.require()
    given = {
        "lengths": None,
        "layout": "packed",
        "device": "cpu",
        "dtype": None,
        "pad_value": 0,
        "side": "right",
        "batch_axis": 0,
        "stream": None,
        "backend": "triton",
    }
    return _pack_on_device(rows, **given | options)


def bits(array):
    """Shape and bytes of an array of any library."""
    if not isinstance(array, np.ndarray):
        torch = interpreter.require()
        array = array.view(torch.uint8).numpy() if array.dtype == torch.bfloat16 else array.numpy()
    return array.view(np.uint8).tobytes()


@pytest.mark.parametrize("lengths", [None, [3, 0, 1, 20]])
@pytest.mark.parametrize("dtype", [None, "float16", "bfloat16", "int32"])
@pytest.mark.parametrize(
    "options",
    [{}, {"layout": "padded", "pad_value": 7}, {"layout": "padded", "side": "left", "pad_value": -1}],
    ids=["packed", "padded", "left"],
)
def test_as_on_the_cpu(options, dtype, lengths):
    there = pack_interpreted(ROWS, dtype=dtype, lengths=lengths, **options)
    here = infcore.pack(ROWS, dtype=dtype, lengths=lengths, **options)
    assert tuple(there.data.shape) == here.data.shape
    assert bits(there.data) == bits(here.data)
    assert bits(there.cu_seqlens) == bits(here.cu_seqlens)
    assert there.lengths.tolist() == here.lengths.tolist()
    assert (len(there), there.max_seqlen, there.row_ndim, there.side) == (4, here.max_seqlen, 3, here.side)
    assert repr(there) == repr(here)
    if here.layout == "packed":
        assert there.mask is None
        assert bits(there.position_ids) == bits(here.position_ids)
    else:
        assert there.position_ids is None
        assert bits(there.mask) == bits(here.mask)
    for row, expected in zip(infcore.unpack(there), infcore.unpack(here), strict=True):
        assert tuple(row.shape) == expected.shape
        assert bits(row.contiguous()) == bits(np.ascontiguousarray(expected))


def test_rows_come_back_as_views():
    batch = pack_interpreted(ROWS)
    infcore.unpack(batch)[3][36] = 99.0
    assert batch.data[-1].tolist() == [[99.0] * 3] * 2


def test_rows_of_bfloat16_and_rows_that_are_not_contiguous():
    rows = [np.arange(12, dtype=np.float32).reshape(4, 3).astype(ml_dtypes.bfloat16)[::-1] for _ in range(2)]
    assert bits(pack_interpreted(rows).data) == bits(infcore.pack(rows).data)


def test_one_arena_serves_batch_after_batch():
    from infcore import _on_device

    for _ in range(5):
        pack_interpreted(ROWS)
    arena = _on_device._arenas[0]
    before = arena.n_allocations
    for _ in range(20):
        pack_interpreted(ROWS)
    assert _on_device._arenas == [arena]
    assert arena.n_allocations == before


@pytest.mark.parametrize(
    ("rows", "options", "error", "says"),
    [
        ([], {}, InvalidArgument, "rows is empty"),
        (3, {}, InvalidType, "rows is int; allowed: a sequence of arrays"),
        ([1.0, 2.0], {}, InvalidArgument, r"rows\[0\] has no axes"),
        ([np.zeros(2, bool)], {}, InvalidType, "bool"),
        ([np.zeros(2, ">f4")], {}, InvalidType, ">f4"),
        ([np.zeros(2), np.zeros(2, "f4")], {}, InvalidType, r"rows\[1\] has dtype float32"),
        (ROWS, {"lengths": [6, 0, 1, 37]}, InvalidArgument, r"lengths\[0\] is 6; allowed: 0 to 5"),
        (ROWS, {"batch_axis": 1}, InvalidArgument, "batch_axis is 1; allowed: 0 where device is 'cpu'"),
        (ROWS, {"dtype": "float64"}, InvalidType, "float64"),
        (ROWS, {"layout": "padded", "dtype": "int8", "pad_value": 300}, InvalidArgument, "pad_value is 300"),
        (ROWS, {"device": "cuda:x"}, InvalidArgument, "device is 'cuda:x'; allowed: 'cpu', 'cuda', 'cuda:N'"),
        (ROWS, {"device": 0}, InvalidArgument, "device is 0; allowed: 'cpu', 'cuda', 'cuda:N'"),
    ],
)
def test_refused_before_any_launch(rows, options, error, says):
    with pytest.raises(error, match=says):
        pack_interpreted(rows, **options)


def test_what_is_of_no_meaning_in_a_packed_batch_is_not_looked_at():
    rows = [np.ones(2, np.uint8)]
    options = {"pad_value": -100, "side": "left"}
    assert bits(pack_interpreted(rows, **options).data) == bits(infcore.pack(rows, **options).data)


@pytest.mark.parametrize("rows", [{2.0}, {0: 2.0}, np.float32(3), np.array(3.0)])
def test_rows_that_are_no_sequence_of_arrays(rows):
    says = r"rows\[0\] has no axes|rows is (float32|ndarray); allowed"
    with pytest.raises((InvalidArgument, InvalidType), match=says):
        pack_interpreted(rows)


def test_a_gpu_that_is_not_there(monkeypatch):
    from infcore import _on_device
    from infcore.kernels import transfer

    interpreter.require()
    monkeypatch.setattr(transfer, "has_gpu", lambda backend: True)
    monkeypatch.setattr(_on_device, "gpus", lambda backend: (2, 1))
    with pytest.raises(InvalidArgument, match="device is 'cuda:2'; allowed here: 'cpu', 'cuda:0' to 'cuda:1'"):
        infcore.pack(ROWS, device="cuda:2")
    monkeypatch.setattr(transfer, "n_gpus", lambda backend: 2)
    with pytest.raises(InvalidType, match=r"stream is '7', allowed is None, a torch\.cuda\.Stream or"):
        infcore.pack(ROWS, device="cuda:1", stream="7")
    places = []
    monkeypatch.setattr(transfer, "upload", lambda memory, device, **_: places.append(device) or (memory, None))
    infcore.pack(ROWS, device="cuda")
    assert places == ["cuda:1"]  # the current one, whatever the library


def test_without_a_gpu():
    torch = interpreter.require()
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(InvalidArgument, match="device is 'cuda:1'; allowed: 'cpu', as torch finds no GPU here"):
        infcore.pack(ROWS, device="cuda:1")


WITHOUT_PACKAGES = """
import sys
for package in ("torch", "triton", "cupy"):
    sys.modules[package] = None  # as an import that fails leaves it
import infcore
try:
    infcore.pack([[1.0]], device="cuda")
except infcore.MissingExtra as error:
    print(error)
"""


def test_without_the_packages():
    said = subprocess.run([sys.executable, "-c", WITHOUT_PACKAGES], capture_output=True, text=True, check=True).stdout
    assert said == "device 'cuda' needs the packages 'torch' and 'triton', or 'cupy': pip install 'infcore[gpu]'\n"
