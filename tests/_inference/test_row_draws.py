"""The draws behind VAE's scores, and what continued training and odd labels do to it."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.datasets import load_iris

from helpers import make_rows
from skae import VAE
from skae._inference.row_draws import RowDraws

CPU = torch.device("cpu")


def noisy_rows(n_rows=200, seed=0):
    return make_rows(n_rows, 6, seed, scales=1.0, noise=0.4, mean=0.0, dtype=np.float64)


def vae(n_components=2, **params):
    options = {"hidden_layer_sizes": (16,), "max_iter": 20, "learning_rate_init": 0.01}
    return VAE(n_components, **{**options, "random_state": 0, "device": "cpu", **params})


def codes(n, k=3, seed=0):
    return torch.randn((n, k), generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------------- draws of a row


def test_every_row_has_standard_normal_draws():
    """By Kolmogorov and Smirnov, and uncorrelated."""
    draws = RowDraws(4000, 3, 0, CPU)
    for row in draws.of(codes(4), slice(None)).numpy():
        for column in row.T:
            assert stats.kstest(column, "norm").pvalue > 1e-3
        np.testing.assert_allclose(np.corrcoef(row.T), np.eye(3), atol=0.07)


def test_rows_have_draws_of_their_own():
    """Draws of different rows are uncorrelated on average, and hardly alike in square."""
    values = RowDraws(500, 3, 1, CPU).of(codes(60), slice(None)).flatten(1).numpy()
    apart = ~np.eye(60, dtype=bool)
    assert abs(np.corrcoef(values)[apart].mean()) < 0.05
    assert np.corrcoef(values**2)[apart].mean() < 0.1


def test_rows_that_differ_by_rounding_have_draws_that_do():
    z = codes(20)
    near = z * (1 + 1e-6)
    draws = RowDraws(300, 3, 0, CPU)
    apart = draws.of(z, slice(None)) - draws.of(near, slice(None))
    assert apart.abs().max() < 1e-3


def test_blocks_are_parts_of_the_draws():
    draws, z = RowDraws(10, 3, 0, CPU), codes(4)
    both = torch.cat([draws.of(z, slice(0, 7)), draws.of(z, slice(7, 10))], 1)
    torch.testing.assert_close(both, draws.of(z, slice(None)), rtol=0, atol=1e-5)
    assert len(draws) == 10


def test_the_error_of_a_score_averages_out():
    """Over seeds the mean score of many rows moves far less than one that shares its draws."""
    X = noisy_rows(400)
    model = vae(max_iter=40, init="random").fit(X)  # whose draws do not all say the same
    seeds = range(12)

    def spread_of(rows):
        found = []
        for seed in seeds:
            model._seed = seed
            found.append(model.score_samples(rows, n_importance=1).mean())
        return np.std(found)

    alone = np.mean([spread_of(X[i : i + 1]) for i in range(10)])
    assert spread_of(X) < 0.3 * alone


# ------------------------------------------------------------------------- the noise


def test_a_stream_learns_its_noise_from_new_draws():
    """Rows streamed one by one into a still network find the noise that fit finds."""
    X = noisy_rows(300)
    model = vae(learning_rate_init=1e-12, max_iter=1).fit(X)
    expected = model.noise_variance_
    found = []
    for row in np.tile(X, (2, 1)):
        model.partial_fit(row[None])
        found.append(model.noise_variance_)
    assert np.mean(found[100:]) == pytest.approx(expected, rel=0.15)


# --------------------------------------------------------------------------- training


@pytest.mark.parametrize("k", [50, 90])
def test_pseudo_rows_are_all_different(k):
    """Equal ones would have equal gradients, and stay equal."""
    X = noisy_rows(60)
    model = vae(prior="vamp", n_prior_components=k, max_iter=2).fit(X)
    rows = model.net_.module_.pseudo_rows.detach().numpy()
    assert len(np.unique(rows.round(5), axis=0)) == k


def test_an_adaptive_rate_waits_for_beta():
    """While beta grows the loss rises: that is no reason to slow down."""
    X = noisy_rows()
    params = {"learning_rate": "adaptive", "max_iter": 12}
    model = vae(beta_warm_up=11, **params).fit(X)
    assert model.net_.optimizer_.param_groups[0]["lr"] == 0.01
    still = vae(**params | {"max_iter": 40}, learning_rate_init=1e-6).fit(X)
    assert still.net_.optimizer_.param_groups[0]["lr"] < 1e-6


def test_targets_cannot_come_while_training_goes_on():
    X = noisy_rows(60)
    model = vae(warm_start=True, max_iter=1).fit(X)
    with pytest.raises(ValueError, match="conditional=True cannot change"):
        model.set_params(conditional=True).fit(X, np.arange(60) % 2)


def test_a_label_that_is_gone_has_no_share():
    """A warm start without it: nothing is drawn or filled in for it, and nothing is NaN."""
    X, y = noisy_rows(90), np.arange(90) % 3
    model = vae(conditional=True, warm_start=True, max_iter=2).fit(X, y)
    model.fit(X[y > 0], y[y > 0])
    assert model.class_prior_.tolist() == [0.0, 0.5, 0.5]
    holes = X.copy()
    holes[:, 0] = np.nan
    assert np.isfinite(model.impute(holes)).all()
    assert np.isfinite(model.score_samples(X)).all()


def test_several_numbers_may_be_given_once():
    X = noisy_rows(60)
    model = vae(conditional=True, max_iter=2).fit(X, X[:, :2])
    Z = model.transform(X[:4])
    each = model.inverse_transform(Z, y=np.tile([0.5, 1.5], (4, 1)))
    for once in ([0.5, 1.5], [[0.5, 1.5]]):
        np.testing.assert_allclose(model.inverse_transform(Z, y=once), each, rtol=1e-6)


def test_kinds_of_targets_do_not_mix():
    """Labels for numbers, numbers for labels, and one-hot rows for labels are errors that say y."""
    X, y = load_iris(return_X_y=True)
    by_label = vae(conditional=True, max_iter=1).fit(X, y)
    by_number = vae(conditional=True, max_iter=1).fit(X, X[:, 0])
    for model, wrong in [
        (by_label, [0.5, 1.5]),
        (by_label, np.eye(3)[:2].astype(int)),
        (by_label, ["a", "b"]),
        (by_number, ["a", "b"]),
        (by_number, [None, 3.0]),
    ]:
        with pytest.raises(ValueError, match=r"\by\b"):
            model.sample(2, y=wrong)
