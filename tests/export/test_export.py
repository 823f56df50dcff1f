"""Exported files give what the model gives; tiny random networks."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax import export
from PIL import Image

import interestyle_jax as ij
from interestyle_jax.cli import main
from interestyle_jax.editing.directions import Direction, save_direction
from interestyle_jax.editing.edits import apply_edits
from interestyle_jax.errors import MachineError
from interestyle_jax.export import files, onnx, onnx_child
from interestyle_jax.export.model_program import recipe_of
from interestyle_jax.export.program import build
from interestyle_jax.export.stablehlo import to_stablehlo

ROOT = Path(__file__).resolve().parents[2]
ROWS, W_DIM, SIZE = 8, 16, 32


@pytest.fixture(scope="module")
def model(tiny_weights):
    return ij.load(tiny_weights / "inverter")


@pytest.fixture(scope="module")
def exported(tiny_weights, tmp_path_factory):
    """The file of `invert`, two iterations, any number of images; and its report."""
    out = tmp_path_factory.mktemp("export") / "new" / "invert.stablehlo"
    report = files.export_weights(tiny_weights / "inverter", out, num_iterations=2)
    return out, report


def test_a_file_for_all_platforms_and_numbers_of_images(model, exported):
    out, report = exported
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    assert report["bytes"] == out.stat().st_size
    assert report["inputs"] == {"x": ["batch", SIZE, SIZE, 3]}
    assert set(report["relative_difference"]) == {"w_plus", "images"}
    assert max(report["relative_difference"].values()) < 1e-5
    program = export.deserialize(bytearray(out.read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu")
    x = np.random.default_rng(1).uniform(-1, 1, (3, SIZE, SIZE, 3)).astype(np.float32)
    x[1, 0, 0, 0] = np.nan
    found = jax.jit(program.call)(x)
    expected = model.invert(jax.numpy.asarray(x), num_steps=2)
    assert found["w_plus"].shape == (2, 3, ROWS, W_DIM)
    np.testing.assert_allclose(found["w_plus"], expected.w_plus, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["images"], expected.images, rtol=1e-4, atol=1e-4)
    assert np.isnan(found["w_plus"]).any((0, 2, 3)).tolist() == [False, True, False]


def test_weights_are_stored_once_whatever_the_iterations(model):
    sizes = {}
    for count in (1, 4):
        recipe, variables = recipe_of(model, "invert", count)
        sizes[count] = len(to_stablehlo(build(recipe, variables), 1))
    stored = sum(x.nbytes for x in jax.tree.leaves(model.variables["encoder"]))
    assert sizes[1] > stored
    assert abs(sizes[4] - sizes[1]) < 0.01 * stored


def test_parts_of_a_model(model, tiny_weights, tmp_path):
    report = files.export_weights(
        tiny_weights / "generator", tmp_path / "g", what="synthesize", batch=1
    )
    assert report["inputs"] == {"w_plus": [1, ROWS, W_DIM]}
    assert max(report["relative_difference"].values()) < 1e-5
    recipe, variables = recipe_of(ij.load(tiny_weights / "encoder"), "encode", None)
    program = build(recipe, variables)
    assert program.inputs == {"x": (SIZE, SIZE, 6)}
    spec = jax.ShapeDtypeStruct((2, *program.inputs["x"]), np.float32)
    assert jax.eval_shape(program.function, spec)["delta"].shape == (2, ROWS, W_DIM)


def test_edits_with_strengths_as_an_input(tiny_weights, tmp_path):
    model = ij.load(tiny_weights / "generator")
    rng = np.random.default_rng(2)
    layers = model.style_layers
    channels = sum(layer.channels for layer in layers)
    made = [
        Direction("age", "w", rng.normal(size=W_DIM), rows=(0, 1, 2), default_range=(-3.0, 3.0)),
        Direction("lips", "style", rng.normal(size=channels)),
    ]
    paths = [save_direction(tmp_path / f"{d.name}.npz", d) for d in made]
    options = {"what": "edit", "directions": paths}
    report = files.export_weights(tiny_weights / "generator", tmp_path / "edit", **options)
    assert report["inputs"] == {"w_plus": ["batch", ROWS, W_DIM], "strengths": ["batch", 2]}
    assert report["directions"] == ["age", "lips"]
    assert max(report["relative_difference"].values()) < 1e-5
    # As `interestyle edit` draws it: one direction after the other, a strength a row.
    w_plus = rng.normal(size=(2, ROWS, W_DIM)).astype(np.float32)
    strengths = np.array([[0, 0], [2, 0.5]], np.float32)
    program = export.deserialize(bytearray((tmp_path / "edit").read_bytes()))
    found = jax.jit(program.call)(w_plus, strengths)
    edits = [direction.edit(layers) for direction in made]
    edited = apply_edits(edits, w_plus, [*strengths.T], styles=model.styles)
    images = model.synthesize_from_styles(edited.styles)
    largest = np.abs(images).max()
    np.testing.assert_allclose(found["images"], images, atol=1e-5 * largest, rtol=0)
    np.testing.assert_allclose(found["edited"], edited.w_plus, rtol=1e-6)
    np.testing.assert_array_equal(found["edited"][0], w_plus[0])
    np.testing.assert_array_equal(found["edited"][1, 3:], w_plus[1, 3:])
    np.testing.assert_allclose(found["images"][0], model.synthesize(w_plus)[0], atol=1e-4)
    # What the converter to ONNX gets.
    recipe, variables = recipe_of(model, "edit", None, directions=made)
    with pytest.raises(ij.InputError):
        onnx.to_onnx(
            *(tmp_path, recipe, variables, [w_plus, strengths]),
            batch=None,
            metadata={},
            python=fake_python(tmp_path, "exit 1"),
        )
    _, read, arrays = onnx_child.read_folder(tmp_path)
    assert read == recipe
    np.testing.assert_array_equal(arrays["directions"]["1"], made[1].array)


def test_a_file_that_differs_is_not_written(tiny_weights, tmp_path, monkeypatch):
    def other(content, values):
        return {"images": np.zeros((len(values[0]), SIZE, SIZE, 3), np.float32)}

    monkeypatch.setattr(files, "run_stablehlo", other)
    with pytest.raises(ij.InputError, match=r"not written, its images differ .* by 1.0e\+00"):
        files.export_weights(tiny_weights / "generator", tmp_path / "g", what="synthesize")
    assert list(tmp_path.iterdir()) == []


BAD = [
    (["--weights={}/generator"], "no encoder in this weight directory, which"),
    (["--weights={}/none"], "no such weight directory"),
    (["--weights={}/inverter", "--format=tflite"], "invalid choice: 'tflite'"),
    (["--weights={}/inverter", "--batch=0"], "argument --batch: '0'"),
    (["--weights={}/inverter", "--what=encode", "--steps=2"], "num_iterations: 2 for encode"),
    (["--weights={}/inverter", "--direction=beard"], "1 given, expected none for invert"),
    (["--weights={}/generator", "--what=edit"], "directions: 0 given, expected at least one"),
    (["--weights={}/generator", "--what=edit", "--direction=beard"], "beard: a direction of kind"),
    (["--weights={}/inverter", "--out={}/generator"], "already exists"),
    (["--weights={}/inverter", "--out={}/inverter/metadata.json/a"], "cannot be made"),
    (
        ["--weights={}/generator", "--what=synthesize", "--format=onnx", "--onnx-python=none"],
        "none: cannot be started: No such file",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_input_is_one_line(tiny_weights, tmp_path, capsys, arguments, message):
    given = [argument.format(tiny_weights) for argument in arguments]
    assert main(["export", f"--out={tmp_path}/file", *given]) == 2
    line = capsys.readouterr().err
    assert message in line and line.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_unknown_names_in_python(tmp_path):
    with pytest.raises(ij.InputError, match="format: 'pb', expected one of stablehlo, onnx"):
        files.export_weights("avatar_interestyle", tmp_path / "a", format="pb")
    with pytest.raises(ij.InputError, match="what: 'draw', expected one of invert, synthesize"):
        files.export_weights("avatar_interestyle", tmp_path / "a", what="draw")


def fake_python(tmp_path: Path, script: str) -> Path:
    """An interpreter that does something else."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    return python


@pytest.mark.parametrize(
    ("script", "error", "message"),
    [
        (
            f"echo jax2onnx, PIL >&2; exit {onnx_child.MISSING}",
            ij.InputError,
            "has no jax2onnx, PIL, which --format=onnx needs; make an environment for it .*venv",
        ),
        (
            "echo warning >&2; echo 'NotImplementedError: scan' >&2; exit 1",
            ij.InputError,
            "jax2onnx cannot convert synthesize: NotImplementedError: scan$",
        ),
        ("echo 'OSError: No space left on device' >&2; exit 1", MachineError, "No space left"),
        ("kill -9 $$", MachineError, "killed by signal 9"),
    ],
)
def test_failures_of_the_converter(tiny_weights, tmp_path, script, error, message):
    python = fake_python(tmp_path, script)
    with pytest.raises(error, match=message):
        files.export_weights(
            tiny_weights / "generator",
            tmp_path / "out" / "g.onnx",
            format="onnx",
            what="synthesize",
            onnx_python=python,
        )
    assert list((tmp_path / "out").iterdir()) == []


def test_the_converter_gets_the_same_program(model, tmp_path):
    recipe, variables = recipe_of(model, "invert", 2)
    x = np.zeros((1, SIZE, SIZE, 3), np.float32)
    python = fake_python(tmp_path, f"cp '{tmp_path}/made.npz' \"$3/outputs.npz\"")
    np.savez(tmp_path / "made.npz", w_plus=x)
    found = onnx.to_onnx(
        tmp_path, recipe, variables, [x], batch=None, metadata={"a": "b"}, python=python
    )
    assert set(found) == {"w_plus"}
    spec, *found = onnx_child.read_folder(tmp_path)
    assert spec["batch"] is None and spec["metadata"] == {"a": "b"}
    assert jax.tree.structure(found) == jax.tree.structure([recipe, variables])
    assert jax.tree.all(jax.tree.map(np.array_equal, found, [recipe, variables]))


def test_the_converter_meets_no_choice_between_backends(model, monkeypatch):
    recipe, variables = recipe_of(model, "synthesize", None)
    program = build(recipe, variables)
    spec = jax.ShapeDtypeStruct((1, *program.inputs["w_plus"]), np.float32)
    assert "platform_index" in str(jax.make_jaxpr(program.function)(spec))
    monkeypatch.setattr(jax.lax, "platform_dependent", onnx_child._cpu_form)
    assert "platform_index" not in str(jax.make_jaxpr(lambda x: program.function(x))(spec))


def test_the_converter_says_what_it_lacks(tmp_path):
    done = subprocess.run(
        [sys.executable, "-P", "-S", onnx_child.__file__, str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == onnx_child.MISSING
    assert done.stderr.strip() == ", ".join(onnx_child.NEEDED)


def test_the_documented_example_runs_without_flax_and_this_package(exported, model, tmp_path):
    text = (ROOT / "docs" / "deploy.md").read_text()
    (example,) = re.findall(r"```python\n(import jax\n.*?)```", text, re.DOTALL)
    assert len(example.splitlines()) <= 12
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "face.png")
    (tmp_path / "invert.stablehlo").symlink_to(exported[0])
    blocked = "import sys\nsys.modules.update(flax=None, interestyle_jax=None, orbax=None)\n"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", blocked + example],
        cwd=tmp_path,
        env=environment | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    expected = model.invert(pixels[None].astype(np.float32) / 127.5 - 1, num_steps=2)
    w_plus = np.load(tmp_path / "w_plus.npy")
    np.testing.assert_allclose(w_plus, expected.w_plus[-1], rtol=1e-4, atol=1e-5)
    with Image.open(tmp_path / "inverted.png") as image:
        assert image.size == (SIZE, SIZE)


@pytest.mark.slow
def test_onnx_of_the_shipped_model_in_an_environment_of_its_own(tmp_path):
    environment = tmp_path / "onnx-env"
    commands = onnx.ENVIRONMENT.replace("onnx-env", str(environment))
    commands = commands.replace("python -m venv", f"{sys.executable} -m venv")
    done = subprocess.run(["bash", "-c", commands], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    python = environment / "bin" / "python"
    out = tmp_path / "invert.onnx"
    report = files.export_weights("avatar_interestyle", out, format="onnx", onnx_python=python)
    assert max(report["relative_difference"].values()) < 1e-5
    # Encoder and synthesis once, and little else.
    variables = ij.load("avatar_interestyle").variables
    encoder, generator = (
        sum(x.nbytes for x in jax.tree.leaves(variables[part])) for part in ("encoder", "generator")
    )
    mapping = sum(x.nbytes for x in jax.tree.leaves(variables["generator"]["params"]["mapping"]))
    assert report["bytes"] < 1.1 * (encoder + generator - mapping)
    # Another number of images than it was checked with.
    code = (
        "import numpy as np, onnxruntime, sys\n"
        "session = onnxruntime.InferenceSession(sys.argv[1])\n"
        "x = np.load(sys.argv[2])\n"
        "np.save(sys.argv[3], session.run(['w_plus'], {'x': x})[0])"
    )
    x = np.random.default_rng(1).uniform(-1, 1, (3, 64, 64, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    arguments = [str(tmp_path / name) for name in ("invert.onnx", "x.npy", "w.npy")]
    done = subprocess.run([python, "-P", "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    w_plus = ij.load("avatar_interestyle").invert(x).w_plus
    np.testing.assert_allclose(np.load(tmp_path / "w.npy"), w_plus, rtol=1e-5, atol=1e-4)
    # Latents that an edit in S leaves as they are, too.
    for names in (["laugh", "channel:6,20"], ["channel:6,20"]):
        options = {"what": "edit", "directions": names, "onnx_python": python}
        out = tmp_path / f"edit_{len(names)}.onnx"
        report = files.export_weights("avatar_interestyle", out, format="onnx", **options)
        assert set(report["relative_difference"]) == {"edited", "images"}
        assert max(report["relative_difference"].values()) < 1e-5
    # pytest keeps its folders of several runs.
    shutil.rmtree(environment)
