"""Input and output of tables whose columns have different likelihoods."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.exceptions import NotFittedError
from sklearn.utils import get_tags
from sklearn.utils.validation import check_array, validate_data

from skae._base import BaseAutoencoder
from skae._tables.columns import Table
from skae._tables.kinds import has_kinds, holds_categories, kinds_by_mapping
from skae._tables.values import container_of
from skae._training.columns import Columns
from skae._training.data import Data, Spread, spread_of
from skae._utils.inputs import is_lazy, naming
from skae._utils.sparse_rows import Rows, SparseRows
from skae._utils.types import ArrayOrFrame
from skae._utils.validation import asked_container, remember_columns

Array = NDArray[Any]


def write_rows(
    estimator: Any, table: Table, rows: Array, *, like: Any = None, beside: Any = None
) -> Any:
    """Rows of a table in the container of `set_output`, or else of `like`, or else of fit."""
    asked = asked_container(estimator)
    container = table.container if like is None else container_of(like)
    if asked is not None:
        container = "numbers" if asked == "default" else asked
    given = like if like is not None else beside
    index = given.index if hasattr(given, "iloc") else None
    written = table.write(rows, container, index if container == "pandas" else None)
    if container == "pandas" and hasattr(estimator, "_column_names"):
        written.columns = estimator._column_names
    return written


@contextmanager
def advised_of_tables(X: Any, likelihood: Any) -> Iterator[None]:
    """Add advice to errors that rows are not numeric, if X has columns of text or categories."""
    try:
        yield
    except ValueError as error:
        with suppress(TypeError, ValueError):
            if holds_categories(X):
                advice = (
                    "Columns of text and categories need likelihood='auto', or a mapping from "
                    f"columns to likelihoods; given likelihood={likelihood!r}."
                )
                error.args = (f"{str(error).rstrip('.')}. {advice}",)
        raise


@dataclass(frozen=True, eq=False)
class RowsOfTable:
    """Rows of a table as numbers, passed from an estimator to the estimator that it wraps."""

    table: Table
    rows: Array


class TableMixin(BaseAutoencoder):
    """Estimators of tables with numeric, categorical and count columns.

    Internally, rows are arrays (n, n_columns) of numbers, in which a category is the index of its
    level and NaN is a missing value.
    """

    _table: Table  # columns and levels seen in the first fit; absent if X is not a table

    @abstractmethod
    def _new_table(self, X: Any) -> Table:
        """Columns and levels of training rows."""

    @abstractmethod
    def _handles_unknown(self) -> str:
        """How levels that did not occur in `fit` are handled: "error" or "missing"."""

    @property
    def likelihoods_(self) -> dict[Any, str]:
        """Likelihood of each column, by name or index."""
        return self._table_or_error().likelihoods

    @property
    def categories_(self) -> dict[Any, Array]:
        """Levels of the categorical columns, by name or index."""
        return self._table_or_error().categories

    def _table_or_error(self) -> Table:
        if "n_features_in_" not in vars(self):
            raise NotFittedError(f"This {type(self).__name__} is not fitted yet: call fit first.")
        if "_table" not in vars(self):
            raise AttributeError(
                f"This {type(self).__name__} has one likelihood for all columns. The attribute "
                "exists if likelihood is a mapping, 'auto' or 'categorical'."
            )
        return self._table

    def _take_previous(self) -> Self | None:
        """As in the base class; with `warm_start` also keep the columns and levels."""
        previous = super()._take_previous()
        if previous is not None and "_table" in vars(previous):
            self._table = previous._table
        return previous

    def _check_table(self, X: Any, *, reset: bool, min_rows: int) -> Array:
        """Convert rows to numbers; the first fit learns the columns and levels."""
        if isinstance(X, RowsOfTable):
            return self._take_rows(X)
        if sparse.issparse(X):
            raise TypeError(
                "Sparse data was passed for X, but dense rows are required where each column has "
                "its own likelihood (likelihood='auto', 'categorical' or a mapping). Give "
                "X.toarray(), or set one likelihood for all columns, such as 'gaussian'."
            )
        is_list = isinstance(X, (list, tuple)) and len(X) > 0
        is_table = is_list or is_lazy(X) or hasattr(X, "shape") or hasattr(X, "columns")
        if getattr(X, "ndim", 2) != 2 or not is_table:
            with naming("X"):
                check_array(X, dtype=None, estimator=self, input_name="X")  # raises for these
        if reset:
            remember_columns(self, X)
        if "_table" not in vars(self):
            self._table = self._new_table(X)
        validate_data(self, X, reset=reset, skip_check_array=True)
        rows: Array = check_array(
            self._table.encode(X, self._handles_unknown()),
            dtype="numeric",
            ensure_all_finite=False,
            ensure_min_samples=min_rows,
            estimator=self,
            input_name="X",
        )
        if not get_tags(self).input_tags.allow_nan and (holes := np.isnan(rows).any(axis=0)).any():
            name = self._table.names[int(holes.argmax())]
            raise ValueError(
                f"Input X contains NaN (missing values) in column {name!r}. Impute them, or set "
                "missing='mask'."
            )
        return rows

    def _take_rows(self, X: RowsOfTable) -> Array:
        """Take rows, and the table that they are from, from the estimator that wraps this one."""
        self._table = X.table
        self.n_features_in_ = len(X.table.names)
        if all(isinstance(name, str) for name in X.table.names):
            self.feature_names_in_ = np.array(X.table.names, dtype=object)
        return X.rows

    def _rows_out(self, rows: Any, *, like: Any = None, beside: Any = None) -> Any:
        """Rows in the container of `set_output`, or else of the input, or else of fit."""
        if "_table" not in vars(self):
            return super()._rows_out(rows, like=like, beside=beside)
        return write_rows(self, self._table, rows, like=like, beside=beside)

    def _shown_rows(self, rows: Any) -> Any:
        """Rows for scikit-learn's callbacks, in the format of the public methods."""
        if isinstance(rows, SparseRows):
            return rows.matrix
        return self._as_numbers(rows) if hasattr(self, "_skl_callbacks") else rows

    def _as_numbers(self, rows: Array) -> Array:
        """Rows as an array of numbers."""
        if "_table" not in vars(self):
            return rows
        numbers: Array = self._table.write(rows, "numbers")
        return numbers

    def __getstate__(self) -> dict[str, Any]:
        """State with the table as arrays and plain values."""
        state: dict[str, Any] = super().__getstate__()
        return state | {"_table": state["_table"].as_dict()} if "_table" in state else state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_table" in vars(self):
            self._table = Table.from_dict(self._table)  # type: ignore[arg-type]


class MixedRowsMixin(TableMixin):
    """Tables whose columns have different likelihoods, for networks."""

    likelihood: Any
    handle_unknown: str
    _architecture: Any

    def _has_kinds(self, X: Any) -> bool:
        """Whether each column of training rows has its own likelihood."""
        return has_kinds(self.likelihood)

    def _new_table(self, X: Any) -> Table:
        return Table.learn(X, self.likelihood)

    def _handles_unknown(self) -> str:
        return self.handle_unknown

    def _check_same_kinds(self, previous: Self) -> None:
        """Raise if the likelihood of a column differs from that of the earlier fit."""
        now, before = vars(self).get("_table"), vars(previous).get("_table")
        asked, table = self.likelihood, before or now
        if table is None or (before is not None and isinstance(asked, str) and asked == "auto"):
            return
        if isinstance(asked, Mapping):
            kinds = kinds_by_mapping(asked, table.names)
        else:
            kinds = [asked] * len(table.names)
        if before is None or kinds != list(before.kinds):
            was = previous._architecture.likelihood if before is None else before.likelihoods
            raise ValueError(
                f"likelihood={asked!r} differs from the likelihoods of the earlier fit, {was!r}. "
                "They cannot change when training continues. Set warm_start=False and call fit."
            )

    def _columns(self) -> Columns | None:
        """Positions of the columns of the table in the input of the network; None without one."""
        if "_table" not in vars(self):
            return None
        return Columns(self._table.kinds, self._table.n_levels)

    def _spread_of(self, X: Rows, sample_weight: Array | None) -> tuple[Spread, dict[str, Any]]:
        """Moments of the columns of the network, and fields of the architecture from them."""
        columns = self._columns()
        spread = spread_of(X, sample_weight, columns)
        return spread, {} if columns is None else {"explained_mean": spread.mean.numpy()}

    def _fields_of_table(self) -> dict[str, Any]:
        """Fields of the architecture that describe the table, if there is one."""
        if "_table" not in vars(self):
            return {}
        return {"kinds": self._table.kinds, "n_levels": self._table.n_levels}

    def _check_new_rows(self, X: Any, method: str) -> Array:
        """As in the base class; for tables, all methods check values against the likelihoods.

        With one likelihood for all columns, only the scores check values.
        """
        rows: Array = super()._check_new_rows(X, method)
        if "_table" in vars(self):
            self._check_range(rows)
        return rows

    @abstractmethod
    def _check_range(self, X: Rows) -> None:
        """Raise if a value has probability zero under the likelihood."""

    # --------------------------------------------------------------------------- scores

    @abstractmethod
    def _column_scores(self, data: Data) -> Array:
        """log p(x_j|z) of each column j of validated rows, or its mean over codes."""

    def score_columns(self, X: ArrayLike, y: Any = None) -> ArrayOrFrame:
        """Contribution of each column to the score, in nats.

        The contribution of column j is log p(x_j|z) at the code z of the row. For models with a
        distribution of codes it is the mean of log p(x_j|z) over codes, weighted as in
        `score_samples`. For models whose code is a point, the contributions of a row add up to its
        score. For other models their sum is larger than the score by the cost of the codes, which
        is the KL divergence of the posterior from p(z), or -log p(k) for discrete codes.
        Contributions can be compared only for the same column and the same kind of likelihood.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to score.
        y : scalar or array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            Targets of a conditional VAE, as in its `score_samples`. Must be None otherwise.

        Returns
        -------
        contributions : ndarray of shape (n_samples, n_features)
            Contributions in nats, 0 for missing values. `set_output` makes them a data frame
            with the columns of the training data.

        Raises
        ------
        ValueError
            If a value has probability zero under its likelihood, or if `y` is not what the model
            was fitted with.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.datasets import load_iris
        >>> from skae import Autoencoder
        >>> X, _ = load_iris(return_X_y=True)
        >>> ae = Autoencoder(2, max_iter=5, random_state=0).fit(X)
        >>> parts = ae.score_columns(X)
        >>> parts.shape, np.allclose(parts.sum(axis=1), ae.score_samples(X), atol=1e-4)
        ((150, 4), True)
        """
        rows = self._check_new_rows(X, "score_columns")
        self._check_range(rows)
        return self._to_frame(
            self._column_scores(Data(rows, None, self._condition_of(y, len(rows)))), X
        )

    def _condition_of(self, y: Any, n_rows: int) -> Any:
        """Targets of the rows as the decoder reads them; None for unconditional models."""
        if y is not None:
            raise ValueError(f"y is given, but {type(self).__name__} is not conditional.")
        return None

    # ---------------------------------------------------------------------------- files

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({"handle_unknown": "error"} | state)  # files of 0.1.0 lack it
