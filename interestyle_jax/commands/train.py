"""The command `interestyle train`: what a config file says, in one process or several."""

import argparse

from interestyle_jax.commands.options import count


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the sub-parsers `commands`."""
    parser = commands.add_parser(
        "train",
        help="train an encoder or a generator",
        description="Trains what a config file says; --config.field=value changes a field.",
    )
    parser.add_argument(
        "--config",
        required=True,
        metavar="FILE[:ARG]",
        help="a config file, or the name of a shipped one, e.g. configs/demo.py:smoke, demo:smoke",
    )
    parser.add_argument(
        "--workdir", required=True, metavar="DIR", help="folder of the run, or gs://BUCKET/FOLDER"
    )
    several = parser.add_argument_group(
        "several processes",
        "Each runs this command on its own devices. Under SLURM, Open MPI and on TPU pods they "
        "find each other; elsewhere say how, here or by JAX_COORDINATOR_ADDRESS, "
        "JAX_NUM_PROCESSES and JAX_PROCESS_ID.",
    )
    several.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 listens")
    several.add_argument("--num-processes", type=count, metavar="N")
    several.add_argument("--process-id", type=int, metavar="I", help="from 0")
    several.add_argument(
        "--distributed", choices=("auto", "off"), default="auto", help="off: do not look for others"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns 0. Raises InputError on bad input."""
    from absl import flags

    from interestyle_jax.config.files import read_config

    # Before JAX is imported: a wrong field is reported at once.
    config = read_config(args.config, overrides=args.overrides)
    from interestyle_jax.parallel.processes import Address, connected, find_address, is_first
    from interestyle_jax.training.train_loop import train

    # Grain's worker processes read absl flags, which only absl.app would parse.
    flags.FLAGS.mark_as_parsed()
    given = Address(args.coordinator, args.num_processes, args.process_id)
    with connected(find_address(given, detect=args.distributed == "auto")):
        report = train(config, args.workdir, command=args.argv)
        first = is_first()
    if not first:
        return 0
    print(f"{args.workdir}: {report['status']} at step {report['last_step']}")
    return 0
