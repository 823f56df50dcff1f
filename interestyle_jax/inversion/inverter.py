"""`load` and `Model`: a weight directory as an object that draws, encodes and inverts images."""

import contextlib
import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Float

from interestyle_jax import weights
from interestyle_jax.errors import InputError
from interestyle_jax.inversion.encoder_inversion import (
    LARGEST_VALUE,
    RETURNED,
    Inversion,
    Network,
    first_latent,
    invert_images,
)
from interestyle_jax.inversion.resize import resize_images
from interestyle_jax.models import backend, registry
from interestyle_jax.models.stylegan2 import StyleLayer, truncate
from interestyle_jax.parallel.sharding import batch_sharding, replicated

DTYPES = ("float32", "bfloat16")
# Iterations of encoders that see the previous result; the others run once.
ITERATIONS = 5


@dataclasses.dataclass(frozen=True)
class Model:
    """Variables of a weight directory, and the methods its parts allow.

    A method whose part is missing raises ValueError naming the part.

    Attributes:
      variables: {part: variables}; parts are "generator", "encoder", "w_avg", "lpips", "embedder".
      metadata: the directory's metadata.json.
      directory: where it was loaded from, for messages.
      dtype: type of the networks' maps, "float32" or "bfloat16".
      mesh: devices that share the rows of a batch, each with a copy of the variables; None: one.
    """

    variables: dict[str, Any]
    metadata: dict[str, Any]
    directory: Path
    dtype: str = "float32"
    mesh: Mesh | None = None

    @property
    def num_devices(self) -> int:
        """How many devices share a batch."""
        return 1 if self.mesh is None else self.mesh.size

    @property
    def row_sharding(self) -> NamedSharding | None:
        """How a batch lies on the devices; None: on JAX's default one."""
        return None if self.mesh is None else batch_sharding(self.mesh)

    @property
    def replicated_sharding(self) -> NamedSharding | None:
        """How what all devices need lies on them; None: on JAX's default one."""
        return None if self.mesh is None else replicated(self.mesh)

    @property
    def resolution(self) -> int:
        """R, the side of a synthesised image in pixels."""
        return self._module("generator", "resolution").resolution

    @property
    def style_layers(self) -> tuple[StyleLayer, ...]:
        """The layers of S space in the order of execution: name, row, resolution, channels."""
        return self._module("generator", "style_layers").style_layers

    @property
    def latents_shape(self) -> tuple[int, int]:
        """L and D, the shape of a `w_plus`."""
        generator = self._module("generator", "latents_shape")
        return generator.num_styles, generator.w_dim

    @property
    def generator_fingerprint(self) -> str:
        """As `weights.generator_fingerprint`; latents and directions belong to one."""
        self._module("generator", "generator_fingerprint")
        return weights.generator_fingerprint(self.variables["generator"])

    @property
    def input_shape(self) -> tuple[int, int]:
        """Height and width of the encoder's input in pixels: (S, S); official cars: (192, 256)."""
        size = self._module("encoder", "input_shape").input_size
        extra = self.metadata.get("extra", {})
        # Weight directories of earlier versions have it as "picture_shape".
        return tuple(extra.get("image_shape") or extra.get("picture_shape") or (size, size))

    def network(self, part: str) -> Network:
        """The module of a part, which its variables are given to; raises ValueError without it."""
        return self._module(part, "this")

    def iterations(self, num_steps: int | None = None) -> int:
        """N: `num_steps`, or where it is None 5, and 1 for encoders that see the image alone.

        Raises:
          ValueError: no encoder, or a number that it cannot run.
        """
        feedback = self._module("encoder", "invert").input_channels == 6
        if num_steps is None:
            return ITERATIONS if feedback else 1
        if not isinstance(num_steps, int) or num_steps < 1:
            raise InputError(f"num_steps: {num_steps!r}, expected a whole number from 1")
        if num_steps > 1 and not feedback:
            raise InputError(
                f"num_steps: {num_steps}, expected 1: this encoder sees the image alone"
            )
        return num_steps

    @property
    def w_avg(self) -> Float[jax.Array, "*L D"]:
        """The mean latent, [D] or [L, D].

        Raises:
          ValueError: the directory has no mean latent.
        """
        if "w_avg" not in self.variables:
            raise self._missing("w_avg", "the mean latent")
        return self.variables["w_avg"]

    def require_inversion(self) -> None:
        """Raises ValueError naming the first part that `invert` needs and this model lacks."""
        for part in ("generator", "encoder", "w_avg"):
            if part not in self.variables:
                raise self._missing(part, "inversion")

    def mean_latent(self, batch_size: int = 1) -> Float[jax.Array, "B L D"]:
        """w_0 = w_avg in every row: [B, L, D], the start of the refinement."""
        generator = self._module("generator", "mean_latent")
        return first_latent(self.w_avg, generator, batch_size)

    def synthesize(
        self, w_plus: Float[jax.Array | np.ndarray, "B L D"], noise: str | jax.Array = "const"
    ) -> Float[jax.Array, "B R R 3"]:
        """Draws images [B, R, R, 3] from w_plus [B, L, D].

        Args:
          w_plus: latents, one row a layer.
          noise: "const" (the stored buffers), "none", or a PRNG key.

        Raises:
          ValueError: no generator, wrong shape, unknown noise.
        """
        generator = self._module("generator", "synthesize")
        w_plus = _check_w_plus(w_plus, generator)
        return _draw(self.variables["generator"], w_plus, noise, generator, "synthesize")

    def styles(
        self, w_plus: Float[jax.Array | np.ndarray, "B L D"]
    ) -> tuple[Float[jax.Array, "B _"], ...]:
        """S space: w_plus [B, L, D] -> the styles [B, C] of each of `style_layers`, in order.

        Raises:
          ValueError: no generator, or wrong shape.
        """
        generator = self._module("generator", "styles")
        return _styles(
            self.variables["generator"], _check_w_plus(w_plus, generator), module=generator
        )

    def synthesize_from_styles(
        self,
        styles: Sequence[Float[jax.Array | np.ndarray, "B _"]],
        noise: str | jax.Array = "const",
    ) -> Float[jax.Array, "B R R 3"]:
        """Draws images [B, R, R, 3] from styles; of `styles(w_plus)` those of `synthesize`.

        Args:
          styles: [B, C] for each of `style_layers`.
          noise: as in `synthesize`.

        Raises:
          ValueError: no generator, wrong number or shapes, unknown noise.
        """
        generator = self._module("generator", "synthesize_from_styles")
        styles = tuple(jnp.asarray(style) for style in styles)
        layers = generator.style_layers
        if len(styles) != len(layers):
            raise InputError(f"styles: {len(styles)} layers, expected {len(layers)}")
        batch = styles[0].shape[:1]
        for i, (style, layer) in enumerate(zip(styles, layers, strict=True)):
            if style.ndim != 2 or style.shape != (*batch, layer.channels):
                raise InputError(
                    f"styles: layer {i} ({layer.name}) has shape {style.shape}, expected "
                    f"[B, {layer.channels}]"
                )
        return _draw(
            self.variables["generator"], styles, noise, generator, "synthesize_from_styles"
        )

    def map(
        self, z: Float[jax.Array | np.ndarray, "B Z"], truncation_psi: float = 1.0
    ) -> Float[jax.Array, "B D"]:
        """Maps z [B, Z] (standard normal) to w [B, D], pulled to w_avg by truncation_psi.

        Raises:
          ValueError: no generator, wrong shape, or truncation without a mean latent.
        """
        generator = self._module("generator", "map")
        z = jnp.asarray(z)
        if z.ndim != 2 or z.shape[1] != generator.z_dim:
            raise InputError(f"z: shape {z.shape}, expected [B, {generator.z_dim}]")
        w = _map(self.variables["generator"], z, module=generator)
        if truncation_psi == 1.0:
            return w
        w_avg = self.w_avg
        return truncate(w, w_avg.mean(0) if w_avg.ndim == 2 else w_avg, truncation_psi)

    def encode(self, x: Float[jax.Array | np.ndarray, "B H W C"]) -> Float[jax.Array, "B L D"]:
        """One pass of the encoder: x [B, S, S, C] (`input_shape`) -> delta [B, L, D].

        C is 6 for iterative encoders (the image, then the previous result), 3 for the others.

        Raises:
          ValueError: no encoder, wrong shape or range.
        """
        encoder = self._module("encoder", "encode")
        x = _check_images("x", x, channels=encoder.input_channels, shape=self.input_shape)
        return _encode(self.variables["encoder"], jax.device_put(x), module=encoder)

    def invert(
        self,
        images: Float[jax.Array | np.ndarray, "B H W 3"],
        num_steps: int | None = None,
        *,
        return_images: str = "all",
    ) -> Inversion:
        """Inverts images by iterative refinement (paper §3.1); no mask is needed (§3.3).

        One program a batch size, whatever the images' size; it is started, not waited for. With
        a mesh the rows are spread over its devices, and padded where these do not divide them.

        Args:
          images: [B, H, W, 3] float in [-1, 1], any size: resized to the encoder's input by
            antialiased bilinear interpolation (squeezed where not square, as the official code).
          num_steps: N, the number of iterations; None is 5 for iterative encoders, and 1 for those
            that see the image alone (pSp, e4e).
          return_images: which y_hat come back: "all", "last" (y_hat_N) or "none".

        Returns:
          The refinement. Rows of device arrays whose values are out of range, or not finite, are
          NaN: an error would have to wait for the device.

        Raises:
          ValueError: a part is missing, wrong shape or dtype, num_steps below 1, or, of arrays on
            the host, a wrong range.
        """
        generator = self._module("generator", "invert")
        encoder = self._module("encoder", "invert")
        if return_images not in RETURNED:
            raise InputError(
                f"return_images: {return_images!r}, expected one of {', '.join(RETURNED)}"
            )
        images = _check_images("images", images, channels=3)
        batch = len(images)
        images = self._put_rows(images)
        if images.shape[1:3] != self.input_shape:
            images = _resize(images, shape=self.input_shape)
        variables = {"generator": self.variables["generator"], "encoder": self.variables["encoder"]}
        variables["w_avg"] = self.w_avg
        # Networks ask the mesh how many rows a device has (`models.devices`).
        with contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh):
            inversion = _invert(
                variables,
                images,
                generator=generator,
                encoder=encoder,
                num_iterations=self.iterations(num_steps),
                shape=self.input_shape,
                return_images=return_images,
                loop=backend.refinement_loop(_platform(images)),
            )
        if len(images) == batch:
            return inversion
        return _first_rows(inversion, count=batch, axis=1)

    def embed(self, faces: Float[jax.Array | np.ndarray, "B H W 3"]) -> Float[jax.Array, "B D"]:
        """Identity embeddings: faces [B, 112, 112, 3] in [-1, 1] -> unit vectors [B, 512].

        With a mesh the rows are spread as in `invert`.

        Raises:
          ValueError: no embedder, wrong shape or range.
        """
        embedder = self._module("embedder", "embed")
        faces = _check_images("faces", faces, channels=3)
        embeddings = _apply(self.variables["embedder"], self._put_rows(faces), module=embedder)
        if len(embeddings) == len(faces):
            return embeddings
        return _first_rows(embeddings, count=len(faces), axis=0)

    def distance(
        self,
        a: Float[jax.Array | np.ndarray, "B H W 3"],
        b: Float[jax.Array | np.ndarray, "B H W 3"],
    ) -> Float[jax.Array, " B"]:
        """LPIPS of two batches [B, H, W, 3] in [-1, 1] -> [B].

        Raises:
          ValueError: no LPIPS network, wrong shape or range, or shapes that differ.
        """
        lpips = self._module("lpips", "distance")
        a = _check_images("a", a, channels=3)
        b = _check_images("b", b, channels=3)
        if a.shape != b.shape:
            raise InputError(f"a and b: shapes {a.shape} and {b.shape}, expected equal ones")
        return _apply(self.variables["lpips"], *jax.device_put((a, b)), module=lpips)

    def _put_rows(self, images: np.ndarray | jax.Array) -> jax.Array:
        """Rows [B, ...] on the devices, zeros added where these do not divide them."""
        if isinstance(images, jax.core.Tracer):
            return images
        if self.mesh is None:
            return images if isinstance(images, jax.Array) else jax.device_put(images)
        missing = -len(images) % self.mesh.size
        if missing:
            pad = jnp.pad if isinstance(images, jax.Array) else np.pad
            images = pad(images, [(0, missing)] + [(0, 0)] * (images.ndim - 1))
        return jax.device_put(images, self.row_sharding)

    def _module(self, part: str, method: str) -> Network:
        if part not in self.variables:
            raise self._missing(part, method)
        architecture = self.metadata["architectures"][part]
        if self.dtype == "float32" or not registry.has_field(architecture, "dtype"):
            return registry.build(architecture)
        return registry.build(architecture, dtype=jnp.dtype(self.dtype))

    def _missing(self, part: str, method: str) -> InputError:
        present = ", ".join(sorted(self.variables)) or "nothing"
        return InputError(
            f"{self.directory}: no {part} in this weight directory, which {method} needs "
            f"(it has: {present})"
        )


def load(name_or_dir: str | Path, *, dtype: str = "float32", mesh: Mesh | None = None) -> Model:
    """Loads a weight directory, or weights that ship with the package by name, onto the device.

    Args:
      name_or_dir: a directory, else a name.
      dtype: "float32", or "bfloat16" for convolutions and maps in half the memory; latents, styles,
        statistics and images stay in float32.
      mesh: devices of this process on which `invert` and `embed` work together, as
        `parallel.sharding.local_mesh()`; None takes JAX's default device.

    Raises:
      InputError: no such directory or name, a corrupt or incompatible directory, unknown dtype.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype: {dtype!r}, expected one of {', '.join(DTYPES)}")
    loaded = weights.load_weights(weights.resolve_weights(name_or_dir))
    place = None if mesh is None else replicated(mesh)
    variables = jax.device_put(loaded.variables, place)
    return Model(variables, loaded.metadata, loaded.directory, dtype, mesh)


def _check_images(
    name: str,
    images: jax.Array | np.ndarray,
    *,
    channels: int,
    shape: tuple[int, int] | None = None,
) -> Any:
    """Images as float32, or InputError for a wrong rank, channel count, size, dtype or range."""
    if not isinstance(images, jax.Array):
        images = np.asarray(images)
    sides = "H, W" if shape is None else f"{shape[0]}, {shape[1]}"
    expected = f"expected [B, {sides}, {channels}]"
    if images.ndim != 4 or images.shape[-1] != channels:
        raise InputError(f"{name}: shape {tuple(images.shape)}, {expected}")
    if shape is not None and images.shape[1:3] != shape:
        raise InputError(f"{name}: shape {tuple(images.shape)}, {expected}")
    if 0 in images.shape:
        raise InputError(f"{name}: shape {tuple(images.shape)} holds no pixels, {expected}")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise InputError(f"{name}: dtype {images.dtype}, expected floats in [-1, 1]")
    if isinstance(images, jax.Array):
        # Traced, or on a device: its values would have to be waited for, `_invert` looks at them.
        return images.astype(jnp.float32)
    largest = float(abs(images).max())
    if not largest <= LARGEST_VALUE:
        raise InputError(f"{name}: values reach {largest:g}, expected floats in [-1, 1]")
    return images.astype(np.float32, copy=False)


def _platform(images: Any) -> str:
    if isinstance(images, jax.core.Tracer):
        return backend.platform()
    return next(iter(images.devices())).platform


def _check_w_plus(w_plus: Any, generator: Network) -> jax.Array:
    w_plus = jnp.asarray(w_plus)
    w_dim, rows = generator.w_dim, generator.num_styles
    if w_plus.ndim != 3 or w_plus.shape[1:] != (rows, w_dim):
        raise InputError(f"w_plus: shape {w_plus.shape}, expected [B, {rows}, {w_dim}]")
    return w_plus


def _draw(variables, latents, noise, generator, method):
    """Images of `method`, which takes latents and noise."""
    if not isinstance(noise, str):
        return _draw_random(variables, latents, noise, module=generator, method=method)
    if noise not in ("const", "none"):
        raise InputError(f"noise: {noise!r}, expected 'const', 'none' or a PRNG key")
    return _draw_stored(variables, latents, module=generator, noise=noise, method=method)


@functools.partial(jax.jit, static_argnames=("module", "noise", "method"))
def _draw_stored(variables, latents, *, module, noise, method):
    return module.apply(variables, latents, noise, method=method)


@functools.partial(jax.jit, static_argnames=("module", "method"))
def _draw_random(variables, latents, key, *, module, method):
    return module.apply(variables, latents, key, method=method)


@functools.partial(jax.jit, static_argnames="module")
def _styles(variables, w_plus, *, module):
    return module.apply(variables, w_plus, method="styles")


@functools.partial(jax.jit, static_argnames="module")
def _map(variables, z, *, module):
    return module.apply(variables, z, method="map")


@functools.partial(jax.jit, static_argnames="module")
def _encode(variables, x, *, module):
    return module.apply(variables, x, train=False)


@functools.partial(jax.jit, static_argnames="module")
def _apply(variables, *inputs, module):
    return module.apply(variables, *inputs)


@functools.partial(jax.jit, static_argnames="shape")
def _resize(images, *, shape):
    return resize_images(images, shape)


@functools.partial(jax.jit, static_argnames=("count", "axis"))
def _first_rows(tree, *, count, axis):
    return jax.tree.map(lambda x: jax.lax.slice_in_dim(x, 0, count, axis=axis), tree)


_invert = jax.jit(
    invert_images,
    static_argnames=("generator", "encoder", "num_iterations", "shape", "return_images", "loop"),
)
