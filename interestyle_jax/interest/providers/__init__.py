"""Mask providers by name: where interest masks of real images come from."""

import importlib
import inspect
from pathlib import Path
from typing import Any

from interestyle_jax.errors import InputError
from interestyle_jax.interest.providers.masks import MaskProvider, Masks

__all__ = ["PROVIDERS", "MaskProvider", "Masks", "find_provider", "make_provider"]

_CLASSES = {
    "folder": "FolderProvider",
    "celebamask": "CelebAMaskProvider",
    "segformer": "SegformerProvider",
    "detr": "DetrProvider",
    "selfie": "SelfieProvider",
    "graphonomy": "GraphonomyProvider",
}
PROVIDERS = tuple(_CLASSES)
LABEL_LISTS = {"classes", "face_classes"}


def provider_options(name: str) -> tuple[str, ...]:
    """The options that a provider takes.

    Raises:
      InputError: unknown name.
    """
    return tuple(inspect.signature(_provider_class(name)).parameters)


def make_provider(name: str, **options: Any) -> MaskProvider:
    """The provider of that name, its network loaded.

    Args:
      name: one of `PROVIDERS`.
      **options: those of the provider's class; None counts as not given. Lists of labels may be
        text, "hair,face", or numbers.

    Raises:
      InputError: unknown name or option, or whatever the provider lacks (weights, a package).
    """
    given = {key: value for key, value in options.items() if value is not None}
    unknown = sorted(given.keys() - set(provider_options(name)))
    if unknown:
        known = ", ".join(f"--{key}" for key in provider_options(name)) or "none"
        raise InputError(f"--{unknown[0]}: no option of provider {name}, which takes {known}")
    for key in LABEL_LISTS & given.keys():
        words = given[key].split(",") if isinstance(given[key], str) else given[key]
        given[key] = tuple(str(word).strip() for word in words)
    return _provider_class(name)(**given)


def find_provider(
    masks: str, weights: str | Path | None, *, option: str = "--keep-masks"
) -> MaskProvider:
    """The provider of that name, or one of the masks in a folder.

    Args:
      masks: a name of PROVIDERS, or a folder.
      weights: the provider's weights or model, or None for its own.
      option: what `masks` is called in messages; `weights` has "-weights" behind it.

    Raises:
      InputError: neither, or what the provider lacks.
    """
    if masks not in PROVIDERS:
        if not Path(masks).is_dir():
            names = ", ".join(PROVIDERS)
            raise InputError(f"{option}: '{masks}', expected a folder or one of {names}")
        return make_provider("folder", masks=masks)
    if weights is None:
        return make_provider(masks)
    known = provider_options(masks)
    name = next((name for name in ("weights", "model") if name in known), None)
    if name is None:
        raise InputError(f"{option}-weights: '{masks}' takes no weights")
    return make_provider(masks, **{name: weights})


def _provider_class(name: str) -> type:
    if name not in _CLASSES:
        raise InputError(f"--provider: {name!r}, expected one of {', '.join(PROVIDERS)}")
    # Imported when asked for: each knows another heavy library.
    module = importlib.import_module(f"interestyle_jax.interest.providers.{name}")
    return getattr(module, _CLASSES[name])
