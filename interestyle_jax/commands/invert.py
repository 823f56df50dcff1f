"""The command `interestyle invert`; `jobs.inversions` does the work."""

import argparse

from interestyle_jax.commands import job_options
from interestyle_jax.commands.film_options import add_film_options, print_films, take_film
from interestyle_jax.commands.optimisation_options import add_optimisation_options, take_method
from interestyle_jax.commands.photo_options import add_photo_options, take_alignment
from interestyle_jax.errors import InputError


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the sub-parsers `commands`."""
    parser = commands.add_parser(
        "invert",
        help="invert images into latents",
        description="Inverts an image, a folder of images or a film, by an encoder or by "
        "optimisation; no mask is needed.",
    )
    parser.add_argument("--weights", required=True, metavar="NAME_OR_DIR")
    parser.add_argument("--input", dest="source", required=True, metavar="IMAGE_DIR_OR_FILM")
    job_options.add_model_options(parser, per_device=8)
    add_optimisation_options(parser)
    add_photo_options(parser, result="the inversion")
    add_film_options(parser)
    job_options.add_run_options(parser, run)


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns 0. Raises InputError on bad input."""
    from interestyle_jax.jobs.inversions import invert_files

    arguments = job_options.arguments_of(args)
    arguments["alignment"] = take_alignment(arguments)
    method, film = take_method(arguments), take_film(arguments)
    if film is not None:
        from interestyle_jax.jobs.films import invert_film

        if method:
            raise InputError("--method: inverts images, a film is inverted by its encoder")
        return print_films(invert_film(**film, **arguments))
    if not method:
        return job_options.print_result(args.out, invert_files(**arguments), "inverted")
    from interestyle_jax.jobs.optimisations import optimise_files

    if args.num_iterations is not None:
        raise InputError("--steps: iterations of an encoder; of --method it is --num-steps")
    return job_options.print_result(args.out, optimise_files(**arguments, **method), "inverted")
