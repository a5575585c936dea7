"""Decoded codes: along single codes, and on the line between two rows."""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skae._plotting.canvas import (
    SEQUENCE,
    as_images,
    check_matplotlib,
    checked_limits,
    colour_bar,
    draw_mosaic,
    grid_of_axes,
    limits_of,
    mosaic_size,
    number,
)
from skae._plotting.code_ranges import default_components, default_values, has_binary_codes
from skae._plotting.fitted import (
    Fitted,
    checked_image_shape,
    image_shape_of,
    units_of_table,
)
from skae._plotting.profiles import Profiles, label_below
from skae._plotting.rows import (
    FeatureUnits,
    as_rows,
    drawn_rows,
    feature_units,
    first_rows,
    n_rows_of,
    rows_like,
)
from skae._utils.inputs import as_numbers, check_count

Array = NDArray[Any]

# Paths, at most, of one picture.
_MOST_PATHS = 20


class _PathsDisplay:
    """Rows along paths: one line of images, or one panel of curves, for each path."""

    image_shape: tuple[int, ...] | None
    feature_names: list[Any] | None
    feature_means: ArrayLike | None
    feature_stds: ArrayLike | None
    limits: tuple[float, float] | None

    def _draw(
        self, paths: Array, positions: Array, labels: list[str], position_label: str, ax: Any
    ) -> None:
        """Draw paths, of shape (n_paths, n_steps, n_features), at positions (n_paths, n_steps)."""
        if self.image_shape is not None:
            self._draw_images(paths, positions, labels, position_label, ax)
        else:
            self._draw_curves(paths, positions, labels, position_label, ax)

    def _draw_images(
        self, paths: Array, positions: Array, labels: list[str], position_label: str, ax: Any
    ) -> None:
        n_paths, n_steps, n_features = paths.shape
        shape = checked_image_shape(self.image_shape, n_features)
        alike = bool((positions == positions[0]).all())
        wide, tall = mosaic_size(shape, n_paths, n_steps, labels)
        size = (wide, tall + (0.3 if alike else 0.25 * n_paths))
        figure, grid = grid_of_axes(ax, n_paths, 1, size)
        limits = checked_limits(self.limits, paths)
        for index, cell in enumerate(grid[:, 0]):
            shown = not alike or index == n_paths - 1
            draw_mosaic(
                cell,
                as_images(paths[index], shape),
                n_steps,
                limits=limits,
                row_labels=labels[index : index + 1],
                column_labels=[number(value) for value in positions[index]] if shown else [],
            )
            cell.tick_params(axis="x", labelsize="small", pad=1)
        label_below(grid, position_label)
        self.ax_, self.figure_ = grid[:, 0], figure

    def _draw_curves(
        self, paths: Array, positions: Array, labels: list[str], position_label: str, ax: Any
    ) -> None:
        import matplotlib as mpl

        n_paths, n_steps, n_features = paths.shape
        units = FeatureUnits.given(self.feature_means, self.feature_stds, n_features)
        profiles = Profiles(n_features, self.feature_names, units)
        if profiles.beside_names:
            n_columns, width = min(n_paths, 5), 1.8
        else:
            n_columns, width = 1 if n_paths == 1 else 2, 4.2
        n_lines = -(-n_paths // n_columns)
        size = (max(width * n_columns + 2.2, 4.8), profiles.height() * n_lines + 0.8)
        figure, grid = grid_of_axes(ax, n_lines, n_columns, size, sharex=True, sharey=True)
        cells = grid.ravel()
        alike = bool((positions == positions[0]).all())
        colours = mpl.colormaps[SEQUENCE](np.linspace(0.0, 0.95, n_steps))
        for cell, path, at, label in zip(cells, paths, positions, labels, strict=False):
            order = np.argsort(at, kind="stable")
            for colour, step in zip(colours, order, strict=True):
                style = "o" if profiles.beside_names else "-"
                row = profiles.values(path[step])
                profiles.draw(cell, row, style, color=colour, markersize=4, linewidth=1.3)
            ends = "" if alike else f": {number(at[order[0]])} to {number(at[order[-1]])}"
            cell.set_title(label + ends, fontsize="small", loc="left", pad=2)
        for cell in cells[n_paths:]:
            cell.set_axis_off()
        profiles.label(grid)
        low, high = (positions.min(), positions.max()) if alike else (0.0, 1.0)
        palette = mpl.colors.ListedColormap(mpl.colormaps[SEQUENCE](np.linspace(0.0, 0.95)))
        scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(low, high), palette)
        host = cells[0] if ax is None else ax
        bar = colour_bar(host, scale, list(cells), position_label)
        if not alike:
            bar.set_ticks([0.0, 1.0], labels=["lowest", "highest"])
        self.ax_, self.figure_ = cells[:n_paths], figure


class TraversalDisplay(_PathsDisplay):
    """Decoded codes of one row, of which one code after another takes other values.

    Each line of images shows one code and each column one value of it; the other codes of the row
    stay as they are. Rows that hold no images are drawn as curves over the features, whose colour
    is the value of the code. Use :meth:`TraversalDisplay.from_estimator` to make a display of a
    fitted estimator.

    Parameters
    ----------
    paths : array-like of shape (n_codes, n_steps, n_features)
        The decoded rows.
    values : array-like of shape (n_codes, n_steps)
        Values of the codes, in units of the codes.
    code_names : list of str, default=None
        Names of the codes.
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
    components : ndarray of shape (n_codes,)
        Indices of the codes that are drawn. Only :meth:`TraversalDisplay.from_estimator` sets it.
    ax_ : ndarray of matplotlib Axes
        The axes, one for each code.
    figure_ : matplotlib Figure
        The figure.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import LinearAE
    >>> from skae.plotting import TraversalDisplay
    >>> X, _ = load_digits(return_X_y=True)
    >>> model = LinearAE(10).fit(X)
    >>> display = TraversalDisplay.from_estimator(model, X[:1], image_shape=(8, 8))
    >>> display.paths.shape
    (5, 9, 64)
    """

    def __init__(
        self,
        paths: ArrayLike,
        values: ArrayLike,
        *,
        code_names: list[str] | None = None,
        image_shape: tuple[int, ...] | None = None,
        feature_names: list[Any] | None = None,
        feature_means: ArrayLike | None = None,
        feature_stds: ArrayLike | None = None,
        limits: tuple[float, float] | None = None,
    ) -> None:
        self.paths = paths
        self.values = values
        self.code_names = code_names
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
        components: ArrayLike | None = None,
        values: ArrayLike | None = None,
        n_steps: int = 9,
        n_components: int = 5,
        y: Any = None,
        image_shape: tuple[int, ...] | None = None,
        ax: Any = None,
    ) -> Self:
        """Encode a row, replace one code after another, and draw the decoded rows.

        Parameters
        ----------
        estimator : estimator, Pipeline or search
            A fitted model with `transform` and `inverse_transform` whose codes are real numbers or
            binary units; a fitted Pipeline that contains one, whose rows are drawn in the units of
            its input; or a fitted search over either.
        X : array-like of shape (n_samples, n_features)
            The first row is the one whose codes are replaced. Further rows, if there are any, tell
            which codes vary most, and the units of the columns of a data frame.
        components : array-like of int of shape (n_codes,), default=None
            Indices of the codes to draw. None takes the `n_components` codes that vary most: those
            with the largest mean KL divergence of the posterior from N(0, I) for a VAE, with the
            largest variance for other models. It is measured on `X`, or, if `X` is one row, it is
            what the model knows of its training rows or of rows that it samples.
        values : array-like of shape (n_steps,) or (n_codes, n_steps), default=None
            Values that the codes take, in units of the codes; one list for all codes or one for
            each. None takes `n_steps` values from 2.5 standard deviations below the mean of the
            code to 2.5 above: those of the prior for PPCA and a VAE with `prior="standard"`, those
            of the training codes for other models, and 0 and 1 for binary units.
        n_steps : int, default=9
            Number of values where `values` is None.
        n_components : int, default=5
            Largest number of codes where `components` is None.
        y : scalar or array-like of shape (n_targets,), default=None
            Target to decode with, for a model fitted with `conditional=True`.
        image_shape : tuple of (height, width) or (channels, height, width), default=None
            Shape of the image in every row. None takes the `image_shape` of the model, if it has
            one that rows of `X` fit.
        ax : matplotlib Axes, default=None
            Axes to draw into; None makes a figure.

        Returns
        -------
        display : TraversalDisplay
            The display, drawn.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError
            If the estimator has no `transform` or no `inverse_transform`, or if its codes are
            indices.
        ValueError
            If a component does not exist, `values` do not fit the components, `values` is None and
            the range of the codes is unknown, rows do not fit `image_shape`, or `y` does not fit
            the model.
        """
        check_matplotlib(cls.__name__)
        fitted = _with_real_codes(estimator, cls.__name__)
        n_steps = check_count("n_steps", n_steps, 2)
        most = check_count("n_components", n_components)
        first = first_rows(X, 1)
        row, names = drawn_rows(first)
        shape = image_shape_of(fitted, image_shape, row.shape[1])
        read = fitted.read(X)
        codes = _checked_codes(fitted, fitted.codes_of(read), cls.__name__)
        which = (
            default_components(fitted, read, codes, most)
            if components is None
            else _checked_components(components, codes.shape[1])
        )
        at = (
            default_values(fitted, codes, which, n_steps)
            if values is None
            else _checked_values(values, len(which))
        )
        code = np.round(codes[0]) if has_binary_codes(fitted) else codes[0]
        replaced = np.repeat(code[None, None].astype(np.float64), at.shape[1], axis=1)
        replaced = np.repeat(replaced, len(which), axis=0)
        for line, component in enumerate(which):
            replaced[line, :, component] = at[line]
        flat = replaced.reshape(-1, codes.shape[1])
        decoded = rows_like(fitted.decode(flat, _one_target(y, len(flat))), first, names)
        units = None
        if names is not None and shape is None:
            units = units_of_table(fitted, X, first, names) or feature_units(decoded)
        all_names = fitted.code_names()
        display = cls(
            decoded.reshape(*replaced.shape[:2], -1),
            at,
            code_names=[all_names[component] for component in which],
            image_shape=shape,
            feature_names=names,
            feature_means=None if units is None else units.means,
            feature_stds=None if units is None else units.stds,
            limits=limits_of(drawn_rows(X)[0]),
        )
        display.components = which
        return display.plot(ax=ax)

    components: Array

    def plot(self, ax: Any = None) -> Self:
        """Draw the decoded rows.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw into; None makes a figure.

        Returns
        -------
        display : TraversalDisplay
            The display, whose `ax_` and `figure_` are set.
        """
        check_matplotlib(type(self).__name__)
        paths = as_rows("paths", self.paths, 3)
        values = as_rows("values", np.atleast_2d(np.asarray(self.values, np.float64)))
        if values.shape != paths.shape[:2]:
            raise ValueError(
                f"values has shape {values.shape}, but paths has shape {paths.shape}; there must "
                "be one value for each row."
            )
        names = self.code_names or [f"code {index}" for index in range(len(paths))]
        self._draw(paths, values, list(names), "value of the code", ax)
        return self


class InterpolationDisplay(_PathsDisplay):
    """Decoded codes on the straight line between the codes of two rows.

    Each line of images shows one path. Rows that hold no images are drawn as curves over the
    features, whose colour is the place on the path. Use
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
            and so on, at most 20 paths.
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
        fitted = _with_real_codes(estimator, cls.__name__)
        n_steps = check_count("n_steps", n_steps, 2)
        n_rows = n_rows_of(X)
        if n_rows % 2 or n_rows > 2 * _MOST_PATHS:
            raise ValueError(
                f"X has {n_rows} rows; {cls.__name__} takes pairs of rows, the ends of at most "
                f"{_MOST_PATHS} paths. For one path give X[:2]."
            )
        rows, names = drawn_rows(X)
        shape = image_shape_of(fitted, image_shape, rows.shape[1])
        codes = _checked_codes(fitted, fitted.encode(X), cls.__name__).astype(np.float64)
        if has_binary_codes(fitted):
            raise TypeError(
                f"{cls.__name__} decodes codes between two others, but those of {fitted.name} are "
                "binary units, which have no values between 0 and 1. TraversalDisplay draws them."
            )
        fraction = np.linspace(0.0, 1.0, n_steps)[None, :, None]
        line = (1 - fraction) * codes[0::2, None] + fraction * codes[1::2, None]
        flat = line.reshape(-1, codes.shape[1])
        decoded = rows_like(fitted.decode(flat, _one_target(y, len(flat))), X, names)
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
        check_matplotlib(type(self).__name__)
        paths = as_rows("paths", self.paths, 3)
        fractions = np.tile(np.linspace(0.0, 1.0, paths.shape[1]), (len(paths), 1))
        labels = [f"rows {2 * i}, {2 * i + 1}" for i in range(len(paths))]
        self._draw(paths, fractions, labels, "fraction of the path", ax)
        return self


def _with_real_codes(estimator: Any, display: str) -> Fitted:
    fitted = Fitted(estimator)
    fitted.require("transform", "inverse_transform", display=display)
    fitted.require_restoring(display)
    return fitted


def _checked_codes(fitted: Fitted, codes: Array, display: str) -> Array:
    if codes.dtype.kind in "iub":
        raise TypeError(
            f"{display} needs codes that are real numbers, but those of {fitted.name} are indices, "
            "which have no order. ReconstructionDisplay and SampleDisplay draw such models."
        )
    return codes


def _checked_components(components: Any, n_codes: int) -> Array:
    which = np.atleast_1d(np.asarray(components))
    allowed = which.ndim == 1 and which.size > 0 and which.dtype.kind in "iu"
    if not allowed or which.min() < 0 or which.max() >= n_codes:
        raise ValueError(
            f"components={components!r} must be a list of indices of codes, from 0 to "
            f"{n_codes - 1}."
        )
    return which


def _checked_values(values: Any, n_codes: int) -> Array:
    try:
        at = np.asarray(as_numbers(values, "values"), dtype=np.float64)
    except (TypeError, ValueError):
        at = np.zeros(0)
    at = np.tile(at, (n_codes, 1)) if at.ndim == 1 else at
    if at.ndim != 2 or len(at) != n_codes or not at.size or not np.isfinite(at).all():
        raise ValueError(
            f"values={values!r} must be a list of finite numbers, or one list for each of the "
            f"{n_codes} codes."
        )
    return at


def _one_target(y: Any, n_rows: int) -> Any:
    """One target, for all rows that are decoded."""
    if y is None or np.ndim(y) == 0:
        return y
    target = np.asarray(y)
    return np.repeat(target.reshape(1, -1), n_rows, axis=0) if target.size > 1 else target.item()
