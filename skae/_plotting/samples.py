"""New rows from a model, beside rows of the data."""

from __future__ import annotations

from inspect import signature
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.pipeline import Pipeline

from skae._plotting.canvas import (
    COLOURS,
    as_images,
    aspect_of,
    check_matplotlib,
    checked_limits,
    draw_mosaic,
    grid_of_axes,
    ink,
    limits_of,
    mosaic_size,
    n_mosaic_columns,
    single_axes,
    usual_limits_of,
    with_matplotlib,
)
from skae._plotting.fitted import Fitted, checked_image_shape, image_shape_of
from skae._plotting.profiles import Profiles
from skae._plotting.rows import (
    FeatureUnits,
    as_rows,
    drawn_rows,
    feature_units,
    first_rows,
    rows_like,
)
from skae._utils.inputs import check_count
from skae._utils.pipeline_samples import draw_through
from skae._utils.pipeline_steps import best_of, taken_steps
from skae._utils.types import RandomState

Array = NDArray[Any]


class SampleDisplay:
    """New rows from a model, beside rows of the data.

    Images are drawn as mosaics. Other arrays are drawn as curves over the features, one thin line
    for each row. Rows of a data frame are drawn as points beside the names of the features, in
    standard deviations from the means. Use :meth:`SampleDisplay.from_estimator` to make a display
    of a fitted estimator.

    Parameters
    ----------
    samples : array-like of shape (n_samples, n_features)
        The new rows.
    rows : array-like of shape (n_rows, n_features), default=None
        Rows of the data to draw beside the new rows. NaN is a missing value.
    image_shape : tuple of (height, width) or (channels, height, width), default=None
        Shape of the image in every row; None if rows hold no images.
    feature_names : list of str, default=None
        Names of the features, in order.
    feature_means, feature_stds : array-like of shape (n_features,), default=None
        Means and standard deviations of the features. If both are given, values are drawn in
        standard deviations from the mean.
    limits : tuple of (low, high), default=None
        Values of pixels that are drawn white and black. None takes the smallest and the largest
        value of `rows`, or of `samples` if `rows` is None.

    Attributes
    ----------
    ax_ : matplotlib Axes or ndarray of Axes
        The axes of the new rows. With `rows`, an array of two: the axes of `rows`, then those of
        the new rows.
    figure_ : matplotlib Figure
        The figure.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import LinearAE
    >>> from skae.plotting import SampleDisplay
    >>> X, _ = load_digits(return_X_y=True)
    >>> model = LinearAE(10).fit(X)
    >>> display = SampleDisplay.from_estimator(model, X, image_shape=(8, 8), random_state=0)
    >>> display.samples.shape
    (32, 64)
    """

    def __init__(
        self,
        samples: ArrayLike,
        rows: ArrayLike | None = None,
        *,
        image_shape: tuple[int, ...] | None = None,
        feature_names: list[Any] | None = None,
        feature_means: ArrayLike | None = None,
        feature_stds: ArrayLike | None = None,
        limits: tuple[float, float] | None = None,
    ) -> None:
        self.samples = samples
        self.rows = rows
        self.image_shape = image_shape
        self.feature_names = feature_names
        self.feature_means = feature_means
        self.feature_stds = feature_stds
        self.limits = limits

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike | None = None,
        *,
        n_samples: int = 32,
        noise: bool = False,
        y: Any = None,
        random_state: RandomState = None,
        image_shape: tuple[int, ...] | None = None,
        ax: Any = None,
    ) -> Self:
        """Draw new rows from a model, and show them beside rows of `X`.

        Parameters
        ----------
        estimator : estimator, Pipeline or search
            A fitted estimator with a method `sample`; a fitted Pipeline whose last step has one,
            as for :func:`skae.sample_pipeline`; or a fitted search over either.
        X : array-like of shape (n_rows, n_features), default=None
            Rows of the data. The display shows the first `n_samples` of them beside the new rows.
        n_samples : int, default=32
            Number of new rows.
        noise : bool, default=False
            Whether the new rows are drawn from p(x|z), with its noise. False shows the mean of
            p(x|z) for each code that is drawn.
        y : scalar or array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            Targets of the new rows, for a model fitted with `conditional=True`.
        random_state : int, RandomState instance or None, default=None
            Seed of the draw. None takes fresh entropy, so that two calls differ.
        image_shape : tuple of (height, width) or (channels, height, width), default=None
            Shape of the image in every row. None takes the `image_shape` of the model, if it has
            one that rows fit.
        ax : matplotlib Axes, default=None
            Axes to draw into; None makes a figure.

        Returns
        -------
        display : SampleDisplay
            The display, drawn.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError
            If the estimator has no `sample`, or `noise` is True and its `sample` has no parameter
            `noise`.
        ValueError
            If `n_samples` is not positive, rows do not fit `image_shape`, or `y` does not fit the
            model.
        """
        check_matplotlib(cls.__name__)
        fitted = Fitted(estimator, "sample")
        n_samples = check_count("n_samples", n_samples)
        sampler = fitted.whole
        if not isinstance(sampler, Pipeline):
            fitted.require("sample", display=cls.__name__)
        pipeline = sampler if isinstance(sampler, Pipeline) else Pipeline([("model", sampler)])
        options = _sample_options(pipeline, noise, y)
        new = draw_through(pipeline, n_samples, random_state, options)
        beside = None if X is None else first_rows(X, n_samples)
        rows, names = (None, None) if beside is None else drawn_rows(beside)
        if rows is None:
            samples, names = drawn_rows(new)
        else:
            samples = rows_like(new, beside, names)
        shape = image_shape_of(fitted, image_shape, samples.shape[1])
        units = None
        if names is not None and shape is None:
            units = feature_units(samples if X is None else drawn_rows(X)[0])
        display = cls(
            samples,
            rows,
            image_shape=shape,
            feature_names=names,
            feature_means=None if units is None else units.means,
            feature_stds=None if units is None else units.stds,
            limits=None if X is None else limits_of(drawn_rows(X)[0]),
        )
        return display.plot(ax=ax)

    @with_matplotlib
    def plot(self, ax: Any = None) -> Self:
        """Draw the new rows, and the rows of the data if there are any.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw into; None makes a figure.

        Returns
        -------
        display : SampleDisplay
            The display, whose `ax_` and `figure_` are set.
        """
        samples = as_rows("samples", self.samples)
        groups = {"new rows": samples}
        if self.rows is not None:
            rows = as_rows("rows", self.rows)
            if rows.shape[1] != samples.shape[1]:
                raise ValueError(
                    f"rows has {rows.shape[1]} features and samples has {samples.shape[1]}; both "
                    "must have the same."
                )
            groups = {"rows of the data": rows, "new rows": samples}
        if self.image_shape is not None:
            self._plot_images(groups, ax)
        else:
            self._plot_curves(groups, ax)
        return self

    def _axes(self, ax: Any, groups: dict[str, Array], size: tuple[float, float]) -> Array:
        """One axes for each group of rows."""
        if len(groups) == 1:
            axes = np.array([single_axes(ax, size)])
            self.ax_ = axes[0]
        else:
            _, grid = grid_of_axes(ax, 1, 2, size, sharex=True, sharey=True)
            self.ax_ = axes = grid[0]
        self.figure_ = axes[0].figure
        for cell, title in zip(axes, groups, strict=True):
            if len(groups) > 1 or ax is None:
                cell.set_title(title, fontsize="medium")
        return axes

    def _plot_images(self, groups: dict[str, Array], ax: Any) -> None:
        shape = checked_image_shape(self.image_shape, np.shape(self.samples)[1])
        most = max(len(rows) for rows in groups.values())
        aspect = 2.0 if ax is None else aspect_of(ax)
        n_columns = n_mosaic_columns(most, shape, aspect / len(groups))
        n_lines = -(-most // n_columns)
        across, down = mosaic_size(shape, n_lines, n_columns, widest=9.0 / len(groups))
        axes = self._axes(ax, groups, (across * len(groups) + 0.2, down + 0.1))
        if self.limits is None and self.rows is None:
            limits = usual_limits_of(self.samples)
        else:
            limits = checked_limits(self.limits, next(iter(groups.values())))
        for cell, rows in zip(axes, groups.values(), strict=True):
            draw_mosaic(cell, as_images(rows, shape), n_columns, limits=limits)

    def _plot_curves(self, groups: dict[str, Array], ax: Any) -> None:
        n_features = np.shape(self.samples)[1]
        units = FeatureUnits.given(self.feature_means, self.feature_stds, n_features)
        profiles = Profiles(n_features, self.feature_names, units)
        if profiles.beside_names:
            size = (2.7 * len(groups) + 1.8, profiles.height() + 0.7)
        else:
            size = (4.2 * len(groups) + 0.6, 3.2)
        axes = self._axes(ax, groups, size)
        for cell, (title, rows) in zip(axes, groups.items(), strict=True):
            colour = COLOURS[0] if title == "new rows" else ink()
            alpha = float(np.clip(8 / len(rows), 0.1, 0.6))
            style = "o" if profiles.beside_names else "-"
            for row in profiles.values(rows):
                profiles.draw(
                    cell, row, style, color=colour, alpha=alpha, linewidth=1, markersize=4
                )
        profiles.label(axes[None, :])


def _sample_options(pipeline: Pipeline, noise: Any, y: Any) -> dict[str, Any]:
    """Arguments of the `sample` of the last step: those that it has, and that are needed."""
    if not isinstance(noise, bool | np.bool_):
        raise TypeError(f"noise={noise!r} must be True or False.")
    last = best_of(taken_steps(pipeline)[-1][1])
    if isinstance(last, Pipeline):
        return _sample_options(last, noise, y)
    known = signature(last.sample).parameters if hasattr(last, "sample") else {}
    options: dict[str, Any] = {}
    for name, value, needed in (("noise", noise, noise), ("y", y, y is not None)):
        if name in known:
            options[name] = value
        elif needed and known:
            raise TypeError(
                f"{name} is given, but the method sample of {type(last).__name__} has no parameter "
                f"{name}."
            )
    return options
