"""Linear models of every size from one fit, or from the moments of the rows."""

from __future__ import annotations

import copy
from abc import abstractmethod
from numbers import Integral
from typing import Any, ClassVar, Self

from sklearn.utils.validation import check_is_fitted

from skae._base import BaseAutoencoder
from skae._dask.fitting import rows_to_learn
from skae._linear.moments import Moments
from skae._utils.memory import advice_on_memory
from skae._utils.state import all_or_nothing
from skae._utils.validation import Interval, fit_context


class TruncationMixin(BaseAutoencoder):
    """Models whose leading components are the model of a smaller size."""

    n_components: Any
    _state_shapes: ClassVar[dict[str, tuple[str, ...] | None]] = {
        "mean_": ("n_features_in_",),
        "axes_": ("n_components_", "n_features_in_"),
        "components_": ("n_components_", "n_features_in_"),
        "explained_variance_": ("n_components_",),
        "explained_variance_ratio_": ("n_components_",),
        "singular_values_": ("n_components_",),
        "noise_variance_": (),
    }

    def truncate(self, n_components: int) -> Self:
        """Return the model with fewer components, without fitting again.

        The leading axes of a larger model are the axes of a smaller one, and the variance along the
        other axes becomes noise. One fit therefore gives models of all sizes. After an exact solver
        the result equals that of `fit` with this size, up to rounding. The exact solvers are
        `svd_solver="full"` and "covariance_eigh" of LinearAE, every solver of LinearAE for weighted
        rows, and `solver="closed_form"` of PPCA. After an iterative or randomised solver, the
        result is as accurate as this model.

        Parameters
        ----------
        n_components : int
            Number of components of the new model, from 1 to `n_components_`.

        Returns
        -------
        model : object
            A new fitted estimator with this `n_components` and otherwise the same parameters.
            The original does not change. The attributes `n_iter_` and `log_likelihoods_` are
            copied from the original.

        Raises
        ------
        ValueError
            If `n_components` is not an integer from 1 to `n_components_`. Also if it is less
            than `n_components_` for a PPCA that was fitted to rows with missing values: the
            maximum of the likelihood is then different for every size, and needs a `fit`. For
            the same reason, a PPCA with a noise variance for each feature, or with a prior of the
            loadings, raises it for every `n_components`.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from skae import PPCA
        >>> X, _ = load_digits(return_X_y=True)
        >>> largest = PPCA(n_components=30).fit(X)
        >>> for size in (5, 10, 20):
        ...     print(size, f"{largest.truncate(size).score(X):.2f} nats per row")
        5 -168.54 nats per row
        10 -159.99 nats per row
        20 -150.17 nats per row
        """
        check_is_fitted(self)
        positive = Interval(Integral, 1, None, closed="left")
        self._check_argument("n_components", n_components, [positive])
        if n_components > self.n_components_:
            raise ValueError(
                f"n_components={n_components} must be between 1 and n_components_="
                f"{self.n_components_}, the number of components of the fitted model. Fit a larger "
                "model."
            )
        smaller = copy.copy(self)
        smaller.n_components = n_components
        smaller._cut(int(n_components))
        return smaller

    @abstractmethod
    def _cut(self, size: int) -> None:
        """Replace the fitted arrays by new arrays of the leading components."""

    @fit_context
    def _fit_rows_of_moments(self, X: Any, stats: Moments) -> Self:
        """Fit from the moments of X; the result equals that of `fit(X)`."""
        with all_or_nothing(self):
            self._take_previous()
            self._learn_moments(stats, self._check_rows(X, reset=True, min_rows=2))
        return self

    def _fit_collection(self, X: Any, sample_weight: Any | None) -> None:
        blocks = rows_to_learn(self, X, sample_weight, reset=True)
        with advice_on_memory(
            "Fits to collections of Dask compute a matrix of shape (n_features, n_features). Give "
            "fewer columns, or rows in memory with a solver that does not need this matrix."
        ):
            self._learn_blocks(blocks, blocks.enough_statistics(self))

    def _learn_blocks(self, blocks: Any, found: Any) -> None:
        """Learn from the statistics of all blocks of a collection of Dask."""
        self._learn_moments(found.moments, found.like())

    @abstractmethod
    def _learn_moments(self, stats: Moments, like: Any) -> None:
        """Learn from moments; fitted arrays have the dtype of the rows `like`."""
