"""Several runs of the paper's Table 2 as one table, and what they say about the paper's orders."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import false_discovery_control
from scipy.stats import t as student_t

# (label, path in an encoder's entry of metrics.json); lower is better for all.
METRICS = {
    "interest_l2": ("L2 interest", ("interest", "l2")),
    "face_l2": ("L2 face", ("face", "l2")),
    "interest_lpips": ("LPIPS interest", ("interest", "lpips")),
    "face_lpips": ("LPIPS face", ("face", "lpips")),
    "leakage_l2": ("leakage L2", ("leakage", "l2")),
    "leakage_lpips": ("leakage LPIPS", ("leakage", "lpips")),
}
# Table 2 of the paper, in the order of PAPER_METRICS.
PAPER_METRICS = ("interest_l2", "face_l2", "interest_lpips", "face_lpips")
PAPER = {
    "restyle": (0.015, 0.004, 0.088, 0.040),
    "interest": (0.013, 0.005, 0.084, 0.038),
    "ind": (0.012, 0.003, 0.078, 0.037),
    "unf": (0.013, 0.003, 0.075, 0.036),
}
NAMES = (*PAPER, "swap")
PAIRS = (*zip(NAMES, NAMES[1:], strict=False), ("restyle", "unf"))
# Of the p values after the correction.
LEVEL = 0.05
OURS = {-1: "improves", 0: "not told apart", 1: "worsens", None: "one seed only"}
THEIRS = {-1: "improves", 0: "equal", 1: "worsens", None: "–"}
FINDINGS = ("reproduced", "not reproduced", "not resolved")


def summarize(measured: Mapping[int, Mapping[str, Any]], labels: Mapping[str, str]) -> dict:
    """Means, standard errors and the orders of the rows.

    A pair of rows is compared by the differences of runs with the same seed (same order of the
    images). A metric that some run lacks is left out.

    Args:
      measured: {seed: content of metrics.json}, its encoders named as NAMES.
      labels: {row: its name in the table}.

    Returns:
      JSON-able: {"seeds", "labels", "mean_latent", "rows": {row: {metric: statistics}},
      "pairs": [{"from", "to", "metrics": {metric: statistics of the difference and "order",
      "paper", "finding"}}]}. Statistics: "mean", its standard error "se" (None with one seed), the
      two-sided "p" of Student's t that the mean is not 0, and the "values" by seed. "q": p after
      the correction for all pairs and metrics (`correct`); "order": -1 improves, 1 worsens, 0 where
      q does not say so, None with one seed; "paper": the same of the paper's figures, 0 where they
      are equal, None where there are none.
    """
    values: dict[str, dict[str, np.ndarray]] = {row: {} for row in NAMES}
    for name, (_, (region, distance)) in METRICS.items():
        for row in NAMES:
            found = [entry["encoders"][row][region][distance] for entry in measured.values()]
            if None not in found:
                values[row][name] = np.asarray(found, np.float64)
    shown = [name for name in METRICS if all(name in values[row] for row in NAMES)]
    pairs, entries = [], []
    for first, second in PAIRS:
        compared: dict[str, dict[str, Any]] = {}
        for name in shown:
            entry = statistics(values[second][name] - values[first][name])
            entry["paper"] = _paper_order(first, second, name)
            compared[name] = entry
        pairs.append({"from": first, "to": second, "metrics": compared})
        entries += compared.values()
    correct(entries)
    for entry in entries:
        entry["order"] = order(entry)
        entry["finding"] = finding(entry["order"], entry["paper"])
    return {
        "seeds": list(measured),
        "labels": dict(labels),
        "mean_latent": next(iter(measured.values()))["mean_latent"],
        "rows": {row: {name: statistics(values[row][name]) for name in shown} for row in NAMES},
        "pairs": pairs,
    }


def statistics(values: np.ndarray) -> dict[str, Any]:
    """Of values [n] by seed: "mean", "se", "p" and "values", as `summarize` says."""
    mean, count = float(values.mean()), len(values)
    error = p = None
    if count > 1:
        error = float(values.std(ddof=1) / np.sqrt(count))
        if error:
            p = float(2 * student_t.sf(abs(mean) / error, count - 1))
        else:
            p = 0.0 if mean else 1.0
    return {"mean": mean, "se": error, "p": p, "values": values.tolist()}


def correct(differences: Sequence[dict[str, Any]]) -> None:
    """Adds "q" to statistics of differences: p corrected for their number, None with one seed.

    Benjamini and Yekutieli: of what q < LEVEL calls different, LEVEL is wrong in the mean, however
    the metrics depend on each other.
    """
    values = [difference["p"] for difference in differences]
    known = [p for p in values if p is not None]
    corrected = iter(false_discovery_control(known, method="by") if known else ())
    for difference, p in zip(differences, values, strict=True):
        difference["q"] = None if p is None else float(next(corrected))


def order(difference: Mapping[str, Any]) -> int | None:
    """What a difference's "mean" and "q" say: -1 improves, 1 worsens, 0 neither; None: one seed."""
    if difference["q"] is None:
        return None
    return int(np.sign(difference["mean"])) if difference["q"] < LEVEL else 0


def _paper_order(first: str, second: str, metric: str) -> int | None:
    if metric not in PAPER_METRICS or not {first, second} <= PAPER.keys():
        return None
    k = PAPER_METRICS.index(metric)
    return int(np.sign(PAPER[second][k] - PAPER[first][k]))


def finding(order: int | None, paper: int | None) -> str | None:
    """What our order says about the paper's, one of FINDINGS; None where the paper has none."""
    if paper is None:
        return None
    if not order:
        return "not resolved"
    return "reproduced" if order == paper else "not reproduced"


def markdown(summary: Mapping[str, Any]) -> str:
    """The content of table.md.

    Args:
      summary: from `summarize`, with "setting": {"command", "steps", "batch_size", "data",
        "num_images", "images_per_second": {row: by seed}, "versions", "git_commit"}.
    """
    rows, setting, seeds = summary["rows"], summary["setting"], summary["seeds"]
    shown = list(rows[NAMES[0]])
    labels = [METRICS[name][0] for name in shown]
    lines = [
        "# Table 2 in the avatar world",
        "",
        f"`{setting['command']}`",
        "",
        f"Each row: {len(seeds)} training(s), seeds {', '.join(map(str, seeds))}, of "
        f"{setting['steps']} steps with batch {setting['batch_size']}, one component added after "
        f"the other (`configs/ablation_avatars.py`). Measured on {setting['num_images']} test "
        f"images of `{setting['data']}`. Mean ± standard error over the seeds; lower is better. "
        f"jax {setting['versions']['jax']}, commit {setting['git_commit']}.",
        "",
        "| | " + " | ".join([*labels, "training images / s"]) + " |",
        "|---|" + "---:|" * (len(labels) + 1),
    ]
    paths = [METRICS[name][1] for name in shown]
    cells = [_cell(summary["mean_latent"].get(region, {}).get(name)) for region, name in paths]
    lines.append("| mean latent | " + " | ".join([*cells, "–"]) + " |")
    for row in NAMES:
        cells = [_plus_minus(rows[row][name]) for name in shown]
        speeds = [speed for speed in setting["images_per_second"][row] if speed]
        cells.append(f"{np.mean(speeds):.1f}" if speeds else "–")
        lines.append(f"| {summary['labels'][row]} | " + " | ".join(cells) + " |")
    lines += ["", *_orders(summary), *_paper_table(summary["labels"]), *_notes()]
    return "\n".join([*lines, ""])


def _orders(summary: Mapping[str, Any]) -> list[str]:
    lines = []
    found: dict[str, list[str]] = {finding: [] for finding in FINDINGS}
    for pair in summary["pairs"]:
        name = f"{pair['from']} → {pair['to']}"
        for metric, entry in pair["metrics"].items():
            label = METRICS[metric][0]
            error = "" if entry["se"] is None else f" ± {entry['se']:.4f}"
            p, q = ("–" if entry[name] is None else f"{entry[name]:.3f}" for name in ("p", "q"))
            lines.append(
                f"| {name} | {label} | {entry['mean']:+.4f}{error} | {p} | {q} | "
                f"{OURS[entry['order']]} | {THEIRS[entry['paper']]} | {entry['finding'] or '–'} |"
            )
            if entry["finding"]:
                found[entry["finding"]].append(f"{label} of {name}")
    total = sum(map(len, found.values()))
    said = [
        f"- **{finding}: {len(entries)}**" + (f" ({'; '.join(entries)})" if entries else "")
        for finding, entries in found.items()
    ]
    return [
        "## The order of the rows",
        "",
        f"Of {total} orders in the paper's Table 2 (adjacent rows, and the first and the last):",
        "",
        *said,
        "",
        "| from → to | metric | difference | p | q | here | paper | finding |",
        "|---|---|---:|---:|---:|---|---|---|",
        *lines,
        "",
    ]


def _paper_table(labels: Mapping[str, str]) -> list[str]:
    lines = [
        "## The paper's figures",
        "",
        "Table 2 of the paper: photographs, trained on FFHQ and measured on CelebA-HQ. Only the "
        "order of the rows can be compared with the avatar world's.",
        "",
        "| | " + " | ".join(METRICS[name][0] for name in PAPER_METRICS) + " |",
        "|---|" + "---:|" * len(PAPER_METRICS),
    ]
    for row, values in PAPER.items():
        cells = [f"{value:.3f}" for value in values]
        lines.append(f"| {labels[row]} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _notes() -> list[str]:
    return [
        "## How to read it",
        "",
        "- Differences are those of runs with the same seed; p is the two-sided one of Student's "
        "t, q the same after a correction for the number of all comparisons (Benjamini and "
        f"Yekutieli). “Improves” and “worsens”: q is below {LEVEL}.",
        "- Equal budget: equal numbers of steps and images. ReStyle back-propagates in every "
        "iteration, so its steps take longer (last column; the machine may have been shared).",
        "- The second row changes the loss and, with it, the back-propagation: once, after "
        "iteration N, as section 3.5 of the paper trains IntereStyle.",
        "- In every row the checkpoint is chosen by the loss on the interest region of the "
        "validation images.",
        "- “Equal” in the paper means to three decimals.",
        "- Leakage is the avatar world's own measure; the paper has none.",
    ]


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _plus_minus(entry: Mapping[str, Any]) -> str:
    return _cell(entry["mean"]) + ("" if entry["se"] is None else f" ± {entry['se']:.4f}")
