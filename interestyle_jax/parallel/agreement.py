"""Whether all processes of a run read the same config, data and weights."""

import collections
import json
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from flax.traverse_util import flatten_dict

from interestyle_jax.errors import InputError
from interestyle_jax.parallel import processes

# Hosts may keep these in places of their own, and what lies there is compared by its digest.
OWN_FIELDS = ("data.dir", "data.workers", "weights.")


def check_same_config(config: Mapping[str, Any]) -> None:
    """Compares the config's fields between processes; all must ask, before anything else.

    Args:
      config: nested dicts of what JSON can hold. Paths of data and weights may differ.

    Raises:
      InputError: on every process, naming the field and those processes whose value is their own.
    """
    fields = {
        k: v for k, v in flatten_dict(config, sep=".").items() if not k.startswith(OWN_FIELDS)
    }
    _check("config.{}", fields)


def check_same_content(digests: Mapping[str, str]) -> None:
    """Compares what processes read: {field that names it: digest}; all must ask.

    Raises:
      InputError: on every process, naming the field and those processes that read something else.
    """
    _check("the content of {}", digests)


def _check(what: str, values: Mapping[str, Any]) -> None:
    gathered = processes.gather([socket.gethostname(), dict(values)])
    hosts, readings = zip(*gathered, strict=True)
    difference = find_difference(readings, hosts)
    if difference is not None:
        name, which = difference
        raise InputError(f"{what.format(name)} differs between processes: {which}")


def find_difference(
    readings: Sequence[Mapping[str, Any]], hosts: Sequence[str]
) -> tuple[str, str] | None:
    """The first name, by the alphabet, under which processes hold different values.

    Args:
      readings: of each process, {name: value that JSON can hold}.
      hosts: of each process, the machine's name.

    Returns:
      (name, sentence about the processes that differ from most, or from the first of equally many),
      or None where all are the same.
    """
    for name in sorted(set().union(*readings)):
        values = [json.dumps(reading.get(name), sort_keys=True) for reading in readings]
        # Counter keeps the order in which values came among those of equal number.
        usual = collections.Counter(values).most_common(1)[0][0]
        others = [
            f"process {process} (host {hosts[process]}) has {value}"
            for process, value in enumerate(values)
            if value != usual
        ]
        if others:
            first = values.index(usual)
            return name, f"{', '.join(others)}; process {first} (host {hosts[first]}) has {usual}"
    return None
