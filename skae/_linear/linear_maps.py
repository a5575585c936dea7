"""The objective of the linear autoencoder, with its gradient, its minimum and canonical axes.

The objective is

    L = tr((I - W_d W_e) S (I - W_d W_e)') + alpha (|W_e|^2 + |W_d|^2),

where S is the covariance of the rows (1/n), W_e (k, D) the encoder and W_d (D, k) the decoder.

References
----------
P. Baldi and K. Hornik (1989). Neural networks and principal component analysis:
learning from examples without local minima. Neural Networks 2(1), 53-58.
:doi:`10.1016/0893-6080(89)90014-2`

D. Kunin, J. Bloom, A. Goeva and C. Seed (2019). Loss landscapes of regularized linear
autoencoders. ICML, PMLR 97, 3560-3569. :arxiv:`1901.08168`
"""

from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.extmath import svd_flip

from skae._utils.validation import get_namespace
from skae._utils.warning import warn

Matrix = NDArray[np.floating[Any]]


def linear_ae_loss(
    encoder: Matrix, decoder: Matrix, covariance: Matrix, alpha: float = 0.0
) -> float:
    """tr((I - W_d W_e) S (I - W_d W_e)') + alpha (|W_e|^2 + |W_d|^2), in squared units of X.

    Parameters
    ----------
    encoder : ndarray of shape (n_components, n_features), W_e
    decoder : ndarray of shape (n_features, n_components), W_d
    covariance : ndarray of shape (n_features, n_features), S with 1/n
    alpha : float, default=0.0

    Returns
    -------
    loss : float
    """
    return _loss_and_gradient(encoder, decoder, covariance, alpha)[0]


def linear_ae_gradient(
    encoder: Matrix, decoder: Matrix, covariance: Matrix, alpha: float = 0.0
) -> tuple[Matrix, Matrix]:
    """Gradient of `linear_ae_loss` with respect to W_e (k, D) and W_d (D, k)."""
    return _loss_and_gradient(encoder, decoder, covariance, alpha)[1:]


def _loss_and_gradient(
    encoder: Matrix, decoder: Matrix, covariance: Matrix, alpha: float
) -> tuple[float, Matrix, Matrix]:
    # With A = W_e S, the loss is tr S - 2 tr(A W_d) + tr(W_d'W_d A W_e'), which needs no D x D
    # product.
    images = encoder @ covariance
    code_covariance = images @ encoder.T
    overlap = decoder.T @ decoder
    loss = (
        np.trace(covariance)
        - 2 * np.sum(images.T * decoder)
        + np.sum(overlap * code_covariance)
        + alpha * (np.sum(encoder**2) + np.sum(decoder**2))
    )
    encoder_gradient = 2 * (overlap @ images - decoder.T @ covariance + alpha * encoder)
    decoder_gradient = 2 * (decoder @ code_covariance - images.T + alpha * decoder)
    return float(loss), encoder_gradient, decoder_gradient


def minimise_linear_ae(
    covariance: Matrix, n_components: int, alpha: float, rng: np.random.RandomState
) -> tuple[Matrix, Matrix, int]:
    """Minimise the objective by L-BFGS from random maps; returns W_e, W_d and n_iter.

    Every minimum is global (Baldi and Hornik 1989; Kunin et al. 2019 for alpha > 0). Random initial
    maps are not at a saddle point, so that the result does not depend on them.
    """
    n_features = len(covariance)
    scale = np.trace(covariance) or 1.0
    scaled = covariance / scale
    shape = (n_components, n_features)
    size = n_components * n_features

    def objective(point: Matrix) -> tuple[float, Matrix]:
        encoder, decoder = point[:size].reshape(shape), point[size:].reshape(shape).T
        loss, to_encoder, to_decoder = _loss_and_gradient(encoder, decoder, scaled, alpha / scale)
        return loss, np.concatenate([to_encoder.ravel(), to_decoder.T.ravel()])

    result = optimize.minimize(
        objective,
        rng.standard_normal(2 * size) / sqrt(n_features),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 20_000, "maxfun": 40_000, "maxcor": 30, "ftol": 1e-15, "gtol": 1e-8},
    )
    if result.status == 1:
        warn(
            f"LinearAE(solver='gradient') did not converge in {result.nit} iterations. Use "
            "solver='closed_form'.",
            ConvergenceWarning,
        )
    return result.x[:size].reshape(shape), result.x[size:].reshape(shape).T, result.nit


def canonical_axes(decoder: Matrix, covariance: Matrix) -> tuple[Matrix, Matrix]:
    """Variances (k,) and orthonormal axes (k, D) of the subspace that W_d spans.

    Without a penalty, (W_d C, C^-1 W_e) is the same map for every invertible C. The columns of W_d
    are therefore arbitrary. The returned axes diagonalise the covariance inside the subspace.
    """
    basis, _ = np.linalg.qr(decoder)
    variances, rotation = np.linalg.eigh(basis.T @ covariance @ basis)
    _, axes = svd_flip(None, (basis @ rotation).T[::-1], u_based_decision=False)
    return np.maximum(variances[::-1], 0.0), axes


def shrinkage_along(axes: Matrix, encoder: Matrix, decoder: Matrix) -> Matrix:
    """Singular values s (k,) of the maps of a penalised optimum along orthonormal axes (k, D).

    The optimum is W_d W_e = A' diag(s^2) A. Only this product is well determined, because the
    penalty determines W_d = W_e' only up to a rotation of the codes.
    """
    squares = np.sum((axes @ decoder) * (encoder @ axes.T).T, axis=1)
    return np.sqrt(np.maximum(squares, 0.0))


def whitening_scales(variances: Any, least: float) -> Any:
    """The divisors (k,) of codes for whitening: their standard deviations.

    Codes with a variance of at most `least` are divided by the standard deviation of the first
    code, so that they stay about zero in any units of the data. If this variance is also at most
    `least`, the divisor is 1.
    """
    xp, _ = get_namespace(variances)
    alive = variances > least
    scales = xp.sqrt(xp.where(alive, variances, xp.ones_like(variances)))
    return xp.where(alive, scales, scales[:1])
