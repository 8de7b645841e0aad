"""Whatever stands in a scenario file, it is read or refused with file and line: never another error, never a hang."""

import importlib.resources
import re
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings

from infcore import sim
from infcore.errors import InvalidArgument
from infcore.profiling import suite

SUITES = importlib.resources.files("infcore") / "suites"
TEXTS = [(SUITES / f"{name}.toml").read_text() for name in (*sim.shipped(), *suite.shipped())]
VALUES = [
    *(
        "0",
        "-1",
        "1",
        "1.5",
        "1e300",
        "-1e300",
        "1e-300",
        "nan",
        "inf",
        "-inf",
        "65536",
        "65537",
        "9223372036854775808",
    ),
    *(
        "true",
        "''",
        "'x'",
        '"\\u0000"',
        "'a100'",
        "'pareto'",
        "['image']",
        "[]",
        "[1]",
        "{}",
        "{ a = 1 }",
        "[[[[[[]]]]]]",
    ),
    *("1979-05-27", "07:32:00", "9" * 4000, "0x" + "f" * 4000, "{ dist = 'uniform', low = 2, high = 1 }"),
]
ASSIGNMENT = re.compile(r"^( *)([\w-]+) = (.*?)( *#.*)?$", re.MULTILINE)
LIMITS = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def read_or_refuse(text: str) -> None:
    for parse in (lambda t: sim.parse(t, "fuzz.toml"), lambda t: suite.parse(t, where="fuzz.toml")):
        try:
            found: Any = parse(text)
        except InvalidArgument as error:
            assert re.match(r"fuzz\.toml:\d+: ", str(error)), str(error)[:200]
            assert len(str(error)) < 2000
        else:
            assert found.name is not None


@LIMITS
@given(st.sampled_from(TEXTS), st.data())
def test_bytes_changed(text: str, data: st.DataObject) -> None:
    """A few stretches replaced, removed or doubled."""
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        end = at + data.draw(st.integers(0, 40))
        middle = data.draw(
            st.text(max_size=6) | st.sampled_from([text[at:end] * 2, "[[node]]\n", '"""', "'''", "\r", "}"])
        )
        text = text[:at] + middle + text[end:]
    read_or_refuse(text)


@LIMITS
@given(st.sampled_from(TEXTS), st.data())
def test_values_changed(text: str, data: st.DataObject) -> None:
    """One or two keys get a value that is none of theirs, or another name."""
    for _ in range(data.draw(st.integers(1, 2))):
        found = data.draw(st.sampled_from(list(ASSIGNMENT.finditer(text))))
        key = data.draw(st.sampled_from([found.group(2)] * 9 + ["other"]))
        value = data.draw(st.sampled_from(VALUES) | st.floats(1e-6, 1e3).map(str) | st.integers(0, 100).map(str))
        text = f"{text[: found.start()]}{found.group(1)}{key} = {value}{text[found.end() :]}"
    read_or_refuse(text)


@LIMITS
@given(st.sampled_from(TEXTS), st.data())
def test_lines_changed(text: str, data: st.DataObject) -> None:
    """Lines removed, doubled and put elsewhere: tables without keys, keys under another table."""
    lines = text.splitlines(keepends=True)
    for _ in range(data.draw(st.integers(1, 4))):
        at, to = (data.draw(st.integers(0, len(lines) - 1)) for _ in range(2))
        line = lines.pop(at)
        lines[to:to] = [line] * data.draw(st.integers(0, 2))
    read_or_refuse("".join(lines))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60) | st.text(alphabet="[]{}.=,\"'#\n\\ a1", max_size=60))
def test_any_text(text: str) -> None:
    read_or_refuse(text)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=80), st.integers(0, 4000))
def test_any_bytes_in_a_file(tmp_path_factory: Any, content: bytes, at: int) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.toml"
    whole = TEXTS[0].encode()
    path.write_bytes(whole[:at] + content + whole[at + len(content) :])
    try:
        sim.load(str(path))
    except InvalidArgument as error:
        assert re.match(rf"{re.escape(str(path))}:\d+: ", str(error))
