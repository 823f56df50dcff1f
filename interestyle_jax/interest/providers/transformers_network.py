"""Segmentation networks of the `transformers` library (PyTorch), for the providers that use them.

Weights are read from safetensors files alone and no code of a model's repository is run. The
image is resized and normalised here, by the numbers of the model's `preprocessor_config.json`.
"""

import contextlib
import json
import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from interestyle_jax.errors import InputError, file_error

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class TransformersNetwork:
    """One network and its label names; it runs on PyTorch's CUDA device where there is one.

    Calls from several threads take turns: PyTorch has all cores for one.

    Attributes:
      labels: `id2label` of the model's config, by index.
    """

    def __init__(
        self,
        class_name: str,
        model: str | Path,
        *,
        model_type: str,
        default_size: dict[str, int],
        revision: str | None = None,
    ):
        """Loads a network.

        Args:
          class_name: class of `transformers`.
          model: directory, or name on the Hugging Face hub, which is downloaded and cached.
          model_type: what the model's config has to say it is.
          default_size: of the input, where the model does not say.
          revision: branch, tag or commit on the hub.

        Raises:
          InputError: a package is missing, no such model, another kind of model, no safetensors
            file, or weights that do not fill the network.
        """
        try:
            import torch
            import transformers
        except ImportError as error:
            raise InputError(
                f"{model}: needs the packages torch and transformers: "
                f"pip install 'interestyle_jax[masks]' ({error})"
            ) from error
        name = str(model)
        options: dict[str, Any] = {"revision": revision} if revision else {}
        try:
            with _quiet(transformers):
                config = transformers.AutoConfig.from_pretrained(
                    name, trust_remote_code=False, **options
                )
                if config.model_type != model_type:
                    raise InputError(
                        f"{model}: is a model of type {config.model_type}, expected {model_type}"
                    )
                self._network, found = getattr(transformers, class_name).from_pretrained(
                    name,
                    use_safetensors=True,
                    trust_remote_code=False,
                    output_loading_info=True,
                    **options,
                )
                self._numbers = _preprocessor(name, transformers, options)
        except InputError:
            raise
        # The library raises OSError, ValueError, ImportError (timm) and more, with long texts.
        except Exception as error:
            raise file_error(error, f"{model}: cannot be loaded") from error
        absent = sorted(found["missing_keys"]) + sorted(map(str, found["mismatched_keys"]))
        if absent:
            raise InputError(
                f"{model}: its weights lack {len(absent)} of {class_name}'s tensors, such as "
                f"{absent[0]}"
            )
        self._torch, self._default_size = torch, default_size
        self._turn = threading.Lock()
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._network.to(self._device).eval()
        names = {int(index): str(label) for index, label in config.id2label.items()}
        if sorted(names) != list(range(len(names))):
            raise InputError(f"{model}: id2label does not number its labels from 0")
        self.labels = tuple(names[i] for i in range(len(names)))

    def __call__(self, image: UInt8[np.ndarray, "H W 3"]) -> dict[str, np.ndarray]:
        """Outputs of the network by name, float32 without the batch axis, for uint8 [H, W, 3]."""
        x = self._torch.from_numpy(self._input(image)).to(self._device)
        with self._turn, self._torch.inference_mode():
            outputs = self._network(pixel_values=x)
        return {
            key: value[0].cpu().numpy()
            for key, value in outputs.items()
            if isinstance(value, self._torch.Tensor)
        }

    def enlarge(
        self, maps: Float[np.ndarray, "C h w"], height: int, width: int
    ) -> Float[np.ndarray, "C H W"]:
        """Bilinear resize of [C, h, w] with half-pixel centres -> [C, height, width]."""
        return self._torch.nn.functional.interpolate(
            self._torch.from_numpy(np.ascontiguousarray(maps))[None],
            (height, width),
            mode="bilinear",
            align_corners=False,
        )[0].numpy()

    def _input(self, image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        size = input_size(width, height, self._numbers.get("size", self._default_size))
        scaled = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
        mean = np.asarray(self._numbers.get("image_mean", IMAGENET_MEAN), np.float32)
        std = np.asarray(self._numbers.get("image_std", IMAGENET_STD), np.float32)
        x = (np.asarray(scaled, np.float32) / 255 - mean) / std
        return np.ascontiguousarray(x.transpose(2, 0, 1)[None])


def input_size(width: int, height: int, size: Any) -> tuple[int, int]:
    """(width, height) of a network's input for an image's.

    Args:
      size: a number (a square), {"height", "width"}, or {"shortest_edge", "longest_edge"}: the
        shorter side becomes the first, but the longer one at most the second.
    """
    if isinstance(size, int | float):
        return int(size), int(size)
    if "height" in size:
        return int(size["width"]), int(size["height"])
    shorter, longer = sorted((width, height))
    scale = size["shortest_edge"] / shorter
    if size.get("longest_edge"):
        scale = min(scale, size["longest_edge"] / longer)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _preprocessor(name: str, transformers: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The numbers of the model's preprocessor_config.json; {} where there is none."""
    path = transformers.utils.cached_file(
        name,
        "preprocessor_config.json",
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        **options,
    )
    return {} if path is None else json.loads(Path(path).read_text(encoding="utf-8"))


@contextlib.contextmanager
def _quiet(transformers: Any):
    """No progress bars and no advice while loading."""
    log = transformers.utils.logging
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity(logging.ERROR)
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()
