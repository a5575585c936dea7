"""Linear models of every size from one pass over the rows: cut from a larger fit, or of moments."""

import copy
from abc import abstractmethod
from numbers import Integral
from typing import Any, Self

from sklearn.utils.validation import check_is_fitted

from skae._base import BaseAutoencoder
from skae._linear.moments import Moments
from skae._utils.state import all_or_nothing
from skae._utils.validation import Interval, fit_context


class TruncationMixin(BaseAutoencoder):
    """A model whose leading codes are, alone, the model of fewer codes."""

    def truncate(self, n_components: int) -> Self:
        """The model of fewer components, cut from this one without the rows.

        The leading axes of a larger fit are the axes of a smaller one, and the variance along
        the others goes to the noise: one fit gives all sizes. After an exact solver (LinearAE
        with `svd_solver='full'` or `'covariance_eigh'`, or of weighted rows; PPCA with
        `solver='closed_form'`) the result is what `fit` of that size gives, to rounding. After
        an iterative or randomized one it is as good an approximation as this model is.

        Parameters
        ----------
        n_components : int
            Size of the new model, at least 1 and at most `n_components_`.

        Returns
        -------
        model : object
            A new fitted estimator, with this `n_components` and all other parameters as they
            are; this one does not change. What tells of the fit (`n_iter_`,
            `log_likelihoods_`) is that of the fit it was cut from.

        Raises
        ------
        ValueError
            If `n_components` is no integer from 1 to `n_components_`, or below `n_components_`
            in a PPCA fitted to rows with missing values: the likelihood of what was seen has
            its maximum elsewhere for every size, which only a `fit` of that size finds.

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
                f"{self.n_components_}, the size of the fitted model; fit a larger one."
            )
        smaller = copy.copy(self)
        smaller.n_components = n_components
        smaller._cut(int(n_components))
        return smaller

    @abstractmethod
    def _cut(self, size: int) -> None:
        """Replace every fitted array by that of the leading components; nothing in place."""

    @fit_context
    def _fit_rows_of_moments(self, X: Any, stats: Moments) -> Self:
        """What `fit(X)` learns, where that follows from the moments of X."""
        with all_or_nothing(self):
            self._take_previous()
            self._learn_moments(stats, self._check_rows(X, reset=True, min_rows=2))
        return self

    @abstractmethod
    def _learn_moments(self, stats: Moments, like: Any) -> None:
        """Learn from moments; fitted arrays are of the type of `like`, the rows."""
