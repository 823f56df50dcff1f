"""`.safetensors` files: flat names, which may begin with a checkpoint's section."""

from pathlib import Path
from typing import Any

from interestyle_jax.errors import InputError, file_error
from interestyle_jax.json_file import parse_json

# The file's own header: its length in 8 bytes, then JSON.
LENGTH_BYTES = 8
# What nested checkpoints have at the top; "g_ema.style.1.weight" is {"g_ema": {"style.1.weight"}}.
SECTIONS = ("state_dict", "discriminator_state_dict", "g_ema", "G_ema", "g", "d")
# How the package words a file that ends too early.
CUT_OFF = ("incomplete metadata", "invalid header length", "header too small")
# The metadata entry that holds a checkpoint's options as JSON.
OPTIONS = "opts"


def starts_one(start: bytes, size: int) -> bool:
    """Whether a file of `size` bytes with this beginning is of the format, cut off or not."""
    length = int.from_bytes(start[:LENGTH_BYTES], "little")
    return start[LENGTH_BYTES : LENGTH_BYTES + 1] == b"{" and 2 <= length < max(size, 1 << 27)


def read(path: Path) -> dict[str, Any]:
    """The file's tensors by name, below their section where names begin with one, and its options.

    Raises:
      InputError: cut off or foreign, a type that NumPy lacks, metadata that is no JSON, or the
        package safetensors is not installed.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise InputError(
            f"{path}: reading it needs safetensors, install the extra: "
            "pip install 'interestyle-jax[convert]'"
        ) from error
    content: dict[str, Any] = {}
    name = ""
    try:
        with safe_open(path, framework="numpy") as file:
            options = (file.metadata() or {}).get(OPTIONS)
            for name in file.keys():  # noqa: SIM118 - the file is no mapping
                section, _, rest = name.partition(".")
                inside = content.setdefault(section, {}) if section in SECTIONS else content
                inside[rest if section in SECTIONS else name] = file.get_tensor(name)
    except (AttributeError, TypeError) as error:
        raise InputError(f"{path}: {name} is of a type that NumPy lacks") from error
    except (SafetensorError, OSError, ValueError) as error:
        if any(words in str(error) for words in CUT_OFF):
            raise InputError(f"{path}: is cut off, copy or download it again") from error
        raise file_error(error, f"{path}: not a readable safetensors file") from error
    if options is not None:
        try:
            content[OPTIONS] = parse_json(options)
        except ValueError as error:
            raise InputError(f"{path}: metadata {OPTIONS} is no JSON: {error}") from error
    return content
