"""Whole inputs of every kind the commands read, at tiny size, and the command lines that read them.

All lies in one folder, and the command lines name it relatively.
"""

import dataclasses
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

import interestyle_jax as ij
from interestyle_jax.data.avatar_builder import write_avatars
from interestyle_jax.data.images import SUFFIXES
from interestyle_jax.editing.directions import Direction, save_direction
from interestyle_jax.editing.style_space import num_channels
from interestyle_jax.models.embedders import FaceEmbedder
from interestyle_jax.weights import save_weights
from tests.robustness.command import run_command

CONFIG = """from interestyle_jax.config.presets import encoder_config


def get_config(argument=""):
    config = encoder_config("interestyle")
    config.data.dir = "set"
    config.weights.generator = "weights/generator"
    config.weights.lpips = ""
    config.encoder.type = "BackboneEncoder"
    config.encoder.update(input_size=32, units=(1, 1))
    config.encoder.update(widths=(4, 4, 8), head_width=8)
    config.method.num_iterations = 1
    config.method.filter_radii = ()
    config.method.disentangle_weight = 0.0
    config.method.dilation_radius = 0
    config.loss = {"l2": 1.0}
    config.batch_size = 8
    config.num_steps = 2
    config.checkpoint_every = 1
    config.image_every = 2
    config.log_every = 1
    config.validation_samples = 8
    return config
"""


@dataclasses.dataclass(frozen=True)
class Input:
    """One kind of input: what can be damaged, and the commands that read it.

    Attributes:
      files: patterns, below the folder, of the files that one may damage.
      commands: command lines; `OUT` stands for the output.
      needs: other folders and files that they read.
      share: how often it is drawn.
      networks: whether a training sets up its own networks, or `stand_ins.ColourTask`.
    """

    files: tuple[str, ...]
    commands: tuple[str, ...]
    needs: tuple[str, ...] = ()
    share: int = 1
    networks: bool = False


INVERT = "invert --weights=weights/inverter --steps=1 --input={} --out={}"
EVALUATE = "evaluate --weights=weights/inverter --steps=1 --batch-size=4 --out=OUT --data={}"
DATA = "data --images=images --masks={} --size=16 --workers=0 --max-skipped=0.5 --out=OUT"
TRAIN = "train --config=config.py {} --workdir={}"
EDIT = "edit --weights=weights/inverter --latents={} --strength=1 --out=OUT --direction={}"
TEXT = "--text=hair --neutral=beard --clip=weights/clip --channels=weights/channels"
MIX = "mix --weights=weights/inverter --styles=coarse --out=OUT --latents={}"
INPUTS = {
    "image": Input(
        ("images/*",),
        (INVERT.format("images", "OUT"), INVERT.format("images", "OUT --max-skipped=0.5"))
        + (INVERT.format("images/FILE", "OUT"),) * 2
        + (EVALUATE.format("images"), DATA.format("none")),
        ("weights/inverter",),
        share=6,
    ),
    "mask": Input(
        ("masks/*",),
        (DATA.format("masks"), "masks --provider=folder --images=images --masks=masks --out=OUT"),
        ("images",),
        share=2,
    ),
    "weights": Input(
        ("weights/inverter/**/*",),
        (
            INVERT.format("images", "OUT"),
            "convert --to=pytorch weights/inverter OUT",
            "evaluate --weights=weights/inverter --out=OUT --data=images --steps=1",
        ),
        ("images",),
        share=4,
    ),
    "frozen weights": Input(
        ("weights/generator/**/*",),
        ("train --config.num_steps=0 --config=config.py --workdir=OUT",),
        ("config.py", "set"),
        networks=True,
    ),
    "checkpoint": Input(("checkpoints/*",), ("convert checkpoints/FILE OUT",), share=6),
    "data set": Input(
        ("set/*",),
        (EVALUATE.format("set"), EVALUATE.format("set") + " --split=validation")
        + ("data --verify=set", TRAIN.format("", "OUT")),
        ("weights", "config.py"),
        share=4,
    ),
    "run": Input(
        ("run/config.json", "run/metrics.jsonl", "run/report.json", "run/checkpoints/**/*"),
        (TRAIN.format("", "run"), TRAIN.format("--config.num_steps=3", "run")),
        ("weights/generator", "config.py", "set"),
        share=2,
    ),
    "job": Input(
        ("inverted/*",),
        (INVERT.format("images", "inverted"),),
        ("images", "weights/inverter"),
        share=2,
    ),
    "direction": Input(
        ("directions/*",),
        (
            EDIT.format("inverted", "directions/FILE"),
            EDIT.format("inverted", "directions/FILE:2 --direction=channel:1,2"),
        ),
        ("weights/inverter", "inverted"),
        share=2,
    ),
    "latents": Input(
        ("inverted/latents.npz",),
        (EDIT.format("inverted", "channel:1,2"), MIX.format("inverted/latents.npz")),
        ("weights/inverter",),
    ),
    "config": Input(
        ("config.py",),
        (TRAIN.format("--config.num_steps=0", "OUT"),),
        ("weights/generator", "set"),
        share=2,
        networks=True,
    ),
    "text": Input(
        ("weights/clip/**/*", "weights/channels/**/*"),
        (f"{EDIT.format('inverted', 'channel:1,2')} {TEXT}",),
        ("weights/inverter", "inverted"),
    ),
}


CHECKPOINTS = (
    *("interestyle.pt", "interestyle_old.pth", "stylegan2.pt", "stylegan2.pkl", "stylegan2_ada.pt"),
    *("ada.pkl", "arcface.pth", "arcface.safetensors", "direction.npy", "direction.pt"),
    "clip.pt",
)


def make_inputs(folder: Path, tiny_weights: Path) -> None:
    """Writes everything that INPUTS names."""
    for name in ("inverter", "generator"):
        shutil.copytree(tiny_weights / name, folder / "weights" / name)
    rng = np.random.default_rng(0)
    _write_images(rng, folder / "images", folder / "masks")
    sizes = {"train": 8, "validation": 8, "test": 4}
    write_avatars(folder / "set", sizes=sizes, size=32, seed=0, workers=0)
    (folder / "config.py").write_text(CONFIG)
    outcome = run_command(["train", "--config=config.py", "--workdir=run"], folder, seconds=300)
    assert outcome.status == 0, outcome.stderr
    invert = INVERT.format("images", "inverted").split()
    outcome = run_command(invert, folder, seconds=300)
    assert outcome.status == 0, outcome.stderr
    _write_checkpoints(rng, folder)
    _write_directions(rng, folder / "directions")
    _write_text_networks(rng, folder / "weights")
    shutil.rmtree(folder / "tmp")


def _write_directions(rng: np.random.Generator, folder: Path) -> None:
    """Our format, and those of others."""
    import torch

    folder.mkdir()
    array = rng.normal(size=16).astype(np.float32)
    options: dict[str, Any] = {"rows": (0, 3), "default_range": (-2.0, 2.0), "origin": array}
    save_direction(folder / "own.npz", Direction("own", "w", array, **options))
    np.save(folder / "plain.npy", np.tile(array, (8, 1)))
    torch.save(torch.from_numpy(array[None]), folder / "official.pt")
    (folder / "channels.csv").write_text("1,2\n0,3,-0.5\n")
    (folder / "channels.json").write_text("[[1, 2], [0, 3, -0.5]]")


def _write_text_networks(rng: np.random.Generator, folder: Path) -> None:
    """A CLIP, and what the channels of the inverter's generator do to it."""
    from tests.editing.test_styleclip import NETWORK, drawn

    drawn(NETWORK, "clip", folder / "clip")
    layers = ij.load(folder / "inverter").style_layers
    effects = rng.normal(size=(num_channels(layers, with_rgb=False), NETWORK.embed_dim))
    effects /= np.linalg.norm(effects, axis=1, keepdims=True)
    ones = {f"layer_{i}": np.ones(x.channels, np.float32) for i, x in enumerate(layers)}
    save_weights(
        folder / "channels",
        {"fs3": effects.astype(np.float32), "s_mean": ones, "s_std": ones},
        family="styleclip_global",
        architectures={},
        licence="none",
    )


def _write_images(rng: np.random.Generator, folder: Path, masks: Path) -> None:
    """An image of every format read, and forms of PNG and TIFF, each with its mask."""
    folder.mkdir()
    masks.mkdir()
    pixels = rng.integers(0, 256, (24, 20, 3), np.uint8)
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x011A] = 72.0
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "words " * 100, zip=True)
    for suffix in SUFFIXES:
        image.save(folder / f"plain_{suffix[1:]}{suffix}")
    image.save(folder / "turned.jpg", exif=exif)
    image.save(folder / "progressive.jpg", progressive=True)
    image.save(folder / "text.png", pnginfo=text, exif=exif)
    image.convert("P").save(folder / "palette.png", transparency=0)
    image.convert("RGBA").save(folder / "alpha.webp", lossless=True)
    image.save(folder / "packed.tiff", compression="tiff_lzw")
    Image.fromarray(rng.integers(0, 65536, (24, 20), np.uint16)).save(folder / "deep.png")
    for path in folder.iterdir():
        height, width = (20, 24) if path.stem in ("turned", "text") else (24, 20)
        mask = np.zeros((height, width), np.uint8)
        mask[4:16, 4:16] = 255
        Image.fromarray(mask).save(masks / f"{path.stem}.png")


def _write_checkpoints(rng: np.random.Generator, folder: Path) -> None:
    """Official files of several families, in every format that the converter reads."""
    import torch
    from safetensors.numpy import save_file

    from tests.tools.test_convert_clip import OPENAI, scripted, tiny_states
    from tests.tools.test_convert_networks import TINY, face_arrays

    out = folder / "checkpoints"
    out.mkdir()
    for weights, family in (
        ("inverter", "interestyle"),
        ("generator", "stylegan2"),
        ("generator", "stylegan2_ada"),
    ):
        file = f"checkpoints/{family}.pt"
        argv = ["convert", "--to=pytorch", f"--family={family}", f"weights/{weights}", file]
        outcome = run_command(argv, folder, seconds=300)
        assert outcome.status == 0, outcome.stderr
    inverter = torch.load(out / "interestyle.pt", weights_only=True)
    torch.save(inverter, out / "interestyle_old.pth", _use_new_zipfile_serialization=False)
    generator = torch.load(out / "stylegan2.pt", weights_only=True)
    arrays = {k: v.numpy() for k, v in generator["g_ema"].items()}
    arrays = {"g_ema": arrays, "latent_avg": generator["latent_avg"].numpy()}
    (out / "stylegan2.pkl").write_bytes(pickle.dumps(arrays, protocol=3))
    (out / "ada.pkl").write_bytes(_ada_pickle(rng))
    embedder = {k: np.array(v, order="C") for k, v in face_arrays(FaceEmbedder(**TINY)).items()}
    torch.save({k: torch.from_numpy(v) for k, v in embedder.items()}, out / "arcface.pth")
    save_file(embedder, out / "arcface.safetensors")
    direction = rng.normal(size=(1, 16)).astype(np.float32)
    np.save(out / "direction.npy", direction)
    torch.save(torch.from_numpy(direction), out / "direction.pt")
    scripted(tiny_states()["vit_quick"], out / "clip.pt", **OPENAI)
    assert {path.name for path in out.iterdir()} == set(CHECKPOINTS)


def _ada_pickle(rng: np.random.Generator) -> bytes:
    """NVIDIA's layout, of classes that pickle as theirs do."""
    from tests.tools.test_convert_stylegan2_ada import make_generator, publish_names

    with pytest.MonkeyPatch.context() as patch:
        publish_names(patch)
        return pickle.dumps({"G_ema": make_generator(rng)[0]}, protocol=4)
