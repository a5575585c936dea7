"""Find out which estimators do the same work, which then needs to be done only once."""

import copy
import sys
from collections.abc import Callable, Iterator
from numbers import Integral
from typing import Any

import joblib
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags

from skae._linear import sizes as sizes_module
from skae._utils.pipeline_steps import is_skipped

# Packages whose estimators and functions depend only on their arguments.
_KNOWN = ("sklearn", "skae")
_KNOWN_FUNCTIONS = (*_KNOWN, "numpy", "scipy", "torch", "builtins")

# Parameters that allow an estimator to change the rows that it gets.
_COPY = ("copy", "copy_X", "copy_x", "copy_X_train")


def is_pipeline_of_steps(estimator: Any) -> bool:
    """Whether an estimator is a Pipeline that only fits its steps in turn."""
    if type(estimator) is not Pipeline or len(estimator.steps) == 0:
        return False
    return estimator.memory is None and not estimator.verbose and estimator.transform_input is None


def steps_of(estimator: Any) -> list[Any]:
    """The steps of a Pipeline in order, or a list with only the estimator."""
    if not is_pipeline_of_steps(estimator):
        return [estimator]
    steps = [step for _, step in estimator.steps]
    return [step for step in steps[:-1] if not is_skipped(step)] + steps[-1:]


def is_known(estimator: Any) -> bool:
    """Whether all parts of an estimator are from scikit-learn or skae and do not change rows."""
    for part in parts_of(estimator):
        if is_skipped(part):
            continue
        params = part.get_params(deep=False) if _is_part(part) else {}
        functions = [value for value in params.values() if callable(value) and not _is_part(value)]
        if (
            _root(type(part)) not in _KNOWN
            or ".tests." in type(part).__module__
            or any(params.get(name) is False for name in _COPY)
            or any(_root(function) not in _KNOWN_FUNCTIONS for function in functions)
        ):
            return False
    return True


def is_repeatable(step: Any) -> bool:
    """Whether two fits of a step to the same rows are exactly equal."""
    if not is_known(step):
        return False
    params = step.get_params()
    seeds = [value for name, value in params.items() if name.split("__")[-1] == "random_state"]
    return all(isinstance(seed, Integral) for seed in seeds) and not any(
        get_tags(part).non_deterministic for part in parts_of(step) if not is_skipped(part)
    )


def parts_of(estimator: Any) -> Iterator[Any]:
    """An estimator, and all estimators among its parameters."""
    yield estimator
    if hasattr(estimator, "get_params") and not isinstance(estimator, type):
        yield from filter(_is_part, estimator.get_params().values())


def _is_part(value: Any) -> bool:
    return hasattr(value, "get_params") and not isinstance(value, type)


def _root(value: Any) -> str:
    module = getattr(value, "__module__", None) or type(value).__module__
    return str(module).partition(".")[0]


def fingerprint(step: Any) -> str | None:
    """A hash that is equal for steps of equal class, parameters and output; None if unknown."""
    if any("_skl_callbacks" in getattr(part, "__dict__", {}) for part in parts_of(step)):
        return None
    return _hash(step)


def family(step: Any) -> str | None:
    """The fingerprint of a step without `n_components`; None if it has no such parameter."""
    if not _is_part(step) or "n_components" not in step.get_params(deep=False):
        return None
    try:
        sizeless = copy.copy(step)
        sizeless.n_components = None
        return fingerprint(sizeless)
    except Exception:  # the class does not follow the conventions of estimators
        return None


class Keys:
    """Fingerprints of unfitted steps, stored because a step changes when it is fitted."""

    def __init__(self) -> None:
        self._found: dict[tuple[Any, int], tuple[Any, str | None]] = {}

    def fingerprint(self, step: Any) -> str | None:
        return self._once(fingerprint, step)

    def family(self, step: Any) -> str | None:
        return self._once(family, step)

    def path(self, steps: list[Any]) -> tuple[str | None, ...]:
        """The fingerprints of several steps."""
        return tuple(map(self.fingerprint, steps))

    def _once(self, find: Callable[[Any], str | None], step: Any) -> str | None:
        if (find, id(step)) not in self._found:
            # The step is stored so that no other object gets the same id.
            self._found[find, id(step)] = (step, find(step))
        return self._found[find, id(step)][1]


def _hash(value: Any) -> str | None:
    try:
        return joblib.hash(value)
    except Exception:  # objects that cannot be pickled have no fingerprint
        return None


def sizes_of_one_fit(step: Any, X: Any, sizes: list[Any], approximate: bool = False) -> list[Any]:
    """The values of `n_components` for which one fit is enough."""

    def can_share(some: list[Any]) -> bool:
        return sizes_module.can_share(step, X, some, approximate=approximate)

    if not is_known(step):
        return []
    try:
        if can_share(sizes):
            return sizes
        return [size for size in sizes if len(sizes) > 1 and can_share([size])]
    except Exception:  # the fit itself will raise an error for these rows
        return []


def is_network(step: Any) -> bool:
    """Whether a step is a network of skae whose training can be repeated."""
    return trains_network(step) and isinstance(getattr(step, "random_state", None), Integral)


def trains_network(step: Any) -> bool:
    """Whether a step is a network of skae.

    The modules of networks load torch and are not imported here. A step cannot be a network as long
    as they are not loaded.
    """
    names = (
        ("_network_autoencoder", "NetworkAutoencoder"),
        ("_latent_density", "LatentDensityEstimator"),
    )
    modules = ((sys.modules.get(f"skae.{module}"), name) for module, name in names)
    return any(module and isinstance(step, getattr(module, name)) for module, name in modules)


def by_first_appearance(keys: list[Any]) -> Callable[[Any], int]:
    """A function that ranks keys by the position of their first occurrence."""
    ranks = {key: rank for rank, key in enumerate(dict.fromkeys(keys))}
    return ranks.__getitem__
