"""The parts of one answer as they come."""

from __future__ import annotations

from typing import Any

from infcore._core.future import Future
from infcore._core.token_sequence import sequence_of
from infcore.request import Array

__all__ = ["Stream"]


class Stream:
    """What engine.stream returns: `async for part in stream` gives {name: array}, and raises what ended the request.

    Leaving the loop, cancelling the task that waits in it, or aclose() takes the request back wherever it is; so does
    dropping the stream. Read by one task at a time, on the loop that it was made on.
    """

    __slots__ = ("__weakref__", "_ended", "_future", "_sequence", "_waiting", "_wake")

    def __init__(self, future: Future) -> None:
        self._future = future
        self._sequence = sequence_of(future)
        self._ended = self._waiting = False
        self._wake = None if self._sequence is None else self._sequence.wake
        if self._wake is not None:
            future.add_done_callback(self._wake)

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> dict[str, Array]:
        if self._ended:
            raise StopAsyncIteration
        if self._waiting:
            raise RuntimeError("a part of this stream is being waited for already; allowed: one task at a time")
        self._waiting = True
        try:
            return await (self._whole() if self._sequence is None else self._part())
        except BaseException:
            self._end()
            raise
        finally:
            self._waiting = False

    async def aclose(self) -> None:
        """Take the request back, unless it has ended."""
        self._end()

    def __del__(self) -> None:
        self._end()

    def _end(self) -> None:
        self._ended = True
        if self._wake is not None:  # first, so that nothing is told of the cancel
            self._future.remove_done_callback(self._wake)
            self._wake()
        self._future.cancel()

    async def _whole(self) -> dict[str, Array]:
        """Of a model that answers at once."""
        outputs: dict[str, Array] = await self._future
        self._ended = True
        return outputs

    async def _part(self) -> dict[str, Array]:
        import asyncio  # costs more than all of infcore; whoever gets here has paid for it

        sequence: Any = self._sequence
        while True:
            tokens = sequence.take()
            if tokens is None and self._future.done():
                tokens = sequence.take()  # what came between the two
                if tokens is None:
                    return await self._rest(sequence.n_taken)
            if tokens is not None:
                return {"tokens": tokens}
            waiter = asyncio.get_running_loop().create_future()
            if sequence.wait(waiter):
                await waiter

    async def _rest(self, n_taken: int) -> dict[str, Array]:
        """All parts were taken: an answer may still have come at once, from a device that makes no parts."""
        if self._ended:  # by aclose(), while this waited
            raise StopAsyncIteration
        outputs: dict[str, Array] = await self._future
        self._ended = True
        tokens = outputs["tokens"][n_taken:]
        if len(tokens) == 0:
            raise StopAsyncIteration
        return {"tokens": tokens}
