"""Losses of rows under a module whose weights do not change, with the same draws in every call."""

from collections.abc import Callable, Iterable
from math import isfinite, log
from typing import Any

import torch
from torch import Tensor

from skae._training.data import WHOLE, Batch, some_of
from skae._training.loader import Loader, Subset
from skae._training.module import Loss, total_of

# The loss of held-out rows is estimated from at least this many rows. Fewer rows are repeated, with
# new draws each time.
_LEAST_DRAWS = 512
# With at least _MANY_SAMPLES times _SAMPLED training rows, a first comparison uses only _SAMPLED of
# them, in batches of _SAMPLED_AT_ONCE. The spread of the batches gives the standard error.
_SAMPLED, _SAMPLED_AT_ONCE, _MANY_SAMPLES = 2048, 64, 4
# Number of training rows whose loss decides whether a state is usable.
_CHECKED_ROWS = 64
# A difference of more than this many standard errors is taken as certain.
_ERRORS = 5.0


def loss_at_rest(net: Any, batches: Iterable[Batch]) -> float:
    """Return the mean loss of rows in evaluation mode, as the fitted model computes it."""
    return _at_rest(net, batches, total_of)


def _at_rest(net: Any, batches: Iterable[Batch], of: Callable[[Loss], Tensor]) -> float:
    """Return the mean of a figure of the loss of rows in evaluation mode."""
    loss = net.module_.loss
    return float(_mean(net, batches, lambda batch: of(loss(_prepared(net, batch)))))


def defect_of(net: Any) -> str | None:
    """Return why the module in its present state is not usable, or None if it is."""
    if not all(bool(p.isfinite().all()) for p in net.module_.parameters() if p.requires_grad):
        return "weights are not finite"
    rows, index = net.subsets_[0].rows, net.subsets_[0].index
    some = index[:: -(-len(index) // _CHECKED_ROWS)]
    loss = loss_at_rest(net, [rows.batch(some.to(rows.index_device))])
    return None if isfinite(loss) else f"the loss after this epoch is {loss}"


def held_out_loss(net: Any) -> float:
    """Return the mean loss of the validation rows of a net."""
    return loss_at_rest(net, net.all_batches(net.subsets_[1]))


def held_out_figure(net: Any, valid: Subset) -> float:
    """Return the figure that held-out rows are judged by.

    It is the logarithm of the mean squared error if the module defines `mean_error`, and otherwise
    its `figure_of_merit` in nats.
    """
    batches = net.all_batches(valid)
    errors = net.module_.mean_error(batches)
    if errors is not None:
        return log(max(errors, 1e-300))
    repeats = range(-(-_LEAST_DRAWS // len(valid)))
    repeated = (batch for _ in repeats for batch in batches)
    return _at_rest(net, repeated, net.module_.figure_of_merit)


def objective(net: Any) -> float:
    """Return the `figure_of_merit` of the module, over all training rows.

    The noise variance is first set to its optimum for these rows, because the running estimate lags
    behind the weights. The module keeps that noise variance.
    """
    rows = Loader(net.subsets_[0], WHOLE, None)
    _settle(net, rows)
    return float(
        _mean(net, rows, lambda batch: net.module_.figure_of_merit(_minimised(net, batch)))
    )


def sampled(net: Any) -> list[Batch] | None:
    """Return small batches of randomly chosen training rows, for a first comparison of losses.

    Returns None if there are few rows, or if the rows have weights.
    """
    rows, index = net.subsets_[0].rows, net.subsets_[0].index
    if rows.weight is not None or len(index) < _MANY_SAMPLES * _SAMPLED:
        return None
    some = index[some_of(len(index), _SAMPLED, net.seed + 6)]
    return [rows.batch(part.to(rows.index_device)) for part in some.split(_SAMPLED_AT_ONCE)]


def sampled_objectives(net: Any, sample: list[Batch]) -> Tensor:
    """Return the `objective` of each of these batches."""
    _settle(net, sample)
    return _each(net, sample, lambda batch: net.module_.figure_of_merit(_minimised(net, batch)))


def is_clearly_positive(values: Tensor) -> bool:
    """Return whether the expectation of these values is positive beyond doubt."""
    return bool(values.mean() > _ERRORS * values.std() / len(values) ** 0.5)


def _settle(net: Any, batches: Iterable[Batch]) -> None:
    """Set the noise variance to its optimum for these batches."""
    net.module_.eval()
    net.generator_.manual_seed(net.seed + 4)
    net.module_.settle_noise((batch, _minimised(net, batch)) for batch in batches)


def _minimised(net: Any, batch: Batch) -> Loss:
    module = net.module_
    module.train()  # with the noise and the dropped codes of training
    prepared = _prepared(net, batch)
    module.eval()
    with torch.enable_grad():  # because a loss may contain a gradient
        loss: Loss = module.loss(prepared)
    return loss


def loss_beside_means(net: Any) -> tuple[float, float]:
    """Return the nats of the training rows, and the nats if each is explained by the mean row."""
    rows = Loader(net.subsets_[0], WHOLE, None)
    found = _mean(net, rows, lambda batch: _beside_means(net, batch))
    return float(found[0]), float(found[1])


def sampled_beside_means(net: Any, sample: list[Batch]) -> Tensor:
    """Return the two values of `loss_beside_means` for each batch, of shape (n_batches, 2)."""
    return _each(net, sample, lambda batch: _beside_means(net, batch))


def _beside_means(net: Any, batch: Batch) -> Tensor:
    module = net.module_
    loss = module.loss(_prepared(net, batch))
    return torch.stack([module.nats(loss), module.nats_of_means(batch)])


def _prepared(net: Any, batch: Batch) -> Batch:
    prepared: Batch = net.module_.prepare(batch, net.generator_)
    return prepared


def _each(net: Any, batches: list[Batch], of: Callable[[Batch], Tensor]) -> Tensor:
    """Stack the results of a function for each batch."""
    net.module_.eval()
    net.generator_.manual_seed(net.seed + 4)
    with torch.no_grad():
        return torch.stack([of(batch).detach().cpu().double() for batch in batches])


def _mean(net: Any, batches: Iterable[Batch], of: Callable[[Batch], Tensor]) -> Tensor:
    """Return the mean of the results of a function over the rows of all batches."""
    net.module_.eval()
    net.generator_.manual_seed(net.seed + 4)
    total, weight = torch.zeros((), dtype=torch.float64), 0.0
    with torch.no_grad():
        for batch in batches:
            n = float(len(batch.x) if batch.weight is None else batch.weight.sum())
            total = total + n * of(batch).detach().cpu().double()
            weight += n
    return total / weight
