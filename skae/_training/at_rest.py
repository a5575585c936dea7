"""Losses of rows by a module as it is, between steps: with the same draws in every call."""

from collections.abc import Callable, Iterable
from math import log
from typing import Any

import torch
from torch import Tensor

from skae._training.data import WHOLE, Batch, some_of
from skae._training.loader import Loader, Subset
from skae._training.module import Loss, total_of

# Rows, with those repeated, whose draws tell the loss of held-out rows.
_LEAST_DRAWS = 512
# Of many times more rows than this, so many tell at first, in batches whose spread tells the error.
_SAMPLED, _SAMPLED_AT_ONCE, _MANY_SAMPLES = 2048, 64, 4
# Standard errors beyond which there is no doubt.
_ERRORS = 5.0


def loss_at_rest(net: Any, batches: Iterable[Batch]) -> float:
    """The loss of rows as the module of a net will be used."""
    return _at_rest(net, batches, total_of)


def _at_rest(net: Any, batches: Iterable[Batch], of: Callable[[Loss], Tensor]) -> float:
    """The mean of a figure of the loss, in the state in which the module will be used."""
    loss = net.module_.loss
    return float(_mean(net, batches, lambda batch: of(loss(_prepared(net, batch)))))


def held_out_loss(net: Any) -> float:
    """The loss of the rows that a net watches."""
    return loss_at_rest(net, net.get_iterator(net.subsets_[1]))


def held_out_figure(net: Any, valid: Subset) -> float:
    """Figure of merit of held-out rows: the logarithm of the mean error, or nats per row."""
    batches = net.get_iterator(valid)
    errors = net.module_.mean_error(batches)
    if errors is not None:
        return log(max(errors, 1e-300))
    repeats = range(-(-_LEAST_DRAWS // len(valid)))
    repeated = (batch for _ in repeats for batch in batches)
    return _at_rest(net, repeated, net.module_.figure_of_merit)


def objective(net: Any) -> float:
    """Figure of merit of the training rows, with the noise variance that explains them best.

    The running noise lags behind. What is learned of it stays in the module.
    """
    rows = Loader(net.subsets_[0], WHOLE, None)
    _settle(net, rows)
    return float(
        _mean(net, rows, lambda batch: net.module_.figure_of_merit(_minimised(net, batch)))
    )


def sampled(net: Any) -> list[Batch] | None:
    """Small batches of some training rows, of which losses tell what is clear already; None where
    rows are few, or have weights."""
    rows, index = net.subsets_[0].rows, net.subsets_[0].index
    if rows.weight is not None or len(index) < _MANY_SAMPLES * _SAMPLED:
        return None
    some = index[some_of(len(index), _SAMPLED, net.seed + 6)]
    return [rows.batch(part.to(rows.index_device)) for part in some.split(_SAMPLED_AT_ONCE)]


def sampled_objectives(net: Any, sample: list[Batch]) -> Tensor:
    """As `objective`, of each of these batches."""
    _settle(net, sample)
    return _each(net, sample, lambda batch: net.module_.figure_of_merit(_minimised(net, batch)))


def is_clearly_positive(values: Tensor) -> bool:
    """Whether the mean of what these are drawn from is above zero, beyond doubt."""
    return bool(values.mean() > _ERRORS * values.std() / len(values) ** 0.5)


def _settle(net: Any, batches: Iterable[Batch]) -> None:
    """Let the noise explain batches best."""
    net.module_.eval()
    net.generator_.manual_seed(net.seed + 4)
    net.module_.settle_noise((batch, _minimised(net, batch)) for batch in batches)


def _minimised(net: Any, batch: Batch) -> Loss:
    module = net.module_
    module.train()  # with the noise and the cuts of training
    prepared = _prepared(net, batch)
    module.eval()
    with torch.enable_grad():  # of which a loss may be made
        loss: Loss = module.loss(prepared)
    return loss


def loss_beside_means(net: Any) -> tuple[float, float]:
    """Nats of the training rows, and of explaining each by the mean row."""
    rows = Loader(net.subsets_[0], WHOLE, None)
    found = _mean(net, rows, lambda batch: _beside_means(net, batch))
    return float(found[0]), float(found[1])


def sampled_beside_means(net: Any, sample: list[Batch]) -> Tensor:
    """As `loss_beside_means`, of each of these batches, (n_batches, 2)."""
    return _each(net, sample, lambda batch: _beside_means(net, batch))


def _beside_means(net: Any, batch: Batch) -> Tensor:
    module = net.module_
    loss = module.loss(_prepared(net, batch))
    return torch.stack([module.nats(loss), module.nats_of_means(batch)])


def _prepared(net: Any, batch: Batch) -> Batch:
    prepared: Batch = net.module_.prepare(batch, net.generator_)
    return prepared


def _each(net: Any, batches: list[Batch], of: Callable[[Batch], Tensor]) -> Tensor:
    """What is found of batches."""
    net.module_.eval()
    net.generator_.manual_seed(net.seed + 4)
    with torch.no_grad():
        return torch.stack([of(batch).detach().cpu().double() for batch in batches])


def _mean(net: Any, batches: Iterable[Batch], of: Callable[[Batch], Tensor]) -> Tensor:
    """The mean over rows of what is found of batches."""
    net.module_.eval()
    net.generator_.manual_seed(net.seed + 4)
    total, weight = torch.zeros((), dtype=torch.float64), 0.0
    with torch.no_grad():
        for batch in batches:
            n = float(len(batch.x) if batch.weight is None else batch.weight.sum())
            total = total + n * of(batch).detach().cpu().double()
            weight += n
    return total / weight
