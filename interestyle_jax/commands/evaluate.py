"""The command `interestyle evaluate`; `jobs.evaluations` does the work."""

import argparse
import shlex

from interestyle_jax.commands import job_options
from interestyle_jax.commands.options import count


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the sub-parsers `commands`."""
    parser = commands.add_parser(
        "evaluate",
        help="measure encoders on a data set",
        description="Measures distortion, leakage and latent variance of one or more encoders.",
    )
    parser.add_argument(
        "--weights", required=True, action="append", metavar="NAME_OR_DIR", help="repeatable"
    )
    name = "an encoder's name in the results, one for each --weights"
    parser.add_argument("--name", dest="names", action="append", metavar="NAME", help=name)
    parser.add_argument("--data", required=True, metavar="NAME_OR_DIR")
    parser.add_argument("--split", default="test", help="split of the data set (default test)")
    parser.add_argument("--num-samples", type=count, help="first images only (default all)")
    job_options.add_model_options(parser, per_device=16)
    parser.add_argument("--lpips", default="lpips_alex", metavar="NAME_OR_DIR")
    parser.add_argument(
        "--identity", metavar="DIR", help="embedder of the ID similarity (CurricularFace)"
    )
    parser.add_argument(
        "--face-detector",
        metavar="DIR",
        help='MTCNN weights, needed with --identity; "none" compares whole images',
    )
    parser.add_argument(
        "--fid-weights",
        metavar="DIR",
        help="Inception-v3 (or a CLIP) for FID and KID; mode lpips has its own",
    )
    parser.add_argument(
        "--fid-mode",
        default="clean",
        choices=("pytorch-fid", "clean", "nvidia", "clip", "lpips"),
        help="which FID: they do not compare (default clean)",
    )
    parser.add_argument(
        "--fid-statistics", metavar="FILE", help="real images of an earlier fid_statistics.npz"
    )
    parser.add_argument(
        "--edit",
        dest="edits",
        action="append",
        default=[],
        metavar="NAME_OR_FILE[:STRENGTH]",
        help="FID of inversions edited along this direction (repeatable: one after the other)",
    )
    parser.add_argument(
        "--edit-statistics",
        metavar="FILE",
        help="real images that have what --edit gives, an earlier fid_statistics.npz "
        "(default: all images)",
    )
    job_options.add_other_generator(parser)
    parser.add_argument(
        "--parser",
        metavar="NAME",
        help="finds faces for the boundary error: selfie, segformer, graphonomy=DIR, or weights "
        "that read avatars (avatar_attributes)",
    )
    job_options.add_run_options(parser, run)


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns 0. Raises InputError on bad input."""
    from interestyle_jax.jobs.evaluations import evaluate

    metrics = evaluate(**job_options.arguments_of(args))

    def done() -> str:
        written = f"written to {shlex.quote(str(args.out))}: metrics.json, table.md, figures/"
        return (args.out / "table.md").read_text(encoding="utf-8") + "\n" + written

    return job_options.print_result(args.out, metrics, "measured", done=done)
