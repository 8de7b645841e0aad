"""How a long run tells where it is; the command line shows it, a library user need not."""

from typing import Protocol


class Progress(Protocol):
    """A stage has a title and a part done, from 0 to 1; lines stay on the screen."""

    def stage(self, title: str) -> None: ...
    def advance(self, part_done: float) -> None: ...
    def line(self, text: str) -> None: ...


class Silent:
    """Progress that nobody watches."""

    def stage(self, title: str) -> None:
        """Ignored."""

    def advance(self, part_done: float) -> None:
        """Ignored."""

    def line(self, text: str) -> None:
        """Ignored."""
