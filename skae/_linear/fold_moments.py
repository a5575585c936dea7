"""Moments of training and held-out rows of every fold, from one pass over all rows.

The moments of a training set are the merged moments of the other folds. Five folds therefore need
one pass over the rows, and not one pass over four fifths of the rows for each fold. The mean log
density of held-out rows is also computed from their moments.
"""

from collections.abc import Iterable, Sequence
from functools import reduce
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skae._linear.low_rank_gaussian import LEAST_DIFFERENCE
from skae._linear.moments import Moments, moments
from skae._linear.running import merge

Indices = NDArray[np.intp]


class FoldMoments(NamedTuple):
    """Moments of the training rows and of the held-out rows of a fold."""

    train: Moments
    test: Moments


def are_complements(splits: Sequence[tuple[Indices, Indices]]) -> bool:
    """Whether every row is held out in exactly one fold and trained on in all others."""
    if len(splits) < 2:
        return False
    every = np.arange(sum(len(test) for _, test in splits))
    held_out = np.concatenate([test for _, test in splits])
    unions = [held_out, *(np.r_[train, test] for train, test in splits)]
    return all(np.array_equal(np.sort(union), every) for union in unions)


def moments_of_folds(parts: Iterable[Any]) -> list[FoldMoments]:
    """Moments of every fold, from the validated rows that each fold holds out."""
    held_out = [moments(rows) for rows in parts]
    before = [None, *accumulate(held_out, merge)]
    after = [None, *accumulate(reversed(held_out), merge)][::-1]
    folds = []
    for i, test in enumerate(held_out):
        others = [stats for stats in (before[i], after[i + 1]) if stats is not None]
        folds.append(FoldMoments(reduce(merge, others), test))
    return folds


def mean_squares_of_moments(stats: Moments, mean: Any, axes: Any) -> tuple[Any, float] | None:
    """The result of `mean_squares` from moments; None if the residual would be inaccurate."""
    axes = axes.astype(np.float64)
    step = stats.mean - mean
    with np.errstate(over="ignore", invalid="ignore"):  # such totals are not used
        squares = np.einsum("ij,ij->i", axes @ stats.scatter, axes) / stats.n + (axes @ step) ** 2
        total = float(np.trace(stats.scatter)) / stats.n + float(step @ step)
    residual = total - float(squares.sum())
    return (squares, residual) if residual > LEAST_DIFFERENCE * total else None
