"""Forms of the codes of a VQVAE, against OneHotEncoder and look-ups in the codebook by hand."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_digits
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.utils import get_tags

from helpers import through_pickle, through_skops
from skae import VQVAE, CountMixtureAE, GridSearchCV, LatentDensityEstimator
from skae.plotting import CodebookDisplay

X, Y = load_digits(return_X_y=True)
X, Y = X[:300], Y[:300]

KINDS = {
    "vq": {"n_codes": 8},
    "residual": {"n_codes": 8, "n_quantizers": 2},
    "simvq": {"n_codes": 8, "quantizer": "simvq"},
    "fsq": {"quantizer": "fsq", "levels": (2, 4)},
}
FORMS = ["indices", "embedding", "onehot"]
every_form = pytest.mark.parametrize("form", FORMS)


def vqvae(n_components=3, **params):
    settings = {"n_codes": 8, "code_dim": None, "prior": "independent", "max_iter": 1}
    return VQVAE(n_components, random_state=0, **{**settings, **params})


@pytest.fixture(scope="module", params=KINDS)
def fitted(request):
    """A fitted model of each quantizer; tests copy it before they set its form."""
    return vqvae(**KINDS[request.param]).fit(X)


def in_form(model, form):
    return through_pickle(model, None).set_params(codes=form)


def by_hand(model, codes):
    """The vectors (n, n_components * code_dim) of indices, the sum over quantizers, by loops."""
    stages = model.codebook_.reshape(model.n_quantizers, model.n_codes_, -1).astype(float)
    q = model.n_quantizers
    rows = [
        np.concatenate(
            [sum(stages[s][row[p * q + s]] for s in range(q)) for p in range(model.n_components_)]
        )
        for row in codes
    ]
    return np.array(rows)


def test_one_hot_codes_are_those_of_scikit_learn(fitted):
    codes = fitted.transform(X)
    levels = [np.arange(fitted.n_codes_)] * codes.shape[1]
    expected = OneHotEncoder(categories=levels, sparse_output=False).fit_transform(codes)
    for found in (fitted.transform(X, output="onehot"), in_form(fitted, "onehot").transform(X)):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)


def test_vectors_are_those_of_the_codebook(fitted):
    found = in_form(fitted, "embedding").transform(X)
    assert found.dtype == np.float32
    expected = by_hand(fitted, fitted.transform(X))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@every_form
def test_round_trips_are_exact(fitted, form):
    """Whatever the form, decoded codes are the reconstruction; also of codes that are drawn."""
    model, rows = in_form(fitted, form), fitted.reconstruct(X)
    Z = model.transform(X)
    np.testing.assert_array_equal(model.inverse_transform(Z), rows)
    np.testing.assert_array_equal(model.inverse_transform(Z.astype(np.float64)), rows)
    np.testing.assert_array_equal(model.reconstruct(X), rows)
    drawn = model.sample_latent(20, random_state=0)
    assert drawn.shape == (20, Z.shape[1])
    assert drawn.dtype == Z.dtype
    expected = fitted.inverse_transform(fitted.sample_latent(20, random_state=0))
    np.testing.assert_array_equal(model.inverse_transform(drawn), expected)


@every_form
def test_codes_have_the_same_probability_in_every_form(fitted, form):
    model, expected = in_form(fitted, form), fitted.score_codes(fitted.transform(X))
    Z = model.transform(X)
    if form == "embedding" and model.n_quantizers > 1:
        with pytest.raises(ValueError, match="indices of several quantizers"):
            model.score_codes(Z)
    else:
        np.testing.assert_array_equal(model.score_codes(Z), expected)
    np.testing.assert_array_equal(model.score_samples(X), fitted.score_samples(X))


def test_other_vectors_are_decoded_and_have_no_probability():
    """A decoder without hidden layers is linear, also between two entries."""
    linear = vqvae(codes="embedding", hidden_layer_sizes=(), activation="identity").fit(X)
    Z = linear.transform(X)
    ends = [linear.inverse_transform(z) for z in (Z[:5], Z[5:10])]
    middle = linear.inverse_transform((Z[:5] + Z[5:10]) / 2)
    np.testing.assert_allclose(middle, np.mean(ends, axis=0), rtol=1e-4, atol=1e-4)
    Z[3, 9] += 0.5
    with pytest.raises(ValueError, match=r"no entry of the codebook, in row 3 at position 1"):
        linear.score_codes(Z)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda z: z.__setitem__((2, slice(8, 16)), 0), r"row 2, for index 1 .* but 0 are not 0"),
        (lambda z: z.__setitem__((2, slice(0, 8)), 1), r"row 2, for index 0 .* but 8 are not 0"),
        (lambda z: z.__imul__(0.5), r"row 0, for index 0 .* the largest is 0.5"),
        (lambda z: z.__imul__(-1), r"the largest is -?0\."),
    ],
    ids=["none", "all", "half", "negative"],
)
def test_codes_that_are_not_one_hot_are_refused(change, message):
    model = vqvae(codes="onehot").fit(X)
    Z = model.transform(X)
    change(Z)
    for method in (model.inverse_transform, model.score_codes):
        with pytest.raises(ValueError, match=message):
            method(Z)


@every_form
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_names_and_frames(fitted, form, library):
    model = in_form(fitted, form)
    names = list(model.get_feature_names_out())
    plain = model.transform(X)
    assert plain.shape == (len(X), len(names))
    assert len(set(names)) == len(names)
    n, dim = plain.shape[1], model.codebook_.shape[-1]
    last = {
        "indices": f"vqvae{n - 1}",
        "embedding": f"vqvae{n // dim - 1}_{dim - 1}",
        "onehot": f"vqvae{n // model.n_codes_ - 1}_{model.n_codes_ - 1}",
    }
    assert names[-1] == last[form]
    frame = model.set_output(transform=library).transform(X)
    assert isinstance(frame, pd.DataFrame if library == "pandas" else pl.DataFrame)
    assert list(frame.columns) == names
    np.testing.assert_array_equal(frame.to_numpy(), plain)
    back = model.inverse_transform(frame)
    np.testing.assert_array_equal(back.to_numpy(), fitted.reconstruct(X))
    with pytest.raises(ValueError, match=f"X has {n - 1} columns, but VQVAE.inverse_transform"):
        model.inverse_transform(plain[:, :-1])


def test_sparse_frames_of_one_hot_codes_are_decoded():
    model = vqvae(codes="onehot").fit(X)
    Z = pd.DataFrame(model.transform(X)).astype(pd.SparseDtype(np.float32, 0))
    np.testing.assert_array_equal(model.inverse_transform(Z), model.reconstruct(X))


@every_form
def test_fit_transform_returns_the_form(form):
    model = vqvae(codes=form)
    Z = model.fit_transform(X)
    np.testing.assert_array_equal(Z, model.transform(X))
    assert Z.dtype == (np.int64 if form == "indices" else np.float32)
    frame = clone(model).set_output(transform="pandas").fit_transform(X)
    assert list(frame.columns) == list(model.get_feature_names_out())
    np.testing.assert_array_equal(frame.to_numpy(), Z)
    dtypes = get_tags(model).transformer_tags.preserves_dtype
    assert dtypes == ([] if form == "indices" else ["float32"])


def test_files_without_the_parameter_have_indices(fitted):
    state = fitted.__getstate__()
    del state["codes"]
    old = object.__new__(VQVAE)
    old.__setstate__(state)
    np.testing.assert_array_equal(old.transform(X), fitted.transform(X))
    assert old.codes == "indices"
    kept = through_skops(in_form(fitted, "onehot"), None)
    np.testing.assert_array_equal(kept.transform(X), fitted.transform(X, output="onehot"))


def test_unknown_forms_are_refused(fitted):
    with pytest.raises(ValueError, match="'codes' parameter of VQVAE must be"):
        vqvae(codes="bits").fit(X)
    with pytest.raises(ValueError, match="'codes' parameter of VQVAE must be"):
        in_form(fitted, "bits").transform(X)


def test_a_search_tries_the_forms():
    """In front of a linear model, with the accuracies of separate fits."""
    classifier = LogisticRegression(max_iter=500)
    pipeline = Pipeline([("codes", vqvae(8, n_codes=16)), ("classify", classifier)])
    grid = {"codes__codes": ["indices", "embedding", "onehot"]}
    search = GridSearchCV(pipeline, grid, cv=[(np.arange(200), np.arange(200, 300))]).fit(X, Y)
    accuracy = search.cv_results_["mean_test_score"]
    for form, found in zip(FORMS, accuracy, strict=True):
        alone = clone(pipeline).set_params(codes__codes=form).fit(X[:200], Y[:200])
        assert found == pytest.approx(alone.score(X[200:], Y[200:]))
    assert accuracy[2] > accuracy[0]


def test_the_display_of_the_codebook_counts_indices(fitted):
    expected = CodebookDisplay.from_estimator(fitted, X)
    for form in ("embedding", "onehot"):
        display = CodebookDisplay.from_estimator(in_form(fitted, form), X)
        np.testing.assert_array_equal(display.counts, expected.counts)


# ------------------------------------------------------- codes where numbers are needed


@every_form
def test_codes_have_no_density(form):
    for model in (vqvae(codes=form), make_pipeline(vqvae(codes=form))):
        with pytest.raises(ValueError, match=r"no density\. VQVAE has its own prior"):
            LatentDensityEstimator(model, max_iter=1).fit(X)


def regression(transformer):
    """A regressor of the whole image from its upper half, through codes."""
    model = TransformedTargetRegressor(
        LinearRegression(), transformer=transformer, check_inverse=False
    )
    return model.fit(X[:, :32], X)


def test_a_regressor_predicts_vectors():
    model = regression(vqvae(codes="embedding"))
    predicted = model.regressor_.predict(X[:, :32])
    expected = model.transformer_.inverse_transform(predicted)
    np.testing.assert_array_equal(model.predict(X[:, :32]), expected)


@pytest.mark.parametrize(
    ("transformer", "remedy"),
    [
        (vqvae(), r"regressor.*not indices.*classifier, set codes='embedding'"),
        (vqvae(codes="onehot"), r"predictions of a regressor.*codes='embedding'"),
    ],
    ids=["indices", "onehot"],
)
def test_a_regressor_does_not_predict_indices(transformer, remedy):
    with pytest.raises(ValueError, match=remedy):
        regression(transformer).predict(X[:, :32])


def test_a_regressor_does_not_predict_components():
    model = TransformedTargetRegressor(
        LinearRegression(), transformer=CountMixtureAE(4, random_state=0), check_inverse=False
    )
    model.fit(X[:, :32], X[:, 20:22])
    message = r"indices 0 to 3 of the components.*regressor.*not indices.*Autoencoder or VAE"
    with pytest.raises(ValueError, match=message):
        model.predict(X[:, :32])
