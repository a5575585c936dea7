"""Decoded codes of one row, of which one code after another takes other values."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skae._plotting.canvas import check_matplotlib, checked_code_names, limits_of, with_matplotlib
from skae._plotting.code_ranges import (
    checked_components,
    default_components,
    default_values,
    has_binary_codes,
)
from skae._plotting.fitted import image_shape_of, units_of_table
from skae._plotting.paths import PathsDisplay, checked_codes, one_target, with_real_codes
from skae._plotting.rows import as_rows, drawn_rows, feature_units, first_rows, rows_like
from skae._utils.inputs import as_numbers, check_count

Array = NDArray[Any]


class TraversalDisplay(PathsDisplay):
    """Decoded rows for which one code of a row takes several values.

    Each line of images shows one code, and each column shows one value of this code. The other
    codes of the row do not change. Rows that are not images are drawn as curves over the features,
    and the colour of a curve shows the value of the code. Use
    :meth:`TraversalDisplay.from_estimator` to make a display of a fitted estimator.

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
            The codes of the first row are replaced. Further rows, if there are any, determine
            which codes vary most. The columns of a data frame are drawn in standard deviations
            from the mean. Both are computed from `X` if it has at least 10 rows, and otherwise
            from rows that the model samples, if it has a method `sample`.
        components : array-like of int of shape (n_codes,), default=None
            Indices of the codes to draw. None takes the `n_components` codes that vary most: those
            with the largest mean KL divergence of the posterior from N(0, I) for a VAE, and those
            with the largest variance for other models. Both are computed from `X`. If `X` has one
            row only, they come from the training codes, if the model keeps their moments, or
            from rows that the model samples.
        values : array-like of shape (n_steps,) or (n_codes, n_steps), default=None
            Values that the codes take, in units of the codes; one list for all codes or one for
            each. None takes `n_steps` values from 2.5 standard deviations below the mean of the
            code to 2.5 above. The mean and the standard deviation are those of the prior for PPCA
            and for a VAE with `prior="standard"`, and those of the training codes for other models.
            For binary units, None takes the values 0 and 1.
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
        fitted = with_real_codes(estimator, cls.__name__)
        n_steps = check_count("n_steps", n_steps, 2)
        most = check_count("n_components", n_components)
        first = first_rows(X, 1)
        row, names = drawn_rows(first)
        shape = image_shape_of(fitted, image_shape, row.shape[1])
        read = fitted.read(X)
        codes = checked_codes(fitted, fitted.codes_of(read), cls.__name__)
        which = (
            default_components(fitted, read, codes, most)
            if components is None
            else checked_components(components, codes.shape[1])
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
        decoded = rows_like(fitted.decode(flat, one_target(y, len(flat))), first, names)
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

    @with_matplotlib
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
        paths = as_rows("paths", self.paths, 3)
        values = as_rows("values", np.atleast_2d(np.asarray(self.values, np.float64)))
        if values.shape != paths.shape[:2]:
            raise ValueError(
                f"values has shape {values.shape}, but paths has shape {paths.shape}; there must "
                "be one value for each row."
            )
        names = checked_code_names(self.code_names, len(paths))
        self._draw(paths, values, names, "value of the code", ax)
        return self


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
