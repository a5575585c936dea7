"""The width of the proposal around codes, chosen from a few decoded codes.

Along a ray from the code of a row, log p(x, z) decreases approximately by b r + a r² / 2. The slope
b and the curvature a follow from one point on either side. The integrals of p(z|x) and of p(z|x)² /
q(z) along the ray then have closed forms, and so has the chi-squared divergence of p(z|x) from the
proposal q. With K draws, the bound is below log p(x) by approximately log(1 + chi² / K) / 2, if the
mean of the weights is log-normal, and by at most KL(q || p(z|x)), its distance with one draw.
"""

from math import ceil, log, pi, sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from skae._inference.bounds import LogPrior, Proposal, RowLikelihood
from skae._inference.row_draws import blocks, pieces
from skae._training.data import Dataset
from skae._utils.sparse_rows import Rows

# Number of rows that determine the width, and of rays from each code, in both directions; the first
# estimate uses fewer. Many rows are needed, because a few rows that are far from their codes may
# need the largest width.
_ROWS, _RAYS = 64, 8
_FEW_ROWS, _FEW_RAYS = 8, 8
# Number of widths that are compared, and number of draws for which they are compared.
_WIDTHS, _DRAWS = 24, 256
# Distance of the points from the code, in widths. Close to a code that is not the mode of its
# posterior, the log density need not be concave.
_REACH = 2.0
# Number of first calls of a stream in which the width is determined each time.
_FIRST_CALLS = 8


def proposal_width(
    explains: RowLikelihood, X: Rows, log_prior: LogPrior, proposal: Proposal
) -> float:
    """Return the tau with approximately the best bound for many draws.

    The first estimate uses points at a distance of the codes' standard deviation, and the second
    one the width that was found. The result is 1 if no code varies, or if the log density is not
    finite and concave for any row. Only some of the rows are used.
    """
    start = proposal._replace(tau=1.0)
    if not start.std.any():  # there is no width to choose
        return start.tau
    tau = _look(explains, X, log_prior, start, _FEW_ROWS, _FEW_RAYS) or start.tau
    far = start._replace(tau=_REACH * tau)
    return _look(explains, X, log_prior, far, _ROWS, _RAYS) or tau


def looks_again(n_calls: int) -> bool:
    """Return whether a stream determines the width again.

    It does so in its first calls, and whenever their number has grown by a quarter.
    """
    return n_calls <= _FIRST_CALLS or ceil(log(n_calls, 1.25)) < ceil(log(n_calls + 1, 1.25))


def _look(
    explains: RowLikelihood,
    X: Rows,
    log_prior: LogPrior,
    proposal: Proposal,
    n_rows: int,
    n_rays: int,
) -> float | None:
    """Return the best tau, from the log density at the distance of a draw of the proposal."""
    rows = explains.dataset(X[:: -(-X.shape[0] // n_rows)])
    std = torch.as_tensor(proposal.std, dtype=torch.float32)
    k = int(std.count_nonzero())
    generator = torch.Generator().manual_seed(explains.seed)
    rays = torch.randn((len(rows), n_rays, len(std)), generator=generator)
    rays = normalize(rays * (std > 0), dim=-1)
    radius = proposal.tau * sqrt(k)
    moves = radius * std * torch.cat([torch.zeros_like(rays[:, :1]), rays, -rays], 1)
    log_joint = _log_joint(explains, rows, log_prior, proposal, moves.to(rows.device))
    with np.errstate(invalid="ignore"):  # infinite both at the code and at a distance
        fall = (log_joint[:, :1] - log_joint[:, 1:]).reshape(-1, 2, n_rays)
        slope = (fall[:, 0] - fall[:, 1]) / (2 * radius)
        curvature = (fall[:, 0] + fall[:, 1]) / radius**2
    # The width is limited by `tau`, because the log density is not known at larger distances.
    return best_width(np.hstack([slope, -slope]), np.tile(curvature, 2), k, proposal.tau)


def _log_joint(
    explains: RowLikelihood, rows: Dataset, log_prior: LogPrior, proposal: Proposal, moves: Tensor
) -> NDArray[np.float64]:
    """Return log p(x, z) of moved codes, (n, n_moves)."""
    module, n_moves = explains.module, moves.shape[1]
    found = np.empty(moves.shape[:2])
    with explains.inference(n_moves * len(rows)):
        for part, batch in pieces(rows, n_moves, module.architecture):
            center = explains.center(batch, proposal)
            for block in blocks(n_moves, module.architecture, rows.device):
                z = center[:, None] + moves[part, block]
                codes = z if proposal.from_real is None else proposal.from_real(z)
                found[part, block] = (module.log_px(batch, codes) + log_prior(z)).cpu().numpy()
    return found


def best_width(
    slope: NDArray[np.float64],
    curvature: NDArray[np.float64],
    k: int,
    widest: float = np.inf,
) -> float | None:
    """Return the tau with the best mean bound if -log p(x, z) increases by b r + a r² / 2.

    `slope` b and `curvature` a belong to rays from the codes, (n_rows, n_rays), in units in which
    the proposal is N(0, tau² I) in k dimensions. Rays along which the function is not convex are
    ignored; None if there are no others. Tau is at most `widest`.
    """
    valid = np.isfinite(slope) & np.isfinite(curvature) & (curvature > 0)
    rows = valid.any(1)
    if not rows.any():
        return None
    valid = valid[rows]
    # No posterior is assumed to be wider than the codes' distribution, unless most of them are.
    least = min(1.0, float(np.median(curvature[rows][valid])))
    a = np.where(valid, np.maximum(curvature[rows], least), 1.0)
    b = np.where(valid, slope[rows], 0.0)
    log_tau = np.log(np.minimum(_mode(a, b, k)[valid] / sqrt(k), widest))
    log_tau = np.linspace(log_tau.min(), log_tau.max(), _WIDTHS)
    precision = np.exp(-2 * log_tau)

    log_z = _log_mean(np.where(valid, _log_integral(a, b, k), -np.inf), valid)[:, None]
    log_z_q = _log_integral(precision, np.zeros(_WIDTHS), k)
    # Precision of p² / q along a ray; the integral is infinite if q decreases faster than p².
    rest = 2 * a[..., None] - precision
    finite = (rest > 0) & valid[..., None]
    log_square = _log_integral(np.where(finite, rest, 1.0), 2 * b[..., None], k)
    log_square = np.where(finite, log_square, np.where(valid, np.inf, -np.inf)[..., None])
    log_ratio = _log_mean(log_square, valid) + log_z_q - 2 * log_z
    many = 0.5 * np.logaddexp(0.0, log_ratio - log(_DRAWS))
    mean_a = (a * valid).sum(1, keepdims=True) / valid.sum(1, keepdims=True)
    one = log_z - log_z_q + 0.5 * k * (mean_a / precision - 1)
    lost = np.minimum(many, one)
    return float(np.exp(log_tau[lost.mean(0).argmin()]))


def _mode(a: NDArray[np.float64], b: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Return the maximum of r^k e^(-b r - a r² / 2), which solves a r² + b r = k."""
    root = np.abs(b) + np.sqrt(b * b + 4 * k * a)
    return np.where(b > 0, 2 * k / root, root / (2 * a))


def _log_integral(a: NDArray[np.float64], b: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Return the log of the integral of r^(k-1) e^(-b r - a r² / 2) over r > 0 (Laplace).

    At the mode, a r² is k - b r.
    """
    r = _mode(a, b, k)
    rise = b * r
    return k * np.log(r) - 0.5 * (k + rise) - 0.5 * np.log((2 * k - rise) / (2 * pi))


def _log_mean(logs: NDArray[np.float64], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the log of the mean of exponentials over the rays; invalid ones count as -inf."""
    top = np.minimum(logs.max(1, keepdims=True), 1e300)
    count = valid.sum(1).reshape(-1, *(1,) * (logs.ndim - 2))
    return top[:, 0] + np.log(np.exp(logs - top).sum(1) / count)
