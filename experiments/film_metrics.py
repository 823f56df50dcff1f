"""What is measured of a film of an avatar, whose truth is known, through its true squares."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from experiments.avatar_film import AvatarFilm
from interestyle_jax.data.pixels import to_float
from interestyle_jax.photos.ffhq_alignment import align, quad_points
from interestyle_jax.video.films import read_frames, scan_film
from interestyle_jax.video.metrics import temporal_identity
from interestyle_jax.video.smoothing import axes_of

# From this share of the interest region on a frame counts as obstructed.
OBSTRUCTED = 0.02


def seen_through(path: Path, film: AvatarFilm) -> UInt8[np.ndarray, "n S S 3"]:
    """What a film shows in the true squares, [n, S, S, 3]."""
    frames, size = read_frames(scan_film(path)), film.clean.shape[1]
    pairs = zip(frames, film.quads, strict=True)
    return np.stack([align(frame, quad_points(quad), size=size)[0] for frame, quad in pairs])


def flicker(crops: Float[np.ndarray, "n S S 3"], film: AvatarFilm, runs: Sequence[range]) -> float:
    """Root mean square of second differences, over the interest region, of what differs from it.

    Args:
      crops: [n, S, S, 3], 0 to 255.
      film: the truth; what it changes itself counts for nothing.
      runs: frames that count.
    """
    off = crops - film.clean
    squares = [
        (off[i + 1] - 2 * off[i] + off[i - 1])[film.interest[i]] ** 2
        for run in runs
        for i in run[1:-1]
    ]
    return float(np.sqrt(np.concatenate(squares).mean()))


def measure(
    crops: UInt8[np.ndarray, "n S S 3"],
    film: AvatarFilm,
    runs: Sequence[range],
    *,
    networks: Mapping[str, Any],
    attribute: str,
) -> dict[str, Any]:
    """What is measured of one film, seen through the true squares [n, S, S, 3]."""
    interest = film.interest[..., None]
    images, truth = (to_float(x) * interest for x in (crops, film.clean))
    far = np.asarray(networks["lpips"].distance(jnp.asarray(images), jnp.asarray(truth)))
    steps = np.asarray(
        networks["lpips"].distance(jnp.asarray(images[:-1]), jnp.asarray(images[1:]))
    )
    near = [i for run in runs for i in run[:-1]]
    counted = np.isin(np.arange(len(crops)), [i for run in runs for i in run])
    under = counted & (film.hidden >= OBSTRUCTED)
    errors = ((images - truth) ** 2).sum((1, 2, 3)) / (3 * interest.sum((1, 2, 3)))
    own, shown = (
        np.asarray(networks["clip"].image_features(to_float(x))) for x in (film.clean, crops)
    )
    seen = networks["reader"].read_all(to_float(crops), batch_size=32).scores(attribute)[counted]
    return {
        "flicker": flicker(crops.astype(np.float64), film, runs),
        "lpips_to_next": float(steps[near].mean()),
        "clip_identity": temporal_identity(own, shown, runs),
        "l2": {"clear": _mean(errors, counted & ~under), "obstructed": _mean(errors, under)},
        "lpips": {"clear": _mean(far, counted & ~under), "obstructed": _mean(far, under)},
        "attribute": {"mean": float(seen.mean()), "least": float(seen.min())},
    }


def quad_errors(report: Mapping[str, Any], found: np.ndarray, film: AvatarFilm) -> dict[str, float]:
    """Root mean square distance of the squares' centres and half axes from the true ones.

    Args:
      report: of the inversions, with the quads that were cut.
      found: of the landmarks, [n, 4, 2] with NaN.
      film: the truth.

    Returns:
      "found" and "used", in hundredths of the square's side.
    """
    true = axes_of(film.quads)
    side = 2 * np.hypot(*true[:, 2:].T)
    used = np.full_like(found, np.nan)
    for name, quad in report["quads"].items():
        used[int(name)] = quad
    there = np.isfinite(found).all((1, 2))
    distances = {
        name: np.linalg.norm((axes_of(quads) - true)[there], axis=1) / side[there]
        for name, quads in (("found", found), ("used", used))
    }
    return {name: float(100 * np.sqrt((d**2).mean())) for name, d in distances.items()}


def _mean(values: np.ndarray, chosen: np.ndarray) -> float | None:
    return float(values[chosen].mean()) if chosen.any() else None
