"""FID and KID of features against closed forms and plain formulas, and their cached statistics."""

import numpy as np
import pytest
from scipy import linalg

from interestyle_jax.errors import InputError
from interestyle_jax.evaluation.fid import (
    FewImagesWarning,
    Statistics,
    fid,
    kid,
    load_extractor,
    load_statistics,
)
from interestyle_jax.jobs.feature_sets import as_text, from_text

RNG = np.random.default_rng(0)
OWN = {"mode": "clean", "weights": "abc"}


def test_fid_is_pytorch_fids_formula():
    a, b = RNG.normal(size=(60, 5)), RNG.normal(1.0, 2.0, size=(50, 5)) @ RNG.normal(size=(5, 5))
    first, second = (Statistics.of(x, **OWN) for x in (a, b))
    root = linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    want = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    assert fid(first, second) == pytest.approx(want, rel=1e-9)
    assert fid(first, first) == pytest.approx(0, abs=1e-9)


def test_few_images_are_told_with_numbers():
    first = Statistics.of(RNG.normal(size=(5, 8)), **OWN)
    with pytest.warns(FewImagesWarning, match="5 images for .* 8 features.* at most 4"):
        fid(first, first)


def test_kid_is_the_unbiased_estimate():
    a, b = RNG.normal(size=(7, 3)), RNG.normal(0.5, size=(6, 3))

    def kernel(x, y):
        return (x @ y / 3 + 1) ** 3

    # One subset of all rows of both.
    b = np.concatenate([b, b[:1] * 2])
    within = [
        np.mean([kernel(x[i], x[j]) for i in range(7) for j in range(7) if i != j]) for x in (a, b)
    ]
    want = sum(within) - 2 * np.mean([kernel(x, y) for x in a for y in b])
    mean, deviation = kid(a, b, num_subsets=3)
    assert mean == pytest.approx(want, rel=1e-9) and deviation == pytest.approx(0, abs=1e-9)
    mean, deviation = kid(RNG.normal(size=(400, 3)), RNG.normal(size=(400, 3)), subset_size=100)
    assert abs(mean) < 3 * deviation and deviation > 0
    with pytest.raises(ValueError, match="at least two rows"):
        kid(a[:1], b)


def test_statistics_name_their_mode_and_weights(tmp_path):
    features = RNG.normal(size=(9, 4))
    written = Statistics.of(features, **OWN)
    path = tmp_path / "fid_statistics.npz"
    written.save(path)
    read = load_statistics(path, **OWN)
    np.testing.assert_array_equal(read.covariance, np.cov(features.T))
    assert read.count == 9 and fid(read, written) == pytest.approx(0, abs=1e-12)
    with pytest.raises(InputError, match="statistics of mode clean, expected nvidia"):
        load_statistics(path, mode="nvidia", weights="abc")
    with pytest.raises(InputError, match="statistics of weights abc, expected def"):
        load_statistics(path, mode="clean", weights="def")
    np.savez(path, mu=np.zeros(4), sigma=np.eye(4))
    with pytest.raises(InputError, match="has no count, mode, weights"):
        load_statistics(path, **OWN)
    for damaged, said in (
        ({"sigma": np.full((4, 4), np.nan)}, "sigma is not of finite numbers"),
        ({"mu": np.array(list("abcd"))}, "mu is not of finite numbers"),
        ({"mu": np.zeros(3)}, r"mu \(3,\) and sigma \(4, 4\) do not fit"),
        ({"count": np.array([9, 9])}, r"count \[9, 9\], expected a whole number from 2"),
        ({"count": np.array(1)}, "count 1, expected"),
        ({"count": np.array("9")}, "count '9', expected"),
    ):
        whole = {"mu": np.zeros(4), "sigma": np.eye(4), "count": 9, **OWN}
        np.savez(path, **whole | damaged)
        with pytest.raises(InputError, match=said):
            load_statistics(path, **OWN)
    np.savez(path, mu=np.array([object()]))
    with pytest.raises(InputError, match="not readable as statistics"):
        load_statistics(path, **OWN)


def test_extractors_are_refused_by_name(tiny_weights):
    with pytest.raises(InputError, match="expected one of pytorch-fid, clean, nvidia, clip"):
        load_extractor("tf", tiny_weights / "encoder")
    with pytest.raises(InputError, match="no inception"):
        load_extractor("clean", tiny_weights / "encoder")
    with pytest.raises(InputError, match="no clip"):
        load_extractor("clip", tiny_weights / "encoder")


def test_features_are_kept_without_loss():
    features = RNG.normal(size=(3, 5)).astype(np.float32)
    np.testing.assert_array_equal(from_text(as_text(x) for x in features), features)
