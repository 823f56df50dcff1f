"""Options of `invert` that invert by optimisation."""

import argparse
from typing import Any

from interestyle_jax.commands.job_options import take
from interestyle_jax.commands.options import count
from interestyle_jax.errors import InputError

_NAMES = (
    *(
        "method",
        "start",
        "interest",
        "interest_weights",
        "split",
        "num_steps",
        "learning_rate",
        "rows",
    ),
    *("locality", "noise", "lpips", "identity", "tuned_dtype"),
)


def add_optimisation_options(parser: argparse.ArgumentParser) -> None:
    """What `invert` says of optimisation."""
    group = parser.add_argument_group("by optimisation, in place of the encoder")
    group.add_argument(
        "--method",
        metavar="PRESET",
        help="projector-w, projector-w-plus, image2stylegan, image2stylegan-plus-plus, idinvert, "
        "ii2s, pti or hybrid",
    )
    group.add_argument(
        "--start", metavar="FILE_OR_NAME", help="mean, encoder, or latents.npz (default by method)"
    )
    group.add_argument(
        "--interest",
        metavar="DIR_OR_PROVIDER",
        help="interest masks that all image terms are limited to: a folder, a mask provider, or "
        "dataset for the field of a data set",
    )
    group.add_argument(
        "--interest-weights", metavar="NAME_OR_DIR", help="the provider's weights or model"
    )
    group.add_argument("--split", help="of a data set as --input (default test)")
    group.add_argument("--num-steps", type=count, metavar="N", help="of the first phase")
    group.add_argument("--learning-rate", type=float, metavar="RATE", help="of the first phase")
    group.add_argument("--rows", metavar="A-B,C", help="rows of w_plus that move (default all)")
    group.add_argument(
        "--no-locality",
        dest="locality",
        action="store_const",
        const=False,
        help="pti without its locality term",
    )
    group.add_argument(
        "--no-noise",
        dest="noise",
        action="store_const",
        const=False,
        help="leave the generator's noise maps as they are",
    )
    group.add_argument(
        "--lpips",
        action="append",
        metavar="NAME_OR_DIR",
        help="weights of LPIPS, family lpips_vgg where the method looks through VGG16 (repeatable)",
    )
    group.add_argument(
        "--identity", metavar="NAME_OR_DIR", help="face embedder, for the identity term of hybrid"
    )
    group.add_argument(
        "--tuned-dtype",
        choices=("float16", "float32"),
        help="of the generators' differences (default float16)",
    )


def take_method(arguments: dict[str, Any]) -> dict[str, Any]:
    """The options above that were given, {} without --method; the arguments of a job lose them.

    Raises:
      InputError: some without --method.
    """
    given = take(arguments, _NAMES)
    if given and "method" not in given:
        raise InputError(f"--{min(given).replace('_', '-')}: needs --method")
    if "rows" in given:
        from interestyle_jax.editing.bands import parse_rows

        given["rows"] = parse_rows(given["rows"])
    return given
