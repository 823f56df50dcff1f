"""CLIP's files: TorchScript archives, open_clip's, transformers'; there and back, and refused."""

import pickle
import sys
import zipfile

import numpy as np
import pytest

from interestyle_jax.errors import InputError
from interestyle_jax.weights import load_weights
from tests.models import open_clip_outputs as reference
from tests.torchscript_files import save_scripted
from tools.convert_weights import convert, torchscript_file
from tools.convert_weights.clip_table import read_architecture
from tools.convert_weights.source_file import read_source
from tools.convert_weights.to_pytorch import to_pytorch

torch = pytest.importorskip("torch", reason="torch is not installed (extra [convert])")
safetensors = pytest.importorskip(
    "safetensors.numpy", reason="safetensors is not installed (extra [convert])"
)
QUICK = {"activation": "quick_gelu"}
OPENAI = {"input_resolution": 24, "context_length": 77, "vocab_size": 40}


def tiny_states():
    """{network: state dict in open_clip's layout}, with 40 tokens."""
    found = {}
    with np.load(reference.OUTPUTS) as outputs:
        for name in ("vit_quick", "resnet"):
            lines = [str(line).split() for line in outputs[f"{name}/shapes"]]
            shapes = {key: tuple(map(int, shape)) for key, *shape in lines}
            shapes["token_embedding.weight"] = (40, 64)
            found[name] = {k: np.array(reference.draw(k, s)) for k, s in shapes.items()}
    return found


@pytest.fixture(scope="module")
def states():
    return tiny_states()


def tensors(state):
    return {k: torch.from_numpy(np.array(v)) for k, v in state.items()}


def as_transformers(state):
    """The same network under the names of transformers, written out by hand."""
    names = {
        "logit_scale": "logit_scale",
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "ln_final": "text_model.final_layer_norm",
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "visual.ln_pre": "vision_model.pre_layrnorm",
        "visual.ln_post": "vision_model.post_layernorm",
    }
    parts = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1"}
    parts |= {"mlp.c_proj": "mlp.fc2", "attn.out_proj": "self_attn.out_proj"}
    found = {}
    for key, value in state.items():
        if key in ("visual.proj", "text_projection"):
            name = "visual_projection" if key == "visual.proj" else "text_projection"
            found[f"{name}.weight"] = np.ascontiguousarray(value.T)
            continue
        if ".resblocks." not in key:
            stem, _, leaf = key.rpartition(".")
            found[names[key] if key in names else f"{names[stem]}.{leaf}"] = value
            continue
        tower, _, rest = key.partition("transformer.resblocks.")
        number, _, name = rest.partition(".")
        layer = f"{'vision' if tower else 'text'}_model.encoder.layers.{number}"
        if name.startswith("attn.in_proj"):
            thirds = zip("qkv", np.split(value, 3), strict=True)
            leaf = name.removeprefix("attn.in_proj_")
            found |= {f"{layer}.self_attn.{x}_proj.{leaf}": part for x, part in thirds}
        else:
            stem, _, leaf = name.rpartition(".")
            found[f"{layer}.{parts[stem]}.{leaf}"] = value
    return found


class Holder(torch.nn.Module):
    """Modules and buffers under dotted names, to be scripted."""

    def __init__(self, state):
        super().__init__()
        below = {}
        for key, value in state.items():
            first, _, rest = key.partition(".")
            if rest:
                below.setdefault(first, {})[rest] = value
            else:
                self.register_buffer(first, value)
        for name, held in below.items():
            self.add_module(name, Holder(held))


def scripted(state, path, **numbers):
    """An archive as OpenAI's: halves, float32 norms, whole numbers beside them."""
    half = {
        k: v.half() if v.is_floating_point() and "ln_" not in k else v
        for k, v in tensors(state).items()
    }
    module = Holder(half | {k: torch.tensor(v) for k, v in numbers.items()})
    save_scripted(module, path)
    return path


def weights_of(directory):
    loaded = load_weights(directory)
    return loaded, loaded.metadata["architectures"]["clip"], loaded.variables["clip"]


def leaves(tree, prefix=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def assert_same(a, b):
    a, b = dict(leaves(a)), dict(leaves(b))
    assert a.keys() == b.keys()
    for key, value in a.items():
        np.testing.assert_array_equal(value, b[key], err_msg=key)


@pytest.mark.parametrize("name", ["vit_quick", "resnet"])
def test_torchscript_archives_are_read_without_pytorch(tmp_path, monkeypatch, states, name):
    state = states[name]
    path = scripted(state, tmp_path / "ViT-B-32.pt", **OPENAI)
    monkeypatch.setitem(sys.modules, "torch", None)
    report = convert([path], tmp_path / "out", check=True)
    assert "family clip" in report and "float16, float32" in report
    monkeypatch.undo()
    _, architecture, found = weights_of(tmp_path / "out")
    assert architecture["quick_gelu"] is True
    rounded = {
        k: v.astype(np.float16) if v.dtype == np.float32 and "ln_" not in k else v
        for k, v in state.items()
    }
    torch.save(tensors(rounded), tmp_path / "plain.pt")
    convert([tmp_path / "plain.pt"], tmp_path / "plain", options=QUICK)
    assert_same(found, weights_of(tmp_path / "plain")[2])
    to_pytorch(tmp_path / "out", tmp_path / "back.pt")
    back = read_source(tmp_path / "back.pt").content
    assert {k: int(back[k]) for k in OPENAI} == OPENAI
    assert back.keys() - {*OPENAI} == state.keys()


def test_tensors_of_an_archive_keep_strides_offsets_and_types(tmp_path):
    numbers = torch.arange(24.0).reshape(4, 6)
    module = Holder({"a": numbers, "b.t": numbers.T, "b.part": numbers[1:3, ::2]})
    module.register_buffer("count", torch.tensor(7))
    module.register_buffer("low", torch.ones(3, dtype=torch.bfloat16))
    module.register_buffer("none", torch.zeros(0, 3))
    save_scripted(module, tmp_path / "x.pt")
    found = torchscript_file.read(tmp_path / "x.pt")
    np.testing.assert_array_equal(found["a"], numbers.numpy())
    np.testing.assert_array_equal(found["b.t"], numbers.numpy().T)
    np.testing.assert_array_equal(found["b.part"], numbers.numpy()[1:3, ::2])
    assert found["count"] == 7 and found["count"].shape == ()
    assert str(found["low"].dtype) == "bfloat16" and found["none"].shape == (0, 3)


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def altered(source, path, change):
    """An archive with other entries: `change(name, content) -> content` or None to drop it."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return path


@pytest.fixture
def archive(tmp_path):
    save_scripted(Holder({"a.b": torch.ones(4)}), tmp_path / "good.pt")
    return tmp_path / "good.pt"


def test_nothing_in_an_archive_runs(tmp_path, archive):
    trap = tmp_path / "trap"
    evil = pickle.dumps({"a": Payload(trap)}, protocol=2)

    def change(name, content):
        return evil if name.endswith("data.pkl") else content

    path = altered(archive, tmp_path / "evil.pt", change)
    with pytest.raises(InputError, match=r"evil.pt: refused, it names _?io\.open"):
        read_source(path)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n, c: None if "/data/" in n else c, "not a readable TorchScript archive"),
        (lambda n, c: c[:8] if "/data/" in n else c, "storage 0 has 8 bytes for 4 numbers"),
        (lambda n, c: c[:-9] if n.endswith("data.pkl") else c, "not a readable TorchScript"),
        (lambda n, c: pickle.dumps([1]) if n.endswith("data.pkl") else c, "holds a list"),
        (
            lambda n, c: c.replace(b"(K\x04t(", b"(K\x05t(") if n.endswith("data.pkl") else c,
            r"a.b has shape \[5\], its storage 4 numbers",
        ),
    ],
    ids=["no numbers", "few numbers", "cut off", "a list", "outside of its storage"],
)
def test_damaged_archives_are_named(tmp_path, archive, change, message):
    path = altered(archive, tmp_path / "bad.pt", change)
    with pytest.raises(InputError, match=f"bad.pt: .*{message}") as error:
        read_source(path)
    assert "\n" not in str(error.value)


def test_numbers_repeated_by_strides_of_0_are_refused(tmp_path):
    wide = torch.zeros(1).expand(10**6, 10**6)
    save_scripted(Holder({"a": wide}), tmp_path / "x.pt")
    with pytest.raises(InputError, match="up to a the tensors need 4,000,000,000,000 bytes"):
        read_source(tmp_path / "x.pt")


def test_three_layouts_hold_one_network(tmp_path, states):
    state = states["vit_quick"]
    custom = {k if k.startswith(("visual.", "logit")) else f"text.{k}": v for k, v in state.items()}
    files = {
        "open_clip_model.safetensors": state,
        "model.safetensors": as_transformers(state)
        | {"text_model.embeddings.position_ids": np.arange(77)[None]},
        "custom.safetensors": custom | {"text.attn_mask": np.zeros((77, 77), np.float32)},
    }
    found = []
    for name, content in files.items():
        safetensors.save_file(
            {k: np.ascontiguousarray(v) for k, v in content.items()}, tmp_path / name
        )
        report = convert([tmp_path / name], tmp_path / name[:5], options=QUICK, check=True)
        assert "tensors are the source's, bit for bit" in report
        found.append(weights_of(tmp_path / name[:5])[1:])
    training = {
        "epoch": 3,
        "state_dict": {f"module.{k}": v for k, v in tensors(state).items()},
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}},
    }
    torch.save(training, tmp_path / "epoch_3.pt")
    report = convert([tmp_path / "epoch_3.pt"], tmp_path / "trained", options=QUICK)
    assert "ignored: optimizer/state/0/exp_avg" in report
    found.append(weights_of(tmp_path / "trained")[1:])
    for architecture, variables in found[1:]:
        assert architecture == found[0][0]
        assert_same(variables, found[0][1])


def test_a_logit_scale_with_an_axis_comes_back_with_it(tmp_path, states):
    state = states["vit_quick"] | {"logit_scale": np.array([4.5], np.float32)}
    torch.save(tensors(state), tmp_path / "x.pt")
    convert([tmp_path / "x.pt"], tmp_path / "x", options=QUICK, check=True)
    assert weights_of(tmp_path / "x")[2]["params"]["logit_scale"] == np.float32(4.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "x.pt: does not say its activation.*--activation=quick_gelu.*--activation=gelu"),
        ({"activation": "relu"}, "--activation: 'relu', expected one of quick_gelu, gelu"),
        ({"levels": "fine"}, "--levels: not for family clip"),
    ],
)
def test_the_activation_has_to_be_said(tmp_path, states, options, message):
    torch.save(tensors(states["vit_quick"]), tmp_path / "x.pt")
    with pytest.raises(InputError, match=message):
        convert([tmp_path / "x.pt"], tmp_path / "out", options=options)
    assert not (tmp_path / "out").exists()


def test_openais_activation_cannot_be_denied(tmp_path, states):
    path = scripted(states["vit_quick"], tmp_path / "x.pt", **OPENAI)
    with pytest.raises(InputError, match="--activation: gelu, but .*x.pt is of OpenAI"):
        convert([path], tmp_path / "out", options={"activation": "gelu"})


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"logit_bias": np.zeros(1, np.float32)}, "is a SigLIP network .*expected a CLIP"),
        ({"visual.trunk.norm.weight": np.zeros(2)}, "its image tower is of timm or Apple"),
        ({"text_decoder.ln_final.weight": np.zeros(2)}, "is a CoCa network"),
        ({"text.transformer.encoder.x": np.zeros(2)}, "its text tower is of transformers"),
        ({"visual.extra": np.zeros(2)}, "1 keys do not fit: unused key visual.extra"),
    ],
)
def test_networks_of_other_kinds_are_refused_in_words(tmp_path, states, extra, message):
    torch.save(tensors(states["vit_quick"] | extra), tmp_path / "x.pt")
    with pytest.raises(InputError, match=message):
        convert([tmp_path / "x.pt"], tmp_path / "out", options=QUICK)


def test_heads_of_wide_towers_are_open_clips(states):
    def heads(width):
        state = dict(states["vit_quick"])
        state["visual.conv1.weight"] = np.broadcast_to(np.float32(0), (width, 3, 8, 8))
        return read_architecture(state, "open_clip", quick_gelu=False, where="x").vision_heads

    assert [heads(w) for w in (768, 1024, 1280, 1408, 1664)] == [12, 16, 16, 16, 16]


def test_a_file_without_sizes_is_named(states):
    state = {k: v for k, v in states["vit_quick"].items() if k != "visual.proj"}
    with pytest.raises(InputError, match="x: no CLIP network can be read from it.*visual.proj"):
        read_architecture(state, "open_clip", quick_gelu=True, where="x")


def test_transformers_names_are_its_own(states):
    transformers = pytest.importorskip("transformers")
    tower = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2}
    tower["num_attention_heads"] = 1
    text = tower | {"vocab_size": 40, "bos_token_id": 0, "eos_token_id": 1}
    vision = tower | {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config=text,
        vision_config=vision | {"image_size": 24, "patch_size": 8},
        projection_dim=24,
    )
    model = transformers.CLIPModel(config)
    shapes = {k: tuple(v.shape) for k, v in model.state_dict().items() if "position_ids" not in k}
    assert shapes == {k: v.shape for k, v in as_transformers(states["vit_quick"]).items()}


def test_archives_are_told_apart(tmp_path, archive):
    torch.save({"a": torch.ones(2)}, tmp_path / "plain.pt")
    assert torchscript_file.is_torchscript(archive)
    assert not torchscript_file.is_torchscript(tmp_path / "plain.pt")
    (tmp_path / "none.pt").write_bytes(b"no zip")
    assert not torchscript_file.is_torchscript(tmp_path / "none.pt")
