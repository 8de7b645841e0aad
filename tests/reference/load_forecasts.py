"""What reference.model_loads has loaded though nobody waits for it, readably."""

from typing import Any

from reference.model_facts import Facts, per_s
from reference.model_memory import Loads

SELDOM_PER_S = 1e-9  # a model that was never asked for comes after all that were


class Forecasts:
    """Of a Residency, which sees to all else."""

    engine: Any
    facts: dict[int, Facts]
    nodes: dict[int, Loads]
    weights_bytes_least: int
    load: Any
    could_load: Any
    cost_us: Any
    n_holding: Any

    def load_expected(self, now_ns: int, model: int) -> bool:
        """What somebody expects to be asked for: where there is room, else where something may go for it. Whether it is
        expected no more."""
        if not self.engine.models[model].known or self.n_holding(model) > 0:
            return True
        up = [node.id for node in self.engine.fleet if node.state == "up"]
        by_room = sorted(up, key=lambda id: self.nodes[id].memory.free_bytes() < self.facts[model].weights_bytes)
        return any(self.could_load(id, model) and self.load(now_ns, id, model, "forecast") for id in by_room)

    def fill_up(self, now_ns: int) -> None:
        """Where there is room, and nobody waits for anything else there: what is asked for most, by what it takes; of
        what was never asked for, one copy."""
        for id, loads in sorted(self.nodes.items()):
            is_quiet = loads.beside_runs or not self.engine.batches[id]
            has_room = loads.memory.free_bytes() >= self.weights_bytes_least
            if not (loads.may_fill and loads.loading is None and has_room and is_quiet):
                continue
            if self.engine.fleet[id].state != "up":
                continue
            loads.may_fill = False
            worths = [(-self.worth(now_ns, model), model) for model in self.fitting(now_ns, id)]
            if worths:
                self.load(now_ns, id, min(worths)[1], "forecast")

    def fitting(self, now_ns: int, id: int) -> list[int]:
        loads, found = self.nodes[id], []
        for model in sorted(self.engine.fleet[id].hosts):
            fits = self.facts[model].weights_bytes <= loads.memory.free_bytes()
            if not self.engine.models[model].known or model in loads.memory.places or not fits:
                continue
            if self.could_load(id, model) and self.asked_per_s(now_ns, model) > 0.0:
                found.append(model)
        return found

    def asked_per_s(self, now_ns: int, model: int) -> float:
        return per_s(self.facts[model].asked_ns, now_ns) + (SELDOM_PER_S if self.n_holding(model) == 0 else 0.0)

    def worth(self, now_ns: int, model: int) -> float:
        gain = self.asked_per_s(now_ns, model) * self.cost_us(model) / float(self.facts[model].weights_bytes + 1)
        return gain / (self.n_holding(model) + 1)
