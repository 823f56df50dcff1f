"""An encoder of the paper's Table 1 in the avatar world; configs/demo.py with another preset.

    python -m experiments.table_1 --data=data/avatars --out=runs/table_1

trains and measures all rows; `configs/table_1_avatars.py:psp` (or `e4e`, `restyle_psp`,
`restyle_e4e`, `idinvert`, `interestyle`) is one of them. Only the method, and the encoder over the
same trunk, are a row's own; all steps run N iterations; `idinvert` is configs/idinvert_avatars.py.
e4e's rows get changes of their own over the share of the steps that the official 200,000 have for
it (`config.progressive`); the experiment sets these for other numbers of steps.

`:smoke`, or `:psp,smoke`, is a few tiny steps.
"""

from pathlib import Path

from interestyle_jax.config.files import load_config
from interestyle_jax.config.presets import ADVERSARIAL, ENCODER_PRESETS, set_preset
from interestyle_jax.config.smoke import choice_and_size


def get_config(words: str = "interestyle"):
    """`words`: a row ("interestyle" unless named), and "smoke", joined by commas."""
    file = "configs/table_1_avatars.py"
    row, size = choice_and_size(words, ENCODER_PRESETS, "interestyle", file)
    base = "idinvert_avatars.py" if row == "idinvert" else "demo.py"
    config = load_config(f"{Path(__file__).with_name(base)}:{size}")
    set_preset(config, row)
    # Every step is the method's, as in the ablation.
    config.single_pass_until = 0.0
    if row in ADVERSARIAL:
        config.progressive = progressive(config.num_steps)
    return config


def progressive(num_steps: int) -> dict[str, int]:
    """e4e's stages, official: from step 20,000 on, one every 2,000, of 200,000."""
    return {"start": max(1, num_steps // 10), "every": max(1, num_steps // 100)}
