"""The figures of `experiments.editing_figures` as Markdown."""

from typing import Any


def markdown(metrics: dict[str, Any]) -> str:
    """Tables of all encoders side by side: targets reached, others changed, covered faces."""
    encoders = metrics["encoders"]
    names = list(next(iter(encoders.values()))["edits"])
    lines = [f"`{metrics['command']}`", ""]
    lines += [
        f"{metrics['num_images']} test avatars with their obstacles; strengths were chosen on "
        f"{metrics['num_validation']} others.",
        "",
        "Target reached, of the images that did not show it before; in brackets the share in "
        "which another attribute changed (mean over them, and the largest):",
        "",
        "| edit | target | " + " | ".join(encoders) + " |",
        "|---|---|" + "---:|" * len(encoders),
    ]
    for name in names:
        cells = [_cell(figures["edits"][name]) for figures in encoders.values()]
        target = next(iter(encoders.values()))["edits"][name]["target"]
        lines.append(f"| {name} | {target} | " + " | ".join(cells) + " |")
    means = [_mean(figures["edits"].values()) for figures in encoders.values()]
    lines.append("| mean | | " + " | ".join(means) + " |")
    lines += [
        "",
        "Face under the obstacle: mean absolute difference, in [-1, 1], to the same edit of the "
        "inversion without the obstacle:",
        "",
        "| edit | " + " | ".join(encoders) + " |",
        "|---|" + "---:|" * len(encoders),
        _row("none", [figures["covered_l1_unedited"] for figures in encoders.values()]),
    ]
    for name in names:
        lines.append(_row(name, [f["edits"][name]["covered_l1"] for f in encoders.values()]))
    read = metrics["reader_accuracy"]
    lines += [
        "",
        "The reader itself, of the drawn avatars without obstacles: "
        + ", ".join(f"{name} {share:.1%}" for name, share in read.items())
        + ".",
    ]
    return "\n".join(lines) + "\n"


def _cell(one: dict[str, Any]) -> str:
    largest = max(one["changed"].values())
    reached = "–" if one["reached"] is None else f"{one['reached']:.1%}"
    return f"{reached} ({one['mean_changed']:.1%}, {largest:.1%})"


def _mean(edits: Any) -> str:
    edits = list(edits)
    known = [one["reached"] for one in edits if one["reached"] is not None]
    reached = f"{sum(known) / len(known):.1%}" if known else "–"
    return f"{reached} ({sum(one['mean_changed'] for one in edits) / len(edits):.1%})"


def _row(name: str, values: list[float | None]) -> str:
    cells = ["–" if value is None else f"{value:.4f}" for value in values]
    return f"| {name} | " + " | ".join(cells) + " |"
