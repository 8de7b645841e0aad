"""The engine's state machine under other clocks than the live one: logs of live engines, told again."""

from infcore.sim.recording import Event, Recorded, ReplayResult, events, recorded_arrivals, replay

__all__ = ["Event", "Recorded", "ReplayResult", "events", "recorded_arrivals", "replay"]
