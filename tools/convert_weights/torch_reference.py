"""Official networks as plain PyTorch functions of a state dict, to check conversions against.

Written from the networks' definitions, apart from `models/`: the keys are the official files' own,
images are [B, C, H, W], every function takes `s`, a dict of tensors of one precision. PyTorch is
imported where it is used, as everywhere in the converter.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Tensor = Any
State = Mapping[str, Tensor]


def encoder(
    s: State,
    x: Tensor,
    *,
    units: Sequence[int],
    starts: tuple[int, int] = (3, 7),
    progressive: bool = False,
) -> Tensor:
    """The delta [B, L, D] of an encoder's image (pair) x, all stages on.

    IR-SE or ResNet34 trunk of `units` blocks a stage. With lateral layers a feature pyramid: styles
    from the first of `starts` on read the map twice as fine, from the second on four times as fine.
    `progressive` encoders add the first row to the others.
    """
    import torch

    is_resnet = "conv1.weight" in s
    maps = _resnet_maps(s, x, units) if is_resnet else _ir_maps(s, x, units)
    last = maps[-1]
    count = len({key.split(".")[1] for key in s if key.startswith("styles.")})
    sources = [last] * count
    if "latlayer1.weight" in s:
        for k, first in enumerate(starts, start=1):
            below = maps[-1 - k]
            last = torch.nn.functional.interpolate(
                last, below.shape[2:], mode="bilinear", align_corners=True
            ) + _conv(s, f"latlayer{k}", below)
            sources[first:] = [last] * len(sources[first:])
    rows = torch.stack([_style(s, f"styles.{i}", y) for i, y in enumerate(sources)], 1)
    if progressive:
        rows[:, 1:] = rows[:, 1:] + rows[:, :1]
    return rows


def embedder(s: State, x: Tensor, *, units: Sequence[int]) -> Tensor:
    """Unit vectors [B, D] of faces: ArcFace's and CurricularFace's networks."""
    x = _norm(s, "output_layer.0", _ir_maps(s, x, units)[-1]).flatten(1)
    x = x @ s["output_layer.3.weight"].T + s["output_layer.3.bias"]
    x = _norm(s, "output_layer.4", x)
    return x / x.norm(dim=1, keepdim=True)


def synthesis(s: State, w_plus: Tensor) -> Tensor:
    """The image [B, 3, R, R] of w_plus [B, L, D] with stored noise: rosinality's generator."""
    x = s["input.input"].expand(len(w_plus), -1, -1, -1)
    x = _styled(s, "conv1", x, w_plus[:, 0], s["noises.noise_0"])
    image = _modulated(s, "to_rgb1.conv", x, w_plus[:, 1], demodulate=False) + s["to_rgb1.bias"]
    i = 0
    while f"to_rgbs.{i}.bias" in s:
        first, second = 2 * i, 2 * i + 1
        noises = s[f"noises.noise_{first + 1}"], s[f"noises.noise_{second + 1}"]
        x = _styled(s, f"convs.{first}", x, w_plus[:, first + 1], noises[0], up=True)
        x = _styled(s, f"convs.{second}", x, w_plus[:, first + 2], noises[1])
        rgb = _modulated(s, f"to_rgbs.{i}.conv", x, w_plus[:, first + 3], demodulate=False)
        image = _doubled(image) + rgb + s[f"to_rgbs.{i}.bias"]
        i += 1
    return image


def _conv(s: State, key: str, x: Tensor, stride: int = 1) -> Tensor:
    import torch

    weight = s[f"{key}.weight"]
    padding = (weight.shape[-1] - 1) // 2
    return torch.nn.functional.conv2d(x, weight, s.get(f"{key}.bias"), stride, padding)


def _norm(s: State, key: str, x: Tensor) -> Tensor:
    shape = [1, -1] + [1] * (x.ndim - 2)
    y = x - s[f"{key}.running_mean"].view(shape)
    y = y / (s[f"{key}.running_var"].view(shape) + 1e-5).sqrt()
    if f"{key}.weight" in s:
        y = y * s[f"{key}.weight"].view(shape) + s[f"{key}.bias"].view(shape)
    return y


def _prelu(s: State, key: str, x: Tensor) -> Tensor:
    return x.clamp(min=0) + s[f"{key}.weight"].view(1, -1, 1, 1) * x.clamp(max=0)


def _blocks(units: Sequence[int]) -> Iterator[tuple[str, int, bool]]:
    """(key, stage, whether a stage begins) of every block."""
    number = 0
    for stage, count in enumerate(units):
        for unit in range(count):
            yield f"body.{number}", stage, unit == 0
            number += 1


def _ir_maps(s: State, x: Tensor, units: Sequence[int]) -> list[Tensor]:
    """The last map of every stage, each half as large as the one before."""
    x = _prelu(s, "input_layer.2", _norm(s, "input_layer.1", _conv(s, "input_layer.0", x)))
    maps = [x] * len(units)
    for block, stage, begins in _blocks(units):
        key, stride = f"{block}.res_layer", 2 if begins else 1
        y = _prelu(s, f"{key}.2", _conv(s, f"{key}.1", _norm(s, f"{key}.0", x)))
        y = _norm(s, f"{key}.4", _conv(s, f"{key}.3", y, stride))
        if f"{key}.5.fc1.weight" in s:
            gate = _conv(s, f"{key}.5.fc1", y.mean((2, 3), keepdim=True)).clamp(min=0)
            y = y * _conv(s, f"{key}.5.fc2", gate).sigmoid()
        shortcut = f"{block}.shortcut_layer"
        if f"{shortcut}.0.weight" in s:
            x = _norm(s, f"{shortcut}.1", _conv(s, f"{shortcut}.0", x, stride))
        else:
            x = x[:, :, ::stride, ::stride]
        maps[stage] = x = x + y
    return maps


def _resnet_maps(s: State, x: Tensor, units: Sequence[int]) -> list[Tensor]:
    """The last map of every stage; the first is as large as the stem's, which halves."""
    x = _prelu(s, "relu", _norm(s, "bn1", _conv(s, "conv1", x, 2)))
    maps = [x] * len(units)
    for block, stage, begins in _blocks(units):
        stride = 2 if begins and stage > 0 else 1
        y = _norm(s, f"{block}.bn1", _conv(s, f"{block}.conv1", x, stride)).clamp(min=0)
        y = _norm(s, f"{block}.bn2", _conv(s, f"{block}.conv2", y))
        if f"{block}.downsample.0.weight" in s:
            x = _norm(s, f"{block}.downsample.1", _conv(s, f"{block}.downsample.0", x, stride))
        maps[stage] = x = (x + y).clamp(min=0)
    return maps


def _style(s: State, key: str, x: Tensor) -> Tensor:
    k = 0
    while f"{key}.convs.{k}.weight" in s:
        x = _conv(s, f"{key}.convs.{k}", x, 2)
        x = x.clamp(min=0) + 0.01 * x.clamp(max=0)
        k += 2
    weight = s[f"{key}.linear.weight"]
    return x.flatten(1) @ weight.T / weight.shape[1] ** 0.5 + s[f"{key}.linear.bias"]


def _styled(s: State, key: str, x: Tensor, w: Tensor, noise: Tensor, *, up: bool = False) -> Tensor:
    x = _modulated(s, f"{key}.conv", x, w, up=up) + s[f"{key}.noise.weight"] * noise
    x = x + s[f"{key}.activate.bias"].view(1, -1, 1, 1)
    return (x.clamp(min=0) + 0.2 * x.clamp(max=0)) * 2**0.5


def _modulated(
    s: State, key: str, x: Tensor, w: Tensor, *, up: bool = False, demodulate: bool = True
) -> Tensor:
    """Sample by sample, each with its own kernel, as the paper of StyleGAN2 defines it."""
    import torch

    dense = s[f"{key}.modulation.weight"]
    styles = w @ dense.T / dense.shape[1] ** 0.5 + s[f"{key}.modulation.bias"]
    kernel = s[f"{key}.weight"][0]
    kernel = kernel / kernel[0].numel() ** 0.5
    out = []
    for sample, style in zip(x, styles, strict=True):
        own = kernel * style[None, :, None, None]
        if demodulate:
            own = own / (own.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        functions = torch.nn.functional
        if up:
            y = functions.conv_transpose2d(sample[None], own.transpose(0, 1), stride=2)
            out.append(_filtered(y, 1, 1))
        else:
            out.append(functions.conv2d(sample[None], own, padding=own.shape[-1] // 2))
    return torch.cat(out)


def _doubled(x: Tensor) -> Tensor:
    """Zeros between the pixels, then the filter with gain 4."""
    batch, channels, height, width = x.shape
    y = x.new_zeros(batch, channels, height, 2, width, 2)
    y[:, :, :, 0, :, 0] = x
    return _filtered(y.reshape(batch, channels, 2 * height, 2 * width), 2, 1)


def _filtered(x: Tensor, before: int, after: int) -> Tensor:
    import torch

    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype)
    kernel = torch.outer(taps, taps) / 16
    x = torch.nn.functional.pad(x, (before, after, before, after))
    return torch.nn.functional.conv2d(x, kernel.expand(x.shape[1], 1, 4, 4), groups=x.shape[1])
