"""The families that the converter knows, one file each."""

from interestyle_jax.errors import InputError

from ..conversion import Family
from . import (
    clip,
    face_embedders,
    graphonomy,
    inception,
    interfacegan,
    inverters,
    lpips,
    moco,
    mtcnn,
    resnet34,
    styleclip_global,
    styleclip_mapper,
    stylegan2,
    stylegan2_ada,
)

FAMILIES = {
    family.name: family
    for module in (
        lpips,
        stylegan2,
        stylegan2_ada,
        inverters,
        face_embedders,
        moco,
        inception,
        mtcnn,
        interfacegan,
        resnet34,
        graphonomy,
        clip,
        styleclip_mapper,
        styleclip_global,
    )
    for family in module.FAMILIES
}


def by_name(family: str) -> Family:
    """The family of that name.

    Raises:
      InputError: there is none; the message lists those there are.
    """
    if family not in FAMILIES:
        raise InputError(f"--family: {family!r}, expected auto or one of {', '.join(FAMILIES)}")
    return FAMILIES[family]
