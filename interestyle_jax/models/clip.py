"""CLIP: an image tower and a text tower whose features of what belongs together are parallel.

Source: CLIP (Radford et al. 2021), the models of openai/CLIP and of open_clip.
"""

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from interestyle_jax.models.clip_resnet import ModifiedResNet
from interestyle_jax.models.products import Conv, Dense, einsum, matmul

# Of the pixels in [0, 1] that OpenAI's networks were trained on.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
# exp(logit_scale) at the start of a training.
START_SCALE = 1 / 0.07

LayerNorm = functools.partial(nn.LayerNorm, epsilon=1e-5, use_fast_variance=False)


def quick_gelu(x: Float[jax.Array, "*shape"]) -> Float[jax.Array, "*shape"]:
    """x sigmoid(1.702 x), OpenAI's form of the GELU; any shape."""
    return x * nn.sigmoid(1.702 * x)


def activation(quick: bool) -> Callable[[jax.Array], jax.Array]:
    """OpenAI's form or the exact GELU."""
    return quick_gelu if quick else functools.partial(nn.gelu, approximate=False)


class Attention(nn.Module):
    """Self-attention `x [B, T, W] -> [B, T, W]` of `heads` heads; `causal` looks back alone."""

    heads: int
    causal: bool = False
    out_std: float | None = None

    @nn.compact
    def __call__(self, x: Float[jax.Array, "B T W"]) -> Float[jax.Array, "B T W"]:
        batch, tokens, width = x.shape
        start = nn.initializers.normal(width**-0.5)
        qkv = Dense(3 * width, kernel_init=start, dtype=x.dtype, name="in_proj")(x)
        q, k, v = jnp.moveaxis(qkv.reshape(batch, tokens, 3, self.heads, -1), 2, 0)
        logits = einsum("bqhd,bkhd->bhqk", q * q.shape[-1] ** -0.5, k)
        logits = logits.astype(jnp.promote_types(x.dtype, jnp.float32))
        if self.causal:
            seen = np.tril(np.ones((tokens, tokens), bool))
            logits = jnp.where(seen, logits, -jnp.inf)
        y = einsum("bhqk,bkhd->bqhd", nn.softmax(logits).astype(x.dtype), v)
        end = nn.initializers.normal(self.out_std or width**-0.5)
        y = y.reshape(batch, tokens, width)
        return Dense(width, kernel_init=end, dtype=x.dtype, name="out_proj")(y)


class Block(nn.Module):
    """Pre-norm transformer block `x [B, T, W] -> [B, T, W]`; `layers` is the tower's depth."""

    heads: int
    mlp_width: int
    layers: int
    quick_gelu: bool
    causal: bool = False

    @nn.compact
    def __call__(self, x: Float[jax.Array, "B T W"]) -> Float[jax.Array, "B T W"]:
        width, dtype = x.shape[-1], x.dtype
        # The sum of the branches has the variance of one.
        out_std = (2 * width * self.layers) ** -0.5
        wide = jnp.promote_types(dtype, jnp.float32)
        y = LayerNorm(dtype=wide, name="norm_1")(x).astype(dtype)
        x = x + Attention(self.heads, self.causal, out_std, name="attention")(y)
        y = LayerNorm(dtype=wide, name="norm_2")(x).astype(dtype)
        start = nn.initializers.normal((2 * width) ** -0.5)
        y = Dense(self.mlp_width, kernel_init=start, dtype=dtype, name="mlp_1")(y)
        y = activation(self.quick_gelu)(y)
        end = nn.initializers.normal(out_std)
        return x + Dense(width, kernel_init=end, dtype=dtype, name="mlp_2")(y)


class VisionTransformer(nn.Module):
    """`pixels [B, S, S, 3] -> features [B, E]`: the class token behind `layers` blocks.

    Attributes as in `CLIP`.
    """

    patch_size: int
    width: int
    layers: int
    heads: int
    mlp_width: int
    embed_dim: int
    quick_gelu: bool
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, pixels: Float[jax.Array, "B S S 3"]) -> Float[jax.Array, "B E"]:
        size, width = self.patch_size, self.width
        x = pixels.astype(self.dtype or pixels.dtype)
        conv = Conv(
            width,
            (size, size),
            strides=(size, size),
            padding="VALID",
            use_bias=False,
            dtype=x.dtype,
            name="patch_embedding",
        )
        x = conv(x).reshape(len(x), -1, width)
        start = nn.initializers.normal(width**-0.5)
        first = self.param("class_embedding", start, (width,)).astype(x.dtype)
        x = jnp.concatenate([jnp.broadcast_to(first, (len(x), 1, width)), x], axis=1)
        place = self.param("positional_embedding", start, x.shape[1:])
        x = x + place.astype(x.dtype)
        wide = jnp.promote_types(x.dtype, jnp.float32)
        x = LayerNorm(dtype=wide, name="norm_pre")(x).astype(x.dtype)
        for i in range(self.layers):
            fields = (self.heads, self.mlp_width, self.layers, self.quick_gelu)
            x = Block(*fields, name=f"block_{i}")(x)
        x = LayerNorm(dtype=wide, name="norm_post")(x[:, 0])
        return matmul(x, self.param("projection", start, (width, self.embed_dim)))


class TextTransformer(nn.Module):
    """`tokens [B, T] -> features [B, E]`: the end token behind `layers` causal blocks.

    The end token is the one of the largest number. Attributes as in `CLIP`.
    """

    vocab_size: int
    token_ids: Sequence[int]
    width: int
    layers: int
    heads: int
    mlp_width: int
    embed_dim: int
    quick_gelu: bool
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, tokens: Int[jax.Array, "B T"]) -> Float[jax.Array, "B E"]:
        rows = tokens
        if self.token_ids:
            rows = jnp.searchsorted(np.asarray(self.token_ids, np.int32), tokens)
        start = nn.initializers.normal(0.02)
        table = self.param("token_embedding", start, (self.vocab_size, self.width))
        dtype = self.dtype or table.dtype
        x = jnp.take(table, rows, axis=0, mode="clip").astype(dtype)
        shape = (tokens.shape[1], self.width)
        place = self.param("positional_embedding", nn.initializers.normal(0.01), shape)
        x = x + place.astype(dtype)
        for i in range(self.layers):
            fields = (self.heads, self.mlp_width, self.layers, self.quick_gelu)
            x = Block(*fields, causal=True, name=f"block_{i}")(x)
        x = x[jnp.arange(len(x)), jnp.argmax(tokens, axis=1)]
        x = LayerNorm(dtype=jnp.promote_types(dtype, jnp.float32), name="norm")(x)
        start = nn.initializers.normal(self.width**-0.5)
        return matmul(x, self.param("projection", start, (self.width, self.embed_dim)))


class CLIP(nn.Module):
    """Both towers; the defaults are OpenAI's ViT-B/32.

    Attributes:
      embed_dim: E, the length of a feature.
      image_size: S, the side of the pixels that the image tower takes.
      patch_size: side of a patch of the vision transformer.
      vision_layers: blocks of the vision transformer; four numbers are the blocks of the stages
        of CLIP's ResNet instead.
      vision_width: of the vision transformer, or channels of the ResNet's first stage before
        its blocks widen them fourfold.
      vision_heads: heads of a block, or of the ResNet's attention pooling.
      vision_mlp: width between the two dense layers of a block; the ResNet has none.
      text_layers: blocks of the text tower.
      text_width: of the text tower.
      text_heads: heads of its blocks.
      text_mlp: width between the two dense layers of its blocks.
      context_length: T, tokens of a text.
      vocab_size: rows of the token embedding.
      token_ids: the tokens that the rows stand for, ascending; () where row i is token i.
      quick_gelu: OpenAI's x sigmoid(1.702 x), else the exact GELU. No file's shapes tell.
      mean: of each colour of the pixels in [0, 1], which preprocessing takes off.
      std: of each colour, by which preprocessing divides.
      dtype: type of the maps, e.g. bfloat16; None takes the parameters'. Normalisations, softmax
        and features stay in float32.
    """

    embed_dim: int = 512
    image_size: int = 224
    patch_size: int = 32
    vision_layers: int | Sequence[int] = 12
    vision_width: int = 768
    vision_heads: int = 12
    vision_mlp: int = 3072
    text_layers: int = 12
    text_width: int = 512
    text_heads: int = 8
    text_mlp: int = 2048
    context_length: int = 77
    vocab_size: int = 49408
    token_ids: Sequence[int] = ()
    quick_gelu: bool = True
    mean: Sequence[float] = MEAN
    std: Sequence[float] = STD
    dtype: jnp.dtype | None = None

    def setup(self) -> None:
        if isinstance(self.vision_layers, int):
            self.visual = VisionTransformer(
                self.patch_size,
                self.vision_width,
                self.vision_layers,
                self.vision_heads,
                self.vision_mlp,
                self.embed_dim,
                self.quick_gelu,
                self.dtype,
            )
        else:
            self.visual = ModifiedResNet(
                tuple(self.vision_layers),
                self.vision_width,
                self.vision_heads,
                self.embed_dim,
                self.dtype,
            )
        self.text = TextTransformer(
            self.vocab_size,
            tuple(self.token_ids),
            self.text_width,
            self.text_layers,
            self.text_heads,
            self.text_mlp,
            self.embed_dim,
            self.quick_gelu,
            self.dtype,
        )
        start = nn.initializers.constant(np.log(START_SCALE))
        self.logit_scale = self.param("logit_scale", start, ())

    def image_features(self, pixels: Float[jax.Array, "B S S 3"]) -> Float[jax.Array, "B E"]:
        """Features [B, E] of pixels [B, S, S, 3] as they are; not of unit length.

        CLIP's own preprocessing takes `mean` off pixels in [0, 1] and divides by `std`.

        Raises:
          ValueError: pixels of another shape.
        """
        size = self.image_size
        if pixels.ndim != 4 or pixels.shape[1:] != (size, size, 3):
            raise ValueError(f"pixels: expected [B, {size}, {size}, 3], got {pixels.shape}")
        return self.visual(pixels)

    def text_features(self, tokens: Int[jax.Array, "B T"]) -> Float[jax.Array, "B E"]:
        """Features [B, E] of tokens [B, T], integers; not of unit length.

        Raises:
          ValueError: tokens of another shape.
        """
        if tokens.ndim != 2 or tokens.shape[1] != self.context_length:
            raise ValueError(f"tokens: expected [B, {self.context_length}], got {tokens.shape}")
        return self.text(tokens)

    def __call__(
        self, pixels: Float[jax.Array, "B S S 3"], tokens: Int[jax.Array, "C T"]
    ) -> Float[jax.Array, "B C"]:
        """Scaled cosines [B, C] of pixels [B, S, S, 3] and texts [C, T]."""
        images, texts = unit(self.image_features(pixels)), unit(self.text_features(tokens))
        return jnp.exp(self.logit_scale) * matmul(images, texts.T)


def unit(features: Float[jax.Array, "... E"]) -> Float[jax.Array, "... E"]:
    """Features [..., E] divided by their lengths."""
    return features / jnp.linalg.norm(features, axis=-1, keepdims=True)
