"""The importance-weighted bound of VAE, and estimates of its gradient.

References
----------
Y. Burda, R. Grosse and R. Salakhutdinov (2016). Importance weighted autoencoders. ICLR.
:doi:`10.48550/arXiv.1509.00519`

G. Tucker, D. Lawson, S. Gu and C. Maddison (2019). Doubly reparameterized gradient estimators for
Monte Carlo objectives. ICLR. :doi:`10.48550/arXiv.1810.04152`

J. Carpenter, P. Clifford and P. Fearnhead (1999). Improved particle filter for nonlinear problems.
IEE Proceedings 146(1), 2-7. :doi:`10.1049/ip-rsn:19990255`
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from skae._nn.gaussian_latents import log_mean_exp, log_normal, log_prior, log_prior_by_code
from skae._training.data import Batch

if TYPE_CHECKING:
    from skae._modules.vae import VAEModule

# With at least this many draws for a row, gradients pass through a few of them only. With fewer
# than 16, the weights of all draws would take longer than the gradients that this saves (measured).
LEAST_TO_RESAMPLE = 32
WITH_GRADIENTS = 8


class WeightedBound(NamedTuple):
    """log 1/K sum_k w_k of each row, with a gradient, and what it was computed from.

    Attributes
    ----------
    bound : Tensor of shape (n,)
        The bound in nats, without the change of units.
    output : Tensor of shape (n, n_draws, n_outputs)
        Outputs of the draws through which gradients pass.
    share : Tensor of shape (n, n_draws)
        Weights of these draws in expectations over p(z|x), which add up to 1: the importance
        weights, or equal weights if the draws were chosen by importance weights.
    """

    bound: Tensor
    output: Tensor
    share: Tensor


def weighted_bound(module: "VAEModule", batch: Batch) -> WeightedBound:
    """Return the bound of w_k = p(x, z_k) / q(z_k|x) (Burda et al. 2016, equation 8).

    Its gradient is doubly reparameterised (Tucker et al. 2019, equation 8). With normalised weights
    s_k = w_k / sum w, the gradient for p is sum_k s_k d log w_k. For q, whose parameters are held
    constant in log q, it is sum_k s_k^2 (d log w_k / d z_k) d z_k. The gradient that passes through
    z_k is therefore multiplied by s_k once more.

    If the batch has one more draw than `n_importance`, all weights are computed without gradients,
    and a few draws are chosen with the probabilities s_k. The first number of the additional draw,
    which is normal, determines the choice. The mean of d log w_k over the chosen draws, with the
    factor s_k for q, is an unbiased estimate of the same gradient.
    """
    n_draws = module.architecture.n_importance
    draws: Tensor = batch.draws  # type: ignore[assignment]
    if draws.shape[1] == n_draws:
        log_weight, output, z = _log_weights(module, batch)
        share = log_weight.detach().softmax(-1)
        _multiply_gradient(z, share)
        return WeightedBound(log_mean_exp(log_weight), output, share)
    draws, chooses = draws[:, :n_draws], draws[:, n_draws, 0]
    with torch.no_grad():
        log_weight = _log_weights(module, batch._replace(draws=draws))[0]
        share = log_weight.softmax(-1)
        chosen = resampled(share, torch.special.ndtr(chooses), WITH_GRADIENTS)
        share = share.gather(1, chosen)
        draws = draws.gather(1, chosen[..., None].expand(-1, -1, draws.shape[-1]))
        bound = log_mean_exp(log_weight)
    log_weight, output, z = _log_weights(module, batch._replace(draws=draws))
    _multiply_gradient(z, share)
    mean = log_weight.mean(1)
    equal = torch.full_like(share, 1 / share.shape[1])
    return WeightedBound(bound + (mean - mean.detach()), output, equal)


def resampled(share: Tensor, uniform: Tensor, n: int) -> Tensor:
    """Return n indices for each row of shares that add up to 1, by systematic resampling.

    Each index k occurs n share_k times on average over the uniform numbers, which are one for each
    row. A single count is this number rounded up or down.
    """
    points = (torch.arange(n, device=share.device) + uniform[:, None]) / n
    upper = share.cumsum(-1)
    return torch.searchsorted(upper, points * upper[:, -1:]).clamp(max=share.shape[1] - 1)


def _log_weights(module: "VAEModule", batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Return log w of the draws, (n, n_draws), the outputs and the codes."""
    (q, prior), z, output = module(batch)
    seen = None if batch.seen is None else batch.seen[:, None]
    log_px = module.row_log_prob(batch, batch.y[:, None], output, seen)
    log_q = log_normal(z, q.mean.detach()[:, None], q.log_var.detach()[:, None])
    if batch.gate is None:
        log_pq = log_prior(z, prior) - log_q.sum(-1)
    else:
        log_pq = ((log_prior_by_code(z, prior) - log_q) * batch.gate[:, None]).sum(-1)
    return log_px + log_pq, output, z


def _multiply_gradient(z: Tensor, factor: Tensor) -> None:
    """Multiply the gradient that passes through codes by one factor for each draw."""
    if z.requires_grad:
        z.register_hook(lambda gradient: gradient * factor[..., None])
