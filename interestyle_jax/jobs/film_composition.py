"""The last stage of a film: drawn faces laid over its frames, and written with its sound."""

import collections
import concurrent.futures
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from tqdm import tqdm

from interestyle_jax.data.images import read_image, read_mask, resize_image, save_image
from interestyle_jax.evaluation.identity import Identity
from interestyle_jax.jobs.aligned_faces import Alignment
from interestyle_jax.jobs.film_frames import frame_name
from interestyle_jax.jobs.kept_region import at_size, join
from interestyle_jax.photos.ffhq_alignment import align, quad_points
from interestyle_jax.photos.paste_back import paste_back
from interestyle_jax.video.film_writer import FilmWriter
from interestyle_jax.video.films import Film, FrameReader

STRIP_FRAMES, STRIP_SIDE = 8, 160
EMBEDDED_AT_ONCE = 16


class Placing(NamedTuple):
    """How drawn images go into frames.

    Attributes:
      quads: [n, 4, 2] of the faces in the frames, NaN where a frame stays; None: whole frames.
      alignment: how they are pasted, or None.
      masks: folder of NAME_paste.png and NAME_keep.png, or None.
      kinds: which of the two there are.
      size: side of aligned faces.
    """

    quads: np.ndarray | None
    alignment: Alignment | None
    masks: Path | None
    kinds: tuple[str, ...]
    size: int


class Embeddings(NamedTuple):
    """Of the frames, unit vectors [n, D], NaN without a face; by column those of the edits."""

    source: Mapping[str, np.ndarray]
    edited: Mapping[str, np.ndarray]


def write_films(
    paths: Mapping[str, Path],
    drawn: Path,
    film: Film,
    placing: Placing,
    *,
    workers: int,
    strip: Path,
    identity: Identity | None = None,
) -> Embeddings | None:
    """Writes a film for every column; a frame without a drawn image stays as it is.

    Args:
      paths: where to, by label.
      drawn: folder of NAME_LABEL.png.
      film: gives the other frames, the times and the sound.
      placing: where the images go.
      workers: threads.
      strip: an image of some frames: the source above, then all films.
      identity: embeds the faces, or None.

    Returns:
      The embeddings, where there is an identity network.

    Raises:
      InputError: a film that cannot be written.
      MachineError: the disk is full or fails.
    """
    frames = FrameReader(film)
    size = (film.width, film.height)
    if placing.quads is None:
        first = next(drawn.glob(f"*_{next(iter(paths))}.png"))
        size = read_image(first).shape[1::-1]
    shown = set(np.linspace(0, len(film) - 1, min(STRIP_FRAMES, len(film))).round().astype(int))
    cells: list[list[np.ndarray]] = []
    measured = _Measured(identity, list(paths), len(film))
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(frames))
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(workers))
        writers = [
            stack.enter_context(FilmWriter(path, film, size=size)) for path in paths.values()
        ]

        def compose(number: int, pixels: np.ndarray) -> _Composed:
            return _compose(number, pixels, list(paths), drawn, placing, size, identity)

        def composed() -> Iterator[_Composed]:
            waiting: collections.deque = collections.deque()
            for number in range(len(film)):
                waiting.append(pool.submit(compose, number, frames(number)))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

        for number, done in enumerate(tqdm(composed(), total=len(film), desc="film", unit="frame")):
            for writer, pixels in zip(writers, done.films, strict=True):
                writer.write(pixels)
            if number in shown:
                # Aligned frames may have another size than what is drawn.
                shown_frame = at_size(done.frame, (size[1], size[0]))
                cells.append([_small(pixels) for pixels in (shown_frame, *done.films)])
            measured.add(number, done.faces)
    save_image(strip, np.concatenate([np.concatenate(column) for column in cells], axis=1))
    return measured.embeddings()


class _Composed(NamedTuple):
    frame: np.ndarray
    films: list[np.ndarray]
    faces: list[np.ndarray | None]


def _compose(
    number: int,
    pixels: UInt8[np.ndarray, "H W 3"],
    labels: Sequence[str],
    drawn: Path,
    placing: Placing,
    size: tuple[int, int],
    identity: Identity | None,
) -> _Composed:
    """A frame with the drawn image of every column."""
    name = frame_name(number)
    shape = (size[1], size[0])
    quad = None if placing.quads is None else placing.quads[number]
    files = [drawn / f"{name}_{label}.png" for label in labels]
    is_there = (quad is None or np.isfinite(quad).all()) and all(f.is_file() for f in files)
    if not is_there:
        same = at_size(pixels, shape)
        return _Composed(pixels, [same] * len(labels), [None] * len(labels))
    original = pixels
    if quad is not None and ("keep" in placing.kinds or identity is not None):
        original, _ = align(pixels, quad_points(quad), size=placing.size)
    films, faces = [], []
    for file in files:
        image = read_image(file)
        if "keep" in placing.kinds:
            mask = read_mask(placing.masks / f"{name}_keep.png").astype(np.float32) / 255
            image = join(at_size(original, image.shape[:2]), image, mask)
        if identity is not None:
            faces.append(identity.faces(at_size(original, image.shape[:2]), image))
        films.append(image if quad is None else _pasted(pixels, image, quad, name, placing))
    return _Composed(pixels, films, faces or [None] * len(labels))


def _pasted(pixels, image, quad, name: str, placing: Placing) -> np.ndarray:
    mask = None
    if "paste" in placing.kinds:
        mask = resize_image(read_mask(placing.masks / f"{name}_paste.png"), image.shape[:2])
    given = placing.alignment
    return paste_back(pixels, image, quad, mask=mask, feather=given.feather, shape=given.shape)


def _small(pixels: np.ndarray) -> np.ndarray:
    """A frame whose longer side is STRIP_SIDE, with a white line around it."""
    height, width = pixels.shape[:2]
    scale = STRIP_SIDE / max(height, width)
    small = resize_image(pixels, (max(1, round(height * scale)), max(1, round(width * scale))))
    return np.pad(small, ((2, 2), (2, 2), (0, 0)), constant_values=255)


class _Measured:
    """Embeddings of pairs of faces, a few at a time."""

    def __init__(self, identity: Identity | None, labels: Sequence[str], count: int):
        self._identity, self._labels, self._count = identity, labels, count
        self._waiting: list[tuple[int, int, np.ndarray]] = []
        self._found: dict[tuple[int, int], np.ndarray] = {}

    def add(self, number: int, faces: Sequence[np.ndarray | None]) -> None:
        if self._identity is None:
            return
        self._waiting += [(number, k, pair) for k, pair in enumerate(faces) if pair is not None]
        if len(self._waiting) >= EMBEDDED_AT_ONCE:
            self._embed()

    def embeddings(self) -> Embeddings | None:
        if self._identity is None:
            return None
        while self._waiting:
            self._embed()
        wide = next(iter(self._found.values())).shape[-1] if self._found else 1
        tables = [np.full((len(self._labels), self._count, wide), np.nan) for _ in range(2)]
        for (number, k), pair in self._found.items():
            for table, vector in zip(tables, pair, strict=True):
                table[k, number] = vector
        return Embeddings(*(dict(zip(self._labels, table, strict=True)) for table in tables))

    def _embed(self) -> None:
        own, self._waiting = self._waiting[:EMBEDDED_AT_ONCE], self._waiting[EMBEDDED_AT_ONCE:]
        pairs: Float[np.ndarray, "B 2 _ _ 3"] = np.stack([pair for *_, pair in own])
        # One program: rows that are missing are zeros.
        whole = np.zeros((EMBEDDED_AT_ONCE, *pairs.shape[1:]), np.float32)
        whole[: len(own)] = pairs
        vectors = np.asarray(self._identity.embed(whole))
        for (number, k, _), pair in zip(own, vectors, strict=False):
            self._found[number, k] = pair
