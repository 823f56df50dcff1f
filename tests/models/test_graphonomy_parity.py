"""Graphonomy at full size against the official code, through the converter: network, inference.

Tolerances are golden/README.md's for one forward pass.
"""

import json

import jax
import numpy as np
import pytest

from interestyle_jax.interest.providers import make_provider
from interestyle_jax.interest.providers.graphonomy import LABELS, SCALES, network_inputs
from interestyle_jax.models import graphonomy
from interestyle_jax.models import graphonomy_graphs as graphs
from interestyle_jax.models.corner_resize import resize_corners
from interestyle_jax.weights import load_weights

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def weights(golden_weights):
    layout = {"inference.pth": lambda fill: fill("state_dict")}
    return golden_weights("graphonomy_cihp20", layout)


def compare(name, got, numbers, goldenfill):
    """Against the float64 numbers where there are some; `got` as PyTorch lays it out."""
    got = np.asarray(got, np.float64)
    if f"{name}.sub" in numbers:
        if f"{name}.shape" in numbers:
            # Graph layers of the official code have an axis of length 1 in front.
            assert got.shape == tuple(numbers[f"{name}.shape"])[-got.ndim :], name
        key = f"{name}.sub_f64" if f"{name}.sub_f64" in numbers else f"{name}.sub"
        got = got.ravel()[goldenfill.subset_index(got.size, len(numbers[key]))]
    else:
        key = f"{name}_f64" if f"{name}_f64" in numbers else name
    want = np.asarray(numbers[key], np.float64)
    error = got.reshape(want.shape) - want
    rel_l2 = np.linalg.norm(error) / np.linalg.norm(want)
    rel_max = np.abs(error).max() / np.abs(want).max()
    assert rel_l2 < 1e-5 and rel_max < 3e-5, (name, rel_l2, rel_max)
    return rel_l2, rel_max


def taps(module, variables, x):
    """{golden name: [B, C, H, W] or [B, N, C]} of one pass, and the logits [B, H, W, 20]."""
    logits, state = jax.jit(
        lambda v, x: module.apply(v, x, capture_intermediates=True, mutable=["intermediates"])
    )(variables, x)
    tree = jax.tree.map(np.asarray, state["intermediates"])

    def out(path, call=0):
        node = tree
        for name in path.split("/"):
            node = node[name]
        return node["__call__"][call]

    def relu(y):
        return np.maximum(y, 0)

    trunk = {
        "bn1": out("trunk/stem_norm_1"),
        "bn2": out("trunk/stem_norm_2"),
        "block1": out("trunk/block_1")[0],
        "block2.rep": out("trunk/block_2")[1],
        "block20": out("trunk/block_exit")[0],
        "conv3": out("trunk/exit_conv_0"),
        "conv5": out("trunk/exit_conv_2"),
    } | {f"block{i}": out(f"trunk/block_{i}")[0] for i in (3, 4, 12, 19)}
    maps = {f"xception_features.{name}": y for name, y in trunk.items()}
    maps["aspp1"] = relu(out("pyramid_1_norm"))
    for i, dilation in enumerate((6, 12, 18), 2):
        maps[f"aspp{i}"] = out(f"pyramid_{dilation}")
    maps["global_avg_pool"] = relu(out("pyramid_mean_norm"))
    maps["concat_projection_bn1"] = out("pyramid_norm")
    maps["feature_projection_bn1"] = out("low_level_norm")
    low_level = relu(out("low_level_norm"))
    above = resize_corners(relu(out("pyramid_norm")), *low_level.shape[1:3])
    maps["decoder_in"] = np.concatenate([above, low_level], axis=-1)
    maps["decoder.0"], maps["decoder"] = out("decoder_0"), out("decoder_1")
    added, skip = out("graph")[:, None, None], relu(out("skip"))
    maps["target_graph_2_fea#1"] = np.broadcast_to(added, skip.shape)
    maps["target_skip_conv"] = skip
    maps["semantic_in"] = skip + added
    maps["semantic"] = out("labels")
    found = {name: y.transpose(0, 3, 1, 2) for name, y in maps.items()}

    inner, outer = graphs.SOURCE_ADJACENCY, graphs.TARGET_ADJACENCY
    found["source_featuremap_2_graph"] = relu(out("graph/source_nodes"))
    found["target_featuremap_2_graph"] = relu(out("graph/target_nodes"))
    found["source_graph_conv1#1"] = relu(inner @ out("graph/source_layer_1"))
    for i in (1, 2):
        found[f"source_graph_conv2#{i}"] = relu(inner @ out("graph/source_layer_2", i - 1))
    for i in (1, 2, 3):
        found[f"transpose_graph#{i}"] = relu(graphs.TRANSFER @ out("graph/transfer", i - 1))
        found[f"fc_graph#{i}"] = relu(out("graph/merge", i - 1))
        found[f"target_graph_conv{i}#1"] = relu(outer @ out(f"graph/target_layer_{i}"))
    sources = [found[f"source_graph_conv{k}"] for k in ("1#1", "2#1", "2#2")]
    targets = [found["target_featuremap_2_graph"]]
    targets += [found[f"target_graph_conv{i}#1"] for i in (1, 2)]
    for i, (target, source) in enumerate(zip(targets, sources, strict=True), 1):
        found[f"similarity_trans#{i}"] = graphonomy.by_likeness(target, source)
    return found, np.asarray(logits)


@pytest.mark.parametrize("case", ["sq", "ns", "odd", "large"])
def test_official_network(case, weights, golden_case, goldenfill):
    numbers, images = golden_case("graphonomy_net")
    meta = json.loads(str(numbers["meta_json"]))[case]
    x = images[meta["input"]]
    if case == "odd":
        assert meta["crop"] == "[:, :, :101, :75]"
        x = x[:, :101, :75]
    module, variables = load_weights(weights).part("parser")
    assert module == graphonomy.Graphonomy()
    found, logits = taps(module, variables, x)
    names = {
        k.removeprefix(f"{case}/tap/").removesuffix(".sub")
        for k in numbers
        if k.startswith(f"{case}/tap/") and not k.endswith(("_f64", ".stats", ".shape"))
    }
    assert names <= found.keys(), names - found.keys()
    worst = [compare(f"{case}/tap/{n}", found[n], numbers, goldenfill) for n in sorted(names)]
    moved = logits.transpose(0, 3, 1, 2)
    figures = compare(f"{case}/logits", moved, numbers, goldenfill)
    print(
        f"parity graphonomy {case}: logits rel L2 {figures[0]:.1e}, rel max {figures[1]:.1e}; "
        f"{len(names)} taps, worst {max(worst)[0]:.1e}, {max(w[1] for w in worst):.1e}"
    )
    # The gap between the best labels is larger than this everywhere.
    assert numbers[f"{case}/argmax_margin_min"] > 1e-4
    np.testing.assert_array_equal(logits.argmax(-1), numbers[f"{case}/argmax"])


def test_official_inference(weights, golden_case, goldenfill):
    """Six scales, mirrored; the provider's label map is the official one."""
    numbers, _ = golden_case("graphonomy_infer")
    assert json.loads(str(numbers["meta_json"]))["scales"] == list(SCALES)
    image = goldenfill.image_u8("input:graphonomy:tta", 128)[:120, :88]
    for scale, x in zip(SCALES, network_inputs(image), strict=True):
        pair = np.concatenate([x, x[:, :, ::-1]]).transpose(0, 3, 1, 2)
        want = numbers[f"net_input_scale{scale:g}.sub"]
        got = pair.ravel()[goldenfill.subset_index(pair.size, len(want))]
        np.testing.assert_array_equal(got, want)
    provider = make_provider("graphonomy", weights=weights)
    logits = provider.logits(image)
    moved = logits.transpose(2, 0, 1)[None]
    figures = compare("sum_logits", moved, numbers, goldenfill)
    print(f"parity graphonomy inference: rel L2 {figures[0]:.1e}, rel max {figures[1]:.1e}")
    top = np.sort(logits, -1)
    clear = top[..., -1] - top[..., -2] > 1e-4
    assert clear.mean() > 0.99
    masks = provider(image)
    np.testing.assert_array_equal(masks.labels[clear], numbers["argmax"][0][clear])
    assert (masks.face[..., 0] == 255).sum() == (masks.labels == LABELS.index("face")).sum()
    is_interest = np.isin(masks.labels, [2, 13])
    np.testing.assert_array_equal(masks.interest[..., 0], 255 * is_interest)
