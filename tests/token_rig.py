"""What the tests of token models share: prompts, what must come out, and a device whose steps a test holds up."""

import threading

import numpy as np
from engine_rig import WAIT_S

import infcore
from infcore.token_device import token_after

VOCAB = 1000


def prompt_of(length, seed=0):
    return np.random.default_rng(seed).integers(0, VOCAB, length)


def inputs_of(prompt, **more):
    return {"tokens": np.asarray(prompt), **more}


def expected(prompt, n_new, stop=()):
    """What an emulated device says after a prompt, whatever else it runs."""
    tokens = [int(token) for token in prompt]
    for _ in range(n_new):
        tokens.append(token_after(np.array(tokens), VOCAB))
        if tokens[-1] in stop:
            break
    return tokens[len(prompt) :]


def token_model(name="t", **changes):
    return infcore.TokenModel(name, **{"max_new_tokens": 8, "vocab_size": VOCAB, **changes})


def emulated(name="d", kind=infcore.EmulatedTokenDevice, **changes):
    given = {"n_blocks": 256, "block_size": 4, "token_budget": 64, "max_running": 16, "vocab_size": VOCAB}
    return kind(name, **{**given, **changes})


def engine_of_tokens(*devices, models=None, **options):
    return infcore.Engine(devices, [token_model()] if models is None else models, **options)


def answer_of(future):
    return future.result(timeout_s=WAIT_S)["tokens"].tolist()


class Watched(infcore.EmulatedTokenDevice):
    """Keeps what its steps were, and the runs that an engine made of it."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.steps, self.runs = [], []

    def new_run(self, model_name):
        self.runs.append(super().new_run(model_name))
        return self.runs[-1]

    def run_step(self, model_name, step):
        self.steps.append(step)
        return super().run_step(model_name, step)

    def is_clean(self):
        """Whether nothing holds a block any more."""
        return all(
            figures["sequences"] == 0
            and figures["available"] == figures["blocks"]
            and figures["host_free"] == figures["host_blocks"]
            for figures in (run.figures() for run in self.runs)
        )


class GatedTokens(Watched):
    """Says when a step is entered, and waits in it until it is let go."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self._entered, self._let = threading.Semaphore(0), threading.Semaphore(0)

    def run_step(self, model_name, step):
        self._entered.release()
        assert self._let.acquire(timeout=WAIT_S), "the test never let this step go"
        return super().run_step(model_name, step)

    def wait_entered(self):
        assert self._entered.acquire(timeout=WAIT_S), "no step was run"

    def let(self, n=1):
        self._let.release(n)

    def open(self):
        """Holds nothing up from now on."""
        self._let.release(10_000)
