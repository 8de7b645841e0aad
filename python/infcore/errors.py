"""Every error of infcore: an InfcoreError and the closest built-in, naming argument, value and what is allowed."""

import concurrent.futures
import queue

__all__ = [
    "CacheUnreachable",
    "Cancelled",
    "DeadlineExceeded",
    "DeadlineInfeasible",
    "DeviceError",
    "DeviceLost",
    "EngineClosed",
    "ForkedProcess",
    "InfcoreError",
    "InvalidArgument",
    "InvalidType",
    "MissingExtra",
    "NoNodeAvailable",
    "Overloaded",
    "QueueClosed",
    "QueueEmpty",
    "QueueFull",
    "SnapshotError",
    "UnknownName",
]


class InfcoreError(Exception):
    """Base of all infcore errors.

    reason         of what ended a request, as in logs ("overload", "deadline", ...); "" elsewhere
    retry_after_s  where it is worth another try: after so many seconds, by backlog and capacity; else None
    """

    reason: str = ""
    retry_after_s: float | None = None


class InvalidArgument(InfcoreError, ValueError):
    """An argument's value is outside what is allowed: names field, value and what would do."""


class InvalidType(InfcoreError, TypeError):
    """An argument is of a type that cannot do: names field, type and what would do."""


class MissingExtra(InfcoreError, ImportError):
    """A package that is not part of the base install is needed: names it and the extra that brings it."""


class SnapshotError(InfcoreError, ValueError):
    """A file is no whole snapshot: names file, offset and why. Nothing of it was used.

    offset  byte of the file at which it is wrong
    """

    def __init__(self, path: str, offset: int, why: str):
        super().__init__(f"{path}: byte {offset}: {why}; allowed: a whole file that save_snapshot() wrote")
        self.path, self.offset = path, offset


class UnknownName(InfcoreError, LookupError):
    """No model, device, policy or input answers to that name."""

    __str__ = Exception.__str__  # KeyError-style quoting would hide the sentence


class QueueFull(InfcoreError, queue.Full):
    """A bounded queue holds as many requests as it may; try later."""


class Overloaded(QueueFull):
    """Refused or given up, since devices have more to do than they can; retry_after_s says when to try again."""


class QueueEmpty(InfcoreError, queue.Empty):
    """Nothing to take, now or within the time-out."""


class QueueClosed(InfcoreError, RuntimeError):
    """The queue was closed: it takes nothing more, and has nothing left."""


class NoNodeAvailable(InfcoreError, LookupError):
    """No node is up, holds the model and carries the labels that were required."""

    __str__ = Exception.__str__


class DeadlineInfeasible(InfcoreError, TimeoutError):
    """No node is predicted to answer before the deadline.

    best_s  the least seconds that any would need, where the engine says so; else None
    """

    best_s: float | None = None


class DeadlineExceeded(InfcoreError, TimeoutError):
    """The deadline passed before the request was done."""


class CacheUnreachable(InfcoreError, ConnectionError):
    """The far part of a cache cannot be asked now, or did not answer in time: whether it was done is not known then."""


class EngineClosed(InfcoreError, RuntimeError):
    """The engine takes no more requests, or ended before this one was answered."""


class DeviceError(InfcoreError, RuntimeError):
    """A device's run raised, or returned something else than the model's outputs; names the device."""


class DeviceLost(DeviceError):
    """A device stopped answering while it held this request, and no other could take it in time."""


class Cancelled(InfcoreError, concurrent.futures.CancelledError):
    """The request was cancelled by its caller."""


class ForkedProcess(InfcoreError, RuntimeError):
    """An object made before fork() was used in the child process."""
