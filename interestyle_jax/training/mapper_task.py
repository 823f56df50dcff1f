"""Training StyleCLIP's mapper for one text: the change of any latent that shows it.

The loss of w + strength mapper(w): 1 - cosine of CLIP's features of image and text, the mean square
of the change, and 1 - cosine of identity features before and after. Latents are random samples of
the generator, or those of a file. Source: StyleCLIP section 5, `mapper/training/coach.py`.
"""

from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from jaxtyping import Float, PRNGKeyArray

from interestyle_jax.data.fingerprint import fingerprint_arrays
from interestyle_jax.data.text_tokens import check_tokens, tokenize
from interestyle_jax.errors import InputError, file_error
from interestyle_jax.models.clip import unit
from interestyle_jax.models.clip_pixels import area_pixels
from interestyle_jax.models.products import einsum
from interestyle_jax.models.registry import describe, init
from interestyle_jax.models.styleclip_mapper import StyleMapper
from interestyle_jax.models.stylegan2 import truncate
from interestyle_jax.parallel.sharding import gathered
from interestyle_jax.training.losses import embed_with
from interestyle_jax.training.optimizer import make_optimizer
from interestyle_jax.training.task import Batch, PyTree
from interestyle_jax.weights import load_weights, resolve_weights, save_weights

# Of a file's latents, the last so many are for validation, as a share.
HELD_OUT = 0.1


class MapperState(flax.struct.PyTreeNode):
    """Everything that the training carries."""

    step: jax.Array
    params: PyTree
    opt_state: PyTree


class MapperTask:
    """`Task` for a `StyleMapper`; reads no images."""

    batch_fields: tuple[str, ...] = ()
    optional_fields: tuple[str, ...] = ()
    has_validation_loss = True

    def __init__(self, config: ml_collections.ConfigDict):
        """Reads `config.weights.generator`, `.clip`, `.id`, and the latents.

        Raises:
          InputError: no text, or one that the CLIP does not know; weights that are missing, or
            latents of another generator.
        """
        self.config = config
        for name, weight in config.loss.items():
            if not weight >= 0:
                raise InputError(f"config.loss.{name}: expected from 0, got {weight}")
        if not config.text:
            raise InputError("config.text: expected what the edit should show, got ''")
        loaded = load_weights(resolve_weights(config.weights.generator))
        self.g, generator = loaded.part("generator")
        clip = load_weights(resolve_weights(config.weights.clip))
        self.clip, clip_variables = clip.part("clip")
        tokens = tokenize(config.text, context_length=self.clip.context_length)
        check_tokens(tokens, self.clip.token_ids, [config.text])
        text = unit(self.clip.apply(clip_variables, tokens, method="text_features"))[0]
        self.mapper = StyleMapper(self.g.num_styles, self.g.w_dim, tuple(config.levels))
        self.frozen: PyTree = {"generator": generator, "clip": clip_variables, "text": text}
        self.weight_digests = {
            "generator": fingerprint_arrays(generator),
            "clip": fingerprint_arrays(clip_variables),
        }
        self.embedder = None
        if config.loss.id:
            if not config.weights.id:
                raise InputError(
                    "config.weights.id: expected ArcFace's weights, or config.loss.id=0"
                )
            faces = load_weights(resolve_weights(config.weights.id))
            self.embedder, self.frozen["id"] = faces.part("embedder")
            self.weight_digests["id"] = fingerprint_arrays(self.frozen["id"])
        if config.latents:
            self.frozen["latents"] = _read_latents(
                Path(config.latents), (self.g.num_styles, self.g.w_dim)
            )
        else:
            w_avg = loaded.variables.get("w_avg")
            if w_avg is None:
                raise InputError(f"{loaded.directory}: no w_avg, expected it for random latents")
            self.frozen["w_avg"] = np.asarray(w_avg)
        self.initial: PyTree = {}
        self.optimizer = make_optimizer(config)

    def init(self, key: PRNGKeyArray, initial: PyTree) -> MapperState:
        """See `Task.init`."""
        del initial
        params = init(key, self.mapper)["params"]
        return MapperState(jnp.zeros((), jnp.int32), params, self.optimizer.init(params))

    def phase(self, step: int) -> tuple[str, ...]:
        """See `Task.phase`: all steps are alike."""
        del step
        return ()

    def _latents(
        self, key: PRNGKeyArray, frozen: PyTree, count: int, *, held_out: bool
    ) -> Float[jax.Array, "B L D"]:
        if "latents" in frozen:
            total = len(frozen["latents"])
            first = total - max(1, int(total * HELD_OUT))
            low, high = (first, total) if held_out else (0, first)
            return frozen["latents"][jax.random.randint(key, (count,), low, high)]
        z = jax.random.normal(key, (count, self.g.z_dim))
        w = self.g.apply(frozen["generator"], z, method="map")
        w_plus = jnp.repeat(w[:, None], self.g.num_styles, axis=1)
        return truncate(w_plus, frozen["w_avg"], self.config.truncation_psi)

    def _draw(self, frozen: PyTree, w_plus: jax.Array) -> jax.Array:
        return self.g.apply(frozen["generator"], w_plus, "const", method="synthesize")

    def _edited(self, params: PyTree, w_plus: jax.Array) -> jax.Array:
        return w_plus + self.config.strength * self.mapper.apply({"params": params}, w_plus)

    def _losses(
        self, params: PyTree, frozen: PyTree, w_plus: jax.Array
    ) -> dict[str, Float[jax.Array, " B"]]:
        edited = self._edited(params, w_plus)
        images = self._draw(frozen, edited)
        pixels = area_pixels(images, self.clip.image_size)
        features = unit(self.clip.apply(frozen["clip"], pixels, method="image_features"))
        parts = {
            "clip": 1 - einsum("be,e->b", features, frozen["text"]),
            "latent": jnp.mean(jnp.square(edited - w_plus), axis=(1, 2)),
        }
        if self.embedder is not None:
            embed = embed_with(self.embedder, frozen["id"])
            before = jax.lax.stop_gradient(embed(self._draw(frozen, w_plus)))
            parts["id"] = 1 - jnp.sum(before * embed(images), axis=-1)
        loss = sum(self.config.loss[name] * value for name, value in parts.items())
        return {"loss": loss, **parts}

    def train_step(
        self,
        key: PRNGKeyArray,
        state: MapperState,
        frozen: PyTree,
        batch: Batch,
        *,
        phase: tuple[str, ...] = (),
    ) -> tuple[MapperState, dict[str, jax.Array]]:
        """See `Task.train_step`."""
        del phase
        frozen = gathered(frozen)
        w_plus = self._latents(key, frozen, len(batch["id"]), held_out=False)

        def objective(params):
            metrics = self._losses(gathered(params), frozen, w_plus)
            metrics = {name: value.mean() for name, value in metrics.items()}
            return metrics["loss"], metrics

        grads, metrics = jax.grad(objective, has_aux=True)(state.params)
        updates, opt_state = self.optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return MapperState(state.step + 1, params, opt_state), metrics

    def validate_step(
        self, key: PRNGKeyArray, state: MapperState, frozen: PyTree, batch: Batch
    ) -> dict[str, jax.Array]:
        """See `Task.validate_step`: on other latents."""
        frozen = gathered(frozen)
        w_plus = self._latents(key, frozen, len(batch["id"]), held_out=True)
        return self._losses(gathered(state.params), frozen, w_plus)

    def images(
        self, key: PRNGKeyArray, state: MapperState, frozen: PyTree, batch: Batch
    ) -> Float[jax.Array, "B 2 R R 3"]:
        """See `Task.images`: before and after the edit."""
        frozen = gathered(frozen)
        w_plus = self._latents(key, frozen, len(batch["id"]), held_out=True)
        edited = self._edited(gathered(state.params), w_plus)
        return jnp.stack([self._draw(frozen, w) for w in (w_plus, edited)], axis=1)

    def exported(self, state: MapperState) -> MapperState:
        """See `Task.exported`."""
        return state.replace(opt_state=None)

    def export(self, state: MapperState, directory: Path, *, extra: dict[str, Any]) -> None:
        """See `Task.export`."""
        save_weights(
            directory,
            {"mapper": {"params": state.params}},
            family="styleclip_mapper",
            architectures={"mapper": describe(self.mapper)},
            licence=self.config.licence,
            dtype=self.config.storage_dtype,
            force=True,
            extra={"text": self.config.text, "strength": self.config.strength, **extra},
        )


def _read_latents(path: Path, shape: tuple[int, int]) -> Float[np.ndarray, "N L D"]:
    """[N, L, D] of a `.npy`, or of a `latents.npz` the last iteration."""
    try:
        content = np.load(path.expanduser(), allow_pickle=False)
        array = content["w_plus"][:, -1] if isinstance(content, np.lib.npyio.NpzFile) else content
        array = np.asarray(array, np.float32)
    except Exception as error:
        raise file_error(error, f"config.latents: {path} is not readable as latents") from error
    if array.ndim != 3 or array.shape[1:] != shape or len(array) < 2:
        raise InputError(
            f"config.latents: {path} holds {list(array.shape)}, this generator takes "
            f"[N, {shape[0]}, {shape[1]}] with N from 2"
        )
    if not np.isfinite(array).all():
        raise InputError(f"config.latents: {path} holds values that are not finite")
    return array
