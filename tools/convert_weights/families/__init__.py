"""The families that the converter knows, one file each."""

from tools.convert_weights.families import lpips, stylegan2

FAMILIES = {family.name: family for family in (*lpips.FAMILIES, *stylegan2.FAMILIES)}
