"""Which versions a saved model comes from, as scikit-learn's own models say it."""

import warnings
from typing import Any

import sklearn
from sklearn.exceptions import InconsistentVersionWarning

from skae import __version__

# Key in a saved state -> what the version is of, and which one is here. The first is the key
# that scikit-learn gives its own models.
_VERSIONS = {
    "_sklearn_version": ("", sklearn.__version__),
    "_skae_version": (" of skae", __version__),
}


def with_versions(state: dict[str, Any]) -> dict[str, Any]:
    """A state to be saved, with the versions of skae and scikit-learn."""
    return state | {key: here for key, (_, here) in _VERSIONS.items()}


def is_of_other_versions(state: dict[str, Any]) -> bool:
    """Whether a state was saved with other versions than those that are here, or before any."""
    return any(state.get(key) != here for key, (_, here) in _VERSIONS.items())


def without_versions(state: dict[str, Any], estimator_name: str) -> dict[str, Any]:
    """A state without its versions; warns if they are not those that are here.

    Nothing is said of states that name none: they were saved before versions were stated.
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
