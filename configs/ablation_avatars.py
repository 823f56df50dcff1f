"""A row of the paper's Table 2 in the avatar world; configs/demo.py with a part of the method.

    python -m experiments.ablation_avatars --data=data/avatars --out=runs/ablation

trains all rows; `configs/ablation_avatars.py:restyle` (or `interest`, `ind`, `unf`, `swap`) is one,
as `interestyle_jax/config/table_2.py` says. `:smoke`, or `:restyle,smoke`, is a few tiny steps.
"""

from pathlib import Path

from interestyle_jax.config.files import load_config
from interestyle_jax.config.smoke import choice_and_size
from interestyle_jax.config.table_2 import ROWS, set_row


def get_config(words: str = "unf"):
    """`words`: a row ("unf" unless named), and "smoke" for the smallest size, joined by commas."""
    row, size = choice_and_size(words, ROWS, "unf", "configs/ablation_avatars.py")
    config = load_config(f"{Path(__file__).with_name('demo.py')}:{size}")
    # What the rows differ in would be in the last steps alone.
    config.single_pass_until = 0.0
    return set_row(config, row)
