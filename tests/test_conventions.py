"""CONTRIBUTING's conventions, over every public function of the package and the converter."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = [
    file
    for folder in ("interestyle_jax", "tools")
    for file in sorted((ROOT / folder).rglob("*.py"))
]
# Called either way: the README's Python interface; and a method of argparse.
INTERFACE = {"Generator.synthesize", "Model.synthesize", "Model.map", "Model.invert"}
INTERFACE |= {"Generator.synthesize_from_styles", "Model.synthesize_from_styles"}
INTERFACE |= {"Parser.parse_known_args"}
# An array itself, not a mapping or a sequence of arrays.
ARRAY = re.compile(r"^(jax\.Array|np\.ndarray|Float\[|Int\[|UInt8\[|Bool\[|Shaped\[|Num\[)")
# A shape such as [B, H, W, 3], [..., C] or [512], a scalar, or another docstring that has it.
SHAPE = re.compile(r"\[[^\]]*(?:[A-Z0-9.*]|n)[^\]]*\]|\b[Ss]calar|[Ss]ee `|[Aa]s `|\b[Ss]hapes?\b")


class Function(NamedTuple):
    """A public function or method: where it is, its syntax, and the class around it."""

    name: str
    node: ast.FunctionDef
    owner: ast.ClassDef | None

    @property
    def positional(self) -> list[ast.arg]:
        arguments = self.node.args.posonlyargs + self.node.args.args
        decorators = {ast.unparse(d) for d in self.node.decorator_list}
        return arguments[self.owner is not None and "staticmethod" not in decorators :]

    @property
    def parameters(self) -> list[ast.arg]:
        return self.positional + self.node.args.kwonlyargs

    @property
    def docstring(self) -> str:
        """Its own; a `__call__` and a class are read together."""
        text = ast.get_docstring(self.node) or ""
        if self.owner is not None and self.node.name == "__call__":
            text += ast.get_docstring(self.owner) or ""
        return text


def functions(body, where: str = "", owner=None) -> Iterator[Function]:
    """Public functions and methods of a module's or class's body; none inside functions."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from functions(node.body, f"{where}{node.name}.", node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if not node.name.startswith("_") or node.name == "__call__":
                yield Function(f"{where}{node.name}", node, owner)


def keys_not_first(function: Function) -> bool:
    """A PRNG key that is not the first argument, or has another name."""
    of_jax = [a for a in function.parameters if a.annotation and is_key(a)]
    first = function.positional[:1]
    return any(a.arg != "key" or a is not first[0] for a in of_jax)


def is_key(argument: ast.arg) -> bool:
    """Whether an argument is a PRNG key by its name and type."""
    named = re.search(r"(^|_)(key|rng|seed_key)$", argument.arg)
    return bool(named) and ast.unparse(argument.annotation) in ("jax.Array", "PRNGKeyArray")


def positional_options(function: Function) -> bool:
    """An option, an argument with a default after the first, that may be given by position."""
    arguments = function.node.args
    return len(arguments.defaults) > (len(function.positional) == len(arguments.defaults))


def arrays_without_shapes(function: Function) -> bool:
    """A docstring without any shape, where a plain array is taken."""
    arrays = [
        a
        for a in function.parameters
        if a.annotation and ARRAY.match(ast.unparse(a.annotation)) and not is_key(a)
    ]
    return bool(arrays) and not SHAPE.search(function.docstring)


def arrays_without_types(function: Function) -> bool:
    """A plain array as an argument, not jaxtyping's `Float[jax.Array, "B H W 3"]`."""
    plain = re.compile(r"(jax\.Array|np\.ndarray)( \| None)?")
    return any(
        a.annotation and plain.fullmatch(ast.unparse(a.annotation)) for a in function.parameters
    )


def untyped(function: Function) -> bool:
    """An argument without a type, or no type of the result."""
    return function.node.returns is None or any(a.annotation is None for a in function.parameters)


def undocumented(function: Function) -> bool:
    """No docstring, where Flax does not name the method."""
    return not function.docstring and function.node.name != "setup"


def violations(source: str, rule) -> list[str]:
    return [
        f.name for f in functions(ast.parse(source).body) if rule(f) and f.name not in INTERFACE
    ]


RULES = [
    keys_not_first,
    positional_options,
    arrays_without_shapes,
    arrays_without_types,
    untyped,
    undocumented,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_public_functions_keep(rule):
    found = {str(f.relative_to(ROOT)): violations(f.read_text(), rule) for f in FILES}
    assert {file: names for file, names in found.items() if names} == {}


@pytest.mark.parametrize(
    ("rule", "bad", "good"),
    [
        (
            keys_not_first,
            "def f(z: jax.Array, key: jax.Array): ...",
            "def f(key: jax.Array, z: jax.Array): ...",
        ),
        (keys_not_first, "def f(rng: jax.Array): ...", "def f(path: Path, key: str): ..."),
        (positional_options, "def f(x, size=2): ...", "def f(x, *, size=2): ..."),
        (positional_options, "def f(x=1, size=2): ...", "def f(argv=None): ..."),
        (
            arrays_without_shapes,
            'def f(x: np.ndarray):\n  "An array."',
            'def f(x: np.ndarray):\n  "x is [B, 3]."',
        ),
        (
            arrays_without_types,
            "def f(x: jax.Array | None): ...",
            "def f(x: Float[jax.Array, 'B 3'] | None): ...",
        ),
        (untyped, "def f(x: int): ...", "def f(x: int) -> int: ..."),
        (undocumented, "def f(): ...", 'class A:\n  def __call__(self):\n    "Calls."'),
    ],
)
def test_rule_finds_what_it_is_for(rule, bad, good):
    assert violations(bad, rule) == ["f"]
    assert violations(good, rule) == []
