"""Decoded codes on the straight line between the codes of two rows."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skae._plotting.canvas import check_matplotlib, limits_of, with_matplotlib
from skae._plotting.code_ranges import has_binary_codes
from skae._plotting.fitted import image_shape_of, units_of_table
from skae._plotting.paths import PathsDisplay, checked_codes, one_target, with_real_codes
from skae._plotting.rows import as_rows, drawn_rows, n_rows_of, rows_like
from skae._utils.inputs import check_count

Array = NDArray[Any]

# Paths, at most, of one picture.
_MOST_PATHS = 20


class InterpolationDisplay(PathsDisplay):
    """Decoded codes on the straight line between the codes of two rows.

    Each line of images shows one path. Rows that are not images are drawn as curves over the
    features, and the colour of a curve shows its position on the path. Use
    :meth:`InterpolationDisplay.from_estimator` to make a display of a fitted estimator.

    Parameters
    ----------
    paths : array-like of shape (n_paths, n_steps, n_features)
        The decoded rows, from one end of each path to the other.
    image_shape : tuple of (height, width) or (channels, height, width), default=None
        Shape of the image in every row; None if rows hold no images.
    feature_names : list of str, default=None
        Names of the features, in order.
    feature_means, feature_stds : array-like of shape (n_features,), default=None
        Means and standard deviations of the features. If both are given, values are drawn in
        standard deviations from the mean.
    limits : tuple of (low, high), default=None
        Values of pixels that are drawn white and black. None takes the smallest and the largest
        value of `paths`.

    Attributes
    ----------
    ax_ : ndarray of matplotlib Axes
        The axes, one for each path.
    figure_ : matplotlib Figure
        The figure.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import LinearAE
    >>> from skae.plotting import InterpolationDisplay
    >>> X, _ = load_digits(return_X_y=True)
    >>> model = LinearAE(10).fit(X)
    >>> display = InterpolationDisplay.from_estimator(model, X[:4], image_shape=(8, 8))
    >>> display.paths.shape
    (2, 9, 64)
    """

    def __init__(
        self,
        paths: ArrayLike,
        *,
        image_shape: tuple[int, ...] | None = None,
        feature_names: list[Any] | None = None,
        feature_means: ArrayLike | None = None,
        feature_stds: ArrayLike | None = None,
        limits: tuple[float, float] | None = None,
    ) -> None:
        self.paths = paths
        self.image_shape = image_shape
        self.feature_names = feature_names
        self.feature_means = feature_means
        self.feature_stds = feature_stds
        self.limits = limits

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike,
        *,
        n_steps: int = 9,
        y: Any = None,
        image_shape: tuple[int, ...] | None = None,
        ax: Any = None,
    ) -> Self:
        """Decode codes between those of pairs of rows, and draw them.

        Parameters
        ----------
        estimator : estimator, Pipeline or search
            A fitted model with `transform` and `inverse_transform` whose codes are real numbers;
            a fitted Pipeline that contains one, whose rows are drawn in the units of its input; or
            a fitted search over either.
        X : array-like of shape (2 * n_paths, n_features)
            The ends of the paths: X[0] and X[1] of the first path, X[2] and X[3] of the second,
            and so on, at most 20 paths. The columns of a data frame are drawn in standard
            deviations from the mean. Both are computed from `X` if it has at least 10 rows, and
            otherwise from rows that the model samples, if it has a method `sample`.
        n_steps : int, default=9
            Number of codes on each path, both ends included.
        y : scalar or array-like of shape (n_targets,), default=None
            Target to decode with, for a model fitted with `conditional=True`.
        image_shape : tuple of (height, width) or (channels, height, width), default=None
            Shape of the image in every row. None takes the `image_shape` of the model, if it has
            one that rows of `X` fit.
        ax : matplotlib Axes, default=None
            Axes to draw into; None makes a figure.

        Returns
        -------
        display : InterpolationDisplay
            The display, drawn.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError
            If the estimator has no `transform` or no `inverse_transform`, or if its codes are
            indices or binary units.
        ValueError
            If the number of rows is odd or exceeds 40, `n_steps` is less than 2, rows do not fit
            `image_shape`, or `y` does not fit the model.
        """
        check_matplotlib(cls.__name__)
        fitted = with_real_codes(estimator, cls.__name__)
        n_steps = check_count("n_steps", n_steps, 2)
        n_rows = n_rows_of(X)
        if n_rows % 2 or n_rows > 2 * _MOST_PATHS:
            raise ValueError(
                f"X has {n_rows} rows; {cls.__name__} takes pairs of rows, the ends of at most "
                f"{_MOST_PATHS} paths. For one path give X[:2]."
            )
        rows, names = drawn_rows(X)
        shape = image_shape_of(fitted, image_shape, rows.shape[1])
        codes = checked_codes(fitted, fitted.encode(X), cls.__name__).astype(np.float64)
        if has_binary_codes(fitted):
            raise TypeError(
                f"{cls.__name__} decodes codes between two others, but those of {fitted.name} are "
                "binary units, which have no values between 0 and 1. TraversalDisplay draws them."
            )
        fraction = np.linspace(0.0, 1.0, n_steps)[None, :, None]
        line = (1 - fraction) * codes[0::2, None] + fraction * codes[1::2, None]
        flat = line.reshape(-1, codes.shape[1])
        decoded = rows_like(fitted.decode(flat, one_target(y, len(flat))), X, names)
        units = None
        if names is not None and shape is None:
            units = units_of_table(fitted, X, X, names)
        display = cls(
            decoded.reshape(*line.shape[:2], -1),
            image_shape=shape,
            feature_names=names,
            feature_means=None if units is None else units.means,
            feature_stds=None if units is None else units.stds,
            limits=limits_of(rows),
        )
        return display.plot(ax=ax)

    @with_matplotlib
    def plot(self, ax: Any = None) -> Self:
        """Draw the paths.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw into; None makes a figure.

        Returns
        -------
        display : InterpolationDisplay
            The display, whose `ax_` and `figure_` are set.
        """
        paths = as_rows("paths", self.paths, 3)
        fractions = np.tile(np.linspace(0.0, 1.0, paths.shape[1]), (len(paths), 1))
        labels = [f"rows {2 * i}, {2 * i + 1}" for i in range(len(paths))]
        self._draw(paths, fractions, labels, "fraction of the path", ax)
        return self
