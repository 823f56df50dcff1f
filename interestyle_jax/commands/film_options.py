"""Options of commands that take a film in place of images."""

import argparse
from collections.abc import Mapping
from typing import Any

from interestyle_jax.commands.job_options import take
from interestyle_jax.commands.options import natural
from interestyle_jax.errors import InputError


def add_film_options(parser: argparse.ArgumentParser) -> None:
    """What `invert` and `edit` say of films."""
    films = parser.add_argument_group("films")
    films.add_argument(
        "--smooth-quads",
        type=float,
        metavar="FACTOR",
        help="on the smoothing of faces' squares over time (default 1; 0: as found)",
    )
    films.add_argument(
        "--smooth-latents",
        type=float,
        metavar="FRAMES",
        help="standard deviation of the smoothing of latents (default 1; 0: none)",
    )
    films.add_argument(
        "--share-rows",
        metavar="ROWS",
        help="rows of w_plus that a scene's frames share: fine, A-B,C or none (default none)",
    )
    films.add_argument(
        "--max-gap",
        type=float,
        metavar="SECONDS",
        help="without a face, that are bridged (default 0.5); in longer gaps frames stay",
    )
    films.add_argument(
        "--tune-passes",
        type=natural,
        metavar="N",
        help="tune one generator on all frames, N times each (default 0: not)",
    )
    films.add_argument("--tune-rate", type=float, metavar="RATE", help="of Adam (default 3e-4)")


def take_film(arguments: dict[str, Any]) -> dict[str, Any] | None:
    """`smoothing` and `tuning` of a film that is the source, None for images; taken away.

    Raises:
      InputError: these options without a film, or rows that are none.
    """
    from interestyle_jax.video.films import is_film

    given = take(arguments, ("smooth_quads", "smooth_latents", "share_rows", "max_gap"))
    tuning = take(arguments, ("tune_passes", "tune_rate"))
    if "source" not in arguments or not is_film(arguments["source"]):
        if given or tuning:
            name = min({**given, **tuning}).replace("_", "-")
            raise InputError(f"--{name}: goes with a film as --input")
        return None
    from interestyle_jax.editing.bands import parse_rows
    from interestyle_jax.jobs.film_smoothing import Smoothing
    from interestyle_jax.jobs.film_tuning import Tuning

    rows = given.pop("share_rows", "none")
    named = {"fine": None, "none": ()}
    shared = named[rows] if rows in named else parse_rows(rows)
    fields = {name.removeprefix("smooth_"): value for name, value in given.items()}
    return {
        "smoothing": Smoothing(**fields, shared_rows=shared),
        "tuning": Tuning(**{name.removeprefix("tune_"): x for name, x in tuning.items()}),
    }


def print_films(report: Mapping[str, Any]) -> int:
    """Prints what became of a film; returns 0."""
    kept = report["num_frames"] - report["num_images"]
    print(
        f"{', '.join(report['films'])}: {report['num_frames']} frames, {kept} of them as they "
        f"were, in {report['seconds']:.1f} s"
    )
    return 0
