"""`python -m interestyle_jax` is the `interestyle` command."""

import sys

from interestyle_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
