"""log p(x) = log of the integral of p(z) p(x|z), for models that encode a row as a point.

A point autoencoder has no q(z|x) to draw from. Around the code f(x) of a row there is one:
N(f(x), tau² diag(s²)), with the standard deviations s of codes and one tau for all rows,
which is chosen where the bound on training rows is about best. Whatever tau is, the importance-
weighted bound holds (Burda et al. 2016); it is tighter the more draws there are.

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

from skae._inference.row_draws import RowDraws, blocks, pieces
from skae._nn.gaussian_latents import DiagonalGaussian
from skae._training.data import Batch, Data, Dataset

LogPrior = Callable[[Tensor], Tensor]
Map = Callable[[Tensor], Tensor]

_HALF_LOG_2PI = 0.5 * log(2 * pi)


class Proposal(NamedTuple):
    """N(f(x), tau² diag(std²)); codes of std 0 stay where they are.

    Of codes that have bounds, it is one of the real numbers that they are read as: `to_real`
    and `from_real` are the map and its inverse.
    """

    std: NDArray[np.float64]
    tau: float
    to_real: Map | None = None
    from_real: Map | None = None


class RowLikelihood:
    """p(x|z) of a model whose network explains rows.

    Parameters
    ----------
    model : estimator
        One whose module has `encode`, `log_px` and `log_units`.
    n_codes : int, default=None
        Of the first codes alone, where not of all.
    """

    def __init__(self, model: Any, n_codes: int | None = None) -> None:
        self.model, self.n_codes = model, n_codes

    @property
    def module(self) -> Any:
        """The trained network."""
        return self.model._trainer.module

    @property
    def seed(self) -> int:
        """Of the draws."""
        return int(self.model._seed + 3)

    def check_range(self, X: NDArray[Any]) -> None:
        """Raise for rows that the likelihood cannot score."""
        self.model._check_range(X)

    def dataset(self, X: NDArray[Any]) -> Dataset:
        """Rows as the network reads them."""
        rows: Dataset = self.model._dataset(Data(X))
        return rows

    def inference(self, n_passes: int) -> Any:
        """No gradients, no noise; for so many passes of rows, in all."""
        return self.model._trainer.inference(n_passes)

    def center(self, batch: Batch, proposal: Proposal) -> Tensor:
        """Where the proposals of rows are: at the point that each is encoded as, or the mean of
        its q(z|x), or at the real numbers that this is read as."""
        code = self.module.encode(batch.x)
        code = code.mean if isinstance(code, DiagonalGaussian) else code
        code = code[:, : self.n_codes]
        return code if proposal.to_real is None else proposal.to_real(code)


def bounds(
    explains: RowLikelihood,
    X: NDArray[Any],
    log_prior: LogPrior,
    proposal: Proposal,
    n_draws: int,
) -> NDArray[np.float32]:
    """log 1/K sum_k p(x|z_k) p(z_k) / q(z_k|x) of rows, nats.

    `explains` encodes and decodes by a network; log_prior is of codes (n, n_draws, k), as a
    density of those that vary; or of the real numbers that the proposal is one of.
    """
    module, rows = explains.module, explains.dataset(X)
    draws = RowDraws(n_draws, len(proposal.std), explains.seed, rows.device)
    std = torch.as_tensor(proposal.std, dtype=torch.float32).to(rows.device)
    varies = std > 0
    log_width = float((std[varies] * proposal.tau).log().sum()) + _HALF_LOG_2PI * int(varies.sum())
    found = np.empty(len(rows), dtype=np.float32)
    with explains.inference(n_draws * len(rows)):
        for part, batch in pieces(rows, n_draws, module.architecture):
            center = explains.center(batch, proposal)
            total = torch.full((len(batch.x),), -torch.inf, device=rows.device)
            for block in blocks(n_draws, module.architecture, rows.device):
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
    """A function of arrays (n, k) as one of tensors (..., k)."""

    def of_tensors(z: Tensor) -> Tensor:
        found = torch.from_numpy(function(z.flatten(0, -2).cpu().numpy())).float().to(z.device)
        shape = z.shape[:-1] if rowwise else (*z.shape[:-1], found.shape[-1])
        return found.view(shape)

    return of_tensors
