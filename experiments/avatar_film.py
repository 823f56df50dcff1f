"""A film of an avatar whose every frame is known: it moves, tilts and zooms, an obstacle passes by.

The square that a landmarker should find follows the head's place and size, and half of its tilt:
inside of it the head still tilts, a movement that latents have to follow.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from interestyle_jax.data.avatars import backgrounds
from interestyle_jax.data.avatars.obstacles import draw_kind
from interestyle_jax.data.avatars.raster import shrink, supersampling, to_uint8
from interestyle_jax.data.avatars.render import (
    FACE_PARTS,
    HAIR_PARTS,
    PARTS,
    Drawing,
    draw_avatar,
    face_box,
    image_of,
    parts_of,
)
from interestyle_jax.data.avatars.variation import Draws, Geometry
from interestyle_jax.photos.ffhq_alignment import quad_points
from interestyle_jax.video.films import import_av

STYLE, SEED = "toon-head", 0
# Frames are cut out of squares, from this row on: avatars end below.
WIDTH, HEIGHT, TOP, RATE = 256, 168, 24, 25
# Degrees, image widths, and the head's size in parts of the image's width.
TILT, SHIFT, ZOOM = 14.0, 0.1, 0.5
# Frames after which the movement begins anew.
PERIOD = 100
# Shares of the film in which the obstacle passes, and in which the face is not found.
PASSES, MISSED = (0.3, 0.72), (0.48, 0.52)
CROP = 64


class AvatarFilm(NamedTuple):
    """A film and the truth about it.

    Attributes:
      frames: uint8 [n, H, W, 3].
      quads: [n, 4, 2], squares of the head in them.
      clean: uint8 [n, 64, 64, 3], what these show without background and obstacle.
      interest: bool [n, 64, 64], face and hair in them.
      hidden: [n], the share of the interest region that the obstacle covers.
    """

    frames: UInt8[np.ndarray, "n H W 3"]
    quads: Float[np.ndarray, "n 4 2"]
    clean: UInt8[np.ndarray, "n S S 3"]
    interest: Bool[np.ndarray, "n S S"]
    hidden: Float[np.ndarray, " n"]


def draw_film(index: int, count: int, *, obstacle: str = "hand") -> AvatarFilm:
    """Draws held-out avatar `index` in `count` frames.

    Raises:
      InputError: no such kind of obstacle.
    """
    draws = Draws(SEED, 2, index, 0, 0)
    drawing = draw_avatar(draws, STYLE, f"{STYLE}/{SEED}/test/{index}")
    large = WIDTH * supersampling(WIDTH)
    behind = backgrounds.draw_kind(Draws(SEED, index, 1), "gradient", large)
    parts: list[tuple[Any, ...]] = []
    for i in range(count):
        t, moved = i / count, _moved(drawing, i / PERIOD)
        rgba = image_of(moved, large) / 255.0
        front = np.zeros((large, large, 4))
        if PASSES[0] <= t <= PASSES[1]:
            box = face_box(moved)
            across = (t - PASSES[0]) / (PASSES[1] - PASSES[0])
            box = dataclasses.replace(box, x=0.1 + 0.8 * across)
            front = draw_kind(Draws(SEED, index, 2), obstacle, box, large) / 255.0
        seen = _over(front, _over(rgba, behind))
        quad = _quad(moved)
        parts.append((to_uint8(shrink(seen, WIDTH)), quad, *_truth(drawing, moved.geometry.tilt)))
        parts[-1] += (_hidden(moved, front[..., 3], large),)
    frames, quads, clean, interest, hidden = (np.stack(part) for part in zip(*parts, strict=True))
    return AvatarFilm(
        frames[:, TOP : TOP + HEIGHT], quads - (0, TOP), clean, interest, hidden.astype(float)
    )


def _moved(drawing: Drawing, t: float) -> Drawing:
    """The avatar at the time t, in periods of the movement."""
    turn = 2 * math.pi * t
    geometry = Geometry(
        tilt=TILT * math.sin(2 * turn),
        zoom=ZOOM * (1 + 0.12 * math.sin(turn + 1)),
        aspect=1.0,
        shift_x=SHIFT * math.sin(turn),
        shift_y=0.3 * SHIFT * math.cos(3 * turn),
    )
    return dataclasses.replace(drawing, geometry=geometry)


def _truth(drawing: Drawing, tilt: float) -> tuple[np.ndarray, np.ndarray]:
    """The clean image and the interest region inside of the quad."""
    large = CROP * supersampling(CROP)
    inside = dataclasses.replace(drawing, geometry=Geometry(tilt / 2, 1.0, 1.0, 0.0, 0.0))
    clean = _over(image_of(inside, large) / 255.0, np.full((large, large, 3), 0.8))
    own = _interest(inside, large)[..., None].astype(np.float64)
    return to_uint8(shrink(clean, CROP)), shrink(own, CROP)[..., 0] >= 0.5


def _interest(drawing: Drawing, size: int) -> np.ndarray:
    return np.isin(parts_of(drawing, size), [PARTS.index(p) for p in (*FACE_PARTS, *HAIR_PARTS)])


def _hidden(drawing: Drawing, alpha: np.ndarray, size: int) -> float:
    region = _interest(drawing, size)
    return float((alpha[region] >= 0.5).mean())


def _over(rgba: np.ndarray, behind: np.ndarray) -> np.ndarray:
    return rgba[..., :3] * rgba[..., 3:] + behind * (1 - rgba[..., 3:])


def _quad(drawing: Drawing) -> np.ndarray:
    """The window of clean avatars, moved with the head, and turned by half of its tilt."""
    facts, geometry = drawing.facts, drawing.geometry
    angle = math.radians(geometry.tilt / 2)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    centre, pivot = np.array(facts.centre), np.array(facts.pivot)
    half = facts.window / 2 * np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]])
    corners = pivot + (centre + half - pivot) @ turn.T
    shift = 0.5 + np.array([geometry.shift_x, geometry.shift_y])
    scale = WIDTH / facts.window * geometry.zoom
    return WIDTH * shift + scale * (corners - centre) - 0.5


def found_points(film: AvatarFilm, *, noise: float) -> list[np.ndarray | None]:
    """What a landmarker finds: eyes and mouth [4, 2] by the quads, with noise; None where none.

    Args:
      film: the truth.
      noise: standard deviation in pixels, of each coordinate of each point in each frame.
    """
    rng, count = np.random.default_rng(SEED), len(film.quads)
    points = [quad_points(quad) + rng.normal(0, noise, (4, 2)) for quad in film.quads]
    return [None if MISSED[0] <= i / count < MISSED[1] else p for i, p in enumerate(points)]


def save_film(path: Path, frames: UInt8[np.ndarray, "n H W 3"]) -> None:
    """Writes frames [n, H, W, 3] nearly without loss, 25 a second, with a tone as sound."""
    av = import_av()
    count, height, width = frames.shape[:3]
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=RATE, options={"crf": "6", "bf": "0"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        sound = output.add_stream("aac", rate=16000, layout="mono")
        for pixels in frames:
            output.mux(video.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        output.mux(video.encode())
        samples = 4000 * np.sin(2 * np.pi * 440 * np.arange(16000 * count // RATE) / 16000)
        tone = av.AudioFrame.from_ndarray(samples.astype(np.int16)[None], "s16", "mono")
        tone.sample_rate = 16000
        output.mux(sound.encode(tone))
        output.mux(sound.encode())
