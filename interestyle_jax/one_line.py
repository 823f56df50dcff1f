"""Text on one line: names of files and encoders, which may hold anything, errors and notices."""

import sys


def one_line(text: str) -> str:
    """The text without line breaks, and with escapes for bytes of names that are not UTF-8."""
    return " ".join(text.encode("utf-8", "backslashreplace").decode().split())


def print_notice(text: str) -> None:
    """Prints what a user may want to know on stderr, in one line."""
    print(f"interestyle: notice: {one_line(text)}", file=sys.stderr)
