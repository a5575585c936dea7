"""Detection of columns that a trained network reconstructs worse than their mean."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skae._modules.likelihood import LikelihoodModule
from skae._nn.likelihoods import Laplace
from skae._training.data import Batch, Dataset

# Largest number of rows that are checked, evenly spaced over all; fewer if there are many columns.
_ROWS, _VALUES = 2048, 2**22
# Smallest ratio of a column's residual to its variance, and the number of standard errors by which
# the residual must be larger. The ratio is 1 if the codes contain no information on a column. It is
# up to 1.3 for columns of little weight in good fits, because only some rows are checked, and
# because of the noise of the last steps (digits).
_LIMIT, _ERRORS = 1.5, 3.0
# A column that deviates from its usual value in less than a hundredth of the rows has a larger
# kurtosis. Mean and variance do not describe it; pixels at the border of an image are an example.
_RARE = 100.0
# A column whose variance is below this fraction of the mean variance has little weight in the loss.
_LITTLE = 0.01
# A column is not checked if its standard deviation is below this multiple of the rounding error.
_ROUNDING = 10.0


class Unexplained(NamedTuple):
    """Residual and variance of every column, and whether the residual is clearly larger.

    Both are means of squares over observed values, in the units of the decoder.
    """

    residual: NDArray[np.float64]
    variance: NDArray[np.float64]
    worse: NDArray[np.bool_]

    @property
    def share(self) -> NDArray[np.float64]:
        """The residual of each column as a fraction of its variance; 0 for constant columns."""
        return self.residual / np.where(self.variance > 0, self.variance, np.inf)


def unexplained(module: LikelihoodModule, rows: Dataset) -> Unexplained:
    """Compare the reconstructions of rows with the means of their columns."""
    n_features = module.architecture.n_features
    n_rows = min(len(rows), max(_ROWS // 8, min(_ROWS, _VALUES // n_features)))
    index = torch.arange(0, len(rows), -(-len(rows) // n_rows))
    parts = [rows.batch(part) for part in index.to(rows.index_device).split(_ROWS // 4)]
    count = torch.zeros(n_features, dtype=torch.float64)
    total = torch.zeros_like(count)
    for batch in parts:
        y, weight = _values(batch)
        count += weight.sum(0)
        total += (weight * y).sum(0)
    count = count.clamp(min=1e-300)
    mean = total / count
    # Weighted sums of squared deviations, of their squares, and of squared residuals; and sums with
    # squared weights of the difference of the two squares, for its standard error.
    sums = torch.zeros((6, n_features), dtype=torch.float64)
    for batch in parts:
        y, weight = _values(batch)
        square = (y - mean).square()
        residual = (y - module.reconstructed(batch).cpu().double()).square()
        more, heavy = residual - square, weight.square()
        terms = (
            weight * square,
            weight * square.square(),
            weight * residual,
            heavy.expand_as(y),
            heavy * more,
            heavy * more.square(),
        )
        sums += torch.stack([term.sum(0) for term in terms])
    variance, fourth, residual = sums[:3] / count
    more = residual - variance
    error = (sums[5] - 2 * more * sums[4] + more.square() * sums[3]).clamp(min=0).sqrt() / count
    varies = variance.sqrt() > _ROUNDING * _rounding(module, rows, mean)
    usual = fourth <= _RARE * variance.square()
    # The best constant for absolute errors is the median, which is within one standard deviation of
    # the mean. Its squared error may be twice the variance.
    columns = module.architecture.columns
    if columns is None:
        absolute = torch.tensor(isinstance(module.likelihood, Laplace))
    else:
        absolute = columns.among(("laplace",))
    limit = _LIMIT * (1.0 + absolute)
    worse = varies & usual & (residual > limit * variance) & (more > _ERRORS * error)
    if columns is not None:  # all levels of a category together
        worse = columns.total(worse.double()) > 0
        residual, variance = columns.total(residual), columns.total(variance)
        worse &= residual > columns.first(limit) * variance
    return Unexplained(residual.numpy(), variance.numpy(), worse.numpy())


def _values(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return rows and the weight of each value, as float64 on the CPU."""
    y = batch.y.cpu().double()
    weight = y.new_ones((len(y), 1)) if batch.weight is None else batch.weight.cpu()[:, None]
    return y, weight.double() if batch.seen is None else weight * batch.seen.cpu().double()


def _rounding(module: LikelihoodModule, rows: Dataset, mean: Tensor) -> Tensor:
    """Return the rounding error of the values of each column, in the units of the decoder."""
    architecture, dtype = module.architecture, rows.data.X.dtype
    eps = float(np.finfo(dtype).eps) if dtype.kind == "f" else 0.0
    of_rows = torch.from_numpy(
        eps * (abs(architecture.center) + architecture.scale) / architecture.target_scale
    )
    return of_rows + torch.finfo(torch.float32).eps * mean.abs()


def describe(
    found: Unexplained, names: NDArray[np.object_] | None, scalable: bool, cures: str
) -> str:
    """Describe the columns that are reconstructed worse, and what to change.

    With a squared or absolute error as the loss, columns may be scaled (`scalable`), and columns of
    little variance have little weight. `cures` is the advice for all other cases.
    """
    share = found.share
    worst = int(np.where(found.worse, share, -1.0).argmax())
    which = worst if names is None else repr(names[worst])
    text = (
        f"{found.worse.sum()} of {len(share)} columns are reconstructed worse than by their mean. "
        f"The worst is column {which}, with a mean squared error of {share[worst]:.3g} times its "
        "variance."
    )
    relative = found.variance[worst] / found.variance.mean()
    if scalable and relative < _LITTLE and found.residual.sum() < found.variance.sum():
        return (
            f"{text} Its variance is {relative:.1g} times the mean variance of the columns, so "
            "that it has hardly any weight in the loss. Put "
            "sklearn.preprocessing.StandardScaler in front."
        )
    return f"{text} {cures}"
