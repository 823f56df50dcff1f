"""Distortion against latent variance and against time: all rows of a table in one figure."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from interestyle_jax.evaluation.figures import COLOURS, MARKERS

DISTORTION = "interest_lpips"
AXES = {
    "latent_variance": "latent variance over layers (log scale from 0.1)",
    "seconds_per_image": "seconds per image (log scale)",
}


def draw_trade_off(summary: Mapping[str, Any], path: Path) -> None:
    """Writes a PNG with two panels; filled markers are encoders, open ones optimise.

    Args:
      summary: of `table_1_summary.summarize`, with "setting".
      path: of the PNG.
    """
    figure = Figure(figsize=(9.6, 4.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharey=True)
    methods = summary["setting"]["methods"]
    for axes, (metric, label) in zip(panels, AXES.items(), strict=True):
        for k, (row, entries) in enumerate(summary["rows"].items()):
            x, y = entries[metric], entries[DISTORTION]
            if x is None or y is None:
                continue
            colour = COLOURS[k % len(COLOURS)]
            axes.errorbar(
                x["mean"],
                y["mean"],
                xerr=x["se"],
                yerr=y["se"],
                color=colour,
                marker=MARKERS[k % len(MARKERS)],
                markerfacecolor="none" if row in methods else colour,
                linestyle="none",
                label=summary["labels"][row].replace("$", r"\$"),
            )
        if metric == "latent_variance":
            # A latent in W has none.
            axes.set_xscale("symlog", linthresh=0.1)
            axes.set_xlim(left=0)
        else:
            axes.set_xscale("log")
        axes.set_xlabel(label)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("LPIPS, interest region")
    handles, labels = panels[0].get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
    figure.savefig(path)
