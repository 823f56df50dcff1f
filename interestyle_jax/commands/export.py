"""The command `interestyle export`; `export.files` does the work."""

import argparse

from interestyle_jax.commands.options import count, given_options

# As `interestyle_jax.export.files` has them, which takes seconds to import.
FORMATS = ("stablehlo", "onnx")
WHATS = ("invert", "synthesize", "encode", "edit")


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the sub-parsers `commands`."""
    parser = commands.add_parser(
        "export",
        help="write a model as one file that runs without this package",
        description="Writes what a model does as one file, StableHLO or ONNX, with its weights "
        "inside, and compares the file's results with the model's.",
    )
    parser.add_argument("--weights", required=True, metavar="NAME_OR_DIR")
    parser.add_argument("--out", required=True, metavar="FILE", help="file to write")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="stablehlo",
        help="stablehlo (default): for jax.export, on CPU, CUDA and TPU; onnx: for onnxruntime",
    )
    parser.add_argument(
        "--what",
        choices=WHATS,
        default="invert",
        help="which method of the model (default invert, all iterations)",
    )
    parser.add_argument(
        "--batch",
        type=_batch,
        metavar="dynamic|N",
        help="images at once: any number (dynamic, the default), or N",
    )
    steps = "iterations of invert (default 5)"
    parser.add_argument("--steps", dest="num_iterations", type=count, metavar="N", help=steps)
    parser.add_argument(
        "--direction",
        dest="directions",
        action="append",
        default=[],
        metavar="NAME_OR_FILE",
        help="of edit, several times for several; strengths are an input of the file",
    )
    parser.add_argument(
        "--onnx-python",
        metavar="PYTHON",
        help="interpreter of an environment that has jax2onnx (default: this one)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns 0. Raises InputError on bad input."""
    from interestyle_jax.export.files import export_weights

    report = export_weights(**given_options(args))
    inputs = ", ".join(f"{name} {shape}" for name, shape in report["inputs"].items())
    relative = ", ".join(f"{k} {v:.1e}" for k, v in report["relative_difference"].items())
    print(f"{args.out}: {report['format']}, {report['bytes']} bytes, input {inputs}")
    print(f"largest difference to the model, of the largest value: {relative}")
    return 0


def _batch(text: str) -> int | None:
    """A whole number from 1, or None for "dynamic"; for argparse."""
    return None if text == "dynamic" else count(text)
