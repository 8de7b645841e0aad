"""Progress on a terminal: rich's bar if it is there, else a line that is written over; lines alone elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from infcore.profiling.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress


class Shown(Progress, Protocol):
    """A progress display that results can be printed beside."""

    def result(self, text: str) -> None: ...
    def close(self) -> None: ...


class PlainLines:
    """Not a terminal: stages are silent, lines are printed."""

    def stage(self, title: str) -> None:
        """Ignored."""

    def advance(self, part_done: float) -> None:
        """Ignored."""

    def line(self, text: str) -> None:
        """Print it to standard error."""
        print(text, file=sys.stderr, flush=True)

    def result(self, text: str) -> None:
        """Print it to standard output."""
        print(text, flush=True)

    def close(self) -> None:
        """Nothing to tidy."""


class OneLine(PlainLines):
    """A terminal without rich: one line, written over."""

    _WIDTH = 24

    def __init__(self) -> None:
        self._title = ""
        self._shown = ""

    def stage(self, title: str) -> None:
        """A new stage begins."""
        self._title = title
        self._show(title)

    def advance(self, part_done: float) -> None:
        """Draw the bar."""
        filled = round(part_done * self._WIDTH)
        self._show(f"{self._title}  [{'#' * filled}{'.' * (self._WIDTH - filled)}] {part_done * 100:3.0f} %")

    def line(self, text: str) -> None:
        """Print it above the bar."""
        self._show("")
        super().line(text)

    def result(self, text: str) -> None:
        """Print it to standard output, where the bar was."""
        self._show("")
        super().result(text)

    def close(self) -> None:
        """Clear the line."""
        self._show("")

    def _show(self, text: str) -> None:
        if text != self._shown:
            self._shown = text
            print(f"\r\x1b[2K{text}", end="", file=sys.stderr, flush=True)


class RichBar(PlainLines):
    """rich's bar, drawn by this thread alone: a refresh thread of its own would cost the run a share of its cores."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._bar: RichProgress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f} %"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            auto_refresh=False,
            transient=True,
        )
        self._task = self._bar.add_task("", total=1.0)
        self._drawn = 0.0
        self._bar.start()

    def stage(self, title: str) -> None:
        """A new stage begins; its clock starts at 0."""
        self._bar.reset(self._task, total=1.0, description=title)
        self._drawn = 0.0
        self._bar.refresh()

    def advance(self, part_done: float) -> None:
        """Draw the bar, a hundred times a stage at most."""
        if part_done - self._drawn >= 0.01:
            self._drawn = part_done
            self._bar.update(self._task, completed=part_done)
            self._bar.refresh()

    def line(self, text: str) -> None:
        """Print it above the bar."""
        self._bar.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def result(self, text: str) -> None:
        """Print it to standard output, where the bar was."""
        self._bar.stop()
        super().result(text)
        self._bar.start()

    def close(self) -> None:
        """Remove the bar."""
        self._bar.stop()


@contextmanager
def progress() -> Iterator[Shown]:
    """The best progress display that standard error allows, removed at the end."""
    shown: Shown
    if not sys.stderr.isatty():
        shown = PlainLines()
    else:
        try:
            shown = RichBar()
        except ImportError:
            shown = OneLine()
    try:
        yield shown
    finally:
        shown.close()
