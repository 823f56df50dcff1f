"""The report of trained directions as Markdown."""

from typing import Any


def table(report: dict[str, Any]) -> str:
    """Accuracies, changes and cosines of `direction_training.report_of`."""
    directions = report["directions"]
    lines = [
        "| direction | held out | remaining | each end | range |",
        "|---|---:|---:|---:|---|",
    ]
    for one in directions:
        remaining = one["remaining_accuracy"]
        low, high = one["range"]
        lines.append(
            f"| {one['name']} | {one['held_out_accuracy']:.1%} | "
            f"{'' if remaining is None else f'{remaining:.1%}'} | {one['chosen']} | "
            f"{low:.3g} to {high:.3g} |"
        )
    measured = [one for one in directions if "measured" in one]
    if measured:
        lines += [
            "",
            f"At the high end of the range, of {measured[0]['measured']['num_images']} samples:",
            "",
            "| direction | brings | reached | others changed, mean | most changed |",
            "|---|---|---:|---:|---|",
        ]
    for one in measured:
        found = one["measured"]
        most = max(found["changed"], key=found["changed"].get)
        share = "–" if found["reached"] is None else f"{found['reached']:.1%}"
        mean = sum(found["changed"].values()) / len(found["changed"])
        lines.append(
            f"| {one['name']} | {one['attribute']} | {share} of {found['eligible']} | {mean:.1%} | "
            f"{most}, {found['changed'][most]:.1%} |"
        )
    names = [one["attribute"] for one in directions]
    if report["changes"]:
        rows = {one["name"]: report["changes"][one["name"]] for one in directions}
        title = "Mean change of a score from the middle of a direction's range to its end:"
        lines += ["", title, "", *_matrix(rows, names)]
    if len(names) > 1:
        lines += ["", "Cosines between the boundaries:", "", *_matrix(report["cosines"], names)]
    return "\n".join(lines) + "\n"


def _matrix(rows: dict[str, dict[str, float]], names: list[str]) -> list[str]:
    lines = ["| | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for name, values in rows.items():
        lines.append(f"| {name} | " + " | ".join(f"{values[x]:+.2f}" for x in names) + " |")
    return lines
