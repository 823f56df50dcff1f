"""CLIP against open_clip on weights drawn by key, layer by layer, through the converter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interestyle_jax.models import registry
from interestyle_jax.models.clip import CLIP, unit
from tests.models import open_clip_outputs as reference
from tools.convert_weights.families import FAMILIES
from tools.convert_weights.source_file import SourceFile


@pytest.fixture(scope="module")
def outputs():
    with np.load(reference.OUTPUTS) as file:
        return dict(file)


def convert(name, outputs, activation):
    state = {}
    for line in outputs[f"{name}/shapes"]:
        key, *shape = str(line).split()
        state[key] = reference.draw(key, tuple(map(int, shape)))
    source = SourceFile.of("drawn.pt", state)
    conversion = FAMILIES["clip"].convert_with([source], activation=activation)
    return registry.build(conversion.architectures["clip"]), conversion.parts["clip"].variables


@pytest.fixture(scope="module")
def networks(outputs):
    return {
        name: convert(name, outputs, "quick_gelu" if quick else "gelu")
        for name, (_, quick) in reference.NETWORKS.items()
    }


def relative(got, want):
    error = np.asarray(got, np.float64) - want
    return np.linalg.norm(error) / np.linalg.norm(want), np.abs(error).max() / np.abs(want).max()


def run(module, variables, images, tokens):
    """Both features, and every layer's output."""

    def features(m, images, tokens):
        return m.image_features(images), m.text_features(tokens)

    options = {"capture_intermediates": True, "mutable": ["intermediates"]}
    apply = jax.jit(lambda v, x, t: module.apply(v, x, t, method=features, **options))
    return apply(variables, images, tokens)


@pytest.mark.parametrize("name", reference.NETWORKS)
def test_every_layer_is_open_clips(name, networks, outputs):
    module, variables = networks[name]
    tokens = outputs["tokens"]
    (images, texts), state = run(module, variables, reference.pixels(name), tokens)
    found = {f"{name}/image": images, f"{name}/text": texts}
    for key in outputs:
        if key.startswith((f"{name}/visual/", f"{name}/text/")):
            node = state["intermediates"]
            for part in key.removeprefix(f"{name}/").split("/"):
                node = node[part]
            found[key] = node["__call__"][0]
    assert len(found) >= 7
    logits = jnp.exp(variables["params"]["logit_scale"]) * unit(images) @ unit(texts).T
    found[f"{name}/logits"] = logits
    for key, got in found.items():
        want = outputs[key]
        got = np.asarray(got)
        if key == f"{name}/text/norm":
            # The norm of every token there, of the end token alone here.
            continue
        if want.ndim == 3:
            got = got[:, : want.shape[1]]
        if key.endswith("patch_embedding"):
            got = got.reshape(want.shape)
        rel_l2, rel_max = relative(got, want)
        assert rel_l2 < 1e-5 and rel_max < 1e-5, (key, rel_l2, rel_max)


def test_the_wrong_activation_would_be_seen(networks, outputs):
    module, variables = networks["vit_exact"]
    wrong = module.copy(quick_gelu=True)
    images = reference.pixels("vit_exact")
    got = wrong.apply(variables, images, method="image_features")
    assert relative(got, outputs["vit_exact/image"])[0] > 1e-3


def test_sizes_are_read_from_the_shapes(networks):
    vit, _ = networks["vit_quick"]
    assert (vit.image_size, vit.patch_size, vit.vision_layers, vit.vision_heads) == (24, 8, 2, 2)
    assert (vit.text_layers, vit.text_heads, vit.context_length, vit.embed_dim) == (2, 1, 77, 24)
    assert vit.quick_gelu and not networks["vit_exact"][0].quick_gelu
    resnet, _ = networks["resnet"]
    assert (resnet.image_size, resnet.vision_layers) == (64, (1, 2, 1, 1))
    assert resnet.vision_heads == 4


def test_a_text_depends_on_nothing_behind_its_end(networks, outputs):
    module, variables = networks["vit_quick"]
    tokens = np.array(outputs["tokens"])
    padded = tokens.copy()
    padded[0, np.argmax(tokens[0]) + 1 :] = 320
    apply = jax.jit(lambda t: module.apply(variables, t, method="text_features"))
    np.testing.assert_array_equal(apply(tokens)[0], apply(padded)[0])


def test_a_small_vocabulary_has_rows_for_its_own_tokens(networks, outputs):
    module, variables = networks["vit_quick"]
    tokens = outputs["tokens"]
    known = tuple(sorted({0, *tokens.ravel().tolist()}))
    small = module.copy(vocab_size=len(known), token_ids=known)
    text = variables["params"]["text"]
    rows = text | {"token_embedding": np.asarray(text["token_embedding"])[list(known)]}
    cut = {**variables, "params": variables["params"] | {"text": rows}}
    want = module.apply(variables, tokens, method="text_features")
    got = small.apply(cut, tokens, method="text_features")
    np.testing.assert_array_equal(got, want)


def test_inputs_of_another_shape_are_refused(networks):
    module, variables = networks["vit_quick"]
    with pytest.raises(ValueError, match=r"pixels: expected \[B, 24, 24, 3\]"):
        module.apply(variables, jnp.zeros((1, 32, 32, 3)), method="image_features")
    with pytest.raises(ValueError, match=r"tokens: expected \[B, 77\]"):
        module.apply(variables, jnp.zeros((1, 16), int), method="text_features")


def test_the_defaults_are_vit_b_32():
    shapes = registry.variable_shapes(registry.describe(CLIP()))
    # OpenAI's, counted by its own code.
    assert sum(x.size for x in jax.tree.leaves(shapes)) == 151_277_313
