"""Config files: `configs/demo.py:smoke` and `--config.field=value` overrides."""

import difflib
import importlib.util
import os
import traceback
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import config_dict, config_flags

from interestyle_jax.config.presets import set_preset
from interestyle_jax.errors import InputError, is_machine_failure, reason
from interestyle_jax.one_line import one_line

# Inside the package in a wheel, beside it in the repository.
_CONFIGS = [Path(__file__).parents[n] / "configs" for n in (1, 2)]


def read_config(path: str, *, overrides: Sequence[str] = ()) -> config_dict.ConfigDict:
    """The config of a file, with fields changed from the command line.

    Args:
      path: a Python file with `get_config([argument])`, or the name of one that ships with the
        package; the argument after a colon ("configs/demo.py:smoke", "demo:smoke").
      overrides: "--config.field=value" or "--config.field", "value"; nested fields with dots.
        Values take the field's type (numbers, booleans, strings, tuples). A preset is set before
        all others, with the method that belongs to it.

    Returns:
      A locked ConfigDict.

    Raises:
      InputError: the file is missing or broken, a field is unknown (says which are close), or a
        value has the wrong type.
    """
    config = load_config(path)
    overrides = list(overrides)
    _check_fields(config, overrides)
    preset = _preset(overrides)
    if preset is not None:
        try:
            set_preset(config, preset)
        except ValueError as error:
            raise InputError(str(error)) from error
    values = flags.FlagValues()
    arguments = ["interestyle", *overrides]
    holder = config_flags.DEFINE_config_dict(
        "config", config, flag_values=values, sys_argv=arguments
    )
    try:
        rest = values(arguments)[1:]
    except (flags.Error, TypeError, ValueError) as error:
        raise InputError(f"{path}: {one_line(str(error))}") from error
    if rest:
        raise InputError(f"unexpected argument {rest[0]!r}; overrides are --config.field=value")
    _expand_home(holder.value)
    return holder.value.lock()


def _expand_home(config: config_dict.ConfigDict) -> None:
    """Texts that begin with "~" are paths: the home folder takes its place."""
    for key, value in config.items():
        if isinstance(value, config_dict.ConfigDict):
            _expand_home(value)
        elif isinstance(value, str) and value.startswith("~"):
            config[key] = os.path.expanduser(value)


def load_config(path: str) -> config_dict.ConfigDict:
    """What `get_config` of the file returns, before any override.

    Raises:
      InputError: as `read_config`, for the file.
    """
    name, colon, argument = path.partition(":")
    file = _find(name)
    spec = importlib.util.spec_from_file_location(f"interestyle_config_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise InputError(f"{name}: expected a Python file with get_config()")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    # The file is the user's program: it may fail in any way.
    except Exception as error:
        raise _broken(name, file, error) from error
    if not hasattr(module, "get_config"):
        raise InputError(f"{name}: expected a function get_config()")
    try:
        config = module.get_config(argument) if colon else module.get_config()
    except InputError:
        raise
    except ValueError as error:
        message = one_line(str(error))
        raise InputError(message if name in message else f"{path}: {message}") from error
    except Exception as error:
        raise _broken(name, file, error) from error
    if not isinstance(config, config_dict.ConfigDict):
        raise InputError(
            f"{name}: get_config() returned {type(config).__name__}, expected a ConfigDict"
        )
    return config


def field_names(config: config_dict.ConfigDict, *, prefix: str = "") -> list[str]:
    """Dotted names of every field, sections included ("data", "data.dir", ...)."""
    names = []
    for key in config:
        names.append(prefix + key)
        if isinstance(config[key], config_dict.ConfigDict):
            names += field_names(config[key], prefix=f"{prefix}{key}.")
    return names


def shipped_configs() -> dict[str, Path]:
    """Name -> file of the configs that ship with the package, "demo" and the paper's runs."""
    folder = next((d for d in _CONFIGS if d.is_dir()), _CONFIGS[0])
    return {file.stem: file for file in sorted(folder.glob("*.py"))}


def _find(name: str) -> Path:
    """The file at the path `name`, or the shipped config of that name."""
    if Path(name).is_file():
        return Path(name)
    shipped = shipped_configs()
    if name not in shipped:
        raise InputError(
            f"{name}: config file not found; expected a path, or the name of a shipped config: "
            + ", ".join(shipped)
        )
    return shipped[name]


def _broken(name: str, file: Path, error: Exception) -> Exception:
    """InputError with the last line of the file that took part, or the machine's own failure."""
    if is_machine_failure(error):
        return error
    line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else None
    for frame in traceback.extract_tb(error.__traceback__):
        if Path(frame.filename) == file:
            line = frame.lineno
    text = error.msg if isinstance(error, SyntaxError) else reason(error)
    kind = "" if isinstance(error, SyntaxError | InputError) else f"{type(error).__name__}: "
    where = name if line is None else f"{name}: line {line}"
    return InputError(one_line(f"{where}: {kind}{text}"))


def _preset(overrides: Sequence[str]) -> str | None:
    """The last "--config.preset" among the overrides."""
    found = None
    for i, argument in enumerate(overrides):
        name, equals, value = argument.lstrip("-").partition("=")
        if name == "config.preset":
            found = value if equals else "".join(overrides[i + 1 : i + 2])
    return found


def _check_fields(config: config_dict.ConfigDict, overrides: Sequence[str]) -> None:
    """Raises InputError for the first override that names no field."""
    known = field_names(config)
    for argument in overrides:
        if not argument.lstrip("-").startswith(("config.", "noconfig.")):
            if argument.startswith("--"):
                raise InputError(f"unknown argument {argument}; overrides are --config.field=value")
            continue
        flag = argument.lstrip("-").partition("=")[0]
        field = flag.removeprefix("no").removeprefix("config.")
        if field in known:
            continue
        close = close_fields(field, known)
        hint = (
            f"close: {', '.join(f'config.{c}' for c in close)}"
            if close
            else (f"fields: {', '.join(sorted(n for n in known if '.' not in n))}")
        )
        raise InputError(f"unknown config field config.{field}; {hint}")


def close_fields(field: str, known: Sequence[str]) -> list[str]:
    """Up to four known names like `field`: by the whole name, or by its last part alone."""
    last = field.rpartition(".")[2]
    by_last = difflib.get_close_matches(last, [k.rpartition(".")[2] for k in known], n=4)
    same_last = [k for part in by_last for k in known if k.rpartition(".")[2] == part]
    whole = difflib.get_close_matches(field, known, n=4)
    return list(dict.fromkeys([*whole, *same_last]))[:4]
