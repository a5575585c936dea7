"""Codes that have bounds: maps by derivatives, densities by quadrature, draws, what is found."""

import pickle
import warnings

import joblib
import numpy as np
import pytest
import torch
from numpy import inf
from scipy import special, stats
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.datasets import load_digits
from sklearn.decomposition import NMF, PCA, MiniBatchNMF, TruncatedSVD
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler
from torch import nn

from skae import Autoencoder, LatentDensityEstimator
from skae._densities.code_supports import Support, check_support, limits_of
from skae._densities.code_units import CodeUnits

# -------------------------------------------------------------------------- helpers

LOW = np.array([0.0, -inf, -1.0, -inf, 2.0])
HIGH = np.array([inf, 3.0, 1.0, inf, 5.0])


def bounded(n=60, seed=0, on=0):
    """Codes with a lower bound, an upper one, two, none and two; the first ones on bounds."""
    rng = np.random.default_rng(seed)
    Z = np.stack(
        [
            rng.gamma(2.0, size=n),
            3 - rng.gamma(2.0, size=n),
            rng.uniform(-0.9, 0.9, n),
            rng.normal(size=n),
            rng.uniform(2.2, 4.8, n),
        ],
        1,
    )
    Z[:on, [0, 2]] = LOW[[0, 2]]
    Z[:on, [1, 4]] = HIGH[[1, 4]]
    return Z


def support_of(Z):
    return Support.of(Z, None, LOW, HIGH, Z.std(0))


def compositions(n=60, k=4, seed=0, total=1.0):
    return total * np.random.default_rng(seed).dirichlet(np.linspace(1, 3, k), n)


def simplex_of(Z, total=1.0):
    k = Z.shape[1]
    return Support.of(Z, None, np.zeros(k), np.full(k, total), Z.std(0), total)


def lde(*args, **params):
    defaults = {"random_state": 0}
    if isinstance(params.get("density", "autoregressive"), str):
        defaults |= {"n_channels": 8, "max_iter": 10, "batch_size": 64, "learning_rate_init": 5e-3}
        defaults |= {"device": "cpu"}
    if params.get("density", "autoregressive") == "autoregressive":
        defaults["n_mixture"] = 4
    return LatentDensityEstimator(*args, **{**defaults, **params})


def slope(support, z, steps):
    """log |d real / d z| along the steps, by central differences."""
    moved = [support.to_real((z + s)[None])[0] - support.to_real((z - s)[None])[0] for s in steps]
    return np.linalg.slogdet(np.array(moved) / (2 * np.abs(steps).max(1)[:, None]))[1]


# ----------------------------------------------------------------------------- the map


def test_codes_come_back_from_real_numbers():
    """Whatever bounds they have, and however near to them they are."""
    Z = bounded()
    Z[0, :3] = [1e-5, 3 - 1e-5, -1 + 1e-5]
    support = support_of(Z)
    real = support.to_real(Z)
    assert np.isfinite(real).all()
    np.testing.assert_allclose(support.from_real(real), Z, rtol=1e-9)
    np.testing.assert_array_equal(real[:, 3], Z[:, 3])
    far = np.random.default_rng(0).normal(scale=30, size=(500, 5))
    assert support.contains(support.from_real(far)).all()


@pytest.mark.parametrize("total", [1.0, 0.7])
def test_compositions_come_back_from_real_numbers(total):
    """Of one number less than there are codes; any numbers are some composition."""
    Z = compositions(total=total)
    support = simplex_of(Z, total)
    real = support.to_real(Z)
    assert real.shape == (60, 3)
    np.testing.assert_allclose(support.from_real(real), Z, rtol=1e-9)
    drawn = support.from_real(np.random.default_rng(0).normal(scale=30, size=(500, 3)))
    assert drawn.min() >= 0
    np.testing.assert_allclose(drawn.sum(1), total)


def test_far_from_its_bound_a_code_stays_what_it_is():
    """So that a bandwidth, or a covariance, keeps its meaning there."""
    Z = bounded()
    real = support_of(Z).to_real(np.array([[20.0, -20.0, 0.0, 7.0, 3.5]]))
    np.testing.assert_allclose(real, [[20.0, -20.0, 0.0, 7.0, 3.5]], atol=1e-6)


def test_slope_is_the_derivative_of_the_map():
    """By central differences; of compositions, with the last code as the rest."""
    Z = bounded()
    support = support_of(Z)
    found = [slope(support, z, 1e-6 * np.eye(5)) for z in Z]
    np.testing.assert_allclose(support.log_slope(Z), found, atol=1e-6)
    for total in (1.0, 0.7):
        Z = compositions(total=total)
        support, steps = simplex_of(Z, total), 1e-6 * np.eye(4)[:3]
        steps[:, 3] = -1e-6
        found = [slope(support, z, steps) for z in Z if z.min() > 1e-3]
        np.testing.assert_allclose(support.log_slope(Z[Z.min(1) > 1e-3]), found, atol=1e-4)


def test_codes_on_bounds_are_read_beside_them_and_put_back():
    """In the middle of what noise spreads them over; where none were, none are put."""
    Z = bounded(on=20)
    support = support_of(Z)
    never = support._replace(on_low=np.zeros(5, bool), on_high=np.zeros(5, bool))
    assert support.on_low.tolist() == [True, False, True, False, False]
    assert support.on_high.tolist() == [False, True, False, False, True]
    real = support.to_real(Z)
    assert np.isfinite(real).all()
    np.testing.assert_array_equal(support.from_real(real)[:20], Z[:20])
    assert np.isfinite(support.log_slope(Z)).all()
    assert (np.abs(never.from_real(real) - Z)[:20, [0, 1, 2, 4]] > 0).all()
    spread = support.to_real(Z, np.random.RandomState(0))
    np.testing.assert_array_equal(spread[20:], real[20:])
    assert len(np.unique(spread[:20, 0])) == 20
    np.testing.assert_array_equal(support.from_real(spread)[:20], Z[:20])
    # Evenly: the distances that the numbers stand for are uniform.
    many = support.to_real(np.repeat(Z[:1], 4000, 0), np.random.RandomState(0))
    for column in (0, 2):
        below = (never.from_real(many) - LOW)[:, column]
        assert below.max() < 0.03 * Z.std(0)[column]
        assert stats.kstest(below / below.max(), "uniform").statistic < 0.03
    one_hot = np.eye(3)[[0, 1, 2, 1, 0]]
    support = simplex_of(one_hot)
    np.testing.assert_array_equal(support.from_real(support.to_real(one_hot)), one_hot)
    assert np.isfinite(support.log_slope(one_hot)).all()


def test_what_lies_in_a_support():
    """Bounds belong to it, and rounding is forgiven."""
    support = support_of(bounded())
    z = np.array([1.0, 0.0, 0.0, 0.0, 3.0])
    for column, (low, high) in enumerate(zip(LOW, HIGH, strict=True)):
        for end, sign in ((low, -1), (high, 1)):
            if np.isfinite(end):
                inside, rounded, outside = (np.array(z) for _ in range(3))
                inside[column] = end
                rounded[column], outside[column] = end + sign * 1e-8, end + sign * 0.01
                found = support.contains(np.stack([inside, rounded, outside]))
                assert found.tolist() == [True, True, False]
    support = simplex_of(compositions())
    rows = np.array(
        [[0.1, 0.2, 0.3, 0.4], [0, 0, 0, 1], [0.1, 0.2, 0.3, 0.5], [-0.1, 0.2, 0.3, 0.6]]
    )
    assert support.contains(rows).tolist() == [True, True, False, False]
    assert support.contains(rows[:, :2]).tolist() == [True, True, True, False]


def test_units_of_bounded_codes_are_those_of_real_numbers():
    """Mean 0 and variance 1, weights counted; constants stay."""
    Z = np.c_[bounded(200)[:, [0, 2]], np.full(200, 0.5)]
    weight = np.random.default_rng(1).integers(0, 4, 200).astype(float)
    limits = np.array([0.0, -1.0, 0.0]), np.array([inf, 1.0, inf])
    units = CodeUnits.of(Z, weight, limits)
    standard = units.standardised(Z)
    assert units.n_free == 2
    np.testing.assert_allclose(np.average(standard, axis=0, weights=weight), 0, atol=1e-9)
    np.testing.assert_allclose(np.average(standard**2, axis=0, weights=weight), 1, rtol=1e-9)
    np.testing.assert_allclose(units.restored(standard), Z, rtol=1e-9)
    with_constant = np.c_[compositions(50, 3, total=0.75), np.full(50, 0.25)]
    units = CodeUnits.of(with_constant, None, "simplex")
    assert units.n_free == 2
    drawn = units.restored(np.random.default_rng(0).normal(size=(30, 2)))
    np.testing.assert_allclose(drawn.sum(1), 1)
    np.testing.assert_array_equal(drawn[:, 3], 0.25)


# ------------------------------------------------------------------- densities on supports

DENSITIES = {
    "autoregressive": {},
    "two orders": {"orderings": 2},
    "flow": {"density": "flow"},
    "mixture": {"density": GaussianMixture(2)},
    "kernels": {"density": KernelDensity(bandwidth=0.3)},
}
every_density = pytest.mark.parametrize("params", DENSITIES.values(), ids=DENSITIES.keys())


def log_trapezoid(logs, axes):
    """log of the integral over a grid of such axes."""
    values = np.exp(logs).reshape([len(axis) for axis in axes])
    for axis in reversed(axes):
        values = np.trapezoid(values, axis)
    return values


@pytest.mark.long
@every_density
@pytest.mark.parametrize("zeros", [False, True])
def test_density_of_positive_rows_integrates_to_one(params, zeros):
    """Over the half-lines, by a grid of logs; also where many rows lie on the bound."""
    rng = np.random.default_rng(0)
    for k in (1, 2):
        X = rng.gamma(2.0, size=(300, k)) @ np.triu(np.ones((k, k)))
        if zeros:
            X *= rng.random((300, k)) < 0.7
        model = lde(support="nonnegative", **params).fit(X)
        assert model.support_ == "nonnegative"
        axis = np.linspace(-16, 5, 1500 if k == 1 else 240)
        grid = np.stack(np.meshgrid(*[axis] * k, indexing="ij"), -1).reshape(-1, k)
        logs = model.score_samples(np.exp(grid)) + grid.sum(1)
        assert log_trapezoid(logs, [axis] * k) == pytest.approx(1.0, abs=5e-3)


@every_density
def test_density_of_rows_between_bounds_integrates_to_one(params):
    """Over a rectangle, by a grid of logits."""
    X = np.random.default_rng(0).beta(0.7, 2.0, size=(300, 2)) * [2.0, 1.0] - [1.0, 0.0]
    model = lde(support=([-1, 0], [1, 1]), **params).fit(X)
    axis = np.linspace(-14, 14, 240)
    logits = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    share = special.expit(logits)
    logs = model.score_samples(share * [2.0, 1.0] - [1.0, 0.0])
    logs += np.log(2 * (share * (1 - share)).prod(1))
    assert log_trapezoid(logs, [axis, axis]) == pytest.approx(1.0, abs=5e-3)


@every_density
def test_density_of_compositions_integrates_to_one(params):
    """Over the triangle of the first two codes."""
    X = compositions(300, 3)
    model = lde(support="simplex", **params).fit(X)
    axis = np.linspace(-13, 13, 240)
    logits = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    share = special.expit(logits)
    first, second = share[:, 0], share[:, 1] * (1 - share[:, 0])
    logs = model.score_samples(np.stack([first, second, 1 - first - second], 1))
    logs += np.log(share * (1 - share)).sum(1) + np.log(1 - first)
    assert log_trapezoid(logs, [axis, axis]) == pytest.approx(1.0, abs=5e-3)


@pytest.mark.parametrize(
    ("law", "support"),
    [
        (stats.gamma(1.0), "nonnegative"),
        (stats.gamma(3.0), "nonnegative"),
        (stats.beta(1.0, 3.0), (0, 1)),
        (stats.beta(0.5, 0.5), (0, 1)),
    ],
    ids=["exponential", "gamma", "beta", "arcsine"],
)
def test_learns_laws_with_bounds(law, support):
    """The mean score of fresh rows is the law's to some hundredths of a nat, not above it; and
    draws follow it. Without the support the score is worse where the law begins with a step."""
    X, fresh = law.rvs((6000, 1), random_state=0), law.rvs((6000, 1), random_state=1)
    params = {"n_mixture": 8, "batch_size": 256, "learning_rate": "cosine", "max_iter": 20}
    model = lde(support=support, learning_rate_init=1e-2, **{**params, "n_channels": 16}).fit(X)
    lost = law.logpdf(fresh).mean() - model.score(fresh)
    assert -0.01 < lost < 0.03
    drawn = model.sample(4000, random_state=0)
    assert drawn.min() >= 0
    assert stats.kstest(drawn[:, 0], law.cdf).statistic < 0.035


def test_dirichlet_law():
    """The score of fresh compositions is that of SciPy's density, to some hundredths."""
    alpha = np.linspace(1, 3, 3)
    X, fresh = compositions(6000, 3), compositions(3000, 3, seed=1)
    params = {"n_mixture": 8, "batch_size": 256, "learning_rate": "cosine", "max_iter": 20}
    model = lde(support="simplex", learning_rate_init=1e-2, **params).fit(X)
    exact = stats.dirichlet(alpha).logpdf(fresh.T).mean()
    assert -0.01 < exact - model.score(fresh) < 0.04
    np.testing.assert_allclose(model.sample(4000, random_state=0).mean(0), alpha / 6, atol=0.015)


@every_density
def test_codes_outside_have_no_density(params):
    """-inf; on the bound the score is finite."""
    X = np.random.default_rng(0).gamma(2.0, size=(200, 2))
    X[:20, 0] = 0
    model = lde(support="nonnegative", **params).fit(X)
    scores = model.score_samples([[1.0, 1.0], [0.0, 1.0], [-0.1, 1.0], [1.0, -5.0]])
    assert np.isfinite(scores).tolist() == [True, True, False, False]
    assert (scores[2:] == -inf).all()


# --------------------------------------------------------------------- what is wrapped


@pytest.fixture(scope="module")
def parts():
    """Digits, and NMF of them."""
    X = load_digits(return_X_y=True)[0][:700]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return X, FrozenEstimator(NMF(6, max_iter=150, random_state=0).fit(X))


@every_density
def test_codes_of_nmf_are_drawn_as_they_can_be(parts, params):
    """None is negative, nor is a pixel, and zeros are as frequent as in training, by and large."""
    X, nmf = parts
    if isinstance(params.get("density"), KernelDensity):
        params = {"density": KernelDensity(bandwidth=0.003)}
    model = lde(nmf, **params).fit(X)
    codes, drawn = model.transform(X), model.sample_latent(2000, random_state=0)
    assert model.support_ == "nonnegative"
    assert drawn.min() == 0
    assert model.sample(500, random_state=0).min() >= 0
    assert (drawn == 0).mean() == pytest.approx((codes == 0).mean(), rel=0.5)
    np.testing.assert_allclose(drawn.std(0), codes.std(0), rtol=0.4)
    any_numbers = lde(nmf, support=None, **params).fit(X)
    assert any_numbers.support_ is None
    assert any_numbers.sample_latent(2000, random_state=0).min() < 0
    assert np.isfinite(model.score_samples(X)).all()
    np.testing.assert_array_equal(model.score_codes(codes), model.score_samples(X))


def test_normal_numbers_of_bounded_codes(parts):
    """They have an inverse, zeros included, and paths of them stay in the support."""
    X, nmf = parts
    model = lde(nmf).fit(X)
    codes, U = model.transform(X), model.gaussianize(X)
    back = model.inverse_gaussianize(U, decode=False)
    np.testing.assert_array_equal(back[codes == 0], 0.0)
    # Others that lie as near to 0 as zeros are spread are put on it.
    assert np.abs(back - codes).max() < 0.05 * codes.std()
    for path in ("codes", "gaussianized"):
        assert model.interpolate(X[0], X[1], 9, path=path).min() >= 0
    normal = np.random.default_rng(0).normal(size=(500, 6))
    assert model.inverse_gaussianize(normal, decode=False).min() >= 0
    x = codes[np.argsort(-codes.min(1))[:1]]
    step = 1e-6 * np.eye(6)
    rows = lde(support="nonnegative").fit(codes)
    moved = rows.gaussianize(np.r_[x + step, x - step])
    found = stats.norm.logpdf(rows.gaussianize(x)).sum()
    found += np.linalg.slogdet((moved[:6] - moved[6:]) / 2e-6)[1]
    assert rows.score_samples(x)[0] == pytest.approx(found, abs=5e-3)


@pytest.mark.parametrize("support", ["nonnegative", "simplex"])
def test_given_codes_of_a_support(support):
    """They are kept, on the bound too; the others lie in what is left. Others are refused."""
    X = compositions(400, 4)
    X[:30, 0] = 0
    X /= X.sum(1, keepdims=True)
    model = lde(support=support).fit(X)
    for given in ([0.25, 0.4], [0.0], [0.1, 0.2, 0.3]):
        drawn = model.sample_latent(40, given=given, random_state=0)
        np.testing.assert_allclose(drawn[:, : len(given)], np.tile(given, (40, 1)), atol=1e-5)
        assert drawn.min() >= 0
        if support == "simplex":
            np.testing.assert_allclose(drawn.sum(1), 1.0)
    whole = model.sample_latent(2, given=[0.1, 0.2, 0.3, 0.4], random_state=0)
    np.testing.assert_allclose(whole, [[0.1, 0.2, 0.3, 0.4]] * 2, atol=1e-5)
    with pytest.raises(ValueError, match=r"given has the codes .* outside of their support"):
        model.sample_latent(2, given=[-0.2])
    if support == "simplex":
        with pytest.raises(ValueError, match="outside of their support"):
            model.sample_latent(2, given=[0.7, 0.7])


class Softmax(TransformerMixin, BaseEstimator):
    """Codes are compositions, of which rows are logs."""

    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X):
        return special.softmax(X, axis=1)

    def inverse_transform(self, Z):
        return np.log(np.maximum(Z, 1e-9))


def saturated(low):
    """A code for each column, cut off at low and 1."""
    return FunctionTransformer(np.clip, np.array, kw_args={"a_min": low, "a_max": 1.0})


GAUSSIAN = np.random.default_rng(0).normal(size=(300, 4))
PIXELS = load_digits(return_X_y=True)[0][:300]
FOUND = {
    "rows": (None, np.abs(GAUSSIAN), None),
    "rows with zeros": (None, PIXELS, None),
    "PCA": (PCA(3), PIXELS, None),
    "positive by chance": (TruncatedSVD(1), PIXELS, None),
    "scaled to an interval": (MinMaxScaler(), GAUSSIAN, None),
    "PCA scaled to an interval": (make_pipeline(PCA(3), MinMaxScaler()), PIXELS, None),
    "rounded": (MinMaxScaler(), GAUSSIAN.round(1), None),
    "NMF": (NMF(4, max_iter=500), PIXELS, "nonnegative"),
    "NMF, never 0": (NMF(1, max_iter=500), PIXELS, "nonnegative"),
    "NMF by products": (NMF(4, solver="mu", max_iter=1000, tol=1e-3), PIXELS, "nonnegative"),
    "NMF of batches": (MiniBatchNMF(4, max_iter=20), PIXELS, "nonnegative"),
    "NMF in a pipeline": (
        make_pipeline(MinMaxScaler(), NMF(4, max_iter=500)),
        PIXELS,
        "nonnegative",
    ),
    "NMF in units": (make_pipeline(NMF(4, max_iter=500), StandardScaler()), PIXELS, None),
    "relu": (saturated(0.0), GAUSSIAN / 9, "nonnegative"),
    "between 0 and 1": (saturated(0.0), GAUSSIAN, (0.0, 1.0)),
    "between -1 and 1": (saturated(-1.0), GAUSSIAN, (-1.0, 1.0)),
    "compositions": (Softmax(), GAUSSIAN, "simplex"),
}


@pytest.mark.parametrize(("pair", "X", "expected"), FOUND.values(), ids=FOUND.keys())
def test_supports_are_found_where_codes_have_them(pair, X, expected):
    """Not where codes are positive, or fill an interval, as they happen to be."""
    model = lde(pair, density=GaussianMixture(1))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)
        model.fit(X)
    assert model.support_ == expected
    assert np.isfinite(model.sample(20, random_state=0)).all()
    assert np.isfinite(model.score(X))


def test_all_codes_alike_have_no_support():
    """There is nothing that bounds them."""
    assert lde(Softmax(), density=KernelDensity()).fit(np.ones((20, 3))).sample().shape == (1, 3)


@pytest.mark.parametrize(
    "support",
    ["positive", "", 3, (1, 0), (0, 0), (0, 1, 2), [0], (np.nan, 1), ("a", "b"), ([0, 1], [[2]])],
    ids=str,
)
def test_what_is_no_support_is_named(support):
    """With what is allowed."""
    with pytest.raises(ValueError, match="support"):
        lde(support=support).fit(np.abs(GAUSSIAN))


def test_supports_that_codes_do_not_have_are_named():
    """With where the codes are, before anything is trained."""
    with pytest.raises(
        ValueError, match=r"support='nonnegative', but the codes of autoencoder=PCA"
    ):
        lde(PCA(2), support="nonnegative").fit(GAUSSIAN)
    with pytest.raises(ValueError, match=r"support=\(0, 1\), .* they are between"):
        lde(support=(0, 1)).fit(GAUSSIAN)
    with pytest.raises(ValueError, match="have the sum 1"):
        lde(support="simplex").fit(np.abs(GAUSSIAN))
    with pytest.raises(ValueError, match="limits for 2 codes, but there are 4"):
        lde(support=([0, 0], 1)).fit(np.abs(GAUSSIAN) / 9)


def test_limits_may_be_arrays_and_lists():
    """Of one number, or one for each code; infinite ones are none."""
    Z = np.abs(GAUSSIAN)
    for support in ((0, inf), [0, inf], (np.zeros(4), np.array(inf)), "nonnegative"):
        check_support(support)
        low, high = limits_of(support, Z, None)
        np.testing.assert_array_equal(low, 0)
        np.testing.assert_array_equal(high, inf)
    arrays = (np.zeros(4), np.full(4, inf))
    one, other = (lde(support=s, max_iter=1).fit(Z) for s in ("nonnegative", arrays))
    np.testing.assert_array_equal(one.score_samples(Z), other.score_samples(Z))
    assert clone(other).fit(Z).support_ == "nonnegative"


# ------------------------------------------------------------------------- going on


def test_training_goes_on_in_the_same_support():
    """Another one is refused, and so are codes outside of it."""
    Z = np.abs(GAUSSIAN)
    Z[:40, 0] = 0
    model = lde(support="nonnegative", warm_start=True, max_iter=2).fit(Z)
    assert model.fit(Z).n_iter_ == 4
    assert model.support_ == "nonnegative"
    with pytest.raises(ValueError, match="support=None cannot change"):
        model.set_params(support=None).fit(Z)
    model.set_params(support="nonnegative")
    with pytest.raises(ValueError, match="outside of their support"):
        model.fit(GAUSSIAN)
    stream = lde(support="nonnegative").partial_fit(Z[:200]).partial_fit(Z[200:])
    assert stream.n_iter_ == 2
    assert stream.sample(50, random_state=0).min() >= 0
    with pytest.raises(ValueError, match="outside of their support"):
        stream.partial_fit(GAUSSIAN)


@pytest.mark.parametrize("params", [{}, {"density": GaussianMixture(2)}], ids=["net", "mixture"])
def test_fits_are_seeded_and_saved(params, parts, tmp_path):
    """Codes on bounds are spread alike by the same seed; a saved model has its support."""
    X, nmf = parts
    one, other = (lde(nmf, **params).fit(X) for _ in range(2))
    np.testing.assert_array_equal(one.score_samples(X), other.score_samples(X))
    joblib.dump(one, tmp_path / "model.joblib")
    for again in (joblib.load(tmp_path / "model.joblib"), pickle.loads(pickle.dumps(one))):
        np.testing.assert_array_equal(again.score_samples(X), one.score_samples(X))
        np.testing.assert_array_equal(
            again.sample(5, random_state=0), one.sample(5, random_state=0)
        )
        assert again.support_ == "nonnegative"


def test_files_from_before_there_were_supports_have_none():
    """Their codes can be any numbers."""
    model = lde(PCA(2), max_iter=1, support=None).fit(GAUSSIAN)
    state = model.__getstate__()
    del state["support"], state["support_"], state["_support"]
    old = LatentDensityEstimator.__new__(LatentDensityEstimator)
    old.__setstate__(state)
    assert old.get_params()["support"] is None
    np.testing.assert_array_equal(old.score_samples(GAUSSIAN), model.score_samples(GAUSSIAN))


# --------------------------------------------------------------------- scores of the data


@pytest.mark.parametrize(
    "params", [{}, {"density": GaussianMixture(2)}], ids=["autoregressive", "mixture"]
)
def test_score_of_data_with_bounded_codes_by_quadrature(params):
    """log p(x) of a decoder and a density of codes between 0 and 1, by a sum over a grid."""
    rng = np.random.default_rng(0)
    t = rng.normal(size=(500, 1))
    X = np.c_[t, np.sin(2 * t), t**2] + 0.3 * rng.normal(size=(500, 3))
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1), nn.Sigmoid())
    pair = Autoencoder(
        1, encoder=encoder, max_iter=30, learning_rate_init=0.01, random_state=0, device="cpu"
    )
    model = lde(pair, support=(0, 1), **params).fit(X)
    own, fresh = model.autoencoder_, X[:100]
    logits = np.linspace(-16, 16, 4001)
    share = special.expit(logits)[:, None]
    means, noise = own.inverse_transform(share), np.broadcast_to(own.noise_variance_, 3)
    logs = stats.norm.logpdf(fresh[:, None], means, np.sqrt(noise)).sum(-1)
    logs += model.score_codes(share) + np.log(share * (1 - share))[:, 0]
    exact = special.logsumexp(logs, axis=1) + np.log(logits[1] - logits[0])
    found = model.data_score_samples(fresh)
    assert -0.02 < (exact - found).mean() < 0.06
    np.testing.assert_allclose(found, model.data_score_samples(fresh))
