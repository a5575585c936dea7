"""Code as users write it, with types: mypy checks this file, and tests/test_types.py runs it.

A line with `# type: ignore[...]` holds a mistake that a type checker must find: mypy reports an
ignore that is not needed as an error.
"""

from typing import Any, assert_type

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

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
    cross_validate,
    metrics,
    sample_pipeline,
)
from skae.typing import Activation, ArrayOrFrame, Likelihood, ScoreKind, SizeFactor

Array = NDArray[np.float64]


def centred(Z: Array) -> Array:
    """A function of the user, for arrays only."""
    shifted: Array = Z - Z.mean(axis=0)
    return shifted


def networks(X: Array) -> None:
    vae = VAE(2, hidden_layer_sizes=[8], activation="tanh", max_iter=1, random_state=0)
    assert_type(vae.fit(X), VAE)
    assert_type(vae.partial_fit(X), VAE)
    assert_type(vae.set_params(beta=2.0), VAE)
    assert_type(vae.set_output(transform="default"), VAE)
    assert_type(vae.set_callbacks(), VAE)
    assert_type(vae.transform(X), ArrayOrFrame)
    assert_type(vae.inverse_transform(vae.transform(X)), ArrayOrFrame)
    assert_type(vae.reconstruct(X), ArrayOrFrame)
    assert_type(vae.sample(3, random_state=0), ArrayOrFrame)
    assert_type(vae.impute(X), ArrayOrFrame)
    assert_type(vae.interpolate(X[0], X[1]), ArrayOrFrame)
    assert_type(vae.sample_latent(3), NDArray[Any])
    assert_type(vae.score_samples(X), NDArray[Any])
    assert_type(vae.score(X), float)
    assert_type(vae.n_components_, int)
    assert_type(vae.n_iter_, int)
    assert_type(vae.n_active_units_, int)
    assert_type(vae.n_features_in_, int)
    assert_type(vae.history_, list[dict[str, Any]])
    assert_type(vae.get_feature_names_out(), NDArray[np.object_])
    kind: ScoreKind = vae.score_kind
    assert kind == "lower_bound"

    # Codes are used as arrays without a cast.
    Z = VAE(2, max_iter=1, random_state=0).fit_transform(X)
    assert_type(Z, ArrayOrFrame)
    assert Z[:, 0].shape == Z.mean(axis=1).shape
    assert np.allclose(centred(Z), Z - np.mean(Z, axis=0))
    assert (Z @ np.eye(2)).shape == Z.shape

    likelihood: Likelihood = {0: "gaussian", 1: "laplace", 2: "gaussian", 3: "laplace"}
    activation: Activation = "relu"
    mixed = Autoencoder(2, likelihood=likelihood, activation=activation, max_iter=1)
    assert_type(mixed.fit(X).transform(X), ArrayOrFrame)
    conv = Autoencoder(
        2, network="conv", image_shape=(1, 4, 4), hidden_layer_sizes=4, max_iter=1, random_state=0
    )
    conv.fit(np.tile(X, (1, 4)))
    own = Autoencoder(
        2, encoder=torch.nn.Linear(4, 2), decoder=torch.nn.Linear(2, 4), max_iter=1, random_state=0
    )
    assert_type(own.fit(X).code_mean_, NDArray[Any])

    size: SizeFactor = None
    counts = VAE(2, likelihood="negative_binomial", size_factor=size, max_iter=1, random_state=0)
    assert_type(counts.fit(np.rint(X**2)).dispersion_, NDArray[np.float32])
    assert_type(counts.set_params(size_factor="total").fit(np.rint(X**2)).size_factor_, float)
    assert_type(counts.reconstruct(np.rint(X**2), size_factor="row"), ArrayOrFrame)

    codes = VQVAE(2, n_codes=4, prior="independent", max_iter=1, random_state=0).fit(X)
    assert_type(codes, VQVAE)
    assert_type(codes.transform(X, output="embedding"), ArrayOrFrame)
    assert_type(codes.codebook_, NDArray[np.float32])
    assert_type(codes.perplexity(X), float | NDArray[np.float64])

    def ring(n: int) -> Array:
        angle = np.random.default_rng(0).uniform(0, 6.28, n)
        return np.column_stack([np.cos(angle), np.sin(angle)])

    for prior in (ring, GaussianMixture(2, random_state=0).fit(X[:, :2])):
        adversarial = AdversarialAE(2, prior=prior, max_iter=1, random_state=0)
        assert_type(adversarial.fit(X).sample(), ArrayOrFrame)

    machine = HelmholtzMachine(3, hidden_layer_sizes=(4,), max_iter=1, random_state=0)
    assert_type(machine.fit(X > 0), HelmholtzMachine)
    assert_type(machine.transform(X > 0), ArrayOrFrame)
    assert_type(machine.transform(X > 0, layer="all"), tuple[ArrayOrFrame, ...])
    assert_type(machine.dream(2), ArrayOrFrame)


def closed_form(X: Array) -> None:
    assert_type(LinearAE(0.9).fit(X), LinearAE)
    assert_type(LinearAE(2).fit(X).components_, NDArray[Any])
    assert_type(LinearAE(2).fit(X).truncate(1), LinearAE)
    assert_type(PPCA("bic").fit(X), PPCA)
    assert_type(PPCA(2).fit(X).posterior(X), tuple[NDArray[Any], NDArray[Any]])
    assert_type(PPCA(2).fit(X).bic(X), float)
    assert_type(PPCA(2).fit(X).loadings_, NDArray[Any])
    counts = CountMixtureAE(3, covariance_type="diag", random_state=0).fit(X)
    assert_type(counts, CountMixtureAE)
    assert_type(counts.weights_, NDArray[Any])
    assert_type(counts.converged_, bool)


def combinations(X: Array) -> None:
    density = LatentDensityEstimator(LinearAE(2), density=GaussianMixture(2, random_state=0))
    assert_type(density.fit(X), LatentDensityEstimator)
    assert_type(density.score_codes(density.transform(X)), NDArray[Any])
    ensemble = Ensemble(VAE(2, max_iter=1), 2, random_state=0).fit(X)
    assert_type(ensemble, Ensemble)
    assert_type(ensemble.sample(2), ArrayOrFrame)
    assert_type(ensemble.score_kind, ScoreKind)
    detector = OutlierDetector(PPCA(2), contamination=0.1, random_state=0)
    assert_type(detector.fit(X), OutlierDetector)
    assert_type(detector.fit_predict(X), NDArray[np.int64])
    assert_type(detector.offset_, float)
    imputer = PPCAImputer(2, missing_values=-1, add_indicator=True).fit(X)
    assert_type(imputer, PPCAImputer)
    assert_type(imputer.fit_transform(X), ArrayOrFrame)
    assert_type(imputer.get_feature_names_out(), NDArray[np.object_])
    assert_type(imputer.ppca_, PPCA)
    pipeline = make_pipeline(StandardScaler(), PPCA(2)).fit(X)
    assert_type(sample_pipeline(pipeline, 3), ArrayOrFrame)
    search = GridSearchCV(pipeline, {"ppca__n_components": [1, 2]})
    assert_type(search.fit(X), GridSearchCV)
    assert_type(search.best_params_, dict[str, Any])
    assert_type(search.transform(X), ArrayOrFrame)
    RandomizedSearchCV(PPCA(), {"n_components": [1, 2]}, n_iter=2, random_state=0).fit(X)
    assert_type(cross_validate(PPCA(2), X), dict[str, Any])
    assert_type(metrics.explained_variance_scorer(PPCA(2).fit(X), X), float)
    assert_type(metrics.reconstruction_error(X, PPCA(2).fit(X).reconstruct(X)), float)
    scores = cross_validate(PPCA(2), X, scoring=metrics.log_likelihood_scorer)
    assert_type(scores, dict[str, Any])
    assert_type(metrics.reconstruction_error_scorer(PPCA(2).fit(X), X), float)
    assert skae.__version__


def encoder(n_features: int, n_components: int) -> torch.nn.Module:
    """A function of the user that makes a network."""
    return torch.nn.Linear(n_features, n_components)


def own_networks(X: Array) -> None:
    model = Autoencoder(2, encoder=encoder, max_iter=1, random_state=0).fit(X)
    assert_type(model.components_, NDArray[Any])
    assert_type(model.explained_variance_ratio_, NDArray[Any])
    codes = VQVAE(2, n_codes=4, codes="onehot", prior=None, max_iter=1, random_state=0)
    assert_type(codes.fit_transform(X), ArrayOrFrame)


def mistakes(X: Array) -> None:
    """Never called."""
    vae = VAE()
    vae.transfrom(X)  # type: ignore[attr-defined]
    vae.n_component_  # type: ignore[attr-defined]  # noqa: B018
    vae.transform(X).colums  # type: ignore[union-attr]  # noqa: B018
    vae.fit(X).sample("3")  # type: ignore[arg-type]
    vae.set_output(transform="numpy")  # type: ignore[arg-type]
    LinearAE().n_active_units_  # type: ignore[attr-defined]  # noqa: B018
    GridSearchCV(vae, {}).best_parms_  # type: ignore[attr-defined]  # noqa: B018
    VAE(n_components="3")  # type: ignore[arg-type]
    VAE(n_componets=3)  # type: ignore[call-arg]
    VAE(likelihood="gausian")  # type: ignore[arg-type]
    VAE(likelihood={"age": "gausian"})  # type: ignore[dict-item]
    VAE(activation="swish")  # type: ignore[arg-type]
    VAE(precision="float16")  # type: ignore[arg-type]
    VAE(size_factor="row")  # type: ignore[arg-type]
    vae.reconstruct(X, size_factor="total")  # type: ignore[arg-type]
    VAE(prior="gaussian")  # type: ignore[arg-type]
    Autoencoder(pretraining=True)  # type: ignore[arg-type]
    AdversarialAE(prior="gausian")  # type: ignore[arg-type]
    VQVAE(quantizer="vqq")  # type: ignore[arg-type]
    HelmholtzMachine(algorithm="wakesleep")  # type: ignore[arg-type]
    LinearAE(svd_solver="lapack")  # type: ignore[arg-type]
    PPCA("aic")  # type: ignore[arg-type]
    CountMixtureAE(covariance_type="round")  # type: ignore[arg-type]
    LatentDensityEstimator(density="flows")  # type: ignore[arg-type]
    Ensemble("vae")  # type: ignore[arg-type]
    VQVAE(codes="one-hot")  # type: ignore[arg-type]
    OutlierDetector(contamination="low")  # type: ignore[arg-type]
    OutlierDetector().predit(X)  # type: ignore[attr-defined]
    PPCAImputer(loadings_prior="lasso")  # type: ignore[arg-type]
    PPCAImputer().statistics_  # type: ignore[attr-defined]  # noqa: B018
    skae.to_onnx(vae, "encode")  # type: ignore[arg-type]
