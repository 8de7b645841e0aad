"""`infcore info`: what is installed, and what this machine has."""

import argparse
import dataclasses
import importlib.util
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from infcore.cli import gpu_libraries
from infcore.cli.common import Parser, add_json, check_writable, write_json

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def add_parser(commands: "_SubParsersAction[Parser]") -> None:
    """Register the subcommand."""
    parser = commands.add_parser(
        "info",
        help="versions, processor, GPUs and what can use them",
        description="Show what infcore finds on this machine.",
    )
    add_json(parser)
    parser.set_defaults(run=run)


def onnx_providers() -> list[str]:
    """ONNX Runtime's execution providers; empty if it is not installed or does not load."""
    if importlib.util.find_spec("onnxruntime") is None:
        return []
    try:
        import onnxruntime
    except ImportError:
        return []
    return [str(name) for name in onnxruntime.get_available_providers()]


def collect() -> dict[str, Any]:
    """Everything that is shown, JSON-ready. A figure of a device that it does not tell is None."""
    from infcore.profiling.env import environment
    from infcore.profiling.suite import shipped
    from infcore.telemetry.reading import gpus, host

    cards, no_gpu_because = gpus()
    return {
        "schema_version": 1,
        "command": "info",
        "env": environment(),
        "onnx_providers": onnx_providers(),
        "host": dataclasses.asdict(host()),
        "gpus": [dataclasses.asdict(card) for card in cards],
        "no_gpu_because": no_gpu_because or None,
        "kernels": gpu_libraries.kernels(has_gpu=any(not card.lost for card in cards)),
        "suites": shipped(),
    }


def text(found: Mapping[str, Any]) -> str:
    """The result as lines of name and value."""
    env, host, kernels = found["env"], found["host"], found["kernels"]
    present = [f"{name} {version}" for name, version in env["packages"].items() if version]
    missing = [name for name, version in env["packages"].items() if not version]
    features = " ".join(env["cpu_features"]) or "none of those looked for"
    rows = [
        ("infcore", env["infcore"] + (f" ({env['commit']})" if env["commit"] else "")),
        ("python", f"{env['implementation']} {env['python']}, {env['platform']}"),
        ("packages", ", ".join(present)),
        ("not installed", ", ".join(missing) or "-"),
        ("ONNX Runtime", ", ".join(found["onnx_providers"]) or "not installed: pip install 'infcore[onnx]'"),
        ("suites", ", ".join(found["suites"]) or "none"),
        ("CPU", f"{env['cpu']}, {env['cores']} cores, {env['machine']}"),
        ("", f"{features}; infcore's loops run as {host['isa']} (INFCORE_ISA)"),
        ("", ", ".join(_host_parts(host))),
        *(row for card in found["gpus"] for row in _gpu_rows(card)),
    ]
    if not found["gpus"]:
        rows.append(("GPU", f"none: {found['no_gpu_because']}"))
    rows += [
        ("GPU libraries", ", ".join(gpu_libraries.described(kernels))),
        ('device="cuda"', _device_cuda(kernels)),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in rows)


def _host_parts(host: Mapping[str, Any]) -> Iterator[str]:
    load = [host["load_1min"], host["load_5min"], host["load_15min"]]
    if None not in load:
        yield f"load {load[0]:.2f} {load[1]:.2f} {load[2]:.2f}"
    if host["memory_total_bytes"] is not None:
        yield f"memory {_gib(host['memory_used_bytes'])} of {_gib(host['memory_total_bytes'])} GiB in use"
    if host["network_bytes_per_s_max"] is not None:
        yield f"network {host['network_bytes_per_s_max'] * 8e-9:g} Gbit/s"


def _gpu_rows(card: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    known = [card["name"] or "of unknown name"]
    if card["compute_capability"] is not None:
        known.append("sm_{}{}".format(*card["compute_capability"]))
    known += [f"driver {card['driver']}"] if card["driver"] else []
    known += [card["uuid"]] if card["uuid"] else []
    yield f"GPU {card['index']}", ", ".join(known)
    if card["lost"]:
        yield "", "LOST: it fell off the bus or needs a reset, and tells nothing more"
        return
    rows = (_use_parts(card), _link_parts(card))
    yield from (("", ", ".join(parts)) for parts in map(list, rows) if parts)


def _use_parts(card: Mapping[str, Any]) -> Iterator[str]:
    if card["memory_total_bytes"] is not None:
        yield f"memory {_gib(card['memory_used_bytes'])} of {_gib(card['memory_total_bytes'])} GiB in use"
    if card["utilization"] is not None:
        yield f"{card['utilization']:.0%} busy"
    if card["power_w"] is not None:
        limit = "" if card["power_limit_w"] is None else f" of {card['power_limit_w']:.0f}"
        yield f"{card['power_w']:.0f}{limit} W"
    if card["temperature_c"] is not None:
        yield f"{card['temperature_c']} °C"
    if card["sm_clock_mhz"] is not None:
        yield f"{card['sm_clock_mhz']} MHz"
    if card["throttle_reasons"]:
        yield f"clocks held by {' '.join(card['throttle_reasons'])}"
    if card["mig"]:
        yield "divided (MIG)"


def _link_parts(card: Mapping[str, Any]) -> Iterator[str]:
    if card["pcie_generation"] is not None and card["pcie_width"] is not None:
        yield f"PCIe {card['pcie_generation']} x{card['pcie_width']}"
    if card["nvlink_links"] is not None:
        yield f"{card['nvlink_links']} NVLinks up"
    kinds = ("uncorrected", "corrected")
    told = [f"{card[f'ecc_{kind}']} {kind}" for kind in kinds if card[f"ecc_{kind}"] is not None]
    if told:
        yield f"ECC errors {', '.join(told)}"


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.1f}"


def _device_cuda(kernels: Mapping[str, Any]) -> str:
    choice, missing = kernels["device_cuda"], kernels["device_cuda_missing"]
    if not missing:
        return f"runs on {choice}"
    return f"{f'would run on {choice}, ' if choice else ''}but is missing {' and '.join(missing)}".removeprefix("but ")


def run(arguments: argparse.Namespace) -> int:
    """Collect, show, write."""
    check_writable("--json", arguments.json)
    found = collect()
    if str(arguments.json) != "-":
        print(text(found))
    write_json(arguments.json, found)
    return 0
