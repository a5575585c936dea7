"""Leading axes of complete rows from products with the rows, by EM or power iterations.

No matrix of shape (n_features, n_features) is computed, and sparse rows stay sparse.

References
----------
M. E. Tipping and C. M. Bishop (1999). Probabilistic principal component analysis.
J. R. Stat. Soc. B 61(3), 611-622. :doi:`10.1111/1467-9868.00196`

A. V. Knyazev (2001). Toward the optimal preconditioned eigensolver: locally optimal
block preconditioned conjugate gradient method. SIAM J. Sci. Comput. 23(2), 517-541.
:doi:`10.1137/S1064827500366124`

N. Halko, P. G. Martinsson and J. A. Tropp (2011). Finding structure with randomness.
SIAM Review 53(2), 217-288. :doi:`10.1137/090771806`
"""

from math import log, pi
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skae._linear.em import EMRun, run_em
from skae._linear.moments import Moments, count_rows, feature_scatter, out_of_range, scaled_weight

Array = NDArray[Any]


class Spectrum(NamedTuple):
    """Leading eigenvalues (k,) and axes (k, D) of the covariance with 1/n, its trace, the mean."""

    values: Array
    axes: Array
    trace: float
    mean: Array


def noise_variance(values: Array, trace: float, n_features: int) -> float:
    """Maximum-likelihood sigma2, the mean of the eigenvalues that are left out (eq. 8)."""
    left_out = n_features - len(values)
    return (trace - float(values.sum())) / left_out if left_out else 0.0


def mean_log_likelihood(values: Array, trace: float, n_features: int) -> float:
    """Largest log-likelihood in nats per row inside the span of the axes (eqs. 4, 7 and 8).

    Axes with less variance than the noise are treated as noise, which gives a larger likelihood.
    """
    kept = len(values)
    while kept and values[kept - 1] * (n_features - kept) < trace - values[:kept].sum():
        kept -= 1
    tiny = np.finfo(float).tiny  # replaces a variance of zero
    log_det = float(np.log(np.maximum(values[:kept], tiny)).sum())
    if kept < n_features:
        left_out = max(trace - float(values[:kept].sum()), tiny)
        log_det += (n_features - kept) * log(left_out / (n_features - kept))
    return -0.5 * (log_det + n_features * (log(2 * pi) + 1))


class CentredRows:
    """Products with sqrt(w) (X - mean), without a centred or dense copy of X.

    The weights and n are scaled as in `scaled_weight`.
    """

    def __init__(self, X: Any, sample_weight: Array | None, mean: Array) -> None:
        self.X = X
        self.mean = mean
        sample_weight, _ = scaled_weight(sample_weight)  # only the ratios of the weights matter
        self.n = count_rows(X, sample_weight)
        self.diagonal = feature_scatter(X, self.mean, sample_weight) / self.n
        self.trace = float(self.diagonal.sum())
        self._root = None if sample_weight is None else np.sqrt(sample_weight)[:, None]

    def project(self, V: Array) -> Array:
        """sqrt(w) (X - mean) V, (n_samples, k)."""
        Y = self.X @ V.astype(self.X.dtype, copy=False) - self.mean @ V
        return Y if self._root is None else Y * self._root

    def pull_back(self, Y: Array) -> Array:
        """(X - mean)' sqrt(w) Y / n, (n_features, k)."""
        if self._root is not None:
            Y = Y * self._root
        V = self.X.T @ Y.astype(self.X.dtype, copy=False)
        V = (V - self.mean[:, None] * Y.sum(axis=0)) / self.n
        if not np.isfinite(V).all():
            raise out_of_range(self.X.dtype)
        return V

    def ritz(self, basis: Array) -> tuple[Array, Array, Array]:
        """Variances, axes and projections of the rows in the span of orthonormal columns."""
        Y = self.project(basis)
        values, rotation = np.linalg.eigh(Y.T @ Y / self.n)
        values, rotation = values[::-1], rotation[:, ::-1]
        return np.maximum(values, 0.0), basis @ rotation, Y @ rotation


class CentredScatter:
    """The methods of CentredRows from the moments of rows, for rows that are elsewhere.

    Projections sqrt(w) (X - mean) V are represented by V. `like` has the shape and dtype of X.
    """

    def __init__(self, stats: Moments, like: Any) -> None:
        self.X = like
        self.mean, self.n = stats.mean, stats.n
        self.covariance = stats.scatter / stats.n
        self.diagonal = np.diagonal(self.covariance)
        self.trace = float(self.diagonal.sum())

    def project(self, V: Array) -> Array:
        """V, which represents the projections."""
        return V

    def pull_back(self, Y: Array) -> Array:
        """The covariance times V, (n_features, k)."""
        return self.covariance @ Y

    def ritz(self, basis: Array) -> tuple[Array, Array, Array]:
        """Variances and axes in the span of orthonormal columns, and the axes as projections."""
        values, rotation = np.linalg.eigh(basis.T @ self.covariance @ basis)
        axes = basis @ rotation[:, ::-1]
        return np.maximum(values[::-1], 0.0), axes, axes


def randomized_axes(
    rows: CentredRows | CentredScatter, n_axes: int, rng: np.random.RandomState
) -> Spectrum:
    """Block power iterations from a random start (Halko et al. 2011, algorithm 4.4)."""
    n_features = rows.X.shape[1]
    width = min(n_features, n_axes + 10)
    basis = np.linalg.qr(rng.standard_normal((n_features, width)))[0]
    for _ in range(5):
        basis = np.linalg.qr(rows.pull_back(rows.project(basis)))[0]
    values, axes, _ = rows.ritz(basis)
    return Spectrum(values[:n_axes], axes[:, :n_axes].T, rows.trace, rows.mean)


def em_axes(
    rows: CentredRows | CentredScatter,
    n_axes: int,
    rng: np.random.RandomState,
    max_iter: int,
    *,
    keeps_progress: bool = False,
) -> tuple[Spectrum, EMRun]:
    """Run EM without a D x D matrix; returns the spectrum, and the run in nats per row.

    The EM update of W is in the span of S W (eq. 27). Each step maximises the likelihood over the
    span of S W, W and the previous W, as Knyazev (2001) does for eigenvectors. It therefore gains
    at least as much as a step of EM. EM stops when S W = W Lambda holds to the square root of the
    float precision.
    """
    n_features = rows.X.shape[1]
    eps = float(np.finfo(rows.X.dtype).eps)

    def step(state: _Ritz, history: tuple[float, ...]) -> tuple[float, _Ritz | None]:
        values, axes, projected, before = state
        nats = mean_log_likelihood(values, rows.trace, n_features)
        images = rows.pull_back(projected)
        residual = images - axes * values
        limits = np.maximum(np.sqrt(eps) * values, 100 * eps * rows.trace)
        if np.all(np.linalg.norm(residual, axis=0) <= limits):
            return nats, None
        span = np.linalg.qr(np.hstack([axes, residual, before]))[0]
        values, following, projected = (a[..., :n_axes] for a in rows.ritz(span))
        before = following - axes @ (axes.T @ following)
        return nats, _Ritz(values, following, projected, before)

    basis = rows.pull_back(rows.project(rng.standard_normal((n_features, n_axes))))
    values, axes, projected = rows.ritz(np.linalg.qr(basis)[0])
    start = _Ritz(values, axes, projected, axes[:, :0])
    run = run_em(step, start, max_iter, keeps_progress=keeps_progress)
    return Spectrum(run.state.values, run.state.axes.T, rows.trace, rows.mean), run


class _Ritz(NamedTuple):
    """Variances (k,), axes (D, k) and projections (n, k) of a step, and the change of the axes."""

    values: Array
    axes: Array
    projected: Array
    before: Array
