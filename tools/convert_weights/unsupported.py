"""Checkpoints that are known and not read: what they are, in words, with any `--family`."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from interestyle_jax.errors import InputError

from .encoder_table import form_of, input_channels
from .source_file import SourceFile

# Channels of an encoder's input: an image, or an image and the generator's answer.
CHANNELS = (3, 6)
ENCODERS = ("state_dict/encoder.", "encoder.")
HEAD = "styles.0.linear.weight"


def check(sources: Sequence[SourceFile]) -> None:
    """Raises InputError where the files hold a network that is not read, or one without its key."""
    arrays = {key: value for source in sources for key, value in source.arrays().items()}
    opts = next((s.content["opts"] for s in sources if "opts" in s.content), None)
    stated = opts.get("encoder_type") if isinstance(opts, Mapping) else None
    faults = (_clip(arrays), _encoder(arrays, stated), _generator(arrays), _ada(arrays))
    what = next((fault for fault in faults if fault is not None), None) or _bare(arrays)
    if what is not None:
        raise InputError(f"{', '.join(str(s.path) for s in sources)}: {what}")


def _below(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def _encoder(arrays: Mapping[str, np.ndarray], stated: object) -> str | None:
    for prefix in ENCODERS:
        own = _below(arrays, prefix)
        channels = input_channels(own)
        if channels is None:
            continue
        if channels not in CHANNELS:
            kind = {1: " (sketches)", 19: " (label maps)"}.get(channels, "")
            return (
                f"its encoder reads {channels} channels{kind}, expected {CHANNELS[0]} (an image) "
                f"or {CHANNELS[1]} (an image and the generator's answer)"
            )
        if not any(re.match(r"styles\.\d+\.", key) for key in own):
            name = stated if isinstance(stated, str) else f"{form_of(own)} without style heads"
            return (
                f"its encoder gives one latent in W, not a row for every style ({name}), expected "
                f"style heads such as {HEAD}"
            )
    return None


def _generator(arrays: Mapping[str, np.ndarray]) -> str | None:
    """Of rosinality's layout."""
    for prefix in ("g_ema/", "state_dict/decoder.", "decoder.", ""):
        own = _below(arrays, prefix)
        constant = own.get("input.input")
        if constant is None:
            continue
        labels = next((k for k in own if "embed" in k or "label" in k), None)
        images = [v for k, v in own.items() if k.startswith("noises.") and v.ndim == 4]
        return _fault(labels, own.get("to_rgb1.bias"), [constant, *images])
    return None


def _ada(arrays: Mapping[str, np.ndarray]) -> str | None:
    """Of NVIDIA's layouts."""
    slashed = {key.replace(".", "/"): value for key, value in arrays.items()}
    for prefix in ("G_ema/", ""):
        own = _below(slashed, prefix)
        if any(re.match(r"synthesis/L\d+_\d+_\d+/", key) for key in own):
            return "is a StyleGAN3 network, expected StyleGAN2"
        constant = own.get("synthesis/b4/const")
        if constant is None:
            continue
        labels = next((k for k in own if k.startswith("mapping/embed")), None)
        noise = [v for k, v in own.items() if k.endswith("/noise_const")]
        return _fault(labels, own.get("synthesis/b4/torgb/bias"), [constant, *noise])
    return None


def _fault(
    labels: str | None, rgb_bias: np.ndarray | None, maps: Sequence[np.ndarray]
) -> str | None:
    """What is not read of a generator.

    Args:
      labels: a key of the network that reads labels, or None.
      rgb_bias: of the first image, one number a channel.
      maps: arrays whose last axes are rows and columns.
    """
    if labels is not None:
        return f"is a conditional generator ({labels}), expected one without labels"
    if rgb_bias is not None and rgb_bias.size != 3:
        grey = " (grey)" if rgb_bias.size == 1 else ""
        return f"is a generator of {rgb_bias.size} channels{grey}, expected 3 (RGB)"
    shape = next((m.shape[-2:] for m in maps if m.ndim > 1 and m.shape[-1] != m.shape[-2]), None)
    if shape is not None:
        return (
            f"is a generator of images that are not square (a map of {shape[0]} x {shape[1]}), "
            "expected square ones"
        )
    return None


def _clip(arrays: Mapping[str, np.ndarray]) -> str | None:
    """Networks of images and texts that are no CLIP, or have other towers."""
    own = {key.removeprefix("state_dict/") for key in arrays}
    if not any(k.startswith(("visual.", "vision_model.", "image_encoder.")) for k in own):
        return None
    if "logit_bias" in own:
        return "is a SigLIP network (logit_bias), expected a CLIP"
    if any(key.startswith("text_decoder.") for key in own):
        return "is a CoCa network (text_decoder), expected a CLIP"
    if any(key.startswith(("visual.trunk.", "image_encoder.")) for key in own):
        return (
            "its image tower is of timm or Apple (SigLIP, EVA, ConvNeXt, MobileCLIP), expected "
            "CLIP's own vision transformer or ResNet"
        )
    if any(key.startswith("text.transformer.encoder.") for key in own):
        return "its text tower is of transformers (RoBERTa and others), expected CLIP's own"
    return None


def _bare(arrays: Mapping[str, np.ndarray]) -> str | None:
    """A network's state dict that does not lie under the key where its checkpoints have it."""
    if "input.input" in arrays:
        return _wrap("a StyleGAN2 generator", "g_ema")
    if {"synthesis.b4.const", "synthesis/b4/const"} & arrays.keys():
        return _wrap("a stylegan2-ada-pytorch generator", "G_ema")
    if any(key.startswith(("encoder.styles.", "decoder.to_rgb1.")) for key in arrays):
        return _wrap("an encoder with its generator", "state_dict", ", with its 'opts' beside")
    if HEAD in arrays:
        return (
            "is the bare state dict of an encoder, expected encoder and generator in one file: "
            "{'state_dict': {'encoder.*', 'decoder.*'}, 'latent_avg', 'opts'}"
        )
    if "convs.0.0.weight" in arrays and "final_linear.0.weight" in arrays:
        return _wrap("a StyleGAN2 discriminator", "d", ", beside the generator's 'g_ema'")
    return None


def _wrap(network: str, key: str, beside: str = "") -> str:
    return (
        f"is the bare state dict of {network}, expected it under the key {key!r}{beside}: "
        f"torch.save({{{key!r}: state_dict}}, NEW)"
    )
