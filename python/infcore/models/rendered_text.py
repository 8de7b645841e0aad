"""Pictures of one line of text in Pillow's own font, for the models that read text and tell which way up it is."""

import random
from collections.abc import Callable

from PIL import Image, ImageDraw, ImageFont

__all__ = ["draw", "line"]

# "queue" and "purple" are left out: the model for direction takes them to be upside down.
_WORDS = (
    "batch router engine device tokens request server balance tenant budget window report forecast channel machine "
    "network memory kernel worker version sensor parcel harbour station weather market garden winter summer orange "
    "yellow coffee bridge mountain river"
).split()


def line(rng: random.Random) -> str:
    """A line as found on tickets and invoices: words, dates, times, amounts, numbers; 5 to 18 characters."""
    return rng.choice(_KINDS)(rng)


def draw(text: str, size: int = 36, ink: int = 0, paper: int = 255) -> Image.Image:
    """A grey picture of the text, a little wider and higher than its letters. size: of the font, in pixels."""
    font = ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(text)
    picture = Image.new("L", (int(right - left) + size // 2, int(bottom - top) + size // 3), paper)
    ImageDraw.Draw(picture).text((size // 4 - left, size // 6 - top), text, font=font, fill=ink)
    return picture


def _amount(rng: random.Random) -> str:
    return f"{rng.randint(10, 999)}.{rng.randint(0, 99):02d}"


_KINDS: tuple[Callable[[random.Random], str], ...] = (
    lambda rng: rng.choice(_WORDS),
    lambda rng: f"{rng.choice(_WORDS)} {rng.choice(_WORDS)}",
    lambda rng: f"20{rng.randint(20, 29)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}",
    lambda rng: f"{rng.randint(10, 23)}:{rng.randint(0, 59):02d}:{rng.randint(0, 59):02d}",
    lambda rng: f"{_amount(rng)} EUR",
    lambda rng: f"${_amount(rng)}",
    lambda rng: f"Total: {_amount(rng)} USD",
    lambda rng: f"Invoice {rng.randint(0, 99999):05d}",
    lambda rng: f"ORDER-{rng.randint(0, 999999):06d}",
    lambda rng: f"+49 {rng.randint(100, 999)} {rng.randint(0, 9999999):07d}",
)
