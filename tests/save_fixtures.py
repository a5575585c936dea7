"""Save small fitted models and what they compute, as fixtures for every later version.

`python tests/save_fixtures.py` writes the folder of the present version, tests/saved/<version>. It
has a file NAME.skops.xz for each model of `MODELS`, and `expected.npz.xz` with rows and the results
for them. (xz halves the size of files that have an entry for each small array.) Folders of other
versions are never changed: they are the files of users of these versions.
`tests/test_saved_files.py` loads all of them.
"""

import inspect
import io
import lzma
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import skops.io
import torch
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture

import skae
from skae import (
    PPCA,
    VAE,
    VQVAE,
    AdversarialAE,
    Autoencoder,
    CountMixtureAE,
    Ensemble,
    GridSearchCV,
    HelmholtzMachine,
    LatentDensityEstimator,
    LinearAE,
    OutlierDetector,
    PPCAImputer,
    RandomizedSearchCV,
)

FOLDER = Path(__file__).parent / "saved"
ENDING, EXPECTED = ".skops.xz", "expected.npz.xz"
# Number of rows that are stored and scored, and of rows that are drawn.
N_KEPT = 4


# ------------------------------------------------------------------------------- rows


def numbers(n_features=4):
    """Two factors under noise, off centre."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 2)) @ rng.normal(size=(2, n_features)) * 2 + 3
    return X + 0.3 * rng.normal(size=X.shape)


def with_gaps():
    X = numbers()
    X[np.random.default_rng(1).random(X.shape) < 0.1] = np.nan
    return X


def counts():
    return np.floor(np.abs(numbers()) * 3)


def places():
    """On an image of 2 x 3 x 2 x 3 pixels."""
    return np.random.default_rng(2).uniform(0, 2, (40, 4))


def coins():
    return (numbers() > 3).astype(float)


def table():
    """Numbers, categories and a column of counts, as a data frame."""
    X = numbers()
    kind = np.array(["red", "green", "blue"])[(X[:, 2] > 2).astype(int) + (X[:, 2] > 4)]
    return pd.DataFrame({"length": X[:, 0], "width": X[:, 1], "kind": kind, "n": X[:, 3].round()})


def labels():
    return np.where(numbers()[:, 0] > 3, "high", "low")


def targets():
    return np.c_[numbers()[:, 0], numbers()[:, 1] ** 2]


# ------------------------------------------------------------------------------ models


class Model(NamedTuple):
    """An estimator, the rows that it is fitted to, and targets; whether it draws rows."""

    estimator: Any
    rows: Callable[[], Any] = numbers
    targets: Callable[[], Any] | None = None
    draws: bool = True


BRIEF: dict[str, Any] = {
    "hidden_layer_sizes": (3,),
    "batch_size": 20,
    "max_iter": 2,
    "random_state": 0,
    "device": "cpu",
}


def net(Estimator, n_components=2, **params):
    """A network as small as it can be; it begins at random, so that it has been trained."""
    begins = {"init": "random"} if "init" in Estimator().get_params() else {}
    return Estimator(n_components, **{**BRIEF, **begins, **params})


def vqvae(**params):
    return net(VQVAE, **{"n_codes": 3, "prior_channels": 2, "prior_max_iter": 2, **params})


def adversarial(**params):
    return net(AdversarialAE, discriminator_layer_sizes=(3,), **params)


def density(autoencoder=None, **params):
    small = {"n_channels": 2, "n_mixture": 2, "batch_size": 20, "max_iter": 2}
    given = params.get("density", "autoregressive")
    if given == "flow":
        small |= {"n_mixture": None, "n_transforms": 1}
    elif not isinstance(given, str):
        small = {}
    return LatentDensityEstimator(autoencoder, random_state=0, device="cpu", **{**small, **params})


MODELS: dict[str, Model] = {
    # Models in closed form, and those that EM fits.
    "linear_ae": Model(LinearAE(2)),
    "linear_ae_whitened": Model(LinearAE(2, whiten=True, svd_solver="full")),
    "ppca": Model(PPCA(2)),
    "ppca_missing": Model(PPCA(2), with_gaps),
    "ppca_factors": Model(PPCA(1, noise_variance="per_feature", rotation="varimax")),
    "ppca_prior": Model(PPCA(loadings_prior="ard", random_state=0), with_gaps),
    "count_mixture_gaussians": Model(CountMixtureAE(2, random_state=0), counts),
    "count_mixture_cells": Model(
        CountMixtureAE(3, covariance_type="cell", algorithm="partition", random_state=0), counts
    ),
    "count_mixture_pixels": Model(
        CountMixtureAE(covariance_type="pixel", image_shape=(2, 3, 2, 3), random_state=0), places
    ),
    # Networks with a point as code.
    "autoencoder": Model(net(Autoencoder, warm_start=True)),
    "autoencoder_linear_start": Model(Autoencoder(2, **BRIEF)),
    "autoencoder_missing": Model(net(Autoencoder, noise_variance="per_feature"), with_gaps),
    "autoencoder_table": Model(net(Autoencoder, likelihood="auto"), table),
    "autoencoder_counts": Model(net(Autoencoder, likelihood="negative_binomial"), counts),
    "autoencoder_images": Model(
        net(Autoencoder, network="conv", image_shape=(1, 4, 4), hidden_layer_sizes=(2,)),
        lambda: numbers(16),
    ),
    "autoencoder_ordered": Model(
        net(Autoencoder, latent_growth="nested", normalization="batch", activation="tanh")
    ),
    "autoencoder_averaged": Model(net(Autoencoder, weight_averaging=0.9, hidden_layer_sizes=(2,))),
    "autoencoder_sgd": Model(net(Autoencoder, solver="sgd", early_stopping=True)),
    "autoencoder_lbfgs": Model(
        net(Autoencoder, 1, solver="lbfgs", hidden_layer_sizes=(), max_iter=1)
    ),
    "adversarial_ae": Model(adversarial()),
    "adversarial_ae_mixture": Model(
        adversarial(prior="mixture", posterior="gaussian", likelihood="bernoulli"), coins
    ),
    "adversarial_ae_divergence": Model(adversarial(adversarial_weight=2.0)),
    # Networks with a distribution as code.
    "vae": Model(net(VAE, warm_start=True)),
    "vae_mixture": Model(net(VAE, prior="mixture", n_prior_components=2)),
    "vae_vamp": Model(net(VAE, prior="vamp", n_prior_components=2, noise_variance=0.5)),
    "vae_table": Model(net(VAE, likelihood="auto"), table),
    "vae_conditional": Model(net(VAE, conditional=True), numbers, labels),
    "vae_conditional_numbers": Model(net(VAE, conditional=True), numbers, targets),
    "vae_counts": Model(net(VAE, likelihood="negative_binomial", size_factor="total"), counts),
    # Networks with indices as codes.
    "vqvae": Model(vqvae()),
    "vqvae_independent": Model(vqvae(prior="independent", codes="onehot")),
    "vqvae_no_prior": Model(vqvae(prior=None, codes="embedding", n_quantizers=2), draws=False),
    "vqvae_fsq": Model(vqvae(quantizer="fsq", n_codes=None, levels=(3, 2))),
    "vqvae_counts": Model(vqvae(likelihood="poisson", codebook_update="loss"), counts),
    # Binary codes.
    "helmholtz_machine": Model(net(HelmholtzMachine), coins),
    "helmholtz_machine_reweighted": Model(
        net(HelmholtzMachine, algorithm="reweighted", n_particles=2), numbers
    ),
    # Densities of codes.
    "latent_density": Model(density(warm_start=True)),
    "latent_density_options": Model(
        density(
            orderings=2, weight_averaging=0.9, position_embedding=True, divisive_normalization=True
        )
    ),
    "latent_density_muon": Model(density(LinearAE(2), solver="muon")),
    "latent_density_flow": Model(density(LinearAE(2), density="flow")),
    "latent_density_of_network": Model(
        density(net(Autoencoder, hidden_layer_sizes=(2,)), density=GaussianMixture(1))
    ),
    "latent_density_frozen_pca": Model(
        density(FrozenEstimator(PCA(2).fit(numbers())), density=GaussianMixture(2))
    ),
    # Estimators that contain others.
    "ensemble": Model(Ensemble(PPCA(1), 2, random_state=0)),
    "ensemble_of_networks": Model(
        Ensemble(net(Autoencoder, hidden_layer_sizes=(2,)), 2, random_state=0)
    ),
    "outlier_detector": Model(OutlierDetector(PPCA(1), random_state=0)),
    "ppca_imputer": Model(PPCAImputer(2, add_indicator=True, random_state=0), with_gaps),
    "grid_search": Model(GridSearchCV(PPCA(), {"n_components": [1, 2]}, cv=2)),
    "randomized_search": Model(
        RandomizedSearchCV(PPCA(), {"n_components": [1, 2]}, n_iter=1, cv=2, random_state=0)
    ),
}


# ------------------------------------------------------------------------------ results


def learns(estimator: Any, rows: Any, y: Any) -> Any:
    return estimator.fit(rows) if y is None else estimator.fit(rows, y)


def computed(model: Any, rows: Any, y: Any, draws: bool = True) -> dict[str, np.ndarray]:
    """What a fitted model computes from a few rows, as arrays of numbers or text."""

    def given(method: Any) -> dict[str, Any]:
        return {"y": y} if y is not None and "y" in inspect.signature(method).parameters else {}

    found = {}
    if hasattr(model, "score_samples"):
        found["score_samples"] = model.score_samples(rows, **given(model.score_samples))
    if hasattr(model, "transform"):
        codes = model.transform(rows)
        found["transform"] = codes
    if hasattr(model, "inverse_transform"):
        decode = model.inverse_transform
        found["inverse_transform"] = decode(codes, **given(decode))
    if hasattr(model, "predict"):
        found["predict"] = model.predict(rows)
    if hasattr(model, "sample") and draws:
        found["sample"] = model.sample(len(rows), random_state=0, **given(model.sample))
    return dict(flat(found))


def flat(named: dict[str, Any]) -> Any:
    """Arrays as they are; the columns of data frames, and the rows of sparse arrays, as arrays."""
    for name, value in named.items():
        if isinstance(value, pd.DataFrame):
            for column in value:
                values = value[column].to_numpy()
                yield f"{name}/{column}", values.astype(str) if values.dtype == object else values
        else:
            yield name, value.toarray() if hasattr(value, "toarray") else np.asarray(value)


def stored(arrays: dict[str, np.ndarray], name: str) -> Any:
    """An array, or a data frame of columns, that `flat` has made; None if there is none."""
    if name in arrays:
        return arrays[name]
    columns = {k.removeprefix(f"{name}/"): v for k, v in arrays.items() if k.startswith(f"{name}/")}
    if not columns:
        return None
    texts = {k for k, v in columns.items() if v.dtype.kind == "U"}
    return pd.DataFrame({k: v.astype(object) if k in texts else v for k, v in columns.items()})


def save(version: str, folder: Path = FOLDER) -> Path:
    """Write the models and their results to the folder of a version, which is the present one."""
    if version != skae.__version__:
        raise ValueError(
            f"version={version!r} must be the installed version, {skae.__version__!r}: the files "
            "of other versions cannot be written again."
        )
    into = folder / version
    into.mkdir(parents=True, exist_ok=True)
    for old in [*into.glob(f"*{ENDING}"), *into.glob(EXPECTED)]:
        old.unlink()
    torch.set_num_threads(1)  # sums have the same order on all machines of a kind
    arrays = {}
    for name, (estimator, rows, y, draws) in MODELS.items():
        X, t = rows(), None if y is None else y()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # they are trained for two epochs
            model = learns(estimator, X, t)
        some, of_some = X[:N_KEPT], None if t is None else t[:N_KEPT]
        (into / f"{name}{ENDING}").write_bytes(lzma.compress(skops.io.dumps(model), preset=9))
        given = {"rows": some} | ({} if of_some is None else {"y": of_some})
        for key, value in {**dict(flat(given)), **computed(model, some, of_some, draws)}.items():
            arrays[f"{name}/{key}"] = value
    npz = io.BytesIO()
    np.savez(npz, **arrays)
    (into / EXPECTED).write_bytes(lzma.compress(npz.getvalue(), preset=9))
    return into


def read(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """Read the rows and the results of a folder, by the name of the model."""
    found: dict[str, dict[str, np.ndarray]] = {}
    with np.load(io.BytesIO(lzma.decompress((folder / EXPECTED).read_bytes()))) as arrays:
        for key, value in arrays.items():
            name, _, what = key.partition("/")
            found.setdefault(name, {})[what] = value
    return found


if __name__ == "__main__":
    written = save(skae.__version__)
    files = list(written.iterdir())
    size = sum(file.stat().st_size for file in files)
    print(f"{len(files)} files, {size / 1000:.0f} kB, in {written}")
