"""Networks with likelihoods of counts: scores, size factors, files, and what is refused."""

import pickle

import joblib
import numpy as np
import pytest
import skops.io
from scipy import special, stats
from sklearn.base import clone
from torch import nn

from skae import VAE, VQVAE, AdversarialAE, Autoencoder, OutlierDetector
from skae._training.data import Data
from skae.export import to_onnx
from skae.metrics import reconstruction_error_scorer

KINDS = ["poisson", "negative_binomial", "zero_inflated_negative_binomial"]
MODELS = [VAE, Autoencoder, AdversarialAE, VQVAE]
PLACE = np.linspace(-2.0, 2.0, 9)


def make_counts(n=120, seed=0, *, deviation=0.6, mean=4.5, dispersion=None, gaps=0.0, kept=1.0):
    """Peaks that move, with log-normal sizes."""
    rng = np.random.default_rng(seed)
    z, size = rng.normal(size=(n, 1)), np.exp(rng.normal(mean, deviation, (n, 1)))
    rate = size * special.softmax(-((PLACE - z) ** 2), axis=1)
    if dispersion is not None:
        rate = rate * rng.gamma(dispersion, 1 / dispersion, rate.shape)
    X = rng.poisson(rate) * (rng.random(rate.shape) < kept).astype(float)
    if gaps:
        X[rng.random(X.shape) < gaps] = np.nan
    return X


def small(model, **options):
    """A small network that trains for a few epochs."""
    given = {"max_iter": 3, "hidden_layer_sizes": (12,), "random_state": 0}
    if model is VQVAE:
        given |= {"n_components": 2, "n_codes": 6}
    return model(**given | options)


@pytest.fixture(scope="module")
def fitted():
    """Every model with every likelihood, fitted once to counts with gaps."""
    X = make_counts(gaps=0.05)
    return {
        (model, kind): small(model, likelihood=kind).fit(X) for model in MODELS for kind in KINDS
    }


@pytest.fixture(
    params=[(m, k) for m in MODELS for k in KINDS], ids=lambda p: f"{p[0].__name__}-{p[1]}"
)
def model(request, fitted):
    return fitted[request.param]


def totals_of(X):
    """Totals; missing values count as much as their share in the mean row."""
    share = np.nanmean(X, axis=0)
    share = share / share.sum()
    return np.nansum(X, axis=1) / (~np.isnan(X) * share).sum(axis=1)


# ------------------------------------------------------------- rows of all brightness


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_few_bright_rows_do_not_spoil_the_scores(seed):
    """One profile with log-normal sizes of deviation 2: the truth is one integral."""
    rng, place = np.random.default_rng(seed), np.linspace(-2, 2, 8)
    rows = [
        rng.poisson(np.exp(2 * rng.normal(size=(300, 1)) + 2) * np.exp(-(place**2)))
        for _ in range(2)
    ]
    model = VAE(1, likelihood="poisson", hidden_layer_sizes=(20,), max_iter=30, random_state=seed)
    found = model.fit(rows[0]).score_samples(rows[1])
    log_size = np.linspace(-12, 16, 6001)
    size = np.exp(log_size)[:, None]
    nats = np.array(
        [stats.poisson.logpmf(x, size * np.exp(-(place**2))).sum(1) for x in rows[1]]
    ) + stats.norm.logpdf(log_size, 2, 2)
    truth = special.logsumexp(nats, axis=1) + np.log(log_size[1] - log_size[0])
    assert found.mean() == pytest.approx(truth.mean(), rel=0.06)
    assert np.abs(found - truth).max() < 8  # no row is lost, however bright it is


@pytest.mark.parametrize("kind", KINDS)
def test_brighter_rows_have_the_codes_of_their_profile(kind):
    """And lower scores, by about the width of the law, and not by their counts."""
    X = make_counts(deviation=0.3)
    model = small(Autoencoder, n_components=1, likelihood=kind, max_iter=10).fit(X)
    codes = model.transform(X)[:, 0]
    for factor in (10, 100):
        np.testing.assert_allclose(model.transform(factor * X)[:, 0], codes, atol=0.3 * codes.std())
    vae = small(VAE, n_components=1, likelihood=kind, max_iter=10).fit(X)
    bright = make_counts(n=20, mean=4.5 + np.log(10), deviation=0.1, seed=3)
    assert (vae.score_samples(bright) > -400).all()


# ---------------------------------------------------------------------------- size factors


def test_the_size_factor_is_the_geometric_mean_of_the_totals(model):
    assert model.size_factor_ == pytest.approx(
        stats.gmean(totals_of(make_counts(gaps=0.05))), rel=1e-5
    )
    assert isinstance(model.size_factor_, float)


def test_weights_and_rows_without_counts():
    """Rows of weight 2 count twice; totals of zero have no logarithm."""
    X, weight = make_counts(40), np.tile([1.0, 2.0, 0.0, 3.0], 10)
    X[::8] = 0
    model = small(Autoencoder, likelihood="poisson").fit(X, sample_weight=weight)
    repeated = np.repeat(X, weight.astype(int), axis=0).sum(1)
    assert model.size_factor_ == pytest.approx(stats.gmean(repeated[repeated > 0]), rel=1e-5)


def test_a_stream_keeps_the_size_factor_of_its_first_rows():
    """As it keeps their mean and scale; the law of sizes follows later rows."""
    first, later = make_counts(40), 30 * make_counts(40, seed=1)
    model = small(VAE, likelihood="poisson").partial_fit(first)
    size, law = model.size_factor_, float(model._trainer.module.likelihood.sizes.mean)
    assert size == pytest.approx(stats.gmean(first.sum(1)), rel=1e-5)
    for _ in range(3):
        model.partial_fit(later)
    assert model.size_factor_ == size
    assert float(model._trainer.module.likelihood.sizes.mean) > law + 1
    assert np.isfinite(model.score_samples(later)).all()


def test_decoded_rows_have_the_common_total(model):
    """So that `reconstruct` is `inverse_transform(transform)`."""
    X = make_counts(15, seed=4, gaps=0.05)
    decoded = model.inverse_transform(model.transform(X))
    np.testing.assert_allclose(model.reconstruct(X), decoded, rtol=1e-5)
    if model.likelihood != "zero_inflated_negative_binomial":
        np.testing.assert_allclose(decoded.sum(1), model.size_factor_, rtol=1e-5)


def test_rows_are_reconstructed_at_their_own_totals(model):
    """Of the values that were observed; the profile is that of the common size."""
    X = make_counts(15, seed=4, gaps=0.2)
    found, common = model.reconstruct(X, size_factor="row"), model.reconstruct(X)
    ratio = found / common
    np.testing.assert_allclose(ratio, np.tile(ratio[:, :1], (1, 9)), rtol=1e-4)
    assert not np.isnan(found).any()
    if model.likelihood != "zero_inflated_negative_binomial":
        observed = ~np.isnan(X)
        np.testing.assert_allclose((found * observed).sum(1), np.nansum(X, 1), rtol=1e-4)


@pytest.mark.parametrize("model_class", MODELS)
def test_sizes_of_rows_need_size_factors(model_class):
    X = make_counts(40)
    for options in ({"likelihood": "gaussian"}, {"likelihood": "poisson", "size_factor": None}):
        model = small(model_class, **options).fit(X)
        with pytest.raises(ValueError, match="size_factor='row' needs a model with size factors"):
            model.reconstruct(X, size_factor="row")
        with pytest.raises(ValueError, match="size_factor"):
            model.reconstruct(X, size_factor="total")
        assert model.reconstruct(X).shape == X.shape
        for name in ("size_factor_", "dispersion_"):
            with pytest.raises(AttributeError, match=name):
                getattr(model, name)
    with pytest.raises(ValueError, match="size_factor"):
        small(model_class, likelihood="poisson", size_factor="mean").fit(X)


def test_before_a_fit_there_are_no_size_factors():
    for name in ("size_factor_", "dispersion_"):
        assert not hasattr(VAE(likelihood="negative_binomial"), name)


@pytest.mark.parametrize("model_class", MODELS)
def test_samples_are_counts_whose_totals_have_the_law(model_class, fitted):
    """Log-normal with the moments of the training totals."""
    model = fitted[model_class, "poisson"]
    drawn = model.sample(1500, random_state=0)
    np.testing.assert_array_equal(drawn, np.round(drawn))
    logs = np.log(drawn.sum(1))
    law = model._trainer.module.likelihood.sizes
    assert logs.mean() == pytest.approx(float(law.mean), abs=0.1)
    assert logs.std() == pytest.approx(float(law.variance) ** 0.5, rel=0.15)
    trained = np.log(totals_of(make_counts(gaps=0.05)))
    assert float(law.mean) == pytest.approx(trained.mean(), abs=0.1)
    assert float(law.variance) ** 0.5 == pytest.approx(trained.std(), rel=0.15)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_the_dispersion_is_learned(kind):
    """Roughly, for features with many counts; it is infinite for counts of Poisson."""
    found = {}
    for dispersion in (2.0, 40.0):
        X = make_counts(500, dispersion=dispersion, mean=7.0, deviation=0.3)
        model = small(Autoencoder, n_components=1, likelihood=kind, max_iter=60).fit(X)
        assert model.dispersion_.shape == (9,)
        found[dispersion] = np.median(model.dispersion_)
    assert found[2.0] == pytest.approx(2.0, rel=0.5)
    assert found[40.0] > 4 * found[2.0]


def test_given_its_total_the_score_of_a_row_is_higher(fitted):
    """By -log of the density of its size, roughly; both are bounds for every row."""
    for kind in KINDS:
        model, X = fitted[VAE, kind], make_counts(30, seed=5, gaps=0.1)
        given = model.score_samples(X, size_factor="row")
        assert given.shape == (30,)
        assert (given > model.score_samples(X)).all()
        with pytest.raises(ValueError, match="size_factor"):
            model.score_samples(X, size_factor="rows")


def test_column_scores_of_rows_with_gaps_use_the_size_of_the_whole_row(fitted):
    """A row with a missing value has the column scores of that row at the same rates."""
    model = fitted[Autoencoder, "poisson"]
    X = make_counts(20, seed=6, gaps=0.3)
    X[np.isnan(X).all(1)] = 1
    means = model.reconstruct(X, size_factor="row")
    expected = np.where(np.isnan(X), 0, stats.poisson.logpmf(np.nan_to_num(X), means))
    np.testing.assert_allclose(model._column_scores(Data(X)), expected, rtol=1e-3, atol=2e-3)
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(model.score_samples(X), expected.sum(1), rtol=1e-3, atol=1e-2)


# -------------------------------------------------------------------- life of a model


def test_saved_models_compute_the_same(model):
    X = make_counts(10, seed=7, gaps=0.1)

    def results(model):
        of_rows = model.reconstruct(X, size_factor="row")
        return model.transform(X), model.score_samples(X), of_rows

    data = skops.io.dumps(model)
    trusted = skops.io.get_untrusted_types(data=data)
    for loaded in (
        pickle.loads(pickle.dumps(model)),
        skops.io.loads(data, trusted=trusted),
    ):
        for one, other in zip(results(loaded), results(model), strict=True):
            np.testing.assert_array_equal(one, other)
        assert loaded.size_factor_ == model.size_factor_
        if model.likelihood != "poisson":
            np.testing.assert_array_equal(loaded.dispersion_, model.dispersion_)


def test_joblib_and_clones(tmp_path, fitted):
    model = fitted[VAE, KINDS[2]]
    joblib.dump(model, tmp_path / "model")
    X = make_counts(5)
    np.testing.assert_array_equal(
        joblib.load(tmp_path / "model").score_samples(X), model.score_samples(X)
    )
    assert clone(model).get_params()["size_factor"] == "total"
    assert not hasattr(clone(model), "size_factor_")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model_class", MODELS)
def test_training_continues(model_class, kind):
    X = make_counts(60)
    model = small(model_class, likelihood=kind, warm_start=True).fit(X)
    size = model.size_factor_
    model.fit(make_counts(60, seed=1))
    assert model.size_factor_ == size
    model.partial_fit(X)
    with pytest.raises(ValueError, match="size_factor"):
        model.set_params(size_factor=None).fit(X)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model_class", [VAE, Autoencoder])
def test_a_rule_chooses_the_number_of_codes(model_class, kind):
    for rule in (0.9, None):
        model = small(model_class, n_components=rule, likelihood=kind).fit(make_counts(80))
        assert 1 <= model.n_components_ <= 9
        assert model.transform(make_counts(3)).shape == (3, model.n_components_)


# --------------------------------------------------------------------------- networks


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model_class", [VAE, Autoencoder])
def test_own_networks(model_class, kind):
    """They read and give what the documentation says; another width is refused."""
    times = 2 if kind == KINDS[2] else 1
    encoder = nn.Linear(9, 4 if model_class is VAE else 2)
    options = {"likelihood": kind, "hidden_layer_sizes": ()}
    X = make_counts(60)
    model = small(model_class, encoder=encoder, decoder=nn.Linear(2, 9 * times), **options).fit(X)
    assert model.reconstruct(X, size_factor="row").shape == X.shape
    np.testing.assert_allclose(model.size_factor_, stats.gmean(X.sum(1)), rtol=1e-5)
    assert np.isfinite(model.score_samples(X)).all()
    with pytest.raises(ValueError, match=rf"expected \(2, {9 * times}\)"):
        small(model_class, decoder=nn.Linear(2, 9 * (3 - times)), **options).fit(X)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model_class", [VAE, Autoencoder, VQVAE])
def test_images_of_counts(model_class, kind):
    X = np.random.default_rng(0).poisson(3.0, (40, 2 * 8 * 8)).astype(float)
    options = {"network": "conv", "image_shape": (2, 8, 8), "likelihood": kind}
    options |= {"n_components": 16} if model_class is VQVAE else {}
    model = small(model_class, hidden_layer_sizes=(4,), **options).fit(X)
    assert model.reconstruct(X, size_factor="row").shape == X.shape
    if kind != KINDS[2]:
        np.testing.assert_allclose(
            model.reconstruct(X, size_factor="row").sum(1), X.sum(1), rtol=1e-4
        )
    assert model.sample(3, random_state=0).shape == (3, 128)


def test_tied_weights_have_one_output_for_each_feature():
    X = make_counts(60)
    for kind in KINDS[:2]:
        model = small(Autoencoder, likelihood=kind, tied_weights=True).fit(X)
        assert model.reconstruct(X).shape == X.shape
    message = r"tied_weights=True cannot be combined with likelihood='zero_inflated"
    with pytest.raises(ValueError, match=message):
        small(Autoencoder, likelihood=KINDS[2], tied_weights=True).fit(X)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "options",
    [
        {"pretraining": "layerwise", "pretraining_max_iter": 2, "hidden_layer_sizes": (12, 6)},
        {"noise": "masking", "noise_level": 0.2},
        {"noise": "gaussian"},
        {"noise": "salt_and_pepper"},
        {"latent_growth": "nested"},
        {"contraction": 0.1},
        {"early_stopping": True, "max_iter": 5},
        {"solver": "lbfgs"},
    ],
    ids=str,
)
def test_autoencoders_of_counts_train_with(options, kind):
    X = make_counts(60, gaps=0.05)
    model = small(Autoencoder, likelihood=kind, **options).fit(X)
    assert np.isfinite(model.score_samples(X)).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "options",
    [
        {"prior": "mixture", "n_prior_components": 3},
        {"prior": "vamp", "n_prior_components": 3},
        {"latent_growth": "nested"},
        {"n_importance": 3},
        {"free_bits": 0.1},
        {"init": "random"},
        {"size_factor": None},
    ],
    ids=str,
)
def test_vaes_of_counts_train_with(options, kind):
    X = make_counts(60, gaps=0.05)
    model = small(VAE, likelihood=kind, **options).fit(X)
    assert np.isfinite(model.score_samples(X)).all()
    filled = model.impute(X, n_importance=20)
    np.testing.assert_array_equal(filled[~np.isnan(X)], X[~np.isnan(X)])
    assert (filled >= 0).all()
    assert np.isfinite(filled).all()


@pytest.mark.parametrize("kind", KINDS)
def test_conditional_models_of_counts(kind):
    X, y = make_counts(80), np.repeat([0, 1], 40)
    model = small(VAE, likelihood=kind, conditional=True).fit(X, y)
    joint = [model.score_samples(X, np.full(80, label)) + np.log(0.5) for label in (0, 1)]
    total = model.score_samples(X)
    assert np.isfinite(joint).all()
    # Both are bounds; without a label, proposals are not refined, and the bound is looser.
    excess = total - np.logaddexp(*joint)
    assert excess.mean() < 0.05
    assert abs(np.median(excess)) < 0.5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model_class", [VAE, Autoencoder])
def test_graphs_of_counts(model_class, kind, fitted):
    """Of codes and rows; bounds at refined proposals are refused."""
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, X = fitted[model_class, kind], make_counts(8, seed=9).astype(np.float32)

    def run(part, rows):
        graph = to_onnx(model, part=part, dtype="float32").SerializeToString()
        session = runtime.InferenceSession(graph)
        return session.run(None, {session.get_inputs()[0].name: rows})[0]

    codes = model.transform(X)
    np.testing.assert_allclose(run("encoder", X), codes, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(run("decoder", codes), model.reconstruct(X), rtol=1e-3)
    if model_class is VAE:
        with pytest.raises(ValueError, match="part='score' of a VAE with likelihood="):
            to_onnx(model, part="score")
    else:
        found = run("score", X).ravel()
        np.testing.assert_allclose(found, model.score_samples(X), rtol=1e-3, atol=1e-2)


# ------------------------------------------------------- rows of different totals


def rows_of_many_totals():
    """Rows of one profile with totals over two orders of magnitude, some values missing."""
    rng = np.random.RandomState(0)
    profile = rng.dirichlet(np.full(12, 2.0))
    X = rng.poisson(10 ** rng.uniform(2, 4, (200, 1)) * profile).astype(float)
    return X, np.where(rng.rand(*X.shape) < 0.25, np.nan, X)


@pytest.mark.parametrize("kind", [Autoencoder, VAE, VQVAE, AdversarialAE])
def test_missing_counts_are_filled_in_at_the_total_of_their_row(kind):
    X, incomplete = rows_of_many_totals()
    model = kind(2, likelihood="poisson", max_iter=10, random_state=0).fit(X)
    missing = np.isnan(incomplete)
    bright = X.sum(1) > np.median(X.sum(1))
    for filled in (model.impute(incomplete), *model.impute(incomplete, 2, random_state=0)):
        for rows in (bright, ~bright):
            part = missing & rows[:, None]
            assert filled[part].sum() == pytest.approx(X[part].sum(), rel=0.1)
    nothing = np.full((1, 12), np.nan)
    assert 0 < model.impute(nothing).sum() < 100 * model.size_factor_
    total = model.reconstruct(nothing, size_factor="row").sum()
    assert total == pytest.approx(model.size_factor_, rel=1e-4)


def test_errors_of_reconstructions_are_those_at_the_totals_of_rows():
    """Scorers, detectors and displays would otherwise see differences of totals."""
    X, _ = rows_of_many_totals()
    model = Autoencoder(2, likelihood="poisson", max_iter=10, random_state=0).fit(X)
    errors = ((model.reconstruct(X, size_factor="row") - X) ** 2).sum(1)
    found = reconstruction_error_scorer(model, X)
    assert found == pytest.approx(-errors.mean(), rel=1e-5)
    detector = OutlierDetector(model, score_method="reconstruction_error").fit(X)
    assert np.isfinite(detector.score_samples(X)).all()


def test_integer_names_of_label_columns():
    pd = pytest.importorskip("pandas")
    X, _ = rows_of_many_totals()
    y = pd.DataFrame({0: pd.Categorical(list("ab") * 100), 1: pd.Categorical([1, 2] * 100)})
    settings = {"likelihood": "poisson", "conditional": True, "max_iter": 2, "random_state": 0}
    one = VAE(2, **settings).fit(X, y)
    other = VAE(2, **settings).fit(X, y.rename(columns=str))
    np.testing.assert_array_equal(one.transform(X), other.transform(X))
