"""StyleCLIP's files: mappers whole and stripped, with levels missing, and global directions."""

import pickle

import numpy as np
import pytest

from interestyle_jax.errors import InputError
from interestyle_jax.weights import load_weights
from tools.convert_weights import convert
from tools.convert_weights.source_file import read_source
from tools.convert_weights.to_pytorch import to_pytorch

torch = pytest.importorskip("torch", reason="torch is not installed (extra [convert])")
WIDTH = 6
OPTS = {"stylegan_size": 64, "device": "cuda:0", "no_fine_mapper": False}


def level(name, width=WIDTH, seed=0):
    rng = np.random.default_rng([seed, *name.encode()])
    return {
        f"{name}.mapping.{i}.{leaf}": torch.from_numpy(
            rng.normal(size=(width, width) if leaf == "weight" else width).astype(np.float32)
        )
        for i in range(1, 5)
        for leaf in ("weight", "bias")
    }


MAPPER = level("course_mapping") | level("medium_mapping") | level("fine_mapping")
DECODER = {f"decoder.to_rgbs.{i}.bias": torch.zeros(1, 3, 1, 1) for i in range(4)}


def write(path, state, *, prefix="mapper.", opts=OPTS):
    torch.save(
        {"state_dict": {prefix + k: v for k, v in state.items()} | DECODER, "opts": opts}, path
    )
    return path


def architecture(directory):
    return load_weights(directory).metadata["architectures"]["mapper"]


def test_an_official_file_goes_there_and_back(tmp_path):
    report = convert([write(tmp_path / "x.pt", MAPPER)], tmp_path / "x", check=True)
    assert "family styleclip_mapper" in report
    assert "note: the generator beside the mapper was left out" in report
    assert "24 tensors are the source's, bit for bit" in report
    assert architecture(tmp_path / "x") == {
        "type": "StyleMapper",
        "num_styles": 10,
        "w_dim": WIDTH,
        "levels": ["coarse", "medium", "fine"],
    }
    to_pytorch(tmp_path / "x", tmp_path / "back.pt")
    back = read_source(tmp_path / "back.pt").content
    assert back["opts"] == OPTS
    assert back["state_dict"].keys() == {f"mapper.{k}" for k in MAPPER}
    for key, value in MAPPER.items():
        np.testing.assert_array_equal(back["state_dict"][f"mapper.{key}"], value)


def test_a_stripped_file_holds_the_same(tmp_path):
    convert([write(tmp_path / "x.pt", MAPPER)], tmp_path / "x")
    torch.save(MAPPER, tmp_path / "bare.pt")
    report = convert([tmp_path / "bare.pt"], tmp_path / "bare")
    assert "no generator in the file, the mapper is taken for one of 18 rows" in report
    assert architecture(tmp_path / "bare") == architecture(tmp_path / "x") | {"num_styles": 18}
    found = [load_weights(tmp_path / n).variables["mapper"]["params"] for n in ("x", "bare")]
    for name in ("coarse", "medium", "fine"):
        for i in range(4):
            a, b = (x[name][f"dense_{i}"] for x in found)
            np.testing.assert_array_equal(a["kernel"], b["kernel"])
            np.testing.assert_array_equal(a["bias"], b["bias"])


NO_FINE = level("course_mapping") | level("medium_mapping")


@pytest.mark.parametrize(
    ("state", "levels", "message"),
    [
        (NO_FINE, None, "x.pt: the mapper has no fine level.*pass --levels=coarse,medium"),
        (level("fine_mapping"), None, "no coarse and no medium level.*--levels=fine"),
        (NO_FINE, "coarse", "--levels: coarse, but .*x.pt has a medium level too"),
        (NO_FINE, "coarse,fine", "has no fine level"),
        (NO_FINE, "course", "--levels: 'course', expected some of coarse,medium,fine"),
    ],
)
def test_levels_that_are_missing_have_to_be_meant(tmp_path, state, levels, message):
    path = write(tmp_path / "x.pt", state)
    with pytest.raises(InputError, match=message):
        convert([path], tmp_path / "x", options={"levels": levels})
    assert not (tmp_path / "x").exists()


def test_levels_that_are_meant_to_be_missing(tmp_path):
    convert(
        [write(tmp_path / "x.pt", NO_FINE)], tmp_path / "x", options={"levels": "coarse,medium"}
    )
    assert architecture(tmp_path / "x")["levels"] == ["coarse", "medium"]


def test_mappers_of_one_level_and_of_styles(tmp_path):
    convert([write(tmp_path / "one.pt", level("mapping"))], tmp_path / "one", check=True)
    assert architecture(tmp_path / "one")["levels"] == ["single"]
    channels = {0: 8, 2: 8, 3: 6, 5: 6, 6: 4}
    styles = {k: v for i, c in channels.items() for k, v in level(f"mapper_{i}", c).items()}
    convert([write(tmp_path / "s.pt", styles)], tmp_path / "s", check=True)
    assert architecture(tmp_path / "s") == {
        "type": "StyleSpaceMapper",
        "channels": [8, 8, 8, 6, 6, 6, 4, 4],
        "mapped": [0, 2, 3, 5, 6],
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("medium_mapping.mapping.3.bias"), "missing key medium_mapping.mapping.3"),
        (lambda s: s.update(extra=torch.ones(2)), "unused key extra"),
        (
            lambda s: s.update({"fine_mapping.mapping.2.weight": torch.ones(6, 5)}),
            r"fine_mapping.mapping.2.weight is \[6, 5\], expected \[6, 6\]",
        ),
    ],
)
def test_keys_that_do_not_fit_are_listed(tmp_path, change, message):
    state = dict(MAPPER)
    change(state)
    with pytest.raises(InputError, match=message):
        convert([write(tmp_path / "x.pt", state)], tmp_path / "x")


CHANNELS = (8, 8, 6)


def global_files(folder, rows=14, *, statistics=None, value=1.0):
    rng = np.random.default_rng(0)
    fs3 = rng.normal(size=(rows, 5)).astype(np.float32) * value
    np.save(folder / "fs3.npy", fs3)
    if statistics is None:
        statistics = [[rng.normal(size=c).astype(np.float32) for c in CHANNELS] for _ in range(2)]
    (folder / "S_mean_std").write_bytes(pickle.dumps(statistics))
    return fs3, statistics, [folder / "fs3.npy", folder / "S_mean_std"]


def test_global_directions_keep_every_number(tmp_path):
    fs3, (means, stds), files = global_files(tmp_path)
    report = convert(files[::-1], tmp_path / "out", check=True)
    assert "family styleclip_global" in report
    found = load_weights(tmp_path / "out").variables
    np.testing.assert_array_equal(found["fs3"], fs3)
    for part, layers in (("s_mean", means), ("s_std", stds)):
        assert len(found[part]) == len(CHANNELS)
        for i, values in enumerate(layers):
            np.testing.assert_array_equal(found[part][f"layer_{i}"], values)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 30}, "fs3 has 30 rows, the statistics 22 channels"),
        ({"value": np.inf}, "holds values that are not finite"),
        ({"statistics": [[np.ones(3)], [np.ones(2)]]}, "not a known checkpoint"),
        ({"statistics": [1, 2]}, "holds a list, expected a dict of arrays or an array"),
    ],
)
def test_global_directions_that_do_not_fit(tmp_path, options, message):
    with np.errstate(invalid="ignore"):
        *_, files = global_files(tmp_path, **options)
    with pytest.raises(InputError, match=message):
        convert(files, tmp_path / "out")
    assert not (tmp_path / "out").exists()
