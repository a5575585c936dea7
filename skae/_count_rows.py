"""Rows of counts: their size factors, and reconstructions at the totals of rows.

References
----------
R. Lopez, J. Regier, M. B. Cole, M. I. Jordan and N. Yosef (2018). Deep generative modeling for
single-cell transcriptomics. Nature Methods 15, 1053-1058. :doi:`10.1038/s41592-018-0229-2`
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skae._modules.scales import shares
from skae._network_autoencoder import NetworkAutoencoder
from skae._nn.counts import Counts, Poisson
from skae._nn.likelihoods import LIKELIHOODS
from skae._nn.negative_binomial import NegativeBinomial
from skae._nn.size_factors import TotalMoments
from skae._training.count_sums import count_sums, row_totals
from skae._training.data import Batch, Data, Dataset, Reading, Spread
from skae._training.reading import CountReading
from skae._training.trainer import batches
from skae._utils.sparse_rows import Rows
from skae._utils.types import ArrayOrFrame, SizeFactor

Array = NDArray[Any]

# Names of the likelihoods of counts.
COUNTS = tuple(name for name, kind in LIKELIHOODS.items() if issubclass(kind, Counts))
# Largest numbers of rows, and of values or a quarter of these rows, from which the law of size
# factors is learned.
_LAW_ROWS, _LAW_VALUES = 4096, 2**23
# Smallest standard deviation of log totals that the encoder reads.
_LEAST_SPREAD = 1e-3
# Log of the factor by which rates may exceed the largest training count before they grow linearly.
_LOG_BEYOND = 5.0


class CountRowsMixin(NetworkAutoencoder):
    """Size factors, for models with a parameter `size_factor`.

    Attributes
    ----------
    size_factor_ : float
        Geometric mean of the totals of the training rows, which is the size factor of decoded
        codes. Only for likelihoods of counts with `size_factor="total"`.
    dispersion_ : ndarray of shape (n_features,)
        Dispersion of every feature. A count of mean m has variance m + m² / dispersion. Only for
        "negative_binomial" and "zero_inflated_negative_binomial".
    """

    size_factor: SizeFactor

    # -------------------------------------------------------------------- learning

    def _has_counts(self) -> bool:
        """Whether the parameters say that all features are counts."""
        return isinstance(self.likelihood, str) and self.likelihood in COUNTS

    def _has_own_networks(self) -> bool:
        """Whether the encoder or the decoder is the user's."""
        return False

    def _spread_of(self, X: Rows, sample_weight: Array | None) -> tuple[Spread, dict[str, Any]]:
        if not self._has_counts():
            return super()._spread_of(X, sample_weight)
        sums = count_sums(X, sample_weight)
        spread, common, of_logs = sums.spread, None, None
        if self.size_factor is not None:
            share = shares(spread.mean.numpy())
            common, of_logs = _moments_of_logs(row_totals(X, sums, share), sample_weight)
        highest = float(spread.high.max())
        return spread, {
            "explained_mean": spread.mean.numpy(),
            "reads_counts": not self._has_own_networks(),
            "common_total": common,
            "total_spread": of_logs if self._reads_totals() else None,
            "most_log_rate": float(np.log(max(highest, 1.0))) + _LOG_BEYOND,
        }

    def _reads_totals(self) -> bool:
        """Whether the encoder also reads the totals of rows."""
        return False

    def _finish(self, rows: Dataset, weight: float) -> Array | None:
        self._learn_size_factors(rows.data, weight)
        return super()._finish(rows, weight)

    def _learn_size_factors(self, data: Data, weight: float) -> None:
        """Learn the law of size factors from some of the rows."""
        module = self._trainer.module
        likelihood = module.likelihood
        if not (isinstance(likelihood, Counts) and likelihood.sizes is not None):
            return
        most = min(_LAW_ROWS, max(_LAW_ROWS // 4, _LAW_VALUES // data.X.shape[1]))
        some = data.some(most, self._seed + 7)
        found = []
        with self._trainer.inference(len(some.X)):
            for _, batch in batches(self._dataset(some)):
                if isinstance(likelihood, Poisson) and batch.seen is None:
                    found.append(likelihood.totals_of_complete(batch.y))
                else:
                    found.append(likelihood.totals(batch.y, module.output_of(batch), batch.seen))
            moments = TotalMoments(*map(torch.cat, zip(*found, strict=True)))
            of_rows = None if some.weight is None else torch.as_tensor(np.asarray(some.weight))
            likelihood.sizes.settle(moments, of_rows, weight)

    # ------------------------------------------------------------------ attributes

    @property
    def size_factor_(self) -> float:
        """Geometric mean of the totals of the training rows."""
        architecture = vars(self).get("_architecture")
        total = None if architecture is None else architecture.common_total
        if total is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute 'size_factor_'")
        return float(total)

    @property
    def dispersion_(self) -> NDArray[np.float32]:
        """Dispersion of every feature."""
        trainer = vars(self).get("_trainer")
        likelihood = None if trainer is None else trainer.module.likelihood
        if not isinstance(likelihood, NegativeBinomial):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute 'dispersion_'")
        found: NDArray[np.float32] = likelihood.dispersion.detach().cpu().numpy().copy()
        return found

    # ------------------------------------------------------------- reconstructions

    def reconstruct(
        self, X: ArrayLike, *, size_factor: Literal["row"] | None = None
    ) -> ArrayOrFrame:
        """Encode rows and decode their codes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to reconstruct, of the same types as in `fit`.
        size_factor : {"row"}, default=None
            Size factor of the decoded rows, for likelihoods of counts with `size_factor="total"`.
            With "row", a reconstruction has the total of its row, as far as it is observed. None
            takes `size_factor_` for all rows.

        Returns
        -------
        X_reconstructed : ndarray of shape (n_samples, n_features)
            The rows `inverse_transform(transform(X))`, which contain no NaN; with
            `size_factor="row"`, these rows are multiplied by the ratio of size factors.
            `set_output` makes them a data frame with the columns of the training data. For tables,
            they have the same type of container as `X`.

        Raises
        ------
        ValueError
            If `size_factor` is "row" and the model has no size factors.
        """
        if not self._asks_for_row_sizes(size_factor):
            return super().reconstruct(X)
        rows = self._check_new_rows(X, "reconstruct")
        return self._rows_out(self._reconstructed_at_sizes(Data(rows)), like=X)

    def _asks_for_row_sizes(self, size_factor: object) -> bool:
        """Validate an argument `size_factor` of a method; returns whether it is "row"."""
        if size_factor is None:
            return False
        if not (isinstance(size_factor, str) and size_factor == "row"):
            plain = isinstance(size_factor, (str, int, float, bytes))
            given = repr(size_factor) if plain else type(size_factor).__name__
            raise ValueError(
                f"The argument size_factor of this method must be 'row' or None; given {given}. "
                "Decoded rows are proportional to the size factor: for others, multiply by their "
                "ratios to size_factor_."
            )
        check_is_fitted(self)
        if self._architecture.common_total is None:
            what = f"likelihood={self._architecture.likelihood!r}"
            if self._architecture.has_counts:
                what += " and without size factors (size_factor=None)"
            raise ValueError(
                "size_factor='row' needs a model with size factors: a likelihood of counts and the "
                f"parameter size_factor='total'. The model was fitted with {what}."
            )
        return True

    def _guessed(self, incomplete: Array, n_draws: int | None, rng: np.random.RandomState) -> Array:
        if self._architecture.common_total is None:
            return super()._guessed(incomplete, n_draws, rng)
        module, generator = self._trainer.module, self._trainer.generator(rng)
        data, likelihood = Data(incomplete), self._trainer.module.likelihood
        if n_draws is None:
            mean = likelihood.imputed_mean
            return self._map_rows(
                data, lambda b: mean(b.y, module.output_of(b), b.seen), self.n_features_in_
            )[None]

        def draw(batch: Batch) -> Tensor:
            found: Tensor = likelihood.imputed_draw(
                batch.y, module.output_of(batch), batch.seen, generator
            )
            return found

        drawn = [self._map_rows(data, draw, self.n_features_in_) for _ in range(n_draws)]
        return np.stack(drawn)

    def _reconstructed_at_sizes(self, data: Data) -> Array:
        """Means of p(x|z, s) at the codes and the size factors of rows."""
        self._check_range(data.X)
        dtype = np.dtype(self._architecture.row_dtype).type
        module = self._trainer.module
        return self._map_rows(data, module.reconstructed, self.n_features_in_, dtype=dtype)


def count_reading(X: Rows, sample_weight: Array | None, size_factor: str | None) -> Reading:
    """What the encoder of a model of counts reads of rows."""
    sums = count_sums(X, sample_weight)
    share, total = shares(sums.spread.mean.numpy()), None
    if size_factor is not None:
        total, _ = _moments_of_logs(row_totals(X, sums, share), sample_weight)
    return CountReading(total, share)


def _moments_of_logs(
    totals: NDArray[np.float64], weight: Array | None
) -> tuple[float, float | None]:
    """Geometric mean of the positive totals, and standard deviation of their logarithms.

    The mean is 1 if there are no counts, and the deviation None if all totals are equal.
    """
    some = totals > 0
    if not some.any():
        return 1.0, None
    logs, weight = np.log(totals[some]), None if weight is None else weight[some]
    mean = np.average(logs, weights=weight)
    spread = float(np.average((logs - mean) ** 2, weights=weight) ** 0.5)
    return float(np.exp(mean)), spread if spread > _LEAST_SPREAD else None
