"""The attributes of PCA for networks: the decoder's linear approximation at the mean code.

For codes z with mean m and covariance S over the training rows, and a decoder g with Jacobian J at
m, the approximation is g(z) = g(m) + J (z - m). Products of J with vectors are computed by
differentiating twice backwards. torch also has a forward mode, but for fewer operations, and its
first use takes seconds and issues deprecation warnings of torch itself.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skae._linear.running import running_variance
from skae._network_autoencoder import NetworkAutoencoder
from skae._training.columns import CATEGORICAL
from skae._training.data import Dataset, spread_of
from skae._training.trainer import slices

Array = NDArray[Any]

# Derivatives that differ by more than this fraction are not only rounded differently.
_TOLERANCE = 1e-3
# Variances of codes below this fraction of their variance are rounding errors.
_ROUNDING = 1e-12


def jacobian(decode: Callable[[Tensor], Tensor], code: Tensor) -> tuple[Tensor, Tensor]:
    """Return g(z), of shape (p,), and the transposed Jacobian (k, p) of g at a code (k,).

    `decode` maps rows of codes to rows. Row j of the batch gets the direction of code j, so that
    the derivatives of one batch are the whole Jacobian.
    """
    k = len(code)
    directions = torch.eye(k, dtype=code.dtype, device=code.device)
    rows: list[Tensor] = []
    derivatives: list[Tensor] = []
    for part in slices(k):
        z = code.expand(k, k)[part].clone().requires_grad_()
        out = decode(z)
        # u^T J is linear in u, and its product with a direction v has the derivative J v. (Sums are
        # differentiated because torch imports SymPy to check the argument grad_outputs.)
        u = torch.zeros_like(out, requires_grad=True)
        (product,) = torch.autograd.grad((out * u).sum(), z, create_graph=True)
        derivatives += torch.autograd.grad((product * directions[part]).sum(), u)
        rows.append(out.detach())
    row, along = rows[0][0], torch.cat(derivatives)
    _check_derivatives(decode, code, along)
    return row, along


def _check_derivatives(decode: Callable[[Tensor], Tensor], code: Tensor, along: Tensor) -> None:
    """Compare with one gradient, because torch may omit parts that cannot be differentiated twice.

    It does so without an error if such a part stands beside others.
    """
    z = code[None].clone().requires_grad_()
    row = decode(z)
    mix = torch.randn(row.shape, generator=torch.Generator().manual_seed(0)).to(row)
    (gradient,) = torch.autograd.grad((row * mix).sum(), z)
    size = along.abs() @ mix[0].abs()
    if ((gradient[0].to(along) - along @ mix[0]).abs() > _TOLERANCE * size.max()).any():
        raise RuntimeError("an operation of the decoder can be differentiated only once")


def explained_by_each(components: Array, covariance: Array) -> Array:
    """Variance of Z @ components that each code adds to the codes before it, (k,).

    With the Cholesky factor S = L L^T, the codes are z = L e with uncorrelated e of unit variance,
    and the best linear prediction of z from its first j codes depends on the first j values of e.
    Code j therefore adds the variance that e_j gives to the rows.
    """
    left = covariance.astype(np.float64)
    least = _ROUNDING * np.diag(left)
    factor = np.zeros_like(left)
    for j, variance in enumerate(least):
        if left[j, j] > variance:  # otherwise it is a linear function of the codes before it
            factor[:, j] = left[:, j] / np.sqrt(left[j, j])
            left -= np.outer(factor[:, j], factor[:, j])
    explained: Array = np.square(factor.T @ components.astype(np.float64)).sum(axis=1)
    return explained


class LocalLinearMixin(NetworkAutoencoder):
    """`components_`, `mean_` and variances like those of PCA, for networks that decode codes.

    They are computed whenever they are read, and not stored.

    Attributes
    ----------
    components_ : ndarray of shape (n_components_, n_features_in_)
        Transposed Jacobian of `inverse_transform` at the mean training code.
    mean_ : ndarray of shape (n_features_in_,)
        Constant of the linear approximation.
    explained_variance_ : ndarray of shape (n_components_,)
        Variance of the reconstructions that each code adds, by the linear approximation.
    explained_variance_ratio_ : ndarray of shape (n_components_,)
        The same as fractions of the total variance of the rows.
    """

    # Number of rows, or the sum of their weights, and means and variances (1/n) of the features.
    _rows_so_far: tuple[float, Array, Array]

    @abstractmethod
    def _moments_of_codes(self) -> tuple[Array, Array] | None:
        """Mean and covariance (1/n) of the training codes, with NaN for what is not known.

        Files of earlier versions do not have all of them, and None stands for neither.
        """

    @abstractmethod
    def _mean_rows(self, z: Tensor) -> Tensor:
        """Mean of p(x|z) in the units of the decoder."""

    # -------------------------------------------------------------------- learning

    def _finish(self, rows: Dataset, weight: float) -> Array | None:
        codes = super()._finish(rows, weight)
        spread = spread_of(rows.data.X, rows.data.weight, self._architecture.columns)
        before = vars(self).get("_rows_so_far")
        now = spread.mean.numpy(), spread.variance.numpy()
        moments = running_variance(None if before is None else before[1:], now, weight)
        # Weights that are shares of 1 are no numbers of rows.
        self._rows_so_far = (max(self._n_rows_seen, float(len(rows))), *moments)
        return codes

    # ------------------------------------------------------------------ attributes

    @property
    def components_(self) -> Array:
        """Derivatives of `inverse_transform` with respect to each code, at the mean code."""
        return self._linear_map()[1]

    @property
    def mean_(self) -> Array:
        """Constant of the linear approximation of `inverse_transform` at the mean code."""
        found, components = self._linear_map()
        mean: Array = found - self._code_moments_or_error()[0] @ components.astype(np.float64)
        return mean.astype(components.dtype)

    @property
    def explained_variance_(self) -> Array:
        """Variance of the reconstructions that each code adds to the codes before it."""
        explained, _ = self._explained_variance()
        return explained.astype(self._architecture.row_dtype)

    @property
    def explained_variance_ratio_(self) -> Array:
        """The explained variances as fractions of the total variance of the rows."""
        explained, total = self._explained_variance()
        return (explained / (total or 1.0)).astype(self._architecture.row_dtype)

    def _explained_variance(self) -> tuple[Array, float]:
        """The variance that each code explains and the total variance, in float64, with n - 1."""
        components = self._linear_map()[1]
        covariance = self._code_moments_or_error()[1]
        if "_rows_so_far" not in vars(self) or np.isnan(covariance).any():
            raise AttributeError(
                f"This {type(self).__name__} was saved by an earlier version of skae, without the "
                "moments that explained_variance_ and explained_variance_ratio_ need. Fit it again."
            )
        n, _, variances = self._rows_so_far
        unbiased = n / max(n - 1, 1.0)  # a stream may begin with a single row
        explained = explained_by_each(components, covariance)
        return unbiased * explained, unbiased * float(variances.sum())

    def _linear_map(self) -> tuple[Array, Array]:
        """g at the mean code in float64, (p,), and the transposed Jacobian (k, p)."""
        self._check_has_components()
        architecture, trainer = self._architecture, self._trainer
        code = torch.as_tensor(self._code_moments_or_error()[0], dtype=torch.float32)

        def decode(z: Tensor) -> Tensor:
            rows: Tensor = architecture.in_data_units(self._mean_rows(z).cpu())
            return rows

        # Derivatives also exist inside torch.inference_mode() of the user.
        with trainer.inference(len(code)), torch.inference_mode(False):
            try:
                row, components = jacobian(decode, code.to(trainer.device))
            except RuntimeError as error:
                if not architecture.own_networks:
                    raise
                raise AttributeError(
                    "components_ and the attributes that follow from it need second derivatives "
                    f"of your decoder, which torch cannot compute: {error}. Use inverse_transform "
                    "or traverse instead."
                ) from error
        return row.double().numpy(), components.numpy().astype(architecture.row_dtype, copy=False)

    def _check_has_components(self) -> None:
        """Raise an AttributeError if the decoder has no linear approximation."""
        check_is_fitted(self)
        kinds, name = self._architecture.kinds, type(self).__name__
        if CATEGORICAL in kinds:
            column = self._table.names[kinds.index(CATEGORICAL)]
            raise AttributeError(
                f"components_ and the attributes that follow from it exist for columns of numbers "
                f"only, and column {column!r} is categorical. Use traverse to see how rows change "
                "with a code."
            )
        if self._architecture.n_conditions:
            raise AttributeError(
                f"components_ and the attributes that follow from it do not exist for a {name} "
                "with conditional=True, whose decoder also depends on y. Use inverse_transform or "
                "traverse with the argument y."
            )

    def _code_moments_or_error(self) -> tuple[Array, Array]:
        moments = self._moments_of_codes()
        if moments is None:
            raise AttributeError(
                f"This {type(self).__name__} was saved by an earlier version of skae, without the "
                "moments of its codes that components_ needs. Fit it again."
            )
        return moments
