r"""An inversion's time by the official PyTorch code and by ours, in turns on this machine.

    git clone https://github.com/yuval-alaluf/restyle-encoder
    python -m experiments.pytorch_time --official=restyle-encoder --out=runs/pytorch_time

Both have the published architecture at 1024 (IR-SE50 encoder, six input channels, StyleGAN2) with
random weights, float32 and N iterations, and both draw the image of every iteration; PyTorch runs
eagerly, in a process of its own with as many threads as there are cores. Each round times one batch
of either; a round's ratio is of two neighbours in time, so that other work on the machine meets
both. Processor time beside wall time says how many cores ours used. Needs PyTorch.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.benchmark_step import matmul_flops_per_second
from experiments.export_errors import random_model
from interestyle_jax.commands.options import Parser, add_out_option, count
from interestyle_jax.errors import InputError
from interestyle_jax.exit_status import run_command
from interestyle_jax.inversion.inverter import Model
from interestyle_jax.json_file import write_json
from interestyle_jax.library_versions import library_versions
from interestyle_jax.output_folder import output_folder
from interestyle_jax.training.run_directory import git_commit

SCRIPT = Path(__file__).with_name("official_process.py")
# Pixels, of the official code.
ENCODER_INPUT = 256
NEEDED = ("models/psp.py", "utils/inference_utils.py")


class OfficialProcess:
    """The official code, ready to invert a batch when told; a context manager."""

    def __init__(self, folder: Path, *, resolution: int, batch: int, iterations: int) -> None:
        """Starts it; arguments as of `time_both`.

        Raises:
          InputError: no checkout, or it does not start.
        """
        missing = [name for name in NEEDED if not (folder / name).is_file()]
        if missing:
            raise InputError(
                f"{folder}: no {missing[0]}; expected a checkout of yuval-alaluf/restyle-encoder"
            )
        numbers = (resolution, batch, iterations, os.cpu_count() or 1)
        self._process = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder), *map(str, numbers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if self._read() != "ready":
            self.close()
            raise InputError(f"{folder}: the official code did not start; see the lines above")

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def seconds(self) -> float:
        """Of one batch.

        Raises:
          InputError: the process ended.
        """
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answer = self._read()
        if not answer:
            raise InputError("the official code ended; see the lines above")
        return float(answer)

    def __enter__(self) -> "OfficialProcess":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends it."""
        self._process.kill()
        # Reads what is left, closes the pipes, waits.
        self._process.communicate()


def time_both(
    official: Path, model: Model, *, resolution: int, batch: int, iterations: int, rounds: int
) -> dict[str, Any]:
    """Seconds of a batch, of either in turns; compilation and a first batch are left out.

    Args:
      official: checkout of the official code.
      model: ours.
      resolution: of the official generator, at least 256, which its encoder sees.
      batch: images.
      iterations: N.
      rounds: batches of either.

    Returns:
      {"official", "ours": seconds of each round, "ours_processor": of all threads, "ratio": the
      median of the rounds' ratios, "ratios", "matmul_gflops": a 1024 product's rate before and
      after}.

    Raises:
      InputError: the official code is not there or does not run.
    """
    shape = (batch, *model.input_shape, 3)
    images = np.random.default_rng(0).uniform(-1.0, 1.0, shape).astype(np.float32)

    def ours() -> tuple[float, float]:
        begun, processor = time.perf_counter(), time.process_time()
        result = model.invert(images, num_steps=iterations, return_images="all")
        jax.block_until_ready(result)
        return time.perf_counter() - begun, time.process_time() - processor

    sizes = {"resolution": resolution, "batch": batch, "iterations": iterations}
    with OfficialProcess(official, **sizes) as process:
        rates = [matmul_flops_per_second()]
        process.seconds()
        ours()
        theirs, mine = [], []
        for _ in range(rounds):
            theirs.append(process.seconds())
            mine.append(ours())
        rates.append(matmul_flops_per_second())
    seconds, processor = map(list, zip(*mine, strict=True))
    ratios = [a / b for a, b in zip(theirs, seconds, strict=True)]
    return {
        **sizes,
        "official": theirs,
        "ours": seconds,
        "ours_processor": processor,
        "ratios": ratios,
        "ratio": float(np.median(ratios)),
        "matmul_gflops": [rate / 1e9 for rate in rates],
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }


def sentence(timed: dict[str, Any]) -> str:
    """What `time_both` found, in words."""
    official, ours = np.median(timed["official"]), np.median(timed["ours"])
    return (
        f"{timed['batch']} image(s) at {timed['resolution']}, N = {timed['iterations']}, float32, "
        f"{timed['cores']} cores: official PyTorch code {official:.2f} s, ours {ours:.2f} s, ratio "
        f"{timed['ratio']:.2f} ({min(timed['ratios']):.2f} to {max(timed['ratios']):.2f} in "
        f"{len(timed['ratios'])} rounds)."
    )


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments."""
    parser = Parser(
        prog="pytorch_time",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--official", type=Path, required=True, metavar="DIR", help="checkout of the official code"
    )
    add_out_option(parser)
    parser.add_argument(
        "--resolution", type=count, default=1024, help="of the generator, at least 256 (1024)"
    )
    parser.add_argument("--batch-size", type=count, default=1, help="images at once (1)")
    parser.add_argument("--num-iterations", type=count, default=5, help="N (5)")
    parser.add_argument("--rounds", type=count, default=5, help="batches of either (5)")
    args = parser.parse_args(argv)
    if args.resolution < ENCODER_INPUT:
        parser.error(f"--resolution={args.resolution}: expected at least {ENCODER_INPUT}")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the script; returns 0, 2 or 1 (`exit_status`)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    return run_command(lambda: _run(argv), program="pytorch_time")


def _run(argv: Sequence[str]) -> None:
    args = parse(argv)
    timed = time_both(
        args.official,
        random_model(args.resolution),
        resolution=args.resolution,
        batch=args.batch_size,
        iterations=args.num_iterations,
        rounds=args.rounds,
    )
    with output_folder(args.out) as folder:
        command = ["python", "-m", "experiments.pytorch_time", *argv]
        facts = {"git_commit": git_commit(), "versions": library_versions(), "command": command}
        write_json(folder / "timing.json", {**timed, **facts})
    print(sentence(timed))


if __name__ == "__main__":
    sys.exit(main())
