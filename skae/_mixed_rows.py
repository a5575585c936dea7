"""Rows of a table whose columns have likelihoods of their own, on their way in and out."""

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
from skae._training.data import Data
from skae._utils.validation import asked_container

Array = NDArray[Any]


def write_rows(
    estimator: Any, table: Table, rows: Array, *, like: Any = None, beside: Any = None
) -> Any:
    """Rows of a table as `set_output` of an estimator asks; else as those given, or as in fit."""
    asked = asked_container(estimator)
    container = table.container if like is None else container_of(like)
    if asked is not None:
        container = "numbers" if asked == "default" else asked
    given = like if like is not None else beside
    index = given.index if hasattr(given, "iloc") else None
    return table.write(rows, container, index if container == "pandas" else None)


@contextmanager
def advised_of_tables(X: Any, likelihood: Any) -> Iterator[None]:
    """Add to errors of rows that should be numbers what takes text, where there is some."""
    try:
        yield
    except ValueError as error:
        with suppress(TypeError, ValueError):
            if holds_categories(X):
                advice = (
                    "Columns of text and categories go with likelihood='auto', or a mapping of "
                    f"columns to likelihoods; given likelihood={likelihood!r}."
                )
                error.args = (f"{str(error).rstrip('.')}. {advice}",)
        raise


@dataclass(frozen=True, eq=False)
class RowsOfTable:
    """Rows of numbers that an estimator has made of a table, for one that it holds."""

    table: Table
    rows: Array


class TableMixin(BaseAutoencoder):
    """Tables of numbers, categories and counts as rows: inside, (n, n_columns) numbers.

    A category is the index of its level, NaN is what was not seen.
    """

    _table: Table  # of what is learned first, where there is one

    @abstractmethod
    def _new_table(self, X: Any) -> Table:
        """What there is of columns and levels in rows that are to be learned from."""

    @abstractmethod
    def _handles_unknown(self) -> str:
        """What becomes of levels that `fit` has not seen: "error" or "missing"."""

    @property
    def likelihoods_(self) -> dict[Any, str]:
        """The likelihood of each column, by name or index."""
        return self._table_or_error().likelihoods

    @property
    def categories_(self) -> dict[Any, Array]:
        """The levels of categorical columns, by name or index."""
        return self._table_or_error().categories

    def _table_or_error(self) -> Table:
        if "n_features_in_" not in vars(self):
            raise NotFittedError(f"This {type(self).__name__} is not fitted yet: call fit first.")
        if "_table" not in vars(self):
            raise AttributeError(
                f"This {type(self).__name__} has one likelihood for all columns; those that have "
                "their own tell them: by a mapping, likelihood='auto' or 'categorical'."
            )
        return self._table

    def _take_previous(self) -> Self | None:
        """As in the base; where training goes on, it does so with the levels of before."""
        previous = super()._take_previous()
        if previous is not None and "_table" in vars(previous):
            self._table = previous._table
        return previous

    def _check_table(self, X: Any, *, reset: bool, min_rows: int) -> Array:
        """Rows as numbers; what there is of columns and levels is learned in the first fit."""
        if isinstance(X, RowsOfTable):
            return self._take_rows(X)
        if sparse.issparse(X) or getattr(X, "ndim", 2) == 1:
            check_array(X, dtype=None, estimator=self, input_name="X")  # which refuses them
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
                f"Input X contains NaN, which is what was not seen, in column {name!r}: fill it "
                "in, or set missing='mask'."
            )
        return rows

    def _take_rows(self, X: RowsOfTable) -> Array:
        """Rows, and what is known of them, from the estimator that holds this one."""
        self._table = X.table
        self.n_features_in_ = len(X.table.names)
        if all(isinstance(name, str) for name in X.table.names):
            self.feature_names_in_ = np.array(X.table.names, dtype=object)
        return X.rows

    def _rows_out(self, rows: Any, *, like: Any = None, beside: Any = None) -> Any:
        """In the container that was given, or else that of training; `set_output` decides first."""
        if "_table" not in vars(self):
            return super()._rows_out(rows, like=like, beside=beside)
        return write_rows(self, self._table, rows, like=like, beside=beside)

    def _shown_rows(self, rows: Array) -> Array:
        """Rows for scikit-learn's callbacks, if there are some, as the public methods read them."""
        return self._as_numbers(rows) if hasattr(self, "_skl_callbacks") else rows

    def _as_numbers(self, rows: Array) -> Array:
        """Rows as arrays of numbers hold them."""
        if "_table" not in vars(self):
            return rows
        numbers: Array = self._table.write(rows, "numbers")
        return numbers

    def __getstate__(self) -> dict[str, Any]:
        """The table as arrays and plain values."""
        state: dict[str, Any] = super().__getstate__()
        return state | {"_table": state["_table"].as_dict()} if "_table" in state else state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_table" in vars(self):
            self._table = Table.from_dict(self._table)  # type: ignore[arg-type]


class MixedRowsMixin(TableMixin):
    """Columns with likelihoods of their own, for networks with a parameter `likelihood`."""

    likelihood: Any
    handle_unknown: str
    _architecture: Any

    def _has_kinds(self, X: Any) -> bool:
        """Whether the columns of rows that are to be learned from have likelihoods of their own."""
        return has_kinds(self.likelihood)

    def _new_table(self, X: Any) -> Table:
        return Table.learn(X, self.likelihood)

    def _handles_unknown(self) -> str:
        return self.handle_unknown

    def _check_same_kinds(self, previous: Self) -> None:
        """Raise if columns would change their likelihoods while training goes on."""
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
                f"likelihood={asked!r} gives columns other likelihoods than those that training "
                f"began with, {was!r}. Fit anew, with warm_start=False."
            )

    def _columns(self) -> Columns | None:
        """Where the columns of the table stand among the network's, if there is one."""
        if "_table" not in vars(self):
            return None
        return Columns(self._table.kinds, self._table.n_levels)

    def _fields_of_table(self) -> dict[str, Any]:
        """What the architecture knows of the table, if there is one."""
        if "_table" not in vars(self):
            return {}
        return {"kinds": self._table.kinds, "n_levels": self._table.n_levels}

    def _check_new_rows(self, X: Any, method: str) -> Array:
        """As in the base; of a table a value that its kind cannot have is an error in all methods.

        One likelihood for all columns leaves that to the scores.
        """
        rows: Array = super()._check_new_rows(X, method)
        if "_table" in vars(self):
            self._check_range(rows)
        return rows

    @abstractmethod
    def _check_range(self, X: Array) -> None:
        """Raise for rows that the likelihood cannot score."""

    # --------------------------------------------------------------------------- scores

    @abstractmethod
    def _column_scores(self, data: Data) -> Array:
        """log p(x_j|z) of every column j of validated rows, or its mean over the codes."""

    def score_columns(self, X: ArrayLike, y: Any = None) -> Any:
        """Each column's share of the score, in nats.

        It is log p(x_j|z) at the code of the row, or its mean over the codes z that the row may
        have, weighted as in `score_samples`. Shares of a model whose code is a point add up to
        its score; of others they add up to more, by what the codes cost: the divergence of
        p(z|x) from p(z), or -log p(k) of discrete codes. As scores, shares may be compared for
        the same column under the same kind of likelihood only.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to score.
        y : scalar or array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            For a conditional VAE as in its `score_samples`; others have none.

        Returns
        -------
        shares : ndarray of shape (n_samples, n_features)
            Nats per row and column, 0 of what was not seen; a data frame with the columns of
            the training data under `set_output`.

        Raises
        ------
        ValueError
            If a value is impossible under its likelihood, or `y` does not fit the model.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.datasets import load_iris
        >>> from skae import Autoencoder
        >>> X, _ = load_iris(return_X_y=True)
        >>> ae = Autoencoder(2, max_iter=5, random_state=0).fit(X)
        >>> shares = ae.score_columns(X)
        >>> shares.shape, np.allclose(shares.sum(axis=1), ae.score_samples(X), atol=1e-4)
        ((150, 4), True)
        """
        rows = self._check_new_rows(X, "score_columns")
        self._check_range(rows)
        return self._to_frame(
            self._column_scores(Data(rows, None, self._condition_of(y, len(rows)))), X
        )

    def _condition_of(self, y: Any, n_rows: int) -> Any:
        """What rows are conditioned on, if anything."""
        if y is not None:
            raise ValueError(f"y is given, but {type(self).__name__} is not conditional.")
        return None

    # ---------------------------------------------------------------------------- files

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({"handle_unknown": "error"} | state)  # as models of 0.1.0 are
