"""What queueing theory says of systems that a scenario can state: the oracle of the simulator.

Times in seconds; waits are times from arrival to the begin of service, of all arrivals. Sources: L. Kleinrock, Queueing
Systems 1, 1975 (M/M/c: 3.5, M/G/1: 5.6); the bulk server is solved from its own balance equations.
"""

from dataclasses import dataclass
from math import factorial, log

import numpy as np


@dataclass(frozen=True)
class Law:
    """The mean latency and wait, and the share of requests that wait (nan: not stated)."""

    latency_s: float
    wait_s: float
    waiting: float


def mg1(rate_rps: float, service_s: float, cv: float) -> Law:
    """M/G/1, first come first served: Pollaczek and Khinchine."""
    load = rate_rps * service_s
    wait_s = rate_rps * service_s**2 * (1.0 + cv**2) / (2.0 * (1.0 - load))
    return Law(wait_s + service_s, wait_s, load)


def mm1_latency_quantile_s(rate_rps: float, service_s: float, q: float) -> float:
    """M/M/1: the latency is exponential with the rate that is left over."""
    return -log(1.0 - q) / (1.0 / service_s - rate_rps)


def mmc(rate_rps: float, service_s: float, servers: int) -> Law:
    """M/M/c with one queue: Erlang's C."""
    offered = rate_rps * service_s
    last = offered**servers / factorial(servers) / (1.0 - offered / servers)
    waiting = last / (sum(offered**k / factorial(k) for k in range(servers)) + last)
    wait_s = waiting * service_s / (servers - offered)
    return Law(wait_s + service_s, wait_s, waiting)


def poisson(mean: float, n: int) -> np.ndarray:
    """Probabilities of 0 .. n - 1."""
    log_factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n)))])
    return np.exp(np.arange(n) * log(mean) - mean - log_factorials)


def md1_bulk(rate_rps: float, service_s: float, batch_max: int, n_states: int = 1500) -> Law:
    """M/D/1 whose server takes all that wait, up to batch_max, as soon as it is free.

    The chain: X, the number that a service's end leaves behind. X' = max(X - batch_max, 0) + A, where A of Poisson's
    law come during a service: from X = 0 on the server takes the first that comes at once, alone. Cut off at n_states.
    """
    arrivals = poisson(rate_rps * service_s, n_states)
    step = np.zeros((n_states, n_states))
    for state in range(n_states):
        left = max(state - batch_max, 0)
        step[state, left:] = arrivals[: n_states - left]
    step[:, -1] += 1.0 - step.sum(axis=1)
    balance = np.vstack([step.T - np.eye(n_states), np.ones(n_states)])[1:]
    share = np.linalg.solve(balance, np.eye(n_states)[-1])
    assert share[n_states // 2 :].sum() < 1e-9, "cut off too early"
    left = np.maximum(np.arange(n_states) - batch_max, 0)
    # From one end to the next the queue is what was left over, and on average half of what comes during the service.
    queue_seconds = service_s * (share @ left) + rate_rps * service_s**2 / 2.0
    cycle_s = service_s + share[0] / rate_rps
    wait_s = queue_seconds / cycle_s / rate_rps
    # All wait but those that find the server idle: one in each cycle that began with nobody left behind.
    return Law(wait_s + service_s, wait_s, 1.0 - share[0] / (rate_rps * cycle_s))
