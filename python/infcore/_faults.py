"""What an engine is told of runs that go wrong: when one is sent out once more, and what of it is written down."""

from __future__ import annotations

from typing import NamedTuple

from infcore import _checks
from infcore.errors import InvalidArgument

__all__ = ["Faults", "faults"]


class Faults(NamedTuple):
    hedge_quantile: float | None
    hedge_budget: float
    retry_budget: float | None
    log_terms: bool


def faults(
    hedge_quantile: float | None, hedge_budget: float, retry_budget: float | None, log_terms: bool, *, has_log: bool
) -> Faults:
    """Checks the arguments of Engine that say what is done about runs that are late or fail."""
    if _checks.flag("log_terms", log_terms) and not has_log:
        raise InvalidArgument("log_terms is True, and log is None; allowed: both, or neither")
    if hedge_quantile is not None and not 0.5 <= _checks.finite("hedge_quantile", hedge_quantile) < 1.0:
        raise InvalidArgument(f"hedge_quantile is {hedge_quantile!r}; allowed: None, or 0.5 to below 1")
    if _checks.finite("hedge_budget", hedge_budget) > 1.0:
        raise InvalidArgument(f"hedge_budget is {hedge_budget!r}; allowed: a share of requests, 0 to 1")
    return Faults(hedge_quantile, float(hedge_budget), _checks.optional_finite("retry_budget", retry_budget), log_terms)
