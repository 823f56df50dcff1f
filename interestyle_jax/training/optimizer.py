"""The encoder's optimizer and its learning rate, by config."""

import ml_collections
import optax

from interestyle_jax.errors import InputError
from interestyle_jax.training.muon import muon
from interestyle_jax.training.ranger import ranger

OPTIMIZERS = {"ranger": ranger, "adam": optax.adam, "muon": muon}
RATES = {"learning_rate", "adam_learning_rate"}
# "constant" is the official code's; the others fall to 0 at `config.num_steps`.
SCHEDULES = {
    "constant": lambda rate, num_steps: rate,
    "cosine": optax.cosine_decay_schedule,
    "linear": lambda rate, num_steps: optax.linear_schedule(rate, 0.0, num_steps),
}


def make_optimizer(config: ml_collections.ConfigDict) -> optax.GradientTransformation:
    """Builds what `config.optimizer` names; its other fields are the optimizer's options.

    Args:
      config: the run's config; a schedule that falls ends at its `num_steps`.

    Raises:
      InputError: unknown name, schedule or option.
    """
    options = config.optimizer.to_dict()
    name, schedule = options.pop("name", None), options.pop("schedule", "constant")
    if name not in OPTIMIZERS:
        raise InputError(
            f"config.optimizer.name: expected one of {', '.join(OPTIMIZERS)}, got {name!r}"
        )
    if schedule not in SCHEDULES:
        raise InputError(
            f"config.optimizer.schedule: expected one of {', '.join(SCHEDULES)}, got {schedule!r}"
        )
    for rate in RATES & options.keys():
        options[rate] = SCHEDULES[schedule](options[rate], config.num_steps)
    try:
        return OPTIMIZERS[name](**options)
    except TypeError as error:
        raise InputError(f"config.optimizer: {error}") from error
