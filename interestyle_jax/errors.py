"""The errors that users see in one line: bad input, and a machine that failed."""

import errno
import os
import re

# What a wrong path or a wrong permission gives. Any other number is the machine's.
USER_ERRNOS = frozenset(
    {
        *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY),
        *(errno.EACCES, errno.EPERM, errno.EROFS),
        *(errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.EILSEQ),
        *(errno.ENXIO, errno.ENODEV),
    }
)
# How libraries word a failure that they raise as another error: TensorStore and array_record name
# the number or the system's words, XLA and PyTorch have their own.
_OS_ERROR = re.compile(r"os[_ ]error(?:_code)?\W{1,2}(\d+)", re.IGNORECASE)
_FAILURES = (
    *(os.strerror(n).lower() for n in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)),
    *(os.strerror(n).lower() for n in (errno.ENOMEM, errno.EMFILE, errno.ESTALE)),
    *("resource_exhausted", "out of memory", "can't allocate memory", "disk quota"),
)
_LONGEST = 300


class InputError(ValueError):
    """Bad input: the message names the file or field, what was wrong and what was expected.

    The command line prints it on stderr and exits with status 2.
    """


class MachineError(RuntimeError):
    """The machine failed, not the input: a full disk, an I/O error, no memory.

    The command line prints it on stderr and exits with status 1, after which launchers try again.
    """


def is_machine_failure(error: BaseException) -> bool:
    """Whether the machine failed, and not the user: the same call may go well another time."""
    if isinstance(error, InputError):
        return False
    if isinstance(error, MachineError | MemoryError):
        return True
    number = _errno(error)
    if number is not None:
        return number not in USER_ERRNOS
    if isinstance(error, OSError | RuntimeError | ValueError) and any(
        words in str(error).lower() for words in _FAILURES
    ):
        return True
    return error.__cause__ is not None and is_machine_failure(error.__cause__)


def file_error(error: Exception, message: str) -> InputError | MachineError:
    """What to raise where `error` ended the work on a file: "`message`: reason", of the right kind.

    Args:
      error: what the system or a library raised.
      message: the file and what could not be done, e.g. "a.png: cannot be written".
    """
    kind = MachineError if is_machine_failure(error) else InputError
    return kind(f"{message}: {reason(error)}")


def reason(error: BaseException) -> str:
    """An error's reason in one line: the system's words where it has a number."""
    number = _errno(error)
    if number is not None:
        return os.strerror(number)
    lines = str(error).strip().splitlines()
    if not lines:
        return "out of memory" if isinstance(error, MemoryError) else type(error).__name__
    return lines[0][:_LONGEST]


def _errno(error: BaseException) -> int | None:
    """The system's number, also where a library has put it into words."""
    if isinstance(error, OSError):
        return error.errno
    if isinstance(error, InputError | MachineError):
        return None
    found = _OS_ERROR.search(str(error)) if isinstance(error, ValueError | RuntimeError) else None
    if found:
        return int(found[1])
    # Orbax wraps what TensorStore says.
    return None if error.__cause__ is None else _errno(error.__cause__)
