"""How commands end: the user's errors with 2, the machine's with 1, in one line."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from interestyle_jax import cli
from interestyle_jax.commands import invert
from interestyle_jax.errors import InputError, MachineError, file_error, is_machine_failure
from interestyle_jax.exit_status import run_command, status_of

ROOT = Path(__file__).resolve().parents[1]
USERS = ("ENOENT", "ENOTDIR", "EISDIR", "EACCES", "EPERM", "EEXIST", "EROFS", "ENAMETOOLONG")
MACHINES = ("EIO", "ENOSPC", "EDQUOT", "ESTALE", "ETIMEDOUT", "ENOMEM", "EMFILE", "EAGAIN")
# As TensorStore 0.1.86, array_record 0.8 and XLA word them.
TENSORSTORE = (
    'RESOURCE_EXHAUSTED: Error writing "a/0" in OCDBT database at local file "/x/": Failed writing:'
    " \"/x/d/41\": Failed to write 9 bytes to file 14: {} [os_error_code='{}']"
)
XLA = "RESOURCE_EXHAUSTED: Out of memory allocating 4294967296 bytes."


def system_error(name: str, path: str | None = "/data/a.png") -> OSError:
    number = getattr(errno, name)
    return OSError(number, os.strerror(number), path)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        *((system_error(name), 2) for name in USERS),
        *((system_error(name), 1) for name in MACHINES),
        (InputError("config.seed: expected a whole number"), 2),
        # What a file says is no failure of the machine, whatever its words.
        (InputError("a.pt: the archive would run out of memory"), 2),
        # PIL and transformers raise OSError without a number about a file's content.
        (OSError("image file is truncated"), 2),
        (MachineError("a full disk"), 1),
        (MemoryError(), 1),
        (FloatingPointError("loss is nan"), 1),
        (jax.errors.JaxRuntimeError(XLA), 1),
        (ValueError(TENSORSTORE.format("No space left on device", errno.ENOSPC)), 1),
        (ValueError("ArrayRecordWriter::Close() failed: write() failed: File too large"), 1),
        # Faults of the program: their tracebacks are wanted.
        (ValueError("shapes do not match"), None),
        (jax.errors.JaxRuntimeError("INVALID_ARGUMENT: shapes do not match"), None),
        (KeyError("no space left"), None),
    ],
    ids=lambda value: value if isinstance(value, int | None) else repr(value)[:50],
)
def test_status_of_an_error(error, status):
    assert status_of(error) == status
    assert is_machine_failure(error) == (status == 1 and not isinstance(error, FloatingPointError))


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (system_error("ENOSPC"), MachineError, "a.png: cannot be written: No space left on device"),
        (system_error("EACCES"), InputError, "a.png: cannot be written: Permission denied"),
        (MemoryError(), MachineError, "a.png: cannot be written: out of memory"),
        (
            ValueError(TENSORSTORE.format("Input/output error", errno.EIO)),
            MachineError,
            "a.png: cannot be written: Input/output error",
        ),
        (ValueError("bad\nsecond line"), InputError, "a.png: cannot be written: bad"),
    ],
)
def test_error_of_a_file(error, kind, message):
    made = file_error(error, "a.png: cannot be written")
    assert (type(made), str(made)) == (kind, message)


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (system_error("ENOENT"), 2, "/data/a.png: No such file or directory"),
        (system_error("EIO"), 1, "/data/a.png: Input/output error"),
        (system_error("ENOSPC", None), 1, "No space left on device"),
        (MemoryError("Unable to allocate 4 TiB"), 1, "out of memory: Unable to allocate 4 TiB"),
        (jax.errors.JaxRuntimeError(XLA + "\nbuffers"), 1, XLA),
        (InputError("config.seed:\nwrong"), 2, "config.seed: wrong"),
    ],
)
def test_command_ends_in_one_line(monkeypatch, capsys, error, status, line):
    def fail(args):
        raise error

    monkeypatch.setattr(invert, "run", fail)
    argv = ["invert", "--weights=a", "--input=b", "--out=c"]
    assert cli.main(argv) == status
    assert capsys.readouterr().err == f"interestyle: error: {line}\n"
    # On demand with what led there, and the line at the end as before.
    monkeypatch.setenv("INTERESTYLE_DEBUG", "1")
    assert cli.main(argv) == status
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback") and "in fail" in shown
    assert shown.endswith(f"\ninterestyle: error: {line}\n")
    monkeypatch.setenv("INTERESTYLE_DEBUG", "0")
    assert cli.main(argv) == status
    assert "Traceback" not in capsys.readouterr().err


def test_fault_of_the_program_keeps_its_traceback():
    with pytest.raises(KeyError):
        run_command(lambda: {}["a"], program="x")


def test_converter_shows_the_traceback_on_demand(tmp_path, monkeypatch, capsys):
    from tools.convert_weights.__main__ import main

    argv = [str(tmp_path / "none.pt"), str(tmp_path / "out")]
    assert main(argv) == 2
    line = f"interestyle: error: {tmp_path}/none.pt: no such file\n"
    assert capsys.readouterr().err == line
    monkeypatch.setenv("INTERESTYLE_DEBUG", "1")
    assert main(argv) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback") and shown.endswith("\n" + line)


def python(*words, **options):
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *map(str, words)],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )


def test_full_disk_behind_stdout_is_one_line():
    code = (
        "import sys; from interestyle_jax.exit_status import run_command\n"
        "sys.exit(run_command(lambda: print('done'), program='interestyle'))"
    )
    with open("/dev/full", "w") as full:
        done = python("-c", code, stdout=full)
    assert done.returncode == 1
    assert done.stderr == "interestyle: error: No space left on device\n"


def test_full_disk_in_a_real_command_is_one_line(tmp_path):
    """The limit on a file's size stands for the full disk: the same failed write."""
    code = (
        "import resource, sys; from interestyle_jax import cli\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    out = tmp_path / "set"
    sizes = ("--size=32", "--train=4", "--validation=1", "--test=1", "--workers=0")
    done = python("-c", code, "data", "avatars", f"--out={out}", *sizes, stdout=subprocess.DEVNULL)
    assert done.returncode == 1, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("interestyle: error: ") and "File too large" in last
    assert "Traceback" not in done.stderr and not out.exists()
