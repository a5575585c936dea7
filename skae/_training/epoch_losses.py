"""The mean losses of an epoch, and how they are written to the history."""

from collections.abc import Iterable
from math import inf, isfinite
from typing import Any, cast

import torch
from torch import Tensor

from skae._training.callbacks import Diverged
from skae._training.data import Batch
from skae._training.ranks import Ranks


class EpochLosses:
    """Losses of the batches of an epoch, which are read from the device once, at its end."""

    def __init__(self) -> None:
        self.values: dict[str, list[Tensor]] = {}
        self.weights: list[Tensor | float] = []
        self.ranks: Ranks | None = None

    def add(self, losses: dict[str, Tensor], batch: Batch) -> None:
        """Add the losses of a batch."""
        for name, value in losses.items():
            self.values.setdefault(name, []).append(value)
        weight = len(batch.x) if batch.weight is None else batch.weight.sum()
        self.weights.append(weight if batch.part is None or batch.part.counts else 0 * weight)
        self.ranks = None if batch.part is None else batch.part.ranks

    def means(self) -> dict[str, float]:
        """Return the means over all rows of the epoch, also over those of other processes."""
        if isinstance(self.weights[0], Tensor):
            weight = torch.stack(cast(list[Tensor], self.weights)).cpu().double()
        else:
            weight = torch.tensor(self.weights, dtype=torch.float64)
        total = weight.sum()
        if self.ranks is None:
            weight /= total
        means = torch.stack([torch.stack(v).cpu().double() @ weight for v in self.values.values()])
        if self.ranks is not None:
            *sums, total = self.ranks.sum(torch.cat([means, total[None]]))
            means = torch.stack(sums) / total
        return dict(zip(self.values, means.tolist(), strict=True))


def record_batch(net: Any, prefix: str, batch: Batch, terms: dict[str, Tensor]) -> None:
    """Write the loss of a batch to the history; it is that of the parts of all processes."""
    loss, n_rows = sum(float(value) for value in terms.values()), len(batch.x)
    if batch.part is not None:
        loss, n_rows = batch.part.mean(loss), batch.part.n_rows
    net.history.record_batch(prefix + "_loss", loss)
    net.history.record_batch(prefix + "_batch_size", n_rows)


def record_losses(net: Any, prefix: str, means: dict[str, float], terms: Iterable[str]) -> None:
    """Write the mean losses of an epoch to the history; `terms` are the terms of the loss.

    Raises `Diverged` if the training loss is not finite.
    """
    total = sum(means[name] for name in terms)
    epoch = list.__getitem__(net.history_, -1)  # skorch's own indexing is slow
    if prefix == "train":
        if not isfinite(total):
            raise Diverged(f"the loss is {total}")
        if not net.hears_batches_:  # skorch's checkpoints need an entry for a batch
            epoch["batches"].append({"train_loss": total})
    epoch[f"{prefix}_loss"] = total
    epoch[f"{prefix}_loss_best"] = total < net.best_.get(prefix, inf)
    net.best_[prefix] = min(total, net.best_.get(prefix, inf))
    if len(means) > 1:
        epoch.update({f"{prefix}_{name}": value for name, value in means.items()})
