"""Whether a run that is resumed is the one that was begun: its config and its weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_collections
from flax.traverse_util import flatten_dict, unflatten_dict

from interestyle_jax.config.presets import default_config
from interestyle_jax.errors import InputError
from interestyle_jax.json_file import read_json

CHANGEABLE = (
    *("num_steps", "checkpoint_every", "log_every", "image_every", "keep_latest"),
    "storage_dtype",
    "remat",
    "method.loop",
    "generator.form",
)
# What lies in weight folders is compared by content (`check_same_weights`), wherever they lie.
CHANGEABLE_GROUPS = ("mesh", "data", "weights")


# Names that fields had in runs of earlier versions.
RENAMED = {
    "picture_every": "image_every",
    "picture_shape": "image_shape",
    "generator.up_form": "generator.form",
}


def _as_saved(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """A config as `config.json` gives it back, flat."""
    return flatten_dict(json.loads(config.to_json()), sep=".")


def _defaults(task: str, preset: str) -> ml_collections.ConfigDict:
    try:
        return default_config(task, preset)
    except ValueError as error:
        raise InputError(str(error)) from error


def _may_change(name: str, config: Mapping[str, Any]) -> bool:
    # A learning rate that falls towards the last step depends on which one that is.
    if name == "num_steps" and config.get("optimizer.schedule", "constant") != "constant":
        return False
    return name in CHANGEABLE or name.split(".")[0] in CHANGEABLE_GROUPS


def read_saved_config(workdir: Path) -> dict[str, Any] | None:
    """What `config.json` of a run's directory holds; None where there is none.

    Raises:
      InputError: it is damaged.
    """
    path = Path(workdir) / "config.json"
    try:
        saved = read_json(path)
    except FileNotFoundError:
        return None
    if not isinstance(saved, dict):
        raise InputError(f"{path}: holds {type(saved).__name__}, expected a config's fields")
    flat = flatten_dict(saved, sep=".", keep_empty_nodes=True)
    return unflatten_dict({RENAMED.get(name, name): v for name, v in flat.items()}, sep=".")


def with_older_fields(
    config: ml_collections.ConfigDict, workdir: Path
) -> tuple[ml_collections.ConfigDict, list[str]]:
    """The config for a run that may have been begun before some of its fields existed.

    Args:
      config: the run's config.
      workdir: the run's directory, new or not.

    Returns:
      The config, with the defaults of fields that the run's own config does not have, and a line
      for each that says so.

    Raises:
      InputError: `config.json` in the directory is not JSON, or an unknown preset.
    """
    saved = read_saved_config(workdir)
    if saved is None:
        return config, []
    defaults = _defaults(config.task, config.preset)
    before, now, known = flatten_dict(saved, sep="."), _as_saved(config), _as_saved(defaults)
    config, notices = config.copy_and_resolve_references(), []
    for name in sorted(now.keys() & known.keys() - before.keys()):
        if _may_change(name, now):
            continue
        instead = "" if now[name] == known[name] else f", not with {now[name]!r}"
        notices.append(
            f"config.{name}: {workdir} was begun before this field existed; continuing with its "
            f"default {known[name]!r}{instead}"
        )
        *groups, field = name.split(".")
        section, source = config, defaults
        for group in groups:
            section, source = section[group], source[group]
        section[field] = source[field]
    return config, notices


def check_same_run(saved: dict[str, Any], config: dict[str, Any], workdir: str | Path) -> None:
    """Raises InputError where a resumed run's config is another run's; names the first field.

    A field that the run was begun without counts as its default (`with_older_fields`).
    """
    before, now = flatten_dict(saved, sep="."), flatten_dict(config, sep=".")
    defaults = _as_saved(_defaults(config["task"], config["preset"]))
    for name in sorted(before.keys() | now.keys()):
        was = before[name] if name in before else defaults.get(name)
        if not _may_change(name, now) and was != now.get(name):
            raise InputError(
                f"config.{name}: {workdir} was begun with {was!r}, now it is {now.get(name)!r}; "
                "give another --workdir or the old value"
            )


def check_same_weights(
    meta: Mapping[str, Any],
    digests: Mapping[str, str],
    config: Mapping[str, Any],
    *,
    step: int,
    workdir: str | Path,
) -> None:
    """Raises InputError where the weights are not those that a checkpoint was written with.

    Args:
      meta: the checkpoint's facts: "weights", {field: digest}, and "config". Checkpoints of earlier
        versions have no digests of this kind; there the names decide.
      digests: of what was read, {field of `config.weights`: digest}.
      config: the run's config.
      step: the checkpoint's.
      workdir: the run's directory.
    """
    given = config.get("weights", {})
    before = meta.get("weights")
    now = digests
    if before is None:
        before, now = meta["config"].get("weights", {}), given
    for field in sorted(before.keys() | now.keys()):
        if (before.get(field) or "") != (now.get(field) or ""):
            raise InputError(
                f"config.weights.{field}: {given.get(field, '')!r} is not what {workdir} was "
                f"trained with until step {step}; give the old weights or another --workdir"
            )


def other_devices(
    meta: Mapping[str, Any], config: Mapping[str, Any], num_devices: int
) -> list[str]:
    """A line where BatchNorm's rows are others than before the checkpoint.

    Args:
      meta: the checkpoint's facts; older ones do not say on how many devices it was written.
      config: the run's config.
      num_devices: of the run as it goes on.
    """
    before = meta.get("num_devices", num_devices)
    if config.get("batch_norm") != "local" or before == num_devices:
        return []
    return [
        f"config.batch_norm: local, over the rows of each of {before} devices until this "
        f"checkpoint and of {num_devices} from here on"
    ]
