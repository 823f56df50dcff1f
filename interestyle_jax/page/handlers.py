"""What happens when somebody presses a button; Gradio calls these, tests do too."""

import contextlib
import functools
import re
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from interestyle_jax.data.avatars.world import sample
from interestyle_jax.data.images import encode_png
from interestyle_jax.errors import InputError
from interestyle_jax.evaluation.grids import iteration_label
from interestyle_jax.page.studio import Studio
from interestyle_jax.page.uploads import read_upload
from interestyle_jax.whole_files import write_whole

# After which uploads and results are deleted, and the latents of a session.
KEPT_SECONDS, LATENTS_KEPT_SECONDS = 600, 3600
# Pixels of what is shown; files to download have the generator's size.
SMALLEST_SHOWN, LARGEST_SHOWN = 256, 1024
EXAMPLES = 500
NO_IMAGE = "no image: choose a file, then press Invert"
NO_LATENTS = "nothing is inverted yet, or it is older than an hour: invert an image first"

# Of a session: "name", "w_plus" [N, L, D] of the inversion, "current" [L, D] that edits start from.
State = dict[str, Any]


class Handlers:
    """The page's functions. Each raises InputError, whose words the page shows.

    Images are returned as files, new ones each time: Gradio would give equal images of several
    visitors one file, and write it while it is read.
    """

    def __init__(self, studio: Studio, folder: Path):
        """Takes the model, and the folder of uploads and results, which the page owns."""
        self._studio, self._folder = studio, folder

    def invert(self, upload: str | None) -> tuple[State, list[tuple[str, str]], str]:
        """An upload's inversion: the session's state, images with labels, the last image."""
        if upload is None:
            raise InputError(NO_IMAGE)
        image, name = self._take(upload)
        return self._inverted(image, name)

    def example(self, number: float) -> tuple[State, list[tuple[str, str]], str]:
        """As `invert`, of the drawn avatar of that number, with an obstacle."""
        number = int(number) % EXAMPLES
        drawn = sample(number, size=self._studio.input_side, split="test")
        return self._inverted(drawn["image"], f"avatar_{number}")

    def edit(self, state: State | None, *strengths: float) -> str:
        """The session's image, moved along the directions."""
        image = self._studio.edit(_checked(state)["current"], self._limited(strengths))
        return self._write([image])[0]

    def mix(
        self, state: State | None, upload: str | None, bands: Sequence[str], share: float
    ) -> tuple[State, str]:
        """The state and the image, with rows of another image in those of the inversion."""
        state = _checked(state)
        if upload is None:
            raise InputError("no other image: choose a file to mix with")
        if not bands:
            raise InputError("no rows to mix: choose one band at least")
        image, _ = self._take(upload)
        style = self._studio.invert(image).w_plus[-1]
        share = float(np.clip(share, 0, 1))
        current = self._studio.mix(state["w_plus"][-1], style, bands=bands, share=share)
        mixed = self._studio.edit(current, [0.0] * len(self._studio.sliders))
        return {**state, "current": current}, self._write([mixed])[0]

    def download(self, state: State | None, *strengths: float) -> list[str]:
        """Files of the inversion's latents, of the edited latents, and of the edited image."""
        state, limited = _checked(state), self._limited(strengths)
        folder, name = self._new_folder(), state["name"]
        edited = self._studio.edited_latents(state["current"], limited)
        files = [folder / f"{name}{end}" for end in ("_latents.npz", "_edited.npz", ".png")]
        self._studio.save_latents(files[0], name, state["w_plus"])
        self._studio.save_latents(files[1], name, edited[None])
        image = self._studio.edit(state["current"], limited)
        write_whole(files[2], encode_png(image), sync=False)
        return [str(file) for file in files]

    def _inverted(self, image: np.ndarray, name: str) -> tuple[State, list[tuple[str, str]], str]:
        inverted = self._studio.invert(image)
        state = {"name": name, "w_plus": inverted.w_plus, "current": inverted.w_plus[-1]}
        files = self._write([image, *inverted.images])
        labels = ["image", *(iteration_label(i + 1) for i in range(len(inverted.images)))]
        return state, list(zip(files, labels, strict=True)), files[-1]

    def _write(self, images: Sequence[np.ndarray]) -> list[str]:
        folder = self._new_folder()
        files = [folder / f"{i}.png" for i in range(len(images))]
        for file, image in zip(files, images, strict=True):
            write_whole(file, encode_png(_shown(image), compress_level=1), sync=False)
        return [str(file) for file in files]

    def _new_folder(self) -> Path:
        """A new folder of results; old ones are deleted."""
        for old in self._folder.glob("results-*"):
            with contextlib.suppress(FileNotFoundError):
                if old.stat().st_mtime < time.time() - KEPT_SECONDS:
                    shutil.rmtree(old, ignore_errors=True)
        folder = self._folder / f"results-{secrets.token_hex(16)}"
        folder.mkdir()
        return folder

    def _take(self, upload: str) -> tuple[np.ndarray, str]:
        """An upload's image and name. The file may be another visitor's too: of the same image."""
        path = Path(upload)
        if not path.resolve().is_relative_to(self._folder.resolve()):
            raise InputError(f"{path.name}: is no upload")
        return read_upload(path), re.sub(r"[^\w-]", "_", path.stem)[:60] or "image"

    def _limited(self, strengths: Sequence[float]) -> list[float]:
        """The strengths within the sliders' ranges; a request may hold any."""
        sliders = self._studio.sliders
        if len(strengths) != len(sliders) or not np.isfinite(strengths).all():
            raise InputError(f"strengths: expected {len(sliders)} numbers")
        pairs = zip(strengths, sliders, strict=True)
        return [float(np.clip(x, slider.low, slider.high)) for x, slider in pairs]


def in_words(function: Callable, error_class: Any) -> Callable:
    """The function with InputError as `error_class` (gradio.Error), whose text the page shows."""

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except InputError as error:
            raise error_class(str(error), print_exception=False) from error

    return call


def _checked(state: State | None) -> State:
    if not state:
        raise InputError(NO_LATENTS)
    return state


def _shown(image: np.ndarray) -> np.ndarray:
    """Every k-th pixel of a large image, and a small one enlarged k times."""
    side = max(image.shape[:2])
    if side > LARGEST_SHOWN:
        step = -(-side // LARGEST_SHOWN)
        return np.ascontiguousarray(image[::step, ::step])
    factor = max(1, SMALLEST_SHOWN // side)
    return image.repeat(factor, axis=0).repeat(factor, axis=1)
