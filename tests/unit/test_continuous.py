"""What ContinuousBatcher promises, one promise a test; every decision is compared in tests/differential."""

from typing import Any

import numpy as np
import pytest
from paged_memory import PagedMemory

import infcore


def batcher_of(
    n_blocks: int = 32, block_size: int = 4, n_host_blocks: int = 0, **options: Any
) -> infcore.ContinuousBatcher:
    kv = infcore.KVBlocks(n_blocks, block_size, n_host_blocks=n_host_blocks)
    return infcore.ContinuousBatcher(kv, **{"clock": infcore.ManualClock(), **options})


def run(batcher: infcore.ContinuousBatcher, n_steps: int = 1) -> list[list[tuple[int, int, int]]]:
    """(id, first position, n_tokens) of each row of each step; every row emits token 0."""
    steps = []
    for _ in range(n_steps):
        step = batcher.step()
        steps.append([(row["id"], row["first_position"], row["n_tokens"]) for row in step.rows])
        batcher.advance(tokens=np.zeros(len(step), np.int32))
    return steps


def test_decodes_come_before_chunks_of_prefills() -> None:
    batcher = batcher_of(token_budget=6)
    first = batcher.add(3, 9)
    assert run(batcher) == [[(first, 0, 3)]]
    second = batcher.add(12, 2)
    assert run(batcher, 3) == [
        [(first, 3, 1), (second, 0, 5)],
        [(first, 4, 1), (second, 5, 5)],
        [(first, 5, 1), (second, 10, 2)],
    ]
    assert run(batcher, 1) == [[(first, 6, 1), (second, 12, 1)]]
    assert run(batcher, 1) == [[(first, 7, 1)]]  # the second has its two tokens


def test_who_comes_in_first() -> None:
    clock = infcore.ManualClock(100.0)
    batcher = batcher_of(max_running=1, ageing_s=50.0, clock=clock)
    late = batcher.add(1, 0, tier=1, deadline_s=30.0)
    soon = batcher.add(1, 0, tier=1, deadline_s=20.0)
    urgent = batcher.add(1, 0, tier=0)
    never = batcher.add(1, 0, tier=1, arrival_s=60.0)
    never_too = batcher.add(1, 0, tier=1)
    aged = batcher.add(1, 0, tier=9, arrival_s=50.0)
    order = [step[0][0] for step in run(batcher, 6)]
    assert order == [aged, urgent, soon, late, never, never_too]


def test_a_prefix_is_computed_once() -> None:
    batcher = batcher_of()
    prompt = np.arange(11)
    batcher.add(prompt, 6)
    run(batcher)
    second = batcher.add(prompt, 1)
    step = batcher.step()
    assert step.n_matched_tokens == 8  # the two full blocks
    assert tuple(step.rows[1])[:4] == (second, 0, 8, 3)
    assert (step.block_tables[0, :2] == step.block_tables[1, :2]).all()
    batcher.advance(tokens=[5, 5])
    exact = batcher.add(prompt[:8], 1)
    step = batcher.step()
    assert step.rows[step.rows["id"] == exact]["first_position"].item() == 4  # at least one token is computed
    batcher.advance(tokens=np.full(len(step), 5))
    run(batcher, 9)
    assert batcher.n_running == 0
    third = batcher.add([*prompt, 0, 5, 5, 9], 1)  # 11, then what the first was told to have emitted
    assert batcher.step().n_matched_tokens == 12
    assert batcher.cancel(third)


@pytest.mark.parametrize("salt", [0, 1])
def test_salts_do_not_share(salt: int) -> None:
    batcher = batcher_of()
    batcher.add(np.arange(20), 1, salt=0)
    run(batcher)
    batcher.add(np.arange(20), 1, salt=salt)
    assert batcher.step().n_matched_tokens == (16 if salt == 0 else 0)


def test_a_fork_shares_until_it_writes() -> None:
    batcher, memory = batcher_of(), PagedMemory(4)
    first = batcher.add(np.arange(6), 20)
    memory.tokens[first] = list(range(6))
    batcher.advance(tokens=memory.run(batcher.step()))
    forks = [batcher.fork(first, cookie=n) for n in (1, 2)]
    for fork in forks:
        memory.tokens[fork] = list(memory.tokens[first])
    assert batcher.n_running == 3
    n_before = batcher.kv.n_available
    step = batcher.step()
    assert len(step.copies) == 2  # the last of three may write in place
    assert n_before - batcher.kv.n_available == 2
    assert step.rows["cookie"].tolist() == [0, 1, 2]
    batcher.advance(tokens=memory.run(step))
    for _ in range(18):
        batcher.advance(tokens=memory.run(batcher.step()))
    assert batcher.n_running == 0
    assert len({tuple(tokens) for tokens in memory.tokens.values()}) == 3


def test_an_urgent_arrival_takes_the_place_of_the_last_of_the_lowest_tier() -> None:
    batcher = batcher_of(max_running=3)
    low, middle, low_too = (batcher.add(4, 50, tier=tier) for tier in (2, 1, 2))
    run(batcher)
    urgent = batcher.add(4, 3, tier=0)
    step = batcher.step()
    assert step.preempted.tolist() == [low_too]
    assert step.rows["id"].tolist() == [middle, low, urgent]
    batcher.advance()
    later = batcher.add(4, 1, tier=2, deadline_s=0.5)  # sooner due, and yet later than who was pre-empted
    run(batcher, 2)
    assert [row[0] for row in run(batcher)[0]] == [middle, low, low_too]
    assert batcher.n_preempted == 1
    assert batcher.cancel(later)


def test_who_was_preempted_comes_back_by_arrival_and_not_by_deadline() -> None:
    batcher = batcher_of(max_running=2)
    first = batcher.add(4, 9, tier=1, arrival_s=0.0)
    second = batcher.add(4, 9, tier=1, arrival_s=1.0, deadline_s=100.0)
    run(batcher)
    for n_output_tokens_max in (1, 3):
        batcher.add(4, n_output_tokens_max, tier=0)
    assert batcher.step().preempted.tolist() == [second, first]
    batcher.advance()
    assert [row[0] for row in run(batcher)[0]][1:] == [first]
    assert batcher.n_waiting == 1


def test_nobody_is_preempted_in_vain() -> None:
    batcher = batcher_of(n_blocks=8, max_running=4)
    low = batcher.add(4, 8, tier=1)
    high = batcher.add(16, 8, tier=0)
    run(batcher)
    huge = batcher.add(20, 1, tier=0)  # five blocks: not even without the low one
    assert {row[0] for row in run(batcher)[0]} == {low, high}
    assert batcher.n_preempted == 0
    assert batcher.cancel(high)
    assert {row[0] for row in run(batcher)[0]} == {low, huge}


def test_blocks_that_it_would_find_are_not_counted_twice() -> None:
    batcher = batcher_of(n_blocks=9, max_running=4)
    prompt = np.arange(32)
    high, low = batcher.add(5, 3, tier=0), batcher.add(prompt[:16], 3, tier=1)
    run(batcher, 2)
    assert batcher.kv.n_available == 2
    batcher.add(prompt, 1, tier=0)  # finds the four of the low one; with its fifth there are three for the other four
    assert {row[0] for row in run(batcher)[0]} == {low, high}
    assert batcher.n_preempted == 0


def test_a_decode_that_lacks_a_block_takes_it_from_the_last_rank() -> None:
    batcher = batcher_of(n_blocks=5)
    first, second = batcher.add(7, 9), batcher.add(7, 9)
    run(batcher, 2)
    step = batcher.step()  # both are at the end of their two blocks; one is left
    assert step.preempted.tolist() == [second]
    assert step.rows["id"].tolist() == [first]
    batcher.advance()
    steps = run(batcher, 40)
    assert [row[0] for rows in steps for row in rows].count(first) == 6
    assert batcher.n_running + batcher.n_waiting == 0
    assert batcher.n_preempted == 1  # it comes back once there is room to stay


@pytest.mark.parametrize(
    ("swap_block_s", "n_host_blocks", "swaps"), [(0.1, 8, True), (10.0, 8, False), (0.1, 1, False), (0.1, 0, False)]
)
def test_swaps_where_that_is_cheaper(swap_block_s: float, n_host_blocks: int, swaps: bool) -> None:
    curve = infcore.TokenCurve(per_prefill_token_s=0.1, swap_block_s=swap_block_s)
    batcher = batcher_of(8, n_host_blocks=n_host_blocks, max_running=1, curve=curve)
    low = batcher.add(7, 9, tier=1)
    run(batcher, 2)  # eight tokens computed
    urgent = batcher.add(1, 0)
    step = batcher.step()
    assert step.rows["id"].tolist() == [urgent]
    assert len(step.swap_outs) == (2 if swaps else 0)
    batcher.advance()
    step = batcher.step()
    assert tuple(step.rows[0])[:4] == ((low, 0, 8, 1) if swaps else (low, 0, 0, 9))
    assert len(step.swap_ins) == 2 * swaps
    assert not swaps or (step.swap_ins[:, 1] == step.block_tables[0, :2]).all()
    assert step.rows["decodes"].item() is swaps
    assert batcher.kv.n_host_free == n_host_blocks - 2 * swaps  # read by this step: free from the next one on
    batcher.advance()
    batcher.step()
    assert batcher.kv.n_host_free == n_host_blocks


def test_what_comes_back_from_the_host_writes_into_no_block_of_others() -> None:
    """Somebody has computed and kept, meanwhile, what it still has to compute."""
    curve = infcore.TokenCurve(per_prefill_token_s=1.0, swap_block_s=0.01)
    batcher = batcher_of(12, 2, n_host_blocks=12, max_running=1, token_budget=4, curve=curve)
    prompt = np.arange(10)
    low = batcher.add(prompt, 1, tier=1)
    run(batcher)  # four tokens of it computed
    batcher.add(prompt, 1)
    run(batcher, 2)
    assert (batcher.n_swapped_out, batcher.kv.n_cached) == (1, 5)
    step = batcher.step()
    assert tuple(step.rows[0])[:4] == (low, 0, 4, 4)
    assert [batcher.kv.n_uses(block) for block in step.block_tables[0]] == [1] * 5
    assert batcher.kv.n_free == 12 - 5 - 3  # what it writes are blocks of its own, not those that were kept
    batcher.advance()


def test_who_waits_past_the_deadline_is_told_once() -> None:
    clock = infcore.ManualClock()
    batcher = batcher_of(max_running=1, clock=clock)
    batcher.add(1, 100)
    run(batcher)
    late = batcher.add(1, 1, cookie=5, deadline_s=2.0)
    assert batcher.next_event_s == 2.0
    past = batcher.add(1, 1, cookie=6, deadline_s=0.0)
    step = batcher.step(now_s=1.0)
    assert (step.expired.tolist(), step.expired_cookies.tolist()) == ([past], [6])
    batcher.advance()
    step = batcher.step(now_s=2.0)
    assert step.expired.tolist() == [late]
    batcher.advance()
    assert batcher.step(now_s=3.0).expired.tolist() == []
    assert batcher.next_event_s is None
    assert not batcher.cancel(late)


def test_a_clock_that_goes_back_stands_still() -> None:
    batcher = batcher_of(max_running=1)
    batcher.add(1, 100)
    run(batcher)
    waits = batcher.add(1, 1, deadline_s=5.0, now_s=0.0)
    for now_s, expired in ((4.0, []), (-100.0, []), (4.5, []), (5.0, [waits])):
        assert batcher.step(now_s=now_s).expired.tolist() == expired
        batcher.advance()


def test_cancel_while_it_is_in_a_step_keeps_its_blocks_to_the_end() -> None:
    batcher = batcher_of(8)
    id_ = batcher.add(8, 8)
    batcher.step()
    assert batcher.cancel(id_)
    assert not batcher.cancel(id_)
    assert batcher.kv.n_available == 6
    assert batcher.advance(tokens=[0]).tolist() == []
    assert batcher.kv.n_available == 8


def test_the_caller_ends_rows_and_the_bound_does() -> None:
    batcher = batcher_of()
    ids = [batcher.add(3, n) for n in (0, 1, 2, 9)]
    step = batcher.step()
    assert step.rows["emits"].tolist() == [False, True, True, True]
    assert batcher.advance().tolist() == [0, 1]
    step = batcher.step()
    assert step.rows["id"].tolist() == ids[2:]
    assert batcher.advance(ended=np.array([False, True])).tolist() == [0, 1]
    assert len(batcher.step()) == 0


def test_what_needs_every_block_runs() -> None:
    batcher = batcher_of(4, token_budget=5)
    ids = [batcher.add(14, 3) for _ in range(3)]
    ran = [row[0] for step in run(batcher, 15) for row in step]
    assert ran == [id_ for id_ in ids for _ in range(5)]  # 5 + 5 + 4, then two tokens


def test_huge_and_zero() -> None:
    batcher = batcher_of(8, 4, token_budget=2**32 - 1, max_sequences=300)
    assert len(batcher.step()) == 0  # nothing to do is a step, too
    assert batcher.advance().tolist() == []
    assert len(batcher.step()) == 0
    id_ = batcher.add(1, 32, cookie=2**64 - 1, tier=65535, deadline_s=1e300, arrival_s=-8e9)
    assert tuple(batcher.step().rows[0])[:2] == (id_, 2**64 - 1)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda b: b.add(0, 1), infcore.InvalidArgument, "n_prompt_tokens is 0; allowed: 1 to 32"),
        (lambda b: b.add([], 1), infcore.InvalidArgument, "n_prompt_tokens is 0; allowed: 1 to 32"),
        (lambda b: b.add(33, 0), infcore.InvalidArgument, "n_prompt_tokens is 33; allowed: 1 to 32"),
        (lambda b: b.add(30, 4), infcore.InvalidArgument, "n_output_tokens_max is 4; allowed: 0 to 3"),
        (lambda b: b.add(1, 2**32), infcore.InvalidArgument, "n_output_tokens_max is 4294967296; allowed: an int"),
        (lambda b: b.add(1.5, 1), infcore.InvalidArgument, r"prompt has shape \(\); allowed: one axis"),
        (lambda b: b.add([0.5], 1), infcore.InvalidType, "prompt has dtype float64; allowed: whole numbers"),
        (lambda b: b.add(1, 1, tier=-1), infcore.InvalidArgument, "tier is -1; allowed: an int from 0 to 65535"),
        (lambda b: b.add(1, 1, deadline_s=-1.0), infcore.InvalidArgument, "deadline_s is -1.0; allowed: seconds >= 0"),
        (
            lambda b: b.add(1, 1, cookie=2**64),
            infcore.InvalidArgument,
            "cookie is 18446744073709551616; allowed: an int",
        ),
        (
            lambda b: b.add(9, 1, prompt_hashes=np.zeros(3, np.uint64)),
            infcore.InvalidArgument,
            "prompt_hashes is 3 long; allowed: none, or one for each of the prompt's 2 full blocks",
        ),
        (
            lambda b: b.add([1], 1, prompt_hashes=np.zeros(0, np.uint64)),
            infcore.InvalidArgument,
            "prompt_hashes is given beside tokens; allowed: None, or prompt as a number",
        ),
        (lambda b: b.fork(12345), infcore.InvalidArgument, "id is 12345; allowed: a sequence that has not ended"),
        (lambda b: [b.add(1, 1) for _ in range(5)], infcore.QueueFull, "holds max_sequences = 4 sequences"),
        (lambda b: [b.add(1, 9), b.step(), b.step()], infcore.InvalidArgument, "a step is out; allowed: advance first"),
        (
            lambda b: [b.fork(i) for i in [b.add(1, 9)] if b.step()],
            infcore.InvalidArgument,
            "while a step is out; allowed",
        ),
        (
            lambda b: [b.add(1, 9), b.step(), b.advance(tokens=[1, 2])],
            infcore.InvalidArgument,
            "tokens has 2 entries; allowed: 1, one a row of the step",
        ),
        (
            lambda b: [b.add(1, 9), b.step(), b.advance(ended=[1])],
            infcore.InvalidArgument,
            r"ended has dtype int64, shape \(1,\); allowed: bool, \(1,\)",
        ),
        (lambda b: b.kv.alloc(1), infcore.InvalidArgument, "kv is used by a ContinuousBatcher; allowed"),
        (lambda b: infcore.ContinuousBatcher(b.kv), infcore.InvalidArgument, "kv is used by a ContinuousBatcher"),
        (lambda _: infcore.ContinuousBatcher(8), infcore.InvalidType, "kv is int; allowed: an infcore.KVBlocks"),
        (lambda _: batcher_of(token_budget=0), infcore.InvalidArgument, "token_budget is 0; allowed: an int from 1"),
        (lambda _: batcher_of(max_running=0), infcore.InvalidArgument, "max_running is 0; allowed: 1 to 1048576"),
        (
            lambda _: batcher_of(max_running=9, max_sequences=8),
            infcore.InvalidArgument,
            "max_sequences is 8; allowed: 9 to",
        ),
        (
            lambda _: batcher_of(max_sequence_tokens=129),
            infcore.InvalidArgument,
            "max_sequence_tokens is 129; allowed: 1 to",
        ),
        (lambda _: batcher_of(curve=3), infcore.InvalidType, "curve is int; allowed: None or an infcore.TokenCurve"),
        (lambda _: infcore.KVBlocks(0, 16), infcore.InvalidArgument, "n_blocks is 0; allowed: 1 to 1073741824"),
        (lambda _: infcore.KVBlocks(1, 0), infcore.InvalidArgument, "block_size is 0; allowed: 1 to 65536"),
        (lambda _: infcore.KVBlocks(1, 1, policy="x"), infcore.UnknownName, "policy is 'x'; known: .*gdsf, .*lru"),
        (
            lambda _: infcore.TokenCurve(base_s=-1.0),
            infcore.InvalidArgument,
            "base_s is -1.0; allowed: a finite number >= 0",
        ),
        (lambda _: infcore.TokenStep(), infcore.InvalidType, "TokenStep cannot be made; allowed: what"),
    ],
)
def test_bad_input_is_refused_in_one_line(call: Any, error: type[Exception], says: str) -> None:
    batcher = batcher_of(8, 4, max_running=2, max_sequences=4)
    with pytest.raises(error, match=says) as raised:
        call(batcher)
    assert "\n" not in str(raised.value)


def test_block_tables_are_those_of_the_last_step() -> None:
    batcher = batcher_of()
    batcher.add(3, 9)
    step = batcher.step()
    batcher.advance()
    assert step.block_tables.shape == (1, 1)
    old = batcher.step()
    batcher.advance()
    batcher.step()
    with pytest.raises(infcore.InvalidArgument, match="not the batcher's last one"):
        _ = old.block_tables


def test_curve() -> None:
    curve = infcore.TokenCurve(
        base_s=1.0, prefill_base_s=2.0, per_prefill_token_s=0.5, per_prefill_token2_s=0.25, decode_base_s=4.0,
        per_decode_s=0.125, per_context_token_s=0.0625, per_context_token2_s=-0.001953125,
    )  # fmt: skip
    assert curve.step_s(0, 0, 0) == 1.0
    assert curve.step_s(4, 0, 0) == 1.0 + 2.0 + 2.0 + 4.0
    assert curve.step_s(0, 2, 16) == 1.0 + 4.0 + 0.25 + 1.0 - 0.5
    assert curve.step_s(4, 2, 16) == 9.0 + 4.75
    assert curve.step_s(0, 1, 10_000) == 0.0  # below zero counts as zero


def test_the_blocks_are_free_again_once_the_batcher_is_gone() -> None:
    kv = infcore.KVBlocks(8, 4)
    batcher = infcore.ContinuousBatcher(kv)
    batcher.add(np.arange(9), 4)
    batcher.step()
    del batcher
    assert kv.n_available == 8
    assert kv.n_free == 8
    assert len(kv.alloc(8)) == 8
