"""Recipes of the optimiser: variables, terms and schedule; presets with their sources' defaults."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from interestyle_jax.errors import InputError
from interestyle_jax.models.lpips import VGG_NAMES

VARIABLES = ("w", "w_plus", "noise", "generator")
# Of the image; each may have a mask of its own.
IMAGE_TERMS = ("pixel", "lpips", "features", "identity")
STARTS = ("mean", "encoder")


@dataclasses.dataclass(frozen=True)
class Terms:
    """Weights of the loss' terms; a term of weight 0 is not computed.

    Attributes:
      pixel: mean squared difference of the whole image, in [-1, 1].
      lpips: LPIPS, of `lpips_network`, "vgg" or "alex".
      features: sum over `feature_layers` (VGG16's, "conv4_3", after the ReLU, torchvision's
        weights) of the mean squared difference.
      identity: 1 - cosine of a face embedder; left out where no embedder is given.
      in_domain: mean squared difference of the latent and the encoder's of the drawn image, after
        one iteration (IDInvert).
      prior: mean square of the latent, whitened behind a leaky ReLU (P_N of II2S).
      noise: StyleGAN2's noise regularisation, the sum over all maps.
      locality: L2 and LPIPS, 1 : 1, of the tuned and the original generator near the pivot (PTI).
      perceptual_size: LPIPS and features see larger images averaged to this side; None: as drawn.
    """

    pixel: float = 0.0
    lpips: float = 0.0
    features: float = 0.0
    identity: float = 0.0
    in_domain: float = 0.0
    prior: float = 0.0
    noise: float = 0.0
    locality: float = 0.0
    lpips_network: str = "vgg"
    feature_layers: tuple[str, ...] = ()
    perceptual_size: int | None = 256

    def __post_init__(self):
        unknown = sorted(set(self.feature_layers) - set(VGG_NAMES))
        if unknown or (self.features and not self.feature_layers):
            raise InputError(f"feature_layers: {unknown or 'none'}, expected VGG16's as conv4_3")
        for name in WEIGHTS:
            if not getattr(self, name) >= 0:
                raise InputError(f"{name}: weight {getattr(self, name)}, expected from 0")


WEIGHTS = tuple(field.name for field in dataclasses.fields(Terms) if field.type in (float, "float"))


@dataclasses.dataclass(frozen=True)
class Phase:
    """Steps of Adam on some variables.

    Attributes:
      variables: of VARIABLES: "w" (one for all rows) or "w_plus", "noise" (the stored maps),
        "generator" (the weights of its synthesis, by image).
      num_steps: at most.
      learning_rate: the largest.
      terms: of the loss.
      rows: of `w_plus` that move; None: all.
      b1, b2, eps: Adam's.
      ramps: whether the rate rises over the first 5 % and falls along a cosine over the last 25 %.
      latent_noise: what is added to the latent, times the spread of W and
        max(0, 1 - t / 0.75)^2, t from 0 to 1 over the steps.
      fresh_noise: begin with new noise maps, of a standard normal.
      normalised_noise: give each map mean 0 and variance 1 after every step.
      drops_noise: go on with the stored maps after the phase.
      stop_lpips: an image stops where its LPIPS is not above this.
    """

    variables: tuple[str, ...]
    num_steps: int
    learning_rate: float
    terms: Terms
    rows: tuple[int, ...] | None = None
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    ramps: bool = False
    latent_noise: float = 0.0
    fresh_noise: bool = False
    normalised_noise: bool = False
    drops_noise: bool = False
    stop_lpips: float | None = None

    def __post_init__(self):
        wrong = sorted(set(self.variables) - set(VARIABLES))
        if wrong or not self.variables or {"w", "w_plus"} <= set(self.variables):
            raise InputError(f"variables: {self.variables}, expected some of {VARIABLES}")
        if not isinstance(self.num_steps, int) or self.num_steps < 1:
            raise InputError(f"num_steps: {self.num_steps!r}, expected a whole number from 1")
        if not 0 < self.learning_rate < float("inf"):
            raise InputError(f"learning_rate: {self.learning_rate}, expected above 0")
        if self.stop_lpips is not None and not self.terms.lpips:
            raise InputError("stop_lpips: needs the term lpips")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A way to invert by optimisation.

    Attributes:
      name: of the preset.
      source: where its numbers come from, and where it departs.
      phases: one after the other.
      start: "mean" or "encoder", where no latent is given.
      mean_samples: the mean latent is that of so many samples (NumPy's RandomState(123)), and so
        is the spread; 0: the weights' `w_avg`.
      prior_samples: of W, which the prior's whitening is measured on.
      batch_size: images at once a device.
    """

    name: str
    source: str
    phases: tuple[Phase, ...]
    start: str = "mean"
    mean_samples: int = 0
    prior_samples: int = 1_000_000
    batch_size: int = 8

    @property
    def num_steps(self) -> int:
        """Of all phases."""
        return sum(phase.num_steps for phase in self.phases)

    @property
    def tunes(self) -> bool:
        """Whether an image's generator differs in its weights."""
        return any("generator" in phase.variables for phase in self.phases)

    @property
    def keeps_noise(self) -> bool:
        """Whether an image's generator differs in its noise maps."""
        return any("noise" in phase.variables and not phase.drops_noise for phase in self.phases)

    def uses(self, term: str) -> bool:
        """Whether a term of the loss has a weight in any phase."""
        return any(getattr(phase.terms, term) for phase in self.phases)

    def options(self) -> dict[str, Any]:
        """All that results depend on, as JSON."""
        facts = dataclasses.asdict(self)
        return {name: facts[name] for name in facts if name not in ("source", "batch_size")}


_PROJECTOR = Phase(
    variables=("w", "noise"),
    num_steps=1000,
    learning_rate=0.1,
    terms=Terms(lpips=1.0, noise=1e5),
    ramps=True,
    latent_noise=0.05,
    fresh_noise=True,
    normalised_noise=True,
)
# torchvision's inputs are divided by 57.4 grey levels, Keras' are not: features are that smaller.
_KERAS_SCALE = 57.4**2

PRESETS: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "projector-w",
            "NVlabs/stylegan2-ada-pytorch projector.py; images are resized as encoders' are, not "
            "cropped to a square",
            (_PROJECTOR,),
            mean_samples=10_000,
        ),
        Recipe(
            "projector-w-plus",
            "PTI's w_plus_projector.py: the projector of stylegan2-ada, a latent a row",
            (dataclasses.replace(_PROJECTOR, variables=("w_plus", "noise")),),
            mean_samples=10_000,
        ),
        Recipe(
            "image2stylegan",
            "Abdal et al., ICCV 2019, equation 1 and section 5: 5000 steps of Adam at 0.01, "
            "weights 1; VGG16 as torchvision trained it",
            (
                Phase(
                    ("w_plus",),
                    5000,
                    0.01,
                    Terms(
                        pixel=1.0,
                        features=1.0,
                        feature_layers=("conv1_1", "conv1_2", "conv3_2", "conv4_2"),
                    ),
                ),
            ),
        ),
        Recipe(
            "image2stylegan-plus-plus",
            "Abdal et al., CVPR 2020 (arXiv 1911.11544), numbers as two re-implementations have "
            "them: W+ at 0.01 for 5000 steps, then noise at 5 for 3000, all weights 1e-5",
            (
                Phase(
                    ("w_plus",),
                    5000,
                    0.01,
                    Terms(
                        pixel=1e-5,
                        features=1e-5,
                        feature_layers=("conv1_1", "conv1_2", "conv2_2", "conv3_3"),
                    ),
                ),
                Phase(("noise",), 3000, 5.0, Terms(pixel=1e-5)),
            ),
        ),
        Recipe(
            "idinvert",
            "genforce/idinvert_pytorch utils/inverter.py, for StyleGAN2 and any encoder; its "
            "weight 5e-5 of Keras' VGG16 is 0.165 for torchvision's, whose features are smaller",
            (
                Phase(
                    ("w_plus",),
                    100,
                    0.01,
                    Terms(
                        pixel=1.0,
                        features=5e-5 * _KERAS_SCALE,
                        feature_layers=("conv4_3",),
                        in_domain=2.0,
                    ),
                ),
            ),
            start="encoder",
        ),
        Recipe(
            "ii2s",
            "ZPdesu/II2S: LPIPS-VGG and MSE with weight 1, P_N with 0.001, Adam at 0.01; images "
            "are averaged to 256 for LPIPS, there resized bicubically",
            (Phase(("w_plus",), 1300, 0.01, Terms(pixel=1.0, lpips=1.0, prior=1e-3)),),
        ),
        Recipe(
            "pti",
            "danielroich/PTI configs/hyperparameters.py; locality as the paper has it, which the "
            "code leaves out by default",
            (
                dataclasses.replace(
                    _PROJECTOR, num_steps=450, learning_rate=0.01, drops_noise=True
                ),
                Phase(
                    ("generator",),
                    350,
                    3e-4,
                    Terms(
                        pixel=1.0,
                        lpips=1.0,
                        lpips_network="alex",
                        locality=0.1,
                        perceptual_size=None,
                    ),
                    stop_lpips=0.06,
                ),
            ),
            mean_samples=600,
            batch_size=1,
        ),
        Recipe(
            "hybrid",
            "no published numbers: an encoder's latent, then 100 steps of Adam at 0.01 on "
            "IntereStyle's losses (L2 1, LPIPS-Alex 0.8, identity 0.1 where an embedder is given)",
            (
                Phase(
                    ("w_plus",),
                    100,
                    0.01,
                    Terms(pixel=1.0, lpips=0.8, identity=0.1, lpips_network="alex"),
                ),
            ),
            start="encoder",
        ),
    )
}


def make_recipe(
    name: str,
    *,
    num_steps: int | None = None,
    learning_rate: float | None = None,
    start: str | None = None,
    rows: tuple[int, ...] | None = None,
    locality: bool = True,
    noise: bool = True,
    lpips_network: str | None = None,
) -> Recipe:
    """A preset, changed.

    Args:
      name: one of PRESETS.
      num_steps: of the first phase; the others are shortened alike. None: the preset's.
      learning_rate: of the first phase, None: the preset's.
      start: "mean", "encoder", or "latents" that the call will give; None: the preset's. From an
        encoder's or given latents pti tunes at once, they are its pivot.
      rows: of `w_plus` that move.
      locality: false leaves PTI's locality out.
      noise: false leaves noise maps as they are stored, and phases of these alone out: for
        generators that have none, or results that edits move as a whole.
      lpips_network: "alex" in place of VGG16 for LPIPS.

    Raises:
      InputError: unknown name, numbers out of range, or rows without a phase of `w_plus`.
    """
    if name not in PRESETS:
        raise InputError(f"--method: {name!r}, expected one of {', '.join(PRESETS)}")
    recipe = PRESETS[name]
    phases = recipe.phases
    if start in ("encoder", "latents"):
        if recipe.tunes:
            phases = phases[1:]
    if start is not None:
        recipe = dataclasses.replace(recipe, start="encoder" if start == "encoder" else "mean")
    if rows is not None and not any("w_plus" in phase.variables for phase in phases):
        raise InputError(f"--rows: {name} moves no rows of w_plus of their own")
    if not noise:
        phases = tuple(_without_noise(p) for p in phases if p.variables != ("noise",))
    share = 1.0 if num_steps is None else num_steps / phases[0].num_steps
    changed = []
    for i, phase in enumerate(phases):
        terms = phase.terms if locality else dataclasses.replace(phase.terms, locality=0.0)
        if lpips_network is not None and terms.lpips:
            terms = dataclasses.replace(terms, lpips_network=lpips_network)
        changes: dict[str, Any] = {"terms": terms}
        if num_steps is not None:
            changes["num_steps"] = max(1, round(phase.num_steps * share)) if i else num_steps
        if learning_rate is not None and i == 0:
            changes["learning_rate"] = learning_rate
        if "w_plus" in phase.variables:
            changes["rows"] = rows
        changed.append(dataclasses.replace(phase, **changes))
    return dataclasses.replace(recipe, phases=tuple(changed))


def _without_noise(phase: Phase) -> Phase:
    """A phase that lets noise maps be."""
    return dataclasses.replace(
        phase,
        variables=tuple(name for name in phase.variables if name != "noise"),
        terms=dataclasses.replace(phase.terms, noise=0.0),
        fresh_noise=False,
        normalised_noise=False,
        drops_noise=False,
    )
