"""Validate the covariances of the noise of rows, and subtract noise from the initial mixture."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from skae._mixture.gaussians import Gaussians, Prior, extreme_variances, floored
from skae._utils.inputs import as_numbers, naming

Array = NDArray[Any]

# Asymmetry and negative eigenvalues that are rounding errors, relative to the largest entry. The
# second number is for float32 and smaller types.
_ROUNDING, _ROUNDING_OF_SINGLE = 1e-8, 1e-5

# Largest variance of the noise in units of the smallest variance of components.
_LARGEST_RATIO = 1e300

# Smallest fraction of a variance that remains if noise is subtracted.
_REMAINS = 0.1


# --------------------------------------------------------------------- validation


def checked_noise(noise_covariance: Any, n_rows: int, n_features: int) -> NDArray[np.float64]:
    """Validate the covariances of noise, and return them as matrices.

    Parameters
    ----------
    noise_covariance : array-like of shape (n_rows,), (n_rows, n_features) or \
            (n_rows, n_features, n_features)
        A variance for each row, variances of the features for each row, or a covariance matrix for
        each row. An array of n_rows = n_features rows with as many columns has variances.
    n_rows : int
    n_features : int

    Returns
    -------
    covariances : ndarray of shape (n_rows, n_features, n_features), float64
        Symmetric matrices. Eigenvalues may be negative by rounding errors.

    Raises
    ------
    ValueError
        If the shape is not allowed, if a number is not finite, if a variance is negative, or if a
        matrix is not symmetric or not positive semi-definite.
    TypeError
        If the values are not numbers.
    """
    given = _as_array(noise_covariance)
    shapes = ((n_rows,), (n_rows, n_features), (n_rows, n_features, n_features))
    if given.shape not in shapes:
        shared = ((), (1,), (n_features,), (n_features,) * 2, (1, n_features, n_features))
        advice = ""
        if given.shape in shared:
            advice = " For a covariance that all rows share, use the parameter psf."
        raise ValueError(
            f"noise_covariance has the shape {given.shape}; allowed are {shapes[0]} for a variance "
            f"of each row, {shapes[1]} for the variances of the features of each row, and "
            f"{shapes[2]} for a covariance matrix of each row.{advice}"
        )
    values = given.astype(np.float64)
    _check_rows(
        np.isfinite(values),
        values,
        "allowed are finite numbers. If a coordinate of a row is unknown, give it a large "
        "variance, for example 1e6 times the variance of the feature",
    )
    if values.ndim < 3:
        _check_rows(values >= 0, values, "allowed are variances of at least 0")
        variances = values[:, None] if values.ndim == 1 else values
        return np.asarray(variances[:, :, None] * np.eye(n_features))
    _check_matrices(values, given.dtype)
    return np.asarray((values + values.swapaxes(1, 2)) / 2)


def _as_array(noise_covariance: Any) -> Array:
    values = as_numbers(noise_covariance, "noise_covariance")
    if sparse.issparse(values):
        raise TypeError(
            "noise_covariance is a sparse array; allowed are dense arrays. Give "
            "noise_covariance.toarray()."
        )
    with naming("noise_covariance"):
        values = np.asarray(values)
        if values.dtype.kind not in "biuf":
            if values.dtype.kind != "O":
                raise TypeError(f"values of type {values.dtype}; allowed are real numbers.")
            values = values.astype(np.float64)
    return values


def _check_rows(allowed: NDArray[np.bool_], values: Array, rule: str) -> None:
    """Raise for the first value that is not allowed."""
    if not allowed.all():
        first = tuple(int(i) for i in np.argwhere(~allowed)[0])
        place = ", ".join(map(str, first))
        raise ValueError(f"noise_covariance[{place}] is {values[first]:g}; {rule}.")


def _check_matrices(values: Array, dtype: Any) -> None:
    """Raise for the first matrix that is not symmetric or not positive semi-definite."""
    single = dtype.kind == "f" and dtype.itemsize < 8
    rounding = _ROUNDING_OF_SINGLE if single else _ROUNDING
    largest = np.abs(values).max(axis=(1, 2))
    asymmetry = np.abs(values - values.swapaxes(1, 2)).max(axis=(1, 2))
    bad = np.flatnonzero(asymmetry > rounding * largest)
    if len(bad):
        row = int(bad[0])
        raise ValueError(
            f"noise_covariance[{row}] is not symmetric: entries differ from those of the "
            f"transposed matrix by up to {asymmetry[row]:g}. Allowed are symmetric matrices."
        )
    # Squares and products of scaled matrices neither overflow nor underflow.
    scale = np.where(largest > 0, largest, 1)[:, None, None]
    least = extreme_variances(values / scale)[0]
    bad = np.flatnonzero(least < -rounding)
    if len(bad):
        row = int(bad[0])
        raise ValueError(
            f"noise_covariance[{row}] is not positive semi-definite: its smallest eigenvalue is "
            f"{least[row] * largest[row]:g}. Allowed are matrices without negative eigenvalues."
        )


def check_noise_range(noise: Array, floor: float) -> None:
    """Raise if the noise in units of the smallest variance of components may overflow."""
    with np.errstate(over="ignore"):
        sizes = np.abs(noise).max(axis=(1, 2)) * noise.shape[1] ** 2 / min(floor, 1.0)
    bad = np.flatnonzero(~(sizes < _LARGEST_RATIO))
    if len(bad):
        row = int(bad[0])
        raise ValueError(
            f"noise_covariance[{row}] has entries of up to {np.abs(noise[row]).max():g}, which is "
            f"too large: allowed are less than {_LARGEST_RATIO:g} times the smallest variance of a "
            f"component, {floor:g}."
        )


# --------------------------------------------------------------- the initial mixture


def without_noise(
    gaussians: Gaussians, prior: Prior, mean_noise: Array, floor: float
) -> tuple[Gaussians, Prior]:
    """The initial mixture and its prior without the mean covariance (n_dims, n_dims) of the noise.

    At least a tenth of the variance of a component remains along each axis.
    """
    variances = np.diag(mean_noise)
    of_prior = np.maximum(prior.variances - variances, _REMAINS * prior.variances)
    prior = prior._replace(variances=np.maximum(of_prior, floor))
    match gaussians.kind:
        case "full":
            covariances = floored(_less(gaussians.covariances, mean_noise), floor)
        case "tied":
            covariances = floored(_less(gaussians.covariances[None], mean_noise), floor)[0]
        case "diag":
            less = gaussians.covariances - variances
            covariances = np.maximum(less, _REMAINS * gaussians.covariances)
            covariances = np.maximum(covariances, floor)
        case "spherical":
            less = gaussians.covariances - variances.mean()
            covariances = np.maximum(less, _REMAINS * gaussians.covariances)
            covariances = np.maximum(covariances, floor)
    return gaussians._replace(covariances=covariances), prior


def _less(covariances: Array, noise: Array) -> Array:
    """Covariances minus the noise, with a tenth of the variance remaining along each axis."""
    factor = np.linalg.cholesky(covariances)
    half = np.linalg.solve(factor, np.broadcast_to(noise, covariances.shape))
    ratio = np.linalg.solve(factor, half.swapaxes(1, 2))
    values, axes = np.linalg.eigh((ratio + ratio.swapaxes(1, 2)) / 2)
    axes = factor @ axes
    remains: Array = (axes * np.maximum(1 - values, _REMAINS)[:, None]) @ axes.swapaxes(1, 2)
    return (remains + remains.swapaxes(1, 2)) / 2
