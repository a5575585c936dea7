"""Versions of skae and scikit-learn in saved models, with warnings as in scikit-learn."""

import warnings
from typing import Any

import sklearn
from sklearn.exceptions import InconsistentVersionWarning

from skae import __version__

# For each key of a saved state: a suffix for the name in the warning, and the version in use.
# scikit-learn uses the first key for its own models.
_VERSIONS = {
    "_sklearn_version": ("", sklearn.__version__),
    "_skae_version": (" of skae", __version__),
}


def with_versions(state: dict[str, Any]) -> dict[str, Any]:
    """Add the versions of skae and scikit-learn to a state that is saved."""
    return state | {key: here for key, (_, here) in _VERSIONS.items()}


def is_of_other_versions(state: dict[str, Any]) -> bool:
    """Whether a state was saved by other versions than those in use, or has no versions."""
    return any(state.get(key) != here for key, (_, here) in _VERSIONS.items())


def without_versions(state: dict[str, Any], estimator_name: str) -> dict[str, Any]:
    """Remove the versions from a saved state; warn if they differ from those in use.

    A state without versions gives no warning. It was saved before versions were stored.
    """
    for key, (of_what, here) in _VERSIONS.items():
        saved = state.get(key, here)
        if saved != here:
            warnings.warn(
                InconsistentVersionWarning(
                    estimator_name=estimator_name + of_what,
                    current_sklearn_version=here,
                    original_sklearn_version=saved,
                ),
                stacklevel=3,
            )
    return {name: value for name, value in state.items() if name not in _VERSIONS}
