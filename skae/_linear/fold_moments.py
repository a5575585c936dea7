"""Moments of training and held-out rows of every fold, from one pass over all rows.

The scatter of a training set is that of the other folds, merged: five folds cost one pass, where
each for itself would cost four. The mean density of held-out rows needs no more than their
moments, too.
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
    """Moments of the rows that a fold is fitted to, and of those held out."""

    train: Moments
    test: Moments


def are_complements(splits: Sequence[tuple[Indices, Indices]]) -> bool:
    """Whether every row is held out once, and otherwise trained on, as by KFold."""
    if len(splits) < 2:
        return False
    every = np.arange(sum(len(test) for _, test in splits))
    held_out = np.concatenate([test for _, test in splits])
    unions = [held_out, *(np.r_[train, test] for train, test in splits)]
    return all(np.array_equal(np.sort(union), every) for union in unions)


def moments_of_folds(parts: Iterable[Any]) -> list[FoldMoments]:
    """Of each fold, given the validated rows that each holds out."""
    held_out = [moments(rows) for rows in parts]
    before = [None, *accumulate(held_out, merge)]
    after = [None, *accumulate(reversed(held_out), merge)][::-1]
    folds = []
    for i, test in enumerate(held_out):
        others = [stats for stats in (before[i], after[i + 1]) if stats is not None]
        folds.append(FoldMoments(reduce(merge, others), test))
    return folds


def mean_squares_of_moments(stats: Moments, mean: Any, axes: Any) -> tuple[Any, float] | None:
    """What `mean_squares` gives of the rows; None where their residual has lost its digits."""
    axes = axes.astype(np.float64)
    step = stats.mean - mean
    squares = np.einsum("ij,ij->i", axes @ stats.scatter, axes) / stats.n + (axes @ step) ** 2
    total = float(np.trace(stats.scatter)) / stats.n + float(step @ step)
    residual = total - float(squares.sum())
    return (squares, residual) if residual > LEAST_DIFFERENCE * total else None
