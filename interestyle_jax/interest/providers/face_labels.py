"""Names of face parts in the field's label sets, and which of them are hair and face."""

from collections.abc import Sequence

from interestyle_jax.interest.providers.masks import plain_name

# CelebAMask-HQ's parts in its authors' order (index 0 is the background), `g_mask.py`.
CELEBAMASK_HQ = (
    "background", "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear",
    "mouth", "u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth",
)  # fmt: skip
# The same parts in the order of zllrunning's face-parsing.PyTorch (BiSeNet).
FACE_PARSING = (
    "background", "skin", "l_brow", "r_brow", "l_eye", "r_eye", "eye_g", "l_ear", "r_ear", "ear_r",
    "nose", "mouth", "u_lip", "l_lip", "neck", "neck_l", "cloth", "hair", "hat",
)  # fmt: skip
ORDERS = {"celebamask-hq": CELEBAMASK_HQ, "face-parsing": FACE_PARSING}

HAIR = {"hair"}
# Glasses belong to the face: CelebAMask-HQ's part covers the eyes behind them.
FACE = {
    "face", "skin", "facial skin", "nose", "mouth", "eye g", "eyeglasses", "glasses", "eye",
    "eyes", "l eye", "r eye", "left eye", "right eye", "brow", "brows", "l brow", "r brow",
    "left brow", "right brow", "left eyebrow", "right eyebrow", "ear", "ears", "l ear", "r ear",
    "left ear", "right ear", "lips", "u lip", "l lip", "upper lip", "lower lip", "inner mouth",
}  # fmt: skip


def face_and_hair(labels: Sequence[str]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Indices of the labels that are parts of the face, and of hair; either may be empty."""
    plain = [plain_name(label).removesuffix(".png") for label in labels]
    return (
        tuple(i for i, name in enumerate(plain) if name in FACE),
        tuple(i for i, name in enumerate(plain) if name in HAIR),
    )
