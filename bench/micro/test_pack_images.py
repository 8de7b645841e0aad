"""infcore.image_pack and block_table against the ways people do it by hand. Each group shows ratios to its fastest row.

All on one thread. Outputs are new in every round, as a server's are; the group "out" writes to the same memory again.
"""

import numpy as np
import pytest

import infcore

MEAN = np.float32([123.675, 116.28, 103.53])
SCALE = 1 / np.float32([58.395, 57.12, 57.375])
SIZES = {
    "32 x 224 x 224": [(224, 224)] * 32,
    "1 x 224 x 224": [(224, 224)],
    "8 of 480 to 640 x 640": [(480 + 20 * i, 640 - 30 * i) for i in range(8)],
}


def images_of(name):
    random = np.random.default_rng(1)
    return [random.integers(0, 256, (*size, 3), np.uint8) for size in SIZES[name]]


def ours(images, dtype):
    return infcore.image_pack(images, MEAN, SCALE, dtype=dtype)


def by_numpy(images, dtype):
    height, width = np.max([image.shape[:2] for image in images], axis=0)
    batch = np.zeros((len(images), 3, height, width), dtype)
    for image, place in zip(images, batch, strict=True):
        normal = (image.astype(np.float32) - MEAN) * SCALE
        place[:, : image.shape[0], : image.shape[1]] = normal.transpose(2, 0, 1)
    return batch


def by_torch(images, dtype):
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    height, width = np.max([image.shape[:2] for image in images], axis=0)
    batch = torch.zeros((len(images), 3, int(height), int(width)), dtype=getattr(torch, dtype))
    mean, scale = torch.from_numpy(MEAN)[:, None, None], torch.from_numpy(SCALE)[:, None, None]
    for image, place in zip(images, batch, strict=True):
        normal = torch.from_numpy(image).permute(2, 0, 1).float().sub_(mean).mul_(scale)
        place[:, : image.shape[0], : image.shape[1]] = normal
    return batch.numpy()


def by_opencv(images, dtype):
    """cv2.dnn.blobFromImages has one factor for all channels, so the second factor is a pass of its own."""
    cv2 = pytest.importorskip("cv2", exc_type=ImportError)
    cv2.setNumThreads(1)
    batch = cv2.dnn.blobFromImages(images, 1.0, images[0].shape[1::-1], MEAN.tolist(), swapRB=False)
    batch *= SCALE[:, None, None]
    return batch.astype(dtype, copy=False)


WAYS = {"infcore.image_pack": ours, "NumPy": by_numpy, "PyTorch": by_torch, "OpenCV": by_opencv}


# blobFromImages resizes, it does not pad.
CASES = [(way, name) for name in SIZES for way in WAYS if way != "OpenCV" or len(set(SIZES[name])) == 1]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("way", "name"), CASES)
def test_image_pack(benchmark, way, name, dtype):
    images = images_of(name)
    benchmark.group = f"{dtype}: {name}"
    batch = benchmark(WAYS[way], images, dtype)
    assert batch.dtype == dtype
    assert np.allclose(batch, by_numpy(images, dtype), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("way", ["infcore.image_pack(out=)", "np.copyto of as many bytes"])
def test_image_pack_out(benchmark, way):
    images = images_of("32 x 224 x 224")
    benchmark.group = "float32, out: 32 x 224 x 224"
    out, other = np.empty((2, len(images), 3, 224, 224), np.float32)
    other[:] = 1
    if way.startswith("infcore"):
        benchmark(lambda: infcore.image_pack(images, MEAN, SCALE, out=out))
        assert np.array_equal(out, by_numpy(images, "float32"))
    else:
        benchmark(np.copyto, out, other)


def requests():
    random = np.random.default_rng(2)
    lengths = random.integers(1, 200, 256)
    blocks = [random.integers(0, 50000, n).astype(np.int32) for n in lengths]
    return blocks, lengths * 16 - random.integers(1, 16, 256), np.ones(256, np.int32)


def tables_by_numpy(blocks, computed, query_lens):
    table = np.full((len(blocks), max(map(len, blocks))), -1, np.int32)
    for row, ids in zip(table, blocks, strict=True):
        row[: len(ids)] = ids
    starts = np.zeros(len(blocks) + 1, np.int32)
    np.cumsum(query_lens, out=starts[1:])
    requests = np.repeat(np.arange(len(blocks)), query_lens)
    positions = np.arange(starts[-1]) - np.repeat(starts[:-1], query_lens) + computed[requests]
    return table, table[requests, positions // 16].astype(np.int64) * 16 + positions % 16, starts


@pytest.mark.parametrize("way", ["infcore.block_table", "NumPy"])
def test_block_table(benchmark, way):
    blocks, computed, query_lens = requests()
    benchmark.group = "block tables: 256 requests, up to 200 blocks, one new token each"
    ways = {
        "infcore.block_table": lambda: infcore.block_table(
            blocks, computed=computed, query_lens=query_lens, block_size=16, n_blocks=50000
        ),
        "NumPy": lambda: tables_by_numpy(blocks, computed, query_lens),
    }
    made = benchmark(ways[way])
    assert all(np.array_equal(one, other) for one, other in zip(made, tables_by_numpy(*requests()), strict=True))
