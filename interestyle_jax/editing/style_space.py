"""S space (StyleSpace, Wu et al. 2021): the styles of all modulated convolutions as one vector.

`Generator.styles` gives a tuple of [B, C] arrays, one for each of `Generator.style_layers` in the
order of execution: 26 layers and 9088 channels at 1024. A layer is numbered in that list. StyleCLIP
leaves ToRGB layers out where it counts channels: 17 layers and 6048 channels at 1024.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Float

from interestyle_jax.errors import InputError
from interestyle_jax.models.stylegan2 import StyleLayer


def counted_layers(layers: Sequence[StyleLayer], *, with_rgb: bool = True) -> tuple[int, ...]:
    """Numbers of the layers that a flat vector counts.

    Args:
      layers: `Generator.style_layers`.
      with_rgb: count ToRGB layers (26 at 1024), or leave them out as StyleCLIP does (17 at 1024).
    """
    return tuple(i for i, layer in enumerate(layers) if with_rgb or not layer.is_rgb)


def num_channels(layers: Sequence[StyleLayer], *, with_rgb: bool = True) -> int:
    """Channels of a flat vector: 9088 at 1024, 6048 without ToRGB; see `counted_layers`."""
    return sum(layers[i].channels for i in counted_layers(layers, with_rgb=with_rgb))


def flat_index(
    layers: Sequence[StyleLayer], layer: int, channel: int, *, with_rgb: bool = True
) -> int:
    """The place of a channel in a flat vector.

    Args:
      layers: `Generator.style_layers`.
      layer: the layer's number among all layers, ToRGB counted, whatever `with_rgb` is.
      channel: of this layer, from 0.
      with_rgb: as in `counted_layers`.

    Raises:
      InputError: no such layer or channel, or one that the vector leaves out.
    """
    if not 0 <= layer < len(layers):
        raise InputError(f"layer {layer}: expected 0 to {len(layers) - 1}")
    if not 0 <= channel < layers[layer].channels:
        raise InputError(
            f"channel {channel} of layer {layer}: expected 0 to {layers[layer].channels - 1}"
        )
    counted = counted_layers(layers, with_rgb=with_rgb)
    if layer not in counted:
        raise InputError(f"layer {layer}: is a ToRGB, expected a layer of another kind")
    return sum(layers[i].channels for i in counted if i < layer) + channel


def layer_and_channel(
    layers: Sequence[StyleLayer], index: int, *, with_rgb: bool = True
) -> tuple[int, int]:
    """The inverse of `flat_index`: (layer, channel) of a place in a flat vector.

    Raises:
      InputError: the vector is shorter.
    """
    total = num_channels(layers, with_rgb=with_rgb)
    if not 0 <= index < total:
        raise InputError(f"channel {index}: expected 0 to {total - 1}")
    for i in counted_layers(layers, with_rgb=with_rgb):
        if index < layers[i].channels:
            break
        index -= layers[i].channels
    return i, index


def join_styles(
    styles: Sequence[Float[jax.Array, "... _"]],
    layers: Sequence[StyleLayer],
    *,
    with_rgb: bool = True,
) -> Float[jax.Array, "... C"]:
    """Styles, [..., C] a layer, as a flat vector [..., C] over the layers that it counts."""
    counted = counted_layers(layers, with_rgb=with_rgb)
    return jnp.concatenate([styles[i] for i in counted], axis=-1)


def split_styles(
    flat: Float[jax.Array, "... C"], layers: Sequence[StyleLayer], *, with_rgb: bool = True
) -> tuple[Float[jax.Array, "... _"], ...]:
    """The inverse of `join_styles`; layers that the vector leaves out are zeros.

    Raises:
      InputError: the vector [..., C] has another length.
    """
    total = num_channels(layers, with_rgb=with_rgb)
    if flat.shape[-1] != total:
        raise InputError(f"styles: {flat.shape[-1]} channels, expected {total}")
    counted, parts, start = counted_layers(layers, with_rgb=with_rgb), [], 0
    for i, layer in enumerate(layers):
        if i in counted:
            parts.append(flat[..., start : start + layer.channels])
            start += layer.channels
        else:
            parts.append(jnp.zeros((*flat.shape[:-1], layer.channels), flat.dtype))
    return tuple(parts)
