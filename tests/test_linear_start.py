"""Networks begin as PCA and probabilistic PCA: seen at max_iter=0, and kept where they win."""

import pickle

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback

from skae import PPCA, VAE, VQVAE, AdversarialAE, Autoencoder, LinearAE
from skae._training import at_rest, callbacks
from skae._training.at_rest import objective
from skae._training.data import Data

WINE = load_wine().data
STANDARDISED = StandardScaler().fit_transform(WINE)
CANCER = StandardScaler().fit_transform(load_breast_cancer().data)
DIGITS = load_digits().data[:600]

# Layers that hold maps exactly: two rectified units for each code, at any depth.
EXACT = [
    {},
    {"hidden_layer_sizes": ()},
    {"hidden_layer_sizes": (8,)},
    {"hidden_layer_sizes": (20, 9, 8), "decoder_layer_sizes": (11,)},
    {"activation": "leaky_relu", "hidden_layer_sizes": (8, 8)},
    {"activation": "silu", "hidden_layer_sizes": (9, 8)},
    {"activation": "identity", "hidden_layer_sizes": (4, 6)},
]


def start(model, X, **fit):
    return model.set_params(max_iter=0, random_state=0).fit(X, **fit)


def weights_of(X):
    return np.random.RandomState(0).uniform(0.2, 3.0, len(X))


@pytest.mark.parametrize("layers", EXACT, ids=str)
@pytest.mark.parametrize("X", [WINE, STANDARDISED, DIGITS], ids=["raw", "standardised", "digits"])
def test_autoencoder_begins_as_pca(X, layers):
    for weight in (None, weights_of(X)):
        ae = start(Autoencoder(4, **layers), X, sample_weight=weight)
        expected = LinearAE(4).fit(X, sample_weight=weight).reconstruct(X)
        np.testing.assert_allclose(ae.reconstruct(X), expected, rtol=1e-4, atol=1e-4 * X.std())
        codes = ae.transform(X)
        w = np.ones(len(X)) if weight is None else weight
        np.testing.assert_allclose(np.average(codes, axis=0, weights=w), 0, atol=1e-4)
        # Scores of PCA in the network's unit, the root of the mean variance; at least one.
        S = np.cov(X.T, aweights=w, ddof=0)
        variances = np.linalg.eigvalsh(S)[:-5:-1] / (np.trace(S) / X.shape[1])
        expected = np.diag(np.maximum(variances, 1.0))
        np.testing.assert_allclose(np.cov(codes.T, aweights=w, ddof=0), expected, atol=1e-3)
        assert ae.n_iter_ == len(ae.history_) == 0


@pytest.mark.parametrize("layers", EXACT, ids=str)
@pytest.mark.parametrize("X", [WINE, STANDARDISED, DIGITS], ids=["raw", "standardised", "digits"])
def test_bound_of_vae_begins_as_the_log_likelihood_of_ppca(X, layers):
    for weight in (None, weights_of(X)):
        vae = start(VAE(4, **layers), X, sample_weight=weight)
        ppca = PPCA(4).fit(X, sample_weight=weight)
        for n_importance in (1, 20):  # the posterior is exact: every draw gives the same
            found = vae.score_samples(X, n_importance=n_importance)
            np.testing.assert_allclose(found, ppca.score_samples(X), atol=1e-3)
        means, stds = vae.posterior(X)
        exact_means, covariances = ppca.posterior(X)
        np.testing.assert_allclose(means, exact_means, atol=1e-4)
        exact = np.sqrt(np.einsum("...ii->...i", covariances))
        np.testing.assert_allclose(stds, np.broadcast_to(exact, stds.shape), rtol=1e-4)


def test_given_noise_begins_as_ppca_of_that_noise():
    vae = start(VAE(6, noise_variance=0.5), STANDARDISED)
    values, axes = np.linalg.eigh(np.cov(STANDARDISED.T, ddof=0))
    leading, W = values[::-1][:6], axes[:, ::-1][:, :6]
    covariance = W @ np.diag(np.maximum(leading - 0.5, 0)) @ W.T + 0.5 * np.eye(13)
    exact = multivariate_normal(STANDARDISED.mean(0), covariance).logpdf(STANDARDISED)
    np.testing.assert_allclose(vae.score_samples(STANDARDISED), exact, atol=1e-3)


def test_where_the_floor_binds_the_start_is_ppca_with_noise_at_the_floor():
    X = CANCER[:, :8]
    vae = start(VAE(8), X)
    assert vae.noise_variance_ == pytest.approx(1e-4 * X.var(axis=0).mean(), rel=1e-4)
    S, noise = np.cov(X.T, ddof=0), vae.noise_variance_
    values, axes = np.linalg.eigh(S)
    covariance = axes @ np.diag(np.maximum(values, noise)) @ axes.T
    exact = multivariate_normal(X.mean(0), covariance).logpdf(X)
    np.testing.assert_allclose(vae.score_samples(X).mean(), exact.mean(), atol=1e-3)


def test_with_holes_the_bound_is_exact_on_complete_rows_and_below_on_others():
    X = STANDARDISED.copy()
    X[np.random.RandomState(0).rand(*X.shape) < 0.1] = np.nan
    vae = start(VAE(4), X)
    ppca = PPCA(4, random_state=vae._seed).fit(X)  # the same start of EM
    complete = ~np.isnan(X).any(axis=1)
    assert 20 < complete.sum() < len(X)
    exact = ppca.score_samples(X)
    np.testing.assert_allclose(vae.score_samples(X)[complete], exact[complete], atol=1e-3)
    terms = vae.elbo_terms(X, n_draws=2000)
    gap = exact - (terms.reconstruction - terms.kl)
    assert (gap[~complete] > -0.2).all()  # of 2000 draws
    assert 0.05 < gap[~complete].mean() < 1.0


def test_reading_what_was_not_seen_as_the_mean_of_the_linear_model():
    X = STANDARDISED.copy()
    X[::3, 2] = np.nan
    vae = start(VAE(3), X)
    ppca = PPCA(3, random_state=vae._seed).fit(X)
    filled = np.where(np.isnan(X), ppca.mean_, X)
    np.testing.assert_allclose(vae.transform(X), ppca.transform(filled), atol=1e-4)


def test_tied_weights_begin_as_pca():
    for layers in ((), (8,), (30, 8)):
        for activation in ("relu", "leaky_relu", "silu", "identity"):
            ae = Autoencoder(4, tied_weights=True, hidden_layer_sizes=layers, activation=activation)
            ae = start(ae, STANDARDISED)
            expected = LinearAE(4).fit(STANDARDISED).reconstruct(STANDARDISED)
            np.testing.assert_allclose(ae.reconstruct(STANDARDISED), expected, atol=1e-4)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "silu", "tanh", "logistic"])
def test_narrow_and_smooth_layers_begin_near_pca(activation):
    ae = start(Autoencoder(4, activation=activation, hidden_layer_sizes=(5,)), STANDARDISED)
    error = np.square(ae.reconstruct(STANDARDISED) - STANDARDISED).sum(1).mean()
    linear = LinearAE(4).fit(STANDARDISED)
    of_pca = np.square(linear.reconstruct(STANDARDISED) - STANDARDISED).sum(1).mean()
    assert error < 1.05 * of_pca


def test_layers_narrower_than_the_codes_begin_as_a_smaller_pca():
    ae = start(Autoencoder(6, hidden_layer_sizes=(3,)), STANDARDISED)
    error = np.square(ae.reconstruct(STANDARDISED) - STANDARDISED).sum(1).mean()
    linear = LinearAE(3).fit(STANDARDISED)
    of_pca = np.square(linear.reconstruct(STANDARDISED) - STANDARDISED).sum(1).mean()
    assert error == pytest.approx(of_pca, rel=0.05)


@pytest.mark.parametrize("Estimator", [Autoencoder, VAE, AdversarialAE])
@pytest.mark.parametrize("n_rows", [2, 3, 30])
@pytest.mark.filterwarnings("ignore:Posterior collapse")
def test_more_codes_than_rank(Estimator, n_rows):
    model = start(Estimator(20), STANDARDISED[:n_rows])
    rows = model.reconstruct(STANDARDISED[:n_rows])
    assert np.isfinite(rows).all()
    rank = min(n_rows - 1, 13)
    linear = LinearAE(rank).fit(STANDARDISED[:n_rows]).reconstruct(STANDARDISED[:n_rows])
    if Estimator is not VAE:  # whose posterior means shrink
        np.testing.assert_allclose(rows, linear, atol=1e-3)


def test_rows_that_do_not_vary_leave_the_start_random():
    for X in (np.ones((5, 3)), np.full((4, 2), 1e8)):
        with np.errstate(all="ignore"):
            model = start(Autoencoder(2), X)
        assert np.isfinite(model.reconstruct(X)).all()


def test_loadings_of_bits_are_those_of_logistic_regression():
    X = (DIGITS > 8).astype(float)
    ae = start(Autoencoder(5, likelihood="bernoulli"), X)
    Z, chance = ae.transform(X), ae.reconstruct(X)
    for column in (20, 28, 34):
        exact = LogisticRegression(C=1.0, tol=1e-8).fit(Z, X[:, column]).predict_proba(Z)[:, 1]
        np.testing.assert_allclose(chance[:, column], exact, atol=0.02)
    assert chance[:, 0].max() < 0.05  # a column of zeros, whose best loading is infinite


@pytest.mark.parametrize(
    "model",
    [
        VAE(3, likelihood="poisson"),
        VAE(3, likelihood="laplace"),
        VAE(3, noise_variance="per_feature"),
        VAE(3, prior="mixture"),
        VAE(3, normalization="batch"),
        Autoencoder(3, likelihood="poisson"),
        Autoencoder(3, out_activation="relu"),
        AdversarialAE(3, prior="mixture", posterior="gaussian"),
        VQVAE(4, n_codes=16),
        VQVAE(4, quantizer="fsq"),
    ],
    ids=str,
)
def test_other_models_begin_near_their_linear_optimum(model):
    linear = start(model, DIGITS).score(DIGITS)
    random = start(model.set_params(init="random"), DIGITS).score(DIGITS)
    assert linear > random + 5


def test_codes_of_an_adversarial_ae_begin_in_units_of_the_prior():
    aae = start(AdversarialAE(3, prior_scale=5.0), DIGITS)
    np.testing.assert_allclose(aae.transform(DIGITS).std(axis=0), 5.0, rtol=0.02)


# ------------------------------------------------------------------ start against end


@pytest.mark.parametrize("Estimator", [Autoencoder, VAE])
@pytest.mark.parametrize("rate", [1.0, 100.0])
def test_an_end_above_the_start_is_not_kept(Estimator, rate):
    model = Estimator(4, max_iter=3, learning_rate_init=rate, random_state=0)
    with pytest.warns(ConvergenceWarning, match=r"linear model .* Lower learning_rate_init"):
        model.fit(DIGITS)
    first = start(Estimator(4), DIGITS)
    np.testing.assert_allclose(model.score(DIGITS), first.score(DIGITS), rtol=1e-6)
    assert model.noise_variance_ == pytest.approx(first.noise_variance_, rel=1e-6)
    assert model.n_iter_ == 3


def test_commitment_does_not_decide_between_start_and_end():
    settings = {"n_codes": 64, "prior": "independent", "random_state": 0}
    settings |= {"max_iter": 7, "learning_rate_init": 3e-3}
    model = VQVAE(8, **settings).fit(DIGITS[:300])
    first, last = model.history_[0], model.history_[-1]
    assert last["train_reconstruction"] < first["train_reconstruction"] - 3
    assert last["train_loss"] > first["train_loss"]
    assert not model.net_.at_start_


@pytest.mark.parametrize("Estimator", [Autoencoder, VAE, AdversarialAE])
def test_an_end_above_explaining_rows_by_their_mean_is_told(Estimator):
    model = Estimator(4, max_iter=3, learning_rate_init=1.0, init="random", random_state=0)
    with pytest.warns(ConvergenceWarning, match=r"mean row. Lower learning_rate_init"):
        model.fit(DIGITS)


@pytest.fixture
def by_sample(monkeypatch):
    """Few rows are taken for many, of which a sample tells at first; what was asked of all rows."""
    monkeypatch.setattr(at_rest, "_SAMPLED", 128)
    monkeypatch.setattr(at_rest, "_SAMPLED_AT_ONCE", 8)
    whole = []
    for name in ("objective", "loss_beside_means"):
        function = getattr(callbacks, name)

        def asked(net, function=function, name=name):
            whole.append(name)
            return function(net)

        monkeypatch.setattr(callbacks, name, asked)
    return whole


@pytest.mark.parametrize("Estimator", [Autoencoder, VAE, AdversarialAE])
@pytest.mark.parametrize("init", ["linear", "random"])
def test_what_a_sample_tells_is_not_asked_of_all_rows(by_sample, Estimator, init):
    """A training that is clearly better is kept as it is."""
    params = {"max_iter": 20, "init": init, "random_state": 0, "hidden_layer_sizes": 64}
    found = Estimator(4, **params).fit(DIGITS)
    assert by_sample == []
    assert len(DIGITS) > at_rest._SAMPLED * at_rest._MANY_SAMPLES
    # Weights that are all alike change nothing but that every row is asked.
    weighted = Estimator(4, **params).fit(DIGITS, sample_weight=np.full(len(DIGITS), 2.0))
    assert by_sample != []
    np.testing.assert_allclose(found.score(DIGITS), weighted.score(DIGITS), rtol=1e-3)


@pytest.mark.parametrize("Estimator", [Autoencoder, VAE])
def test_where_a_sample_is_in_doubt_all_rows_tell(by_sample, Estimator):
    """What is kept, and said, is what it is without a sample."""
    test_an_end_above_the_start_is_not_kept(Estimator, 1.0)
    assert by_sample.count("objective") == 2
    test_an_end_above_explaining_rows_by_their_mean_is_told(Estimator)
    assert by_sample.count("loss_beside_means") >= 1


@pytest.mark.parametrize(("shift", "expected"), [(2.0, True), (0.0, False), (-2.0, False)])
def test_what_is_clear_is_five_standard_errors_away(shift, expected):
    values = torch.from_numpy(np.random.default_rng(0).normal(shift, size=100))
    assert at_rest.is_clearly_positive(values) == expected
    assert not at_rest.is_clearly_positive(values * 0)


def test_the_loss_of_explaining_rows_by_their_mean():
    X = STANDARDISED * 3 + 1
    model = Autoencoder(2, max_iter=1, init="random", random_state=0).fit(X)
    module, rows = model.net_.module_, model._dataset(Data(X))
    before = float(module.likelihood.variance)
    with torch.no_grad():
        found = float(module.nats_of_means(rows.batch(slice(0, len(X)))))
    exact = -multivariate_normal(X.mean(0), 9 * np.eye(13)).logpdf(X).mean()
    assert found == pytest.approx(exact, rel=1e-5)
    assert float(module.likelihood.variance) == before


@pytest.mark.parametrize("Estimator", [Autoencoder, VAE])
def test_early_stopping_may_go_back_to_the_start(Estimator):
    params = {"early_stopping": True, "random_state": 0}
    model = Estimator(4, max_iter=3, learning_rate_init=1.0, **params)
    with pytest.warns(ConvergenceWarning, match="held-out rows"):
        model.fit(DIGITS)
    first = Estimator(4, max_iter=0, **params).fit(DIGITS)
    np.testing.assert_allclose(model.reconstruct(DIGITS), first.reconstruct(DIGITS), atol=1e-4)
    _, valid = model._trainer.split(len(DIGITS))  # the start has not seen them
    rest = np.setdiff1d(np.arange(len(DIGITS)), valid.numpy())
    if Estimator is Autoencoder:
        expected = LinearAE(4).fit(DIGITS[rest]).reconstruct(DIGITS)
        np.testing.assert_allclose(first.reconstruct(DIGITS), expected, atol=1e-2)


def test_warm_start_goes_on_from_the_start():
    whole = VAE(3, max_iter=4, random_state=0).fit(STANDARDISED)
    parts = VAE(3, max_iter=0, warm_start=True, random_state=0).fit(STANDARDISED)
    parts.set_params(max_iter=4).fit(STANDARDISED)
    np.testing.assert_array_equal(whole.transform(STANDARDISED), parts.transform(STANDARDISED))


def test_a_stream_begins_at_the_optimum_of_its_first_batch():
    ae = Autoencoder(4, random_state=0, learning_rate_init=1e-12).partial_fit(STANDARDISED)
    expected = LinearAE(4).fit(STANDARDISED).reconstruct(STANDARDISED)
    np.testing.assert_allclose(ae.reconstruct(STANDARDISED), expected, atol=1e-3)
    Autoencoder(4, random_state=0).partial_fit(STANDARDISED[:1])


def test_files_keep_the_floor_of_the_noise():
    vae = start(VAE(4), WINE)
    floor = vae.net_.module_.likelihood.floor
    assert floor * vae._architecture.scale**2 < vae.noise_variance_ / 9
    copy = pickle.loads(pickle.dumps(vae))
    assert copy.net_.module_.likelihood.floor == floor
    np.testing.assert_array_equal(copy.score_samples(WINE), vae.score_samples(WINE))


@pytest.mark.parametrize("gaps", [0.0, 0.1])
@pytest.mark.parametrize("Estimator", [Autoencoder, AdversarialAE])
def test_the_noise_begins_at_what_the_start_leaves(Estimator, gaps):
    X = WINE.copy()
    X[np.random.RandomState(0).rand(*X.shape) < gaps] = np.nan
    model = start(Estimator(4), X)
    errors = np.nanmean(np.square(model.reconstruct(X) - X))
    assert model.noise_variance_ == pytest.approx(errors, rel=1e-3)


def test_a_codebook_begins_with_the_noise_of_its_rounding():
    model = VQVAE(4, n_codes=8, calibration=False, prior=None, random_state=0, max_iter=0)
    model.fit(DIGITS)
    assert model.noise_variance_ == pytest.approx(
        np.square(model.reconstruct(DIGITS) - DIGITS).mean(), rel=1e-3
    )
    begun = model.score(DIGITS)
    model.set_params(max_iter=3, learning_rate_init=1.0)
    with pytest.warns(ConvergenceWarning, match="linear model of the initialisation"):
        model.fit(DIGITS)
    assert model.score(DIGITS) == pytest.approx(begun, rel=1e-4)


class Objectives(Callback):
    """What is minimised at the end of training, whatever the running noise is then."""

    def on_train_end(self, net, **kwargs):
        variance = net.module_.likelihood.variance
        kept, self.found = variance.clone(), []
        for factor in (1.0, 10.0):
            variance.copy_(kept * factor)
            self.found.append(objective(net))
        variance.copy_(kept)


@pytest.mark.parametrize("Estimator", [Autoencoder, VAE])
def test_ends_are_compared_at_the_noise_that_is_best_for_them(Estimator):
    """The running noise lags behind: with it an end would look worse than it is."""
    heard = Objectives()
    model = Estimator(2, max_iter=5, callbacks=[heard], init="random", random_state=0)
    model.fit(STANDARDISED)
    assert heard.found[0] == pytest.approx(heard.found[1], rel=1e-6)
    if Estimator is Autoencoder:  # without draws it is the score, with the noise of the fit
        assert heard.found[0] == pytest.approx(-model.score(STANDARDISED), rel=1e-5)


def test_columns_of_little_noise_lower_the_floor():
    one, each = (start(VAE(4, noise_variance=n), WINE) for n in ("scalar", "per_feature"))
    assert each.score(WINE) > one.score(WINE) + 1


# ------------------------------------------------------------------ what init can be


@pytest.mark.parametrize(
    ("params", "needs"),
    [
        ({"pretraining": "layerwise"}, "pretraining=None"),
        ({"sparsity": 0.1}, "sparsity=None"),
        ({"network": "conv", "image_shape": (1, 8, 8)}, "network='mlp'"),
        ({"encoder": torch.nn.Linear(64, 2)}, "your own"),
        ({"tied_weights": True, "activation": "tanh"}, "'relu'"),
        ({"tied_weights": True, "likelihood": "poisson"}, "likelihood='gaussian'"),
    ],
)
def test_a_linear_start_that_cannot_be_is_an_error_if_asked_for(params, needs):
    model = Autoencoder(2, init="linear", max_iter=1, **params)
    with pytest.raises(ValueError, match=rf"init='linear' needs .*{needs}"):
        model.fit(DIGITS)
    model.set_params(init=None, max_iter=0).fit(DIGITS[:50])


def test_random_start_has_nothing_of_the_linear_one():
    ae = Autoencoder(4, init="random", max_iter=0, random_state=0).fit(DIGITS)
    linear = LinearAE(4).fit(DIGITS)
    error, of_pca = (np.square(m.reconstruct(DIGITS) - DIGITS).sum(1).mean() for m in (ae, linear))
    assert error > 1.5 * of_pca
