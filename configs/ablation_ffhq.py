"""A row of the paper's Table 2 on faces: configs/interestyle_ffhq.py with a part of the method.

    bash launch/gpu_node.sh --config=configs/ablation_ffhq.py:interest --workdir=runs/ffhq_interest

Data, weights, hardware and the way to measure are those of configs/interestyle_ffhq.py. The rows
(`interestyle_jax/config/table_2.py`), what the paper measured on CelebA-HQ (interest / face), and
the work of a step of 8, counted by XLA and not measured:

    row        L2              LPIPS           TFLOP a step
    restyle    0.015 / 0.004   0.088 / 0.040   22.1   (the released ReStyle encoder)
    interest   0.013 / 0.005   0.084 / 0.038   11.5
    ind        0.012 / 0.003   0.078 / 0.037   15.9
    unf        0.013 / 0.003   0.075 / 0.036   15.9   (the whole method)
    swap       not in the paper                15.9   (and `method.swap`)

`:smoke`, or `:restyle,smoke`, is two tiny steps in the avatar world.
"""

from pathlib import Path

from interestyle_jax.config.files import load_config
from interestyle_jax.config.smoke import choice_and_size
from interestyle_jax.config.table_2 import ROWS, set_row


def get_config(words: str = "unf"):
    """`words`: a row ("unf" unless named), and "smoke" for the smallest size, joined by commas."""
    row, size = choice_and_size(words, ROWS, "unf", "configs/ablation_ffhq.py")
    return set_row(load_config(f"{Path(__file__).with_name('interestyle_ffhq.py')}:{size}"), row)
