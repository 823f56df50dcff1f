"""The command `interestyle plan`; `planning` does the work."""

import argparse
import json
import sys
from pathlib import Path


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the sub-parsers `commands`."""
    parser = commands.add_parser(
        "plan",
        help="what a run needs on a machine that is not here",
        description="Compiles the real programs of a run by the target's own compiler, without a "
        "device, weights or data, and prints what memory, work and collectives they take; "
        "--config.field=value changes a field.",
    )
    parser.add_argument("--config", required=True, metavar="FILE[:ARG]", help="as `train` takes it")
    parser.add_argument(
        "--target",
        required=True,
        help="a TPU slice (v5e:4x4, v4:2x2x1, v5p:..., v6e:...), GPUs (h100x8, a100x4), or cpu",
    )
    parser.add_argument(
        "--command", default="train", choices=("train", "invert", "evaluate"), dest="what"
    )
    parser.add_argument(
        "--generator",
        action="append",
        default=[],
        metavar="FIELD=N",
        help="a field of a generator whose weights are not here, such as resolution=256 (default: "
        "the official 1024 one's)",
    )
    parser.add_argument(
        "--largest-batch", action="store_true", help="also find the largest batch that fits"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns 0. Raises InputError on bad input."""
    from interestyle_jax.config.files import read_config
    from interestyle_jax.errors import InputError
    from interestyle_jax.json_file import write_json
    from interestyle_jax.planning.plan import make_plan, markdown
    from interestyle_jax.planning.targets import keep_to_processor, parse_target

    target = parse_target(args.target)
    keep_to_processor(target)
    config = read_config(args.config, overrides=args.overrides)
    generator = {}
    for text in args.generator:
        field, equals, value = text.partition("=")
        if not (field and equals and value.isdigit()):
            raise InputError(f"--generator: {text!r}, expected FIELD=N such as resolution=256")
        generator[field] = json.loads(value)
    plan = make_plan(
        config,
        target,
        command=args.what,
        generator=generator,
        largest_batch=args.largest_batch,
        tell=lambda line: print(line, file=sys.stderr, flush=True),
    )
    if args.json is not None:
        write_json(args.json, plan)
    print(markdown(plan), end="")
    return 0
