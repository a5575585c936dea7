"""Log masses of counts, in nats, with all constants."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import logsigmoid, softplus

from skae._training.contexts import is_stacking

# exp of this number, and sums of such values, are finite in float32.
MAX_LOG_RATE = 60.0
# If more than this share of the counts is positive, functions that are zero at zero are computed
# for all of them.
_DENSE = 0.25
# Dispersion above which differences of log gamma functions are computed by Stirling's formula,
# because they are much smaller than their terms.
_LARGE = 30.0


def soft_limit(values: Tensor, most: Tensor | float) -> Tensor:
    """Return values up to `most` as they are; larger ones grow logarithmically.

    The slope is continuous and never zero, so that training brings values back.
    """
    beyond = (values - most).clamp(min=0.0)
    return torch.where(values > most, most + beyond.log1p(), values)


def poisson_log_mass(x: Tensor, log_rate: Tensor) -> Tensor:
    """x log rate - rate - log x!."""
    return x * log_rate - log_rate.exp() - torch.lgamma(x + 1)


def log_factorials(x: Tensor) -> Tensor:
    """Return the sum of log x! over the last axis."""
    return _sum_of_positive(x, lambda x, _: torch.lgamma(x + 1))


def log_coefficients(x: Tensor, dispersion: Tensor) -> Tensor:
    """Return log Γ(x + d) - log Γ(d) - log x! of counts x and dispersions d."""
    near = dispersion.clamp(max=_LARGE)
    exact = torch.lgamma(x + near) - torch.lgamma(near)
    far = dispersion.clamp(min=_LARGE)
    total = x + far
    stirling = (total - 0.5) * torch.log1p(x / far) + x * far.log() - x
    stirling = stirling + (1 / total - 1 / far) / 12
    return torch.where(dispersion < _LARGE, exact, stirling) - torch.lgamma(x + 1)


def row_log_coefficients(x: Tensor, dispersion: Tensor) -> Tensor:
    """Return the sum of `log_coefficients` over the last axis."""
    return _sum_of_positive(
        x,
        lambda x, index: log_coefficients(
            x, dispersion if index is None else dispersion.to(x)[index]
        ),
    )


def _sum_of_positive(x: Tensor, of: Callable[[Tensor, Tensor | None], Tensor]) -> Tensor:
    """Sum a function that is zero at zero over the last axis.

    It gets counts and the indices of their features, or None for all. Most counts are zero, and
    special functions take longer than everything else.
    """
    if is_stacking() or torch.compiler.is_compiling():
        return of(x, None).sum(-1)
    rows = x.reshape(-1, x.shape[-1])
    row, column = rows.nonzero(as_tuple=True)
    if len(row) > _DENSE * rows.numel():
        return of(x, None).sum(-1)
    found = x.new_zeros(len(rows)).index_add(0, row, of(rows[row, column], column))
    return found.view(x.shape[:-1])


def negative_binomial_row(
    x: Tensor, logit: Tensor, dispersion: Tensor, zeros: Tensor | None, seen: Tensor | None
) -> Tensor:
    """Return the log mass of rows without `row_log_coefficients`.

    `logit` is log(mean / dispersion); `zeros` are the log-odds of additional zeros.
    """
    graded = logit.requires_grad or dispersion.requires_grad
    if graded and torch.is_grad_enabled() and not (is_stacking() or torch.compiler.is_compiling()):
        return cast(Tensor, _NegativeBinomialRow.apply(x, logit, dispersion, zeros, seen))
    # x * logit - (x + dispersion) * softplus(logit), without cancellation for large counts.
    each = x * logsigmoid(logit) - dispersion * softplus(logit)
    if zeros is not None:
        each = torch.where(x > 0, each, torch.logaddexp(each, zeros)) - softplus(zeros)
    return each.sum(-1) if seen is None else (each * seen).sum(-1)


class _NegativeBinomialRow(torch.autograd.Function):
    """Computes the gradient in the forward pass, which saves passes over the values."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        logit: Tensor,
        dispersion: Tensor,
        zeros: Tensor | None,
        seen: Tensor | None,
    ) -> Tensor:
        above = softplus(logit)
        each = torch.addcmul(x * logit, x + dispersion, above, value=-1)
        slope = torch.addcmul(x, x + dispersion, logit.sigmoid(), value=-1)
        of_zeros = None
        if zeros is not None:
            is_zero = x <= 0
            of_counts = torch.where(is_zero, (-dispersion * above - zeros).sigmoid(), 1.0)
            each = torch.where(is_zero, torch.logaddexp(each, zeros), each) - softplus(zeros)
            of_zeros = 1 - of_counts - zeros.sigmoid()
            slope, above = slope * of_counts, above * of_counts
            of_zeros = of_zeros if seen is None else of_zeros * seen
        if seen is not None:
            each, slope, above = each * seen, slope * seen, above * seen
        ctx.save_for_backward(slope, above, of_zeros)
        return each.sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        slope, above, of_zeros = ctx.saved_tensors
        wide = gradient[..., None]
        of_dispersion = -(gradient.reshape(-1) @ above.reshape(-1, above.shape[-1]))
        return (
            None,
            slope * wide,
            of_dispersion,
            None if of_zeros is None else of_zeros * wide,
            None,
        )


class NegativeBinomialOfSize:
    """`negative_binomial_row` as a function of the log size factors of rows.

    Parameters
    ----------
    x : Tensor of shape (..., n_features)
        Counts.
    logit : Tensor of shape (..., n_features)
        log(mean / dispersion) for a size factor of one.
    dispersion : Tensor of shape (n_features,)
        Dispersions.
    zeros, seen : Tensor or None
        As for `negative_binomial_row`.

    Values are computed with the precision of the arguments; slopes and changes in float32.
    """

    def __init__(
        self,
        x: Tensor,
        logit: Tensor,
        dispersion: Tensor,
        zeros: Tensor | None,
        seen: Tensor | None,
    ) -> None:
        self.given = x, logit, dispersion, zeros, seen
        self.x, self.logit, self.dispersion = x.float(), logit.float(), dispersion.float()
        self.zeros, self.seen = None if zeros is None else zeros.float(), seen
        self.total = self.x + self.dispersion
        if seen is not None:
            self.total = self.total * seen

    def slopes(self, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the slopes, the expected information, and the curvatures.

        Curvatures ignore that an additional zero may be more or less likely elsewhere.
        """
        logit = self.logit + at[..., None].float()
        below = (-logit).sigmoid()
        expected = self.dispersion * (1 - below)
        each = self.x * below - expected  # without cancellation for large counts
        curved = (self.x + self.dispersion) * below * (1 - below)
        if self.zeros is not None:
            of_counts = (-self.dispersion * softplus(logit) - self.zeros).sigmoid()
            of_counts = torch.where(self.x > 0, 1.0, of_counts)
            each, expected, curved = (t * of_counts for t in (each, expected, curved))
        if self.seen is not None:
            each, expected, curved = (t * self.seen for t in (each, expected, curved))
        return each.sum(-1), expected.sum(-1), curved.sum(-1)

    def value(self, at: Tensor) -> Tensor:
        """Return the log masses."""
        x, logit, dispersion, zeros, seen = self.given
        return negative_binomial_row(x, logit + at[..., None], dispersion, zeros, seen)

    def changes(self, at: Tensor, steps: Tensor) -> Tensor:
        """Return how values change from `at` by steps (n_nodes, ...).

        With p = sigmoid(a), softplus(a + d) - softplus(a) is log(1 + p (e^d - 1)), and also
        d + log(1 + (1 - p) (e^-d - 1)). The first is accurate for rates below the dispersion, and
        the second for rates above it, where d times the count then cancels.
        """
        logit, steps = self.logit + at[..., None].float(), steps.float()
        bright = (logit > 0).to(logit)
        least = logit.abs().neg_().sigmoid_()
        linear = self.x.lerp(-self.dispersion, bright)
        linear = linear if self.seen is None else linear * self.seen
        ends = [(step.expm1()[..., None], (-step).expm1()[..., None]) for step in steps]
        # In place, because most of the time goes into memory.
        grown = (
            torch.addcmul(up, bright, down - up).mul_(least).log1p_().mul_(self.total)
            for up, down in ends
        )
        if self.zeros is None:
            return linear.sum(-1) * steps - torch.stack([each.sum(-1) for each in grown])
        is_zero = self.x <= 0
        # Log-odds that a zero is one of the negative binomial distribution, and its log chances.
        log_odds = -self.dispersion * softplus(logit) - self.zeros
        of_counts, others = logsigmoid(log_odds), logsigmoid(-log_odds)
        found = []
        for step, each in zip(steps, grown, strict=True):
            each = linear * step[..., None] - each
            each = torch.where(is_zero, torch.logaddexp(of_counts + each, others), each)
            found.append(each.sum(-1))
        return torch.stack(found)
