"""A CLIP with its tokenizer: texts and images as features of one space."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from interestyle_jax.data.text_tokens import VOCABULARY, check_tokens, tokenize
from interestyle_jax.errors import InputError
from interestyle_jax.models.clip import CLIP, unit
from interestyle_jax.models.clip_pixels import area_pixels, clip_pixels
from interestyle_jax.weights import load_weights, resolve_weights

PART = "clip"
# The 80 of CLIP's own evaluation on ImageNet; StyleCLIP uses 79 of them.
TEMPLATES = VOCABULARY.with_name("imagenet_templates.txt")
PLACE = "{}"


@dataclasses.dataclass(frozen=True)
class Clip:
    """Both towers of a CLIP, and the words that it knows.

    Attributes:
      module: the network.
      variables: its variables.
      directory: where it was loaded from, for messages.
    """

    module: CLIP
    variables: Any
    directory: Path

    def text_features(self, texts: str | Sequence[str]) -> Float[jax.Array, "N E"]:
        """Unit features [N, E] of texts.

        Raises:
          InputError: as `text_tokens.tokenize`, or a word that a small CLIP was not trained with.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        tokens = tokenize(texts, context_length=self.module.context_length)
        check_tokens(tokens, self.module.token_ids, texts)
        return _texts(self.variables, tokens, module=self.module)

    def described(
        self, subject: str, *, templates: Sequence[str] | None = None
    ) -> Float[jax.Array, " E"]:
        """The unit mean [E] of the unit features of a subject in many sentences.

        Args:
          subject: such as "a face with glasses".
          templates: sentences with {} for the subject; None: the subject alone.

        Raises:
          InputError: a template without {}, or as `text_features`.
        """
        texts = [subject]
        if templates is not None:
            wrong = next((t for t in templates if t.count(PLACE) != 1), None)
            if wrong is not None or not templates:
                raise InputError(f"templates: {wrong!r}, expected sentences with one {PLACE}")
            # The subject's own emptiness would hide in a sentence.
            tokenize(subject, context_length=self.module.context_length)
            texts = [template.replace(PLACE, subject) for template in templates]
        return unit(self.text_features(texts).mean(0))

    def image_features(
        self, images: Float[jax.Array | np.ndarray, "B H W 3"]
    ) -> Float[jax.Array, "B E"]:
        """Unit features [B, E] of images [B, H, W, 3] in [-1, 1], by CLIP's preprocessing.

        Raises:
          InputError: another shape.
        """
        shape = np.shape(images)
        if len(shape) != 4 or shape[-1] != 3 or 0 in shape:
            raise InputError(f"images: shape {shape}, expected [B, H, W, 3]")
        return _images(self.variables, jnp.asarray(images), module=self.module)


def load_clip(name_or_dir: str | Path) -> Clip:
    """A CLIP from a weight directory, or shipped weights by name.

    Raises:
      InputError: no such directory, or no CLIP in it.
    """
    weights = load_weights(resolve_weights(name_or_dir))
    module, variables = weights.part(PART)
    return Clip(module, jax.device_put(variables), weights.directory)


def read_templates(path: str | Path = TEMPLATES) -> list[str]:
    """Sentences with {} for a subject, one a line; the shipped ones are CLIP's for ImageNet.

    Raises:
      InputError: no such file, or a line without {}.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as text") from error
    found = [line.strip() for line in lines if line.strip()]
    wrong = next((i for i, line in enumerate(lines, 1) if line.strip() and PLACE not in line), None)
    if wrong is not None or not found:
        raise InputError(f"{path}: line {wrong or 1} has no {PLACE}, expected one sentence a line")
    return found


def generated_features(
    module: CLIP, variables: Any, images: Float[jax.Array, "B R R 3"]
) -> Float[jax.Array, "B E"]:
    """Unit features [B, E] of a generator's images [B, R, R, 3], as StyleCLIP's loss sees them.

    Pure; see `clip_pixels.area_pixels`.
    """
    pixels = area_pixels(images, module.image_size)
    return unit(module.apply(variables, pixels, method="image_features"))


@functools.partial(jax.jit, static_argnames="module")
def _texts(variables, tokens, *, module):
    return unit(module.apply(variables, tokens, method="text_features"))


@functools.partial(jax.jit, static_argnames="module")
def _images(variables, images, *, module):
    pixels = clip_pixels(images, module.image_size, mean=module.mean, std=module.std)
    return unit(module.apply(variables, pixels, method="image_features"))
