"""Figures of latent variance: per iteration (Fig. 10) and over the images (Fig. 3)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

# Okabe & Ito's colours, which colour-blind readers distinguish; markers do the rest.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
NUM_BINS = 40


def plot_latent_variance(variances: Mapping[str, Sequence[float]], path: Path) -> None:
    """Draws the mean latent variance after each iteration, one line an encoder (Fig. 10).

    Args:
      variances: {encoder: [variance of w_1, ..., w_N]}.
      path: PNG to write.
    """
    figure, axes = _new_figure()
    for k, (name, values) in enumerate(variances.items()):
        steps = range(1, len(values) + 1)
        axes.plot(
            steps, values, label=_plain(name), color=_colour(k), marker=MARKERS[k % len(MARKERS)]
        )
    axes.set_xlabel("iteration")
    axes.set_ylabel("latent variance over layers")
    # The margin above the lines is a share of the way from zero.
    axes.update_datalim([(1, 0)])
    axes.autoscale_view()
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(figure, axes, path)


def plot_variance_histogram(variances: Mapping[str, Float[np.ndarray, " n"]], path: Path) -> None:
    """Draws how the images' latent variances spread, a histogram an encoder (Fig. 3).

    The x axis is logarithmic, with the same bins for all encoders. Variances of zero (latents in W)
    have no place on it and are left out, which the legend says.

    Args:
      variances: {encoder: variance of w_N of each image, [n]}.
      path: PNG to write.
    """
    figure, axes = _new_figure()
    positive = {name: np.asarray(v)[np.asarray(v) > 0] for name, v in variances.items()}
    together = np.concatenate(list(positive.values()))
    low, high = (together.min(), together.max()) if together.size else (0.1, 1.0)
    if high < low * 1.5:
        low, high = low / 1.25, high * 1.25
    bins = np.geomspace(low, high, NUM_BINS + 1)
    for k, (name, values) in enumerate(positive.items()):
        zeros = len(variances[name]) - len(values)
        label = _plain(f"{name} ({zeros} at zero)" if zeros else name)
        axes.hist(values, bins, label=label, color=_colour(k), histtype="stepfilled", alpha=0.3)
        if len(values):
            axes.hist(values, bins, color=_colour(k), histtype="step", linewidth=1.5)
    axes.set_xscale("log")
    _label_log_axis(axes.xaxis, low, high)
    axes.set_xlabel("latent variance over layers (log scale)")
    axes.set_ylabel("images")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(figure, axes, path)


def _new_figure():
    figure = Figure(figsize=(6.4, 4.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    return figure, axes


def _label_log_axis(axis, low: float, high: float) -> None:
    """Plain numbers that do not overlap, also where the axis spans less than a decade."""
    locator = MaxNLocator(5) if high < 10 * low else LogLocator(subs=(1, 2, 5), numticks=8)
    axis.set_major_locator(locator)
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _plain(label: str) -> str:
    """The label with no formula in it."""
    return label.replace("$", r"\$")


def _colour(k: int) -> str:
    return COLOURS[k % len(COLOURS)]


def _finish(figure, axes, path: Path) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        # Below the axes: names may be long, and must not cover data.
        figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)))
    figure.savefig(path)
