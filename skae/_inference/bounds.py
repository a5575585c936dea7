"""log p(x), the log of the integral of p(z) p(x|z), for models whose codes are points.

An autoencoder with point codes has no q(z|x) to draw from. The draws come from a Gaussian around
the code f(x) of a row, N(f(x), tau² diag(s²)), where s are the standard deviations of the codes.
The single tau for all rows is chosen to make the bound on training rows as high as possible. The
importance-weighted bound holds for every tau (Burda et al. 2016), and is tighter with more draws.

References
----------
Y. Burda, R. Grosse and R. Salakhutdinov (2016). Importance weighted autoencoders. ICLR.
:doi:`10.48550/arXiv.1509.00519`
"""

from collections.abc import Callable
from math import log, pi
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skae._inference.row_draws import RowDraws
from skae._nn.gaussian_latents import DiagonalGaussian
from skae._training.data import Batch, Data, Dataset
from skae._utils.sparse_rows import Rows, as_sparse_rows

LogPrior = Callable[[Tensor], Tensor]
Map = Callable[[Tensor], Tensor]

_HALF_LOG_2PI = 0.5 * log(2 * pi)


class Proposal(NamedTuple):
    """The proposal N(f(x), tau² diag(std²)); codes with std 0 are not moved.

    For codes that have bounds, the proposal is a distribution of the real numbers that represent
    them: `to_real` and `from_real` are the map and its inverse.
    """

    std: NDArray[np.float64]
    tau: float
    to_real: Map | None = None
    from_real: Map | None = None


class RowLikelihood:
    """p(x|z) of a model with a trained network.

    Parameters
    ----------
    model : estimator
        Estimator whose module has `encode`, `log_px` and `log_units`.
    n_codes : int, default=None
        Number of leading codes to use; None means all codes.
    """

    def __init__(self, model: Any, n_codes: int | None = None) -> None:
        self.model, self.n_codes = model, n_codes

    @property
    def module(self) -> Any:
        """The trained network."""
        return self.model._trainer.module

    @property
    def seed(self) -> int:
        """The seed of the draws."""
        return int(self.model._seed + 3)

    def check_range(self, X: Rows) -> None:
        """Raise for rows that the likelihood cannot score."""
        self.model._check_range(as_sparse_rows(X))

    def dataset(self, X: Rows) -> Dataset:
        """Return rows as a data set of the network."""
        rows: Dataset = self.model._dataset(Data(as_sparse_rows(X)))
        return rows

    def inference(self, n_passes: int) -> Any:
        """Return the context for evaluation, with threads for this number of passes of rows."""
        return self.model._trainer.inference(n_passes)

    def center(self, batch: Batch, proposal: Proposal) -> Tensor:
        """Return the means of the proposals of rows.

        They are the codes, or the means of q(z|x), or the real numbers that represent these.
        """
        code = self.module.encode(batch.x)
        code = code.mean if isinstance(code, DiagonalGaussian) else code
        code = code[:, : self.n_codes]
        return code if proposal.to_real is None else proposal.to_real(code)


def bounds(
    explains: RowLikelihood,
    X: Rows,
    log_prior: LogPrior,
    proposal: Proposal,
    n_draws: int,
) -> NDArray[np.float32]:
    """Return log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x) of rows, in nats.

    `explains` encodes and decodes. `log_prior` computes the log density of codes (n, n_draws, k)
    that vary, or of the real numbers that the proposal draws.
    """
    module, rows = explains.module, explains.dataset(X)
    draws = RowDraws(n_draws, len(proposal.std), explains.seed, rows.device)
    std = torch.as_tensor(proposal.std, dtype=torch.float32).to(rows.device)
    varies = std > 0
    log_width = float((std[varies] * proposal.tau).log().sum()) + _HALF_LOG_2PI * int(varies.sum())
    found = np.empty(len(rows), dtype=np.float32)
    with explains.inference(n_draws * len(rows)):
        for part, batch, parts in draws.pieces(rows, module.architecture):
            center = explains.center(batch, proposal)
            total = torch.full((len(batch.x),), -torch.inf, device=rows.device)
            for block in parts:
                some = draws.of(center / std.where(varies, 1.0), block)
                z = center[:, None] + proposal.tau * std * some
                log_q = -0.5 * some[..., varies].square().sum(-1) - log_width
                codes = z if proposal.from_real is None else proposal.from_real(z)
                log_weight = module.log_px(batch, codes) + log_prior(z) - log_q
                total = torch.logaddexp(total, log_weight.logsumexp(-1))
            total = total - log(n_draws) - module.log_units(batch)
            found[part] = total.cpu().numpy()
    return found


def on_arrays(function: Callable[[NDArray[Any]], NDArray[Any]], rowwise: bool = True) -> Map:
    """Convert a function of arrays (n, k) to a function of tensors (..., k)."""

    def of_tensors(z: Tensor) -> Tensor:
        found = torch.from_numpy(function(z.flatten(0, -2).cpu().numpy())).float().to(z.device)
        shape = z.shape[:-1] if rowwise else (*z.shape[:-1], found.shape[-1])
        return found.view(shape)

    return of_tensors
