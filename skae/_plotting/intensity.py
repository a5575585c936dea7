"""Counts beside the intensity of a mixture that was fitted to them."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from skae._plotting.canvas import (
    COLOURS,
    SEQUENCE,
    Array,
    check_matplotlib,
    colour_bar,
    grid_of_axes,
    single_axes,
    with_matplotlib,
)
from skae._plotting.fitted import Fitted
from skae._plotting.rows import drawn_rows

_TITLES = ("counts", "intensity")
# The colours end at this quantile of the pixels where the largest value exceeds it so many times.
_QUANTILE, _EXCESS = 0.995, 1.3


class IntensityDisplay:
    """Counts on each pixel beside the counts that a fitted intensity expects there.

    Images are drawn with the first feature downwards and the second to the right, as arrays are;
    intensities of one feature are drawn as a curve over the histogram of the counts. Use
    :meth:`IntensityDisplay.from_estimator` to make one of a fitted estimator.

    Parameters
    ----------
    intensity : array-like of shape (n_pixels,) or (height, width)
        Expected counts of each pixel.
    counts : array-like of the shape of `intensity`, default=None
        Counts of each pixel; None if there are only expected counts.

    Attributes
    ----------
    ax_ : matplotlib Axes or ndarray of Axes
        The axes; an array of two for counts beside an intensity of two features.
    figure_ : matplotlib Figure
        The figure.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import CountMixtureAE, sample_counts
    >>> from skae.plotting import IntensityDisplay
    >>> counts = sample_counts(load_digits().images[0], 20_000, random_state=0)
    >>> model = CountMixtureAE(30, image_shape=(8, 8)).fit(counts)
    >>> display = IntensityDisplay.from_estimator(model, counts)
    >>> display.intensity.shape, int(display.counts.sum())
    ((8, 8), 20000)
    """

    def __init__(self, intensity: ArrayLike, counts: ArrayLike | None = None) -> None:
        self.intensity = intensity
        self.counts = counts

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike | None = None,
        *,
        shape: tuple[int, ...] | None = None,
        ax: Any = None,
    ) -> Self:
        """Integrate an intensity over pixels, and draw it beside counts.

        Parameters
        ----------
        estimator : estimator, Pipeline or search
            A fitted CountMixtureAE; a fitted Pipeline that contains one, in which case pixels are
            in the units of the rows that the model reads; or a fitted search over either.
        X : array-like of shape (n_counts, n_features), default=None
            The places of counts, of one or two features. The intensity is scaled to their
            number. None draws the intensity alone, scaled to the number of training counts.
        shape : tuple of int, default=None
            Number of pixels along each feature; pixel (i, j) holds the counts in
            [i, i + 1) x [j, j + 1). None takes the `image_shape` of the model.
        ax : matplotlib Axes, default=None
            Axes to draw into; None makes a figure. Both images share the area of the axes.

        Returns
        -------
        display : IntensityDisplay
            The display, drawn.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError
            If the estimator has no `intensity`.
        ValueError
            If there are more than two features, `shape` is needed and missing or does not fit
            the features, or a count is outside of the pixels.

        Notes
        -----
        Each image has its own colour bar, in counts per pixel. By chance, the highest count of a
        pixel exceeds the highest intensity, by a large factor if there are few counts. With one
        scale for both images, the intensity would be too dark to see. Where a few pixels are far
        brighter than all others, the colours end at the 99.5% quantile of the pixels, and the
        colour bar ends in an arrow.
        """
        check_matplotlib(cls.__name__)
        fitted = Fitted(estimator)
        fitted.require("intensity", display=cls.__name__)
        n_features = int(fitted.model.n_features_in_)
        if n_features > 2:
            raise ValueError(
                f"{cls.__name__} draws counts of 1 or 2 features; estimator={fitted.name} was "
                f"fitted to {n_features}."
            )
        masses = fitted.model.intensity(shape)
        counts, total = None, float(fitted.model.n_counts_)
        if X is not None:
            rows, _ = drawn_rows(fitted.read(X))
            counts = _counts_on_pixels(rows, masses.shape)
            total = float(len(rows))
        return cls(total * masses, counts).plot(ax=ax)

    @with_matplotlib
    def plot(self, ax: Any = None) -> Self:
        """Draw the counts and the intensity.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw into; None makes a figure.

        Returns
        -------
        display : IntensityDisplay
            The display, whose `ax_` and `figure_` are set.
        """
        intensity = np.asarray(self.intensity, dtype=np.float64)
        counts = None if self.counts is None else np.asarray(self.counts, dtype=np.float64)
        if intensity.ndim not in (1, 2) or not intensity.size:
            raise ValueError(
                f"intensity has shape {intensity.shape}; expected (n_pixels,) or (height, width)."
            )
        for name, values in (("intensity", intensity), ("counts", counts)):
            if values is None:
                continue
            allowed = (values >= 0) & (values < np.inf)
            if name == "intensity" and allowed.any():
                allowed |= np.isnan(values)  # of pixels without exposure
            if not allowed.all():
                raise ValueError(f"{name} must hold finite numbers of 0 or more.")
        if counts is not None and counts.shape != intensity.shape:
            raise ValueError(
                f"counts has shape {counts.shape}, but intensity has {intensity.shape}: they must "
                "be the same."
            )
        self.ax_: Any
        self.figure_: Any
        if intensity.ndim == 1:
            self._plot_curve(intensity, counts, ax)
        else:
            self._plot_images(intensity, counts, ax)
        return self

    def _plot_curve(self, intensity: Array, counts: Array | None, ax: Any) -> None:
        self.ax_ = single_axes(ax, (5.6, 3.4))
        self.figure_ = self.ax_.figure
        edges = np.arange(len(intensity) + 1)
        if counts is not None:
            self.ax_.stairs(counts, edges, fill=True, color="0.75", label=_TITLES[0])
        self.ax_.stairs(intensity, edges, color=COLOURS[0], linewidth=1.8, label=_TITLES[1])
        self.ax_.set_xlim(0, len(intensity))
        self.ax_.set_ylim(bottom=0)
        self.ax_.set_xlabel("pixel")
        self.ax_.set_ylabel("counts per pixel")
        self.ax_.legend(fontsize="small")

    def _plot_images(self, intensity: Array, counts: Array | None, ax: Any) -> None:
        from matplotlib.ticker import MaxNLocator

        images = [intensity] if counts is None else [counts, intensity]
        height, width = intensity.shape
        # Panels of 3.2 inches along the longer side of the image, and their colour bars.
        scale = 3.2 / max(height, width)
        size = (len(images) * (max(scale * width, 1.4) + 1.2), max(scale * height, 1.4) + 0.8)
        if len(images) == 1:
            self.ax_ = single_axes(ax, size)
            self.figure_, cells = self.ax_.figure, [self.ax_]
        else:
            self.figure_, self.ax_ = grid_of_axes(ax, 1, 2, size)
            cells = list(self.ax_.ravel())
        for cell, image, title in zip(cells, images, _TITLES[-len(images) :], strict=True):
            # Edges of pixel (i, j) are at i, i + 1 and j, j + 1, where the features have them.
            extent = (0, width, height, 0)
            top, extend = _top_of(image)
            shown = cell.imshow(
                image, cmap=SEQUENCE, vmin=0, vmax=top, extent=extent, interpolation="nearest"
            )
            colour_bar(
                cell if ax is None else ax,
                shown,
                cell,
                "counts per pixel",
                fraction=0.05,
                pad=0.03,
                extend=extend,
            )
            cell.set_title(title)
            cell.set_xlabel("second feature (pixels)")
            cell.set_ylabel("first feature (pixels)" if cell is cells[0] else "")
            for axis in (cell.xaxis, cell.yaxis):
                axis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))


def _counts_on_pixels(rows: Array, shape: tuple[int, ...]) -> Array:
    """Number of rows in each pixel."""
    if rows.ndim != 2 or rows.shape[1] != len(shape):
        raise ValueError(
            f"X has shape {rows.shape}; expected (n_counts, {len(shape)}), the features that the "
            "estimator was fitted to."
        )
    outside = ~((rows >= 0) & (rows <= shape)).all(axis=1)
    if outside.any():
        raise ValueError(
            f"X has {outside.sum()} counts outside of the pixels, the first of them at "
            f"{rows[outside][0].tolist()}; allowed are values from 0 to shape={tuple(shape)}."
        )
    found: Array = np.histogramdd(rows, [np.arange(length + 1) for length in shape])[0]
    return found


def _top_of(image: Array) -> tuple[float, str]:
    """The value at the top of a colour bar, and whether the bar extends beyond it."""
    top, most = float(np.nanquantile(image, _QUANTILE)), float(np.nanmax(image))
    return (top, "max") if 0 < _EXCESS * top < most else (most or 1.0, "neither")
