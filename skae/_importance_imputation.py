"""Imputation by importance-weighted draws of codes, for models with an encoder q(z|x).

References
----------
P.-A. Mattei and J. Frellsen (2019). MIWAE: deep generative modelling and imputation of
incomplete data sets. ICML. :doi:`10.48550/arXiv.1812.02633`
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from skae._inference.row_draws import RowDraws
from skae._inference.vae import imputed_draws, imputed_means
from skae._latent_information import COUNT
from skae._network_autoencoder import NetworkAutoencoder
from skae._training.data import Data
from skae._training.trainer import slices
from skae._utils.sparse_rows import dense
from skae._utils.types import ArrayOrFrame, RandomState
from skae._utils.validation import private_generator

Array = NDArray[Any]


class ImportanceImputationMixin(NetworkAutoencoder):
    """`impute` by several weighted codes for each row, for models that learn q(z|x)."""

    @abstractmethod
    def _row_draws(self, n_draws: int) -> RowDraws:
        """Draws of z for each row, the same in every call."""

    def impute(
        self,
        X: ArrayLike,
        n_draws: int | None = None,
        *,
        y: Any = None,
        n_importance: int = 100,
        random_state: RandomState = None,
    ) -> ArrayOrFrame:
        """Fill in missing values, given the observed values of the same row.

        Several codes are drawn for each row and weighted by importance sampling (Mattei & Frellsen
        2019). The codes are drawn from q(z|observed values); if the prior is N(0, I), a quarter of
        them are drawn from the prior instead.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in which NaN, null or a mask marks missing values. In sparse rows these are
            stored NaN; their completions are dense.
        n_draws : int, default=None
            With None, missing values become their conditional means, or the most probable level
            of a category. With a number, that many completions of the rows are drawn, including
            noise, for multiple imputation.
        y : scalar or array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            Targets of a conditional model, as in `score_samples`. With None, the labels are
            weighted by their posterior probability given the observed values.
        n_importance : int, default=100
            Number of codes that are drawn and weighted for each row.
        random_state : int, RandomState instance or None, default=None
            Seed of the draws with `n_draws`. With None, every call draws anew.

        Returns
        -------
        X_imputed : ndarray of shape (n_samples, n_features), or \
                (n_draws, n_samples, n_features)
            The rows with every missing value replaced and all observed values unchanged. With
            `n_draws` this is always an array, in which categories are indices of levels.
            Otherwise it is a data frame if `set_output` asks for one; if not, it is an array, or
            for tables a container of the type of `X`.

        Raises
        ------
        ValueError
            If `n_draws` is not a positive integer or None, if `n_importance` is not a positive
            integer, or if `y` is not what the model was fitted with.
        """
        self._check_argument("n_draws", n_draws, [COUNT, None])
        self._check_argument("n_importance", n_importance, [COUNT])
        rows = dense(self._check_new_rows(X, "impute"))
        self._check_range(rows)
        condition, module = self._condition_of(y, len(rows)), self._trainer.module

        def guess(incomplete: Array, which: NDArray[np.intp]) -> Array:
            given = None if condition is None else condition[which]
            source = self._dataset(Data(incomplete, None, given))
            with self._trainer.inference(len(incomplete) * n_importance):
                if n_draws is None:
                    draws = self._row_draws(n_importance)
                    found = imputed_means(module, source, draws)[:, None]
                else:
                    generator = self._trainer.generator(private_generator(random_state))
                    found = imputed_draws(module, source, n_importance, n_draws, generator)
            values = np.empty((n_draws or 1, *incomplete.shape), dtype=self._architecture.row_dtype)
            for completed, drawn_rows in zip(values, found.swapaxes(0, 1), strict=True):
                for part in slices(len(incomplete)):
                    completed[part] = self._in_data_units(torch.from_numpy(drawn_rows[part]))
            return values

        return self._completed(X, rows, n_draws, guess)
