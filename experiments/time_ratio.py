r"""The encoder's time against Image2StyleGAN's at 1,000 steps, in one process (the paper: > 200 x).

    python -m experiments.time_ratio --data=data/avatars --out=runs/time_ratio \
        --vgg=weights/lpips_vgg

Times one batch of images in both, on the same device, compilation left out, and writes
`timing.json`. `--run-steps=50` runs only so many steps and extrapolates the rest: the loop's time
is linear in its steps, a part that does not grow with them (the start, the last image) is measured
apart, and the file and the printed line say that it was extrapolated.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.paper_figures import read_avatars
from interestyle_jax.commands.options import Parser, add_out_option, count
from interestyle_jax.exit_status import run_command
from interestyle_jax.inversion.inverter import Model, load
from interestyle_jax.inversion.optimisation.optimiser import Optimiser
from interestyle_jax.inversion.optimisation.recipes import make_recipe
from interestyle_jax.inversion.optimisation.terms import Target
from interestyle_jax.json_file import read_json, write_json
from interestyle_jax.library_versions import library_versions
from interestyle_jax.output_folder import output_folder
from interestyle_jax.training.run_directory import git_commit

NUM_STEPS, NUM_IMAGES = 1000, 8
# Of the encoder, before and after the optimisation; their median is its time.
NUM_CALLS = 5


def time_methods(
    model: Model,
    images: np.ndarray,
    *,
    vgg: str,
    num_steps: int,
    run_steps: int | None = None,
    num_calls: int = NUM_CALLS,
) -> dict[str, Any]:
    """Seconds an image of the encoder and of Image2StyleGAN, on one batch in one process.

    Both are compiled before, and both end with the drawn image. Calls of the encoder are timed
    before and after the optimisation, as the machine may have other work.

    Args:
      model: with an encoder.
      images: [B, H, W, 3] in [-1, 1], of the encoder's and the generator's size.
      vgg: weights of LPIPS on VGG16.
      num_steps: of Image2StyleGAN.
      run_steps: how many of them are run, at least 2; None or as many as `num_steps`: all. With
        fewer, time is a + b n of n steps, through the times of one step and of `run_steps`.
      num_calls: of the encoder, before and after.
    """
    run_steps = num_steps if run_steps is None else min(run_steps, num_steps)
    target = [Target(jnp.asarray(images))]
    size = len(images)

    def optimiser(steps: int) -> Optimiser:
        return Optimiser(model, make_recipe("image2stylegan", num_steps=steps), lpips=[vgg])

    def optimise(run: Optimiser) -> float:
        begun = time.perf_counter()
        jax.block_until_ready(run(jax.random.key(0), target).images)
        return (time.perf_counter() - begun) / size

    def encode() -> float:
        begun = time.perf_counter()
        jax.block_until_ready(model.invert(images, return_images="last"))
        return (time.perf_counter() - begun) / size

    one, all_steps = optimiser(1), optimiser(run_steps)
    encode()
    optimise(one)
    encoder = [encode() for _ in range(num_calls)]
    ran = optimise(all_steps)
    seconds = ran
    if run_steps < num_steps:
        first = optimise(one)
        seconds = first + (ran - first) / (run_steps - 1) * (num_steps - 1)
    encoder += [encode() for _ in range(num_calls)]
    median = float(np.median(encoder))
    return {
        "encoder": {"seconds_per_image": median, "calls": encoder},
        "image2stylegan": {
            "seconds_per_image": seconds,
            "num_steps": num_steps,
            "run_steps": run_steps,
            "run_seconds_per_image": ran,
            "extrapolated": run_steps < num_steps,
        },
        "ratio": seconds / median,
        "batch_size": size,
        "device": jax.devices()[0].device_kind,
    }


def sentence(timed: Mapping[str, Any]) -> str:
    """What `time_methods` found, in words."""
    encoder, method = timed["encoder"], timed["image2stylegan"]
    how = f", extrapolated from {method['run_steps']} steps" if method["extrapolated"] else ""
    return (
        f"Time: Image2StyleGAN at {method['num_steps']} steps takes "
        f"{method['seconds_per_image']:.3g} s an image{how}, the encoder "
        f"{encoder['seconds_per_image']:.3g} s: {timed['ratio']:.0f} × (the paper: more than "
        f"200 ×). One batch of {timed['batch_size']} in one process on {timed['device']}."
    )


def timing(
    out: Path,
    *,
    data: str | Path,
    weights: str,
    vgg: str,
    num_steps: int = NUM_STEPS,
    num_images: int = NUM_IMAGES,
    run_steps: int | None = None,
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """`time_methods` on the first avatars, kept in `out`/timing.json: it is not measured again.

    Args:
      out: folder.
      data: avatar data set.
      weights: encoder and generator.
      vgg, num_steps, run_steps: as in `time_methods`.
      num_images: of the batch.
      command: the command line, for the file.
    """
    path = out / "timing.json"
    options = {
        "weights": weights,
        "num_steps": num_steps,
        "run_steps": run_steps,
        "batch_size": num_images,
    }
    if path.is_file() and read_json(path).get("options") == options:
        return read_json(path)
    model = load(weights)
    avatars = read_avatars(Path(data), num_images, num_images)
    found = time_methods(model, avatars["image"], vgg=vgg, num_steps=num_steps, run_steps=run_steps)
    with output_folder(out) as folder:
        facts = {"git_commit": git_commit(), "versions": library_versions()}
        write_json(
            folder / "timing.json", {**found, **facts, "options": options, "command": list(command)}
        )
    return read_json(path)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments."""
    parser = Parser(
        prog="time_ratio", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, metavar="DIR", help="avatar data set")
    add_out_option(parser)
    parser.add_argument("--weights", default="avatar_interestyle", help="encoder and generator")
    parser.add_argument("--vgg", required=True, metavar="DIR", help="LPIPS on VGG16")
    parser.add_argument(
        "--num-steps", type=count, default=NUM_STEPS, help=f"of Image2StyleGAN ({NUM_STEPS})"
    )
    parser.add_argument(
        "--run-steps", type=count, help="of these, the others extrapolated (default: all are run)"
    )
    parser.add_argument(
        "--num-images", type=count, default=NUM_IMAGES, help=f"of the batch ({NUM_IMAGES})"
    )
    args = parser.parse_args(argv)
    if args.run_steps == 1 < args.num_steps:
        parser.error("--run-steps=1: expected at least 2, to know the time of one more")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the script; returns 0, 2 or 1 (`exit_status`)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    return run_command(lambda: _run(argv), program="time_ratio")


def _run(argv: Sequence[str]) -> None:
    args = parse(argv)
    command = ["python", "-m", "experiments.time_ratio", *argv]
    found = timing(
        args.out,
        data=args.data,
        weights=args.weights,
        vgg=args.vgg,
        num_steps=args.num_steps,
        num_images=args.num_images,
        run_steps=args.run_steps,
        command=command,
    )
    print(sentence(found))
    print(f"written to {shlex.quote(str(args.out))}: timing.json")


if __name__ == "__main__":
    sys.exit(main())
