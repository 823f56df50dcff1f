"""Fields of an encoder's config that have no meaning are refused before anything is read."""

import ml_collections

from interestyle_jax.errors import InputError
from interestyle_jax.interest.uninterest_filter import REGIONS
from interestyle_jax.inversion.refinement import GRADIENTS, LOOPS

NOISES = ("const", "random")
# What the backward pass computes again: nothing, the insides of blocks, or whole iterations.
REMATS = ("none", "block", "iteration")
# Whose rows BatchNorm takes its statistics of: all devices', or each device's own.
BATCH_NORMS = ("global", "local")


def needs_masks(config: ml_collections.ConfigDict) -> bool:
    """Whether the method of an encoder's config reads interest masks: its loss or its input."""
    method = config.method
    filters = method.filter_region == "uninterest" and any(method.filter_radii)
    return bool(method.interest_loss or method.disentangle_weight or filters)


def check_encoder_config(config: ml_collections.ConfigDict) -> None:
    """Raises InputError for the first field that has no meaning."""
    if config.remat not in REMATS:
        raise InputError(f"config.remat: expected one of {', '.join(REMATS)}, got {config.remat!r}")
    if config.batch_norm not in BATCH_NORMS:
        raise InputError(
            f"config.batch_norm: expected one of {', '.join(BATCH_NORMS)}, got "
            f"{config.batch_norm!r}"
        )
    method = config.method
    count = method.num_iterations
    if not isinstance(count, int) or count < 1:
        raise InputError(
            f"config.method.num_iterations: expected a whole number from 1, got {count}"
        )
    for field, known in (
        ("gradient", GRADIENTS),
        ("loop", ("", *LOOPS)),
        ("noise", NOISES),
        ("filter_region", REGIONS),
    ):
        if method[field] not in known:
            raise InputError(
                f"config.method.{field}: expected one of {', '.join(n for n in known if n)}, got "
                f"{method[field]!r}"
            )
    if not method.disentangle_weight >= 0:
        raise InputError(
            f"config.method.disentangle_weight: expected from 0, got {method.disentangle_weight}"
        )
    if not 0 <= method.swap <= 1:
        raise InputError(f"config.method.swap: expected a share from 0 to 1, got {method.swap}")
    if method.swap and not method.interest_loss:
        raise InputError(
            "config.method.swap: expected 0 with a loss on the whole image (interest_loss False)"
        )
    for name in ("w_norm", "consistency"):
        if not config.loss.get(name, 0.0) >= 0:
            raise InputError(f"config.loss.{name}: expected from 0, got {config.loss[name]}")
    if config.loss.get("consistency", 0.0) and (method.swap or not method.interest_loss):
        raise InputError(
            "config.loss.consistency: expected 0 with a loss on the whole image (interest_loss "
            "False), and with config.method.swap: every image is seen both ways"
        )
    if not 0 <= config.freeze_batch_norm_after <= 1:
        raise InputError(
            "config.freeze_batch_norm_after: expected a share of the steps, from 0 to 1 (never), "
            f"got {config.freeze_batch_norm_after}"
        )
    if not 0 <= config.single_pass_until <= 1:
        raise InputError(
            "config.single_pass_until: expected a share of the steps, from 0 (none) to 1, "
            f"got {config.single_pass_until}"
        )
    if not 0 <= config.ema_decay < 1:
        raise InputError(f"config.ema_decay: expected from 0 to below 1, got {config.ema_decay}")
    _check_known_latents(config)


def _check_known_latents(config: ml_collections.ConfigDict) -> None:
    options = config.known_latents
    if not options.weight >= 0:
        raise InputError(f"config.known_latents.weight: expected from 0, got {options.weight}")
    if not 0 <= options.until <= 1:
        raise InputError(
            "config.known_latents.until: expected a share of the steps, from 0 (none) to 1, "
            f"got {options.until}"
        )
    used = [name for name in ("weight", "until") if options[name]]
    if not used:
        return
    for other, names in (("adversary", ("weight", "delta_weight")), ("in_domain", ("weight",))):
        if any(config[other][name] for name in names):
            raise InputError(
                f"config.known_latents.{used[0]}: expected 0 with config.{other}, whose loss has "
                "no term for known latents"
            )
    if config.batch_norm != "global":
        raise InputError("config.batch_norm: expected global with config.known_latents")
    if config.data.flip:
        raise InputError("config.data.flip: expected False, factors are those of the image")
