"""Token models in an engine, on emulated devices: answers, batching, deadlines, cancels, membership, figures."""

import asyncio
import concurrent.futures
import gc
import weakref

import numpy as np
import pytest
from engine_rig import WAIT_S, model, wait_until, x_of
from token_device_rig import (
    VOCAB,
    GatedTokens,
    Watched,
    answer_of,
    emulated,
    engine_of_tokens,
    expected,
    inputs_of,
    prompt_of,
    token_model,
)

import infcore
from infcore import CallableDevice, ManualClock, TokenCurve
from infcore.sim import replay
from infcore.token_device import token_after


def test_one_answer():
    with engine_of_tokens(emulated()) as engine:
        outputs = engine.submit("t", inputs_of([5, 6, 7])).result(timeout_s=WAIT_S)
    assert list(outputs) == ["tokens"]
    assert outputs["tokens"].dtype == np.int64
    assert outputs["tokens"].tolist() == expected([5, 6, 7], 8)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("n_new", [1, 2, 8])
@pytest.mark.parametrize("length", [1, 3, 4, 5, 150])
def test_lengths_and_dtypes(length, n_new, dtype):
    prompt = prompt_of(length)
    with engine_of_tokens(emulated()) as engine:
        inputs = inputs_of(prompt.astype(dtype), max_new_tokens=n_new)
        assert answer_of(engine.submit("t", inputs)) == expected(prompt, n_new)


def test_answers_do_not_depend_on_what_runs_beside_them():
    """Chunked prefills, shared prefixes, pre-emption for want of blocks: each answer as if it were alone."""
    device = emulated(kind=Watched, n_blocks=30, token_budget=24, max_running=8, slots=24)
    prompts = [np.concatenate([prompt_of(20, i % 3), prompt_of(1 + 7 * i % 31, 100 + i)]) for i in range(60)]
    with engine_of_tokens(device, models=[token_model(max_new_tokens=24)]) as engine:
        futures = [engine.submit("t", inputs_of(prompt), tier=i % 3) for i, prompt in enumerate(prompts)]
        assert [answer_of(future) for future in futures] == [expected(prompt, 24) for prompt in prompts]
        figures = device.runs[0].figures()
    assert max(len(step.emits) for step in device.steps) >= 4
    assert max(len(step.tokens) for step in device.steps) <= 24
    assert any(step.n_prefill_tokens and step.n_decode_rows for step in device.steps)
    assert sum(len(step.tokens) for step in device.steps) < sum(len(p) + 23 for p in prompts)  # prefixes were shared
    assert figures["preempted"] > 0
    assert device.is_clean()


def test_what_makes_room_may_go_to_the_host():
    curve = TokenCurve(per_prefill_token_s=1e-3, swap_block_s=1e-6)
    device = emulated(kind=Watched, n_blocks=16, n_host_blocks=64, max_running=4)
    device.moving_curve = curve  # what it says costs; a test need not wait for it
    device.step_s = lambda step: 0.0
    prompts = [prompt_of(12, i) for i in range(12)]
    with engine_of_tokens(device, models=[token_model(max_new_tokens=40)]) as engine:
        futures = [engine.submit("t", inputs_of(prompt)) for prompt in prompts]
        assert [answer_of(future) for future in futures] == [expected(prompt, 40) for prompt in prompts]
        figures = device.runs[0].figures()
    assert figures["swapped_out"] > 0
    assert sum(len(step.swap_ins) for step in device.steps) > 0
    assert device.is_clean()


def test_a_stop_token_ends_the_answer_and_stands_in_it():
    prompt = prompt_of(6)
    stop = expected(prompt, 8)[3]
    with engine_of_tokens(emulated(), models=[token_model(stop_tokens=[stop])]) as engine:
        assert answer_of(engine.submit("t", inputs_of(prompt))) == expected(prompt, 8, [stop])


def test_requests_join_between_steps():
    device = emulated(kind=GatedTokens)
    with engine_of_tokens(device) as engine:
        first = engine.submit("t", inputs_of([1, 2]))
        device.wait_entered()
        second = engine.submit("t", inputs_of([3]))
        device.let()
        device.wait_entered()
        device.open()
        assert (answer_of(first), answer_of(second)) == (expected([1, 2], 8), expected([3], 8))
    assert [len(step.emits) for step in device.steps] == [1] + [2] * 7 + [1]


def test_a_step_takes_what_its_curve_says():
    device = emulated(curve=TokenCurve(base_s=0.01))
    with engine_of_tokens(device) as engine:
        future = engine.submit("t", inputs_of([1], max_new_tokens=4))
        answer_of(future)
        figures = engine.stats()
    assert future.latency_s >= 4 * 0.01
    assert figures["devices"]["d"]["emulated"] is True
    for part in (figures["models"]["t"], figures["devices"]["d"]):
        assert 0.01 <= part["ttft_s"]["mean"] < part["latency_s"]["mean"]


@pytest.mark.parametrize("n_before", [1, 2, 3, 4])
def test_forks_part_where_they_write(n_before):
    """Wherever in a block they part: each goes on from what it has itself."""
    device = emulated()
    device.load(token_model())
    run = device.new_run("t")
    places = [run.add(prompt_of(7), 12)]
    sequences = {places[0]: prompt_of(7).tolist()}
    while (step := run.step()) is not None:
        tokens = device.run_step("t", step)
        for row, place in enumerate(run.places()):
            assert tokens[row] == token_after(np.array(sequences[place]), VOCAB)
            tokens[row] = (tokens[row] + places.index(place)) % VOCAB  # a caller may choose another than the likeliest
            sequences[place].append(int(tokens[row]))
        run.advance(tokens, np.zeros(len(tokens), bool))
        if len(sequences[places[0]]) == 7 + n_before:
            places += [run.fork(places[0]), run.fork(places[0])]
            sequences |= {place: list(sequences[places[0]]) for place in places[1:]}
    assert [len(sequences[place]) for place in places] == [7 + 12] * 3
    assert len({tuple(sequence) for sequence in sequences.values()}) == 3
    assert run.figures()["available"] == run.figures()["blocks"]


def test_a_run_that_is_misused():
    device = emulated()
    device.load(token_model())
    run = device.new_run("t")
    with pytest.raises(infcore.InvalidArgument, match="one axis"):
        run.add(np.zeros((2, 3), np.int64), 4)
    place = run.add(prompt_of(5), 4)
    step = run.step()
    with pytest.raises(infcore.InvalidArgument, match="advance"):
        run.step()
    made, goes_on = device.run_step("t", step), np.zeros(1, bool)
    run.advance(made, goes_on)
    run.advance(made, goes_on)  # no step is out: nothing happens
    assert run.step().tokens.tolist() == made.tolist()
    for nobodys in (place + 1, 2**32 - 1):
        with pytest.raises(infcore.InvalidArgument, match="place"):
            run.fork(nobodys)
        run.cancel(nobodys)
    for _ in range(2):
        run.cancel(place)
    run.advance(made, goes_on)
    assert len({run.add(prompt_of(5), 4) for _ in range(3)}) == 3
    assert run.figures()["sequences"] == 3


# ---- refusals


@pytest.mark.parametrize(
    ("inputs", "error", "words"),
    [
        ({"tokens": [1, 2]}, infcore.InvalidType, "list"),
        ({"tokens": np.zeros(2)}, infcore.InvalidType, "float64"),
        ({"tokens": np.zeros((1, 2), np.int64)}, infcore.InvalidArgument, "(1, 2)"),
        ({"tokens": np.zeros(0, np.int64)}, infcore.InvalidArgument, "length 0"),
        ({"tokens": np.array([1, -1])}, infcore.InvalidArgument, "['tokens'][1] of model 't' is -1"),
        ({"tokens": np.array([VOCAB], np.int32)}, infcore.InvalidArgument, "allowed: 0 to 999"),
        ({"tokens": np.array([1]), "max_new_tokens": 0}, infcore.InvalidArgument, "max_new_tokens"),
        ({"tokens": np.array([1]), "max_new_tokens": 9}, infcore.InvalidArgument, "1 to 8"),
        ({"tokens": np.array([1]), "max_new_tokens": 1.0}, infcore.InvalidType, "float"),
        ({"tokens": np.array([1]), "x": 1}, infcore.UnknownName, "'x'"),
        ({"max_new_tokens": 1}, infcore.UnknownName, "tokens"),
        (None, infcore.InvalidType, "dict"),
    ],
)
def test_refused_at_the_door(inputs, error, words):
    with engine_of_tokens(emulated()) as engine:
        with pytest.raises(error) as caught:
            engine.submit("t", inputs)
        assert words in str(caught.value)
        assert engine.n_open == 0


def test_what_can_never_fit_fails_alone():
    device = emulated(kind=Watched, n_blocks=8)
    with engine_of_tokens(device) as engine:
        error = engine.submit("t", inputs_of(prompt_of(40))).exception(timeout_s=WAIT_S)
        assert isinstance(error, infcore.DeviceError)
        assert "'d'" in str(error)
        assert answer_of(engine.submit("t", inputs_of([1]))) == expected([1], 8)
    assert device.is_clean()


# ---- cancels and deadlines


def test_cancel_while_it_waits_in_its_lane():
    device = emulated(kind=GatedTokens, slots=1)
    with engine_of_tokens(device) as engine:
        first = engine.submit("t", inputs_of([1]))
        device.wait_entered()
        second = engine.submit("t", inputs_of([2]))
        assert second.cancel()
        device.open()
        assert answer_of(first) == expected([1], 8)
        wait_until(lambda: engine.n_open == 0, "the end")
    assert sum(step.n_prefill_rows for step in device.steps) == 1
    assert device.is_clean()


@pytest.mark.parametrize("where", ["claimed", "waiting for blocks", "prefill", "decode"])
def test_cancel_on_its_device(where):
    device = emulated(kind=GatedTokens, n_blocks=8, token_budget=4)
    with engine_of_tokens(device) as engine:
        first = engine.submit("t", inputs_of(prompt_of(12), max_new_tokens=8))  # 5 blocks
        device.wait_entered()
        other = engine.submit("t", inputs_of([9, 9]))
        doomed = first
        if where == "decode":
            device.let(3)
            for _ in range(3):
                device.wait_entered()
        elif where in ("claimed", "waiting for blocks"):
            doomed = engine.submit("t", inputs_of(prompt_of(16, 3)))  # 6 blocks more
        if where == "waiting for blocks":
            device.let(2)
            device.wait_entered()
            device.wait_entered()
            assert device.runs[0].figures()["sequences"] == 3
        assert doomed.cancel()
        device.open()
        assert answer_of(other) == expected([9, 9], 8)
        if doomed is not first:
            assert answer_of(first) == expected(prompt_of(12), 8)
        wait_until(lambda: engine.n_open == 0, "the end")
        wait_until(device.is_clean, "its blocks")
        assert engine.stats()["models"]["t"]["cancelled"] == 1


@pytest.mark.parametrize("others_come", ["in that step", "after it"])
def test_cancel_in_the_step_that_makes_its_last_token(others_come):
    """Its place is not given back twice, nor taken over by who comes next."""
    device = emulated(kind=GatedTokens)
    with engine_of_tokens(device) as engine:
        doomed = engine.submit("t", inputs_of([1], max_new_tokens=1))
        device.wait_entered()
        assert doomed.cancel()
        if others_come == "after it":
            device.let()
            wait_until(lambda: engine.stats()["devices"]["d"]["batches"] == 1, "its end")
        futures = [engine.submit("t", inputs_of([token])) for token in (2, 3, 4)]
        device.open()
        assert [answer_of(future) for future in futures] == [expected([token], 8) for token in (2, 3, 4)]
        wait_until(lambda: engine.stats()["devices"]["d"]["batches"] == 4, "its end on the device")
    assert device.is_clean()


@pytest.mark.parametrize("where", ["running", "waiting for blocks"])
def test_a_deadline_that_passes_on_the_device(where):
    clock = ManualClock()
    device = emulated(kind=GatedTokens, n_blocks=8)
    with engine_of_tokens(device, clock=clock) as engine:
        first = engine.submit("t", inputs_of(prompt_of(12)), deadline_s=5.0 if where == "running" else None)
        device.wait_entered()
        late = first if where == "running" else engine.submit("t", inputs_of(prompt_of(16, 1)), deadline_s=5.0)
        device.let(2)
        device.wait_entered()
        device.wait_entered()
        clock.advance(6.0)
        device.open()
        with pytest.raises(infcore.DeadlineExceeded):
            late.result(timeout_s=WAIT_S)
        if late is not first:
            assert answer_of(first) == expected(prompt_of(12), 8)
        wait_until(device.is_clean, "its blocks")
        assert engine.stats()["models"]["t"]["expired"] == 1


def test_close_without_drain_ends_what_runs():
    device = emulated(kind=GatedTokens)
    engine = engine_of_tokens(device).start()
    futures = [engine.submit("t", inputs_of([i])) for i in range(40)]
    device.wait_entered()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        closing = pool.submit(engine.close, drain=False)
        wait_until(lambda: engine.n_open == 0, "the end")
        device.open()
        assert closing.result(WAIT_S) == []
    ended = [future.exception() for future in futures]
    assert [type(error) for error in ended] == [infcore.EngineClosed] * 40
    assert device.is_clean()


# ---- membership


def test_a_model_leaves_once_what_runs_of_it_is_answered():
    device = emulated(kind=GatedTokens)
    with engine_of_tokens(device, models=[token_model("a"), token_model("b")]) as engine:
        first = engine.submit("a", inputs_of([1]))
        device.wait_entered()
        second = engine.submit("b", inputs_of([2]))
        device.open()
        engine.unload_model("a")
        assert answer_of(first) == expected([1], 8)
        with pytest.raises(infcore.UnknownName):
            engine.submit("a", inputs_of([1]))
        assert answer_of(second) == expected([2], 8)
        engine.load_model(token_model("a", max_new_tokens=3))
        assert answer_of(engine.submit("a", inputs_of([1]))) == expected([1], 3)


def test_a_model_leaves_though_nothing_comes_after_it():
    """The call that waits for its last run is made once that has ended, not when the device is needed next."""
    device = emulated(kind=GatedTokens)
    with engine_of_tokens(device) as engine, concurrent.futures.ThreadPoolExecutor(1) as pool:
        doomed = engine.submit("t", inputs_of([1]))
        device.wait_entered()
        assert doomed.cancel()
        leaving = pool.submit(engine.unload_model, "t")
        wait_until(lambda: engine._slots["d"].controls, "the call")
        device.let()
        leaving.result(WAIT_S)
    assert device.is_clean()


def test_two_models_take_turns():
    device = emulated(kind=Watched)
    with engine_of_tokens(device, models=[token_model("a"), token_model("b", max_new_tokens=5)]) as engine:
        futures = [(engine.submit(name, inputs_of([i])), i, n) for i in range(10) for name, n in (("a", 8), ("b", 5))]
        for future, i, n in futures:
            assert answer_of(future) == expected([i], n)
    assert len(device.runs) == 2


def test_removing_a_device_lets_it_finish():
    device, other = emulated(kind=GatedTokens), emulated("e")
    with engine_of_tokens(device) as engine:
        future = engine.submit("t", inputs_of([1]))
        device.wait_entered()
        engine.add_device(other)
        device.open()
        assert engine.remove_device("d")
        assert answer_of(future) == expected([1], 8)
        assert future.device == "d"
        later = engine.submit("t", inputs_of([2]))
        assert answer_of(later) == expected([2], 8)
        assert later.device == "e"
    assert device.is_clean()


def test_what_a_removed_device_did_not_finish_goes_on_elsewhere():
    device, other = emulated(kind=GatedTokens), emulated("e", kind=Watched)
    with engine_of_tokens(device) as engine:
        future = engine.submit("t", inputs_of([1, 2, 3]))
        for _ in range(4):
            device.wait_entered()
            device.let()
        device.wait_entered()
        engine.add_device(other)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            removing = pool.submit(engine.remove_device, "d", timeout_s=0.01)
            wait_until(lambda: "d" not in engine._slots, "the time-out")
            device.let()
            assert removing.result(WAIT_S) is True
        assert answer_of(future) == expected([1, 2, 3], 8)
        assert future.device == "e"
    assert other.steps[0].n_prefill_tokens >= 3 + 4  # from where it was
    assert device.is_clean()


def test_devices_of_both_kinds():
    """Where a device names no models, token models go to token devices and others do not."""
    devices = [emulated(), CallableDevice("c", lambda name, inputs: {"y": inputs["x"] * 2})]
    with engine_of_tokens(*devices, models=[token_model(), model()]) as engine:
        tokens, plain = engine.submit("t", inputs_of([1])), engine.submit("m", x_of(1))
        assert answer_of(tokens) == expected([1], 8)
        assert plain.result(timeout_s=WAIT_S)["y"].tolist() == [2, 2]
        assert (tokens.device, plain.device) == ("d", "c")
    with pytest.raises(infcore.DeviceError, match="TokenModel"):
        engine_of_tokens(emulated(models=["m"]), models=[model()]).start()


def test_a_token_model_on_a_device_that_answers_at_once():
    def run(name, inputs):
        return {"tokens": inputs["tokens"][:, ::-1].copy()}

    async def main():
        async with engine_of_tokens(CallableDevice("c", run, models=["t"])) as engine:
            parts = [part async for part in engine.stream("t", inputs_of([1, 2, 3]))]
            return parts, await engine.asubmit("t", inputs_of([4, 5]))

    parts, outputs = asyncio.run(main())
    assert [part["tokens"].tolist() for part in parts] == [[3, 2, 1]]
    assert outputs["tokens"].tolist() == [5, 4]


# ---- figures, the log, leaks


def test_first_tokens_are_counted_once():
    with engine_of_tokens(emulated()) as engine:
        for i in range(5):
            answer_of(engine.submit("t", inputs_of([i])))
        figures = engine.stats()
    for part in (figures["models"]["t"], figures["devices"]["d"]):
        assert (part["requests"], part["batches"]) == (5, 5)
        assert part["ttft_s"]["mean"] is not None


def test_the_log_tells_it_again(tmp_path):
    path = tmp_path / "engine.log"
    devices = [emulated(n_blocks=40), emulated("e", n_blocks=40)]
    with engine_of_tokens(*devices, log=path) as engine:
        futures = [engine.submit("t", inputs_of(prompt_of(10 + i, i)), tier=i % 2) for i in range(40)]
        futures[7].cancel()
        for i, future in enumerate(futures):
            if not future.cancelled():
                assert answer_of(future) == expected(prompt_of(10 + i, i), 8)
    replayed = replay(str(path))
    assert replayed.first_difference is None
    assert replayed.equal
    assert replayed.n_requests == 40


def test_nothing_is_left_of_it():
    refs = []

    def life():
        device = emulated(kind=Watched)
        prompts = [prompt_of(5, i) for i in range(20)]
        with engine_of_tokens(device) as engine:
            futures = [engine.submit("t", inputs_of(prompt)) for prompt in prompts]
            futures[3].cancel()
            for future in futures[4:]:
                answer_of(future)
        assert device.is_clean()
        refs.extend(weakref.ref(each) for each in (device, engine, *prompts))

    life()
    gc.collect()
    assert all(ref() is None for ref in refs)
