"""How a face is turned and what it does, from Face Mesh's 468 points.

Numbers without units, about the face's own size: good to order faces by, as scores for directions.
"""

import numpy as np

from interestyle_jax.photos.faces import Face

# Points of Face Mesh: nose tip, cheeks at ear height, brow to chin, lips, corners, eyelids.
_NOSE_TIP, _CHEEKS, _CHIN, _FOREHEAD = 1, (234, 454), 152, 10
_INNER_LIPS, _MOUTH_CORNERS = (13, 14), (61, 291)
_EYE_CORNERS = ((33, 133), (362, 263))
_EYELIDS = ((159, 145), (386, 374))
_BROWS = (105, 334)
NAMES = ("yaw", "pitch", "roll", "mouth_open", "smile_width", "eyes_open", "brow_height")


def face_geometry(face: Face) -> dict[str, float]:
    """Numbers by the names NAMES, from a face's landmarks [468, 2].

    yaw: how far the tip of the nose lies from the middle between the cheeks, in half widths of the
    face, to the image's right; pitch: how far it lies below the middle between forehead and chin,
    in half heights; roll: degrees by which the eyes' line is turned clockwise; mouth_open: between
    the inner lips, smile_width: between the corners of the mouth, and brow_height: from the eyelids
    to the brows, in distances between the eyes; eyes_open: between the lids, in widths of an eye.

    Raises:
      ValueError: another number of landmarks.
    """
    points = np.asarray(face.landmarks, np.float64)
    if points.shape != (468, 2):
        raise ValueError(f"landmarks: expected [468, 2], got {points.shape}")
    eyes = [points[list(corners)].mean(0) for corners in _EYE_CORNERS]
    across = eyes[1] - eyes[0]
    apart = np.linalg.norm(across)
    right = across / apart
    # Image rows grow downwards: a quarter turn clockwise from "right".
    down = np.array([-right[1], right[0]])

    def between(pair) -> float:
        return float(np.linalg.norm(points[pair[1]] - points[pair[0]]))

    cheeks, height = points[list(_CHEEKS)], points[[_FOREHEAD, _CHIN]]
    nose = points[_NOSE_TIP]
    half_width = (cheeks[1] - cheeks[0]) @ right / 2
    half_height = (height[1] - height[0]) @ down / 2
    lids = [
        between(lids) / between(corners)
        for lids, corners in zip(_EYELIDS, _EYE_CORNERS, strict=True)
    ]
    brows = [
        (points[lid[0]] - points[brow]) @ down for lid, brow in zip(_EYELIDS, _BROWS, strict=True)
    ]
    return {
        "yaw": float((nose - cheeks.mean(0)) @ right / half_width),
        "pitch": float((nose - height.mean(0)) @ down / half_height),
        "roll": float(np.degrees(np.arctan2(right[1], right[0]))),
        "mouth_open": float(between(_INNER_LIPS) / apart),
        "smile_width": float(between(_MOUTH_CORNERS) / apart),
        "eyes_open": float(np.mean(lids)),
        "brow_height": float(np.mean(brows) / apart),
    }
