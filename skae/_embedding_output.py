"""`transform` of models whose codes are indices, with a choice of what it gives."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skae._base import BaseAutoencoder
from skae._training.data import Data
from skae._utils.validation import StrOptions


class EmbeddingOutputMixin:
    """`transform` with a choice of what it gives.

    It stands in a class of its own, as scikit-learn names the columns of whatever a
    `transform` returns that is defined in the body of an estimator.
    """

    def transform(self: Any, X: ArrayLike, output: str = "indices") -> Any:
        """Encode rows as integers, or as the vectors that these stand for.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to encode.
        output : {"indices", "embedding"}, default="indices"
            Indices of codes, or the vectors of the codebook that the decoder reads.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_components * n_quantizers), int64, or \
                (n_samples, n_components * code_dim), float32
            Position by position: its indices, one for each quantizer; or its vector. A data
            frame under `set_output`.

        Raises
        ------
        ValueError
            If `output` is neither.
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
        """Vectors of the codes of rows, (n, n_components * code_dim)."""
        module, width = self._trainer.module, self._architecture.n_decoded
        return self._map_rows(
            Data(X), lambda batch: module.quantise(batch.x).value.flatten(1), width
        )
