"""Which node gets a request: the fleet table and the router over it."""

from infcore._core.decision import Decision, Decisions
from infcore._core.fleet import Fleet
from infcore._core.python_policy import register_policy
from infcore._core.route import Router

__all__ = ["Decision", "Decisions", "Fleet", "Router", "register_policy"]
