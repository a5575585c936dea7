"""Rows beside their reconstructions."""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from skae._plotting.canvas import (
    COLOURS,
    as_images,
    check_matplotlib,
    draw_mosaic,
    grid_of_axes,
    limits_of,
    mosaic_size,
    single_axes,
)
from skae._plotting.fitted import Fitted, checked_image_shape, image_shape_of
from skae._plotting.rows import drawn_rows, first_rows
from skae._utils.inputs import check_count


class ReconstructionDisplay:
    """Rows beside their reconstructions.

    Images are drawn as mosaics, rows above and reconstructions below; other rows as curves over
    the features. Missing values have a colour of their own. Use
    :meth:`ReconstructionDisplay.from_estimator` to make one of a fitted estimator.

    Parameters
    ----------
    rows : array-like of shape (n_samples, n_features)
        The rows.
    reconstructions : array-like of shape (n_samples, n_features)
        Their reconstructions, in the units of the rows.
    image_shape : tuple of (height, width) or (channels, height, width), default=None
        Shape of the image in every row; None if rows hold no images.
    feature_names : list of str, default=None
        Names of the features, in order.

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
        feature_names: list[str] | None = None,
    ) -> None:
        self.rows = rows
        self.reconstructions = reconstructions
        self.image_shape = image_shape
        self.feature_names = feature_names

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike,
        *,
        n_samples: int = 8,
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
            The rows, of which the first ones are drawn.
        n_samples : int, default=8
            Number of rows to draw.
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
            If the estimator has no `transform` or no `inverse_transform`, or if no column of `X`
            holds numbers.
        ValueError
            If `n_samples` is not positive, or rows do not fit `image_shape`.
        """
        check_matplotlib(cls.__name__)
        fitted = Fitted(estimator)
        fitted.require("transform", "inverse_transform", display=cls.__name__)
        given = first_rows(X, check_count("n_samples", n_samples))
        rows, names = drawn_rows(given)
        reconstructed = fitted.reconstruct(given)
        if names is not None and hasattr(reconstructed, "columns"):
            reconstructed = reconstructed[names]
        elif names is not None:
            columns = [list(given.columns).index(name) for name in names]
            reconstructed = np.asarray(reconstructed)[:, columns]
        reconstructions, _ = drawn_rows(reconstructed)
        shape = image_shape_of(fitted, image_shape, rows.shape[1])
        display = cls(rows, reconstructions, image_shape=shape, feature_names=names)
        return display.plot(ax=ax)

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
        check_matplotlib(type(self).__name__)
        rows = np.asarray(self.rows, dtype=np.float64)
        reconstructions = np.asarray(self.reconstructions, dtype=np.float64)
        if self.image_shape is not None:
            self._plot_images(rows, reconstructions, ax)
        else:
            self._plot_curves(rows, reconstructions, ax)
        return self

    def _plot_images(self, rows: Any, reconstructions: Any, ax: Any) -> None:
        shape = checked_image_shape(self.image_shape, rows.shape[1])
        ax = single_axes(ax, mosaic_size(shape, 2, len(rows)))
        images = as_images(np.concatenate([rows, reconstructions]), shape)
        draw_mosaic(
            ax,
            images,
            len(rows),
            limits=limits_of(rows),
            row_labels=["rows", "reconstructions"],
        )
        self.ax_, self.figure_ = ax, ax.figure

    def _plot_curves(self, rows: Any, reconstructions: Any, ax: Any) -> None:
        n_rows, n_features = rows.shape
        n_columns = 1 if n_rows == 1 else 2
        n_lines = -(-n_rows // n_columns)
        size = (4.2 * n_columns, 1.3 * n_lines + 0.9)
        figure, grid = grid_of_axes(ax, n_lines, n_columns, size, sharex=True, sharey=True)
        places = np.arange(n_features)
        cells = grid.ravel()
        for index, (cell, row, copy) in enumerate(zip(cells, rows, reconstructions, strict=False)):
            cell.plot(places, row, "o", color=COLOURS[-1], markersize=3.5, label="row")
            cell.plot(places, copy, "-", color=COLOURS[4], label="reconstruction")
            cell.set_title(f"row {index}", fontsize="small", loc="left", pad=2)
        for cell in cells[n_rows:]:
            cell.set_axis_off()
        if self.feature_names is not None and n_features <= 30:
            for cell in grid[-1]:
                cell.set_xticks(places, self.feature_names, rotation=90, fontsize="small")
        else:
            for cell in grid[-1]:
                cell.set_xlabel("feature")
        for cell in grid[:, 0]:
            cell.set_ylabel("value")
        cells[0].legend(fontsize="small", loc="best")
        self.ax_, self.figure_ = grid, figure
