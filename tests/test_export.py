"""Graphs of ONNX, run by onnxruntime, return what the estimators return."""

import sys

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import skl2onnx
import torch
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)
from torch import nn

from helpers import allowed_rows, assert_same, learned, low_rank_rows, make_rows, network
from skae import (
    PPCA,
    VAE,
    VQVAE,
    AdversarialAE,
    Autoencoder,
    CountMixtureAE,
    Ensemble,
    HelmholtzMachine,
    LatentDensityEstimator,
    LinearAE,
    to_onnx,
)
from skae.export import register_converters

PARTS = ("encoder", "decoder", "score")
IMAGES = {"network": "conv", "image_shape": (2, 7, 6), "hidden_layer_sizes": (4, 6)}


def run(graph, values):
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    (found,) = session.run(None, {session.get_inputs()[0].name: values})
    return found


def expected(model, part, X):
    """The input of a part, and what the estimator returns for it."""
    if part == "encoder":
        return X, model.transform(X)
    if part == "score":
        return X, model.score_samples(X)
    Z = model.transform(X)
    return Z, model.inverse_transform(Z)


def check(model, part, X, **options):
    """The part of a model as a graph, for one row and for all."""
    graph = to_onnx(model, part, **options)
    for rows in (X[:1], X):
        given, wanted = expected(model, part, rows)
        found = run(graph, given)
        assert found.dtype == wanted.dtype
        assert found.shape == wanted.shape
        largest = np.abs(wanted).max()
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * largest)
    return graph


def images(n=40, seed=0):
    return np.random.default_rng(seed).random((n, 84), dtype=np.float32)


def long(*values):
    return pytest.param(*values, marks=pytest.mark.long)


# --------------------------------------------------------------------------- linear models


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "model",
    [
        LinearAE(2),
        LinearAE(3, whiten=True),
        LinearAE(alpha=0.1),
        LinearAE(2, solver="gradient", random_state=0),
        PPCA(2),
        PPCA(0.7),
    ],
    ids=str,
)
def test_linear_models(model, part, dtype):
    X = make_rows(dtype=dtype)
    check(model.fit(X), part, X)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_missing_values_of_ppca(part, dtype):
    X = make_rows(gaps=0.3, dtype=dtype)
    check(PPCA(2).fit(X), part, X)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("gaps", [0.0, 0.3])
@pytest.mark.parametrize(
    "model",
    [
        PPCA(2, noise_variance="per_feature", random_state=0),
        PPCA(2, noise_variance="per_feature", rotation="varimax", random_state=0),
        PPCA(2, rotation="quartimax", random_state=0),
        PPCA(2, loadings_prior="ard", random_state=0),
        PPCA(2, loadings_prior="ard", noise_variance="scalar", random_state=0),
    ],
    ids=str,
)
def test_factors_priors_and_rotations_of_ppca(model, part, dtype, gaps):
    X = low_rank_rows(60, 6, noise=0.7, gaps=gaps).astype(dtype)
    check(model.fit(X), part, X)


@pytest.mark.parametrize("part", PARTS)
def test_type_of_the_input(part):
    """The input has the type that is asked for, and the output that which estimators return."""
    X = make_rows(dtype=np.float64)
    model = LinearAE(2).fit(X)
    given, _ = expected(model, part, X.astype(np.float32))
    given = given.astype(np.float32)
    found = run(to_onnx(model, part, dtype="float32"), given)
    wanted = (
        model.inverse_transform(given) if part == "decoder" else expected(model, part, given)[1]
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)
    assert found.dtype == wanted.dtype == np.float64


def test_a_frame_is_exported_as_an_array_with_its_columns_in_order():
    X = make_rows(dtype=np.float64)
    model = PPCA(2).set_output(transform="pandas").fit(pd.DataFrame(X, columns=list("abcde")))
    found = run(to_onnx(model), X)
    np.testing.assert_allclose(found, model.transform(pd.DataFrame(X, columns=list("abcde"))))


# -------------------------------------------------------------------------------- networks


@pytest.mark.parametrize("part", [long("encoder"), "decoder", "score"])
def test_vae_with_missing_values_leaves_everything_as_it_was(part, capfd):
    X = make_rows(gaps=0.2)
    model = network(VAE).fit(X)
    before, weights = learned(model), model.net_.module_
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    numbers = np.random.get_state()[1].copy()  # noqa: NPY002
    capfd.readouterr()
    with torch.inference_mode():
        graph = check(model, part, X)
    assert capfd.readouterr() == ("", "")
    assert_same(learned(model), before)
    assert model.net_.module_ is weights
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()
    assert (np.random.get_state()[1] == numbers).all()  # noqa: NPY002
    # Nothing in the graph names this machine.
    text = str(graph)
    assert __file__ not in text
    assert "site-packages" not in text
    assert graph.producer_name == "skae"


@pytest.mark.parametrize("part", ["encoder", long("decoder"), long("score")])
@pytest.mark.parametrize(
    "params",
    [
        {"pooling": "max", "normalization": "batch"},
        long({"pooling": "min"}),
        long({"pooling": "average"}),
        long({"likelihood": "laplace"}),
    ],
    ids=str,
)
def test_convolutions(part, params):
    X = images()
    check(network(Autoencoder, **IMAGES, **params).fit(X), part, X)


@pytest.mark.parametrize("part", [long("encoder"), long("decoder"), "score"])
def test_codes_of_vqvae_are_integers(part):
    X = make_rows(n_features=6)
    graph = check(network(VQVAE, n_codes=4, prior_max_iter=2).fit(X), part, X)
    if part != "score":
        codes = graph.graph.output[0] if part == "encoder" else graph.graph.input[0]
        assert codes.type.tensor_type.elem_type == onnx.TensorProto.INT64


@pytest.mark.parametrize("part", ["encoder", "decoder"])
@pytest.mark.parametrize("codes", ["onehot", long("embedding")])
@pytest.mark.parametrize("n_quantizers", [1, long(2)])
def test_other_forms_of_codes(part, codes, n_quantizers):
    X = make_rows(n_features=6)
    model = network(VQVAE, n_codes=4, n_quantizers=n_quantizers, codes=codes, prior=None).fit(X)
    graph = check(model, part, X)
    written = graph.graph.output[0] if part == "encoder" else graph.graph.input[0]
    assert written.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


@pytest.mark.long
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    "params",
    [
        {"quantizer": "fsq", "levels": (3, 4), "prior": "independent"},
        {"quantizer": "simvq", "n_codes": 4, "n_quantizers": 2, "prior": None},
        {"likelihood": "bernoulli", "n_codes": 4, "codebook_update": "loss", "prior": None},
    ],
    ids=str,
)
def test_other_quantizers(part, params):
    X = make_rows(gaps=0.2)
    if "likelihood" in params:
        X = np.where(np.isnan(X), X, X > 3).astype(np.float32)
    check(network(VQVAE, **params).fit(X), part, X)


@pytest.mark.long
@pytest.mark.parametrize("part", PARTS)
def test_codes_of_images(part):
    X = images()
    check(network(VQVAE, **IMAGES, n_components=None, n_codes=4).fit(X), part, X)


@pytest.mark.parametrize("part", [long("encoder"), long("decoder"), "score"])
@pytest.mark.parametrize("binary", [False, long(True)])
def test_helmholtz_machine(part, binary):
    """Units are drawn by comparisons, whose results must be the same."""
    X = make_rows(gaps=0.1)
    if binary:
        X = np.where(np.isnan(X), X, X > 3).astype(np.float32)
    model = network(HelmholtzMachine, n_components=3).fit(X)
    check(model, part, X)


@pytest.mark.parametrize(
    "likelihood", ["poisson", long("bernoulli"), long("continuous_bernoulli"), long("laplace")]
)
@pytest.mark.parametrize("part", [long("decoder"), "score"])
def test_likelihoods(likelihood, part):
    X = allowed_rows(likelihood, make_rows(scales=(40.0, 4.0)), 3.0)
    check(network(Autoencoder, likelihood=likelihood).fit(X), part, X)


@pytest.mark.long
@pytest.mark.parametrize("part", PARTS)
def test_adversarial_autoencoder(part):
    """Rows far from zero, whose differences float32 loses."""
    X = make_rows(dtype=np.float64, mean=1e6)
    check(network(AdversarialAE, posterior="gaussian").fit(X), part, X)


@pytest.mark.long
@pytest.mark.parametrize("part", ["decoder", "score"])
@pytest.mark.parametrize(
    "params",
    [
        {"prior": "mixture"},
        {"prior": "vamp"},
        {"latent_growth": "nested"},
        {"out_activation": "relu", "activation": "tanh", "noise_variance": "per_feature"},
        {"conditional": True},
        {"normalization": "batch", "activation": "leaky_relu", "missing": "error"},
        {"activation": "silu"},
    ],
    ids=str,
)
def test_kinds_of_vae(part, params):
    X = np.floor(np.abs(make_rows()))
    check(network(VAE, **params).fit(X, np.arange(len(X)) % 3), part, X)


@pytest.mark.long
@pytest.mark.parametrize("size_factor", ["total", None])
@pytest.mark.parametrize("likelihood", ["poisson", "zero_inflated_negative_binomial"])
def test_counts(likelihood, size_factor):
    """Codes and rows of all networks, and scores of those that need no search for a mode."""
    X = np.floor(3 * np.abs(make_rows()))
    options = {"likelihood": likelihood, "size_factor": size_factor}
    vae = network(VAE, **options).fit(X)
    for part in ("encoder", "decoder"):
        check(vae, part, X)
    with pytest.raises(ValueError, match="part='score' of a VAE"):
        to_onnx(vae, part="score")
    autoencoder = network(Autoencoder, **options).fit(X)
    for part in PARTS:
        check(autoencoder, part, X)


@pytest.mark.long
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    "params",
    [
        {"tied_weights": True, "sparsity": 0.3, "activation": "logistic"},
        {"latent_growth": "incremental"},
        {"out_activation": "tanh"},
    ],
    ids=str,
)
def test_kinds_of_autoencoder(part, params):
    X = np.tanh(make_rows(mean=0.0))
    check(network(Autoencoder, **params).fit(X), part, X)


@pytest.mark.long
@pytest.mark.parametrize("part", PARTS)
def test_tables_of_numbers(part):
    X = make_rows(n_features=3, gaps=0.1)
    X[:, 1] = np.floor(np.abs(X[:, 1]))
    X[:, 2] = np.where(np.isnan(X[:, 2]), np.nan, X[:, 2] > 3)
    kinds = {0: "gaussian", 1: "poisson", 2: "bernoulli"}
    check(network(VAE, likelihood=kinds).fit(X), part, X)


@pytest.mark.long
@pytest.mark.parametrize("part", PARTS)
def test_large_batch(part):
    X = make_rows()
    model = network(VAE).fit(X)
    check(model, part, np.tile(X, (100, 1)))


@pytest.mark.long
def test_number_of_draws():
    X = make_rows()
    model = network(VAE).fit(X)
    found = run(to_onnx(model, "score", n_importance=7), X)
    np.testing.assert_allclose(found, model.score_samples(X, n_importance=7), rtol=1e-5)


class Own(nn.Module):
    def __init__(self, branches):
        super().__init__()
        self.layer, self.branches = nn.Linear(5, 2), branches

    def forward(self, x):
        if self.branches and x.sum() > 0:
            x = x + 1
        return self.layer(x)


@pytest.mark.long
def test_own_network():
    X = make_rows(mean=0.0)
    check(network(Autoencoder, encoder=Own(False)).fit(X), "encoder", X)


def test_score_of_an_own_network_that_reads_float64():
    # torch 2.13 makes an invalid graph if the same rows are clipped twice.
    X = make_rows(mean=0.0, dtype=np.float64)
    check(network(Autoencoder, encoder=Own(False)).fit(X), "score", X)


def test_own_network_that_torch_cannot_export():
    model = network(Autoencoder, encoder=Own(True)).fit(make_rows(mean=0.0))
    with pytest.raises(ValueError, match=r"network\. Its forward must not depend on values"):
        to_onnx(model)


def test_decoder_of_a_table_returns_means_and_does_not_round():
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"count": rng.poisson(3, 60), "size": rng.normal(size=60)})
    model = network(VAE, likelihood="auto").fit(rows)
    codes = model.transform(rows)
    found = run(to_onnx(model, "decoder"), codes)
    of_table = model.inverse_transform(codes)
    np.testing.assert_array_equal(np.rint(found[:, 0]), of_table["count"])
    assert not np.array_equal(found[:, 0], np.rint(found[:, 0]))
    np.testing.assert_allclose(found[:, 1], of_table["size"], rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------- Pipelines, other estimators


@pytest.mark.parametrize("dtype", [None, "float32"])
@pytest.mark.parametrize("part", ["encoder", "score"])
@pytest.mark.parametrize("before", [StandardScaler(), PCA(4)], ids=str)
def test_pipeline(part, before, dtype):
    X = make_rows(dtype=np.float64)
    pipeline = make_pipeline(before, "passthrough", PPCA(2)).fit(X)
    rows = X if dtype is None else X.astype(dtype)
    wanted = pipeline.transform(X) if part == "encoder" else pipeline.score_samples(X)
    found = run(to_onnx(pipeline, part, dtype=dtype), rows)
    tol = 1e-9 if dtype is None else 1e-4
    np.testing.assert_allclose(found, wanted, rtol=tol, atol=tol)


@pytest.mark.parametrize(
    "before",
    [
        [StandardScaler()],
        [StandardScaler(with_mean=False), MinMaxScaler((-1, 2))],
        [RobustScaler(), MaxAbsScaler()],
        [RobustScaler(with_centering=False), PCA(4, whiten=True)],
        [StandardScaler(with_std=False), LinearAE(4)],
        [],
    ],
    ids=str,
)
def test_decoder_of_a_pipeline(before):
    X = make_rows(dtype=np.float64)
    pipeline = make_pipeline(*before, PPCA(2)).fit(X)
    Z = pipeline.transform(X)
    found = run(to_onnx(pipeline, "decoder"), Z)
    np.testing.assert_allclose(found, pipeline.inverse_transform(Z), rtol=1e-9)


def test_searches_and_frozen_pipelines():
    X = make_rows(dtype=np.float64)
    search = GridSearchCV(make_pipeline(StandardScaler(), PPCA()), {"ppca__n_components": [1, 2]})
    with pytest.raises(NotFittedError):
        to_onnx(search)
    search.fit(X)
    for model in (search, FrozenEstimator(search.best_estimator_)):
        np.testing.assert_allclose(run(to_onnx(model), X), search.transform(X), atol=1e-12)


def test_latent_density_estimator_encodes_and_decodes():
    X = make_rows(dtype=np.float64)
    model = LatentDensityEstimator(
        make_pipeline(StandardScaler(), LinearAE(2)), density=GaussianMixture(2, random_state=0)
    ).fit(X)
    for part in ("encoder", "decoder"):
        check(model, part, X)
    with pytest.raises(ValueError, match="its density of codes may be any estimator"):
        to_onnx(model, "score")
    bare = LatentDensityEstimator(None, density=GaussianMixture(2, random_state=0)).fit(X)
    with pytest.raises(ValueError, match="has no autoencoder"):
        to_onnx(bare)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("model", [PPCA(2), LinearAE(2)], ids=str)
def test_skl2onnx_converts_pipelines(model, dtype):
    X = make_rows(dtype=dtype)
    pipeline = make_pipeline(StandardScaler(), model).fit(X)
    register_converters()
    found = run(skl2onnx.to_onnx(pipeline, X[:1]), X)
    assert found.dtype == dtype
    tol = 1e-9 if dtype == np.float64 else 1e-5
    np.testing.assert_allclose(found, pipeline.transform(X), rtol=tol, atol=tol)


@pytest.mark.parametrize("model", [VQVAE, long(VAE)])
def test_skl2onnx_converts_pipelines_with_networks(model):
    X = make_rows()
    params = {"n_codes": 4, "prior": None} if model is VQVAE else {}
    pipeline = make_pipeline(StandardScaler(), network(model, **params)).fit(X)
    register_converters()
    found = run(skl2onnx.to_onnx(pipeline, X[:1]), X)
    wanted = pipeline.transform(X)
    assert found.dtype == wanted.dtype
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_skl2onnx_with_an_old_opset():
    X = make_rows()
    register_converters()
    with pytest.raises(ValueError, match="target_opset=15 is too old for PPCA"):
        skl2onnx.to_onnx(PPCA(2).fit(X), X[:1], target_opset=15)


# ---------------------------------------------------------------------------------- errors


def test_the_graph_has_a_name_for_each_value_and_any_number_of_rows():
    X = make_rows()
    for part, names in {
        "encoder": ("X", "Z"),
        "decoder": ("Z", "X_decoded"),
        "score": ("X", "scores"),
    }.items():
        graph = to_onnx(PPCA(2).fit(X), part).graph
        assert (graph.input[0].name, graph.output[0].name) == names
        assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_another_number_of_columns():
    X = make_rows()
    with pytest.raises(Exception, match="Got invalid dimensions for input: X"):
        run(to_onnx(PPCA(2).fit(X)), X[:, :3])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"part": "middle"}, "The 'part' parameter of to_onnx must be"),
        ({"dtype": "float16"}, "The 'dtype' parameter of to_onnx must be"),
        ({"n_importance": 0}, "The 'n_importance' parameter of to_onnx must be"),
        ({"n_importance": 5}, "concerns part='score' of VAE and HelmholtzMachine only"),
        ({"part": "score", "n_importance": 5}, "concerns part='score' of VAE"),
    ],
)
def test_arguments_that_are_not_allowed(options, message):
    with pytest.raises(ValueError, match=message):
        to_onnx(PPCA(2).fit(make_rows()), **options)


def test_estimators_that_cannot_be_exported():
    X = make_rows()
    with pytest.raises(NotFittedError):
        to_onnx(PPCA(2))
    with pytest.raises(NotFittedError):
        to_onnx(VAE(2))
    counts = np.floor(np.abs(X))
    for model in (CountMixtureAE(2).fit(counts), Ensemble(PPCA(2), 2).fit(X), PCA(2).fit(X)):
        with pytest.raises(TypeError, match=f"got {type(model).__name__}. Save other estimators"):
            to_onnx(model)
    search = GridSearchCV(PPCA(2), {"n_components": [1, 2]}, cv=2, refit=False)
    with pytest.raises(NotFittedError):
        to_onnx(search)
    with pytest.raises(TypeError, match="refit=False and therefore has no best_estimator_"):
        to_onnx(search.fit(X))
    with pytest.raises(TypeError, match="got PCA"):
        to_onnx(make_pipeline(StandardScaler(), PCA(2)).fit(X))
    pipeline = make_pipeline(QuantileTransformer(n_quantiles=9), PPCA(2)).fit(X)
    with pytest.raises(ValueError, match=r"\(QuantileTransformer\) cannot be inverted"):
        to_onnx(pipeline, "decoder")
    with pytest.raises(TypeError, match="All steps of the pipeline"):
        to_onnx(make_pipeline("passthrough").fit(X))


def test_parts_of_networks_that_cannot_be_exported():
    X = make_rows()
    model = network(VAE, conditional=True).fit(X, X[:, 0])
    for part in ("decoder", "score"):
        with pytest.raises(ValueError, match="needs y for each row"):
            to_onnx(model, part)
    table = pd.DataFrame({"a": X[:, 0], "b": np.where(X[:, 1] > 3, "yes", "no")})
    model = network(Autoencoder, likelihood="auto").fit(table)
    with pytest.raises(ValueError, match="a table with categorical columns"):
        to_onnx(model)


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "skl2onnx"])
def test_missing_packages_are_named(monkeypatch, missing):
    """Imports fail as they do without the package."""
    X = make_rows()
    models = {
        "onnx": PPCA(2),
        "onnxscript": network(Autoencoder),
        "skl2onnx": make_pipeline(StandardScaler(), PPCA(2)),
    }
    model = models[missing].fit(X)
    for name in list(sys.modules):
        if name.partition(".")[0] == missing:
            monkeypatch.delitem(sys.modules, name)

    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == missing:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(ImportError, match=rf'needs the package {missing}: pip install "skae\[onnx'):
        to_onnx(model)
