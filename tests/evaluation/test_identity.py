"""The ID metric with a detector and an embedder whose answers are known."""

import numpy as np

from interestyle_jax.evaluation.identity import (
    Identity,
    aligned_face,
    identity_options,
    similarity,
)
from interestyle_jax.photos.faces import Face
from interestyle_jax.photos.five_point_alignment import REFERENCE
from interestyle_jax.weights import digest


def detect(image):
    """Two faces, the likelier one 3 pixels further down; none in a black image."""
    box = np.array([0.0, 0.0, 111.0, 111.0])
    if not image.any():
        return []
    return [Face(box, 0.9, REFERENCE + [0, 3]), Face(box, 0.5, REFERENCE)]


def embed(faces):
    """The unit vector of a face's mean colour."""
    assert faces.shape[1:] == (112, 112, 3) and faces.dtype == np.float32
    colour = faces.mean((1, 2), dtype=np.float64)
    return colour / np.linalg.norm(colour, axis=-1, keepdims=True)


def test_the_likeliest_face_is_taken_and_scaled():
    image = np.random.default_rng(0).integers(0, 256, (115, 112, 3), np.uint8)
    want = image[3:].astype(np.float32) / 127.5 - 1
    np.testing.assert_allclose(aligned_face(detect, image), want, atol=1e-6)
    assert aligned_face(detect, np.zeros_like(image)) is None


def test_similarity_is_the_cosine_of_pairs_with_faces():
    red, blue, black = (np.zeros((115, 112, 3), np.uint8) for _ in range(3))
    red[...], blue[...] = (255, 0, 0), (0, 0, 255)
    identity = Identity(detect, embed)
    pairs = [(red, red), (red, blue), (red, black), (black, red)]
    faces = [identity.faces(*pair) for pair in pairs]
    assert [pair is None for pair in faces] == [False, False, True, True]
    embeddings = identity.embed(np.stack(faces[:2]))
    assert embeddings.shape == (2, 2, 3)
    # (1, -1, -1) and (-1, -1, 1) in [-1, 1].
    np.testing.assert_allclose([similarity(pair) for pair in embeddings], [1.0, -1 / 3], atol=1e-6)


def test_without_a_detector_whole_images_are_compared():
    red, blue = (np.zeros((8, 8, 3), np.uint8) for _ in range(2))
    red[...], blue[...] = (255, 0, 0), (0, 0, 255)
    identity = Identity(None, lambda images: images.mean((1, 2)) / np.sqrt(np.float32(3)))
    pair = identity.faces(red, blue)
    assert pair.shape == (2, 8, 8, 3)
    assert abs(similarity(identity.embed(pair[None])[0]) + 1 / 3) < 1e-6


def test_figures_belong_to_their_networks():
    own = digest("lpips_alex")
    assert identity_options("lpips_alex", "none") == {"identity": own, "face_detector": "none"}
    assert identity_options("lpips_alex", "lpips_alex")["face_detector"] == own
    assert identity_options(None, None) == {"identity": None, "face_detector": None}
