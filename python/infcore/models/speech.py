"""Sound made from nothing, of which it is known whether it is speech: for the model that detects voice.

Speech-like: a voice's harmonics shaped by four resonances that glide from vowel to vowel several times a second, which
is what makes speech speech. The vowels' resonances are averages for men of Peterson and Barney, "Control methods used
in a study of the vowels", JASA 24 (1952), table II. A held vowel, a tone, a hum or noise is not speech to the model.
"""

import numpy as np
import numpy.typing as npt

__all__ = ["RATE_HZ", "silent_kinds", "silent_sound", "speech_sound"]

RATE_HZ = 16000

_VOWELS_HZ = {
    "a": (730, 1090, 2440),
    "e": (530, 1840, 2480),
    "i": (270, 2290, 3010),
    "o": (570, 840, 2410),
    "u": (300, 870, 2240),
}
_FOURTH_HZ = 3500  # the fourth resonance hardly moves
_WIDTHS_HZ = (60, 90, 120, 150)
_WORDS = ("ai", "aiu", "aeiou", "au")  # orders of vowels far enough apart for every glide to be heard as one
_TOP_HZ = 4000


def speech_sound(rng: np.random.Generator, seconds: float) -> npt.NDArray[np.float32]:
    """Babble of one voice: (seconds * 16000,) float32 in -1..1, with a little breath noise."""
    n = int(seconds * RATE_HZ)
    at_s = np.arange(n) / RATE_HZ
    glide_s = rng.uniform(0.12, 0.15)
    knots_s = np.arange(int(seconds / glide_s) + 2) * glide_s
    word = _WORDS[rng.integers(len(_WORDS))]
    targets = np.array([_VOWELS_HZ[word[i % len(word)]] for i in range(len(knots_s))], float)
    voice_hz = rng.uniform(95, 140)
    pitch_hz = voice_hz * (1 + 0.12 * np.interp(at_s, knots_s, rng.uniform(-1, 1, len(knots_s))))
    resonances = [np.interp(at_s, knots_s, targets[:, i]) for i in range(3)] + [np.full(n, float(_FOURTH_HZ))]
    phase = 2 * np.pi * np.cumsum(pitch_hz) / RATE_HZ
    sound = np.zeros(n)
    for harmonic in range(1, int(_TOP_HZ / voice_hz)):
        hz = harmonic * pitch_hz
        gain = np.ones(n)
        for centre_hz, width_hz in zip(resonances, _WIDTHS_HZ, strict=True):
            gain *= centre_hz**2 / np.hypot(centre_hz**2 - hz**2, width_hz * hz)
        sound += gain * np.sin(harmonic * phase) / harmonic
    loudness = 0.65 - 0.35 * np.cos(2 * np.pi * at_s / glide_s)
    sound = sound / np.abs(sound).max() * loudness + 0.01 * rng.standard_normal(n)
    voice: npt.NDArray[np.float32] = (rng.uniform(0.3, 0.6) * sound).astype(np.float32)
    return voice


def silent_kinds() -> tuple[str, ...]:
    """The kinds of sound without speech."""
    return ("silence", "noise", "hum", "tone")


def silent_sound(kind: str, rng: np.random.Generator, seconds: float) -> npt.NDArray[np.float32]:
    """Sound without speech: (seconds * 16000,) float32 in -1..1."""
    n = int(seconds * RATE_HZ)
    at_s = np.arange(n) / RATE_HZ
    if kind == "silence":
        sound = np.zeros(n)
    elif kind == "noise":
        sound = rng.uniform(0.01, 0.3) * rng.standard_normal(n)
    elif kind == "hum":
        sound = rng.uniform(0.05, 0.3) * np.sin(2 * np.pi * rng.choice([50.0, 60.0]) * at_s)
    else:
        sound = rng.uniform(0.05, 0.3) * np.sin(2 * np.pi * rng.uniform(400, 1500) * at_s)
    return np.clip(sound, -1, 1).astype(np.float32)
