"""The page itself, by Gradio."""

import os
import signal
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from interestyle_jax.errors import InputError, file_error
from interestyle_jax.inversion.inverter import load
from interestyle_jax.page.handlers import (
    EXAMPLES,
    KEPT_SECONDS,
    LATENTS_KEPT_SECONDS,
    Handlers,
    in_words,
)
from interestyle_jax.page.regions import AVATARS, NONE, Regions
from interestyle_jax.page.studio import LONGEST_TEXT, Studio
from interestyle_jax.page.uploads import LARGEST_BYTES

HOST = "127.0.0.1"
# People who wait; one image is computed at a time.
QUEUE = 100
# Sessions whose latents are kept.
SESSIONS = 200
# Of images; Gradio's own would offer to share them with a site.
BUTTONS = ["download", "fullscreen"]
# How often old files are deleted.
CLEAN_SECONDS = 60
TEXT = """# IntereStyle
Upload an image, see its inversion by iteration, move it along directions or by a text, mix it with
another, paste it back, and download latents and images."""
MASK_TEXTS = {
    AVATARS: "Interest mask: face and hair, as a network that was trained on drawn avatars sees "
    "them; of the avatars to try the drawing's own.",
    "selfie": "Interest mask: the whole person, by MediaPipe's selfie segmentation.",
    NONE: "No interest mask, so nothing is pasted back: it needs the extra [photos], or --masks.",
}

NO_TEXTS = """Not here: {}.

`interestyle directions text` (or `global`) measures what a text needs; `--channels` takes it."""


def serve(
    weights: str | Path,
    *,
    directions: Sequence[str] = (),
    masks: str | None = None,
    masks_weights: str | Path | None = None,
    clip: str | Path | None = None,
    channels: str | Path | None = None,
    port: int = 7860,
) -> None:
    """Runs the page on 127.0.0.1 until it is stopped.

    Nothing is fetched from or sent to anywhere else. Uploads and results are deleted after ten
    minutes and at the end, latents of a session after an hour.

    Args:
      weights: a weight directory with an encoder, or a name that ships with the package.
      directions: as `Studio`.
      masks: where interest masks come from, as `Regions`.
      masks_weights: of their network, where it needs other than its own.
      clip, channels: as `Studio`.
      port: to listen at.

    Raises:
      InputError: Gradio is not installed, bad weights or options, or the port is taken.
    """
    gradio = _import_gradio()
    studio = Studio(load(weights), directions, clip=clip, channels=channels)
    avatars = masks == AVATARS or studio.draws_avatars
    regions = Regions(masks, avatars=avatars, resolution=studio.resolution, weights=masks_weights)
    # The first visitor need not wait for compilation.
    grey = np.full((64, 64, 3), 128, np.uint8)
    inverted = studio.invert(grey)
    regions.mask(grey, inverted.images[-1])
    studio.edit(inverted.w_plus[-1], [0.0] * len(studio.sliders))
    _end_on_sigterm()
    with tempfile.TemporaryDirectory(prefix="interestyle-page-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = build(gradio, studio, regions, Path(folder), examples=avatars)
        page.queue(max_size=QUEUE, default_concurrency_limit=1)
        try:
            page.launch(
                server_name=HOST,
                server_port=port,
                share=False,
                inbrowser=False,
                quiet=True,
                show_error=True,
                prevent_thread_lock=True,
                max_file_size=LARGEST_BYTES,
                state_session_capacity=SESSIONS,
                ssr_mode=False,
                footer_links=[],
            )
        except OSError as error:
            raise file_error(error, f"--port: {port} of {HOST} cannot be had") from error
        print(f"http://{HOST}:{port}  (Ctrl-C ends it)", flush=True)
        try:
            page.block_thread()
        finally:
            page.close()


def _end_on_sigterm() -> None:
    """Lets a service manager's signal end the page as Ctrl-C does, files deleted."""

    def end(number: int, frame: Any) -> None:
        raise SystemExit(0)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, end)


def build(gradio: Any, studio: Studio, regions: Regions, folder: Path, *, examples: bool) -> Any:
    """The page, not yet running.

    Args:
      gradio: the module.
      studio: what it shows.
      regions: faces and interest masks.
      folder: of uploads and results.
      examples: offer drawn avatars.

    Returns:
      The gradio.Blocks.
    """
    handlers = Handlers(studio, regions, folder)
    with gradio.Blocks(
        title="IntereStyle", analytics_enabled=False, delete_cache=(CLEAN_SECONDS, KEPT_SECONDS)
    ) as page:
        state = gradio.State(None, time_to_live=LATENTS_KEPT_SECONDS)
        gradio.Markdown(TEXT)
        with gradio.Row():
            with gradio.Column(scale=1):
                upload = gradio.File(label="Image", type="filepath", elem_id="upload")
                align = gradio.Checkbox(
                    regions.can_align,
                    label="Photograph: find the face and align it",
                    visible=regions.can_align,
                    elem_id="align",
                )
                invert = gradio.Button("Invert", variant="primary", elem_id="invert")
                with gradio.Row(visible=examples):
                    number = gradio.Number(0, label=f"Avatar (0 to {EXAMPLES - 1})", precision=0)
                    example = gradio.Button("Invert this avatar", elem_id="example")
            with gradio.Column(scale=3):
                gallery = gradio.Gallery(
                    label="Inversion by iteration",
                    columns=4,
                    height=440,
                    object_fit="contain",
                    type="filepath",
                    interactive=False,
                    buttons=BUTTONS,
                    elem_id="iterations",
                )
                gradio.Markdown(MASK_TEXTS.get(regions.masks, f"Interest mask: {regions.masks}."))
        with gradio.Row():
            with gradio.Column(scale=2):
                gradio.Markdown("### Edit")
                strengths = []
                # Side by side, so that the result stays in sight.
                half = -(-len(studio.sliders) // 2)
                with gradio.Row():
                    for part in (studio.sliders[:half], studio.sliders[half:]):
                        with gradio.Column(min_width=150):
                            for s in part:
                                name = f"strength-{len(strengths)}"
                                strengths.append(
                                    gradio.Slider(s.low, s.high, 0, label=s.name, elem_id=name)
                                )
            with gradio.Column(scale=1):
                gradio.Markdown("### Edit by a text")
                if studio.text_slider is None:
                    gradio.Markdown(NO_TEXTS.format(studio.no_texts))
                else:
                    words = gradio.Textbox(
                        label="Text",
                        placeholder="a face with a beard",
                        max_length=LONGEST_TEXT,
                        max_lines=1,
                        elem_id="text",
                    )
                    slider = studio.text_slider
                    strengths.append(
                        gradio.Slider(
                            slider.low,
                            slider.high,
                            slider.high / 2,
                            label="Strength of the text",
                            elem_id="text-strength",
                        )
                    )
                    text = gradio.Button("Edit by the text", elem_id="edit-text")
                gradio.Markdown("### Mix")
                style = gradio.File(label="Other image", type="filepath", elem_id="style")
                bands = gradio.CheckboxGroup(
                    list(studio.bands), value=[studio.bands[0]], label="Rows of the other image"
                )
                share = gradio.Slider(0, 1, 1, label="Share")
                mix = gradio.Button("Mix", elem_id="mix")
            with gradio.Column(scale=1):
                gradio.Markdown("### Result")
                result, back = (
                    gradio.Image(
                        type="filepath",
                        height=300,
                        label=label,
                        interactive=False,
                        buttons=BUTTONS,
                        elem_id=name,
                    )
                    for label, name in (("Image", "result"), ("Pasted back", "pasted"))
                )
                paste = gradio.Button("Paste back into the upload", elem_id="paste")
                download = gradio.Button("Make files", elem_id="download")
                files = gradio.File(label="Latents and images", interactive=False, elem_id="files")

        def listen(trigger: Any, function: Any, inputs: list, outputs: list, **options: Any) -> Any:
            call = in_words(function, gradio)
            return trigger(call, inputs, outputs, api_name=function.__name__, **options)

        # With another image sliders go back, and what was made of the one before away.
        start = [slider.value for slider in strengths] + [None, None]
        afterwards = {
            "fn": lambda: start,
            "outputs": [*strengths, back, files],
            "queue": False,
            "api_visibility": "private",
            "show_progress": "hidden",
        }
        shown = [state, gallery, result]
        listen(invert.click, handlers.invert, [upload, align], shown).success(**afterwards)
        listen(example.click, handlers.example, [number], shown).success(**afterwards)
        mixing = [state, style, bands, share, align]
        listen(mix.click, handlers.mix, mixing, [state, result]).success(**afterwards)
        edited = [state, *strengths]
        listen(paste.click, handlers.paste, edited, [back])
        listen(download.click, handlers.download, edited, [files])
        if studio.text_slider is not None:
            asked = [state, words, *strengths]
            listen(text.click, handlers.text, asked, [state, result])
        gradio.on(
            [slider.input for slider in strengths],
            in_words(handlers.edit, gradio),
            edited,
            [result],
            api_name="edit",
            trigger_mode="always_last",
        )
    return page


def _import_gradio() -> Any:
    # Read when it is imported.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        import gradio
    except ImportError as error:
        raise InputError(
            f"the page needs the package gradio: pip install 'interestyle_jax[serve]' ({error})"
        ) from error
    return gradio
