"""infcore: the decision core of an inference load balancer, as a library."""

from infcore._core.base import Clock, ManualClock
from infcore.errors import *  # noqa: F403
from infcore.errors import __all__ as _errors
from infcore.queueing import Queue, Ticket

__version__ = "0.1.0"
__all__ = ["Clock", "ManualClock", "Queue", "Ticket", *_errors]
