"""Types in the annotations of public methods and parameters. `skae.typing` publishes most of them.

Annotations of public classes and functions are not evaluated (`from __future__ import
annotations`), so that `help` shows the names of these types, and not what NumPy's `ArrayLike`
stands for.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

# Rows or codes: an array, or a data frame if `set_output`, the global configuration or the rows
# given ask for one. `DataFrame` is Any on purpose. Only one of pandas and polars may be installed,
# and their types differ in methods that arrays have, so that a union with these classes would
# reject `Z.mean(axis=0)` although `Z` is an array. With Any as a member, type checkers accept what
# an array can do, and reject what it cannot.
DataFrame: TypeAlias = Any
ArrayOrFrame: TypeAlias = NDArray[Any] | DataFrame

# An array, a data frame or a series of Dask, which need not be installed.
DaskCollection: TypeAlias = Any

# Values of `set_output(transform=...)`.
Container: TypeAlias = Literal["default", "pandas", "polars"]

# A value that marks missing values: a number, NaN, or NA of pandas, which need not be installed.
MissingValue: TypeAlias = float | Any

RandomState: TypeAlias = int | np.random.RandomState | None
ScoreKind: TypeAlias = Literal["log_likelihood", "lower_bound", "reconstruction", "latent"]

# Sequences of numbers that are parameters, which NumPy's `ArrayLike` describes less exactly.
Integers: TypeAlias = Sequence[int] | NDArray[np.integer[Any]]
LayerSizes: TypeAlias = int | Integers
ImageShape: TypeAlias = tuple[int, int, int] | list[int]

Activation: TypeAlias = Literal["relu", "leaky_relu", "silu", "tanh", "logistic", "identity"]
OutActivation: TypeAlias = Literal["identity", "logistic", "tanh", "relu"]
Pooling: TypeAlias = Literal["stride", "max", "average", "min"]
LearningRate: TypeAlias = Literal["constant", "cosine", "invscaling", "adaptive"]
Precision: TypeAlias = Literal["auto", "float32", "bfloat16"]
NoiseVariance: TypeAlias = Literal["scalar", "per_feature"] | float
ColumnLikelihood: TypeAlias = Literal[
    "gaussian", "bernoulli", "continuous_bernoulli", "poisson", "laplace", "categorical"
]
CountLikelihood: TypeAlias = Literal["negative_binomial", "zero_inflated_negative_binomial"]
Likelihood: TypeAlias = (
    ColumnLikelihood | CountLikelihood | Literal["auto"] | Mapping[Any, ColumnLikelihood]
)
SizeFactor: TypeAlias = Literal["total"] | None
HelmholtzLikelihood: TypeAlias = (
    Literal["auto", "bernoulli", "gaussian", "categorical"]
    | Mapping[Any, Literal["bernoulli", "gaussian", "categorical"]]
)


class Fittable(Protocol):
    """Any estimator, of skae, scikit-learn or another package."""

    @property
    def fit(self) -> Callable[..., Any]:
        """The method that learns."""


class Splittable(Protocol):
    """A splitter of scikit-learn, such as `KFold`."""

    @property
    def split(self) -> Callable[..., Any]:
        """The method that gives indices of training and test rows."""


class Samplable(Protocol):
    """An object that draws codes."""

    @property
    def sample(self) -> Callable[..., Any]:
        """The method that draws."""
