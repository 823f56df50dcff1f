"""The ID metric: is it the same person before and after inversion?"""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jaxtyping import Float, UInt8

from interestyle_jax.data.pixels import to_float
from interestyle_jax.photos.faces import Face
from interestyle_jax.photos.five_point_alignment import align_face

Detect = Callable[[np.ndarray], Sequence[Face]]
Embed = Callable[[np.ndarray], jax.Array]


def aligned_face(
    detect: Detect, image: UInt8[np.ndarray, "H W 3"]
) -> Float[np.ndarray, "112 112 3"] | None:
    """The likeliest face of an image, as embedders take it; None where no face is found.

    Args:
      detect: a `photos.mtcnn_detector.FaceDetector`.
      image: uint8 [H, W, 3], RGB.

    Returns:
      [112, 112, 3] in [-1, 1].
    """
    faces = detect(image)
    if not faces:
        return None
    return to_float(align_face(image, faces[0].landmarks))


def id_similarity(
    detect: Detect,
    embed: Embed,
    a: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    b: Sequence[UInt8[np.ndarray, "_ _ 3"]],
) -> Float[np.ndarray, " n"]:
    """Cosine of the embeddings of each pair's faces: [n], NaN where either has no face.

    The official metric leaves such pairs out: take `np.nanmean`, and say how many there were.

    Args:
      detect: a `photos.mtcnn_detector.FaceDetector`.
      embed: faces [m, 112, 112, 3] in [-1, 1] -> unit vectors [m, D]; CurricularFace officially.
      a, b: n images each, uint8 [H, W, 3].

    Source: the official `calc_id_loss_parallel.py`.
    """
    similarity = np.full(len(a), np.nan)
    for i, pair in enumerate(zip(a, b, strict=True)):
        faces = [aligned_face(detect, image) for image in pair]
        if all(face is not None for face in faces):
            first, second = np.asarray(embed(np.stack(faces)), np.float64)
            similarity[i] = first @ second
    return similarity
