"""What every report's page is made of: the page around it, sections, tiles, tables, figures. Cells are HTML already."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from infcore.profiling.report_style import STYLE

# A caption and the picture; None where there is nothing to show.
Chart = tuple[str, str] | None


def whole(title: str, parts: Iterable[str]) -> str:
    """The page as text: no script, no font, no picture from elsewhere, so it can be mailed or kept."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>'
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def header(title: str, about: str, facts: Sequence[str]) -> str:
    """The title, what it is about, and the run's facts in a line."""
    lines = f"<p>{escape(about)}</p><p class='facts'>{escape(' · '.join(facts))}</p>"
    return f"<header><h1>{escape(title)}</h1>{lines}</header>"


def section(title: str, body: str) -> str:
    """A part of the page under its title."""
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def banner(reasons: Sequence[str], good: str) -> str:
    """Whether to believe the figures: `good` says why where there are no reasons not to."""
    if not reasons:
        return f'<div class="banner good"><b>Valid run</b>: {escape(good)}.</div>'
    items = "".join(f"<li>{escape(reason)}</li>" for reason in reasons)
    return f'<div class="banner bad"><b>Not a valid run</b><ul>{items}</ul></div>'


def tiles(rows: Sequence[tuple[str, str, str]]) -> str:
    """The figures to see first: what, how much, of whom."""
    if not rows:
        return ""
    cells = (
        f"<div><small>{escape(a)}</small><strong>{escape(b)}</strong><small>{escape(c)}</small></div>"
        for a, b, c in rows
    )
    return f'<div class="tiles">{"".join(cells)}</div>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first column is text, the others figures."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def figures(charts: Sequence[Chart]) -> str:
    """The charts that there are, side by side where the page is wide enough."""
    shown = "".join(
        f"<figure><figcaption>{escape(title)}</figcaption>{body}</figure>" for title, body in filter(None, charts)
    )
    return f'<div class="grid2">{shown}</div>' if shown else ""


def points(lines: Sequence[str]) -> str:
    """A list."""
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def environment(env: Mapping[str, Any]) -> str:
    """On what it was run, and with which command."""
    memory = env.get("memory_bytes")
    packages = ", ".join(f"{name} {version}" for name, version in env.get("packages", {}).items() if version)
    rows = [
        ("command", " ".join(env.get("command_line", []))),
        ("infcore", f"{env.get('infcore')}" + (f" at commit {env['commit']}" if env.get("commit") else "")),
        (
            "processor",
            f"{env.get('cpu')}, {env.get('cores')} cores ({', '.join(env.get('cpu_features', []))})",
        ),
        ("memory", "unknown" if memory is None else f"{memory / 2**30:.1f} GiB"),
        ("system", f"{env.get('platform')}, {env.get('implementation')} {env.get('python')}"),
        ("packages", packages),
        ("load average at start", f"{env.get('load_average_1min') or 0.0:.2f}"),
    ]
    body = "".join(f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in rows)
    return section("Environment", f'<table class="facts-table">{body}</table>')
