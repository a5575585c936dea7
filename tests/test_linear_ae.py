"""LinearAE against its theory, dense formulas, SciPy's optimisers and scikit-learn's PCA."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import optimize, sparse, stats
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris, load_wine, make_low_rank_matrix
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from skae import LinearAE
from skae._linear import linear_maps
from skae._linear.linear_maps import (
    canonical_axes,
    linear_ae_gradient,
    linear_ae_loss,
    minimise_linear_ae,
)

repeatable = settings(deadline=None, max_examples=40, derandomize=True)

ARRAYS = (
    "mean_",
    "components_",
    "axes_",
    "explained_variance_",
    "explained_variance_ratio_",
    "singular_values_",
    "noise_variance_",
    "encoder_",
    "decoder_",
)


def full_rank_rows(n_samples=60, n_features=6, *, seed=0, mean=2.0):
    """Correlated rows whose covariance has well separated eigenvalues, about 9 to 0.3."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(n_features, n_features)))[0]
    scales = np.geomspace(3.0, 0.55, n_features)
    return rng.normal(size=(n_samples, n_features)) * scales @ axes + mean


def spectrum(X):
    """Covariance with 1/n, its decreasing eigenvalues and its axes as columns."""
    covariance = np.cov(X.T, bias=True)
    values, vectors = np.linalg.eigh(covariance)
    return covariance, values[::-1], vectors[:, ::-1]


def assert_same_model(actual, expected, tol=1e-8, names=ARRAYS):
    """Equal learned arrays, within tol of the largest entry of each."""
    assert actual.n_components_ == expected.n_components_
    assert actual.n_samples_ == pytest.approx(expected.n_samples_, rel=1e-12)
    for name in names:
        value = np.asarray(getattr(expected, name))
        atol = tol * max(np.max(np.abs(value), initial=0.0), 1e-300)
        np.testing.assert_allclose(getattr(actual, name), value, rtol=0, atol=atol, err_msg=name)


def in_batches(model, X, cuts, sample_weight=None):
    for start, stop in pairwise([0, *sorted(set(cuts)), X.shape[0]]):
        batch = slice(start, stop)
        model.partial_fit(
            X[batch], sample_weight=None if sample_weight is None else sample_weight[batch]
        )
    return model


# ------------------------------------------------------------------------ the two maps


def test_the_maps_are_the_principal_axes():
    X = full_rank_rows()
    model, pca = LinearAE(3).fit(X), PCA(3).fit(X)
    np.testing.assert_allclose(model.encoder_, pca.components_, atol=1e-12)
    np.testing.assert_allclose(model.decoder_, pca.components_.T, atol=1e-12)
    np.testing.assert_allclose(model.transform(X), pca.transform(X), atol=1e-12)


@pytest.mark.parametrize("params", [{}, {"whiten": True}, {"alpha": 1.5}], ids=str)
@pytest.mark.parametrize("solver", ["closed_form", "gradient"])
def test_codes_and_reconstructions_are_what_the_maps_give(solver, params):
    X = full_rank_rows()
    model = LinearAE(3, solver=solver, random_state=0, **params).fit(X)
    codes = (X - X.mean(axis=0)) @ model.encoder_.T
    np.testing.assert_allclose(model.transform(X), codes, atol=1e-10)
    decoded = codes @ model.decoder_.T + X.mean(axis=0)
    np.testing.assert_allclose(model.inverse_transform(codes), decoded, atol=1e-10)
    np.testing.assert_allclose(model.reconstruct(X), decoded, atol=1e-10)


def test_whitened_maps_are_pcas():
    X = full_rank_rows()
    model, pca = LinearAE(3, whiten=True).fit(X), PCA(3, whiten=True).fit(X)
    codes = pca.transform(X)
    np.testing.assert_allclose(model.transform(X), codes, atol=1e-12)
    np.testing.assert_allclose(model.inverse_transform(codes), pca.inverse_transform(codes))
    np.testing.assert_allclose(np.cov(model.transform(X).T), np.eye(3), atol=1e-10)
    np.testing.assert_allclose(model.encoder_ @ model.decoder_, np.eye(3), atol=1e-12)


WHITENED = {
    "full": {"svd_solver": "full"},
    "covariance_eigh": {"svd_solver": "covariance_eigh"},
    "randomized": {"svd_solver": "randomized"},
    "arpack": {"svd_solver": "arpack", "n_components": 9},
    "gradient": {"solver": "gradient", "n_components": 10},
    "weighted": {},
    "stream": {},
}


def whitened(how, X):
    model = LinearAE(whiten=True, random_state=0).set_params(**WHITENED[how])
    if how == "stream":
        return in_batches(model, X, [100, 103])
    return model.fit(X, sample_weight=np.full(len(X), 2) if how == "weighted" else None)


@pytest.mark.parametrize("how", WHITENED)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("mean", "scale"), [(0, 1), (100, 1), (0, 1e12), (3, 1e-9)])
def test_directions_without_variance_are_not_whitened(how, dtype, mean, scale):
    """Rows of rank 4: four codes of unit variance, which are those of the rows in four axes."""
    rng = np.random.default_rng(0)
    for _ in range(2):
        low, axes = rng.normal(size=(200, 4)) * [4, 3, 2, 1], np.linalg.qr(rng.normal(size=(10, 4)))
        X = ((low @ axes[0].T + mean) * scale).astype(dtype)
        model = whitened(how, X)
        eps = 4000 * np.finfo(dtype).eps * (1 + mean)
        codes = model.transform(X)
        np.testing.assert_allclose(codes[:, :4].std(axis=0, ddof=model.n_samples_ == 200), 1, 1e-2)
        assert np.abs(codes[:, 4:]).max() < eps
        np.testing.assert_allclose(model.inverse_transform(codes), X, atol=20 * eps * scale)
        away = X + (scale * rng.normal(size=X.shape)).astype(dtype)
        assert np.abs(model.transform(away)).max() < 10
        if how != "arpack":  # all axes were kept, and nothing is lost
            np.testing.assert_allclose(model.reconstruct(away), away, atol=20 * eps * scale)


@pytest.mark.parametrize("how", WHITENED)
def test_whitening_of_a_spectrum_that_ends_below_rounding(how):
    """PCA has codes of a million here, in 15 of 30 seeds; a singular value tells 1e-9 of it."""
    for seed in range(1 if how == "gradient" else 30):
        X = make_low_rank_matrix(1000, 10, effective_rank=2, tail_strength=0, random_state=seed)
        model = whitened(how, X)
        spread = model.transform(X).std(axis=0, ddof=model.n_samples_ == 1000)
        assert np.all((np.abs(spread - 1) < 0.05) | (spread < 1e-6))
        assert np.sum(spread > 0.5) >= 8
        assert np.abs(model.transform(X)).max() < 10


@pytest.mark.parametrize("solver", ["full", "covariance_eigh", "randomized", "arpack"])
def test_whitened_codes_of_training_rows_are_those_of_transform(solver):
    """Left singular vectors have unit variance also where the rows have none."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 3)) @ rng.normal(size=(3, 8)) + 2
    model = LinearAE(6, whiten=True, svd_solver=solver, random_state=0)
    np.testing.assert_allclose(model.fit_transform(X), model.transform(X), atol=1e-12)


@pytest.mark.parametrize("mean", [0.0, 7.0, 0.1])
def test_whitening_of_constant_rows(mean):
    X = np.full((30, 4), mean)
    model = LinearAE(whiten=True).fit(X)
    np.testing.assert_allclose(model.transform(X), 0, atol=1e-15)
    np.testing.assert_allclose(model.reconstruct(X + 1), X + 1, atol=1e-14)


# ---------------------------------------------------------------------- in PCA's place


@pytest.mark.parametrize("params", [{}, {"alpha": 0.7}, {"alpha": 100.0}], ids=str)
@pytest.mark.parametrize("how", ["full", "covariance_eigh", "gradient", "weighted", "stream"])
def test_the_formula_of_pcas_users_decodes(how, params):
    X = full_rank_rows()
    options = {name: value for name, value in WHITENED[how].items() if name != "n_components"}
    model = LinearAE(3, random_state=0, **options, **params)
    if how == "stream":
        in_batches(model, X, [10, 30])
    else:
        model.fit(X, sample_weight=np.arange(60) % 3 if how == "weighted" else None)
    Z = np.random.default_rng(0).normal(size=(5, 3))
    np.testing.assert_allclose(
        Z @ model.components_ + model.mean_, model.inverse_transform(Z), rtol=1e-14
    )
    np.testing.assert_allclose(model.axes_ @ model.axes_.T, np.eye(3), atol=1e-12)


def test_whitened_components_keep_pcas_convention():
    X = full_rank_rows()
    model = LinearAE(3, whiten=True).fit(X)
    Z = np.random.default_rng(0).normal(size=(5, 3))
    by_hand = Z * np.sqrt(model.explained_variance_) @ model.components_ + model.mean_
    np.testing.assert_allclose(model.inverse_transform(Z), by_hand, rtol=1e-13)
    np.testing.assert_array_equal(model.components_, model.axes_)


@pytest.mark.parametrize("params", [{"alpha": 0.7}, {"whiten": True}, {}], ids=str)
def test_models_saved_by_the_first_version_load_right(params):
    X = full_rank_rows()
    model = LinearAE(3, **params).fit(X)
    state = model.__getstate__()
    del state["_skae_format"]  # the first version stated none
    state["components_"] = state.pop("axes_")
    state.pop("n_samples_seen_")
    loaded = LinearAE.__new__(LinearAE)
    loaded.__setstate__(state)
    assert_same_model(loaded, model, 0)
    np.testing.assert_array_equal(loaded.score_samples(X), model.score_samples(X))


def test_a_stream_goes_on_after_fit_with_shrunken_maps():
    X = full_rank_rows(40)
    model = LinearAE(alpha=0.8).fit(X[:25]).partial_fit(X[25:])
    assert_same_model(model, LinearAE(alpha=0.8).fit(X))


@pytest.mark.parametrize("weighted", [False, True])
def test_what_incremental_pca_tells_of_a_stream(weighted):
    X = full_rank_rows(40)
    repeats = np.random.default_rng(0).integers(1, 4, 40) if weighted else None
    model = in_batches(LinearAE(5), X[:4], [2], None if repeats is None else repeats[:4] / 10)
    assert model.n_samples_seen_ == pytest.approx(4 if repeats is None else repeats[:4].sum() / 10)
    assert not hasattr(model, "components_")
    model = in_batches(LinearAE(3), X, [7, 20], repeats)
    rows = np.repeat(X, 1 if repeats is None else repeats, axis=0)
    assert model.n_samples_seen_ == model.n_samples_ == len(rows)
    np.testing.assert_allclose(model.var_, rows.var(axis=0), rtol=1e-12)
    assert LinearAE(3).fit(X).n_samples_seen_ == 40


def test_unchecked_batches_give_the_same_model():
    X = full_rank_rows(40)
    model = LinearAE(3)
    for batch in np.array_split(X, 4):
        model.partial_fit(batch, check_input=False)
    assert_same_model(model, in_batches(LinearAE(3), X, [10, 20, 30]), 0)
    assert model.n_features_in_ == 6
    with pytest.raises(ValueError, match="5 features"):
        model.partial_fit(X[:, :5], check_input=False)


@pytest.mark.parametrize(
    "query",
    [
        lambda model: model.transform(full_rank_rows()),
        lambda model: model.inverse_transform(np.ones((2, 5))),
        lambda model: model.reconstruct(full_rank_rows()),
        lambda model: model.score(full_rank_rows()),
        lambda model: model.sample(),
        lambda model: model.get_covariance(),
        lambda model: model.get_precision(),
        lambda model: model.get_feature_names_out(),
    ],
    ids=["transform", "inverse", "reconstruct", "score", "sample", "cov", "precision", "names"],
)
def test_a_stream_that_is_too_short_says_how_many_rows_it_needs(query):
    model = LinearAE(5).partial_fit(full_rank_rows()[:3])
    with pytest.raises(NotFittedError, match=r"has seen 3 rows, and .* needs 5"):
        query(model)
    with pytest.raises(NotFittedError, match="is not fitted yet"):
        query(LinearAE(5))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_alpha_shrinks_every_axis_by_its_own_variance(share, weighted):
    """s_i^2 = max(0, 1 - alpha / lambda_i), with lambda of the covariance with 1/n."""
    X = full_rank_rows(40)
    repeats = np.random.default_rng(0).integers(1, 4, 40) if weighted else np.ones(40, int)
    _, values, vectors = spectrum(np.repeat(X, repeats, axis=0))
    alpha = share * values[1]
    model = LinearAE(4, alpha=alpha).fit(X, sample_weight=repeats if weighted else None)
    squares = np.maximum(0.0, 1 - alpha / values[:4])
    np.testing.assert_allclose(model.encoder_, model.decoder_.T)
    product = vectors[:, :4] * squares @ vectors[:, :4].T
    np.testing.assert_allclose(model.decoder_ @ model.encoder_, product, atol=1e-10)
    np.testing.assert_allclose(np.linalg.norm(model.encoder_, axis=1) ** 2, squares, atol=1e-10)
    np.testing.assert_allclose(
        np.linalg.norm(model.encoder_, axis=1)[:, None] * model.axes_, model.encoder_
    )


def test_components_collapse_where_alpha_exceeds_their_variance():
    X = full_rank_rows()
    _, values, _ = spectrum(X)
    alpha = np.sqrt(values[1] * values[2])
    model = LinearAE(4, alpha=alpha).fit(X)
    assert np.all(model.encoder_[:2].any(axis=1))
    assert not model.encoder_[2:].any()
    assert not model.transform(X)[:, 2:].any()
    nothing = LinearAE(4, alpha=2 * values[0]).fit(X)
    np.testing.assert_array_equal(nothing.reconstruct(X), np.tile(nothing.mean_, (60, 1)))


def test_alpha_leaves_pcas_side_alone():
    X = full_rank_rows()
    plain, shrunk = LinearAE(3).fit(X), LinearAE(3, alpha=1.0).fit(X)
    for name in (n for n in ARRAYS[:7] if n != "components_"):
        np.testing.assert_array_equal(getattr(shrunk, name), getattr(plain, name))
    np.testing.assert_array_equal(shrunk.score_samples(X), plain.score_samples(X))
    np.testing.assert_array_equal(shrunk.sample(5, random_state=0), plain.sample(5, random_state=0))
    assert not np.allclose(shrunk.transform(X), plain.transform(X))


def test_alpha_with_whitening_is_refused():
    with pytest.raises(ValueError, match=r"alpha=0\.5 .*whiten=True"):
        LinearAE(2, alpha=0.5, whiten=True).fit(full_rank_rows())
    with pytest.raises(ValueError, match=r"alpha=0\.5 .*whiten=True"):
        LinearAE(2, alpha=0.5, whiten=True).partial_fit(full_rank_rows())
    with pytest.raises(ValueError, match="'alpha'"):
        LinearAE(2, alpha=-0.5).fit(full_rank_rows())


# ------------------------------------------------------------------------ the objective


@pytest.mark.parametrize("alpha", [0.0, 0.7])
def test_loss_is_the_mean_squared_error_plus_the_penalty(alpha):
    rng = np.random.default_rng(0)
    X = full_rank_rows(n_features=5)
    encoder, decoder = rng.normal(size=(2, 5)), rng.normal(size=(5, 2))
    centred = X - X.mean(axis=0)
    error = np.mean(np.sum((centred - centred @ encoder.T @ decoder.T) ** 2, axis=1))
    penalty = alpha * (np.sum(encoder**2) + np.sum(decoder**2))
    loss = linear_ae_loss(encoder, decoder, np.cov(X.T, bias=True), alpha)
    assert loss == pytest.approx(error + penalty, rel=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.7])
@pytest.mark.parametrize("n_components", [1, 2, 5])
def test_gradient_is_that_of_finite_differences(n_components, alpha):
    rng = np.random.default_rng(0)
    covariance = np.cov(full_rank_rows(n_features=5).T, bias=True)
    encoder, decoder = rng.normal(size=(n_components, 5)), rng.normal(size=(5, n_components))
    found = linear_ae_gradient(encoder, decoder, covariance, alpha)
    step = 1e-5
    for matrix, gradient in zip((encoder, decoder), found, strict=True):
        for index in np.ndindex(matrix.shape):
            losses = []
            for sign in (1, -1):
                matrix[index] += sign * step
                losses.append(linear_ae_loss(encoder, decoder, covariance, alpha))
                matrix[index] -= sign * step
            numeric = (losses[0] - losses[1]) / (2 * step)
            assert gradient[index] == pytest.approx(numeric, rel=1e-6, abs=1e-6)


def least_loss(values, n_components, alpha):
    """Each kept axis costs 2 alpha - alpha^2 / lambda if it is worth it, else lambda."""
    costs = np.where(values > alpha, 2 * alpha - alpha**2 / values, values)
    return costs[:n_components].sum() + values[n_components:].sum()


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0, 1.5, 20.0])
def test_no_other_maps_have_less_loss(share):
    """SciPy's BFGS from several starts finds the same loss and no less; alpha as a share of
    the second eigenvalue of three that are kept."""
    X = full_rank_rows(n_features=4)
    covariance, values, _ = spectrum(X)
    alpha = share * values[1]

    def objective(point):
        return linear_ae_loss(point[:12].reshape(3, 4), point[12:].reshape(4, 3), covariance, alpha)

    losses = [
        optimize.minimize(objective, np.random.default_rng(seed).normal(size=24), tol=1e-9).fun
        for seed in range(4)
    ]
    trace = np.trace(covariance)
    for solver in ("closed_form", "gradient"):
        model = LinearAE(3, alpha=alpha, solver=solver, random_state=0).fit(X)
        found = linear_ae_loss(model.encoder_, model.decoder_, covariance, alpha)
        assert found == pytest.approx(least_loss(values, 3, alpha), abs=1e-8 * trace)
        assert min(losses) == pytest.approx(found, abs=1e-6 * trace)
        assert found <= min(losses) + 1e-8 * trace


def critical_points(covariance, n_components):
    """(J, W_e, W_d) with W_d = U_J, W_e = U_J', for every set J of up to k axes."""
    _, vectors = np.linalg.eigh(covariance)
    vectors = vectors[:, ::-1]
    for size in range(n_components + 1):
        for kept in combinations(range(len(covariance)), size):
            decoder = np.zeros((len(covariance), n_components))
            decoder[:, :size] = vectors[:, list(kept)]
            yield kept, decoder.T, decoder, vectors


def test_projections_on_any_axes_are_critical_and_lose_what_is_left_out():
    """Baldi and Hornik 1989: all sets of two axes of five, and all smaller sets."""
    covariance, values, _ = spectrum(full_rank_rows(n_features=5))
    points = list(critical_points(covariance, 2))
    assert len(points) == 1 + 5 + 10
    for kept, encoder, decoder, _ in points:
        for gradient in linear_ae_gradient(encoder, decoder, covariance):
            np.testing.assert_allclose(gradient, 0.0, atol=1e-12)
        left_out = np.delete(values, kept).sum()
        assert linear_ae_loss(encoder, decoder, covariance) == pytest.approx(left_out, rel=1e-12)


def turned(decoder, slot, axis, angle):
    """W_d with one column turned towards an axis; an empty column grows from nothing."""
    result = decoder.copy()
    result[:, slot] = np.cos(angle) * decoder[:, slot] + np.sin(angle) * axis
    return result


def test_all_critical_points_but_the_top_are_saddles():
    """Turning a kept axis i by t towards a better one j gains (lambda_j - lambda_i) t^2;
    letting an unused code carry the axis j gains 2 lambda_j t^2."""
    covariance, values, _ = spectrum(full_rank_rows(n_features=5))
    step, n_saddles = 1e-3, 0
    for kept, _, decoder, vectors in critical_points(covariance, 2):
        if kept == (0, 1):
            continue
        j = min(set(range(5)) - set(kept))
        if len(kept) == 2:
            slot = next(s for s, i in enumerate(kept) if i > j)
            expected = -2 * (values[j] - values[kept[slot]])
        else:
            slot, expected = len(kept), -4 * values[j]
        losses = []
        for angle in (-step, 0.0, step):
            moved = turned(decoder, slot, vectors[:, j], angle)
            losses.append(linear_ae_loss(moved.T, moved, covariance))
        curvature = (losses[0] - 2 * losses[1] + losses[2]) / step**2
        assert curvature < 0
        assert curvature == pytest.approx(expected, rel=1e-3)
        n_saddles += 1
    assert n_saddles == 15


def test_the_top_axes_are_a_minimum():
    """No direction of negative curvature: the Hessian, by differences of the gradient."""
    covariance, values, vectors = spectrum(full_rank_rows(n_features=4))
    point = np.concatenate([vectors[:, :2].T.ravel(), vectors[:, :2].ravel()])

    def gradient(point):
        pair = linear_ae_gradient(point[:8].reshape(2, 4), point[8:].reshape(4, 2), covariance)
        return np.concatenate([part.ravel() for part in pair])

    step = 1e-5
    hessian = np.array(
        [(gradient(point + step * e) - gradient(point - step * e)) / (2 * step) for e in np.eye(16)]
    )
    curvatures = np.linalg.eigvalsh((hessian + hessian.T) / 2)
    assert curvatures[0] > -1e-6 * values[0]
    assert np.sum(np.abs(curvatures) < 1e-6 * values[0]) == 4  # the invertible 2 x 2 matrices


@repeatable
@given(seed=st.integers(0, 10_000))
def test_any_change_of_basis_of_the_codes_is_the_same_map(seed):
    """(W_d C, C^-1 W_e) has the same product and loss, and the same canonical axes."""
    rng = np.random.default_rng(seed)
    X = full_rank_rows(n_features=5)
    covariance = np.cov(X.T, bias=True)
    model = LinearAE(3).fit(X)
    C = rng.normal(size=(3, 3)) + 2 * np.eye(3)
    if np.linalg.cond(C) > 1e3:
        C = np.eye(3)
    encoder, decoder = np.linalg.solve(C, model.encoder_), model.decoder_ @ C
    np.testing.assert_allclose(decoder @ encoder, model.decoder_ @ model.encoder_, atol=1e-10)
    assert linear_ae_loss(encoder, decoder, covariance) == pytest.approx(
        linear_ae_loss(model.encoder_, model.decoder_, covariance), rel=1e-9
    )
    variances, axes = canonical_axes(decoder, covariance)
    np.testing.assert_allclose(axes, model.components_, atol=1e-9)
    np.testing.assert_allclose(variances, model.explained_variance_ * 59 / 60, rtol=1e-9)


def test_canonical_axes_diagonalise_the_covariance_inside_any_subspace():
    rng = np.random.default_rng(0)
    covariance, decoder = np.cov(full_rank_rows().T), rng.normal(size=(6, 3))
    variances, axes = canonical_axes(decoder, covariance)
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(axes @ covariance @ axes.T, np.diag(variances), atol=1e-12)
    assert np.all(np.diff(variances) < 0)
    np.testing.assert_allclose(decoder @ np.linalg.lstsq(decoder, axes.T)[0], axes.T, atol=1e-10)
    assert np.all(axes[np.arange(3), np.argmax(np.abs(axes), axis=1)] > 0)


# ------------------------------------------------------------------- training by gradient


@pytest.mark.parametrize("share", [0.0, 0.5, 1.5])
@pytest.mark.parametrize("n_components", [1, 3, 6])
def test_every_random_start_reaches_the_optimum(n_components, share):
    """No bad local minima, with or without a penalty, also where some axes are given up."""
    covariance, values, _ = spectrum(full_rank_rows())
    alpha = share * values[n_components // 2]
    least = least_loss(values, n_components, alpha)
    for seed in range(12):
        rng = np.random.RandomState(seed)
        encoder, decoder, n_iter = minimise_linear_ae(covariance, n_components, alpha, rng)
        loss = linear_ae_loss(encoder, decoder, covariance, alpha)
        assert loss == pytest.approx(least, abs=1e-6 * values.sum())
        assert loss >= least - 1e-12 * values.sum()
        assert n_iter > 1


@pytest.mark.parametrize("load", [load_iris, load_wine, load_digits])
def test_gradient_reaches_the_sum_of_the_discarded_eigenvalues_on_real_data(load):
    X = load().data
    covariance, values, _ = spectrum(X)
    model = LinearAE(3, solver="gradient", random_state=0).fit(X)
    loss = linear_ae_loss(model.encoder_, model.decoder_, covariance)
    assert loss == pytest.approx(values[3:].sum(), abs=1e-6 * values.sum())


@pytest.mark.parametrize("alpha", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_gradient_gives_the_axes_of_the_closed_form(seed, alpha):
    """The subspace is known to the square root of the loss; the variances as well as it."""
    X = full_rank_rows()
    expected = LinearAE(3, alpha=alpha).fit(X)
    model = LinearAE(3, alpha=alpha, solver="gradient", random_state=seed).fit(X)
    variances = ("explained_variance_", "explained_variance_ratio_", "noise_variance_")
    assert_same_model(model, expected, 1e-7, ["mean_", *variances])
    assert_same_model(model, expected, 1e-3, ["components_", "encoder_", "decoder_"])
    # Signs and order too: codes of either may be swapped for the other's.
    scale = np.abs(expected.transform(X)).max()
    np.testing.assert_allclose(model.transform(X), expected.transform(X), atol=1e-3 * scale)


def test_gradient_counts_weights_and_streams():
    X = full_rank_rows(30)
    repeats = np.random.default_rng(0).integers(1, 4, 30)
    names = ["mean_", "explained_variance_", "noise_variance_"]
    expected = LinearAE(2).fit(np.repeat(X, repeats, axis=0))
    model = LinearAE(2, solver="gradient", random_state=0)
    assert_same_model(model.fit(X, sample_weight=repeats), expected, 1e-7, names)
    streamed = in_batches(clone(model), X, [7, 20], repeats)
    assert_same_model(streamed, expected, 1e-7, names)


@pytest.mark.parametrize("n_components", [0.9, "mle"])
def test_gradient_needs_an_integer_size(n_components):
    for fit in ("fit", "partial_fit"):
        model = LinearAE(n_components, solver="gradient")
        with pytest.raises(ValueError, match=f"gradient.*n_components={n_components!r}"):
            getattr(model, fit)(full_rank_rows())


def test_gradient_without_a_size_takes_all():
    X = full_rank_rows()
    model = LinearAE(solver="gradient", random_state=0).fit(X)
    assert model.n_components_ == 6
    np.testing.assert_allclose(model.reconstruct(X), X, atol=1e-8)


def test_gradient_that_stops_early_warns(monkeypatch):
    minimise = optimize.minimize

    def impatient(*args, options, **kwargs):
        return minimise(*args, options=options | {"maxiter": 2}, **kwargs)

    monkeypatch.setattr(linear_maps.optimize, "minimize", impatient)
    with pytest.warns(ConvergenceWarning, match="closed_form"):
        LinearAE(2, solver="gradient", random_state=0).fit(full_rank_rows())


# --------------------------------------------------------------------------- streaming


@repeatable
@given(
    cuts=st.lists(st.integers(1, 39), max_size=39, unique=True),
    n_components=st.sampled_from([1, 4, None, 0.8, "mle"]),
    kind=st.sampled_from(["dense", "fortran", "csr", "csc"]),
    weighted=st.booleans(),
)
@example(cuts=list(range(1, 40)), n_components=4, kind="dense", weighted=False)
@example(cuts=list(range(1, 40)), n_components=None, kind="csr", weighted=True)
def test_any_batching_gives_what_fit_gives(cuts, n_components, kind, weighted):
    """Batches of any length, down to one row; weights of any size, zeros among them."""
    X = full_rank_rows(40)
    rng = np.random.default_rng(1)
    weight = rng.uniform(0.0, 3.0, 40) if weighted else None
    if weighted:
        # A batch needs a positive weight somewhere; rows that are alone keep theirs.
        alone = np.isin(np.arange(40), cuts) | (np.arange(40) == 0)
        weight[(rng.random(40) < 0.3) & ~alone] = 0.0
    expected = LinearAE(n_components, svd_solver="full").fit(X, sample_weight=weight)
    containers = {"fortran": np.asfortranarray, "csr": sparse.csr_array, "csc": sparse.csc_array}
    rows = containers.get(kind, np.asarray)(X)
    if kind == "csc":
        rows = rows.tocsr()
    model = in_batches(LinearAE(n_components), rows, cuts, weight)
    assert_same_model(model, expected)
    np.testing.assert_allclose(model.score_samples(X), expected.score_samples(X), rtol=1e-8)


@pytest.mark.parametrize("options", [{"whiten": True}, {"alpha": 1.0}], ids=str)
def test_streaming_sets_the_maps_as_fit_does(options):
    X = full_rank_rows()
    expected = LinearAE(3, **options).fit(X)
    assert_same_model(in_batches(LinearAE(3, **options), X, [5, 17]), expected)


def test_streaming_agrees_with_fit_at_every_moment():
    X = full_rank_rows(30)
    model = LinearAE(2).partial_fit(X[:3])
    for stop in range(6, 31, 3):
        model.partial_fit(X[stop - 3 : stop])
        assert_same_model(model, LinearAE(2, svd_solver="full").fit(X[:stop]))


def test_streaming_float32_keeps_float32_precision():
    X = full_rank_rows(200)
    exact = LinearAE(3).fit(X)
    model = in_batches(LinearAE(3), X.astype(np.float32), range(1, 200, 7))
    assert model.components_.dtype == model.mean_.dtype == np.float32
    assert_same_model(model, exact, 1e-6)


@pytest.mark.parametrize("size", [1, 10, 100])
def test_a_large_mean_costs_a_stream_no_digits(size):
    X = full_rank_rows(200, mean=1e6)
    expected = PCA(3, svd_solver="full").fit(X)
    model = in_batches(LinearAE(3), X, range(size, 200, size))
    names = [name for name in ARRAYS if name not in ("axes_", "encoder_", "decoder_")]
    assert_same_model(model, expected, 1e-8, names)


def test_there_is_no_model_before_there_are_enough_rows():
    X = full_rank_rows(10)
    model = LinearAE(5).partial_fit(X[:3])
    for method in (model.transform, model.score_samples, model.reconstruct):
        with pytest.raises(NotFittedError):
            method(X)
    with pytest.raises(NotFittedError):
        model.sample()
    assert model.partial_fit(X[3:5]).transform(X).shape == (10, 5)
    anything = LinearAE().partial_fit(X[:1])
    with pytest.raises(NotFittedError):
        anything.transform(X)
    assert anything.partial_fit(X[1:4]).n_components_ == 4
    assert anything.partial_fit(X[4:]).n_components_ == 6


def test_weights_decide_when_there_are_enough_rows():
    X = full_rank_rows(10)
    model = LinearAE(4).partial_fit(X[:5], sample_weight=np.full(5, 0.5))
    with pytest.raises(NotFittedError):
        model.transform(X)
    model.partial_fit(X[5:], sample_weight=np.full(5, 0.5))
    assert model.n_components_ == 4
    assert model.n_samples_ == 5


@pytest.mark.parametrize("fitted_already", [False, True])
def test_a_bad_batch_changes_nothing(fitted_already):
    X = full_rank_rows(40)
    first = 20 if fitted_already else 2
    bad_batches = [
        (X[:5, :4], None, "features"),
        (np.full((2, 6), np.nan), None, "NaN"),
        (X[:5], [-1.0, 1.0, 1.0, 1.0, 1.0], "sample_weight"),
        (X[:5], np.zeros(5), "weights"),
        (X[:5], [1.0, 1.0], "sample_weight"),
        (np.full((5, 6), 1e300) * np.arange(5)[:, None], None, "Rescale X"),
    ]
    model = LinearAE(3).partial_fit(X[:first])
    for bad, weight, message in bad_batches:
        with pytest.raises(ValueError, match=message):
            model.partial_fit(bad, sample_weight=weight)
    assert hasattr(model, "components_") == fitted_already
    assert_same_model(model.partial_fit(X[first:]), LinearAE(3, svd_solver="full").fit(X))


def test_fit_forgets_the_stream():
    X = full_rank_rows(40)
    model = LinearAE().partial_fit(100 + X).fit(X[:20])
    assert_same_model(model, LinearAE().fit(X[:20]), 0.0)
    assert_same_model(model.partial_fit(X[20:]), LinearAE(svd_solver="full").fit(X))


def test_a_stream_after_fit_is_exact_if_fit_kept_all_components():
    """No scatter is kept by fit, but all axes and variances make one."""
    X, weight = full_rank_rows(40), np.random.default_rng(0).uniform(0.5, 2, 40)
    expected = LinearAE(svd_solver="full").fit(X, sample_weight=weight)
    model = LinearAE().fit(X[:15], sample_weight=weight[:15])
    assert_same_model(model.partial_fit(X[15:], sample_weight=weight[15:]), expected)
    few = LinearAE(svd_solver="full").fit(X[:4])  # four rows leave a null space
    assert_same_model(few.partial_fit(X[4:]), LinearAE(svd_solver="full").fit(X))


@pytest.mark.parametrize("first", [4, 25])
def test_a_stream_after_a_truncated_fit_warns_and_keeps_the_total_variance(first):
    """What fit left out is spread evenly: with more rows than features, get_covariance."""
    X = full_rank_rows(40)
    model = LinearAE(2).fit(X[:first])
    covariance = model.get_covariance()
    with pytest.warns(UserWarning, match="continues from the 2 components"):
        model.partial_fit(X[first:])
    total = model.explained_variance_[0] / model.explained_variance_ratio_[0]
    assert total == pytest.approx(np.trace(np.cov(X.T)), rel=1e-10)
    np.testing.assert_allclose(model.mean_, X.mean(axis=0), rtol=1e-12)
    if first > 6:
        step = X[first:].mean(axis=0) - X[:first].mean(axis=0)
        scatter = (first - 1) * covariance + (39 - first) * np.cov(X[first:].T)
        scatter += first * (40 - first) / 40 * np.outer(step, step)
        values = np.linalg.eigvalsh(scatter / 39)[::-1]
        np.testing.assert_allclose(model.explained_variance_, values[:2], rtol=1e-10)


def test_a_stream_of_more_components_than_features_is_refused():
    with pytest.raises(ValueError, match="n_components=7"):
        LinearAE(7).partial_fit(full_rank_rows())


# --------------------------------------------------------------------- float32, scores


@pytest.mark.parametrize("params", [{}, {"svd_solver": "covariance_eigh"}], ids=str)
def test_float32_sums_over_many_rows_keep_their_digits(params):
    """Within 1e-5 of the result in float64; scikit-learn's own is farther off than that."""
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(200_000, 6)) * np.arange(1, 7) + 20).astype(np.float32)
    exact = PCA(4).fit(X.astype(np.float64))
    ours, theirs = LinearAE(4, **params).fit(X), PCA(4, **params).fit(X)
    for name in ("mean_", "explained_variance_"):
        expected = getattr(exact, name)
        off = [np.max(np.abs(getattr(model, name) / expected - 1)) for model in (ours, theirs)]
        assert off[0] < 1e-5 < off[1]
        assert getattr(ours, name).dtype == np.float32


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("n_components", [1, 3, 5, 6])
def test_scores_are_scipys_with_the_models_covariance(n_components, whiten):
    X = full_rank_rows()
    model = LinearAE(n_components, whiten=whiten).fit(X)
    pca = PCA(n_components, whiten=whiten).fit(X)
    np.testing.assert_allclose(model.get_covariance(), pca.get_covariance(), atol=1e-10)
    if n_components == 6 and whiten:
        return  # the axis of least variance scores alone: nothing is left for the noise
    gaussian = stats.multivariate_normal(model.mean_, model.get_covariance())
    np.testing.assert_allclose(model.score_samples(X), gaussian.logpdf(X), rtol=1e-9)
    np.testing.assert_allclose(model.score_samples(X), pca.score_samples(X), rtol=1e-9)
    assert model.score(X) == pytest.approx(pca.score(X), rel=1e-9)


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("n_components", [1, 3, 5, 6])
def test_precision_is_the_inverse_of_the_covariance(n_components, whiten):
    model = LinearAE(n_components, whiten=whiten).fit(full_rank_rows())
    product = model.get_precision() @ model.get_covariance()
    np.testing.assert_allclose(product, np.eye(6), atol=1e-9)


@pytest.mark.parametrize(
    "case", ["wide", "constant column", "constant", "twin columns", "two rows"]
)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_scores_of_degenerate_covariances_are_finite(case, dtype):
    """And a row off the support scores less than the rows on it."""
    X = full_rank_rows()
    X = {
        "wide": full_rank_rows(5, 20),
        "constant column": np.c_[X, np.full(60, 3.0)],
        "constant": np.full((10, 4), 3.0),
        "twin columns": np.c_[X, X],
        "two rows": X[:2],
    }[case].astype(dtype)
    model = LinearAE().fit(X)
    scores = model.score_samples(X)
    assert np.isfinite(scores).all()
    off = np.linalg.svd(X - X.mean(axis=0))[2][-1]
    assert np.all(model.score_samples((X + off).astype(dtype)) < scores.min())
    assert np.isfinite(model.get_precision()).all()


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("n_components", [2, 6])
def test_samples_have_the_moments_of_the_model(n_components, whiten):
    """Also with whiten=True, where PCA's covariance has the variances squared."""
    model = LinearAE(n_components, whiten=whiten).fit(full_rank_rows())
    n = 40_000
    rows, covariance = model.sample(n, random_state=0), model.get_covariance()
    spread = np.diag(covariance)
    assert np.all(np.abs(rows.mean(axis=0) - model.mean_) < 5 * np.sqrt(spread / n))
    error = 5 * np.sqrt((covariance**2 + np.outer(spread, spread)) / n)
    assert np.all(np.abs(np.cov(rows.T) - covariance) < error)


def test_samples_without_noise_lie_in_the_subspace():
    model = LinearAE(2).fit(full_rank_rows())
    centred = model.sample(50, noise=False, random_state=0) - model.mean_
    axes = model.axes_
    np.testing.assert_allclose(centred @ axes.T @ axes, centred, atol=1e-12)
    noisy = model.sample(50, random_state=0) - model.mean_
    assert np.linalg.matrix_rank(noisy) == 6


# ----------------------------------------------------------------- solvers and weights


@pytest.mark.parametrize("svd_solver", ["auto", "full", "covariance_eigh", "arpack", "randomized"])
@pytest.mark.parametrize("shape", [(40, 6), (8, 30)])
def test_weights_count_rows_with_every_solver(shape, svd_solver):
    """Against PCA of repeated rows; with weights all solvers are exact."""
    X = full_rank_rows(*shape)
    repeats = np.random.default_rng(0).integers(0, 4, shape[0])
    expected = PCA(3, svd_solver="full").fit(np.repeat(X, repeats, axis=0))
    model = LinearAE(3, svd_solver=svd_solver, random_state=0).fit(X, sample_weight=repeats)
    names = [name for name in ARRAYS if name not in ("axes_", "encoder_", "decoder_")]
    assert_same_model(model, expected, 1e-8, names)


@pytest.mark.parametrize("svd_solver", ["arpack", "covariance_eigh"])
@pytest.mark.parametrize("container", [sparse.csr_array, sparse.csc_array, sparse.csr_matrix])
@pytest.mark.parametrize("weighted", [False, True])
def test_sparse_rows_give_what_dense_rows_give(weighted, container, svd_solver):
    X = full_rank_rows(mean=0.0)
    X[np.random.default_rng(1).random(X.shape) < 0.5] = 0.0
    weight = np.random.default_rng(0).uniform(0, 2, 60) if weighted else None
    expected = LinearAE(3, svd_solver="full").fit(X, sample_weight=weight)
    rows = container(X)
    model = LinearAE(3, svd_solver=svd_solver, random_state=0).fit(rows, sample_weight=weight)
    assert_same_model(model, expected)
    np.testing.assert_allclose(model.transform(rows), expected.transform(X), atol=1e-8)
    np.testing.assert_allclose(model.score_samples(rows), expected.score_samples(X), rtol=1e-8)
    np.testing.assert_allclose(model.reconstruct(rows), expected.reconstruct(X), atol=1e-8)


@pytest.mark.parametrize("total", [0.5, 1.0])
def test_weights_of_less_than_two_rows_are_refused(total):
    X = full_rank_rows(20)
    with pytest.raises(ValueError, match=f"sample_weight adds up to {total:g}"):
        LinearAE(1).fit(X, sample_weight=np.full(20, total / 20))


def test_n_components_is_limited_by_the_weights():
    X = full_rank_rows(20)
    with pytest.raises(ValueError, match="n_components=5"):
        LinearAE(5).fit(X, sample_weight=np.full(20, 0.2))
    assert LinearAE().fit(X, sample_weight=np.full(20, 0.2)).n_components_ == 4


@pytest.mark.parametrize(
    ("shape", "n_components"),
    [
        ((40, 6), None),
        ((60, 6), 2),
        ((501, 60), 5),
        ((501, 60), 55),
        ((30, 600), 3),
        ((30, 600), "mle"),
        ((501, 60), "mle"),
        ((501, 60), 0.5),
    ],
)
def test_auto_chooses_the_solver_that_pca_chooses(shape, n_components):
    X = full_rank_rows(*shape)
    chosen = []
    for Estimator in (PCA, LinearAE):
        model = Estimator(n_components, random_state=0)
        if n_components == "mle" and shape[0] < shape[1]:
            with pytest.raises(ValueError, match="n_samples >= n_features"):
                model.fit(X)
        else:
            chosen.append(model.fit(X)._fit_svd_solver)
    assert len(set(chosen)) <= 1


@pytest.mark.parametrize(
    "params",
    [{"svd_solver": "randomized"}, {"svd_solver": "arpack"}, {"solver": "gradient"}],
    ids=str,
)
def test_the_global_generator_is_not_touched(params):
    before = np.random.get_state()  # noqa: NPY002
    model = LinearAE(2, random_state=None, **params)
    model.fit(full_rank_rows())
    model.sample(3)
    after = np.random.get_state()  # noqa: NPY002
    assert before[2:] == after[2:]
    np.testing.assert_array_equal(before[1], after[1])


@pytest.mark.parametrize(
    "params",
    [
        *[{"svd_solver": s} for s in ("full", "covariance_eigh", "arpack", "randomized")],
        {"solver": "gradient"},
    ],
    ids=str,
)
@pytest.mark.parametrize("more", [{}, {"alpha": 1.0}, {"whiten": True}, {"copy": False}], ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_fit_transform_is_fit_then_transform(params, more, weighted):
    """Rows that copy=False may overwrite are a copy here."""
    X = full_rank_rows()
    weight = np.random.default_rng(0).integers(0, 3, 60) if weighted else None
    model = LinearAE(3, random_state=0, **params, **more)
    codes = model.fit_transform(X.copy(), sample_weight=weight)
    fitted = clone(model).fit(X.copy(), sample_weight=weight)
    np.testing.assert_allclose(codes, fitted.transform(X), atol=1e-10)
    np.testing.assert_allclose(codes, model.transform(X), atol=1e-10)
    assert codes.shape == (60, 3)


def test_read_only_rows_are_left_alone_without_a_copy():
    X = full_rank_rows()
    X.setflags(write=False)
    before = X.copy()
    codes = LinearAE(2, copy=False).fit_transform(X)
    np.testing.assert_array_equal(X, before)
    np.testing.assert_allclose(codes, PCA(2).fit_transform(X), atol=1e-10)


@pytest.mark.parametrize("alpha", [1e-8, 1e-6, 1e-4, 1e-2, 1.0])
def test_maps_by_gradient_are_those_in_closed_form_for_any_penalty(alpha):
    """A small penalty leaves a rotation of the codes all but free; the maps do not show it."""
    X = np.random.RandomState(0).randn(100, 6) * [3, 2, 1, 1, 0.5, 0.5]
    exact = LinearAE(2, alpha=alpha).fit(X)
    found = LinearAE(2, alpha=alpha, solver="gradient", random_state=0).fit(X)
    np.testing.assert_allclose(found.encoder_, exact.encoder_, atol=1e-4)
    np.testing.assert_allclose(found.decoder_, exact.decoder_, atol=1e-4)


def test_a_first_batch_out_of_range_is_refused():
    model = LinearAE(3)
    with pytest.raises(ValueError, match="Rescale X"):
        model.partial_fit(full_rank_rows(2) * 1e300)
    assert vars(model) == vars(LinearAE(3))


def test_the_default_size_of_sparse_rows_counts_weights_as_rows():
    rows = sparse.csr_array(full_rank_rows())
    plain = LinearAE().fit(rows)
    weighted = LinearAE().fit(rows, sample_weight=np.ones(rows.shape[0]))
    assert weighted.n_components_ == plain.n_components_


@pytest.mark.parametrize("first", ["gradient", "arpack", "stream", "short stream"])
def test_nothing_of_an_earlier_fit_is_left(first):
    """Neither by its name nor in what it holds."""
    X = full_rank_rows()
    model = LinearAE(2, random_state=0)
    match first:
        case "gradient":
            model.set_params(solver="gradient").partial_fit(X[:10] + 5)
        case "arpack":
            model.set_params(svd_solver="arpack").fit(X[:10] + 5)
        case _:
            model.partial_fit(X[: 1 if first == "short stream" else 10] - 3)
    expected = LinearAE(2, random_state=0).fit(X)
    model.set_params(solver="closed_form", svd_solver="auto").fit(X)
    assert vars(model).keys() == vars(expected).keys()
    for name, value in vars(expected).items():
        np.testing.assert_array_equal(getattr(model, name), value)


def test_a_stream_keeps_nothing_but_its_moments():
    X = full_rank_rows()
    model = LinearAE(2, solver="gradient", alpha=0.1, random_state=0).partial_fit(X[:10])
    model.set_params(solver="closed_form", alpha=0.0).partial_fit(X[10:])
    expected = LinearAE(2, random_state=0).partial_fit(X[:10]).partial_fit(X[10:])
    assert vars(model).keys() == vars(expected).keys()
    for name, value in vars(expected).items():
        if name != "_stream":
            np.testing.assert_array_equal(getattr(model, name), value)


def test_a_stream_is_saved_as_plain_arrays():
    xp = pytest.importorskip("array_api_strict")
    with config_context(array_api_dispatch=True):
        model = LinearAE(2).partial_fit(xp.asarray(full_rank_rows()))
    assert all(type(part) in (int, np.ndarray) for part in model.__getstate__()["_stream"])


# ------------------------------------------------------------------------ degenerate rows


@pytest.mark.parametrize("value", [0.0, 3.0, 1e100])
@pytest.mark.parametrize("svd_solver", ["arpack", "full", "covariance_eigh", "randomized"])
@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_constant_rows_have_a_model_with_every_solver(value, svd_solver, container):
    if container is sparse.csr_array and svd_solver not in ("arpack", "covariance_eigh"):
        pytest.skip("a solver of dense rows")
    X = container(np.full((20, 6), value))
    model = LinearAE(2, svd_solver=svd_solver, random_state=0).fit(X)
    np.testing.assert_allclose(model.reconstruct(X), np.full((20, 6), value))
    assert np.isfinite(model.score_samples(X)).all()


@pytest.mark.parametrize("value", [1.0, 1e13])
def test_weighted_wide_rows_without_variance_have_orthonormal_axes(value):
    """What rounding leaves of them may be far from orthogonal."""
    for seed in range(20):
        weight = np.random.default_rng(seed).uniform(size=20)
        X = np.full((20, 30), value, dtype=np.float32)
        model = LinearAE(2).fit(X, sample_weight=weight)
        np.testing.assert_allclose(model.axes_ @ model.axes_.T, np.eye(2), atol=1e-6)


@pytest.mark.parametrize("svd_solver", ["arpack", "full"])
@pytest.mark.parametrize("solver", ["closed_form", "gradient"])
def test_rows_out_of_range_are_refused_by_every_solver(svd_solver, solver):
    with pytest.raises(ValueError, match="Rescale X"):
        LinearAE(2, svd_solver=svd_solver, solver=solver, random_state=0).fit(
            full_rank_rows() * 1e160
        )


@pytest.mark.parametrize("how", ["fit", "stream"])
@pytest.mark.parametrize("shape", [(60, 6), (15, 40)])
def test_weights_beyond_float32_have_no_scale(how, shape):
    X = full_rank_rows(*shape).astype(np.float32)
    weight = np.random.default_rng(0).uniform(0.5, 2, shape[0])
    expected = LinearAE(2).fit(X, sample_weight=weight)
    if how == "stream":
        model = in_batches(LinearAE(2), X, [5], weight * 1e40)
    else:
        model = LinearAE(2).fit(X, sample_weight=weight * 1e40)
    np.testing.assert_allclose(model.axes_, expected.axes_, atol=1e-4)
    np.testing.assert_allclose(model.mean_, expected.mean_, rtol=1e-5)


def test_scores_of_whitened_rows_out_of_range_say_so():
    """scikit-learn's covariance has their variances squared; their codes are as all others."""
    X = full_rank_rows() * 1e100
    model = LinearAE(2, whiten=True).fit(X)
    np.testing.assert_allclose(model.transform(X).std(axis=0, ddof=1), 1, rtol=1e-8)
    with pytest.raises(ValueError, match="Rescale X"):
        model.score_samples(X)


# ------------------------------------------------------------------- a smaller model


@pytest.mark.parametrize("options", [{}, {"whiten": True}, {"alpha": 0.5}, {"svd_solver": "full"}])
@pytest.mark.parametrize("weighted", [False, True])
def test_truncation_is_the_fit_of_fewer_components(options, weighted):
    X = full_rank_rows()
    weight = np.random.default_rng(0).integers(1, 4, len(X)) if weighted else None
    largest = LinearAE(6, **options).fit(X, sample_weight=weight)
    before = {name: np.copy(getattr(largest, name)) for name in ARRAYS}
    for size in (1, 3, np.int64(5), 6):
        smaller = largest.truncate(size)
        assert smaller.get_params() == {**largest.get_params(), "n_components": size}
        assert_same_model(smaller, LinearAE(size, **options).fit(X, sample_weight=weight))
        assert smaller.transform(X).shape == (60, size)
        smaller.axes_ *= 0
        smaller.encoder_ *= 0
    for name, value in before.items():
        np.testing.assert_array_equal(getattr(largest, name), value)
    # By way of a size between.
    assert_same_model(largest.truncate(4).truncate(2), largest.truncate(2))


def test_a_truncated_stream_goes_on_exactly():
    X = full_rank_rows()
    smaller = LinearAE(5).partial_fit(X[:40]).truncate(2).partial_fit(X[40:])
    assert_same_model(smaller, LinearAE(2).fit(X))


@pytest.mark.parametrize("size", [0, -1, 7, 1.0, 0.5, "mle", None, True])
def test_truncation_refuses_what_it_cannot_cut(size):
    model = LinearAE(6).fit(full_rank_rows())
    with pytest.raises(ValueError, match="n_components"):
        model.truncate(size)


def test_truncation_needs_a_fit():
    with pytest.raises(NotFittedError):
        LinearAE(3).truncate(1)


def test_singular_values_of_large_weights_are_finite():
    """They grow with the square root of the weights, beyond float32."""
    X = make_low_rank_matrix(60, 6, random_state=0).astype(np.float32)
    plain, heavy = (
        LinearAE(2).fit(X, sample_weight=np.full(60, weight)).singular_values_
        for weight in (1.0, 1e300)
    )
    np.testing.assert_allclose(heavy / 1e150, plain, rtol=1e-4)


def test_check_input_is_a_boolean():
    with pytest.raises(ValueError, match="'check_input' parameter"):
        LinearAE(2).partial_fit(np.eye(6), check_input=[[1, 2], [3, 4]])


def test_solvers_of_dense_rows_are_named():
    with pytest.raises(TypeError, match='"full" was passed as svd_solver'):
        LinearAE(2, svd_solver="full").fit(sparse.csr_array(np.eye(6)))
