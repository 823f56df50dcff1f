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
        "which another attribute changed (mean over them, and the largest), and the mean that "
        "random steps of the same length in W change:",
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
    lines += ["", "At the high end of each edit's own range:", ""]
    lines += ["| edit | strength | " + " | ".join(encoders) + " |"]
    lines += ["|---|---:|" + "---:|" * len(encoders)]
    for name in names:
        ends = [figures["edits"][name]["range_end"] for figures in encoders.values()]
        cells = [f"{_share(end['reached'])} ({end['mean_changed']:.1%})" for end in ends]
        lines.append(f"| {name} | {ends[0]['strength']:g} | " + " | ".join(cells) + " |")
    for encoder, figures in encoders.items():
        lines += ["", f"{encoder}, mean over the edits, by attribute:", "", *_attributes(figures)]
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


def _attributes(figures: dict[str, Any]) -> list[str]:
    """What edits and random steps change of each attribute, beside how well it can be read."""
    edits = figures["edits"].values()
    names = sorted({name for one in edits for name in one["changed"]})
    lines = [
        "| attribute | changed by other edits | by random steps | from one sure reading to "
        "another, mean, and most | inversion read as drawn |",
        "|---|---:|---:|---:|---:|",
    ]
    for name in names:
        own = _average([one["changed"].get(name) for one in edits])
        random = _average([(one["random_changed"] or {}).get(name) for one in edits])
        read = figures["read_as_drawn"].get(name)
        cells = [_share(own), _share(random), _sure(edits, name), _share(read)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _sure(edits: Any, name: str) -> str:
    """Of images that are read surely before and after an edit: the mean, and the most of one."""
    sure = [one["surely_changed"][name]["share"] for one in edits if name in one["surely_changed"]]
    known = [share for share in sure if share is not None]
    return f"{_share(_average(sure))}, {_share(max(known))}" if known else "–"


def _cell(one: dict[str, Any]) -> str:
    largest = max(one["changed"].values())
    random = _average(list((one["random_changed"] or {}).values()))
    return f"{_share(one['reached'])} ({one['mean_changed']:.1%}, {largest:.1%}; {_share(random)})"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _average(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _mean(edits: Any) -> str:
    edits = list(edits)
    reached = _average([one["reached"] for one in edits])
    return f"{_share(reached)} ({_average([one['mean_changed'] for one in edits]):.1%})"


def _row(name: str, values: list[float | None]) -> str:
    cells = ["–" if value is None else f"{value:.4f}" for value in values]
    return f"| {name} | " + " | ".join(cells) + " |"
