"""The one error that users see: bad input, told in one line."""


class InputError(ValueError):
    """Bad input: the message names the file or field, what was wrong and what was expected.

    The command line prints it on stderr and exits with status 2.
    """
