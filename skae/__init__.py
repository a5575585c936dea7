"""skae: every autoencoder from PCA to VQ-VAE as one scikit-learn estimator."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skae._adversarial_ae import AdversarialAE as AdversarialAE
    from skae._autoencoder import Autoencoder as Autoencoder
    from skae._count_mixture_ae import CountMixtureAE as CountMixtureAE
    from skae._ensemble import Ensemble as Ensemble
    from skae._helmholtz_machine import HelmholtzMachine as HelmholtzMachine
    from skae._latent_density import LatentDensityEstimator as LatentDensityEstimator
    from skae._linear_ae import LinearAE as LinearAE
    from skae._outlier_detector import OutlierDetector as OutlierDetector
    from skae._pipeline import sample_pipeline as sample_pipeline
    from skae._ppca import PPCA as PPCA
    from skae._ppca_imputer import PPCAImputer as PPCAImputer
    from skae._sampling_representation import counts_to_image as counts_to_image
    from skae._sampling_representation import image_to_counts as image_to_counts
    from skae._sampling_representation import sample_counts as sample_counts
    from skae._sampling_representation import thin as thin
    from skae._show_versions import show_versions as show_versions
    from skae._vae import VAE as VAE
    from skae._vqvae import VQVAE as VQVAE
    from skae.export import to_onnx as to_onnx
    from skae.model_selection import GridSearchCV as GridSearchCV
    from skae.model_selection import RandomizedSearchCV as RandomizedSearchCV
    from skae.model_selection import cross_validate as cross_validate

__version__ = "0.2.0"

# Module that defines each public name. Modules are imported on first use, so that `import skae`
# loads neither scikit-learn nor torch. Type checkers cannot read this table; the imports above
# repeat it for them, and a test compares the two.
_HOME = {
    "AdversarialAE": "_adversarial_ae",
    "Autoencoder": "_autoencoder",
    "CountMixtureAE": "_count_mixture_ae",
    "Ensemble": "_ensemble",
    "GridSearchCV": "model_selection",
    "HelmholtzMachine": "_helmholtz_machine",
    "LatentDensityEstimator": "_latent_density",
    "LinearAE": "_linear_ae",
    "OutlierDetector": "_outlier_detector",
    "PPCA": "_ppca",
    "PPCAImputer": "_ppca_imputer",
    "RandomizedSearchCV": "model_selection",
    "VAE": "_vae",
    "VQVAE": "_vqvae",
    "counts_to_image": "_sampling_representation",
    "cross_validate": "model_selection",
    "image_to_counts": "_sampling_representation",
    "sample_counts": "_sampling_representation",
    "sample_pipeline": "_pipeline",
    "show_versions": "_show_versions",
    "thin": "_sampling_representation",
    "to_onnx": "export",
}

__all__ = sorted(_HOME)

# Public modules. They are also imported on first use.
_MODULES = (
    "dask",
    "datasets",
    "export",
    "metrics",
    "model_selection",
    "photons",
    "plotting",
    "typing",
)


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return import_module(f"skae.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'skae' has no attribute {name!r}")
    value = getattr(import_module(f"skae.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
