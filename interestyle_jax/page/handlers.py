"""What happens when somebody presses a button; Gradio calls these, tests do too."""

import contextlib
import inspect
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
from interestyle_jax.editing.edits import Edit
from interestyle_jax.errors import InputError, MachineError
from interestyle_jax.evaluation.grids import iteration_label
from interestyle_jax.page.regions import NONE, Aligned, Mask, Regions, overlay, pasted
from interestyle_jax.page.studio import Studio
from interestyle_jax.page.uploads import read_upload
from interestyle_jax.whole_files import write_whole

# After which uploads and results are deleted, and the latents of a session.
KEPT_SECONDS, LATENTS_KEPT_SECONDS = 600, 3600
# Pixels of what is shown; files to download have the generator's size.
SMALLEST_SHOWN, LARGEST_SHOWN = 256, 1024
EXAMPLES, EXAMPLE_SIDE = 500, 256
NO_IMAGE = "no image: choose a file, then press Invert"
NO_LATENTS = "nothing is inverted yet, or it is older than an hour: invert an image first"
NO_MASK = "no interest mask here, see below the images: there is nothing to paste back"

# Of a session: "name", "w_plus" [N, L, D] of the inversion, "current" [L, D] that edits start from,
# "text", an edit or None, "source", an upload's file or an avatar's number, "mask", its interest
# mask or None, "quad", of its aligned face or None. Many are kept: no image among them.
State = dict[str, Any]
# State, images with labels, the last image.
Shown = tuple[State, list[tuple[str, str]], str]
# Tells the visitor how far it is: a share and what is done now.
Tell = Callable[[float, str], Any]


def _nobody(share: float, words: str) -> None:
    """Tells nobody."""


class Handlers:
    """The page's functions. Each raises InputError, whose words the page shows.

    Images are returned as files, new ones each time: Gradio would give equal images of several
    visitors one file, and write it while it is read. Strengths are those of the sliders, and of
    the text where there are edits by text.
    """

    def __init__(self, studio: Studio, regions: Regions, folder: Path):
        """Takes the model, faces and masks, and the folder of uploads and results, its own."""
        self._studio, self._regions, self._folder = studio, regions, folder

    def invert(self, upload: str | None, align: bool, *, tell: Tell = _nobody) -> Shown:
        """An upload's inversion: the session's state, images with labels, the last image."""
        if upload is None:
            raise InputError(NO_IMAGE)
        tell(0.1, "reading the image")
        image, name = self._take(upload)
        aligned = None
        if align:
            tell(0.2, "finding the face")
            aligned = self._regions.align(image, name=Path(upload).name)
        return self._inverted(image, aligned, None, name=name, source=upload, tell=tell)

    def example(self, number: float, *, tell: Tell = _nobody) -> Shown:
        """As `invert`, of the drawn avatar of that number, with an obstacle; its mask is exact."""
        number = int(number) % EXAMPLES
        tell(0.1, "drawing the avatar")
        drawn = sample(number, size=EXAMPLE_SIDE, split="test")
        mask = None if self._regions.masks == NONE else drawn["interest_mask"]
        name = f"avatar_{number}"
        return self._inverted(drawn["image"], None, mask, name=name, source=number, tell=tell)

    def edit(self, state: State | None, *strengths: float) -> str:
        """The session's image, moved along the directions, and by its text."""
        return self._write([self._edited(_checked(state), strengths)])[0]

    def text(
        self, state: State | None, text: str, *strengths: float, tell: Tell = _nobody
    ) -> tuple[State, str]:
        """The state with a text's edit in place of the one before, and the image."""
        state = _checked(state)
        tell(0.2, "reading the text")
        state = {**state, "text": self._studio.text_edit(text)}
        tell(0.8, "drawing the image")
        return state, self.edit(state, *strengths)

    def mix(
        self,
        state: State | None,
        upload: str | None,
        bands: Sequence[str],
        share: float,
        align: bool,
        *,
        tell: Tell = _nobody,
    ) -> tuple[State, str]:
        """The state and the image, with rows of another image in those of the inversion."""
        state = _checked(state)
        if upload is None:
            raise InputError("no other image: choose a file to mix with")
        if not bands:
            raise InputError("no rows to mix: choose one band at least")
        tell(0.1, "reading the other image")
        image, _ = self._take(upload)
        if align:
            image = self._regions.align(image, name=Path(upload).name).image
        tell(0.4, "inverting the other image")
        style = self._studio.invert(image).w_plus[-1]
        share = float(np.clip(share, 0, 1))
        current = self._studio.mix(state["w_plus"][-1], style, bands=bands, share=share)
        mixed = self._studio.edit(current, [0.0] * len(self._studio.sliders))
        return {**state, "current": current, "text": None}, self._write([mixed])[0]

    def paste(self, state: State | None, *strengths: float, tell: Tell = _nobody) -> str:
        """The upload with the edited image in its interest region, whose edge is soft."""
        state = _checked(state)
        return self._write([self._pasted(state, strengths, tell)])[0]

    def download(self, state: State | None, *strengths: float, tell: Tell = _nobody) -> list[str]:
        """Files: latents of the inversion, edited latents, the edited image, and it pasted back."""
        state = _checked(state)
        limited, _ = self._limited(strengths, state)
        folder, name = self._new_folder(), state["name"]
        edited = self._studio.edited_latents(state["current"], limited)
        ends = ("_latents.npz", "_edited.npz", ".png", "_pasted.png")
        files = [folder / f"{name}{end}" for end in ends]
        self._studio.save_latents(files[0], name, state["w_plus"])
        self._studio.save_latents(files[1], name, edited[None])
        image = self._edited(state, strengths)
        write_whole(files[2], encode_png(image), sync=False)
        if state["mask"] is None or not state["mask"].any():
            return [str(file) for file in files[:3]]
        write_whole(files[3], encode_png(self._pasted(state, strengths, tell)), sync=False)
        return [str(file) for file in files]

    def _inverted(
        self,
        image: np.ndarray,
        aligned: Aligned | None,
        mask: Mask | None,
        *,
        name: str,
        source: str | int,
        tell: Tell,
    ) -> Shown:
        """The inversion of an image or its aligned face; `mask`: its mask, where it is known."""
        subject = image if aligned is None else aligned.image
        tell(0.4, "inverting")
        inverted = self._studio.invert(subject)
        tell(0.8, "finding the interest region")
        if mask is None:
            mask = self._regions.mask(subject, inverted.images[-1])
        state = {
            "name": name,
            "w_plus": inverted.w_plus,
            "current": inverted.w_plus[-1],
            "text": None,
            "source": source,
            "mask": mask,
            "quad": None if aligned is None else aligned.quad,
        }
        shown = {"image": image}
        if aligned is not None:
            shown["aligned face"] = subject
        if mask is not None:
            shown["interest mask"] = overlay(subject, mask)
        shown |= {iteration_label(i): y for i, y in enumerate(inverted.images, 1)}
        files = self._write(list(shown.values()))
        return state, list(zip(files, shown, strict=True)), files[-1]

    def _edited(self, state: State, strengths: Sequence[float]) -> np.ndarray:
        limited, text = self._limited(strengths, state)
        return self._studio.edit(state["current"], limited, text=text)

    def _pasted(self, state: State, strengths: Sequence[float], tell: Tell) -> np.ndarray:
        if state["mask"] is None:
            raise InputError(NO_MASK)
        source = state["source"]
        if isinstance(source, int):
            image = sample(source, size=EXAMPLE_SIDE, split="test")["image"]
        elif Path(source).is_file():
            image, _ = self._take(source)
        else:
            raise InputError(f"{Path(source).name}: was deleted after ten minutes, upload it again")
        edited = self._edited(state, strengths)
        tell(0.5, "pasting back")
        return pasted(image, edited, state["mask"], state["quad"])

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

    def _limited(
        self, strengths: Sequence[float], state: State
    ) -> tuple[list[float], tuple[Edit, float] | None]:
        """The strengths within the sliders' ranges, a request may hold any; the text's edit."""
        studio = self._studio
        sliders = [*studio.sliders, *([studio.text_slider] if studio.text_slider else [])]
        if len(strengths) != len(sliders) or not np.isfinite(strengths).all():
            raise InputError(f"strengths: expected {len(sliders)} numbers")
        pairs = zip(strengths, sliders, strict=True)
        limited = [float(np.clip(x, slider.low, slider.high)) for x, slider in pairs]
        count = len(studio.sliders)
        return limited[:count], (state["text"], limited[count]) if state["text"] else None


def in_words(function: Callable, gradio: Any) -> Callable:
    """The function for Gradio: errors in words, which the page shows, and a bar of progress.

    Args:
      function: raises InputError and MachineError; may take `tell`.
      gradio: the module.
    """
    tells = "tell" in inspect.signature(function).parameters

    bar = gradio.Progress()

    # Gradio shows a bar where it finds one as a default, and gives it before what the page sends.
    def call(progress: Any = bar, *arguments: Any) -> Any:
        options = {"tell": lambda share, words: progress(share, desc=words)} if tells else {}
        try:
            return function(*arguments, **options)
        except (InputError, MachineError) as error:
            raise gradio.Error(str(error), print_exception=False) from error

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
