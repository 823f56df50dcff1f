"""Text on one line: names of files and encoders, which may hold anything, and errors."""


def one_line(text: str) -> str:
    """The text without line breaks, and with escapes for bytes of names that are not UTF-8."""
    return " ".join(text.encode("utf-8", "backslashreplace").decode().split())
