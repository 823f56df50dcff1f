"""Graphonomy against its definition in PyTorch at tiny size, and the official code at full size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from interestyle_jax.models import graphonomy_graphs as graphs
from interestyle_jax.models import registry
from interestyle_jax.models.corner_resize import resize_corners
from interestyle_jax.models.graphonomy import MIRRORED, Graphonomy
from interestyle_jax.models.xception import DepthwiseConv
from tools.convert_weights.families.graphonomy import entries

torch = pytest.importorskip("torch", reason="torch is not installed (extra [convert])")
F = torch.nn.functional

TINY = Graphonomy((4, 4, 4, 6, 8, 9, 10, 10, 12), 1, features=8, low_level=4, hidden=6)
# What is easily done otherwise than the official code; each has to show in the result.
TRAPS = (
    "shortcut before ReLU", "exit dilation 1", "third source layer", "raw transfer", "half pixel",
    "epsilon 1e-3", "loops once", "ReLU between separable halves", "mean over pixels",
    "pyramid order",
)  # fmt: skip


@pytest.fixture(scope="module")
def tiny():
    """(variables, {official key: tensor}) of the tiny parser."""
    rng = np.random.default_rng(0)
    variables, state = {}, {}
    shapes = registry.variable_shapes(registry.describe(TINY))
    for entry in entries(TINY):
        node, spec = variables, shapes
        *folders, leaf = entry.target.split("/")
        for folder in folders:
            node, spec = node.setdefault(folder, {}), spec[folder]
        shape = spec[leaf].shape
        if leaf == "var":
            value = rng.uniform(0.5, 1.5, shape)
        elif leaf == "scale":
            value = rng.normal(1, 0.1, shape)
        elif len(shape) < 2:
            value = rng.normal(0, 0.3, shape)
        else:
            value = rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
        node[leaf] = value.astype(np.float32)
        state[entry.source] = torch.tensor(np.array(entry.layout.to_source(node[leaf])))
    # With a third layer of its own, a trap can be told from the truth.
    state["source_graph_conv3.weight"] = state["source_graph_conv1.weight"] * 0.5
    return variables, state


class Reference:
    """The definition by official keys on [B, C, H, W]; `trap` is a mistake to make on purpose."""

    def __init__(self, state, trap=None):
        self.s, self.trap = state, trap

    def norm(self, key, x):
        s = self.s
        eps = 1e-3 if self.trap == "epsilon 1e-3" else 1e-5
        stats = s[f"{key}.running_mean"], s[f"{key}.running_var"]
        return F.batch_norm(x, *stats, s[f"{key}.weight"], s[f"{key}.bias"], eps=eps)

    def projected(self, conv, norm, x):
        return F.relu(self.norm(norm, F.conv2d(x, self.s[f"{conv}.weight"])))

    def separable(self, key, x, *, stride=1, dilation=1, relu=False):
        groups = x.shape[1]
        weight = self.s[f"{key}.depthwise.weight"]
        x = F.conv2d(x, weight, None, stride, dilation, dilation, groups)
        x = self.norm(f"{key}.depthwise_bn", x)
        between = relu or self.trap == "ReLU between separable halves"
        x = F.conv2d(F.relu(x) if between else x, self.s[f"{key}.pointwise.weight"])
        x = self.norm(f"{key}.pointwise_bn", x)
        return F.relu(x) if relu else x

    def block(self, key, x, places, stride=1):
        raw = x
        if places[0] != "rep.0":
            x = F.relu(x)
        shortcut = raw if self.trap == "shortcut before ReLU" else x
        x = self.separable(f"{key}.{places[0]}", x)
        middle = self.separable(f"{key}.{places[1]}", F.relu(x))
        x = self.separable(f"{key}.{places[2]}", F.relu(middle), stride=stride)
        if f"{key}.skip.weight" in self.s:
            shortcut = F.conv2d(shortcut, self.s[f"{key}.skip.weight"], stride=stride)
            shortcut = self.norm(f"{key}.skipbn", shortcut)
        return x + shortcut, middle

    def resize(self, x, size):
        corners = self.trap != "half pixel"
        return F.interpolate(x, size, mode="bilinear", align_corners=corners)

    def __call__(self, images):
        s, t = self.s, "xception_features"
        x = F.conv2d(images, s[f"{t}.conv1.weight"], stride=2, padding=1)
        x = F.relu(self.norm(f"{t}.bn1", x))
        x = F.relu(self.norm(f"{t}.bn2", F.conv2d(x, s[f"{t}.conv2.weight"], padding=1)))
        usual = ("rep.1", "rep.3", "rep.5")
        x, _ = self.block(f"{t}.block1", x, ("rep.0", "rep.2", "rep.4"), 2)
        x, low = self.block(f"{t}.block2", x, ("rep.1", "rep.3", "block2_lastconv.1"), 2)
        x, _ = self.block(f"{t}.block3", x, usual, 2)
        x, _ = self.block(f"{t}.block4", x, usual)
        x, _ = self.block(f"{t}.block5", x, usual)
        dilation = 1 if self.trap == "exit dilation 1" else 2
        for i in (3, 4, 5):
            x = self.separable(f"{t}.conv{i}", x, dilation=dilation, relu=True)
        branches = [self.projected("aspp1.atrous_convolution", "aspp1.bn", x)]
        for i, dilation in ((2, 6), (3, 12), (4, 18)):
            key = f"aspp{i}.atrous_convolution"
            branches.append(self.separable(key, x, dilation=dilation, relu=True))
        mean = self.projected("global_avg_pool.1", "global_avg_pool.2", x.mean((2, 3), True))
        branches.append(mean.expand_as(branches[0]))
        if self.trap == "pyramid order":
            branches = branches[-1:] + branches[:-1]
        x = self.projected(
            "concat_projection_conv1", "concat_projection_bn1", torch.cat(branches, 1)
        )
        low = self.projected("feature_projection_conv1", "feature_projection_bn1", low)
        x = torch.cat([self.resize(x, low.shape[2:]), low], 1)
        for i in (0, 1):
            x = self.separable(f"decoder.{i}.atrous_convolution", x, relu=True)
        skip = F.conv2d(x, s["target_skip_conv.0.weight"], s["target_skip_conv.0.bias"])
        x = F.conv2d(F.relu(skip) + self.graph(x), s["semantic.weight"], s["semantic.bias"])
        return self.resize(x, images.shape[2:])

    def nodes(self, side, pixels):
        share = (pixels @ self.s[f"{side}_featuremap_2_graph.pre_fea"]).softmax(-1)
        if self.trap == "mean over pixels":
            share = share / pixels.shape[1]
        values = pixels @ self.s[f"{side}_featuremap_2_graph.weight"]
        return F.relu(share.transpose(1, 2) @ values)

    def graph(self, x):
        """The official form with a weight for every pixel and node."""
        s, (batch, channels, height, width) = self.s, x.shape
        inner, outer, table = (
            torch.from_numpy(a).clone()
            for a in (graphs.SOURCE_ADJACENCY, graphs.TARGET_ADJACENCY, graphs.TRANSFER)
        )
        if self.trap == "loops once":
            edges = [e for e in graphs.SOURCE_EDGES if e[0] != e[1]]
            inner = torch.from_numpy(graphs.normalized_adjacency(tuple(edges), 7))
        if self.trap == "raw transfer":
            table = torch.tensor(graphs.SIMILARITY)
        pixels = x.flatten(2).transpose(1, 2)
        source, sources = self.nodes("source", pixels), []
        for i in (1, 2, 3 if self.trap == "third source layer" else 2):
            source = F.relu(inner @ source @ s[f"source_graph_conv{i}.weight"])
            sources.append(source)
        target = self.nodes("target", pixels)
        for i, source in enumerate(sources, 1):
            likeness = F.normalize(target, dim=-1) @ F.normalize(source, dim=-1).transpose(1, 2)
            moved = F.relu(table @ (source @ s["transpose_graph.weight"]))
            joined = torch.cat([target, likeness.softmax(-1) @ source, moved], -1)
            target = F.relu(joined @ s["fc_graph.weight"])
            target = F.relu(outer @ target @ s[f"target_graph_conv{i}.weight"])
        # Without influence: any values do.
        own = torch.randn(channels, 1, generator=torch.Generator().manual_seed(0))
        score = pixels @ own + (target @ s["target_graph_2_fea.node_fea_for_hidden"]).transpose(
            1, 2
        )
        y = score.softmax(-1) @ (target @ s["target_graph_2_fea.weight"])
        return F.relu(y).transpose(1, 2).reshape(batch, channels, height, width)


def relative(got, want):
    return np.abs(np.asarray(got, np.float64) - want).max() / np.abs(want).max()


@pytest.fixture(scope="module")
def images():
    """Two odd-sized images, large enough for dilation 2 after four halvings, and their logits."""
    return np.random.default_rng(1).uniform(-1, 1, (2, 75, 101, 3)).astype(np.float32)


def evaluate(state, images, trap=None):
    with torch.no_grad():
        y = Reference(state, trap)(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    return y.permute(0, 2, 3, 1).numpy()


def test_tiny_network_is_its_definition(tiny, images):
    variables, state = tiny
    want = evaluate(state, images)
    got = jax.jit(TINY.apply)(variables, images)
    assert got.shape == (2, 75, 101, 20)
    assert relative(got, want) < 1e-5
    for trap in TRAPS:
        change = relative(evaluate(state, images, trap), want)
        assert change > 2e-4, trap


class Quick(Graphonomy):
    """Another network with the same outside: every fourth pixel, colours mixed into 20 labels."""

    def coarse(self, x):
        mix = np.random.default_rng(2).normal(size=(3, 20)).astype(np.float32)
        return x[:, ::4, ::4] @ mix


def test_both_sides_are_averaged_with_left_and_right_changed(images):
    """The short form equals the official chain of resizes."""
    network = Quick()
    got = network.apply({}, images, 60, 90, method="two_sided")
    plain = network.apply({}, images)
    mirrored = network.apply({}, images[:, :, ::-1])
    assert plain.shape == (2, 75, 101, 20)
    order = list(range(20))
    for left in (14, 16, 18):
        order[left], order[left + 1] = left + 1, left
    assert tuple(order) == MIRRORED
    want = (plain + mirrored[:, :, ::-1, jnp.array(order)]) / 2
    want = np.asarray(resize_corners(want, 60, 90))
    assert relative(got, want) < 1e-5
    assert relative(resize_corners(plain, 60, 90), want) > 0.1


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2), (1, 6)])
@pytest.mark.parametrize("side", [1, 6, 9])
def test_depthwise_is_pytorchs(side, stride, dilation):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, side, side + 1, 3)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 1, 3)).astype(np.float32)
    weight, maps = torch.tensor(kernel).permute(3, 2, 0, 1), torch.tensor(x).permute(0, 3, 1, 2)
    want = F.conv2d(maps, weight, None, stride, dilation, dilation, 3).permute(0, 2, 3, 1)
    got = DepthwiseConv(stride, dilation).apply({"params": {"kernel": kernel}}, x)
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_graphs_are_the_official_ones(golden_dir):
    with np.load(golden_dir / "public" / "graphonomy_adj.npz") as file:
        for name, edges, nodes in (
            ("pascal", graphs.SOURCE_EDGES, 7),
            ("cihp", graphs.TARGET_EDGES, 20),
        ):
            raw = np.zeros((nodes, nodes), np.uint8)
            for i, j in edges:
                raw[i, j] = raw[j, i] = 1
            np.testing.assert_array_equal(raw, file[f"{name}_binary"])
            np.testing.assert_array_equal(graphs.normalized_adjacency(edges, nodes), file[name])
        np.testing.assert_array_equal(np.float32(graphs.SIMILARITY), file["transfer_raw"])
        np.testing.assert_allclose(graphs.TRANSFER, file["transfer_softmax_f64"], atol=1e-8)


def test_parameter_count_at_official_size():
    shapes = registry.variable_shapes(registry.describe(Graphonomy()))
    # 896 tensors of 41,593,474 numbers, less 146 counters and three tensors without influence.
    assert len(jax.tree.leaves(shapes)) == 747
    assert sum(x.size for x in jax.tree.leaves(shapes)) == 41_593_474 - 146 - 16_780


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match="images: expected"):
        TINY.init(jax.random.key(0), np.zeros((1, 32, 32, 4), np.float32))
