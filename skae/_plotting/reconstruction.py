"""Rows beside their reconstructions."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skae._plotting.canvas import (
    COLOURS,
    MISSING,
    as_images,
    check_matplotlib,
    draw_mosaic,
    grid_of_axes,
    ink,
    legend_above,
    limits_of,
    mosaic_size,
    single_axes,
    with_matplotlib,
)
from skae._plotting.fitted import (
    Fitted,
    checked_image_shape,
    image_shape_of,
    units_of_table,
)
from skae._plotting.profiles import Profiles
from skae._plotting.rows import (
    FeatureUnits,
    as_rows,
    drawn_rows,
    first_rows,
    rows_like,
)
from skae._utils.inputs import check_count

Array = NDArray[Any]

# Rows of more features are drawn as lines, without points.
_MOST_POINTS = 30


class ReconstructionDisplay:
    """Rows beside their reconstructions.

    Images are drawn as mosaics, with the rows above and the reconstructions below. Other arrays
    are drawn as curves over the features. The columns of a data frame are drawn in standard
    deviations from their means, because they have units of their own. Missing values have a colour
    of their own. Use :meth:`ReconstructionDisplay.from_estimator` to make a display of a fitted
    estimator.

    Parameters
    ----------
    rows : array-like of shape (n_samples, n_features)
        The rows. NaN is a missing value.
    reconstructions : array-like of shape (n_samples, n_features)
        Their reconstructions, in the units of the rows.
    image_shape : tuple of (height, width) or (channels, height, width), default=None
        Shape of the image in every row; None if rows hold no images.
    feature_names : list of str, default=None
        Names of the features, in order.
    feature_means, feature_stds : array-like of shape (n_features,), default=None
        Means and standard deviations of the features. If both are given, values are drawn in
        standard deviations from the mean.

    Attributes
    ----------
    ax_ : matplotlib Axes or ndarray of Axes
        The axes of the mosaics, or those of the curves, one for each row.
    figure_ : matplotlib Figure
        The figure.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import LinearAE
    >>> from skae.plotting import ReconstructionDisplay
    >>> X, _ = load_digits(return_X_y=True)
    >>> model = LinearAE(10).fit(X)
    >>> display = ReconstructionDisplay.from_estimator(model, X, image_shape=(8, 8))
    >>> display.reconstructions.shape
    (8, 64)
    """

    def __init__(
        self,
        rows: ArrayLike,
        reconstructions: ArrayLike,
        *,
        image_shape: tuple[int, ...] | None = None,
        feature_names: list[Any] | None = None,
        feature_means: ArrayLike | None = None,
        feature_stds: ArrayLike | None = None,
    ) -> None:
        self.rows = rows
        self.reconstructions = reconstructions
        self.image_shape = image_shape
        self.feature_names = feature_names
        self.feature_means = feature_means
        self.feature_stds = feature_stds

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike,
        *,
        n_samples: int = 8,
        y: Any = None,
        image_shape: tuple[int, ...] | None = None,
        ax: Any = None,
    ) -> Self:
        """Reconstruct rows, and draw them beside their reconstructions.

        Parameters
        ----------
        estimator : estimator, Pipeline or search
            A fitted model; a fitted Pipeline that contains one, whose rows are drawn in the units
            of its input; or a fitted search over either.
        X : array-like of shape (n_samples, n_features)
            The rows, of which the first ones are drawn. If it is a data frame, its columns of
            numbers are drawn, in standard deviations from their means over all rows of `X`.
        n_samples : int, default=8
            Number of rows to draw.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            Targets of the rows, for a model fitted with `conditional=True`.
        image_shape : tuple of (height, width) or (channels, height, width), default=None
            Shape of the image in every row. None takes the `image_shape` of the model, if it has
            one that rows of `X` fit.
        ax : matplotlib Axes, default=None
            Axes to draw into; None makes a figure.

        Returns
        -------
        display : ReconstructionDisplay
            The display, drawn.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError
            If the estimator cannot reconstruct rows, or if no column of `X` holds numbers.
        ValueError
            If `n_samples` is not positive, rows do not fit `image_shape`, or `y` does not fit the
            model.
        """
        check_matplotlib(cls.__name__)
        fitted = Fitted(estimator)
        if not fitted.has("reconstruct"):
            fitted.require("transform", "inverse_transform", display=cls.__name__)
        fitted.require_restoring(cls.__name__)
        given = first_rows(X, check_count("n_samples", n_samples))
        rows, names = drawn_rows(given)
        shape = image_shape_of(fitted, image_shape, rows.shape[1])
        targets = None if y is None else first_rows_of_targets(y, len(rows))
        reconstructions = rows_like(fitted.reconstruct(given, targets), given, names)
        units = None
        if names is not None and shape is None:
            units = units_of_table(fitted, X, first_rows(X, 1), names)
        display = cls(
            rows,
            reconstructions,
            image_shape=shape,
            feature_names=names,
            feature_means=None if units is None else units.means,
            feature_stds=None if units is None else units.stds,
        )
        return display.plot(ax=ax)

    @with_matplotlib
    def plot(self, ax: Any = None) -> Self:
        """Draw the rows beside their reconstructions.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw into; None makes a figure.

        Returns
        -------
        display : ReconstructionDisplay
            The display, whose `ax_` and `figure_` are set.
        """
        rows = as_rows("rows", self.rows)
        reconstructions = as_rows("reconstructions", self.reconstructions)
        if rows.shape != reconstructions.shape:
            raise ValueError(
                f"rows has shape {rows.shape} and reconstructions {reconstructions.shape}; both "
                "must have one shape."
            )
        if self.image_shape is not None:
            self._plot_images(rows, reconstructions, ax)
        else:
            self._plot_curves(rows, reconstructions, ax)
        return self

    def _plot_images(self, rows: Array, reconstructions: Array, ax: Any) -> None:
        shape = checked_image_shape(self.image_shape, rows.shape[1])
        labels = ["rows", "reconstructions"]
        ax = single_axes(ax, mosaic_size(shape, 2, len(rows), labels))
        images = as_images(np.concatenate([rows, reconstructions]), shape)
        draw_mosaic(ax, images, len(rows), limits=limits_of(rows), row_labels=labels)
        self.ax_, self.figure_ = ax, ax.figure

    def _plot_curves(self, rows: Array, reconstructions: Array, ax: Any) -> None:
        n_rows, n_features = rows.shape
        units = FeatureUnits.given(self.feature_means, self.feature_stds, n_features)
        profiles = Profiles(n_features, self.feature_names, units)
        missing = np.isnan(rows)
        values, copies = profiles.values(rows), profiles.values(reconstructions)
        if profiles.beside_names:
            most = 4 if n_features <= 16 else 8
            n_columns = min(n_rows, most)
            width = 1.7 if most == 4 else 1.15
        else:
            n_columns, width = 1 if n_rows == 1 else 2, 4.2
        n_lines = -(-n_rows // n_columns)
        size = (max(width * n_columns + 1.4, 4.8), profiles.height() * n_lines + 0.9)
        figure, grid = grid_of_axes(ax, n_lines, n_columns, size, sharex=True, sharey=True)
        cells = grid.ravel()
        as_points = profiles.beside_names or n_features <= _MOST_POINTS
        for index, (cell, value, copy) in enumerate(zip(cells, values, copies, strict=False)):
            if as_points:
                profiles.draw(cell, value, "o", color=ink(), markersize=4, label="row")
            else:
                profiles.draw(cell, value, "-", color=ink(), linewidth=1, label="row")
            if profiles.beside_names:  # columns have no order, so that no line joins them
                style, options = "D", {"markersize": 5, "fillstyle": "none"}
                cell.hlines(profiles.places, value, copy, color=COLOURS[4], linewidth=1)
            else:
                style, options = "-", {"linewidth": 1.4}
            profiles.draw(cell, copy, style, color=COLOURS[4], label="reconstruction", **options)
            if missing.any():
                filled = np.where(missing[index], copy, np.nan)
                profiles.draw(
                    cell, filled, "s", color=MISSING, markersize=5, label="missing value, filled in"
                )
            cell.set_title(f"row {index}", fontsize="small", loc="left", pad=2)
        for cell in cells[n_rows:]:
            cell.set_axis_off()
        profiles.label(grid)
        handles = cells[0].get_legend_handles_labels()
        if ax is None:
            figure.legend(*handles, loc="outside upper right", ncols=3, fontsize="small")
        else:
            legend_above(cells[0], *handles)
        self.ax_, self.figure_ = grid, figure


def first_rows_of_targets(y: Any, n_rows: int) -> Any:
    """Targets of the first rows; a single target is one for all rows."""
    return y if np.ndim(y) == 0 else np.asarray(y)[:n_rows]
