"""Edits of golden generators: S space as StyleCLIP's code has it, InterFaceGAN's files as e4e's."""

import shutil

import jax
import numpy as np
import pytest
import torch

import interestyle_jax as ij
from interestyle_jax.cli import main
from interestyle_jax.data.images import read_image
from interestyle_jax.editing.direction_files import find_direction
from interestyle_jax.editing.directions import Direction
from interestyle_jax.editing.style_space import join_styles, num_channels
from interestyle_jax.jobs.latents import LatentFile

FORWARD = {"rel_l2": 1e-5, "rel_max": 3e-5}


@pytest.fixture
def one_device(monkeypatch):
    """Eight devices would each draw at 1024, in 14 GB together."""
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])


def assert_close(got, want, *, rel_l2, rel_max):
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    assert np.linalg.norm(got - want) <= rel_l2 * np.linalg.norm(want)
    assert np.abs(got - want).max() <= rel_max * np.abs(want).max()


def rosinality(fill):
    latent_avg = fill("latent_avg")["latent_avg"]
    return {"g_ema": fill("g_ema"), "latent_avg": latent_avg}


@pytest.mark.slow
def test_styles_and_their_edit_are_the_official_ones(golden_case, golden_weights, goldenfill):
    """StyleCLIP's S of a 256 generator, and S + 4.1 * direction drawn."""
    golden, inputs = golden_case("styleclip_global")
    model = ij.load(golden_weights("rosinality_256", {"g.pt": rosinality}))
    layers = model.style_layers
    styles = model.styles(0.5 * inputs["input:global:w256"])
    assert_close(join_styles(styles, layers), golden["g256/S_f64"], **FORWARD)

    array = np.zeros(num_channels(layers), np.float32)
    array[golden["g256/nonzero_index"]] = golden["g256/nonzero_value"]
    edit = Direction("text", "style", array, unit="raw").edit(layers)
    for name, strength in (("image", 0.0), ("edited", 4.1)):
        image = model.synthesize_from_styles(edit(styles, strength))
        flat = np.asarray(image).transpose(0, 3, 1, 2).reshape(-1)
        want = golden[f"g256/{name}.sub_f64"]
        assert_close(flat[goldenfill.subset_index(flat.size, want.size)], want, **FORWARD)


@pytest.mark.slow
def test_official_directions_edit_an_official_generator(
    golden_case, golden_weights, golden_dir, tmp_path, one_device
):
    """`interestyle edit` on a 1024 generator: w_plus + strength * direction, drawn."""
    _, inputs = golden_case("stylegan2_synth_1024")
    (w_plus,) = inputs.values()
    weights = golden_weights("rosinality_1024", {"g.pt": rosinality})
    np.savez(tmp_path / "latents.npz", names=np.array(["golden"]), w_plus=0.5 * w_plus[:, None])
    official = golden_dir.parent / "official"
    out = tmp_path / "out"
    argv = ["edit", f"--weights={weights}", f"--latents={tmp_path / 'latents.npz'}"]
    argv += [f"--direction={official / 'age.pt'}", f"--direction={official / 'pose.pt'}:2"]
    argv += ["--strength=-5,5", f"--out={out}"]
    assert main(argv) == 0
    age, pose = (torch.load(official / f"{n}.pt", "cpu").numpy() for n in ("age", "pose"))
    edited = LatentFile(out)["golden"]
    model = ij.load(weights)
    for k, (label, strength) in enumerate([("-5", -5), ("+5", 5)]):
        want = 0.5 * w_plus + strength * age + 2 * pose
        np.testing.assert_allclose(edited[k][None], want, atol=1e-5)
        drawn = np.asarray(model.synthesize(want.astype(np.float32)))[0]
        saved = np.rint(np.clip(drawn * 127.5 + 127.5, 0, 255)).astype(int)
        assert np.abs(read_image(out / f"golden_{label}.png") - saved).max() <= 1
    smile = find_direction(official / "smile.pt", model.style_layers, w_dim=512)
    assert smile.kind == "w" and smile.unit == "length"


@pytest.mark.slow
def test_a_photograph_is_edited_end_to_end(
    golden_weights, golden_dir, shared_dir, tmp_path, one_device
):
    """Aligned, inverted, edited, drawn and pasted back by an official encoder's layout at 1024."""
    opts = {"encoder_type": "BackboneEncoder", "dataset_type": "ffhq_encode"}

    def checkpoint(fill):
        latent_avg = fill("latent_avg")["latent_avg"]
        return {"state_dict": fill("state_dict"), "latent_avg": latent_avg, "opts": opts}

    weights = golden_weights("interestyle_ffhq", {"best_model.pt": checkpoint})
    (tmp_path / "photos").mkdir()
    portrait = shared_dir / "portraits" / "male_01.jpg"
    shutil.copy(portrait, tmp_path / "photos" / "me.jpg")
    smile, out = golden_dir.parent / "official" / "smile.pt", tmp_path / "out"
    argv = ["edit", f"--weights={weights}", f"--input={tmp_path / 'photos'}", f"--out={out}"]
    argv += ["--steps=1", "--align", "--paste-back", f"--direction={smile}", "--strength=0,3"]
    assert main(argv) == 0
    latents = LatentFile(out)
    assert latents.shape == (1, 2, 18, 512)
    array = torch.load(smile, "cpu").numpy()
    same, edited = latents["me"]
    np.testing.assert_allclose(edited, same + 3 * array, atol=1e-4)
    photo = read_image(portrait)
    for label in ("0", "+3"):
        assert read_image(out / f"me_{label}.png").shape == (1024, 1024, 3)
        pasted = read_image(out / f"me_{label}_pasted.png")
        assert pasted.shape == photo.shape and (pasted != photo).any()
    assert (out / "sheet.png").is_file()
