"""Suite files: the shipped ones read, wrong ones are refused with key, value and what is allowed."""

import re

import pytest

from infcore.errors import InvalidArgument, UnknownName
from infcore.profiling import suite as suites

GOOD = """
name = "t"
[run]
seconds = 2
[arrivals]
process = "onoff"
[[model]]
name = "m"
kind = "synthetic"
slo_s = 0.1
share = 1.0
[[device]]
name = "d"
kind = "emulated"
price_per_hour = 1
  [[device.curve]]
  model = "m"
  base_s = 0.001
"""


def test_shipped_suites_read() -> None:
    assert {"mixed", "smoke"} <= set(suites.shipped())
    for name in suites.shipped():
        suite = suites.load(name)
        assert suite.name == name
        assert suite.arrivals.peak_to_mean == 10.0


def test_mixed_is_what_it_says() -> None:
    suite = suites.load("mixed")
    assert {model.name for model in suite.models} == {"magika", "silero_vad", "rapidocr_rec", "rapidocr_cls"}
    assert {(d.kind, d.precision) for d in suite.devices if not d.emulated} == {("onnx", "fp32"), ("onnx", "int8")}
    assert sum(d.emulated for d in suite.devices) >= 2
    assert all(model.deadline_s and model.deadline_s > model.slo_s for model in suite.models)


def test_every_figure_of_a_device_names_its_source() -> None:
    import importlib.resources

    text = (importlib.resources.files("infcore") / "suites" / "mixed.toml").read_text()
    for line in text.splitlines():
        if re.match(r"(price_per_hour|rtt_s|busy_w) =", line):
            assert "# source:" in line, line


def test_good_text_with_defaults() -> None:
    suite = suites.parse(GOOD, where="t.toml")
    assert suite.run.seconds == 2.0
    assert suite.devices[0].emulated
    assert suite.models[0].deadline_s is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seconds = 2", "seconds = 0", "t.toml: run.seconds must be a number > 0 and <= 86400, got 0"),
        ("seconds = 2", "seconds = true", "t.toml: run.seconds must be a number > 0 and <= 86400, got True"),
        ("seconds = 2", "seconds = nan", "t.toml: run.seconds must be a number > 0 and <= 86400, got nan"),
        ("seconds = 2", f"seconds = {10**400}", "t.toml: run.seconds must be a number > 0"),
        ("seconds = 2", "secs = 2", "t.toml: run.seconds is missing"),
        ("seconds = 2", "seconds = 2\ntypo = 1", "t.toml: run.typo is not known; allowed: seconds, warmup_s"),
        ('"onoff"', '"bursty"', "t.toml: arrivals.process must be one of onoff, poisson, got 'bursty'"),
        ('"onoff"', '"onoff"\npeak_to_mean = 50', "must be <= (on_s + off_s) / on_s = 20, got 50"),
        ("share = 1.0", "share = 0.5", "t.toml: model.share must add up to 1, got 0.5"),
        ("slo_s = 0.1", "slo_s = -1", "t.toml: model[0].slo_s must be a number > 0, got -1"),
        ("slo_s = 0.1", "slo_s = 0.1\ntier = 9", "t.toml: model[0].tier must be an integer from 0 to 7, got 9"),
        ('"emulated"', '"gpu"', "t.toml: device[0].kind must be one of onnx, emulated, callable, got 'gpu'"),
        ("price_per_hour = 1", "price_per_hour = '1'", "device[0].price_per_hour must be a number >= 0, got '1'"),
        ('model = "m"', 'model = "x"', "t.toml: device[0].curve[0].model must be one of m, got 'x'"),
        ("base_s = 0.001", "base_s = -0.001", "device[0].curve[0].base_s must be a number >= 0, got -0.001"),
        ('"emulated"', '"onnx"', "device[0].curve is for kind 'emulated' alone, device 'd' is of kind 'onnx'"),
        ('name = "d"', 'name = "d"\ncard = "0"', "device[0].card is for real devices, device 'd' is emulated"),
        ("[[device]]", "[device]", "t.toml: device must be an array of tables"),
        ("[run]", "[run", "t.toml: not valid TOML"),
        ('name = "d"', 'name = ""', "t.toml: device[0].name must be a text, got ''"),
    ],
)
def test_wrong_text_is_refused(old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(InvalidArgument) as error:
        suites.parse(GOOD.replace(old, new, 1), where="t.toml")
    place, _, said = str(error.value).partition(" ")
    assert re.fullmatch(r"t\.toml:\d+:", place)
    assert message in f"t.toml: {said}"


def test_the_line_is_that_of_the_key() -> None:
    text = GOOD.replace("slo_s = 0.1", "slo_s = -1")
    line = text.splitlines().index("slo_s = -1") + 1
    with pytest.raises(InvalidArgument, match=rf"^t\.toml:{line}: model\[0\]\.slo_s must be"):
        suites.parse(text, where="t.toml")


def test_a_scenario_is_no_suite() -> None:
    with pytest.raises(
        InvalidArgument, match=r"antagonists\.toml:\d+: node belongs to a scenario of `infcore simulate`"
    ):
        suites.load("antagonists")
    assert "antagonists" not in suites.shipped()


def test_missing_parts_are_named() -> None:
    with pytest.raises(InvalidArgument, match="model must have at least one row"):
        suites.parse('name = "t"', where="t.toml")
    with pytest.raises(InvalidArgument, match="device must have at least one row"):
        suites.parse(GOOD[: GOOD.index("[[device]]")], where="t.toml")
    second = GOOD + GOOD[GOOD.index("[[device]]") :]
    with pytest.raises(InvalidArgument, match=r"device\.name must be unique, got 'd' 2 times"):
        suites.parse(second, where="t.toml")
    with pytest.raises(InvalidArgument, match="must have a row for each model, none for m"):
        suites.parse(GOOD[: GOOD.index("  [[device.curve]]")], where="t.toml")


def test_unknown_names_list_the_shipped_ones(tmp_path) -> None:
    with pytest.raises(UnknownName, match=r"suite must be one of .*mixed.* got 'nope'"):
        suites.load("nope")
    with pytest.raises(InvalidArgument, match="suite must be a readable TOML file"):
        suites.load(str(tmp_path / "none.toml"))
    path = tmp_path / "own.toml"
    path.write_text(GOOD)
    assert suites.load(str(path)).name == "t"


def test_a_card_is_one_devices() -> None:
    device = '[[device]]\nname = "{}"\nkind = "callable"\nprice_per_hour = 1\ncard = "{}"\n'
    text = GOOD.partition("[[device]]")[0]
    suite = suites.parse(text + device.format("a", "GPU-1") + device.format("b", "GPU-2"), where="t.toml")
    assert [spec.card for spec in suite.devices] == ["GPU-1", "GPU-2"]
    with pytest.raises(InvalidArgument, match=r"device\.card must be unique, got 'GPU-1' 2 times"):
        suites.parse(text + device.format("a", "GPU-1") + device.format("b", "GPU-1"), where="t.toml")
