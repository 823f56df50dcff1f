"""Eight fake CPU devices, no random plugins, and the golden data of the official code."""

import importlib.util
import json
import math
import os
import re
import shutil
from pathlib import Path
from typing import NamedTuple

# Tests compile far more than they compute. Read when JAX starts its CPU client.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0"
).strip()

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)

SHARED = Path(__file__).resolve().parents[2] / "shared"
# Where the shared folder is there, any other reason to skip is a failure.
EXPECTED_SKIPS = (
    "could not import 'torch'",
    "torch is not installed",
    "dlib and its landmark file are not installed",
    "Chromium is not installed",
    "the compiler of TPUs is not installed",
    "the compiler of NVIDIA GPUs is not installed",
)
# Official networks at full size, up to 10 GB a test: several processes run these one by one.
LARGE = (
    "tests/editing/test_official_edits.py",
    "tests/inversion/test_official_loops.py",
    "tests/models/test_encoders_parity.py",
    "tests/models/test_graphonomy_parity.py",
    "tests/models/test_stylegan2_parity.py",
    "tests/tools/test_inverter_families.py",
    "tests/tools/test_manifests.py",
    "tests/training/test_losses_parity.py",
    "tests/training/test_official_step.py",
)


def pytest_addoption(parser):
    """How many damaged inputs tests/robustness tries, and which."""
    group = parser.getgroup("interestyle_jax")
    group.addoption("--fuzz-cases", type=int, default=200, help="damaged inputs (default 200)")
    group.addoption("--fuzz-seed", type=int, default=0, help="their seed (default 0)")
    group.addoption("--fuzz-case", type=int, help="this one alone")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Gives `--dist=loadfile` the large tests as if they were one file: to one process."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduler(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return "large" if file in LARGE else file

    return Scheduler(config, log)


def _fail_unexpected_skip(report):
    if report.skipped and not hasattr(report, "wasxfail") and SHARED.is_dir():
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not reason.startswith(EXPECTED_SKIPS):
            report.outcome, report.longrepr = "failed", f"unexpected skip: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Skipped tests."""
    return _fail_unexpected_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    """Test files skipped as a whole."""
    return _fail_unexpected_skip((yield))


class Product(NamedTuple):
    """A matrix product or convolution of a lowered program: its operands' types and precisions."""

    kind: str
    types: tuple[str, str]
    precisions: tuple[str, ...]

    @property
    def exact(self) -> bool:
        """Whether no backend may round its operands."""
        return set(self.types) == {"f32"} and set(self.precisions) == {"HIGHEST"}

    @property
    def fast(self) -> bool:
        """Whether it is bfloat16, with no precision asked for."""
        return set(self.types) == {"bf16"} and set(self.precisions) == {"DEFAULT"}


@pytest.fixture(scope="session")
def products():
    """(function, *arguments, **options of jit) -> the products of its StableHLO, lowered only."""

    def read(function, *arguments, **options):
        text = jax.jit(function, **options).lower(*arguments).as_text()
        found = []
        for line in text.splitlines():
            kind = re.search(r"stablehlo\.(convolution|dot\w*)", line)
            if kind:
                operands = re.search(r" : \(tensor<([^>]*)>, tensor<([^>]*)>\)", line).groups()
                types = tuple(shape.split("x")[-1] for shape in operands)
                precisions = tuple(re.findall(r"DEFAULT|HIGHEST|HIGH", line))
                found.append(Product(kind[1], types, precisions or ("DEFAULT",)))
        assert found, "no products in the program"
        return found

    return read


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """The folder with the official code's numbers; tests that need it skip where it is missing."""
    directory = SHARED / "golden"
    if not directory.is_dir():
        pytest.skip(f"golden data not found at {directory}")
    return directory


@pytest.fixture(scope="session")
def goldenfill(golden_dir):
    """The module that makes golden weights and inputs from their names."""
    spec = importlib.util.spec_from_file_location("goldenfill", golden_dir / "goldenfill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def golden_manifest(golden_dir):
    """Manifest's name -> {section: [(key, shape, dtype)]} of an official checkpoint."""

    def read(name):
        path = golden_dir / "manifests" / f"{name}.json"
        return json.loads(path.read_text())["sections"]

    return read


@pytest.fixture(scope="session")
def golden_case(golden_dir, goldenfill):
    """Golden file's name -> its numbers, and its inputs by name as [B, H, W, C] where images."""

    def read(name):
        with np.load(golden_dir / "public" / f"{name}.npz") as file:
            numbers = {key: file[key] for key in file.files}
        inputs = {}
        for recipe in json.loads(str(numbers.pop("recipe_json"))):
            call = recipe["call"]
            value = getattr(goldenfill, call)(recipe["name"], *recipe["args"], **recipe["kwargs"])
            name = f"{recipe['name']}:mask" if call == "mask" else recipe["name"]
            # One name with other arguments is another image.
            name = f"{name}:{len(inputs)}" if name in inputs else name
            inputs[name] = value.transpose(0, 2, 3, 1) if value.ndim == 4 else value
        return numbers, inputs

    return read


@pytest.fixture(scope="session")
def golden_weights(golden_manifest, goldenfill, tmp_path_factory):
    """(manifest's name, {file name: layout}) -> the weight directory that the converter makes.

    A layout takes `fill(section, start="")`, the section's tensors whose keys start so, and returns
    the file's content; the default is one file that is the section "state_dict".
    """
    torch = pytest.importorskip("torch", reason="torch is not installed (extra [convert])")
    from tools.convert_weights import convert

    made = {}

    def make(name, layouts=None):
        sections = golden_manifest(name)
        layouts = layouts or {"weights.pth": lambda fill: fill("state_dict")}

        def entries(section, start):
            return [e for e in sections[section] if e[0].startswith(start)]

        def keys(section, start=""):
            return {key: key for key, *_ in entries(section, start)}

        def fill(section, start=""):
            return goldenfill.fill_all(entries(section, start))

        # Two tests may lay the same manifest out differently.
        asked = name, repr({file: layout(keys) for file, layout in layouts.items()})
        if asked in made:
            return made[asked]
        folder = tmp_path_factory.mktemp(name)
        for file, layout in layouts.items():
            content = layout(fill)
            if file.endswith(".npy"):
                np.save(folder / file, content, allow_pickle=True)
            else:
                torch.save(
                    jax.tree.map(
                        lambda x: torch.from_numpy(x) if isinstance(x, np.ndarray) else x, content
                    ),
                    folder / file,
                )
        print(convert([folder / file for file in layouts], folder / "weights"))
        for file in layouts:
            (folder / file).unlink()
        made[asked] = folder / "weights"
        return made[asked]

    yield make
    # pytest keeps its folders of several runs; these would be gigabytes.
    for directory in made.values():
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder beside the project with images and official files."""
    if not SHARED.is_dir():
        pytest.skip(f"shared folder not found at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory) -> Path:
    """A folder with weight directories of tiny random networks at 32 pixels.

    "inverter" and "other" hold generator, encoder and w_avg, "generator" no encoder, "encoder"
    nothing else.
    """
    from interestyle_jax.models import registry
    from interestyle_jax.models.encoders import BackboneEncoder
    from interestyle_jax.models.stylegan2 import Generator
    from interestyle_jax.weights import save_weights

    folder = tmp_path_factory.mktemp("weights")
    generator = Generator(
        resolution=32, w_dim=16, z_dim=16, mapping_depth=2, channel_base=256, channel_max=8
    )
    encoder = BackboneEncoder(
        num_styles=8, input_size=32, units=(1, 1, 1), widths=(4, 4, 8, 8), head_width=8, w_dim=16
    )
    parts = {
        "generator": registry.describe(generator),
        "encoder": registry.describe(encoder),
    }

    def save(name, seed, *names):
        # Drawn by NumPy: compiling the networks' own initialisation takes a minute.
        rng = np.random.default_rng(seed)

        def draw(path, spec):
            names = [key.key for key in path]
            if names[-1] in ("scale", "var"):
                return np.ones(spec.shape, np.float32)
            if len(spec.shape) < 2:
                centre = 1.0 if "modulation" in names else 0.0
                return rng.normal(centre, 0.1, spec.shape).astype(np.float32)
            # Kernels of the generator and of the heads' dense layer are scaled in the network.
            scaled = "generator" in names or names[-1] == "dense_kernel"
            spread = 1.0 if scaled else 1 / math.sqrt(math.prod(spec.shape[:-1]))
            return rng.normal(0, spread, spec.shape).astype(np.float32)

        shapes = {n: registry.variable_shapes(parts[n]) for n in names if n != "w_avg"}
        variables = jax.tree_util.tree_map_with_path(draw, shapes)
        if "w_avg" in names:
            variables["w_avg"] = rng.normal(size=16).astype(np.float32)
        save_weights(
            folder / name,
            variables,
            family="interestyle",
            architectures={n: parts[n] for n in names if n != "w_avg"},
            licence="none: random numbers",
        )

    save("inverter", 0, "generator", "encoder", "w_avg")
    save("other", 1, "generator", "encoder", "w_avg")
    save("generator", 0, "generator", "w_avg")
    save("encoder", 0, "encoder")
    return folder


@pytest.fixture
def make_photos(tmp_path):
    """(names, side=16) -> a folder with `images` and `masks` of these names, JPEG and PNG."""
    from PIL import Image

    def make(names, side=16, kinds=("masks",)):
        rng = np.random.default_rng(1)
        for kind in ("images", *kinds):
            (tmp_path / kind).mkdir(parents=True, exist_ok=True)
        for name in names:
            image = rng.integers(0, 256, (side, side + 4, 3), np.uint8)
            Image.fromarray(image).save(tmp_path / "images" / f"{name}.jpg")
            for kind in kinds:
                mask = np.zeros((side, side + 4), np.uint8)
                mask[2:12, 5 : 9 + int(rng.integers(0, 6))] = 255
                Image.fromarray(mask).save(tmp_path / kind / f"{name}.png")
        return tmp_path

    return make
