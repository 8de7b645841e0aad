"""Token models in scenario files: what they hold, and that wrong ones are refused with file, line, field and value."""

import re

import pytest

from infcore import sim
from infcore.errors import InvalidArgument

GOOD = """
[run]
seconds = 60.0
[[node]]
name = "h100"
count = 2
slots = 256
[[node]]
name = "l40s"
slots = 64
[[model]]
name = "llm"
tokens = true
slo_ttft_s = 0.5
slo_itl_s = 0.05
[[token_latency]]
model = "llm"
node = "h100"
n_blocks = 1000
base_s = 0.005
per_prefill_token_s = 0.00002
per_context_token2_s = -1e-14
[[token_latency]]
model = "llm"
node = "l40s"
n_blocks = 300
block_size = 32
decode_base_s = 0.01
prefill_base_s = 0.02
[[workload]]
model = "llm"
rate_rps = 5.0
prompt_tokens = { dist = "lognormal", mean = 500.0, cv = 1.0, max = 4000.0 }
output_tokens = 100
prefix = { groups = 8, share = 0.5, zipf = 1.0 }
session = { turns_mean = 3.0, think_s_mean = 5.0 }
[[node]]
name = "cpu"
[[model]]
name = "bert"
[[latency]]
model = "bert"
node = "cpu"
base_s = 0.01
[[workload]]
model = "bert"
rate_rps = 1.0
"""


def test_good_text() -> None:
    scenario = sim.parse(GOOD, "t.toml")
    llm, bert = scenario.models
    # What the smallest node has room for: 300 * 32 tokens.
    assert (llm.tokens, llm.max_batch_size, llm.context_tokens_max) == (True, 1, 9600)
    assert (bert.tokens, bert.max_batch_size, bert.context_tokens_max) == (False, 64, 0)
    assert [node.initial_models for node in scenario.nodes] == [("llm",), ("llm",), ("llm",), ("bert",)]
    row = scenario.token_latency("llm", scenario.nodes[1])
    assert row is not None
    assert (row.block_size, row.token_budget, row.max_running, row.host_blocks) == (16, 2048, 256, 0)
    assert scenario.token_latency("llm", scenario.nodes[3]) is None
    workload = scenario.workloads[0]
    assert workload.prompt_tokens == sim.WorkDist("lognormal", 500.0, 1.0, max=4000.0)
    assert workload.output_tokens == sim.WorkDist(mean=100.0)
    assert workload.prefix == sim.Prefix(groups=8, share=0.5, zipf=1.0)


WRONG = [
    ("tokens = true", "tokens = 1", "model[0].tokens must be true or false, got 1"),
    ("tokens = true", "tokens = false", "model[0].slo_ttft_s is not known"),
    ("tokens = true", "tokens = true\nmax_batch_size = 2",
     "model[0].max_batch_size must be an integer from 1 to 1, got 2"),
    ("tokens = true", "tokens = true\ncontext_tokens_max = 9601",
     "token_latency: n_blocks * block_size must be >= context_tokens_max = 9601 of model 'llm', got 9600"),
    ('name = "bert"', 'name = "bert"\ntokens = true',
     "latency[0].model must be one without: token models have token_latency"),
    ("tokens = true\nslo_ttft_s = 0.5\nslo_itl_s = 0.05\n", "",
     "token_latency[0].model must be one with tokens = true"),
    ("n_blocks = 1000\n", "", "token_latency[0].n_blocks must be an integer from 1 to 4194304"),
    ("n_blocks = 1000", "n_blocks = 1e3", "token_latency[0].n_blocks must be an integer from 1 to 4194304, got 1000.0"),
    ("block_size = 32", "block_size = 0", "token_latency[1].block_size must be an integer from 1 to 4096, got 0"),
    ("n_blocks = 300", "n_blocks = 300\ntoken_budget = 0", "token_latency[1].token_budget must be an integer from 1"),
    ("n_blocks = 300", "n_blocks = 300\nmax_running = 4097",
     "token_latency[1].max_running must be an integer from 1 to 4096"),
    ("base_s = 0.005", "base_s = 0", "token_latency[0].decode_base_s, per_decode_s or base_s must be > 0"),
    ("prefill_base_s = 0.02", "cv = 0.1", "token_latency[1].prefill_base_s, per_prefill_token_s or base_s must be > 0"),
    ("per_prefill_token_s = 0.00002", "per_prefill_token_s = -1",
     "token_latency[0].per_prefill_token_s must be a number >= 0"),
    ('node = "l40s"\nn', 'node = "h100"\nn', "token_latency[1].model: one row for each model and node"),
    ('node = "l40s"\nn', 'node = "cpu"\nn', "node[2].models must be one model where that makes tokens"),
    ('node = "h100"\nn', 'node = "a100"\nn',
     "token_latency[0].node must be one of h100, h100-0, h100-1, l40s, cpu, got 'a100'"),
    ("output_tokens = 100\n", "", "workload[0].output_tokens is missing"),
    ("output_tokens = 100", "work = 100\noutput_tokens = 100", "workload[0].work is not known"),
    ("output_tokens = 100", "output_tokens = 2e7",
     "workload[0].output_tokens must be a number >= 0 and <= 1.67772e+07"),
    ("share = 0.5", "share = 0.5, tokens = 5",
     "prefix.share: exactly one of share and tokens must be > 0, got share 0.5"),
    ("share = 0.5", "share = 1.5", "workload[0].prefix.share must be a number >= 0 and <= 1, got 1.5"),
    ("groups = 8", "groups = 0", "workload[0].prefix.groups must be an integer from 1 to 1048576, got 0"),
    ('"bert"\nrate_rps = 1.0', '"bert"\nrate_rps = 1.0\nprompt_tokens = 5', "workload[1].prompt_tokens is not known"),
    ('"llm"\nrate', '"bert"\nrate', "workload[0].prompt_tokens is not known"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), WRONG)
def test_wrong_text_is_refused(old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(InvalidArgument) as error:
        sim.parse(GOOD.replace(old, new, 1), "t.toml")
    assert re.match(r"t\.toml:\d+: ", str(error.value))
    assert message in str(error.value)


def test_a_token_model_that_runs_nowhere() -> None:
    text = re.sub(r"\[\[token_latency\]\]\n(?:(?!\[\[).*\n)*", "", GOOD)
    with pytest.raises(InvalidArgument, match=r"workload\[0\]\.model must have a \[\[token_latency\]\] row .* 'llm'"):
        sim.parse(text, "t.toml")
