"""`opts` of inverter checkpoints: the training options that the official code writes and reads.

Source: the `coach.py` files of pSp, e4e, ReStyle and IntereStyle.
"""

from collections.abc import Mapping
from typing import Any

from interestyle_jax.errors import InputError, reason
from interestyle_jax.models import registry

from .encoder_table import Encoder
from .torch_file import Device

# Options that only the trainers of progressive encoders have.
PROGRESSIVE = {"stylegan_size", "progressive_steps", "w_discriminator_lambda"}
# Our own option: the encoder's architecture, which shapes do not always show.
ARCHITECTURE = "encoder_architecture"


def read(content: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The options of a file; an empty dict where it has none.

    Raises:
      InputError: they are no dict.
    """
    opts = content.get("opts")
    if opts is not None and not isinstance(opts, Mapping):
        raise InputError(f"{where}: opts is a {type(opts).__name__}, expected a dict")
    return opts or {}


def of_progressive(opts: Mapping[str, Any]) -> bool:
    """Whether a trainer of progressive encoders wrote them."""
    return bool(opts.keys() & PROGRESSIVE)


def of_interestyle(opts: Mapping[str, Any]) -> bool:
    """Whether IntereStyle's trainer wrote them: the others have no mask, and a device as text."""
    return "apply_mask_loss" in opts or isinstance(opts.get("device"), Device)


def image_shape(opts: Mapping[str, Any], encoder: Encoder) -> list[int]:
    """Rows and columns of the encoder's input: square, but 192 x 256 for cars.

    Car generators draw squares with an empty eighth above and below, which the official code cuts.
    """
    size = encoder.input_size
    return [size * 3 // 4 if "cars" in str(opts.get("dataset_type", "")) else size, size]


def stated_encoder(opts: Mapping[str, Any], where: str) -> Encoder | None:
    """The encoder that the options describe under `ARCHITECTURE`, or None where they do not.

    Raises:
      InputError: no encoder can be built from the description.
    """
    if ARCHITECTURE not in opts:
        return None
    try:
        encoder = registry.build(opts[ARCHITECTURE])
        registry.variable_shapes(opts[ARCHITECTURE])
    # The fields are the file's: a network may fail on them in any way.
    except Exception as error:
        raise InputError(f"{where}: opts/{ARCHITECTURE}: {reason(error)}") from error
    return encoder


def as_extra(opts: Mapping[str, Any]) -> dict[str, Any]:
    """What `metadata.json` keeps of them.

    "opts" holds them all; "opts_as_text" names those that JSON cannot hold, which are text now, and
    "opts_devices" those that were a torch.device. Empty for no options.
    """
    texts = _texts(opts)
    devices = [k for k, v in opts.items() if isinstance(v, Device)]
    plain = {k: str(v) if k in texts else v for k, v in opts.items()}
    extra = {"opts": plain, "opts_as_text": texts, "opts_devices": devices}
    return {k: v for k, v in extra.items() if v}


def notes(opts: Mapping[str, Any], encoder: Encoder) -> tuple[str, ...]:
    """What a user has to know of them, a sentence each."""
    found = [f"opts: {k} is kept as text, JSON cannot hold it" for k in _texts(opts)]
    # Iterative encoders start from the mean latent whatever the options say.
    if encoder.input_channels == 3 and opts.get("start_from_latent_avg") is False:
        found.append(
            "opts: start_from_latent_avg is off, so the official code does not add the mean latent "
            "to what the encoder gives; invert does"
        )
    return tuple(found)


def restore(extra: Mapping[str, Any]) -> dict[str, Any]:
    """The options that `as_extra` kept; empty where there were none."""
    devices = extra.get("opts_devices", ())
    return {k: Device(v) if k in devices else v for k, v in extra.get("opts", {}).items()}


def needed(family: str, encoder: Encoder, resolution: int) -> dict[str, Any]:
    """What the official code has to know of weights that were not converted from a file."""
    opts = {
        "encoder_type": type(encoder).__name__,
        "stylegan_size" if family == "e4e" else "output_size": resolution,
        "n_styles": encoder.num_styles,
        "input_nc": encoder.input_channels,
        "start_from_latent_avg": True,
        "learn_in_w": False,
    }
    return opts | ({"apply_mask_loss": True} if family == "interestyle" else {})


def _texts(opts: Mapping[str, Any]) -> list[str]:
    return [k for k, v in opts.items() if not _is_plain(v)]


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(k, str) and _is_plain(v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return all(_is_plain(v) for v in value)
    return value is None or isinstance(value, str | int | float)
