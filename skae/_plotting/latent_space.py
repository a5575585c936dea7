"""Codes of rows, coloured by what is known of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skae._plotting.canvas import (
    COLOURS,
    SEQUENCE,
    check_matplotlib,
    checked_code_names,
    colour_bar,
    grid_of_axes,
    short,
    single_axes,
    with_matplotlib,
)
from skae._plotting.code_ranges import checked_components
from skae._plotting.fitted import Fitted
from skae._plotting.posteriors import covariances_of, draw_ellipses, spread_points
from skae._plotting.targets import UNKNOWN, Classes, groups_of, range_of, target_of

Array = NDArray[Any]

# Codes of a pair matrix, where none are named.
_MOST_CODES = 4
# More classes are also named at the median of their codes.
_MOST_UNLABELLED = 6


class LatentSpaceDisplay:
    """Codes of rows, coloured by classes or numbers.

    Two codes are drawn as a scatter plot. One code is drawn as a histogram if `y` is None, as one
    strip for each class, or as a scatter plot against numbers in `y`. More than two codes are drawn
    as a matrix of scatter plots, one for each pair of codes. Each class has its own colour and
    marker. If there are more than six classes, their names are written at the medians of their
    codes. Numbers have a colour bar.

    Integer codes are drawn with random shifts between -0.3 and 0.3, because the markers of rows
    with equal codes would otherwise cover each other.

    Posteriors are drawn as ellipses of `n_std` standard deviations. For at most 150 rows, all
    ellipses are drawn. For more rows, those of 80 rows that are spread over the codes are drawn.
    Use :meth:`LatentSpaceDisplay.from_estimator` to make a display of a fitted estimator.

    Parameters
    ----------
    codes : array-like of shape (n_samples, n_codes)
        The codes.
    y : array-like of shape (n_samples,), default=None
        Classes (strings, booleans, categories, or integers with at most 20 distinct values) or
        numbers. Missing values are drawn grey. If there are more than 20 classes, only the 20 most
        frequent ones are coloured.
    posterior : array-like of shape (n_samples, n_codes, n_codes), default=None
        Covariances of the posteriors of the codes.
    n_std : float, default=1.0
        Radius of the ellipses, in standard deviations.
    code_names : list of str, default=None
        Names of the codes.
    target_name : str, default=None
        Name of `y`, the title of the legend or the label of the colour bar.

    Attributes
    ----------
    ax_ : matplotlib Axes or ndarray of Axes
        The axes; for more than two codes an array of shape (n_codes - 1, n_codes - 1), of which the
        upper triangle is empty.
    figure_ : matplotlib Figure
        The figure.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skae import PPCA
    >>> from skae.plotting import LatentSpaceDisplay
    >>> X, y = load_iris(return_X_y=True, as_frame=True)
    >>> model = PPCA(2).fit(X)
    >>> display = LatentSpaceDisplay.from_estimator(model, X, y)
    >>> display.codes.shape
    (150, 2)
    >>> display.posterior.shape
    (150, 2, 2)
    """

    def __init__(
        self,
        codes: ArrayLike,
        y: ArrayLike | None = None,
        *,
        posterior: ArrayLike | None = None,
        n_std: float = 1.0,
        code_names: list[str] | None = None,
        target_name: str | None = None,
    ) -> None:
        self.codes = codes
        self.y = y
        self.posterior = posterior
        self.n_std = n_std
        self.code_names = code_names
        self.target_name = target_name

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike,
        y: ArrayLike | None = None,
        *,
        components: ArrayLike | None = None,
        posterior: bool | str = "auto",
        n_std: float = 1.0,
        ax: Any = None,
    ) -> Self:
        """Encode rows, and draw their codes.

        Parameters
        ----------
        estimator : estimator, Pipeline or search
            A fitted model with `transform`; a fitted Pipeline that contains one; or a fitted search
            over either.
        X : array-like of shape (n_samples, n_features)
            The rows.
        y : array-like of shape (n_samples,), default=None
            Classes or numbers that colour the codes. The model does not read them.
        components : array-like of int of shape (n_codes,), default=None
            Indices of the codes to draw. None takes all codes if there are at most four, else the
            four with the largest variance over `X`.
        posterior : bool or "auto", default="auto"
            Whether to draw the Gaussian posteriors of the codes. "auto" draws them if the model has
            Gaussian posteriors, as PPCA and VAE do.
        n_std : float, default=1.0
            Radius of the ellipses, in standard deviations.
        ax : matplotlib Axes, default=None
            Axes to draw into; None makes a figure.

        Returns
        -------
        display : LatentSpaceDisplay
            The display, drawn.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError
            If the estimator has no `transform`, or `posterior` is True and the model has no
            Gaussian posteriors.
        ValueError
            If a component does not exist, `y` does not have one value for each row, or `n_std` is
            not a positive number.
        """
        check_matplotlib(cls.__name__)
        fitted = Fitted(estimator, "transform")
        fitted.require("transform", display=cls.__name__)
        if not (posterior is True or posterior is False or posterior == "auto"):
            raise ValueError(f"posterior={posterior!r} must be True, False or 'auto'.")
        if posterior is True:
            fitted.require("posterior", display=cls.__name__)
        read = fitted.read(X)
        codes = fitted.codes_of(read)
        which = _chosen(components, codes)
        covariances = None
        if posterior is not False and fitted.has("posterior"):
            covariances = covariances_of(fitted.model.posterior(read)[1])[:, which][:, :, which]
        names = fitted.code_names()
        name = getattr(y, "name", None)
        display = cls(
            codes[:, which],
            y,
            posterior=covariances,
            n_std=n_std,
            code_names=[names[index] for index in which],
            target_name=None if name is None else str(name),
        )
        return display.plot(ax=ax)

    @with_matplotlib
    def plot(self, ax: Any = None) -> Self:
        """Draw the codes.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw into; None makes a figure.

        Returns
        -------
        display : LatentSpaceDisplay
            The display, whose `ax_` and `figure_` are set.
        """
        codes = np.asarray(self.codes)
        if codes.ndim != 2 or not codes.size:
            raise ValueError(f"codes has shape {codes.shape}, but must be (n_samples, n_codes).")
        places = codes.astype(np.float64)
        if not np.isfinite(places).all():
            raise ValueError("codes has values that are NaN or infinite; all must be finite.")
        n_rows, n_codes = codes.shape
        covariances = self._checked_posterior(n_rows, n_codes)
        target = target_of(self.y, n_rows)
        names = [short(name) for name in checked_code_names(self.code_names, n_codes)]
        if codes.dtype.kind in "iub":
            places += np.random.default_rng(0).uniform(-0.3, 0.3, codes.shape)
        if n_codes == 1:
            self._plot_one(codes, places[:, 0], target, covariances, names[0], ax)
        elif n_codes == 2:
            ax = single_axes(given := ax, (6.4, 4.8))
            self._scatter(ax, places, (0, 1), target, covariances, names)
            self._explain_colours(ax, target, given)
            self._explain_ellipses(ax, covariances)
            self.ax_, self.figure_ = ax, ax.figure
        else:
            self._plot_pairs(places, target, covariances, names, ax)
        return self

    def _checked_posterior(self, n_rows: int, n_codes: int) -> Array | None:
        n_std = np.asarray(self.n_std)
        if n_std.ndim or n_std.dtype.kind not in "iuf" or not 0 < n_std < np.inf:
            raise ValueError(f"n_std={self.n_std!r} must be a positive number.")
        if self.posterior is None:
            return None
        covariances = np.asarray(self.posterior, dtype=np.float64)
        if covariances.shape != (n_rows, n_codes, n_codes):
            raise ValueError(
                f"posterior has shape {covariances.shape}, but covariances of {n_rows} rows of "
                f"{n_codes} codes have shape {(n_rows, n_codes, n_codes)}."
            )
        return covariances

    # ------------------------------------------------------------------------ one code

    def _plot_one(
        self,
        codes: Array,
        places: Array,
        target: Classes | Array | None,
        covariances: Array | None,
        name: str,
        ax: Any,
    ) -> None:
        if isinstance(target, Classes):
            height = 1.2 + 0.45 * max(len(np.unique(target.of_rows)), 3)
            ax = single_axes(ax, (6.4, min(height, 9.0)))
            self._strips(ax, places, target, covariances)
        elif target is None:
            ax = single_axes(ax, (6.4, 3.6))
            bins: Any = "auto"
            if codes.dtype.kind in "iub":
                low, high = int(codes.min()), int(codes.max())
                bins = np.arange(low, high + 2) - 0.5 if high - low <= 200 else 100
            ax.hist(
                codes[:, 0],
                bins=bins,
                color=COLOURS[0],
                edgecolor=ax.get_facecolor(),
                linewidth=0.5,
            )
            ax.set_ylabel("number of rows")
        else:
            ax = single_axes(ax, (6.4, 4.8))
            self._error_bars(ax, places, target, covariances)
            ax.scatter(places, target, s=_size(len(places)), color=COLOURS[0], linewidths=0)
            ax.set_ylabel(short(self.target_name or "y"))
        ax.set_xlabel(name)
        self.ax_, self.figure_ = ax, ax.figure

    def _strips(self, ax: Any, places: Array, target: Classes, covariances: Array | None) -> None:
        """One strip for each class, in which rows have random heights."""
        groups = groups_of(target)
        heights = np.zeros(len(places))
        shift = np.random.default_rng(1).uniform(-0.3, 0.3, len(places))
        for line, (rows, *_) in enumerate(groups):
            heights[rows] = line + shift[rows]
        self._error_bars(ax, places, heights, covariances)
        for rows, _, colour, marker in groups:
            ax.scatter(
                places[rows],
                heights[rows],
                s=_size(len(places)),
                color=colour,
                marker=marker,
                linewidths=0,
                alpha=0.8,
            )
        ax.set_yticks(range(len(groups)), [name for _, name, *_ in groups])
        ax.set_ylim(len(groups) - 0.5, -0.5)
        if self.target_name is not None:
            ax.set_ylabel(short(self.target_name))

    def _error_bars(
        self, ax: Any, places: Array, heights: Array, covariances: Array | None
    ) -> None:
        if covariances is None:
            return
        some = spread_points(np.column_stack([places, heights]))
        reach = self.n_std * np.sqrt(covariances[some, 0, 0])
        ax.hlines(
            heights[some],
            places[some] - reach,
            places[some] + reach,
            color="0.5",
            linewidth=0.6,
            zorder=0.5,
        )

    # ----------------------------------------------------------------- pairs of codes

    def _plot_pairs(
        self,
        places: Array,
        target: Classes | Array | None,
        covariances: Array | None,
        names: Sequence[str],
        ax: Any,
    ) -> None:
        n = places.shape[1] - 1
        side = min(2.6, 9.0 / n)
        figure, grid = grid_of_axes(
            ax, n, n, (side * n + 0.8, side * n + 0.4), sharex="col", sharey="row"
        )
        for column, line in combinations(range(n + 1), 2):
            cell = grid[line - 1, column]
            self._scatter(cell, places, (column, line), target, covariances, names)
            if column:
                cell.set_ylabel("")
            if line < n:
                cell.set_xlabel("")
        for line, column in combinations(range(n), 2):
            grid[line, column].set_axis_off()
        self._explain_colours(grid[0, -1], target, ax)
        self._explain_ellipses(grid[0, 0], covariances)
        self.ax_, self.figure_ = grid, figure

    def _scatter(
        self,
        ax: Any,
        places: Array,
        pair: tuple[int, int],
        target: Classes | Array | None,
        covariances: Array | None,
        names: Sequence[str],
    ) -> None:
        points = places[:, pair]
        size = _size(len(points))
        options = {"s": size, "linewidths": 0, "alpha": 1.0 if len(points) < 300 else 0.7}
        if isinstance(target, Classes):
            groups = groups_of(target)
            for rows, name, colour, marker in groups:
                ax.scatter(*points[rows].T, color=colour, marker=marker, label=name, **options)
            real = np.asarray(self.codes).dtype.kind == "f"  # indices have no median
            short_names = max(len(name) for _, name, *_ in groups) < 8
            if len(groups) > _MOST_UNLABELLED and short_names and real:
                self._label_classes(ax, points, groups)
        elif target is None:
            ax.scatter(*points.T, color=COLOURS[0], **options)
        else:
            low, high = range_of(target)
            unknown = np.isnan(target)
            if unknown.any():
                ax.scatter(*points[unknown].T, color=UNKNOWN, marker="x", s=size, linewidths=0.8)
            seen = ~unknown
            ax.scatter(
                *points[seen].T, c=target[seen], cmap=SEQUENCE, vmin=low, vmax=high, **options
            )
        if covariances is not None:
            colours = np.full(len(points), "0.4", dtype=object)
            if isinstance(target, Classes):
                for rows, _, colour, _ in groups_of(target):
                    colours[rows] = colour
            draw_ellipses(ax, points, covariances[:, pair][:, :, pair], colours, self.n_std)
        ax.set_xlabel(names[pair[0]])
        ax.set_ylabel(names[pair[1]])

    def _label_classes(self, ax: Any, points: Array, groups: list[Any]) -> None:
        """The name of each class at the median of its codes."""
        from matplotlib.patheffects import withStroke

        halo = [withStroke(linewidth=2.5, foreground=ax.get_facecolor())]
        for rows, name, *_ in groups:
            if len(rows):
                x, y = np.median(points[rows], axis=0)
                ax.text(x, y, name, ha="center", va="center", weight="bold", path_effects=halo)

    def _explain_ellipses(self, ax: Any, covariances: Array | None) -> None:
        if covariances is not None:
            plural = "" if self.n_std == 1 else "s"
            text = f"ellipses: {self.n_std:g} standard deviation{plural} of the posterior"
            ax.set_title(text, fontsize="small", loc="left", pad=3)

    def _explain_colours(self, legend_of: Any, target: Classes | Array | None, given: Any) -> None:
        """A legend of classes, or a colour bar."""
        title = None if self.target_name is None else short(self.target_name)
        if isinstance(target, Classes):
            from matplotlib.lines import Line2D

            handles = [
                Line2D([], [], color=colour, marker=marker, linestyle="", label=short(name))
                for _, name, colour, marker in groups_of(target)
            ]
            alone = not legend_of.axison  # the empty corner of a pair matrix
            legend_of.legend(
                handles=handles,
                title=title,
                loc="upper right" if alone else "upper left",
                bbox_to_anchor=(1.0, 1.0) if alone else (1.01, 1.0),
                borderaxespad=0.0,
                ncols=1 if len(handles) <= 10 else 2,
                fontsize="small",
                frameon=False,
            )
        elif target is not None:
            import matplotlib as mpl

            low, high = range_of(target)
            scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(low, high), SEQUENCE)
            options = {} if legend_of.axison else {"fraction": 0.3, "aspect": 12}
            host = legend_of if given is None else given
            colour_bar(host, scale, legend_of, title or "y", **options)


def _chosen(components: Any, codes: Array) -> NDArray[np.intp]:
    n_codes = codes.shape[1]
    if components is None:
        largest = np.argsort(-codes.astype(np.float64).var(axis=0), kind="stable")
        return np.sort(largest[:_MOST_CODES])
    return checked_components(components, n_codes)


def _size(n_points: int) -> float:
    """Area of a marker, in square points."""
    return float(np.clip(6000 / n_points, 9, 36))
