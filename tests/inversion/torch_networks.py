"""StyleGAN2 and LPIPS' trunks in PyTorch, as published, of this package's parameters, in float64.

A second, plain implementation to compare gradients and losses with: kernels modulated a sample, and
convolutions as groups, as the official code has them.
"""

import math

import jax
import numpy as np
import torch
from torch.nn import functional

FIR = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64)
# torchvision's constants, of images in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
VGG_TAPS = ("conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3")
# Convolutions of AlexNet: stride, padding, and whether a pool stands before them.
ALEXNET = ((4, 2, False), (1, 2, True), (1, 1, True), (1, 1, False), (1, 1, False))


def to_torch(tree):
    """A tree of arrays as float64 tensors."""
    return jax.tree.map(lambda x: torch.from_numpy(np.array(x, np.float64)), tree)


def to_nchw(images):
    """[B, H, W, C] -> [B, C, H, W], float64."""
    return torch.from_numpy(np.asarray(images, np.float64)).permute(0, 3, 1, 2)


def dense(own, x, rate=1.0):
    kernel = own["kernel"] * (rate / math.sqrt(own["kernel"].shape[0]))
    return x @ kernel + own["bias"] * rate


def leaky(x):
    return functional.leaky_relu(x, 0.2) * math.sqrt(2.0)


def map_z(params, z):
    """z [B, Z] -> w [B, D]."""
    x = z / torch.sqrt(torch.mean(z**2, dim=1, keepdim=True) + 1e-8)
    for i in range(len(params["mapping"])):
        x = leaky(dense(params["mapping"][f"dense_{i}"], x, 0.01))
    return x


def fir(x, padding, gain):
    plane = torch.outer(FIR, FIR)
    plane = (plane / plane.sum() * gain).expand(x.shape[1], 1, 4, 4)
    return functional.conv2d(functional.pad(x, (*padding, *padding)), plane, groups=x.shape[1])


def modulated_conv(own, x, w, *, demodulate=True, up=False):
    style = dense(own["modulation"], w)
    kernel = own["kernel"].permute(3, 2, 0, 1)
    kernel = kernel / math.sqrt(kernel[0].numel())
    kernel = kernel[None] * style[:, None, :, None, None]
    if demodulate:
        kernel = kernel / torch.sqrt((kernel**2).sum((2, 3, 4), keepdim=True) + 1e-8)
    batch, outputs, inputs, size, _ = kernel.shape
    x = x.reshape(1, batch * inputs, *x.shape[2:])
    if up:
        kernel = kernel.flip((3, 4)).transpose(1, 2).reshape(batch * inputs, outputs, size, size)
        x = functional.conv_transpose2d(x, kernel, stride=2, groups=batch)
        return fir(x.reshape(batch, outputs, *x.shape[2:]), (1, 1), 4)
    kernel = kernel.reshape(batch * outputs, inputs, size, size)
    x = functional.conv2d(x, kernel, padding=size // 2, groups=batch)
    return x.reshape(batch, outputs, *x.shape[2:])


def synthesize(params, noise, w_plus):
    """Draws w_plus [B, L, D] -> [B, 3, R, R]; noise: {layer: map [h, w]}, or None for none."""

    def styled(name, x, row, up=False):
        own = params[name]
        x = modulated_conv(own["conv"], x, w_plus[:, row], up=up)
        if noise is not None:
            x = x + own["noise_strength"] * noise[name]
        return leaky(x + own["bias"][:, None, None])

    def rgb(name, x, row, skip):
        own = params[name]
        x = modulated_conv(own["conv"], x, w_plus[:, row], demodulate=False)
        x = x + own["bias"][:, None, None]
        if skip is None:
            return x
        wide = skip.new_zeros(*skip.shape[:2], skip.shape[2], 2, skip.shape[3], 2)
        wide[:, :, :, 0, :, 0] = skip
        wide = wide.reshape(*skip.shape[:2], 2 * skip.shape[2], 2 * skip.shape[3])
        return x + fir(wide, (2, 1), 4)

    x = params["input"].permute(0, 3, 1, 2).expand(len(w_plus), -1, -1, -1)
    x = styled("conv_4", x, 0)
    skip = rgb("rgb_4", x, 1, None)
    for i in range(w_plus.shape[1] // 2 - 1):
        size = 8 * 2**i
        x = styled(f"up_{size}", x, 2 * i + 1, up=True)
        x = styled(f"conv_{size}", x, 2 * i + 2)
        skip = rgb(f"rgb_{size}", x, 2 * i + 3, skip)
    return skip


def normalized(images):
    """[B, 3, H, W] in [-1, 1] as torchvision's networks take them."""
    mean, std = (torch.tensor(x, dtype=torch.float64) for x in (IMAGENET_MEAN, IMAGENET_STD))
    return ((images + 1) / 2 - mean[:, None, None]) / std[:, None, None]


def convolve(own, x, stride, padding):
    kernel = own["kernel"].permute(3, 2, 0, 1)
    return functional.relu(functional.conv2d(x, kernel, own["bias"], stride, padding))


def vgg_features(params, images):
    """{"conv1_1": map after its ReLU, ...} of images [B, 3, H, W] in [-1, 1]."""
    x, found, at = normalized(images), {}, 0
    for block, widths in enumerate(VGG16, 1):
        for i in range(1, len(widths) + 1):
            x = convolve(params[f"conv_{at}"], x, 1, 1)
            found[f"conv{block}_{i}"] = x
            at += 1
        if block < len(VGG16):
            x = functional.max_pool2d(x, 2, 2)
    return found


def alex_features(params, images):
    x, found = normalized(images), []
    for i, (stride, padding, pooled) in enumerate(ALEXNET):
        if pooled:
            x = functional.max_pool2d(x, 3, 2)
        x = convolve(params[f"conv_{i}"], x, stride, padding)
        found.append(x)
    return found


def lpips(params, a, b):
    """Zhang et al. 2018, equation 1: distance of two images [1, 3, H, W]; VGG16 or AlexNet."""

    def unit_maps(images):
        if "conv_12" in params:
            maps = vgg_features(params, images)
            maps = [maps[name] for name in VGG_TAPS]
        else:
            maps = alex_features(params, images)
        return [x / (torch.sqrt((x**2).sum(1, keepdim=True) + 1e-30) + 1e-10) for x in maps]

    total = 0.0
    for k, (x, y) in enumerate(zip(unit_maps(a), unit_maps(b), strict=True)):
        total = total + (params[f"head_{k}"][:, None, None] * (x - y) ** 2).sum(1).mean()
    return total
