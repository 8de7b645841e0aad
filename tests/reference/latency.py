"""The online latency model in NumPy: what csrc/infcore/contracts/latency.hpp says, without its care for speed."""

from itertools import combinations

import numpy as np

KEEP = 0.98
YOUNG = 8


class LatencyModel:
    def __init__(self, prior=None):
        self.has_prior = prior is not None
        self.curve = np.array(prior if self.has_prior else [1e-3, 0.0, 0.0, 0.0])
        self.theta = self.curve.copy() if self.has_prior else np.zeros(4)
        self.information = np.zeros((4, 4))
        self.deviation = 0.1 / np.sqrt(np.pi / 2)
        self.n_observed = 0
        self.run = 0

    @property
    def spread(self):
        return self.deviation * np.sqrt(np.pi / 2)

    def service_s(self, n, work_sum, work_max):
        return max(float(self.curve @ [1.0, n, work_sum, n * work_max]), 1e-9)

    def observe(self, n, work_sum, work_max, service_s):
        x = np.array([1.0, n, work_sum, n * work_max])
        predicted = self.service_s(n, work_sum, work_max)
        young = self.n_observed < YOUNG
        scale = max(predicted, service_s) if young else predicted
        if self.n_observed == 0:
            typical = np.where(x > 0, x, n) / scale
            self.information = np.diag((0.25 if self.has_prior else 0.01) * typical**2)
        row = x / scale
        gain = np.linalg.solve(self.information, row)
        h = row @ gain
        noise = np.sqrt(1 + h)
        residual = service_s / scale - row @ self.theta
        limit = max(3 * self.spread, 0.01) * noise
        sign = 1 if residual > 0 else -1
        self.run = 0 if abs(residual) <= limit else sign * (min(4, abs(self.run) + 1) if self.run * sign > 0 else 1)
        self.n_observed += 1
        if abs(self.run) >= 4:
            ratio = service_s / predicted
            self.curve = self.curve * ratio
            self.theta = self.curve.copy()
            self.information = self.information * (min(h, 1.0) / ratio**2)
            self.run = 0
            return
        if not young:
            residual = np.clip(residual, -limit, limit)
        self.theta = self.theta + gain * (residual / (KEEP + h))
        self.information = self.information + (1 - (1 - KEEP) / h) * np.outer(row, row)
        self.curve = self.projected()
        size = min(abs(service_s - predicted) / (scale * noise), max(4 * self.deviation, 0.02))
        self.deviation += max(1 / (self.n_observed + 1), 0.05) * (size - self.deviation)

    def projected(self):
        """The curve without a negative term that is nearest in the metric of the information: try every support."""
        if (self.theta >= 0).all():
            return self.theta.copy()
        best, least = np.zeros(4), self.theta @ self.information @ self.theta
        target = self.information @ self.theta
        for size in range(1, 5):
            for support in map(list, combinations(range(4), size)):
                curve = np.zeros(4)
                curve[support] = np.linalg.solve(self.information[np.ix_(support, support)], target[support])
                distance = (curve - self.theta) @ self.information @ (curve - self.theta)
                if (curve >= 0).all() and distance < least:
                    best, least = curve, distance
        return best
