"""What the page does, without the page: inversion, edits and mixes of one image."""

import dataclasses
import functools
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from interestyle_jax.data.pixels import to_uint8
from interestyle_jax.editing.bands import BANDS, band_rows
from interestyle_jax.editing.direction_files import find_direction, shipped_directions
from interestyle_jax.editing.direction_training import DEVIATIONS, deviation_along
from interestyle_jax.editing.directions import Direction
from interestyle_jax.editing.edits import Edit, apply_edits
from interestyle_jax.editing.sefa import sefa
from interestyle_jax.editing.text_sources import check_text_source, load_text_source
from interestyle_jax.errors import InputError
from interestyle_jax.inversion.inverter import Model
from interestyle_jax.inversion.resize import crop_to_shape, encoder_input
from interestyle_jax.jobs.text_edits import CHANNELS, CLIP, text_edit
from interestyle_jax.weights import ASSETS, generator_fingerprint, load_weights
from interestyle_jax.whole_files import whole_file

# Sliders that a page has room for.
MOST_DIRECTIONS = 16
# Of w, for directions whose range is not known.
SAMPLES = 512
SEFA_COUNT = 3
LONGEST_TEXT = 200


class Inverted(NamedTuple):
    """An image's inversion.

    Attributes:
      w_plus: [N, L, D], one entry an iteration.
      images: uint8 [N, H, W, 3].
    """

    w_plus: Float[np.ndarray, "N L D"]
    images: UInt8[np.ndarray, "N H W 3"]


class Slider(NamedTuple):
    """A direction on the page: its name, and the strengths from low to high."""

    name: str
    low: float
    high: float


class Studio:
    """A model and its directions. Calls from several threads follow each other.

    Attributes:
      sliders: one a direction, in the order of strengths.
      bands: names of the bands of rows that the generator has.
      text_slider: strengths of a text's edit; None where there are no edits by text.
      no_texts: why there are none, or "".
    """

    def __init__(
        self,
        model: Model,
        directions: Sequence[str | Path] = (),
        *,
        clip: str | Path | None = None,
        channels: str | Path | None = None,
    ):
        """Takes a model and directions, by name or file.

        Args:
          model: with generator, encoder and mean latent.
          directions: at most MOST_DIRECTIONS; none: those that ship for this generator, or else
            the strongest ones that its weights have (SeFa).
          clip: weights of a CLIP, for edits by text; None: the one that ships.
          channels: how that CLIP sees the generator, weights of `directions text` or `global`;
            None: those that ship, if they are of this generator.

        Raises:
          InputError: a part is missing, too many directions, or one that does not fit.
        """
        model.require_inversion()
        self._model = model
        self._lock = threading.Lock()
        self._layers = model.style_layers
        self.bands = tuple(band for band in BANDS if self._has(band))
        if len(directions) > MOST_DIRECTIONS:
            raise InputError(
                f"--direction: {len(directions)} given, expected at most {MOST_DIRECTIONS}"
            )
        found = [self._find(name) for name in directions] or self._own_directions()
        ranged = [self._with_range(direction) for direction in found]
        self._edits: list[Edit] = [direction.edit(self._layers) for direction in ranged]
        self.sliders = [Slider(d.name, *d.default_range) for d in ranged]
        self._clip, self._channels = clip or CLIP, channels or CHANNELS
        self.no_texts = ""
        self.text_slider: Slider | None = None
        try:
            self.text_slider = Slider("Strength", *self._text_range())
        except InputError as error:
            if channels is not None:
                raise
            self.no_texts = str(error)

    @property
    def draws_avatars(self) -> bool:
        """Whether the generator is the one of avatars that ships."""
        shipped = load_weights(ASSETS / "avatar_generator").variables["generator"]
        return generator_fingerprint(shipped) == self._model.generator_fingerprint

    @property
    def resolution(self) -> int:
        """Side of the generator's images in pixels."""
        return self._model.resolution

    @property
    def input_side(self) -> int:
        """The longer side of the encoder's input in pixels."""
        return max(self._model.input_shape)

    def invert(self, image: UInt8[np.ndarray, "H W 3"]) -> Inverted:
        """Inverts an image, uint8 [H, W, 3] of any size: squeezed to the encoder's input."""
        x = encoder_input(image, self._model.input_shape)[None]
        with self._lock:
            inversion = jax.device_get(self._model.invert(x))
        return Inverted(inversion.w_plus[:, 0], to_uint8(inversion.images[:, 0]))

    def text_edit(self, text: str) -> Edit:
        """The edit that a text asks for, see `jobs.text_edits`.

        Raises:
          InputError: no text, or one too long, in words that the CLIP does not know, or that it
            does not tell from "a face"; or there are no edits by text.
        """
        if self.no_texts:
            raise InputError(f"no edits by text: {self.no_texts}")
        text = text.strip()
        if not 0 < len(text) <= LONGEST_TEXT:
            raise InputError(f"text: {len(text)} letters, expected 1 to {LONGEST_TEXT}")
        with self._lock:
            return text_edit(text, clip=self._clip, channels=self._channels)(self._model).edit

    def edit(
        self,
        w_plus: Float[np.ndarray, "L D"],
        strengths: Sequence[float],
        *,
        text: tuple[Edit, float] | None = None,
    ) -> UInt8[np.ndarray, "H W 3"]:
        """The image [H, W, 3] of w_plus [L, D], moved along the directions by their strengths.

        Args:
          w_plus: [L, D].
          strengths: one a direction.
          text: an edit of `text_edit` and its strength.
        """
        edits = [*self._edits, *([text[0]] if text else [])]
        strengths = [*strengths, *([text[1]] if text else [])]
        with self._lock:
            moved = jnp.asarray(w_plus)[None]
            edited = apply_edits(edits, moved, strengths, styles=self._model.styles)
            if edited.styles is None:
                drawn = self._model.synthesize(edited.w_plus)
            else:
                drawn = self._model.synthesize_from_styles(edited.styles)
            return to_uint8(np.asarray(crop_to_shape(drawn, self._model.input_shape)[0]))

    def edited_latents(
        self, w_plus: Float[np.ndarray, "L D"], strengths: Sequence[float]
    ) -> Float[np.ndarray, "L D"]:
        """w_plus [L, D] moved as by `edit`, edits in S left out."""
        moved = jnp.asarray(w_plus)[None]
        with self._lock:
            for edit, strength in zip(self._edits, strengths, strict=True):
                if edit.space == "w_plus":
                    moved = edit(moved, strength)
            return np.asarray(moved[0])

    def mix(
        self,
        content: Float[np.ndarray, "L D"],
        style: Float[np.ndarray, "L D"],
        *,
        bands: Sequence[str],
        share: float,
    ) -> Float[np.ndarray, "L D"]:
        """content [L, D] with (1 - share) content + share style in the rows of the bands [L, D].

        Raises:
          InputError: no band, or one that the generator does not have.
        """
        rows = list(band_rows(bands, len(content)))
        mixed = np.array(content)
        mixed[rows] = (1 - share) * content[rows] + share * style[rows]
        return mixed

    def save_latents(self, path: Path, name: str, w_plus: Float[np.ndarray, "N L D"]) -> None:
        """Writes [N, L, D] as `interestyle invert` does, for `edit` and `mix`."""
        generator = np.array(self._model.generator_fingerprint)
        with whole_file(path) as file:
            np.savez(file, names=np.array([name]), w_plus=w_plus[None], generator=generator)

    def _text_range(self) -> tuple[float, float]:
        """Strengths of edits by text; raises InputError where there are none."""
        source = load_text_source(self._channels)
        check_text_source(source, self._model)
        if source.generator not in (None, self._model.generator_fingerprint):
            raise InputError(f"{source.directory}: was measured with another generator")
        return source.default_range

    def _has(self, band: str) -> bool:
        try:
            return bool(band_rows([band], self._model.latents_shape[0]))
        except InputError:
            return False

    def _find(self, name: str | Path) -> Direction:
        return find_direction(
            name,
            self._layers,
            w_dim=self._model.latents_shape[1],
            generator=self._model.generator_fingerprint,
        )

    def _own_directions(self) -> list[Direction]:
        found = []
        for name in shipped_directions():
            try:
                found.append(self._find(name))
            # Of another generator.
            except InputError:
                continue
        if found:
            return found[:MOST_DIRECTIONS]
        rows = band_rows(["coarse"], self._model.latents_shape[0])
        parameters = jax.device_get(self._model.variables["generator"]["params"])
        arrays, _ = sefa(parameters, rows=rows, count=SEFA_COUNT)
        named = enumerate(arrays.astype(np.float32), 1)
        return [Direction(f"SeFa {i}", "w", a, rows, source="SeFa") for i, a in named]

    def _with_range(self, direction: Direction) -> Direction:
        """With the range in which w is spread, where the file has none."""
        if direction.default_range is not None:
            return direction
        limit = DEVIATIONS
        if direction.kind != "style":
            limit = float(f"{DEVIATIONS * deviation_along(self._samples, direction.array):.2g}")
        return dataclasses.replace(direction, default_range=(-limit, limit))

    @functools.cached_property
    def _samples(self) -> Float[np.ndarray, "n D"]:
        z_dim = self._model.network("generator").z_dim
        return np.asarray(self._model.map(jax.random.normal(jax.random.key(0), (SAMPLES, z_dim))))
