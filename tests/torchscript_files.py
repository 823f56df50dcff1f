"""TorchScript archives, as OpenAI and NVIDIA publish weights."""

import warnings


def save_scripted(module, path):
    """Saves a module; PyTorch says, from 2.13 on, that it will not make archives for ever."""
    import torch

    with warnings.catch_warnings():
        # Of one kind in 2.13, of another in 2.14.
        for kind in (DeprecationWarning, FutureWarning):
            warnings.filterwarnings("ignore", r"`torch\.jit\.", kind)
        torch.jit.script(module).save(str(path))
