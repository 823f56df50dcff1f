"""Errors of exported files to float64, on tiny networks."""

import numpy as np
import pytest

import interestyle_jax as ij
from experiments import export_errors
from interestyle_jax.data.avatars.world import sample
from interestyle_jax.errors import InputError
from interestyle_jax.export.model_program import recipe_of, sample_inputs

TINY = {"units": (1,), "widths": (4, 4), "head_width": 4}


def test_errors_of_a_program(tiny_weights, monkeypatch):
    model = ij.load(tiny_weights / "generator")
    given = []

    def to_onnx(folder, recipe, variables, values, **options):
        given.append((recipe.what, options["batch"], options["python"]))
        return {"images": np.asarray(model.synthesize(values[0])) * np.float32(1.25)}

    monkeypatch.setattr(export_errors, "to_onnx", to_onnx)
    (row,) = export_errors.measure(model, "synthesize", onnx_python="python")
    assert given == [("synthesize", 1, "python")]
    assert (row["what"], row["output"], row["model_by_iteration"]) == ("synthesize", "images", None)
    assert 1e-9 < row["model"] < 1e-5 and row["stablehlo"] < 1e-5
    assert row["onnx"] == pytest.approx(0.25, rel=1e-4)
    assert row["onnx_to_model"] == pytest.approx(0.25, rel=1e-4)
    line = export_errors.markdown([row | {"model": 1.26e-7, "stablehlo": None}]).splitlines()[-1]
    assert line == "| synthesize | `images` | 1.3e-07 |  | 2.5e-01 | 2.5e-01 |"


def test_avatars_are_inverted(monkeypatch, tmp_path):
    seen = []
    results = export_errors.model_results

    def watched(model, what, values, *arguments, **options):
        seen.append((what, values[0]))
        return results(model, what, values, *arguments, **options)

    monkeypatch.setattr(export_errors, "model_results", watched)
    arguments = [
        "--avatars=2",
        "--what=invert,synthesize",
        "--steps=1",
        f"--out={tmp_path / 'out'}",
    ]
    assert export_errors.main(arguments) == 0
    (_, images), (_, latents) = seen
    drawn = [sample(i, split="test", size=64)["image"] for i in range(2)]
    np.testing.assert_allclose(images, np.stack(drawn) / 127.5 - 1, atol=1e-6)
    assert latents.shape == (1, 10, 512)
    assert "| invert | `w_plus` |" in (tmp_path / "out" / "errors.md").read_text()


def test_the_official_networks_with_random_weights():
    model = export_errors.random_model(8, **TINY)
    assert model.latents_shape == (4, 512) and model.input_shape == (8, 8)
    generator = model.variables["generator"]["params"]
    assert np.std(generator["conv_4"]["conv"]["modulation"]["kernel"]) == pytest.approx(1, abs=0.02)
    (row,) = export_errors.measure(model, "encode")
    assert "onnx" not in row and 1e-9 < row["model"] < 1e-5


def test_what_is_not_computed_in_float64_is_refused(tiny_weights, monkeypatch):
    model = ij.load(tiny_weights / "generator")
    recipe, variables = recipe_of(model, "synthesize", None)
    values = sample_inputs(model, "synthesize", 1, directions=())
    build = export_errors.build

    def narrow(*arguments):
        program = build(*arguments)

        def function(*values):
            return {name: x.astype(np.float32) for name, x in program.function(*values).items()}

        return program._replace(function=function)

    monkeypatch.setattr(export_errors, "build", narrow)
    with pytest.raises(InputError, match="synthesize: images is not computed in float64"):
        export_errors.float64_results(recipe, variables, values)
