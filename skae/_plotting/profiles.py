"""Rows that hold no images, drawn as curves over features or as points beside their names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skae._plotting.canvas import checked_names, short
from skae._plotting.rows import FeatureUnits

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[Any]

# A table of more columns is drawn as curves, without the names.
MOST_NAMES = 40


class Profiles:
    """How rows of so many features are drawn: along which axis, in which units.

    Columns of a table have names and units of their own. They are drawn from top to bottom beside
    their names, in standard deviations where these are known. Rows of an array are drawn as they
    are, from left to right.

    Parameters
    ----------
    n_features : int
        Number of features.
    names : list or None
        Names of the features.
    units : FeatureUnits or None
        Means and standard deviations of the features.
    """

    def __init__(self, n_features: int, names: list[Any] | None, units: FeatureUnits | None):
        self.n_features = n_features
        self.names = checked_names("feature_names", names, n_features)
        self.units = units
        self.beside_names = names is not None and n_features <= MOST_NAMES
        self.places = np.arange(n_features)

    @property
    def value_label(self) -> str:
        """Label of the axis of values."""
        return "value" if self.units is None else "standard deviations from the mean"

    def values(self, rows: Array) -> Array:
        """Rows in the units that are drawn."""
        return rows if self.units is None else self.units.standardised(rows)

    def draw(self, ax: Axes, row: Array, *style: Any, **options: Any) -> None:
        """Draw one row, which is already in the units that are drawn."""
        if self.beside_names:
            ax.plot(row, self.places, *style, **options)
        else:
            ax.plot(self.places, row, *style, **options)

    def height(self) -> float:
        """Height of a panel, in inches."""
        return 0.35 + 0.17 * max(self.n_features, 4) if self.beside_names else 1.4

    def label(self, grid: NDArray[Any]) -> None:
        """Label the outer axes of a grid of axes whose inner axes share theirs."""
        if self.beside_names:
            names = [short(name) for name in self.names or ()]
            for ax in grid[:, 0]:
                ax.set_yticks(self.places, names, fontsize="small")
                ax.set_ylim(self.n_features - 0.5, -0.5)
            for ax in grid.ravel():
                ax.grid(axis="y", color="0.5", alpha=0.2, linewidth=0.8)
                ax.set_axisbelow(True)
        else:
            label_beside(grid, self.value_label)
            for ax in grid.ravel():
                ax.xaxis.get_major_locator().set_params(integer=True)
        drawn = np.array([[ax.axison for ax in line] for line in grid])
        for column, shown in zip(grid.T, drawn.T, strict=True):
            column[np.flatnonzero(shown)[-1]].tick_params(labelbottom=True)
        label_below(grid, self.value_label if self.beside_names else "feature")


def label_below(grid: NDArray[Any], label: str) -> None:
    """One label for the axes below a grid, in the middle, as panels may be narrower than it."""
    below = [ax for ax in grid[-1] if ax.axison]
    middle = below[(len(below) - 1) // 2]
    middle.set_xlabel(label, x=0.5 if len(below) % 2 else 1.03)


def label_beside(grid: NDArray[Any], label: str) -> None:
    """One label for the axes on the left of a grid, in the middle, as panels may be lower."""
    beside = grid[:, 0]
    middle = beside[(len(beside) - 1) // 2]
    middle.set_ylabel(label, y=0.5 if len(beside) % 2 else -0.1)
