"""Names of files and encoders as text that can be printed and drawn: they may hold anything."""


def one_line(text: str) -> str:
    """The text without line breaks, and with escapes for bytes of names that are not UTF-8."""
    return " ".join(text.encode("utf-8", "backslashreplace").decode().split())
