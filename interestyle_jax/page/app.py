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
from interestyle_jax.page.studio import Studio
from interestyle_jax.page.uploads import LARGEST_BYTES
from interestyle_jax.weights import ASSETS

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
Upload an image, see its inversion by iteration, move it along directions, mix it with another, and
download latents and image. Photographs of faces need weights that were trained on them, and
aligned faces (`interestyle align`)."""


def serve(weights: str | Path, *, directions: Sequence[str] = (), port: int = 7860) -> None:
    """Runs the page on 127.0.0.1 until it is stopped.

    Nothing is fetched from or sent to anywhere else. Uploads and results are deleted after ten
    minutes and at the end, latents of a session after an hour.

    Args:
      weights: a weight directory with an encoder, or a name that ships with the package.
      directions: as `Studio`.
      port: to listen at.

    Raises:
      InputError: Gradio is not installed, bad weights or directions, or the port is taken.
    """
    gradio = _import_gradio()
    model = load(weights)
    studio = Studio(model, directions)
    # The first visitor need not wait for compilation.
    inverted = studio.invert(np.zeros((1, 1, 3), np.uint8))
    studio.edit(inverted.w_plus[-1], [0.0] * len(studio.sliders))
    _end_on_sigterm()
    with tempfile.TemporaryDirectory(prefix="interestyle-page-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = build(gradio, studio, Path(folder), examples=ASSETS in model.directory.parents)
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


def build(gradio: Any, studio: Studio, folder: Path, *, examples: bool) -> Any:
    """The page, not yet running.

    Args:
      gradio: the module.
      studio: what it shows.
      folder: of uploads and results.
      examples: offer drawn avatars.

    Returns:
      The gradio.Blocks.
    """
    handlers = Handlers(studio, folder)
    with gradio.Blocks(
        title="IntereStyle", analytics_enabled=False, delete_cache=(CLEAN_SECONDS, KEPT_SECONDS)
    ) as page:
        state = gradio.State(None, time_to_live=LATENTS_KEPT_SECONDS)
        gradio.Markdown(TEXT)
        with gradio.Row():
            with gradio.Column(scale=1):
                upload = gradio.File(label="Image", type="filepath", elem_id="upload")
                invert = gradio.Button("Invert", variant="primary", elem_id="invert")
                with gradio.Row(visible=examples):
                    number = gradio.Number(0, label=f"Avatar (0 to {EXAMPLES - 1})", precision=0)
                    example = gradio.Button("Invert this avatar", elem_id="example")
            gallery = gradio.Gallery(
                label="Inversion by iteration",
                columns=6,
                height=220,
                scale=3,
                type="filepath",
                interactive=False,
                buttons=BUTTONS,
                elem_id="iterations",
            )
        with gradio.Row():
            with gradio.Column():
                gradio.Markdown("### Edit")
                strengths = [
                    gradio.Slider(s.low, s.high, 0, label=s.name, elem_id=f"strength-{i}")
                    for i, s in enumerate(studio.sliders)
                ]
            with gradio.Column():
                gradio.Markdown("### Mix")
                style = gradio.File(label="Other image", type="filepath", elem_id="style")
                bands = gradio.CheckboxGroup(
                    list(studio.bands), value=[studio.bands[0]], label="Rows of the other image"
                )
                share = gradio.Slider(0, 1, 1, label="Share")
                mix = gradio.Button("Mix", elem_id="mix")
            with gradio.Column():
                gradio.Markdown("### Result")
                result = gradio.Image(
                    type="filepath",
                    height=300,
                    show_label=False,
                    interactive=False,
                    buttons=BUTTONS,
                    elem_id="result",
                )
                download = gradio.Button("Make files", elem_id="download")
                files = gradio.File(label="Latents and image", interactive=False)

        def listen(trigger: Any, function: Any, inputs: list, outputs: list, **options: Any) -> Any:
            call = in_words(function, gradio.Error)
            return trigger(call, inputs, outputs, api_name=function.__name__, **options)

        # With another image sliders go back to 0, and its files away.
        zeros = [0.0] * len(strengths) + [None]
        afterwards = {
            "fn": lambda: zeros,
            "outputs": [*strengths, files],
            "queue": False,
            "api_visibility": "private",
            "show_progress": "hidden",
        }
        shown = [state, gallery, result]
        listen(invert.click, handlers.invert, [upload], shown).success(**afterwards)
        listen(example.click, handlers.example, [number], shown).success(**afterwards)
        mixing = [state, style, bands, share]
        listen(mix.click, handlers.mix, mixing, [state, result]).success(**afterwards)
        listen(download.click, handlers.download, [state, *strengths], [files])
        gradio.on(
            [slider.input for slider in strengths],
            in_words(handlers.edit, gradio.Error),
            [state, *strengths],
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
