r"""How far exported files, and the model itself, are from the same network in float64.

    python -m experiments.export_errors --avatars=16 --out=docs/results/export \
        --onnx-python=onnx-env/bin/python
    python -m experiments.export_errors --random=256 --what=synthesize --out=errors

One random input, of "invert" also `--avatars=B`, goes through the model (float32), its StableHLO
and its ONNX file, and through the same functions in float64, which is what all of them mean.
`--random=R` takes the official networks (IR-SE50 and StyleGAN2's config f) for R pixels with random
weights. Differences are the largest, of the largest value. Writes `DIR/errors.json` and
`DIR/errors.md`. On the CPU; no ONNX without --onnx-python.
"""

import argparse
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from experiments.device_programs import random_variables
from experiments.report_files import write_report
from interestyle_jax.commands.options import Parser, add_out_option, count, words
from interestyle_jax.data.avatars.world import sample
from interestyle_jax.data.pixels import to_float
from interestyle_jax.errors import InputError
from interestyle_jax.exit_status import run_command
from interestyle_jax.export.model_program import model_results, recipe_of, sample_inputs
from interestyle_jax.export.onnx import to_onnx
from interestyle_jax.export.program import Recipe, build
from interestyle_jax.export.stablehlo import run_stablehlo, to_stablehlo
from interestyle_jax.inversion.inverter import Model, load
from interestyle_jax.library_versions import library_versions
from interestyle_jax.models import registry

WHATS = ("encode", "synthesize", "invert")
# The official encoder sees 256 pixels, whatever the generator draws.
LARGEST_INPUT = 256
Results = Mapping[str, Float[np.ndarray, "..."]]


def random_model(resolution: int, **encoder: Any) -> Model:
    """The official networks with random weights.

    Args:
      resolution: of the generator; the encoder sees at most 256 pixels.
      encoder: fields of the encoder's architecture other than the official.
    """
    generator = registry.build({"type": "Generator", "resolution": resolution})
    fields = {
        "type": "BackboneEncoder",
        "input_size": min(resolution, LARGEST_INPUT),
        "input_channels": 6,
        "num_styles": generator.num_styles,
        "w_dim": generator.w_dim,
    }
    module = registry.build(fields | encoder)
    variables = {
        "generator": random_variables(generator),
        "encoder": random_variables(module),
        "w_avg": np.random.default_rng(1).standard_normal(generator.w_dim, np.float32),
    }
    parts = {"generator": generator, "encoder": module}
    architectures = {name: registry.describe(part) for name, part in parts.items()}
    metadata = {"architectures": architectures, "extra": {}, "licence": "none"}
    return Model(jax.device_put(variables), metadata, Path("random"))


def float64_results(
    recipe: Recipe, variables: Mapping[str, Any], values: Sequence[Float[np.ndarray, "B ..."]]
) -> dict[str, np.ndarray]:
    """What a program's function gives in float64; arguments as of `program.build`.

    Raises:
      InputError: some of it is computed in a narrower type.
    """
    # The first image is an input of the program, and was drawn in float32.
    given = {name: x for name, x in variables.items() if name != "image_0"}

    def run(variables, *values):
        return build(recipe, variables).function(*values)

    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: np.asarray(x, np.float64), (given, list(values)))
        results = jax.device_get(jax.jit(run)(wide[0], *wide[1]))
    narrow = [name for name, x in results.items() if x.dtype != np.float64]
    if narrow:
        raise InputError(f"{recipe.what}: {', '.join(narrow)} is not computed in float64")
    return results


def difference(found: Float[np.ndarray, "..."], expected: Float[np.ndarray, "..."]) -> float:
    """The largest difference, of the largest expected value."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def measure(
    model: Model,
    what: str,
    *,
    num_iterations: int | None = None,
    onnx_python: str | None = None,
    images: Float[np.ndarray, "B H W 3"] | None = None,
) -> list[dict[str, Any]]:
    """Errors of one program on one batch.

    Args:
      model: in float32.
      what: of `program.WHATS`, without directions.
      num_iterations: of "invert".
      onnx_python: an interpreter that has jax2onnx, or None for no ONNX.
      images: what "invert" is given, of the encoder's input size, in [-1, 1]; None: a random one.

    Returns:
      Of each output {"what", "output", "largest", "model", "stablehlo", "onnx": errors to float64,
      "onnx_to_model", "model_by_iteration"}, which are None where they were not measured.
    """
    recipe, variables = recipe_of(model, what, num_iterations)
    if what == "invert" and images is not None:
        values = [images]
    else:
        values = sample_inputs(model, what, 1, directions=())
    batch = len(values[0])
    results: dict[str, Results] = {
        "model": model_results(model, what, values, num_iterations, directions=()),
        "stablehlo": run_stablehlo(to_stablehlo(build(recipe, variables), batch), values),
    }
    if onnx_python is not None:
        with tempfile.TemporaryDirectory() as folder:
            results["onnx"] = to_onnx(
                *(Path(folder), recipe, variables, values),
                batch=batch,
                metadata={},
                python=onnx_python,
            )
    exact = float64_results(recipe, variables, values)
    rows = []
    for name, expected in exact.items():
        row: dict[str, Any] = {"what": what, "output": name, "largest": np.abs(expected).max()}
        row |= {key: difference(found[name], expected) for key, found in results.items()}
        row["onnx_to_model"] = None
        if "onnx" in results:
            row["onnx_to_model"] = difference(results["onnx"][name], results["model"][name])
        pairs = zip(results["model"][name], expected, strict=True)
        by_iteration = [difference(a, b) for a, b in pairs] if what == "invert" else None
        rows.append(row | {"model_by_iteration": by_iteration})
    return rows


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line an output."""
    lines = [
        "| program | output | model | StableHLO | ONNX | ONNX to the model |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        errors = (row.get(key) for key in ("model", "stablehlo", "onnx", "onnx_to_model"))
        cells = ("" if error is None else f"{error:.1e}" for error in errors)
        lines.append(f"| {row['what']} | `{row['output']}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--weights", default="avatar_interestyle", metavar="NAME_OR_DIR")
    source.add_argument("--random", type=count, metavar="R", help="official networks, of R pixels")
    parser.add_argument("--what", type=words, default=WHATS, help=f"default {','.join(WHATS)}")
    parser.add_argument("--steps", type=count, metavar="N", help="iterations of invert")
    parser.add_argument(
        "--avatars",
        type=count,
        metavar="B",
        help="invert the first test avatars, not a random image",
    )
    parser.add_argument("--onnx-python", metavar="PATH", help="an interpreter that has jax2onnx")
    add_out_option(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    return run_command(lambda: _run(parse(argv), argv), program="export_errors")


def _run(args: argparse.Namespace, argv: Sequence[str]) -> int:
    model = load(args.weights) if args.random is None else random_model(args.random)
    images = None
    if args.avatars is not None:
        size = model.input_shape[0]
        drawn = [sample(i, split="test", size=size)["image"] for i in range(args.avatars)]
        images = to_float(np.stack(drawn))
    rows = []
    for what in args.what:
        steps = args.steps if what == "invert" else None
        options = {"num_iterations": steps, "onnx_python": args.onnx_python}
        rows += measure(model, what, images=images, **options)
    report = {
        "command": shlex.join(["python", "-m", "experiments.export_errors", *argv]),
        "rows": rows,
        "versions": library_versions(),
    }
    write_report(args.out, report, markdown(rows), figures="errors.json", table="errors.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
