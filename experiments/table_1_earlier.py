"""Results of an earlier call of `experiments.table_1`, joined with those of other seeds.

Trainings of all rows take hours on two cores. What one call has measured is in its metrics.json, so
that another one, without its runs, adds seeds or methods to it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interestyle_jax.errors import InputError
from interestyle_jax.json_file import read_json

# Of the setting: what all seeds of a table share.
SHARED = ("steps", "batch_size", "overrides", "trained", "generator", "num_samples")


def read_earlier(path: Path, setting: Mapping[str, Any]) -> dict[str, Any]:
    """Reads an earlier call's metrics.json.

    Args:
      path: its file, or the folder that holds it.
      setting: of this call: "seeds" and SHARED.

    Raises:
      InputError: no such file, another setting, or a seed that both have.
    """
    file = path / "metrics.json" if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"--earlier: {file} is no file")
    earlier = read_json(file)
    if not isinstance(earlier, dict) or "measured" not in earlier:
        raise InputError(f"--earlier: {file} is no metrics.json of experiments.table_1")
    for name in SHARED:
        before, now = earlier["setting"].get(name), setting[name]
        if before != now:
            raise InputError(f"--earlier: {file} has {name} {before!r}, this call {now!r}")
    both = sorted({*earlier["setting"]["seeds"]} & {*setting["seeds"]})
    if both:
        raise InputError(f"--earlier: {file} has seed {both[0]} already, expected others")
    return earlier


def join(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """One call's results after another's.

    Args:
      earlier: from `read_earlier`.
      now: {"measured": {row: entries}, "mean_latent", "interest_masks", "setting"}.

    Returns:
      The same of both: a trained row has the entries of the earlier seeds and then its own, other
      rows those of this call, or else the earlier one's. "setting" is this call's, with all seeds,
      the facts of all methods, and "calls", the earlier commands.
    """
    before, setting = earlier["setting"], now["setting"]
    measured = {**earlier["measured"], **now["measured"]}
    for row in setting["trained"]:
        measured[row] = [*earlier["measured"][row], *now["measured"][row]]
    facts = ("command", "seeds", "git_commit", "versions")
    return {
        "measured": measured,
        "mean_latent": dict(now["mean_latent"]),
        "interest_masks": {**earlier["interest_masks"], **now["interest_masks"]},
        "setting": {
            **setting,
            "seeds": [*before["seeds"], *setting["seeds"]],
            "methods": {**before["methods"], **setting["methods"]},
            "calls": [*before["calls"], {name: before[name] for name in facts}],
        },
    }
