"""IntereStyle GAN inversion (Moon & Park, ECCV 2022) in JAX.

    import interestyle_jax as ij

    inversion = ij.load("avatar_interestyle").invert(images)  # [B, H, W, 3] in [-1, 1]

`load` gives a `Model`: its methods draw (`synthesize`), map and encode, invert, embed faces and
measure distances. What the commands do is in these functions:

- `interestyle_jax.jobs.inversions.invert_files`, `interestyle_jax.jobs.alignments.align_files` and
  `interestyle_jax.jobs.masks.write_masks` work on folders of images, resumed after a stop;
  `interestyle_jax.jobs.job.ImageJob` is a job of your own.
- `interestyle_jax.jobs.edits.edit_files` and `interestyle_jax.jobs.mixes.mix_files` edit and mix
  images or latents; `interestyle_jax.editing` has the edits themselves.
- `interestyle_jax.training.train_loop.train` trains what a config says;
  `interestyle_jax.config.presets` makes configs.
- `interestyle_jax.jobs.evaluations.evaluate` measures encoders on a data set.
- `interestyle_jax.export.files.export_weights` writes a model as one StableHLO or ONNX file.
- `interestyle_jax.page.app.serve` runs a page on 127.0.0.1 that inverts, edits and mixes uploads.
- `interestyle_jax.convert_weights.convert` reads official PyTorch checkpoints.
- `interestyle_jax.data` makes and reads data sets, `interestyle_jax.photos` finds, aligns and
  pastes back faces, `interestyle_jax.interest` has the masks and the uninterest filter,
  `interestyle_jax.models` the networks, `interestyle_jax.weights` reads and writes weight
  directories, `interestyle_jax.errors` has `InputError`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from interestyle_jax.errors import InputError

if TYPE_CHECKING:
    from interestyle_jax.inversion.inverter import Inversion, Model, load

__version__ = "0.2.0"
__all__ = ["load", "Model", "Inversion", "InputError", "__version__"]

# A wheel has the converter as `interestyle_jax.convert_weights`; in a checkout it lies in tools/.
_HERE = Path(__file__).resolve().parent
if not (_HERE / "convert_weights").exists() and (_HERE.parent / "tools/convert_weights").is_dir():
    __path__.append(str(_HERE.parent / "tools"))


def __getattr__(name: str):
    # JAX takes a second to import: `interestyle --help` must not wait for it.
    if name in ("Inversion", "Model", "load"):
        from interestyle_jax.inversion import inverter

        return getattr(inverter, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
