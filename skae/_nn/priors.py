"""Prior distributions of codes: named ones, and any object that can be sampled.

References
----------
A. Makhzani, J. Shlens, N. Jaitly, I. Goodfellow and B. Frey (2015). Adversarial
autoencoders. :doi:`10.48550/arXiv.1511.05644`
"""

import copy
import inspect
from math import pi
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from torch import Tensor

from skae._training.random_state import preserve_rng_state

PRIORS = ("gaussian", "mixture", "swiss_roll")

# Largest radius of the Swiss roll, and the standard deviation of its noise.
_RADIUS, _THICKNESS = 3.0, 0.05


def draw_gaussian(n: int, n_codes: int, generator: torch.Generator) -> Tensor:
    """Draw from N(0, I)."""
    return torch.randn((n, n_codes), generator=generator, device=generator.device)


def draw_mixture(n: int, means: Tensor, generator: torch.Generator) -> Tensor:
    """Draw from the mixture of N(m, I) with equal weights, for means m (K, n_codes)."""
    which = torch.randint(len(means), (n,), generator=generator, device=generator.device)
    return means[which] + draw_gaussian(n, means.shape[1], generator)


def draw_swiss_roll(n: int, n_codes: int, generator: torch.Generator) -> Tensor:
    """Draw from a spiral of one and a half turns, t (cos t, sin t); 3 codes add a height."""
    u = torch.rand((n, 2), generator=generator, device=generator.device)
    t = 1.5 * pi * (1 + 2 * u[:, 0])
    r = _RADIUS * t / (4.5 * pi)
    height = _RADIUS * (2 * u[:, 1] - 1)
    roll = torch.stack([r * t.cos(), r * t.sin(), height], 1)[:, :n_codes]
    return roll + _THICKNESS * draw_gaussian(n, n_codes, generator)


def can_be_sampled(prior: object) -> bool:
    """Return whether draws can be made by a call of the object or of its method `sample`."""
    if isinstance(prior, type):  # a class must be instantiated first
        return False
    return callable(prior) or callable(getattr(prior, "sample", None))


def draw_from(
    prior: Any,
    n: int,
    n_codes: int,
    rng: np.random.RandomState,
    *,
    name: str = "prior",
    dtype: type[np.floating] = np.float32,
) -> NDArray[Any]:
    """Draw from a user's distribution, given as the parameter `name`; the result is (n, n_codes).

    A seed is passed if the distribution accepts one, by an argument or a parameter `random_state`.
    Otherwise it may read the global generators, which are seeded during the draw and then restored.
    """
    seed = int(rng.randint(2**31 - 1))
    given, prior = prior, prior.estimator if isinstance(prior, FrozenEstimator) else prior
    sample = getattr(prior, "sample", prior)
    seeded = {}
    if _takes_seed(sample):
        seeded = {"random_state": seed}
    elif hasattr(prior, "get_params") and "random_state" in prior.get_params(deep=False):
        sample = copy.copy(prior).set_params(random_state=seed).sample
    state = np.random.get_state()  # noqa: NPY002 (what is wrapped may read it)
    try:
        with preserve_rng_state():
            np.random.seed(seed)  # noqa: NPY002
            torch.manual_seed(seed)
            drawn = sample(n, **seeded)
    except NotFittedError as error:
        raise ValueError(
            f"{name}={given!r} is not fitted. Fit it, and put it into FrozenEstimator, because "
            "clones of other estimators are not fitted."
        ) from error
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name}={given!r} cannot be sampled: {error}") from error
    except NotImplementedError as error:
        raise ValueError(
            f"{name}={given!r} cannot be sampled: {error or 'sample is not implemented'}."
        ) from error
    finally:
        np.random.set_state(state)  # noqa: NPY002
    # GaussianMixture also returns components.
    drawn = drawn[0] if isinstance(drawn, tuple) else drawn
    expected = f"expected finite numbers of shape {(n, n_codes)}, one column for each code."
    try:
        codes = np.asarray(drawn, dtype=dtype)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{name}={given!r} returned draws that are not numbers; {expected}"
        ) from error
    if codes.shape != (n, n_codes) or not np.isfinite(codes).all():
        raise ValueError(f"{name}={given!r} returned draws of shape {codes.shape}; {expected}")
    return codes[rng.permutation(n)]  # the draws of mixtures are sorted by component


def _takes_seed(function: Any) -> bool:
    try:
        return "random_state" in inspect.signature(function).parameters
    except ValueError:  # a builtin function without a signature
        return False
