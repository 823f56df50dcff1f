"""The results as a Markdown table, like the paper's Table 1."""

from collections.abc import Mapping
from typing import Any

from interestyle_jax.one_line import one_line

Column = tuple[str, tuple[str | int, ...], str]

FID, KID, EDIT_FID = "FID", "KID x 1000", "FID of edits"
# (header, path in an encoder's entry of metrics.json, number format)
COLUMNS: tuple[Column, ...] = (
    ("L2 interest", ("interest", "l2"), ".4f"),
    ("L2 face", ("face", "l2"), ".4f"),
    ("LPIPS interest", ("interest", "lpips"), ".4f"),
    ("LPIPS face", ("face", "lpips"), ".4f"),
    ("L2 whole", ("whole", "l2"), ".4f"),
    ("LPIPS whole", ("whole", "lpips"), ".4f"),
    ("PSNR", ("psnr",), ".2f"),
    ("MS-SSIM", ("ms_ssim",), ".3f"),
    ("ID similarity", ("id_similarity",), ".3f"),
    ("boundary IoU", ("boundary_iou",), ".3f"),
    (FID, ("fid", "fid"), ".2f"),
    (KID, ("fid", "kid_x1000"), ".2f"),
    (EDIT_FID, ("edit_fid", "fid"), ".2f"),
    ("leakage L2", ("leakage", "l2"), ".4f"),
    ("leakage LPIPS", ("leakage", "lpips"), ".4f"),
    ("latent variance", ("latent_variance", -1), ".3g"),
    ("NSCD", ("nscd",), ".3f"),
    ("NSCD of samples", ("nscd_of_samples",), ".3f"),
    ("s / image", ("seconds_per_image",), ".3g"),
)
RATIO = "LPIPS interest / mean latent's"
LEGEND = (
    "Lower is better, except for PSNR, MS-SSIM, ID similarity and boundary IoU. Measured as the "
    "official scripts do: inversions as 8-bit images (clipped, rounded), resized by PIL's bilinear "
    "filter to the encoder's input. L2 and LPIPS of a region: both images times its mask, mean "
    "over all pixels (the paper's Table 1). PSNR, MS-SSIM: of the whole image. Leakage: L2 and "
    "LPIPS between the inversions of the obstructed and of the clean image, inside the interest "
    "mask. ID similarity: over the images that show a face before and after. Boundary IoU: of the "
    "faces found in the inversion and in the image. FID, KID: of the inversions, or after the "
    "edits that metrics.json names, against real images, in the mode in brackets; mode lpips is "
    "the Fréchet distance of LPIPS's features, no FID. Latent variance: of w_N over its layers. "
    "NSCD: cosine distance of w_N's styles to the mean of the generator's samples, whose own is "
    "beside it. –: not measured."
)


def markdown_table(metrics: Mapping[str, Any]) -> str:
    """The content of `table.md`: a row for the mean latent, then one an encoder.

    Columns that nobody has a value for are left out.

    Args:
      metrics: the content of metrics.json.
    """
    rows = {"mean latent": metrics["mean_latent"], **metrics["encoders"]}
    columns = [c for c in COLUMNS if any(_value(row, c[1]) is not None for row in rows.values())]
    lpips = ("interest", "lpips")
    reference = _value(metrics["mean_latent"], lpips)
    headers = [_header(c[0], metrics) for c in columns] + ([RATIO] if reference else [])
    lines = [
        f"{metrics['num_images']} images of `{one_line(metrics['data'])}`.",
        "",
        "| encoder | " + " | ".join(headers) + " |",
        "|---|" + "---:|" * len(headers),
    ]
    for name, row in rows.items():
        cells = [_cell(_value(row, path), form) for _, path, form in columns]
        if reference:
            own = _value(row, lpips)
            cells.append(_cell(None if own is None else own / reference, ".3f"))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", LEGEND, ""])


def _header(header: str, metrics: Mapping[str, Any]) -> str:
    """With the mode where it is a FID."""
    if header not in (FID, KID, EDIT_FID):
        return header
    sets = [row["fid"] for row in metrics["encoders"].values() if row.get("fid")]
    return f"{header} ({sets[0]['mode']})" if sets else header


def _value(row: Mapping[str, Any], path: tuple[str | int, ...]) -> float | None:
    value: Any = row
    for key in path:
        if value is None or (isinstance(key, str) and key not in value):
            return None
        value = value[key]
    return value


def _cell(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
