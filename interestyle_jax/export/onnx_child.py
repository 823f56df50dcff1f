"""Converts one program to ONNX: a script for an interpreter that has jax2onnx.

    python -P onnx_child.py FOLDER

FOLDER holds recipe.json, variables.safetensors and check.npz, and gets program.onnx and
outputs.npz. A process of its own: jax2onnx patches JAX while it traces. Its pins of Orbax exclude
this package's, so it may run in an environment without this package, of whose files it imports only
those that need JAX and Flax alone.
"""

import hashlib
import importlib.util
import json
import logging
import sys
from pathlib import Path
from typing import Any

MISSING = 3
# By the names they are imported by; PIL is pillow.
NEEDED = ("jax2onnx", "onnx", "onnxruntime", "jax", "flax", "jaxtyping", "safetensors", "PIL")
PACKAGE = "interestyle_jax"


def main(folder: Path) -> int:
    """Converts what is in `folder`; returns the exit status, `MISSING` without a needed package."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(", ".join(missing), file=sys.stderr)
        return MISSING
    import jax
    import jax2onnx
    import numpy as np
    import onnx
    import onnxruntime

    logging.disable(logging.WARNING)
    # ONNX tells no backends apart.
    jax.lax.platform_dependent = _cpu_form
    _find_package()
    from interestyle_jax.export.program import build

    spec, recipe, variables = read_folder(folder)
    program = build(recipe, variables)

    def function(*values: jax.Array) -> tuple[jax.Array, ...]:
        results = program.function(*values)
        return tuple(results[name] for name in program.outputs)

    rows = "batch" if spec["batch"] is None else spec["batch"]
    model = jax2onnx.to_onnx(
        function,
        inputs=[(rows, *row) for row in program.inputs.values()],
        model_name=spec["recipe"]["what"],
        input_names=list(program.inputs),
        output_names=list(program.outputs),
    )
    _share_equal_weights(model.graph)
    with np.load(folder / "check.npz") as file:
        values = [file[str(i)] for i in range(len(program.inputs))]
    results = jax.eval_shape(function, *values)
    for output, axis, result in zip(
        model.graph.output, program.outputs.values(), results, strict=True
    ):
        dims: list[Any] = list(result.shape)
        dims[axis] = rows
        _set_shape(output, dims)
    onnx.helper.set_model_props(model, spec["metadata"])
    onnx.checker.check_model(model)
    onnx.save(model, folder / "program.onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # Errors alone.
    session = onnxruntime.InferenceSession(
        folder / "program.onnx", options, providers=["CPUExecutionProvider"]
    )
    given = dict(zip(program.inputs, values, strict=True))
    outputs = session.run(list(program.outputs), given)
    np.savez(folder / "outputs.npz", **dict(zip(program.outputs, outputs, strict=True)))
    return 0


def read_folder(folder: Path) -> tuple[dict[str, Any], Any, dict[str, Any]]:
    """The content of `recipe.json`, the `Recipe` in it, and the variables."""
    from flax.traverse_util import unflatten_dict
    from safetensors.numpy import load_file

    from interestyle_jax.export.program import Recipe

    spec = json.loads((folder / "recipe.json").read_text())
    recipe = {**spec["recipe"], "shape": tuple(spec["recipe"]["shape"])}
    recipe["directions"] = tuple(
        (name, kind, None if rows is None else tuple(rows))
        for name, kind, rows in recipe["directions"]
    )
    variables = unflatten_dict(load_file(folder / "variables.safetensors"), sep="/")
    return spec, Recipe(**recipe), variables


def _find_package() -> None:
    """Makes this file's package importable, and nothing beside it: not its environment."""
    package = Path(__file__).resolve().parents[1]
    spec = importlib.util.spec_from_file_location(
        PACKAGE, package / "__init__.py", submodule_search_locations=[str(package)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = module
    spec.loader.exec_module(module)


def _cpu_form(*arguments: Any, default: Any = None, cpu: Any = None, **others: Any) -> Any:
    """Of `jax.lax.platform_dependent`, the CPU's form."""
    del others
    return (cpu or default)(*arguments)


def _set_shape(output: Any, dims: list[Any]) -> None:
    shape = output.type.tensor_type.shape
    del shape.dim[:]
    for dim in dims:
        if isinstance(dim, str):
            shape.dim.add().dim_param = dim
        else:
            shape.dim.add().dim_value = dim


def _share_equal_weights(graph: Any) -> None:
    """Keeps one of each group of equal initialisers, and none that nothing reads."""
    first: dict[bytes, str] = {}
    renamed: dict[str, str] = {}
    for tensor in graph.initializer:
        nameless = type(tensor)()
        nameless.CopyFrom(tensor)
        nameless.ClearField("name")
        digest = hashlib.sha256(nameless.SerializeToString(deterministic=True)).digest()
        renamed[tensor.name] = first.setdefault(digest, tensor.name)
    graphs = _with_bodies(graph)
    read = {output.name for part in graphs for output in part.output}
    for node in (node for part in graphs for node in part.node):
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)
        read.update(node.input)
    for part in graphs:
        kept = [tensor.SerializeToString() for tensor in part.initializer if tensor.name in read]
        del part.initializer[:]
        for content in kept:
            part.initializer.add().ParseFromString(content)


def _with_bodies(graph: Any) -> list[Any]:
    """A graph, and those inside its nodes."""
    bodies = [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    return [graph, *(part for body in bodies for part in _with_bodies(body))]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
