"""The official PyTorch ReStyle code as a process that inverts one batch for each line it is sent.

    python experiments/official_process.py DIR RESOLUTION BATCH ITERATIONS THREADS

`experiments.pytorch_time` starts it; DIR is a checkout of yuval-alaluf/restyle-encoder, whose code
runs as it is but for the CUDA operators (`models/stylegan2/op`), which plain PyTorch replaces.
Prints "ready", then the seconds of a batch for each line of standard input. Weights are random.
"""

import argparse
import sys
import time
import types
from typing import Any

import torch
from torch import nn
from torch.nn import functional


def upfirdn2d(x, kernel, up=1, down=1, pad=(0, 0)):
    """Zeros inserted, padded, filtered, every `down`-th kept: [B, C, H, W] by [kh, kw]."""
    batch, channels, height, width = x.shape
    x = x.reshape(batch * channels, 1, height, width)
    if up > 1:
        spread = x.new_zeros(batch * channels, 1, height * up, width * up)
        spread[:, :, ::up, ::up] = x
        x = spread
    x = functional.pad(x, (pad[0], pad[1], pad[0], pad[1]))
    x = functional.conv2d(x, kernel.flip(0, 1)[None, None].to(x.dtype), stride=down)
    return x.reshape(batch, channels, *x.shape[2:])


def fused_leaky_relu(x, bias, negative_slope=0.2, scale=2**0.5):
    """Bias, leaky ReLU, gain."""
    bias = bias.reshape(1, -1, *[1] * (x.ndim - 2))
    return functional.leaky_relu(x + bias, negative_slope) * scale


class FusedLeakyReLU(nn.Module):
    """`fused_leaky_relu` with its bias."""

    def __init__(self, channel, negative_slope=0.2, scale=2**0.5):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channel))
        self.negative_slope, self.scale = negative_slope, scale

    def forward(self, x):
        return fused_leaky_relu(x, self.bias, self.negative_slope, self.scale)


def build(resolution: int) -> tuple[Any, Any]:
    """The official network with random weights, in evaluation mode, and its options."""
    op: Any = types.ModuleType("models.stylegan2.op")
    op.upfirdn2d = upfirdn2d
    op.fused_leaky_relu, op.FusedLeakyReLU = fused_leaky_relu, FusedLeakyReLU
    sys.modules["models.stylegan2.op"] = op
    # Imported for an encoder that is not used here.
    resnet: Any = types.ModuleType("torchvision.models.resnet")
    resnet.resnet34 = None
    for name in ("torchvision", "torchvision.models"):
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules.setdefault("torchvision.models.resnet", resnet)
    from models.psp import pSp

    torch.manual_seed(0)
    options = argparse.Namespace(
        encoder_type="BackboneEncoder",
        output_size=resolution,
        input_nc=6,
        checkpoint_path=None,
        device="cpu",
        dataset_type="ffhq_encode",
        resize_outputs=False,
    )
    # Its weights are read from files; all else is as the official class has it.
    pSp.load_weights = lambda self: None
    net = pSp(options).eval()
    net.latent_avg = torch.randn(net.n_styles, 512)
    return net, options


def main(argv: list[str]) -> None:
    """Answers lines until standard input ends."""
    folder, *numbers = argv
    resolution, batch, iterations, threads = map(int, numbers)
    sys.path.insert(0, folder)
    torch.set_num_threads(threads)
    net, options = build(resolution)
    from utils.inference_utils import run_on_batch

    options.n_iters_per_batch = iterations
    images = torch.rand(batch, 3, 256, 256) * 2 - 1
    average = torch.zeros(3, 256, 256)
    print("ready", flush=True)
    for _ in sys.stdin:
        begun = time.perf_counter()
        with torch.no_grad():
            run_on_batch(images, net, options, average)
        print(time.perf_counter() - begun, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
