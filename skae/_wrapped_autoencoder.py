"""Estimators that use the codes of another autoencoder, which they wrap."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted, validate_data

from skae._base import BaseAutoencoder
from skae._densities.wrapped_estimators import (
    call_quietly,
    size_parameter,
    unwrapped,
    wants_targets,
)
from skae._inference.bounds import RowLikelihood
from skae._linear_ae import LinearAE
from skae._mixed_rows import MixedRowsMixin, RowsOfTable, TableMixin
from skae._stored_rows import check_stored
from skae._tables.columns import Table
from skae._training.data import check_finite, without_lost_weights
from skae._utils.inputs import as_numbers, naming
from skae._utils.readers import stored_rows
from skae._utils.sparse_rows import SparseRows, as_sparse_rows
from skae._utils.stored_rows import StoredRows
from skae._utils.validation import as_rows, check_feature_names_in, remember_columns
from skae._utils.wrapping import seeded

Array = NDArray[Any]

_FLOATS = ("float32", "float64")


class WrappedAutoencoderMixin(TableMixin):
    """Encoding and decoding by `autoencoder_`. If it is None, the codes are the rows.

    The parameters are `autoencoder`, an estimator or None, and `n_components`, its number of codes.
    """

    autoencoder: Any
    autoencoder_: Any
    n_components: int | None

    # -------------------------------------------------------------------- learning

    def _new_autoencoder(self, rng: np.random.RandomState) -> Any:
        """The autoencoder to fit, or a frozen one; None if the codes are the rows."""
        if self.autoencoder is None:
            return None if self.n_components is None else seeded(LinearAE(self.n_components), rng)
        if self.n_components is None:
            return seeded(clone(self.autoencoder), rng)
        if isinstance(self.autoencoder, FrozenEstimator):
            raise ValueError(
                f"n_components={self.n_components} cannot be set, because autoencoder="
                f"{self.autoencoder!r} is frozen. Set n_components=None."
            )
        autoencoder = clone(self.autoencoder)
        return seeded(
            autoencoder.set_params(**{size_parameter(autoencoder): self.n_components}), rng
        )

    def _rows_to_learn(self, X: Array) -> Any:
        """Rows for the fit of the autoencoder; tables are passed as already converted here."""
        return RowsOfTable(self._table, X) if "_table" in vars(self) else X

    def _check_decodes(self, codes: Array) -> None:
        """Raise before training if the autoencoder cannot decode, as KernelPCA by default."""
        try:
            self._decode(codes)
        except Exception as error:
            raise ValueError(
                f"autoencoder={self.autoencoder!r} can encode, but cannot decode: {error}"
            ) from error

    # ------------------------------------------------------------------- the hooks

    def _encode(self, X: Array) -> Array:
        if self.autoencoder_ is None:
            return np.array(X, dtype=X.dtype if X.dtype.name in _FLOATS else np.float64)
        if "_table" in vars(self):
            model = unwrapped(self.autoencoder_)
            model._check_range(X)
            return np.asarray(model._encode(X))
        return np.asarray(call_quietly(self.autoencoder_.transform, X))

    def _decode(self, Z: Array) -> Array:
        if self.autoencoder_ is None:
            return np.array(Z)
        if "_table" in vars(self):
            return np.asarray(unwrapped(self.autoencoder_)._decode(Z))
        return np.asarray(call_quietly(self.autoencoder_.inverse_transform, Z))

    def _generate(self, Z: Array, rng: np.random.RandomState, noise: bool) -> Array:
        model = unwrapped(self.autoencoder_)
        if isinstance(model, BaseAutoencoder):
            return model._generate(Z, rng, noise)
        return self._decode(Z)

    def _row_likelihood(self) -> RowLikelihood | None:
        """p(x|z) of the autoencoder; None if it has none."""
        model = unwrapped(vars(self).get("autoencoder_", self.autoencoder))
        return model._row_likelihood() if isinstance(model, BaseAutoencoder) else None

    # ------------------------------------------------------------------ validation

    def _reads_table(self, X: Any) -> bool:
        """Whether the autoencoder has a likelihood for each column of training rows."""
        model = unwrapped(self.autoencoder)
        if not isinstance(model, MixedRowsMixin):
            return False
        return model._has_kinds(X) if model is self.autoencoder else "_table" in vars(model)

    def _new_table(self, X: Any) -> Table:
        """The table of the autoencoder, which a frozen one has learned already."""
        model = unwrapped(self.autoencoder)
        return model._new_table(X) if model is self.autoencoder else model._table

    def _handles_unknown(self) -> str:
        return str(unwrapped(vars(self).get("autoencoder_", self.autoencoder)).handle_unknown)

    def _check_rows(self, X: Any, *, reset: bool, min_rows: int = 1) -> Any:
        stored = stored_rows(X)
        if stored is not None:
            rows: Any = check_stored(self, stored, reset=reset, min_rows=min_rows)
            model = unwrapped(vars(self).get("autoencoder_", self.autoencoder))
            if not isinstance(rows, StoredRows):
                return rows.matrix if isinstance(rows, SparseRows) else rows
            if not getattr(model, "_reads_stored_rows", False) or self._reads_table(rows.header()):
                raise TypeError(
                    f"X is {rows.kind} of {rows.nbytes / 2**30:.1f} GiB, which only autoencoders "
                    "with a network and one likelihood for all columns read in parts; given "
                    f"autoencoder={self.autoencoder!r}."
                )
            return rows.without_names()
        if "_table" in vars(self) or (reset and self._reads_table(X)):
            return self._check_table(X, reset=reset, min_rows=min_rows)
        if reset:
            remember_columns(self, X)
        X = as_rows(self, X)
        tags = get_tags(self).input_tags
        with naming("X"):
            X = validate_data(
                self,
                X,
                reset=reset,
                dtype="numeric",
                accept_sparse=("csr", "csc") if tags.sparse else False,
                ensure_all_finite=False,
                ensure_min_samples=min_rows,
            )
        X = X.tocsr() if sparse.issparse(X) else X  # once, and not in each method of networks
        check_finite(as_sparse_rows(X), allow_nan=tags.allow_nan)
        return X

    def _counted(self, weight: Any | None) -> Any | None:
        """As in the base class; weights that are negligible in float32 count as 0."""
        return super()._counted(without_lost_weights(weight))

    def _check_targets(self, y: Any, n_rows: int) -> Any | None:
        """Targets, if the autoencoder needs them."""
        if y is None or not wants_targets(self.autoencoder):
            return None
        targets = np.asarray(as_numbers(y, "y"))
        if targets.shape[:1] != (n_rows,):
            raise ValueError(
                f"y must have one target for each of the {n_rows} rows of X, given an array of "
                f"shape {targets.shape}."
            )
        return targets

    # ----------------------------------------------------------------------- names

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> NDArray[np.object_]:
        """Names of the codes, from the autoencoder if it names them.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Names of the features, which must be those seen in `fit`. They are only checked.

        Returns
        -------
        names : ndarray of str objects
            Names of the codes. Without an autoencoder, these are the names of the features.
        """
        check_is_fitted(self)
        if self.autoencoder_ is None:
            return check_feature_names_in(self, input_features)
        names = super().get_feature_names_out(input_features)
        try:
            return np.asarray(self.autoencoder_.get_feature_names_out(), dtype=object)
        except (AttributeError, ValueError):  # a Pipeline without names
            return names

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        if self.autoencoder is None and self.n_components is None:
            tags.transformer_tags.preserves_dtype = ["float64", "float32"]
            return tags
        autoencoder = LinearAE() if self.autoencoder is None else self.autoencoder
        if isinstance(autoencoder, type) or not hasattr(autoencoder, "__sklearn_tags__"):
            return tags  # `fit` raises for these
        wrapped = get_tags(autoencoder)
        tags.input_tags, tags.target_tags = wrapped.input_tags, wrapped.target_tags
        tags.transformer_tags = wrapped.transformer_tags or tags.transformer_tags
        return tags
