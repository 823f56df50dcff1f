"""The cells of docs/tutorial.ipynb, which `python -m experiments.tutorial` makes of this file.

"# %%" begins a cell of code, "# %% [markdown]" one of text.
"""
# ruff: noqa: E402

# %% [markdown]
# # IntereStyle, step by step
#
# An encoder turns an image into the latent of a StyleGAN2 generator. IntereStyle (Moon and Park,
# ECCV 2022) trains it to reconstruct one region, of portraits the face and hair, and to ignore
# whatever lies around and in front of it. Here it inverts drawn avatars with the weights that ship
# with the package: no download, no photograph, a minute on two CPU cores.
#
# On Colab, put the address of your copy of the repository into the next cell. Elsewhere, with the
# package installed, it does nothing.

# %%
import importlib.util
import subprocess
import sys

SOURCE = "git+https://github.com/OWNER/interestyle_jax"

if importlib.util.find_spec("interestyle_jax") is None:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", SOURCE], check=True)

# %%
import io

import jax
import numpy as np
from IPython.display import Image as JPEG
from IPython.display import display
from PIL import Image

import interestyle_jax as ij
from interestyle_jax.data.avatars.world import clean_sample, sample
from interestyle_jax.editing.bands import band_rows
from interestyle_jax.editing.boundaries import mean_difference
from interestyle_jax.editing.directions import Direction
from interestyle_jax.evaluation.grids import draw_grid, error_image, iteration_label, mask_image
from interestyle_jax.weights import digest

print("interestyle_jax", ij.__version__, "jax", jax.__version__, jax.default_backend())
print("weights", digest("avatar_interestyle"))


def floats(images):
    """uint8 images as the package takes them: float32 [B, H, W, 3] in [-1, 1]."""
    return np.stack(images).astype(np.float32) / 127.5 - 1


def show(rows, columns, labels=None):
    """A labelled grid of images, small and as JPEG, so that the notebook is small."""
    grid = Image.fromarray(draw_grid(rows, columns, row_labels=labels))
    file = io.BytesIO()
    grid.resize((grid.width * 3 // 4, grid.height * 3 // 4)).save(file, "JPEG", quality=80)
    display(JPEG(file.getvalue()))


# %% [markdown]
# ## The avatar world
#
# `sample` draws an avatar before a busy background and behind an obstacle, and what no photograph
# tells: the same avatar without them, and the exact mask of face and hair. The encoder has seen
# others of this kind; these are of the test split.

# %%
avatars = [sample(i, size=64, split="test") for i in (0, 3, 4, 5, 9, 13)]
images = floats([avatar["image"] for avatar in avatars])
clean = floats([avatar["clean"] for avatar in avatars])
masks = np.stack([avatar["interest_mask"] for avatar in avatars]) / np.float32(255)
obstacles = [avatar["obstacle"] for avatar in avatars]
show(
    [[a, b, mask_image(m)] for a, b, m in zip(images, clean, masks, strict=True)],
    ["image", "clean", "interest mask"],
    obstacles,
)

# %% [markdown]
# ## Load and invert
#
# No mask is given: the encoder has learnt what to ignore. It sees the image beside its last result
# and corrects the latent, five times.

# %%
model = ij.load("avatar_interestyle")
inversion = model.invert(images, num_steps=5)
print("w_plus", inversion.w_plus.shape, "images", inversion.images.shape)

# %%
first = np.repeat(np.asarray(model.synthesize(model.mean_latent())), len(images), axis=0)
steps = np.asarray(inversion.images)
show(
    [
        [images[i], first[i], *steps[:, i], error_image(clean[i], steps[-1, i])]
        for i in range(len(images))
    ],
    ["image", *(iteration_label(i) for i in range(6)), "error to clean"],
    obstacles,
)

# %% [markdown]
# ŷ₀ is the image of the mean latent, with which every inversion starts. The error is that of the
# last result to the clean avatar, which the encoder has not seen; the background counts for
# nothing.

# %% [markdown]
# ## How much does the obstacle leak into the face?
#
# Invert the clean avatars too, and compare both inversions where face and hair are visible. If the
# encoder ignored obstacle and background altogether, the two would be equal. LPIPS is a distance
# as people see it; 0 is equal.

# %%
lpips = ij.load("lpips_alex")
clean_inversion = model.invert(clean)


def distance(a, b):
    """LPIPS of two batches inside the interest masks, [B]."""
    return np.asarray(lpips.distance(np.asarray(a) * masks, np.asarray(b) * masks))


print("iteration   to the clean avatar   leakage")
for i in range(5):
    error = distance(steps[i], clean).mean()
    leakage = distance(steps[i], clean_inversion.images[i]).mean()
    print(f"{i + 1:9}   {error:19.3f}   {leakage:7.3f}")
print(f"mean latent {distance(first, clean).mean():19.3f}")
leaked = distance(steps[-1], clean_inversion.images[-1])
print(", ".join(f"{kind} {x:.3f}" for kind, x in zip(obstacles, leaked, strict=True)))

# %% [markdown]
# ## Edit
#
# A direction is a way to move latents. Of avatars everything is known, so one can be made from
# labels: invert a few hundred clean avatars, and take the difference between the mean latents with
# and without the attribute, with the other attributes regressed out. (Photographs: `interestyle
# directions`, or files of other projects.)

# %%
known = [clean_sample(i, size=64) for i in range(256)]
batches = [
    model.invert(floats([s["clean"] for s in known[i : i + 64]]), return_images="none").w_plus[-1]
    for i in range(0, len(known), 64)
]
latents = np.concatenate(batches).reshape(len(known), -1)
labels = [s["labels"] for s in known]
scores = {
    "bun": np.array([label["hair"] == "bun" for label in labels], np.float64),
    "beard": np.array([label["beard"] != "none" for label in labels], np.float64),
    "tilt": np.array([label["tilt"] / 10 for label in labels]),
}
directions = []
for name, values in scores.items():
    others = [scores[other] for other in scores if other != name]
    array = mean_difference(latents, values, others=others).reshape(model.latents_shape)
    directions.append(Direction(name, "w_plus", array, unit="raw", source="labels of 256 avatars"))
print({direction.name: round(direction.norm, 1) for direction in directions})

# %%
w_plus = inversion.w_plus[-1]
strengths = (-2, -1, 0, 1, 2)
for direction in directions:
    edited = [np.asarray(model.synthesize(w_plus[:3] + s * direction.array)) for s in strengths]
    show(
        [[images[i], *(image[i] for image in edited)] for i in range(3)],
        [f"{direction.name}: image", *(f"{s:+d}" if s else "inversion" for s in strengths)],
    )

# %% [markdown]
# `interestyle_jax.editing.directions.save_direction` writes a direction as a file, and
# `interestyle edit --direction=FILE` takes it for whole folders.

# %% [markdown]
# ## Mix
#
# Rows of `w_plus` act at different sizes: coarse ones on the head and hair, fine ones on colours.
# Each row of the grid keeps its own latent but for a band of rows, which it takes from the image
# above.

# %%
contents, styles = w_plus[:3], w_plus[3:]
for bands in (["coarse"], ["middle", "fine"]):
    rows = np.array(band_rows(bands, model.latents_shape[0]))
    grid = [[np.ones_like(images[0]), *images[3:]]]
    for i in range(3):
        mixed = np.repeat(np.asarray(contents[i : i + 1]), 3, axis=0)
        mixed[:, rows] = np.asarray(styles)[:, rows]
        grid.append([images[i], *np.asarray(model.synthesize(mixed))])
    show(grid, [" and ".join(bands), *["style"] * 3], ["", *["content"] * 3])

# %% [markdown]
# ## Go on
#
# - your own images: `interestyle invert --weights=avatar_interestyle --input=images/
#   --out=inverted/`; photographs need converted official weights (`interestyle convert`) and
#   `--align`
# - train an encoder: `bash launch/quickstart.sh`, nine minutes on two cores
# - one file that runs without this package: `interestyle export`
