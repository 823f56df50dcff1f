"""The rows of the paper's Table 1 as one table, beside the paper's figures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.ablation_table import LEVEL, OURS, THEIRS, correct, finding, order, statistics
from experiments.optimised_rows import paired_cells

# metric: (header, path in an encoder's entry of metrics.json, number format, higher is better).
METRICS: dict[str, tuple[str, tuple[str | int, ...], str, bool]] = {
    "interest_l2": ("L2 interest", ("interest", "l2"), ".4f", False),
    "face_l2": ("L2 face", ("face", "l2"), ".4f", False),
    "interest_lpips": ("LPIPS interest", ("interest", "lpips"), ".4f", False),
    "face_lpips": ("LPIPS face", ("face", "lpips"), ".4f", False),
    "whole_lpips": ("LPIPS whole", ("whole", "lpips"), ".4f", False),
    "id_similarity": ("ID similarity", ("id_similarity",), ".3f", True),
    "leakage_l2": ("leakage L2", ("leakage", "l2"), ".4f", False),
    "leakage_lpips": ("leakage LPIPS", ("leakage", "lpips"), ".4f", False),
    "latent_variance": ("latent variance", ("latent_variance", -1), ".3g", False),
    "nscd": ("NSCD", ("nscd",), ".3f", False),
    "seconds_per_image": ("s / image", ("seconds_per_image",), ".3g", False),
}
# Table 1 of the paper, in the order of PAPER_METRICS.
PAPER_METRICS = ("interest_l2", "face_l2", "interest_lpips", "face_lpips", "id_similarity")
PAPER = {
    "idinvert": (0.030, 0.010, 0.116, 0.053, 0.18),
    "psp": (0.018, 0.006, 0.095, 0.046, 0.56),
    "e4e": (0.023, 0.007, 0.111, 0.051, 0.47),
    "restyle_psp": (0.015, 0.004, 0.088, 0.040, 0.65),
    "restyle_e4e": (0.021, 0.007, 0.109, 0.054, 0.51),
    "interestyle": (0.013, 0.003, 0.075, 0.036, 0.68),
}
OURS_ROW = "interestyle"
NOTES = (
    "## How to read it",
    "",
    "- Lower is better, except for ID similarity. Images are measured as `interestyle evaluate` "
    "does, at 8 bits and at the encoder's size.",
    "- Differences are those of runs with the same seed; p is the two-sided one of Student's t, q "
    "the same after a correction for the number of all comparisons (Benjamini and Yekutieli). "
    f"“Improves” and “worsens”: q is below {LEVEL}.",
    "- IDInvert is an adaptation to StyleGAN2; the paper's row is of StyleGAN1.",
    "- A method without interest masks sees the whole image, obstacles too; with them, the visible "
    "interest region of the obstructed image, and of the clean image all of its own.",
    "- Where noise maps are optimised or weights tuned, an image has more freedom than a latent "
    "gives: its distances do not compare with those of latents alone.",
    "- Seconds: of encoders the median batch, compilation excluded; of methods the mean over the "
    "images after the first batch, where there is more than one.",
    "- NSCD (LSAP): how far latents lie from the generator's samples in S space; not of tuned "
    "generators.",
    "- Leakage is the avatar world's own measure; the paper has none.",
)


def value_of(entry: Mapping[str, Any], metric: str) -> float | None:
    """A metric of an encoder's entry in metrics.json, None where it was not measured."""
    value: Any = entry
    for key in METRICS[metric][1]:
        if value is None:
            return None
        # Evaluations of earlier versions lack some.
        value = value.get(key) if isinstance(key, str) else value[key]
    return value


def summarize(
    measured: Mapping[str, Sequence[Mapping[str, Any]]],
    labels: Mapping[str, str],
    mean_latent: Mapping[str, Any],
) -> dict[str, Any]:
    """Statistics of all rows, and IntereStyle against each other encoder.

    Args:
      measured: {row: entries of metrics.json, one a seed}; rows that both have runs with the same
        seeds are compared by the differences of these runs.
      labels: {row: its name in the table}.
      mean_latent: of metrics.json.

    Returns:
      JSON-able: {"labels", "mean_latent", "rows": {row: {metric: statistics or None}}, "paper":
      {row: {metric: value}}, "pairs": {row: {metric: statistics of IntereStyle's difference from
      it, with "order", "paper" and "finding" as `ablation_table.summarize` has them}}}.
    """
    rows: dict[str, dict[str, Any]] = {}
    for row, entries in measured.items():
        rows[row] = {}
        for metric in METRICS:
            values = [value_of(entry, metric) for entry in entries]
            known = None not in values
            rows[row][metric] = statistics(np.asarray(values, np.float64)) if known else None
    pairs: dict[str, dict[str, Any]] = {}
    for row in PAPER:
        if row == OURS_ROW or not {row, OURS_ROW} <= rows.keys():
            continue
        pairs[row] = {}
        for metric, (_, _, _, higher) in METRICS.items():
            ours, theirs = rows[OURS_ROW][metric], rows[row][metric]
            if metric == "seconds_per_image" or ours is None or theirs is None:
                continue
            if len(ours["values"]) != len(theirs["values"]):
                continue
            entry = statistics(np.subtract(ours["values"], theirs["values"]))
            entry["paper"] = _paper_order(row, metric, higher)
            pairs[row][metric] = entry
    compared = [(m, entry) for entries in pairs.values() for m, entry in entries.items()]
    correct([entry for _, entry in compared])
    for metric, entry in compared:
        # "Improves" is -1: of what is better when it is higher, the sign turns.
        signed = {**entry, "mean": -entry["mean"]} if METRICS[metric][3] else entry
        entry["order"] = order(signed)
        entry["finding"] = finding(entry["order"], entry["paper"])
    paper = {row: dict(zip(PAPER_METRICS, values, strict=True)) for row, values in PAPER.items()}
    return {
        "labels": dict(labels),
        "mean_latent": dict(mean_latent),
        "rows": rows,
        "paper": paper,
        "pairs": {row: compared for row, compared in pairs.items() if compared},
    }


def _paper_order(row: str, metric: str, higher: bool) -> int | None:
    if metric not in PAPER_METRICS:
        return None
    k = PAPER_METRICS.index(metric)
    sign = int(np.sign(PAPER[OURS_ROW][k] - PAPER[row][k]))
    return -sign if higher else sign


def markdown(summary: Mapping[str, Any]) -> str:
    """The content of table.md.

    Args:
      summary: from `summarize`, with "setting": {"command", "steps", "batch_size", "seeds", "data",
        "num_images", "method_images", "trained", "given", "calls": settings of earlier calls,
        "methods": {row: facts of `optimised_rows.run_method`}, "versions", "git_commit"}, and
        "interest_masks": {method: {metric: paired test}}.
    """
    setting, rows = summary["setting"], summary["rows"]
    shown = [m for m in METRICS if any(row[m] is not None for row in rows.values())]
    lines = [
        "# Table 1 in the avatar world" if setting["trained"] else "# Table 1",
        "",
        *(f"`{call['command']}`\n" for call in setting["calls"]),
        f"`{setting['command']}`",
        "",
        f"Encoders are measured on {setting['num_images']} images of `{setting['data']}`, methods "
        f"that optimise on the first {setting['method_images']}. jax "
        f"{setting['versions']['jax']}, commit {setting['git_commit']}.",
        "",
    ]
    if setting["trained"]:
        lines += [
            f"Trained rows: seeds {', '.join(map(str, setting['seeds']))}, each "
            f"{setting['steps']} steps with batch {setting['batch_size']}, so equal numbers of "
            "images; mean ± standard error over the seeds. Other rows were measured once.",
            "",
        ]
    lines += [
        "| | " + " | ".join(METRICS[m][0] for m in shown) + " |",
        "|---|" + "---:|" * len(shown),
        "| mean latent | " + " | ".join(_mean_latent(summary, m) for m in shown) + " |",
    ]
    for row, entries in rows.items():
        cells = [_cell(entries[m], METRICS[m][2]) for m in shown]
        lines.append(f"| {summary['labels'][row]} | " + " | ".join(cells) + " |")
    lines += ["", *_methods(summary), *_interest_masks(summary), *_pairs(summary)]
    return "\n".join([*lines, *_paper(summary), *NOTES, ""])


def _mean_latent(summary: Mapping[str, Any], metric: str) -> str:
    path = METRICS[metric][1]
    if len(path) < 2 or path[0] not in summary["mean_latent"]:
        return "–"
    value = summary["mean_latent"][path[0]][path[1]]
    return "–" if value is None else format(value, METRICS[metric][2])


def _cell(entry: Mapping[str, Any] | None, form: str) -> str:
    if entry is None:
        return "–"
    error = "" if entry["se"] is None else f" ± {entry['se']:{form}}"
    return f"{entry['mean']:{form}}{error}"


def _methods(summary: Mapping[str, Any]) -> list[str]:
    methods = summary["setting"]["methods"]
    if not methods:
        return []
    lines = [
        "| by optimisation | steps | noise maps optimised | weights tuned |",
        "|---|---:|---|---|",
    ]
    for row, facts in methods.items():
        yes = ["yes" if facts[name] else "no" for name in ("noise", "tuned")]
        lines.append(
            f"| {summary['labels'][row]} | {facts['num_steps']:.0f} | " + " | ".join(yes) + " |"
        )
    return [*lines, ""]


def _interest_masks(summary: Mapping[str, Any]) -> list[str]:
    if not summary["interest_masks"]:
        return []
    lines = [
        "## With and without interest masks",
        "",
        "The interest-masked form minus the other one, over the images (paired, two-sided).",
        "",
        "| method | metric | difference | p (t) | p (Wilcoxon) | n |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for row, metrics in summary["interest_masks"].items():
        for name, test in metrics.items():
            cells = paired_cells(summary["labels"][row], name, test)
            lines.append(f"{cells} {test['n']} |")
    return [*lines, ""]


def _pairs(summary: Mapping[str, Any]) -> list[str]:
    if not summary["pairs"]:
        return []
    lines = [
        "## IntereStyle against the other encoders",
        "",
        "| than | metric | difference | p | q | IntereStyle here | in the paper | finding |",
        "|---|---|---:|---:|---:|---|---|---|",
    ]
    counts: dict[str, int] = {}
    for row, metrics in summary["pairs"].items():
        for metric, entry in metrics.items():
            error = "" if entry["se"] is None else f" ± {entry['se']:.4f}"
            p, q = ("–" if entry[name] is None else f"{entry[name]:.3f}" for name in ("p", "q"))
            lines.append(
                f"| {summary['labels'][row]} | {METRICS[metric][0]} | "
                f"{entry['mean']:+.4f}{error} | {p} | {q} | "
                f"{OURS[entry['order']]} | {THEIRS[entry['paper']]} | "
                f"{entry['finding'] or '–'} |"
            )
            if entry["finding"]:
                counts[entry["finding"]] = counts.get(entry["finding"], 0) + 1
    said = ", ".join(f"{count} {name}" for name, count in counts.items())
    return [*lines, "", f"Of the paper's {sum(counts.values())} orders: {said or 'none'}.", ""]


def _paper(summary: Mapping[str, Any]) -> list[str]:
    lines = [
        "## The paper's figures",
        "",
        "Photographs: encoders that their authors trained on FFHQ, measured on CelebA-HQ. Only "
        "orders can be compared with another world's.",
        "",
        "| | " + " | ".join(METRICS[m][0] for m in PAPER_METRICS) + " |",
        "|---|" + "---:|" * len(PAPER_METRICS),
    ]
    names = {"idinvert": "IDInvert (StyleGAN1)"}
    for row, values in summary["paper"].items():
        cells = [f"{values[m]:.2f}" if m == "id_similarity" else f"{values[m]:.3f}" for m in values]
        name = names.get(row, summary["labels"].get(row, row))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*lines, ""]
