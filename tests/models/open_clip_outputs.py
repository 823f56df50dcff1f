"""What open_clip computes with weights drawn from their keys; `python -m` writes it to the `.npz`.

    pip install open-clip-torch==3.3.0 torchvision
    python -m tests.models.open_clip_outputs

The tests draw the same weights, convert them, and compare every layer.
"""

import zlib
from pathlib import Path

import numpy as np

OUTPUTS = Path(__file__).with_name("open_clip_outputs.npz")
TEXTS = ("A face with glasses", "it's a smiling person, blond &amp; don't frown! 123")
# Of the tokenizer: contractions, entities, blanks, numerals, punctuation, words of many pieces.
HARD_TEXTS = (
    "Smiling person, it's blond!!",
    "don't 3 cats & 12dogs",
    "&amp;lt;b&gt; we'll I'd you've they're x'ss ''s",
    "  Hello   World\n\t tab ",
    'a_b-c (d) [e] {f} $5.99 50% #hash @you ~`^|\\/<>?;:"',
    "supercalifragilisticexpialidocious",
    "....!!!! ??''",
    "2026-11-26T08:15",
    "I'LL GO",
)
# These go through ftfy.
FOREIGN_TEXTS = ("é ü 你好 ½ Ⅷ ² naïve café", "“quotes” — 😀", "ｆｕｌｌ")
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
EMBED = 24
# Name -> the image tower's config, and whether QuickGELU.
NETWORKS = {
    "vit_quick": ({"layers": 2, "width": 128, "patch_size": 8, "image_size": 24}, True),
    "vit_exact": ({"layers": 2, "width": 128, "patch_size": 8, "image_size": 24}, False),
    "resnet": ({"layers": [1, 2, 1, 1], "width": 8, "image_size": 64}, True),
}


def draw(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """One tensor by its key and shape; none is what an untrained network has."""
    rng = np.random.Generator(np.random.Philox(key=zlib.crc32(key.encode())))
    normal = rng.standard_normal(shape).astype(np.float32)
    if key.endswith("num_batches_tracked"):
        return np.asarray(zlib.crc32(key.encode()) % 1000, np.int64)
    if key.endswith("running_var"):
        return 1 + np.float32(0.2) * np.abs(normal)
    if key == "logit_scale":
        return np.asarray(np.float32(2.5) + np.float32(0.1) * normal)
    if len(shape) == 1 and key.endswith("weight"):
        return 1 + np.float32(0.2) * normal
    if len(shape) < 2 or "embedding" in key:
        return np.float32(0.1) * normal
    # `visual.proj` and `text_projection` are [in, out], the others [out, in, ...].
    fan_in = shape[0] if key.endswith("proj") or key == "text_projection" else shape[1:]
    return normal * np.float32(np.prod(fan_in) ** -0.5)


def pixels(name: str) -> np.ndarray:
    """The input of a network, [2, S, S, 3]."""
    size = NETWORKS[name][0]["image_size"]
    return draw(f"input {name}", (2, size, size, 3))


def _layers(model, vision: dict) -> dict:
    """{path of the variables here: PyTorch module}."""
    found = {f"text/block_{i}": b for i, b in enumerate(model.transformer.resblocks)}
    found["text/norm"] = model.ln_final
    if isinstance(vision["layers"], int):
        visual = model.visual
        found |= {f"visual/block_{i}": b for i, b in enumerate(visual.transformer.resblocks)}
        return found | {"visual/patch_embedding": visual.conv1, "visual/norm_pre": visual.ln_pre}
    stages = [getattr(model.visual, f"layer{k}") for k in range(1, 5)]
    blocks = [block for stage in stages for block in stage]
    return found | {f"visual/block_{i}": block for i, block in enumerate(blocks)}


def main() -> None:
    """Runs open_clip on every network and writes the file."""
    import open_clip
    import torch
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    arrays = {
        "tokens": open_clip.tokenize(list(TEXTS)).numpy().astype(np.int32),
        "hard_texts": np.array(HARD_TEXTS),
        "hard_tokens": open_clip.tokenize(list(HARD_TEXTS)).numpy().astype(np.int32),
        "foreign_texts": np.array(FOREIGN_TEXTS),
        "foreign_tokens": open_clip.tokenize(list(FOREIGN_TEXTS)).numpy().astype(np.int32),
    }
    for name, (vision, quick_gelu) in NETWORKS.items():
        model = CLIP(EMBED, CLIPVisionCfg(**vision), CLIPTextCfg(**TEXT), quick_gelu=quick_gelu)
        state = {
            k: torch.from_numpy(draw(k, tuple(v.shape))) for k, v in model.state_dict().items()
        }
        model.load_state_dict(state)
        model.eval()
        shapes = [f"{k} {' '.join(map(str, v.shape))}".strip() for k, v in state.items()]
        arrays[f"{name}/shapes"] = np.array(shapes)

        def keep(path, name=name):
            def hook(module, inputs, output):
                del module, inputs
                y = output.numpy()
                if y.ndim == 4:
                    y = y.transpose(0, 2, 3, 1)
                # The end tokens alone of the text tower: the others are as many and alike.
                arrays[f"{name}/{path}"] = y[:, :12] if path.startswith("text") else y

            return hook

        for path, module in _layers(model, vision).items():
            module.register_forward_hook(keep(path))
        with torch.no_grad():
            images = torch.from_numpy(pixels(name).transpose(0, 3, 1, 2).copy())
            tokens = torch.from_numpy(arrays["tokens"]).long()
            arrays[f"{name}/image"] = model.encode_image(images).numpy()
            arrays[f"{name}/text"] = model.encode_text(tokens).numpy()
            cosines = torch.nn.functional.normalize(model.encode_image(images), dim=-1)
            texts = torch.nn.functional.normalize(model.encode_text(tokens), dim=-1)
            arrays[f"{name}/logits"] = (model.logit_scale.exp() * cosines @ texts.T).numpy()
    np.savez_compressed(OUTPUTS, **arrays)
    print(f"wrote {OUTPUTS}, {OUTPUTS.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
