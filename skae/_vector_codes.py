"""Codes that are indices of a codebook: as integers, as vectors, or as one-hot numbers."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.stats import entropy
from sklearn.metrics import pairwise_distances_argmin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skae._base import BaseAutoencoder
from skae._training.data import Data
from skae._utils.memory import advise_on_memory_everywhere
from skae._utils.types import ArrayOrFrame
from skae._utils.validation import StrOptions, check_indices

Array = NDArray[Any]
Indices = NDArray[np.int64]

# Forms of codes.
FORMS = ("indices", "embedding", "onehot")
# Largest difference of a vector from an entry of the codebook that is taken for rounding, as a
# share of the largest number of the codebook.
_ROUNDING = 1e-5


def one_hot(codes: Indices, n_codes: int) -> NDArray[np.float32]:
    """Indices (n, n_indices) as float32 of shape (n, n_indices * n_codes)."""
    n, n_indices = codes.shape
    found = np.zeros((n, n_indices * n_codes), dtype=np.float32)
    found[np.arange(n)[:, None], np.arange(n_indices) * n_codes + codes] = 1
    return found


class VectorCodesMixin:
    """`transform` and `inverse_transform` in the form that the parameter `codes` chooses.

    The hooks `_encode` and `_decode` use indices. It is a class of its own because scikit-learn
    adds column names to the result of every `transform` that is defined in the body of an
    estimator class.
    """

    def transform(
        self: Any, X: ArrayLike, output: Literal["indices", "embedding", "onehot"] | None = None
    ) -> ArrayOrFrame:
        """Encode rows as indices of the codebook, as its vectors, or as one-hot numbers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to encode.
        output : {"indices", "embedding", "onehot"}, default=None
            Form of the codes. None takes the parameter `codes` of the model.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_components * n_quantizers), int64; \
                (n_samples, n_components * code_dim), float32; or \
                (n_samples, n_components * n_quantizers * n_codes), float32
            Codes of the rows, one position after the other. A position has one index for each
            quantizer ("indices"), one vector ("embedding"), or for each quantizer one number for
            each entry of the codebook ("onehot"), which is 1 for the entry in use and 0 for others.
            `set_output` makes the result a data frame.

        Raises
        ------
        ValueError
            If `output` is not one of the allowed values.
        """
        if output is not None:
            self._check_argument("output", output, [StrOptions(set(FORMS))])
        form = self._form() if output is None else output
        rows = self._check_new_rows(X, "transform")
        codes = self._embed(rows) if form == "embedding" else self._encode(rows)
        return self._to_frame(self._in_form(codes, form), X, self._names_of_codes(form))

    def fit_transform(
        self: Any, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None
    ) -> ArrayOrFrame:
        """Learn the model and return the codes of the training rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows, as in `fit`.
        y : Ignored
            Present for API consistency.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, as in `fit`. Codes are returned for all rows, including those
            of weight 0.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_codes)
            The codes, in the form that the parameter `codes` chooses.
        """
        indices = self._fit_then_encode(X, y, sample_weight)
        codes = self._in_form(indices, self.codes)
        return self._to_frame(codes, X, self._names_of_codes(self.codes))

    def inverse_transform(self: Any, X: ArrayLike) -> ArrayOrFrame:
        """Decode codes to the mean of p(x|z).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_codes)
            Codes in the form that the parameter `codes` chooses. Vectors ("embedding") need not be
            entries of the codebook: the decoder reads them as they are.

        Returns
        -------
        X_decoded : ndarray of shape (n_samples, n_features)
            Decoded rows, one for each row of codes. `set_output` makes them a data frame with
            the columns of the training data. For tables, they have the type of container that
            `fit` was given.

        Raises
        ------
        ValueError
            If the number of columns of `X` is not the number of codes, if the columns have names in
            another order, or if `X` contains values that are no indices ("indices"), or that are
            not 1 for one entry and 0 for the others ("onehot").
        """
        if self._form() == "embedding":
            found = self._decode_vectors(BaseAutoencoder._check_codes(self, X))
        else:
            found = self._decode(self._check_codes(X))
        return self._rows_out(found, beside=X)

    # ------------------------------------------------------------------ forms of codes

    def _form(self: Any) -> str:
        """The parameter `codes`, which can be set after `fit`."""
        check_is_fitted(self)
        self._check_argument("codes", self.codes, [StrOptions(set(FORMS))])
        return str(self.codes)

    def _in_form(self: Any, codes: Array, form: str) -> Array:
        """Indices in another form; vectors stay as they are."""
        if form == "embedding" and codes.dtype.kind == "i":
            return self._vectors_of(codes)
        return one_hot(codes, self._architecture.codebook_size) if form == "onehot" else codes

    def _check_codes(self: Any, Z: Any) -> Indices:
        """Validated codes as indices."""
        form = self._form()
        Z = BaseAutoencoder._check_codes(self, Z)
        if form == "embedding":
            return self._indices_of(Z)
        if form == "onehot":
            return self._indices_of_one_hot(Z)
        n = self._architecture.codebook_size
        check_indices(Z, n, "codebook", self.get_feature_names_out(), "set codes='embedding'")
        found: Indices = Z.astype(np.int64)
        return found

    def _indices_of_one_hot(self: Any, Z: Array) -> Indices:
        groups = Z.reshape(len(Z), -1, self._architecture.codebook_size)
        found: Indices = groups.argmax(axis=2)
        wrong = (groups != 0).sum(axis=2) != 1
        wrong |= np.take_along_axis(groups, found[:, :, None], axis=2)[:, :, 0] != 1
        if wrong.any():
            row, index = np.argwhere(wrong)[0]
            some = groups[row, index]
            n_others = int((some != 0).sum())
            raise ValueError(
                f"X is not one-hot in row {row}, for index {index} of the code: of its "
                f"{len(some)} numbers, one must be 1 and the others 0, but {n_others} are not 0 "
                f"and the largest is {some.max():g}. If these are predictions of a "
                "regressor or probabilities, set the largest number of each index to 1 and the "
                "others to 0, or use codes='embedding', which may be any numbers."
            )
        return found

    def _indices_of(self: Any, vectors: Array) -> Indices:
        """Indices of vectors of the codebook."""
        architecture = self._architecture
        if architecture.n_quantizers > 1:
            raise ValueError(
                "Vectors do not determine the indices of several quantizers. Use "
                "set_params(codes='indices') or 'onehot', and codes of this form."
            )
        codebook = self.codebook_.astype(np.float64)
        rows = vectors.reshape(-1, architecture.code_dim).astype(np.float64)
        found = pairwise_distances_argmin(rows, codebook).astype(np.int64)
        distances = np.abs(rows - codebook[found]).max(axis=1)
        if (distances > _ROUNDING * np.abs(codebook).max()).any():
            row, position = divmod(int(distances.argmax()), architecture.n_codes)
            raise ValueError(
                f"X has a vector that is no entry of the codebook, in row {row} at position "
                f"{position}: its distance from the nearest entry is {distances.max():.3g} in one "
                "of its numbers. Only entries have a probability."
            )
        return found.reshape(len(vectors), -1)

    def _embed(self: Any, X: Array) -> NDArray[np.float32]:
        """Vectors of the codes of the rows, (n, n_components * code_dim)."""
        module, width = self._trainer.module, self._architecture.n_decoded
        return self._map_rows(
            Data(X), lambda batch: module.quantise(batch.x).value.flatten(1), width
        )

    @torch.no_grad()
    def _vectors_of(self: Any, codes: Indices) -> NDArray[np.float32]:
        """Vectors of indices, (n, n_components * code_dim)."""
        k = torch.from_numpy(codes).to(self._trainer.device)
        found: NDArray[np.float32] = self._trainer.module.look_up(k).flatten(1).cpu().numpy()
        return found

    def _decode_vectors(self: Any, Z: Array) -> Array:
        module, dim = self._trainer.module, self._architecture.code_dim
        return self._map_codes(
            Z, lambda v: module.likelihood.mean(module.decode(v.unflatten(1, (-1, dim))))
        )

    # --------------------------------------------------------------------------- names

    def get_feature_names_out(self: Any, input_features: Any = None) -> NDArray[np.object_]:
        """Names of the codes, in the form that the parameter `codes` chooses.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Ignored.

        Returns
        -------
        names : ndarray of str objects
            "vqvae0", "vqvae1", ... for indices, in the order of `transform`. For vectors,
            "vqvae0_1" is the second number of the first position, and for one-hot numbers it is the
            second entry of the first index.
        """
        return self._names_of_codes(self._form())

    def _names_of_codes(self: Any, form: str) -> NDArray[np.object_]:
        architecture, name = self._architecture, type(self).__name__.lower()
        if form == "embedding":
            pairs = np.ndindex(architecture.n_codes, architecture.code_dim)
        else:
            pairs = np.ndindex(architecture.n_indices, architecture.codebook_size)
        if form == "indices":
            return np.array([f"{name}{i}" for i in range(architecture.n_indices)], dtype=object)
        return np.array([f"{name}{i}_{j}" for i, j in pairs], dtype=object)

    @property
    def _n_features_out(self: Any) -> int:
        return len(self._names_of_codes(self._form()))

    def __sklearn_tags__(self: Any) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        if self.codes == "indices":
            tags.transformer_tags.preserves_dtype = []  # indices are integers
        return tags

    def __setstate__(self: Any, state: dict[str, Any]) -> None:
        super().__setstate__({"codes": "indices"} | state)  # type: ignore[misc]

    # ------------------------------------------------------------------------ codebook

    @property
    def codebook_(self: Any) -> NDArray[np.float32]:
        """Entries of the codebook, of each quantizer if there are several."""
        vectors: NDArray[np.float32] = self._codebooks().cpu().numpy()
        return vectors[0] if len(vectors) == 1 else vectors

    @torch.no_grad()
    def _codebooks(self: Any) -> Tensor:
        """Entries of all codebooks, (n_quantizers, n_codes, code_dim)."""
        quantizer = self._trainer.module.quantizer
        return torch.stack([quantizer.codebook(q) for q in range(quantizer.n_quantizers)])

    def perplexity(self: Any, X: ArrayLike) -> float | NDArray[np.float64]:
        """Effective number of codes that these rows use.

        The perplexity is exp(-sum_k p_k log p_k), with the frequency p_k of code k over all
        positions and rows. It is the number of codes if all are used equally often.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to encode.

        Returns
        -------
        perplexity : float, or ndarray of shape (n_quantizers,)
            Perplexity, between 1 and `n_codes`. With several quantizers, an array with one value
            for each.
        """
        codes = self._encode(self._check_new_rows(X, "perplexity"))
        stages = self._architecture.n_quantizers
        found = [
            float(np.exp(entropy(np.bincount(codes[:, stage::stages].ravel()))))
            for stage in range(stages)
        ]
        return found[0] if len(found) == 1 else np.array(found)


advise_on_memory_everywhere(VectorCodesMixin)  # it is not a subclass of BaseAutoencoder
