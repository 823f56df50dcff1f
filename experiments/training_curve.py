"""The curve of a generator's training, from a run's metrics.jsonl."""

import json
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from interestyle_jax.errors import InputError
from interestyle_jax.evaluation.figures import COLOURS

# (axis label, {metric: label}) from top to bottom, of both kinds of training.
DISTILLED = (
    ("L1", {"l1": "training images", "validation_l1": "held-out images, of the average"}),
    ("LPIPS", {"lpips": "training images", "validation_lpips": "held-out images, of the average"}),
)
ADVERSARIAL = (
    ("loss", {"loss": "generator", "d_loss": "discriminator", "r1": "R1 penalty"}),
    (
        "discriminator's logit",
        {
            "real_logit": "training images",
            "fake_logit": "samples",
            "validation_held_out_logit": "held-out images",
            "validation_sample_logit": "samples of the average",
        },
    ),
)


def read_metrics(run: str | Path) -> list[dict[str, float]]:
    """The lines of `metrics.jsonl` in a run's directory; a line cut off at the end is left out.

    Raises:
      InputError: no such file, or nothing in it.
    """
    path = Path(run) / "metrics.jsonl"
    if not path.is_file():
        raise InputError(f"{path}: not found, expected the directory of a training run")
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and "step" in line:
            lines.append(line)
    if not lines:
        raise InputError(f"{path}: no logged step in it")
    return lines


def plot_training_curve(lines: list[dict[str, float]], path: Path) -> None:
    """Draws losses and logits over the steps; metrics that were not logged are left out.

    Args:
      lines: from `read_metrics`.
      path: PNG to write.
    """
    figure = Figure(figsize=(7.2, 6.4), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    drawn = DISTILLED if any("l1" in line for line in lines) else ADVERSARIAL
    panels = figure.subplots(len(drawn), 1, sharex=True)
    for axes, (label, metrics) in zip(panels, drawn, strict=True):
        for k, (name, legend) in enumerate(metrics.items()):
            points = [(line["step"], line[name]) for line in lines if name in line]
            if points:
                axes.plot(*zip(*points, strict=True), label=legend, color=COLOURS[k], linewidth=1.2)
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    panels[-1].set_xlabel("step")
    figure.savefig(path)
