"""Other packages with autoencoders where they expect PCA: what runs, with which versions.

    python benchmarks/other_packages.py
    python benchmarks/other_packages.py hyperspy mne

Each package is optional: one that is not installed is said to be missing. Packages that need an
older pandas than others have to be installed in another environment. The script prints a table
with one row for each package and one column for each estimator, and the errors below it. It
returns 1 if there were errors.

The table on the page "PCA's place in other packages" of the documentation is from this script.
"""

import argparse
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA

from skae import PPCA, VAE, AdversarialAE, Autoencoder, LinearAE

Check = Callable[[Any], None]

SHORT = {"max_iter": 10, "random_state": 0}
ESTIMATORS = {
    "PCA": PCA(2),
    "LinearAE": LinearAE(2),
    "PPCA": PPCA(2),
    "Autoencoder": Autoencoder(2, **SHORT),
    "VAE": VAE(2, **SHORT),
    "AdversarialAE": AdversarialAE(2, **SHORT),
}
CHECKS: dict[str, Check] = {}


def check_of(package: str) -> Callable[[Check], Check]:
    """Register what is done with an estimator by a package."""

    def register(function: Check) -> Check:
        CHECKS[package] = function
        return function

    return register


def rows(n_rows: int = 60, n_features: int = 8) -> np.ndarray:
    """Two factors under noise."""
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(n_rows, 2)) @ rng.normal(size=(2, n_features))
    return 3.0 + signal + 0.1 * rng.normal(size=(n_rows, n_features))


def assert_close(found: Any, expected: Any, tol: float = 1e-4) -> None:
    """Equal relative to the largest of the expected values."""
    expected = np.asarray(expected, dtype=float)
    np.testing.assert_allclose(np.asarray(found), expected, atol=tol * np.abs(expected).max())


@check_of("imbalanced-learn")
def imbalanced_learn(model: Any) -> None:
    """Between samplers, which act in fit only."""
    from imblearn.over_sampling import SMOTE
    from imblearn.pipeline import make_pipeline
    from sklearn.linear_model import LogisticRegression

    X, y = load_iris(return_X_y=True)
    X, y = X[:70], y[:70]  # 50 of one kind, 20 of another
    pipeline = make_pipeline(model, SMOTE(random_state=0), LogisticRegression()).fit(X, y)
    assert pipeline.score(X, y) > 0.95


@check_of("skrub")
def skrub(model: Any) -> None:
    """In place of some columns of a data frame."""
    from skrub import ApplyToCols

    frame = load_iris(as_frame=True).data
    frame["kind"] = ["a", "b", "c"] * 50
    out = ApplyToCols(model, cols=list(frame.columns[:4])).fit_transform(frame)
    assert list(out.columns) == ["kind", *model.fit(frame.iloc[:, :4]).get_feature_names_out()]


@check_of("mlxtend")
def mlxtend(model: Any) -> None:
    """The correlation circle, from codes and `explained_variance_`."""
    import matplotlib.pyplot as plt
    from mlxtend.plotting import plot_pca_correlation_graph

    X = load_iris().data
    Z = model.fit_transform(X)
    figure, correlations = plot_pca_correlation_graph(
        X, list("abcd"), X_pca=Z, explained_variance=model.explained_variance_
    )
    plt.close(figure)
    assert_close(correlations, np.corrcoef(X.T, Z.T)[:4, 4:])


@check_of("hyperspy")
def hyperspy(model: Any) -> None:
    """A decomposition: factors are `components_`, and the model needs `mean_` to be added."""
    import hyperspy.api as hs

    X = rows(6 * 10, 40)
    signal = hs.signals.Signal1D(X.reshape(6, 10, 40).copy())  # mean_ is added to its data
    signal.decomposition(algorithm=model, output_dimension=2, print_info=False)
    results = signal.learning_results
    assert_close(results.factors, model.components_.T)
    assert_close(results.loadings, model.transform(X))
    assert signal.get_explained_variance_ratio().data.shape == (2,)
    results.mean = None  # otherwise it is read as one value for each position
    found = signal.get_decomposition_model().data + model.mean_
    assert_close(found.reshape(X.shape), results.loadings @ model.components_ + model.mean_)
    decoded = model.inverse_transform(results.loadings).reshape(signal.data.shape)
    assert np.abs(decoded.reshape(X.shape) - X).mean() < 0.3


@check_of("mne")
def mne(model: Any) -> None:
    """A spatial filter of epochs in volts."""
    from mne.decoding import UnsupervisedSpatialFilter

    epochs = 1e-6 * rows(10 * 50, 6).reshape(10, 50, 6).transpose(0, 2, 1)
    spatial = UnsupervisedSpatialFilter(model, average=False)
    codes = spatial.fit_transform(epochs)
    assert codes.shape == (10, 2, 50)
    decoded = spatial.inverse_transform(codes)
    assert np.abs(decoded - epochs).mean() < 0.3 * np.abs(epochs - epochs.mean()).mean()


@check_of("scanpy")
def scanpy(model: Any) -> None:
    """Neighbours by codes; networks need dense rows."""
    import anndata
    import scanpy as sc
    from scipy import sparse
    from sklearn.utils import get_tags

    counts = np.random.default_rng(0).poisson(rows(60, 20).clip(min=0.1)).astype(np.float32)
    data = anndata.AnnData(sparse.csr_matrix(counts))
    X = data.X if get_tags(model).input_tags.sparse else data.X.toarray()
    data.obsm["X_pca"] = model.fit_transform(X)
    sc.pp.neighbors(data, n_neighbors=5, use_rep="X_pca")
    assert data.obsp["connectivities"].shape == (60, 60)


@check_of("optuna")
def optuna(model: Any) -> None:
    """A study over the latent size."""
    import optuna
    from sklearn.model_selection import cross_val_score

    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def objective(trial: Any) -> float:
        candidate = clone(model).set_params(n_components=trial.suggest_int("n_components", 1, 3))
        return float(cross_val_score(candidate, rows(), cv=2).mean())

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=3)
    assert np.isfinite(study.best_value)


@check_of("shap")
def shap(model: Any) -> None:
    """Contributions of the features to codes."""
    import shap

    X = load_iris().data
    model.fit(X)
    values = shap.KernelExplainer(model.transform, X[::15]).shap_values(X[:2], silent=True)
    expected = model.transform(X[:2]) - model.transform(X[::15]).mean(axis=0)
    assert_close(values.sum(axis=1), expected, tol=1e-3)


@check_of("dask-ml")
def dask_ml(model: Any) -> None:
    """Codes of chunks of a Dask array, by the wrapper, and by the model with the right shape."""
    import dask.array as da
    from dask_ml.wrappers import ParallelPostFit

    X = load_iris().data
    Z, rows = model.fit_transform(X), da.from_array(X, chunks=(50, 4))
    # The wrapper declares the number of columns of X, with every estimator.
    assert_close(ParallelPostFit(model).transform(rows).compute(), model.transform(X))
    lazy = model.transform(rows)
    assert (lazy.shape, lazy.dtype) == (Z.shape, Z.dtype)
    assert_close(lazy.compute(), model.transform(X))


@check_of("bertopic")
def bertopic(model: Any) -> None:
    """Topics of documents with given embeddings."""
    from bertopic import BERTopic
    from sklearn.cluster import KMeans

    rng = np.random.default_rng(0)
    words = [["cat", "dog", "fur"], ["moon", "sky", "sun"], ["bread", "oil", "soup"]]
    topic = np.arange(90) % 3
    documents = [" ".join(rng.choice(words[t], 6)) for t in topic]
    embeddings = rng.normal(size=(3, 20))[topic] + 0.2 * rng.normal(size=(90, 20))
    topics = BERTopic(
        umap_model=model, hdbscan_model=KMeans(3, n_init=3, random_state=0), embedding_model=None
    )
    found, _ = topics.fit_transform(documents, embeddings)
    assert len({*zip(found, topic, strict=True)}) == 3


@check_of("mlflow")
def mlflow(model: Any) -> None:
    """Saved, and loaded."""
    import mlflow.sklearn
    from skops.io import dumps, get_untrusted_types

    X = load_iris().data
    model.fit(X)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model")
        mlflow.sklearn.save_model(
            model,
            path,
            serialization_format="skops",
            skops_trusted_types=get_untrusted_types(data=dumps(model)),
            pip_requirements=["skae"],
        )
        assert_close(mlflow.sklearn.load_model(path).transform(X), model.transform(X))


@check_of("sktime")
def sktime(model: Any) -> None:
    """The codes of a series of several variables."""
    import pandas as pd
    from sktime.transformations.series.adapt import TabularToSeriesAdaptor

    series = pd.DataFrame(rows(), index=pd.period_range("2000-01", periods=60, freq="M"))
    adaptor = TabularToSeriesAdaptor(model)
    codes = adaptor.fit_transform(series)
    assert list(codes.index) == list(series.index)
    assert_close(codes, model.fit(series.to_numpy()).transform(series.to_numpy()), tol=1e-3)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("packages", nargs="*", help=f"some of {', '.join(CHECKS)}; default all")
    asked = parser.parse_args().packages or list(CHECKS)
    if unknown := set(asked) - set(CHECKS):
        parser.error(f"unknown packages {sorted(unknown)}; known are {list(CHECKS)}")
    warnings.simplefilter("ignore")
    errors = []
    print("  ".join([f"{'package':<18}", f"{'version':<10}", *ESTIMATORS]))
    for package in asked:
        try:
            found = version(package)
        except PackageNotFoundError:
            print(f"{package:<18}  not installed")
            continue
        results = []
        for name, estimator in ESTIMATORS.items():
            try:
                CHECKS[package](clone(estimator))
                results.append(f"{'ok':<{len(name)}}")
            except Exception:
                results.append(f"{'failed':<{len(name)}}")
                errors.append(f"{package}, {name}:\n{traceback.format_exc(limit=-3)}")
        print("  ".join([f"{package:<18}", f"{found:<10}", *results]), flush=True)
    print(*errors, sep="\n", file=sys.stderr)
    return int(bool(errors))


if __name__ == "__main__":
    sys.exit(main())
