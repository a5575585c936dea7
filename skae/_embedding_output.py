"""`transform` that returns indices or vectors, for models whose codes are indices."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skae._base import BaseAutoencoder
from skae._training.data import Data
from skae._utils.types import ArrayOrFrame
from skae._utils.validation import StrOptions


class EmbeddingOutputMixin:
    """`transform` with a parameter `output`.

    It is a class of its own because scikit-learn adds column names to the result of every
    `transform` that is defined in the body of an estimator class.
    """

    def transform(
        self: Any, X: ArrayLike, output: Literal["indices", "embedding"] = "indices"
    ) -> ArrayOrFrame:
        """Encode rows as indices of the codebook, or as the vectors with these indices.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to encode.
        output : {"indices", "embedding"}, default="indices"
            Whether to return indices, or the vectors of the codebook that the decoder reads.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_components * n_quantizers), int64, or \
                (n_samples, n_components * code_dim), float32
            Codes of the rows, one position after the other. Each position has one index for
            each quantizer, or one vector. `set_output` makes the result a data frame.

        Raises
        ------
        ValueError
            If `output` is not one of the allowed values.
        """
        self._check_argument("output", output, [StrOptions({"indices", "embedding"})])
        if output == "indices":
            return BaseAutoencoder.transform(self, X)
        vectors = self._embed(self._check_new_rows(X, "transform"))
        dim = self._architecture.code_dim
        name = type(self).__name__.lower()
        names = [f"{name}{i // dim}_{i % dim}" for i in range(vectors.shape[1])]
        return self._to_frame(vectors, X, names)

    def _embed(self: Any, X: NDArray[Any]) -> NDArray[np.float32]:
        """Vectors of the codes of the rows, (n, n_components * code_dim)."""
        module, width = self._trainer.module, self._architecture.n_decoded
        return self._map_rows(
            Data(X), lambda batch: module.quantise(batch.x).value.flatten(1), width
        )
