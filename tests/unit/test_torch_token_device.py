"""TorchTokenDevice on the CPU: a real decoder's tokens and logits, batched over paged blocks, against each alone."""

import asyncio

import numpy as np
import pytest
from engine_rig import WAIT_S

import infcore
from infcore.models.decoder import small_decoder

torch = pytest.importorskip("torch", reason="the extra [gpu] is not installed")

from torch_decoders import greedy, logits_of  # noqa: E402  # needs torch

VOCAB, N_NEW = 97, 10


@pytest.fixture(scope="module")
def module():
    return small_decoder(vocab_size=VOCAB, width=32, n_layers=2, n_heads=4, n_kv_heads=2, seed=3)


def prompts_of(n):
    """Some that begin alike, of many lengths."""
    draw = np.random.default_rng(1)
    shared = draw.integers(0, VOCAB, 12)
    return [np.concatenate([shared[: 12 * (i % 2)], draw.integers(0, VOCAB, 1 + 5 * i % 23)]) for i in range(n)]


@pytest.fixture(scope="module")
def alone(module):
    return [greedy(module, prompt, N_NEW) for prompt in prompts_of(14)]


class Noted(infcore.TorchTokenDevice):
    """Keeps the logits that each step's tokens were chosen by."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.steps, self.runs, self.logits = [], [], []

    def new_run(self, name):
        self.runs.append(super().new_run(name))
        return self.runs[-1]

    def run_step(self, name, step):
        self.steps.append(step)
        return super().run_step(name, step)

    def choose(self, name, logits):
        self.logits.append(logits.clone())
        return super().choose(name, logits)


def device_of(module, **changes):
    given = {"n_blocks": 64, "block_size": 4, "token_budget": 16, "max_running": 6, "slots": 14}
    return Noted("torch0", {"t": module}, **{**given, **changes})


def model_of(**changes):
    return infcore.TokenModel("t", **{"max_new_tokens": N_NEW, "vocab_size": VOCAB, **changes})


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("chunks", {}),
        ("one token a step", {"token_budget": 1}),
        ("everything at once", {"token_budget": 512, "max_running": 14, "n_blocks": 256}),
        ("few blocks, computed again", {"n_blocks": 14}),
        ("few blocks, swapped", {"n_blocks": 14, "n_host_blocks": 64}),
        ("blocks of one", {"block_size": 1, "n_blocks": 128}),
        ("a block holds all", {"block_size": 64, "n_blocks": 6}),
    ],
)
def test_same_tokens_as_alone(name, changes, module, alone):
    device = device_of(module, **changes)
    if "swapped" in name:
        device.moving_curve = infcore.TokenCurve(per_prefill_token_s=1.0, swap_block_s=1e-9)
    with infcore.Engine([device], [model_of()]) as engine:
        futures = [engine.submit("t", {"tokens": prompt}) for prompt in prompts_of(14)]
        found = [future.result(timeout_s=WAIT_S)["tokens"].tolist() for future in futures]
        figures = device.runs[0].figures()
    assert found == [tokens for tokens, _ in alone]
    assert figures["available"] == figures["blocks"]
    if name.startswith("few"):
        assert figures["preempted"] > 0
        assert ("swapped" in name) == (figures["swapped_out"] > 0)
    if name == "everything at once":
        assert max(len(step.emits) for step in device.steps) == 14


def test_logits_are_close(module, alone):
    """Of a step's rows, whichever they are: each stands among those of its sequence run alone."""
    device = device_of(module)
    device.load(model_of())
    run = device.new_run("t")
    places = {run.add(prompt, N_NEW): i for i, prompt in enumerate(prompts_of(14))}
    n_made = dict.fromkeys(places, 0)
    while (step := run.step()) is not None:
        tokens = device.run_step("t", step)
        for row, place in enumerate(run.places()):
            torch.testing.assert_close(
                device.logits[-1][row], alone[places[place]][1][n_made[place]], atol=1e-4, rtol=1e-4
            )
            n_made[place] += 1
        run.advance(tokens, np.zeros(len(tokens), bool))
    assert set(n_made.values()) == {N_NEW}


def test_forks_part_where_they_write(module):
    """Two sequences share a block until one writes there: what the other reads must stay its own."""
    device = device_of(module)
    device.load(model_of())
    run = device.new_run("t")
    first, second = run.add(prompts_of(14)[3], N_NEW), None
    n_at_fork = n_copied = 0
    sequences = {first: list(prompts_of(14)[3])}
    while (step := run.step()) is not None:
        tokens = device.run_step("t", step)
        n_copied += len(step.copies)
        for row, place in enumerate(run.places()):
            alone = logits_of(module, sequences[place])
            torch.testing.assert_close(device.logits[-1][row], alone, atol=1e-4, rtol=1e-4)
            if place == second and len(sequences[place]) == n_at_fork:
                tokens[row] = (tokens[row] + 1) % VOCAB  # goes another way from here on
            sequences[place].append(int(tokens[row]))
        run.advance(tokens, np.zeros(len(tokens), bool))
        if second is None and len(sequences[first]) == len(prompts_of(14)[3]) + 3:
            second = run.fork(first)
            sequences[second] = list(sequences[first])
            n_at_fork = len(sequences[first])
    assert sequences[first] != sequences[second]
    assert len(sequences[first]) == len(sequences[second])
    assert n_copied == 1
    assert run.figures()["available"] == run.figures()["blocks"]


def test_run_without_an_engine(module, alone):
    device = device_of(module)
    device.load(model_of())
    outputs = device.run("t", {"tokens": prompts_of(14)[2][None]})
    assert outputs["tokens"].tolist() == [alone[2][0]]


def test_stream_of_a_real_decoder(module, alone):
    async def main():
        async with infcore.Engine([device_of(module)], [model_of()]) as engine:
            stream = engine.stream("t", {"tokens": prompts_of(14)[5]})
            return [token async for part in stream for token in part["tokens"].tolist()]

    assert asyncio.run(main()) == alone[5][0]


def test_two_devices_one_module(module, alone):
    devices = [device_of(module), infcore.TorchTokenDevice("torch1", {"t": module}, n_blocks=64, block_size=8)]
    with infcore.Engine(devices, [model_of()]) as engine:
        futures = [engine.submit("t", {"tokens": prompt}) for prompt in prompts_of(14)]
        found = [future.result(timeout_s=WAIT_S)["tokens"].tolist() for future in futures]
    assert found == [tokens for tokens, _ in alone]


def test_refused():
    with pytest.raises(infcore.InvalidType, match="n_layers"):
        infcore.TorchTokenDevice("x", {"t": torch.nn.Linear(2, 2)}, n_blocks=4)
    with pytest.raises(infcore.InvalidArgument, match="models is empty"):
        infcore.TorchTokenDevice("x", {}, n_blocks=4)
    with pytest.raises(infcore.InvalidArgument, match="n_blocks"):
        infcore.TorchTokenDevice("x", {"t": small_decoder()}, n_blocks=0)
    with pytest.raises(infcore.InvalidArgument, match="n_kv_heads"):
        small_decoder(n_heads=4, n_kv_heads=3)
    device = infcore.TorchTokenDevice("x", {"t": small_decoder()}, n_blocks=4)
    with pytest.raises(infcore.InvalidType, match="TokenModel"):
        device.load(infcore.Model("t", {"x": ("float32", (1,))}, {"y": ("float32", (1,))}))
