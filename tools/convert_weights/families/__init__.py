"""The families that the converter knows, one file each."""

from tools.convert_weights.families import (
    face_embedders,
    interfacegan,
    lpips,
    moco,
    mtcnn,
    stylegan2,
)

FAMILIES = {
    family.name: family
    for module in (lpips, stylegan2, face_embedders, moco, mtcnn, interfacegan)
    for family in module.FAMILIES
}
