"""bench/peers without its environment: what it reads, statistics, sides as processes, its model of the mocker."""

import importlib
import json
import sys
from contextlib import closing
from pathlib import Path

import pytest
from reference.prefix_index import PrefixIndex

FOLDER = Path(__file__).parents[2] / "bench" / "peers"
NAMES = ["install", "mocker", "mocker_model", "mocker_sides", "radix_sides", "router_dynamo", "router_own"]
NAMES += ["router_peers", "router_sides", "routers", "sides", "vllm_pool"]


@pytest.fixture(scope="module")
def peers():
    """The modules by name. Nothing imports them by statement (tests/tidy/layers.py), and none of them stays."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield {name: importlib.import_module(name) for name in NAMES}
    for name in NAMES:
        del sys.modules[name]


def test_a_worker_that_ends_is_said_with_its_last_words(peers):
    sides = peers["sides"]
    assert sides.answer('{"a": 1}\n', "") == {"a": 1}
    with pytest.raises(sides.NotMeasured, match=r"^ImportError: no ray$"):
        sides.answer("", "Traceback\n  File x\nImportError: no ray\n\n")
    with pytest.raises(sides.NotMeasured, match="said nothing"):
        sides.answer("", "\n")
    with pytest.raises(ValueError, match=r"got '\[1\]', allowed is an object"):
        sides.answer("[1]\n", "")


def test_ratios_are_taken_round_by_round(peers):
    sides = peers["sides"]
    slow, fast = [{"us": us} for us in (2.0, 40.0, 9.0)], [{"us": us} for us in (1.0, 10.0, 3.0)]
    assert sides.ratio(slow, fast, "us") == 3.0  # of 2, 4 and 3
    assert sides.middle(slow, "us") == 9.0
    assert sides.ratio(slow[:2], fast[:2], "us") == 3.0  # where medians over one another say 21 / 5.5
    with pytest.raises(ValueError, match="got 2 and 3 rounds"):
        sides.ratio(slow[:2], fast, "us")
    with pytest.raises(ValueError, match="got 0 and 0 rounds"):
        sides.ratio([], [], "us")


def test_table(peers):
    assert peers["sides"].table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_requirements_and_reasons(peers):
    install = peers["install"]
    pinned = install.wanted((FOLDER / "requirements.txt").read_text())
    assert install.wanted("# why\n\na==1  # more\n") == ["a==1"]
    assert all("==" in line for line in [*pinned, *install.wanted((FOLDER / "constraints.txt").read_text())])
    assert install.reason("ERROR: no match\nERROR: No matching distribution\n\nnote: pip\n") == (
        "ERROR: No matching distribution"
    )
    assert install.reason("one\ntwo\n") == "two"
    assert install.reason("") == "it said nothing"


def test_sides_run_and_take_turns(peers):
    """The batcher by hand, measured by a real worker; a side whose package is not in the environment is said so."""
    sides = peers["sides"]
    here = Path(sys.prefix)
    started, missing = sides.start({"by hand": here, "BentoML": here})
    found = sides.take_turns(started, 2, missing, run="cpu", each=1)
    for side in started:
        side.close()
    assert list(found) == ["by hand"]
    assert [set(one) >= {"cpu_us_per_request", "requests_per_s"} for one in found["by hand"]] == [True, True]
    assert "bentoml" in missing["BentoML"]


def test_what_was_not_installed_is_said(peers, tmp_path, capsys):
    sides = peers["sides"]
    (tmp_path / "missing.json").write_text('{"a==1": "ERROR: no a"}')
    sides.say_not_installed(tmp_path)
    sides.say_missing({"b": "gone", "c": "late", "d": "gone"})
    assert capsys.readouterr().out == (
        "not installed: a==1: ERROR: no a\nnot measured: b; d: gone\nnot measured: c: late\n"
    )


def test_an_environment_that_is_not_there(peers, tmp_path):
    started, missing = peers["sides"].start({"batched": tmp_path / "none"})
    assert started == []
    assert missing == {"batched": "none is not there: make build"}


def test_the_fit_finds_a_parabola(peers):
    coefficients, off = peers["mocker_sides"].fit(
        [1.0, 2.0, 5.0, 9.0], [2 + 3 * x - x * x for x in (1.0, 2.0, 5.0, 9.0)]
    )
    assert coefficients == pytest.approx([2.0, 3.0, -1.0])
    assert off == pytest.approx(0.0, abs=1e-9)


def test_a_trace_in_the_mockers_blocks(peers):
    row = {"timestamp": 1.5, "input_length": 600, "output_length": 3, "hash_ids": [7, 2]}
    (found,) = peers["mocker"].requests_of([json.dumps(row)])
    assert (found.arrival_ms, found.prompt_tokens, found.output_tokens) == (1.5, 600, 3)
    assert found.blocks == (56, 57, 58, 59, 60, 61, 62, 63, 16)  # 9 full blocks of 64; the part of a tenth has no name


def test_the_model_says_what_the_mocker_said(peers):
    """Figures of ai-dynamo-runtime 1.6.1: requests of 4,096 tokens that make 4; n at once on one worker."""
    model = peers["mocker_model"]

    def told(requests, n_workers=1):
        return [(one.ttft_ms, one.e2e_ms, one.reused_tokens) for one in model.replay(requests, n_workers)]

    def unlike(i, arrival_ms=0.0):
        return model.Request(arrival_ms, 4096, 4, tuple(range(64 * i, 64 * i + 64)))

    assert told([unlike(0)]) == [pytest.approx((85.755980, 103.608039, 0))]
    assert told([unlike(i) for i in range(3)]) == [
        pytest.approx((169.136918, 273.792833, 0)),
        pytest.approx((169.136918, 273.792833, 0)),
        pytest.approx((261.053382, 279.743571, 0)),
    ]
    assert told([unlike(i) for i in range(4)])[3] == pytest.approx(
        (367.291598, 385.981053, 0)
    )  # its prompt in two parts
    assert told([unlike(0), unlike(0, 1e6)])[1][::2] == pytest.approx((17.474885, 4032))  # its last block is computed
    assert told([unlike(0), unlike(1)], n_workers=2)[1] == pytest.approx((85.755980, 103.608039, 0))
    like = [model.Request(0.0, 4096, 4, (*range(48), *range(64 * i, 64 * i + 16))) for i in range(1, 4)]
    assert [each[::2] for each in told(like)] == [pytest.approx((125.680652, n)) for n in (0, 3072, 3072)]
    with pytest.raises(AssertionError, match="blocks run out"):
        told([unlike(i) for i in range(300)])


def test_the_radix_tree_is_asked_what_the_plain_model_answers(peers):
    """Events that are told to both sides are sound: of a prefix index said plainly, infcore's side says the same."""
    radix = peers["radix_sides"]

    class Plain(PrefixIndex):
        def stored(self, node, blocks, parent):
            return super().stored(node, blocks, after=parent)

        def match(self, blocks):
            return sorted(super().match(blocks).items())

    for seed in range(3):
        told = radix.scores(radix.Infcore(), seed, 200)
        assert told == radix.scores(Plain(), seed, 200)
        assert sum(bool(match) for match in told) > 100
    assert radix.speed_ns(radix.Infcore(5), 5, 8, 2) > 0.0


def test_each_way_of_ours_to_route_chooses_the_best(peers):
    ways = peers["router_own"].WAYS
    for way in ways.values():
        with closing(peers["router_sides"].Side(way)) as side:
            for endpoints, blocks in ((5, 3), (5, 3), (2, 4)):
                said = side.measure({"endpoints": endpoints, "blocks": blocks, "chunk_s": 0.0})
                assert said["cpu_us"] > 0 and said["wall_us"] > 0
    theirs = peers["router_peers"].WAYS | peers["router_dynamo"].WAYS
    compared = [(one.own, one.peers) for one in peers["routers"].COMPARISONS]
    assert {name for own, _ in compared for name in own} == set(ways)
    assert {name for _, others in compared for name in others} == set(theirs)


def test_a_way_that_chooses_wrong_is_not_timed(peers):
    question, side = peers["router_sides"].Question, peers["router_sides"].Side

    async def third():
        return 3

    with closing(side(lambda n, n_blocks: question(third, lambda answer: answer == n - 1))) as made:
        assert made.measure({"endpoints": 4, "blocks": 0, "chunk_s": 0.0})["wall_us"] > 0
        with pytest.raises(AssertionError, match="5 endpoints, 0 blocks: 3 is not right"):
            made.measure({"endpoints": 5, "blocks": 0, "chunk_s": 0.0})


def test_routers_are_compared_without_the_peers(peers, tmp_path, monkeypatch, capsys):
    routers = peers["routers"]
    monkeypatch.setattr(routers, "OWN", Path(sys.prefix))
    monkeypatch.setattr(routers, "PEERS", tmp_path / "none")
    own = ["infcore slo_cost", "plain Python, lowest cost"]
    cells, missing = routers.compare(routers.Comparison("cost", own, ["LiteLLM latency-based"]), [2, 4], 2, 0.0)
    assert [(cell["way"], cell["endpoints"]) for cell in cells] == [(way, n) for way in own for n in (2, 4)]
    assert [cell["cpu_ratio"] for cell in cells[:2]] == [1.0, 1.0]
    assert cells[2]["cpu_ratio"] > 0
    assert list(missing) == ["LiteLLM latency-based"]
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert head == "| cost; x: over infcore slo_cost | 2 | 4 | x 2 | x 4 |"
    assert [row.split(" | ")[0] for row in rows if row] == [
        f"| infcore slo_cost ({cells[0]['release']})",
        f"| plain Python, lowest cost ({cells[2]['release']})",
    ]
