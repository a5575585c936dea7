"""Versions and format of saved states: they are written, compared, and checked when loaded."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import sklearn
from sklearn.exceptions import InconsistentVersionWarning

from skae import __version__
from skae._utils.warning import warn

# For each key of a saved state: a suffix for the name in the warning, and the version in use.
# scikit-learn uses the first key for its own models.
_VERSIONS = {
    "_sklearn_version": ("", sklearn.__version__),
    "_skae_version": (" of skae", __version__),
}

# Number of the format of saved states. It is raised when an earlier skae would read a new state
# wrongly, or not at all. States without a number were saved before the number existed.
FORMAT = 1
_FORMAT = "_skae_format"


def with_versions(state: dict[str, Any]) -> dict[str, Any]:
    """Add the versions of skae and scikit-learn, and the format, to a state that is saved."""
    return state | {key: here for key, (_, here) in _VERSIONS.items()} | {_FORMAT: FORMAT}


def is_of_other_versions(state: dict[str, Any]) -> bool:
    """Whether a state was saved by other versions than those in use, or has no versions."""
    return any(state.get(key) != here for key, (_, here) in _VERSIONS.items())


def has_format(state: dict[str, Any]) -> bool:
    """Whether a saved state has the number of its format, which files of skae 0.1 lack."""
    return _FORMAT in state


def without_versions(state: dict[str, Any], estimator_name: str) -> dict[str, Any]:
    """Remove versions and format from a saved state; warn if versions differ from those in use.

    A state without versions gives no warning. It was saved before versions were stored.
    """
    for key, (of_what, here) in _VERSIONS.items():
        saved = state.get(key, here)
        if saved != here:
            warn(
                InconsistentVersionWarning(
                    estimator_name=estimator_name + of_what,
                    current_sklearn_version=here,
                    original_sklearn_version=saved,
                )
            )
    return {name: v for name, v in state.items() if name not in _VERSIONS and name != _FORMAT}


def check_state(estimator: Any, state: dict[str, Any]) -> None:
    """Refuse a saved state of a newer format, and one in which something is missing.

    States without a format are not checked further, because earlier versions saved other
    attributes.
    """
    name, saved_format = type(estimator).__name__, state.get(_FORMAT, 0)
    if not isinstance(saved_format, int):
        raise _damaged(name, f"its format is {saved_format!r}")
    if saved_format > FORMAT:
        there = state.get("_skae_version", "an unknown version")
        raise ValueError(
            f"This {name} was saved by skae {there} in file format {saved_format}. The installed "
            f"skae {__version__} reads formats up to {FORMAT}. Install the newer version to load "
            f'the file: pip install "skae>={there}".'
        )
    defect = _defect(estimator, state) if saved_format else None
    if defect is not None:
        raise _damaged(name, defect, state)


@contextmanager
def restoring(name: str) -> Iterator[None]:
    """Say of errors in the block, which restores a part of a saved model, that it is damaged."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise _damaged(name, f"{type(error).__name__}: {error}") from error


def _damaged(name: str, why: str, state: Any = ()) -> ValueError:
    """The error for a state that cannot be restored."""
    saved = {key: state[key] for key in _VERSIONS if key in state}
    other = ""
    if any(version != _VERSIONS[key][1] for key, version in saved.items()):
        versions = " and ".join(f"{key[1:-8]} {version}" for key, version in saved.items())
        other = f" If other models of {versions} fail too, install these versions."
    return ValueError(
        f"The saved {name} cannot be restored ({why}). The file is damaged or incomplete: compare "
        f"its checksum with that of the original, or save the model again.{other}"
    )


def _defect(estimator: Any, state: dict[str, Any]) -> str | None:
    """What is missing in a state, or has a wrong shape; None if all is there."""
    expected: list[str] = []
    if not is_of_other_versions(state):  # other versions may have other parameters
        expected += type(estimator)._get_param_names()
    shapes = estimator._state_shapes
    if any(name in state for name in shapes):
        expected += [*shapes, *{size for sizes in shapes.values() for size in sizes or ()}]
    missing = [name for name in expected if name not in state]
    if missing:
        return f"{missing[0]} is missing"
    for name, sizes in shapes.items():
        if name not in state or sizes is None:
            continue
        shape = tuple(state[size] for size in sizes)
        if np.shape(state[name]) != shape:
            return f"{name} has shape {np.shape(state[name])}, expected {shape}"
    return None
