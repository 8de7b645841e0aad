"""Energy that a run took, by the counter of the card that a suite's device names."""

from collections.abc import Iterable, Mapping

from infcore.profiling.suite import DeviceSpec


def read_counters(devices: Iterable[DeviceSpec]) -> dict[str, float]:
    """Joules so far of each device's card, by the device's name; those without a card, or a counter, are left out."""
    named = {device.name: device.card for device in devices if device.card}
    if not named:
        return {}
    from infcore.telemetry.reading import gpus

    counters: dict[str | None, float] = {}
    for card in gpus()[0]:
        if card.energy_j is not None:
            counters |= dict.fromkeys((card.uuid, str(card.index)), card.energy_j)
    return {name: counters[card] for name, card in named.items() if card in counters}


def between(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What each took; left out where the counter began anew meanwhile, with its driver."""
    return {name: after[name] - then for name, then in before.items() if after.get(name, -1.0) >= then}


def notes(devices: Iterable[DeviceSpec]) -> list[str]:
    """What the report says of cards whose energy is not told."""
    named = [device for device in devices if device.card]
    told = read_counters(named)
    return [
        f"Energy of {device.name} is not measured: card {device.card!r} is not there or has no such counter."
        for device in named
        if device.name not in told
    ]
