"""The ID metric: is it the same person before and after inversion?"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, UInt8

from interestyle_jax.data.pixels import to_float
from interestyle_jax.errors import InputError
from interestyle_jax.inversion.inverter import Model, load
from interestyle_jax.models import registry
from interestyle_jax.models.embedders import FaceEmbedder
from interestyle_jax.models.face_crop import id_crop
from interestyle_jax.photos.faces import Face
from interestyle_jax.photos.five_point_alignment import align_face
from interestyle_jax.photos.mtcnn_detector import FaceDetector
from interestyle_jax.weights import digest, load_weights, resolve_weights

# In place of a face detector: whole images are embedded, as the identity loss does.
NO_DETECTOR = "none"
# Of a face, as embedders take it.
FACE = (112, 112, 3)
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


class Identity:
    """Finds the faces of images and inversions, and compares who is in them.

    Without a detector the images themselves are compared, by an embedder of any kind.

    Source: the official `calc_id_loss_parallel.py`.
    """

    def __init__(self, detect: Detect | None, embed: Embed):
        """Takes the two networks.

        Args:
          detect: a `photos.mtcnn_detector.FaceDetector`, or None.
          embed: faces [m, 112, 112, 3] in [-1, 1] -> unit vectors [m, D]; officially
            CurricularFace. Without a detector it takes the images.
        """
        self._detect, self._embed = detect, embed

    def faces(
        self, a: UInt8[np.ndarray, "_ _ 3"], b: UInt8[np.ndarray, "_ _ 3"]
    ) -> Float[np.ndarray, "2 _ _ 3"] | None:
        """The faces of two images, uint8 [H, W, 3]; None where either has none.

        [2, 112, 112, 3] in [-1, 1]; without a detector the images, [2, H, W, 3].
        """
        if self._detect is None:
            return to_float(np.stack([a, b]))
        faces = []
        for image in (a, b):
            face = aligned_face(self._detect, image)
            if face is None:
                return None
            faces.append(face)
        return np.stack(faces)

    def embed(self, faces: Float[np.ndarray, "B 2 _ _ 3"]) -> Float[jax.Array, "B 2 D"]:
        """Starts the embedding of pairs of faces: [B, 2, h, w, 3] -> unit vectors [B, 2, D]."""
        embedded = self._embed(faces.reshape(-1, *faces.shape[2:]))
        return embedded.reshape(*faces.shape[:2], -1)


def similarity(embeddings: Float[np.ndarray, "2 D"]) -> float:
    """Cosine of two unit vectors [2, D].

    The official metric leaves pairs without a face out: take the mean of the others, and say how
    many there were.
    """
    first, second = np.asarray(embeddings, np.float64)
    return float(first @ second)


def load_identity(
    identity: str | Path | None, face_detector: str | Path | None, *, mesh: Mesh | None = None
) -> Identity | None:
    """The ID metric from two weight directories, or None where neither is given.

    With the face detector "none" images are not searched for faces: a face embedder takes the
    part that the identity loss looks at (`models.face_crop`), another embedder the whole image.
    Such figures do not compare with those of aligned faces.

    Faces are embedded on all devices of the mesh; they are found on JAX's default one, whose
    networks are small.

    Raises:
      InputError: one without the other, no such weights, or a network missing in them.
    """
    if identity is None and face_detector is None:
        return None
    if identity is None or face_detector is None:
        raise InputError("id similarity: expected an embedder and a face detector, got one of them")
    embedder = load(identity, mesh=mesh)
    if "embedder" not in embedder.variables:
        raise InputError(f"{embedder.directory}: no embedder in these weights")
    if str(face_detector) == NO_DETECTOR:
        return Identity(None, _embed_crop(embedder))
    detector = FaceDetector(load_weights(resolve_weights(face_detector)))
    return Identity(detector, embedder.embed)


def identity_options(
    identity: str | Path | None, face_detector: str | Path | None
) -> dict[str, str | Path | None]:
    """What figures of `load_identity` depend on, as JSON."""
    is_network = face_detector is not None and str(face_detector) != NO_DETECTOR
    return {
        "identity": None if identity is None else digest(identity),
        "face_detector": digest(face_detector) if is_network else face_detector,
    }


def embed_found(
    identity: Identity, rows: Sequence[Sequence[np.ndarray | None] | None]
) -> list[dict[str, Any]]:
    """Starts the embedding of a batch of `Identity.faces`.

    Args:
      identity: embeds.
      rows: of each image the pairs that are compared, [2, h, w, 3] or None; None for no image.

    Returns:
      For each of these pairs {"embeddings": [B, 2, D], "has_faces": bool [B]}.
    """
    embedded = []
    for k in range(max(0 if row is None else len(row) for row in rows)):
        pairs = [None if row is None else row[k] for row in rows]
        shape = next((pair.shape for pair in pairs if pair is not None), (2, *FACE))
        stacked = np.stack([np.zeros(shape, np.float32) if p is None else p for p in pairs])
        found = np.array([pair is not None for pair in pairs])
        embedded.append({"embeddings": identity.embed(stacked), "has_faces": found})
    return embedded


def similarity_of_found(row: Mapping[str, Any]) -> float | None:
    """`similarity` of an image's row of one entry of `embed_found`; None without faces."""
    return similarity(row["embeddings"]) if row["has_faces"] else None


_crop = jax.jit(id_crop, static_argnames="size")


def _embed_crop(model: Model) -> Embed:
    """`embed` of a model for whole images."""
    module = registry.build(model.metadata["architectures"]["embedder"])

    def embed(images):
        if isinstance(module, FaceEmbedder):
            images = jax.device_get(_crop(jax.device_put(images), size=module.input_size))
        return model.embed(images)

    return embed
