"""`partial_fit` of linear-Gaussian models: exact for complete rows, stochastic EM otherwise."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from skae._dask.fitting import moments_of
from skae._gaussian_learning import GaussianLearning
from skae._linear.complete_rows import CompleteRows
from skae._linear.em_starts import start_of
from skae._linear.incomplete_rows import group_rows, has_nan, seen_variances
from skae._linear.linear_gaussian import LinearGaussian, Uncertainty
from skae._linear.moments import Moments, check_scale, count_enough_rows, count_rows, moments
from skae._linear.online_em import Averages, averages_of, updated, with_batch
from skae._linear.pca import is_count
from skae._linear.relevance_em import fit_model
from skae._linear.running import merge
from skae._linear.subspace import CentredScatter
from skae._utils.dask_inputs import is_dask
from skae._utils.inputs import unseen_columns
from skae._utils.memory import advice_on_memory
from skae._utils.state import all_or_nothing
from skae._utils.validation import check_weight, fit_context

Array = NDArray[Any]


class GaussianStreams(GaussianLearning):
    """`partial_fit` of PPCA.

    `_stream` holds the moments of all rows so far, or, once values are missing, the averages and
    the model of stochastic EM.
    """

    _stream: dict[str, Any]

    @fit_context
    def partial_fit(
        self,
        X: ArrayLike,
        y: object = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Update the model with a batch of rows.

        As long as no value is missing, the mean and the scatter matrix of all rows so far are
        stored, and any division of the rows into batches gives the same model as `fit` on all rows
        at once. There is no model until there are at least two more rows than components.

        From the first batch with missing values on, the model is updated by stochastic EM (Cappe
        and Moulines 2009): the sums that the M-step needs are averaged over batches. The first such
        batch is fitted by EM to convergence, if there is no model yet. With missing values, batches
        of some thousands of rows are best, in random order. With a prior, components that the first
        batch does not need are not added later. The first batch with missing values also sets the
        number of components if `n_components` is None.

        After `fit`, the earlier rows count as `n_samples_` complete rows with the mean and the
        covariance of the fitted model.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            A batch of rows. NaN marks a missing value. An array or a data frame of Dask without
            missing values is one batch, whose moments are computed block by block.
        y : Ignored
            Present for API consistency.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, as in `fit`.

        Returns
        -------
        self : object
            The estimator.

        Raises
        ------
        ValueError
            If the batch, `sample_weight` or a parameter is not allowed, or if the first batch with
            missing values has too few rows for a model or a column without any value. The batch
            then does not change the estimator.

        References
        ----------
        O. Cappe and E. Moulines (2009). On-line expectation-maximization algorithm for latent data
        models. J. R. Stat. Soc. B 71(3), 593-613. :doi:`10.1111/j.1467-9868.2009.00698.x`

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.datasets import load_digits
        >>> from skae import PPCA
        >>> X, _ = load_digits(return_X_y=True)
        >>> X[np.random.RandomState(0).uniform(size=X.shape) < 0.1] = np.nan
        >>> ppca = PPCA(n_components=10, random_state=0)
        >>> for batch in np.array_split(X, 6):
        ...     ppca = ppca.partial_fit(batch)
        >>> ppca.n_samples_
        1797
        """
        self._check_choices()
        with (
            all_or_nothing(self),
            advice_on_memory(
                "partial_fit stores matrices of shape (n_features, n_features) for complete rows. "
                "Give fewer columns."
            ),
        ):
            stream = self._stream_so_far()
            for name in ("log_likelihoods_", "lower_bounds_"):
                self.__dict__.pop(name, None)  # an earlier fit may have set it
            is_incomplete = stream is not None and "averages" in stream
            if is_dask(X) and is_incomplete:
                raise ValueError(
                    "X is a collection of Dask, which partial_fit does not accept after batches "
                    "with missing values. Give its blocks as arrays."
                )
            if is_dask(X):
                rows, stats = moments_of(self, X, sample_weight, reset=stream is None)
                self._merge_moments(stream, stats, rows)
                return self
            rows = self._check_rows(X, reset=stream is None)
            weight = check_weight(sample_weight, rows)
            rows, weight, _ = self._rows_that_count(rows, weight)
            if is_incomplete or has_nan(rows):
                self._check_solver_of_incomplete()
                rows = rows.toarray() if sparse.issparse(rows) else rows
                self._learn_incomplete(stream, rows, weight)
            else:
                self._merge_moments(stream, moments(rows, weight), rows)
        return self

    def _stream_so_far(self) -> dict[str, Any] | None:
        """What is known of all rows so far; None before the first batch."""
        if "_stream" in self.__dict__:
            return self._stream
        if not hasattr(self, "loadings_"):
            return None
        n, mean = self.n_samples_, self.mean_.astype(np.float64)
        covariance = self.get_covariance().astype(np.float64)
        return {"moments": (n, mean, n * covariance)}

    # ------------------------------------------------------------- complete rows

    def _merge_moments(self, stream: dict[str, Any] | None, stats: Moments, like: Any) -> None:
        if stream is not None:
            stats = merge(Moments(*stream["moments"]), stats)
        check_scale(stats.scatter)
        self._stream = {"moments": tuple(stats)}
        size = self._size_of_stream(stats.n, like.shape[1])
        if size is not None:
            shape = (int(stats.n), like.shape[1])
            self._learn_moments(stats, np.broadcast_to(np.zeros((1, 1), like.dtype), shape))

    def _size_of_stream(self, n: float, n_features: int) -> int | None:
        """The number of components, or 1 if eigenvalues choose it; None if rows are too few."""
        self.n_samples_ = n
        if is_count(self.n_components) and self.n_components > n_features:
            self._known_size(n_features)
        wanted = int(self.n_components) if is_count(self.n_components) else 1
        if self.n_components == "mle":
            wanted = n_features - 1
        return wanted if n > wanted + 1 else None

    # ------------------------------------------------------------ missing values

    def _learn_incomplete(
        self, stream: dict[str, Any] | None, X: Array, weight: Array | None
    ) -> None:
        """Update by stochastic EM."""
        some = ~np.isnan(X).all(axis=1)
        seen = X[some]
        seen_weight = None if weight is None else weight[some]
        n_samples = count_rows(X, weight)
        self._is_of_missing_values = True
        if stream is None:
            model, averages, scales = self._begun(seen, seen_weight)
        else:
            model, averages = self._continued(stream)
            n_samples += stream["n_samples"] if "n_samples" in stream else stream["moments"][0]
            if len(seen):
                rows = group_rows(seen, seen_weight, shift=averages.shift)
                with np.errstate(over="ignore"):
                    check_scale(rows.squares)
                averages = with_batch(averages, averages_of(rows, model))
            variances = averages.variances
            scales = variances, self._floors(variances, averages.shift, X.dtype)
        learner = self._learner(*scales)
        model = updated(averages, learner, model)
        known = model.uncertainty
        self._stream = {
            "averages": tuple(averages),
            "model": (*model[:3], *(() if known is None else known)),
            "n_samples": n_samples,
            "choices": self._choices_of_stream(),
        }
        self.n_samples_ = n_samples
        self.n_iter_ = 1
        self._store_model(model, X.dtype, *scales)

    def _choices_of_stream(self) -> dict[str, Any]:
        """Parameters that cannot change in a stream with missing values."""
        names = ("n_components", "noise_variance", "loadings_prior")
        return {name: getattr(self, name) for name in names}

    def _begun(
        self, X: Array, weight: Array | None
    ) -> tuple[LinearGaussian, Averages, tuple[Array, Array]]:
        """A model, averages, and variances and noise floors, from the first batch."""
        unseen = np.atleast_1d(np.isnan(X).all(axis=0))
        if unseen.any():
            raise unseen_columns(unseen, getattr(self, "feature_names_in_", None))
        self.n_samples_ = count_enough_rows(X, weight)
        rows = group_rows(X, weight)
        variances = seen_variances(rows)
        check_scale(np.r_[rows.shift, variances])
        scales = variances, self._floors(variances, rows.shift, X.dtype)
        learner, size = self._learner(*scales), self._known_size(X.shape[1])
        if size is None:
            raise ValueError(
                f"n_components={self.n_components!r} cannot be used by partial_fit with missing "
                "values. Set n_components to an integer or None."
            )
        start = start_of(rows, size, self._generator(), learner)
        run = fit_model(rows, start, learner, tol=self.tol, max_iter=self.max_iter)
        self._warn_of_end(run)
        return run.state, averages_of(rows, run.state), scales

    def _continued(self, stream: dict[str, Any]) -> tuple[LinearGaussian, Averages]:
        """The model and averages of earlier batches."""
        if "averages" in stream:
            for name, value in self._choices_of_stream().items():
                if value != stream["choices"][name]:
                    raise ValueError(
                        f"{name}={value!r} cannot change in a stream with missing values, which "
                        f"began with {stream['choices'][name]!r}. Call fit to begin anew."
                    )
            known = stream["model"]
            uncertainty = Uncertainty(*known[3:]) if len(known) > 3 else None
            model = LinearGaussian(known[0], known[1], known[2], uncertainty)
            return model, Averages(*stream["averages"])
        if not hasattr(self, "loadings_"):
            raise ValueError(
                f"X has missing values, but the earlier batches have {stream['moments'][0]:g} rows "
                f"and no model yet, which needs more rows than n_components={self.n_components}. "
                "Give more complete rows first, or begin with a batch with missing values."
            )
        stats = Moments(*stream["moments"])
        source = CentredScatter(stats, stats.scatter)
        model = self._model()
        return model, averages_of(CompleteRows(source, np.array(source.diagonal), stats.n), model)
