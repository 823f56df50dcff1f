"""The page of a device report, from its figures."""

import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

GIB = 2**30
# Transposes and copies of at least this many elements move maps; smaller ones move kernels.
LARGE = 2**20
# bfloat16 products a second at most, by the maker's data sheet (dense).
PEAKS = {
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
    "v4": 275e12,
    "v5 lite": 197e12,
    "v5e": 197e12,
    "v5p": 459e12,
    "v6": 918e12,
}
TITLES = {
    "ceiling": "Ceilings",
    "synthesis": "Synthesis",
    "parity": "Parity in float32",
    "inversion": "Inversion",
    "training": "Training step of configs/interestyle_ffhq.py",
}


def peak_of(device: str) -> float | None:
    """bfloat16 operations a second that the maker gives for a device kind, None where unknown."""
    return next((rate for name, rate in PEAKS.items() if name in device), None)


def counted_text(text: str) -> dict[str, int]:
    """Kinds of convolutions, layout changes and zero insertions in a compiled text.

    Returns:
      {"convForward": how many, ...} with the library's names where calls have some.
    """
    found = Counter(re.findall(r'custom_call_target="__cudnn\$(\w+)"', text))
    found["convolution"] = len(re.findall(r" convolution\(", text))
    found["zero-inserting pads"] = sum(
        any(int(n) for n in re.findall(r"\d+_\d+_(\d+)", pads))
        for pads in re.findall(r" pad\(.*?padding=([\dx_-]+)", text)
    )
    for kind, kinds in (("transpose", "transposes"), ("copy", "copies")):
        sizes = [
            math.prod(int(n) for n in sides.split(",") if n)
            for sides in re.findall(rf"= \w+\[([\d,]*)\]\S* {kind}\(", text)
        ]
        found[kinds] = len(sizes)
        found[f"large {kinds}"] = sum(size >= LARGE for size in sizes)
    found["instructions"] = text.count("\n")
    return {name: count for name, count in found.items() if count}


def page(content: Mapping[str, Any]) -> str:
    """The Markdown page of a report's content; also of an unfinished one."""
    sections: dict[str, list[Mapping[str, Any]]] = {}
    for entry in content["measurements"]:
        sections.setdefault(entry["section"], []).append(entry)
    rates = _rates(sections.get("ceiling", []))
    lines = [f"# {content['device']}", "", *_facts(content)]
    for section, entries in sections.items():
        lines += ["", f"## {TITLES[section]}", ""]
        fine = [e for e in entries if "error" not in e]
        if section == "ceiling":
            lines += _ceilings(fine)
        elif section == "parity":
            lines += _parity(fine)
        else:
            lines += _programs(fine, rates, peak_of(content["device"]))
        lines += [f"- {e['name']}: **{e['error']}**" for e in entries if "error" in e]
    if content["left_out"]:
        lines += ["", "## Left out", "", f"For want of time ({content['minutes']:g} minutes):", ""]
        lines += [f"- {name}" for name in content["left_out"]]
    return "\n".join(lines) + "\n"


def _facts(content: Mapping[str, Any]) -> list[str]:
    versions = ", ".join(f"{k} {v}" for k, v in content["versions"].items())
    limit = content["memory_limit_bytes"]
    memory = f", {limit / GIB:.1f} GiB for JAX" if limit else ""
    return [
        f"- {content['date']}, commit {content['git_commit']}",
        f"- `{content['command']}`",
        f"- one of {content['num_devices']} devices{memory}; {content['processor_cores']} cores; "
        f"{content['platform_version']}",
        f"- {versions}" + (f"; XLA_FLAGS {content['xla_flags']}" if content["xla_flags"] else ""),
        f"- the generator's form here: {content['form']}",
    ]


def _rates(ceilings: list[Mapping[str, Any]]) -> tuple[float, float]:
    """Operations and bytes a second that were measured; NaN where they were not."""
    fine = [e for e in ceilings if "error" not in e]
    flops = [e["flops"] / e["seconds"] for e in fine if "product" in e["name"]]
    copied = [e["bytes"] / e["seconds"] for e in fine if "copy" in e["name"]]
    return max(flops, default=math.nan), max(copied, default=math.nan)


def _ceilings(entries: list[Mapping[str, Any]]) -> list[str]:
    lines = ["| | ms | TFLOP/s | GB/s |", "|---|---:|---:|---:|"]
    for e in entries:
        rates = [e["flops"] / 1e12, e["bytes"] / 1e9]
        cells = [f"{rate / e['seconds']:.4g}" if rate else "" for rate in rates]
        lines.append(f"| {e['name']} | {1e3 * e['seconds']:.4g} | " + " | ".join(cells) + " |")
    return lines


def _parity(entries: list[Mapping[str, Any]]) -> list[str]:
    lines = [
        "Differences from the plain form on this device, divided by the image's largest value.",
        "",
        "| form | largest | root mean square |",
        "|---|---:|---:|",
    ]
    for e in entries:
        lines.append(f"| {e['name']} | {e['largest_difference']:.2g} | {e['rms_difference']:.2g} |")
    return lines


def _programs(
    entries: list[Mapping[str, Any]], rates: tuple[float, float], peak: float | None
) -> list[str]:
    rate, bandwidth = rates
    lines = [
        "| | ms an image | smallest – largest | images / s | TFLOP an image | MFU | "
        "floor, ms: work; traffic | temporaries, GiB | compile, s |",
        "|---|" + "---:|" * 8,
    ]
    for e in entries:
        n = e["images"]
        low, high = e["seconds_range"]
        mfu = f"{100 * e['flops'] / e['seconds'] / peak:.1f} %" if peak else ""
        floors = [1e3 * e["flops"] / rate / n, 1e3 * e["bytes"] / bandwidth / n]
        cells = [
            e["name"],
            f"{1e3 * e['seconds_per_image']:.4g}",
            f"{1e3 * low / n:.4g} – {1e3 * high / n:.4g}",
            f"{1 / e['seconds_per_image']:.4g}",
            f"{e['flops'] / n / 1e12:.3g}",
            mfu,
            f"{floors[0]:.3g}; {floors[1]:.3g}",
            f"{e['temporary_bytes'] / GIB:.2f}" if e["temporary_bytes"] is not None else "",
            f"{e['compile_seconds']:.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines.append("")
    for e in entries:
        counts = ", ".join(f"{v} {k}" for k, v in e["text"].items())
        peak_bytes = e["peak_bytes"]
        peak_told = f"; {peak_bytes / GIB:.1f} GiB at most so far" if peak_bytes else ""
        lines.append(f"- {e['name']}: {counts}{peak_told}")
    return lines
