"""Names of token prefixes: equal for equal prefixes whatever holds them, different for all else."""

import numpy as np
import pytest

import infcore


@pytest.mark.parametrize("block_size", [1, 2, 3, 15, 16, 17, 32, 50])
def test_element_i_names_the_prefix_up_to_its_end(block_size: int) -> None:
    tokens = np.random.default_rng(block_size).integers(-5, 150_000, 5 * block_size + block_size // 2, dtype=np.int32)
    names = infcore.block_hashes(tokens, block_size=block_size, salt=3)
    assert names.dtype == np.uint64
    assert len(names) == len(tokens) // block_size  # no name for a block that is not full
    for i in range(len(names)):
        assert infcore.block_hashes(tokens[: (i + 1) * block_size], block_size, 3)[-1] == names[i]
    for at in range(len(names) * block_size):
        changed = tokens.copy()
        changed[at] += 1
        same = infcore.block_hashes(changed, block_size, 3) == names
        assert same.tolist() == [i < at // block_size for i in range(len(names))]


def test_int32_int64_and_lists_name_alike() -> None:
    tokens = np.array([0, 1, -1, 2**31 - 1, -(2**31), 7, 7, 7, 151_643] * 9, np.int32)
    wide = np.repeat(tokens.astype(np.int64), 2)[::2]  # not contiguous
    for block_size in (1, 4, 16, 19):
        names = infcore.block_hashes(tokens, block_size)
        assert (names == infcore.block_hashes(wide, block_size)).all()
        assert (names == infcore.block_hashes(tokens.tolist(), block_size)).all()
        assert (names == infcore.block_hashes(list(tokens), block_size)).all()  # NumPy's integers, not Python's
        assert (names == infcore.block_hashes(tuple(tokens.tolist()), block_size)).all()


def test_names_are_the_same_on_every_machine() -> None:
    names = [infcore.block_hashes(np.arange(100), block_size, salt) for block_size, salt in ((16, 0), (16, 1), (7, 0))]
    assert [int(of[-1]) for of in names] == [13584845536101836995, 2002945391654524170, 7129493567908100954]


def test_salts_and_block_sizes_share_nothing() -> None:
    tokens = np.zeros(960, np.int32)
    rows = [infcore.block_hashes(tokens, size, salt) for size in (1, 2, 16, 32) for salt in (0, 1, 2**64 - 1)]
    everything = np.concatenate(rows)
    assert len(np.unique(everything)) == len(everything)


def test_many_prefixes_have_as_many_names() -> None:
    same = infcore.block_hashes(np.zeros(300_000, np.int32), 1)
    counted = infcore.block_hashes(np.arange(300_000), 1)
    names = np.sort(np.concatenate([same, counted]))
    assert (names[1:] == names[:-1]).sum() == 1  # both begin with token 0


def test_nothing_to_name() -> None:
    assert len(infcore.block_hashes([])) == 0
    assert len(infcore.block_hashes(np.arange(15))) == 0


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"tokens": np.zeros(3)}, infcore.InvalidType, "tokens has dtype float64; allowed: whole numbers"),
        ({"tokens": np.zeros((2, 2), int)}, infcore.InvalidArgument, r"tokens has shape \(2, 2\); allowed: one axis"),
        (
            {"tokens": [2**63]},
            infcore.InvalidArgument,
            r"tokens\[0\] is 9223372036854775808; allowed: what int64 holds",
        ),
        (
            {"tokens": [1, -(2**63) - 1]},
            infcore.InvalidType,
            "tokens has dtype object; allowed: whole numbers",
        ),
        ({"tokens": [1, 2.0]}, infcore.InvalidType, "tokens has dtype float64; allowed: whole numbers"),
        ({"tokens": [True, False]}, infcore.InvalidType, "tokens has dtype bool; allowed: whole numbers"),
        ({"tokens": [1, [2]]}, infcore.InvalidType, "tokens is no row of numbers"),
        ({"tokens": "abc"}, infcore.InvalidArgument, r"tokens has shape \(\); allowed: one axis"),
        ({"tokens": [1], "block_size": 0}, infcore.InvalidArgument, "block_size is 0; allowed: an int from 1 to 65536"),
        ({"tokens": [1], "block_size": 1.5}, infcore.InvalidType, "block_size is float; allowed: an int"),
        (
            {"tokens": [1], "salt": -1},
            infcore.InvalidArgument,
            "salt is -1; allowed: an int from 0 to 18446744073709551615",
        ),
    ],
)
def test_bad_input(arguments: dict[str, object], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says) as raised:
        infcore.block_hashes(**arguments)
    assert "\n" not in str(raised.value)
