"""The rows of the paper's Table 2, one component added after the other, and one beyond it."""

import ml_collections

ROWS = {
    "restyle": "ReStyle (pSp)",
    "interest": "+ L_Image on the interest region",
    "ind": "+ interest disentanglement (InD)",
    "unf": "+ uninterest filter (UnF)",
    "swap": "+ uninterest swap (not in the paper)",
}
SWAP_SHARE = 0.5


def set_row(config: ml_collections.ConfigDict, row: str) -> ml_collections.ConfigDict:
    """Takes components out of an `interestyle` config until it is a row of Table 2, in place.

    Only the method changes; lambda, the radii and everything else stay the config's own, so that
    the rows differ by their component alone and have the same number of steps.

    - "restyle": the loss on the whole image, at every iteration, each on constants of the one
      before (`gradient` "each"); no disentanglement, no filter.
    - "interest": the loss on the interest region. Back-propagation becomes IntereStyle's too: once,
      after iteration N (`gradient` "last", section 3.5). The paper's text for this row names only
      the loss; since its training has no other form, this row carries both changes.
    - "ind": L_InD (Eq. 1) with the config's weight.
    - "unf": the filter (Eq. 2) with the config's radii; the config unchanged.
    - "swap": beyond the paper, `method.swap` for half of the samples.

    Args:
      config: a whole `interestyle` config (`config.presets.encoder_config`).
      row: one of `ROWS`.

    Raises:
      ValueError: unknown row, or a config that lacks a component.
    """
    if row not in ROWS:
        raise ValueError(f"row: expected one of {', '.join(ROWS)}, got {row!r}")
    method = config.method
    whole = method.interest_loss and method.gradient == "last"
    if not (whole and method.disentangle_weight > 0 and any(method.filter_radii)):
        raise ValueError("config.method: expected the whole method, a component is off already")
    if row == "swap":
        method.swap = SWAP_SHARE
    elif row != "unf":
        method.filter_radii = tuple(0.0 for _ in method.filter_radii)
    if row in ("restyle", "interest"):
        method.disentangle_weight = 0.0
    if row == "restyle":
        method.interest_loss = False
        method.gradient = "each"
        config.preset = "restyle_psp"
    return config
