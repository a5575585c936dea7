"""How wide draws around the codes of rows should be, from few decoded codes.

Along a ray from the code of a row, log p(x, z) falls by about b r + a r² / 2, with slope and
curvature from one point on either side. The integrals of p(z|x) and of p(z|x)² / q(z) along the
ray are then in closed form, and so is the chi-squared divergence of p(z|x) from the proposal q.
With K draws, the bound lies below log p(x) by about log(1 + chi² / K) / 2, as if the mean of the
weights were log-normal; and never by more than it does with one draw, KL(q || p(z|x)).
"""

from math import ceil, log, pi, sqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from skae._inference.bounds import LogPrior, Proposal, RowLikelihood
from skae._inference.row_draws import blocks, pieces
from skae._training.data import Dataset

# Rows that choose the width, and rays from the code of each, both ways; for a first look fewer.
# Many rows, since a few that are far from their codes may need most of the width.
_ROWS, _RAYS = 64, 8
_FEW_ROWS, _FEW_RAYS = 8, 8
# How many widths are compared, and for how many draws.
_WIDTHS, _DRAWS = 24, 256
# The log density is looked at so many widths away: near a code that is not its posterior's
# mode it need not be concave.
_REACH = 2.0
# In so many first calls of a stream the width is looked for each time.
_FIRST_CALLS = 8


def proposal_width(
    explains: RowLikelihood, X: NDArray[Any], log_prior: LogPrior, proposal: Proposal
) -> float:
    """The tau at which rows have about the best bound with many draws.

    A first look is as far away as codes vary, a second by the width that was found. It is 1 if no
    code varies or the log density is nowhere finite and concave. Of the rows a few are read.
    """
    start = proposal._replace(tau=1.0)
    if not start.std.any():  # there is nothing to choose
        return start.tau
    tau = _look(explains, X, log_prior, start, _FEW_ROWS, _FEW_RAYS) or start.tau
    far = start._replace(tau=_REACH * tau)
    return _look(explains, X, log_prior, far, _ROWS, _RAYS) or tau


def looks_again(n_calls: int) -> bool:
    """Whether a stream looks for the width anew: in its first calls, and whenever their number
    has grown by a quarter."""
    return n_calls <= _FIRST_CALLS or ceil(log(n_calls, 1.25)) < ceil(log(n_calls + 1, 1.25))


def _look(
    explains: RowLikelihood,
    X: NDArray[Any],
    log_prior: LogPrior,
    proposal: Proposal,
    n_rows: int,
    n_rays: int,
) -> float | None:
    """The best tau by the log density at the distance of a draw from the proposal."""
    rows = explains.dataset(X[:: -(-X.shape[0] // n_rows)])
    std = torch.as_tensor(proposal.std, dtype=torch.float32)
    k = int(std.count_nonzero())
    generator = torch.Generator().manual_seed(explains.seed)
    rays = torch.randn((len(rows), n_rays, len(std)), generator=generator)
    rays = normalize(rays * (std > 0), dim=-1)
    radius = proposal.tau * sqrt(k)
    moves = radius * std * torch.cat([torch.zeros_like(rays[:, :1]), rays, -rays], 1)
    log_joint = _log_joint(explains, rows, log_prior, proposal, moves.to(rows.device))
    with np.errstate(invalid="ignore"):  # infinite both at the code and away from it
        fall = (log_joint[:, :1] - log_joint[:, 1:]).reshape(-1, 2, n_rays)
        slope = (fall[:, 0] - fall[:, 1]) / (2 * radius)
        curvature = (fall[:, 0] + fall[:, 1]) / radius**2
    # Of what is farther out nothing is known.
    return best_width(np.hstack([slope, -slope]), np.tile(curvature, 2), k, proposal.tau)


def _log_joint(
    explains: RowLikelihood, rows: Dataset, log_prior: LogPrior, proposal: Proposal, moves: Tensor
) -> NDArray[np.float64]:
    """log p(x, z) of codes that are moved, (n, n_moves)."""
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
    """The tau with the best bound on average, where -log p(x, z) rises by b r + a r² / 2.

    `slope` b and `curvature` a are those of rays from the codes, (n_rows, n_rays), in the
    metric in which the proposal is N(0, tau² I), in k dimensions. Rays along which it is not
    convex say nothing; None, if there are no others. Tau is `widest` at most.
    """
    valid = np.isfinite(slope) & np.isfinite(curvature) & (curvature > 0)
    rows = valid.any(1)
    if not rows.any():
        return None
    valid = valid[rows]
    # No posterior is taken to be wider than the codes are, unless most of them are.
    least = min(1.0, float(np.median(curvature[rows][valid])))
    a = np.where(valid, np.maximum(curvature[rows], least), 1.0)
    b = np.where(valid, slope[rows], 0.0)
    log_tau = np.log(np.minimum(_mode(a, b, k)[valid] / sqrt(k), widest))
    log_tau = np.linspace(log_tau.min(), log_tau.max(), _WIDTHS)
    precision = np.exp(-2 * log_tau)

    log_z = _log_mean(np.where(valid, _log_integral(a, b, k), -np.inf), valid)[:, None]
    log_z_q = _log_integral(precision, np.zeros(_WIDTHS), k)
    # Of p² / q along a ray: infinite, where q falls faster than p².
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
    """Where r^k e^(-b r - a r² / 2) is largest: a r² + b r = k, without loss of digits."""
    root = np.abs(b) + np.sqrt(b * b + 4 * k * a)
    return np.where(b > 0, 2 * k / root, root / (2 * a))


def _log_integral(a: NDArray[np.float64], b: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Log of the integral of r^(k-1) e^(-b r - a r² / 2) over r > 0, by Laplace's method.

    At the mode, a r² is k - b r.
    """
    r = _mode(a, b, k)
    rise = b * r
    return k * np.log(r) - 0.5 * (k + rise) - 0.5 * np.log((2 * k - rise) / (2 * pi))


def _log_mean(logs: NDArray[np.float64], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Log of the mean of exponentials over the rays; those that are not valid are -inf."""
    top = np.minimum(logs.max(1, keepdims=True), 1e300)
    count = valid.sum(1).reshape(-1, *(1,) * (logs.ndim - 2))
    return top[:, 0] + np.log(np.exp(logs - top).sum(1) / count)
