"""Scores over the number of codes."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from skae._plotting.canvas import (
    COLOURS,
    LINES,
    MARKERS,
    Array,
    check_matplotlib,
    ink,
    single_axes,
    with_matplotlib,
)
from skae._plotting.fitted import Fitted
from skae._plotting.rows import drawn_rows
from skae._plotting.search_scores import is_search, pca_scores, search_scores

# Curves at most, apart from PCA's.
_MOST_CURVES = 6
# The legend of more curves stands beside the axes.
_MOST_INSIDE = 4
# Letters of a label of the vertical axis in one line, and in each line where these are too many.
_WIDTH, _NARROW, _NO_BREAK = 38, 38, "\N{NO-BREAK SPACE}"
# The axis is logarithmic where the largest size is more than so many times the smallest.
_DECADE = 10.0


class LatentSizeDisplay:
    """Scores over the number of codes, from a search or from a model with ordered codes.

    For a search, the display draws the mean held-out score of each size, and a band of one
    standard error to each side. The standard error is the standard deviation over the n folds,
    with n - 1 in its denominator, divided by the square root of n. Use
    :meth:`LatentSizeDisplay.from_estimator` to make one of a fitted search or model.

    Parameters
    ----------
    curves : dict of str to pair of arrays of shapes (n_sizes,) and (n_sizes, n_folds)
        The sizes, and the scores of every size in each fold, by the name of the curve.
    pca : pair of arrays of shapes (n_sizes,) and (n_sizes, n_folds), default=None
        The sizes and scores of PCA. None draws no PCA.
    chosen : pair of str and int, default=None
        The curve and the size that were chosen, which are marked.
    xlabel : str, default="number of codes"
        Label of the horizontal axis.
    ylabel : str, default="score"
        Label of the vertical axis.
    title : str, default=None
        Heading of the legend.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        The figure.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import PPCA, GridSearchCV
    >>> from skae.plotting import LatentSizeDisplay
    >>> X, _ = load_digits(return_X_y=True)
    >>> search = GridSearchCV(PPCA(), {"n_components": [5, 10, 20, 40]}, cv=3).fit(X)
    >>> display = LatentSizeDisplay.from_estimator(search, X)
    >>> sizes, scores = display.curves["PPCA"]
    >>> sizes.tolist(), scores.shape, display.chosen
    ([5, 10, 20, 40], (4, 3), ('PPCA', 40))
    """

    def __init__(
        self,
        curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
        *,
        pca: tuple[ArrayLike, ArrayLike] | None = None,
        chosen: tuple[str, int] | None = None,
        xlabel: str = "number of codes",
        ylabel: str = "score",
        title: str | None = None,
    ) -> None:
        self.curves = curves
        self.pca = pca
        self.chosen = chosen
        self.xlabel = xlabel
        self.ylabel = ylabel
        self.title = title

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike | None = None,
        y: Any = None,
        *,
        param: str | None = None,
        pca: bool = True,
        ax: Any = None,
    ) -> Self:
        """Draw the scores of a search over the number of codes, or a reconstruction path.

        Parameters
        ----------
        estimator : search, estimator or Pipeline
            A fitted search of skae or scikit-learn, such as :class:`skae.GridSearchCV`, over a
            parameter `n_components`; or a fitted model with `reconstruction_path`, or a fitted
            Pipeline that contains one.
        X : array-like of shape (n_samples, n_features), default=None
            The rows that the search was fitted to, for the scores of PCA; None draws no PCA. For
            a reconstruction path: the rows that are reconstructed, which are required.
        y : array-like of shape (n_samples,), default=None
            The targets that the search was fitted to, if it was fitted to targets.
        param : str, default=None
            The searched parameter that is the number of codes, such as "reduce__n_components".
            None takes the only parameter whose name ends in `n_components`.
        pca : bool, default=True
            Whether PCA is drawn beside the model.
        ax : matplotlib Axes, default=None
            Axes to draw into; None makes a figure.

        Returns
        -------
        display : LatentSizeDisplay
            The display, drawn.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError
            If the estimator is no search and has no `reconstruction_path`, or is a search by
            successive halving, which scores candidates on different numbers of rows.
        ValueError
            If the search has no parameter of the number of codes, has several and `param` is
            None, or tried values that are not numbers; or if a reconstruction path is given no
            rows.

        Notes
        -----
        There is a curve for each combination of the other searched parameters. If there are more
        than six, only the six with the highest mean scores are drawn. Models that were searched
        over (``{"reduce": [LinearAE(), PPCA()]}``) are named by their class.

        PCA takes the place of the model, with the best values of the other parameters, and is
        scored on the folds of the search, without sample weights. `X` and `y` must be those that
        the search was fitted to. PCA is drawn where scores are comparable. They are if candidates
        were ranked by their own log-likelihoods, or by lower bounds on them, under a likelihood
        that has a density. They also are if a classifier or a regressor behind the model was
        scored. PCA is not drawn if the folds cannot be made again, because the splitter shuffles
        without an integer `random_state`, needs groups, or was an iterator. The label of the
        horizontal axis then states the reason. If PCA was a candidate of the search, its
        curve is one of the other curves.

        For a reconstruction path, PCA is fitted to `X`. Its error is then the smallest that any
        linear model with as many codes has on these rows. Both errors are in the units of the
        rows that the model reads, after the steps before it in a Pipeline.
        """
        check_matplotlib(cls.__name__)
        if is_search(estimator):
            display = cls._of_search(estimator, X, y, param, pca)
        else:
            display = cls._of_path(estimator, X, param, pca)
        return display.plot(ax=ax)

    @classmethod
    def _of_search(cls, search: Any, X: Any, y: Any, param: str | None, pca: bool) -> Self:
        found = search_scores(search, param)
        beside, why, xlabel = None, None, "number of codes"
        if pca and X is not None and "PCA" not in found.curves:
            beside, why = pca_scores(search, found, X, y)
        if why is not None:
            xlabel += f"\n(no PCA: {why})"
        curves, title = found.curves, None
        if len(curves) > _MOST_CURVES:
            best = sorted(curves, key=lambda name: -_highest(curves[name][1]))[:_MOST_CURVES]
            title = f"{_MOST_CURVES} best of {len(curves)}"
            curves = {name: curve for name, curve in curves.items() if name in best}
        chosen = found.chosen if found.chosen is not None and found.chosen[0] in curves else None
        return cls(
            curves, pca=beside, chosen=chosen, xlabel=xlabel, ylabel=found.label, title=title
        )

    @classmethod
    def _of_path(cls, estimator: Any, X: Any, param: str | None, pca: bool) -> Self:
        fitted = Fitted(estimator)
        if not hasattr(fitted.model, "reconstruction_path"):
            raise TypeError(
                f"{cls.__name__} draws a fitted search over n_components, or a fitted model with "
                f"reconstruction_path; estimator={fitted.name} is neither. Autoencoder and "
                "AdversarialAE have reconstruction_path where latent_growth orders their codes."
            )
        if X is None:
            raise ValueError("X=None: a reconstruction path needs the rows to reconstruct.")
        if param is not None:
            raise ValueError(
                f"param={param!r} names a parameter of a search; estimator={fitted.name} is none."
            )
        read = fitted.read(X)
        errors = np.asarray(fitted.model.reconstruction_path(read), dtype=np.float64)
        sizes = np.arange(1, len(errors) + 1)
        units = "the rows that the model reads" if fitted.before else "X"
        label, beside = f"squared error per row (squared units of {units})", None
        xlabel = "number of codes"
        rows, _ = drawn_rows(read)
        if pca and np.isfinite(rows).all() and rows.shape[1] == fitted.model.n_features_in_:
            kept = sizes[sizes <= min(rows.shape)]
            beside = kept, _pca_errors(rows)[kept - 1, None]
        elif pca:
            xlabel += "\n(no PCA: it needs rows of numbers without missing values)"
        curves = {fitted.name: (sizes, errors[:, None])}
        return cls(curves, pca=beside, xlabel=xlabel, ylabel=label)

    @with_matplotlib
    def plot(self, ax: Any = None) -> Self:
        """Draw the scores over the number of codes.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw into; None makes a figure.

        Returns
        -------
        display : LatentSizeDisplay
            The display, whose `ax_` and `figure_` are set.
        """
        curves = {name: _checked(name, curve) for name, curve in self.curves.items()}
        if not curves:
            raise ValueError("curves is empty; give sizes and scores of one curve at least.")
        pca = None if self.pca is None else _checked("PCA", self.pca)
        if self.chosen is not None:
            _check_chosen(self.chosen, curves)
        long = len(curves) > _MOST_INSIDE
        ax = single_axes(ax, (9.0 if long else 6.0, 4.0))
        for index, (name, (sizes, scores)) in enumerate(curves.items()):
            _draw(ax, name, sizes, scores, index, len(curves))
        drawn = list(curves.values())
        if pca is not None:
            drawn.append(pca)
            _draw(ax, "PCA", *pca)
        if self.chosen is not None:
            _mark(ax, self.chosen, curves)
        _set_sizes(ax, np.unique(np.concatenate([sizes for sizes, _ in drawn])))
        ax.set_xlabel(self.xlabel)
        ax.set_ylabel(_in_lines(self.ylabel))
        ax.ticklabel_format(axis="y", useOffset=False)
        beside: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0)}
        ax.legend(
            fontsize="small", title=self.title, title_fontsize="small", **(beside if long else {})
        )
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _in_lines(label: str) -> str:
    """A long label in several lines, none of which ends within the units."""
    if len(label) <= _WIDTH:
        return label
    head, bracket, units = label.partition(" (")
    joined = head + bracket + units.replace(" ", _NO_BREAK)
    return textwrap.fill(joined, _NARROW, break_on_hyphens=False).replace(_NO_BREAK, " ")


def _checked(name: str, curve: Any) -> tuple[Array, Array]:
    sizes, scores = (np.asarray(part, dtype=np.float64) for part in curve)
    if sizes.ndim != 1 or scores.ndim != 2 or len(sizes) != len(scores) or not len(sizes):
        raise ValueError(
            f"The curve {name} has sizes of shape {sizes.shape} and scores of shape "
            f"{scores.shape}; expected (n_sizes,) and (n_sizes, n_folds)."
        )
    order = np.argsort(sizes, kind="stable")
    return sizes[order], scores[order]


def _highest(scores: Array) -> float:
    means = np.mean(scores, axis=1)
    return float(np.nanmax(means)) if np.isfinite(means).any() else -np.inf


def _draw(
    ax: Any, name: str, sizes: Array, scores: Array, index: int | None = None, n_curves: int = 1
) -> None:
    """A curve of means and its band of standard errors; one without an index is PCA's.

    Later curves are thinner, so that equal ones can be seen below each other.
    """
    thicker = 0 if index is None else (n_curves - 1 - index) * min(0.7, 2 / n_curves)
    style: dict[str, Any] = {
        "color": ink(),
        "marker": "",
        "linestyle": (0, (1, 1)),
        "linewidth": 1.8,
    }
    if index is not None:
        style = {
            "color": COLOURS[index % _MOST_CURVES],
            "marker": MARKERS[index % len(MARKERS)],
            "linestyle": LINES[index % len(LINES)],
            "linewidth": 1.6 + thicker,
            "markersize": 5 + 1.7 * thicker,
        }
    means, n_folds = scores.mean(axis=1), scores.shape[1]
    if len(sizes) == 1 and index is None:
        style["marker"] = "x"
    ax.plot(sizes, means, label=name, **style)
    if n_folds > 1:
        error = scores.std(axis=1, ddof=1) / np.sqrt(n_folds)
        ax.fill_between(
            sizes, means - error, means + error, color=style["color"], alpha=0.15, linewidth=0
        )


def _check_chosen(chosen: Any, curves: dict[str, tuple[Array, Array]]) -> None:
    pair = isinstance(chosen, tuple | list) and len(chosen) == 2
    if not pair or chosen[0] not in curves or chosen[1] not in curves[chosen[0]][0]:
        raise ValueError(
            f"chosen={chosen!r} must be the name of a curve and one of its sizes, or None; the "
            f"curves are {list(curves)}."
        )


def _mark(ax: Any, chosen: tuple[str, int], curves: dict[str, tuple[Array, Array]]) -> None:
    name, size = chosen
    sizes, scores = curves[name]
    best = scores[sizes == size].mean(axis=1).max()
    ax.plot(
        [size],
        [best],
        "o",
        markersize=13,
        markerfacecolor="none",
        markeredgecolor=ink(),
        markeredgewidth=1.4,
        label=f"chosen: {size:g} codes" + (f", {name}" if len(curves) > 1 else ""),
    )


def _set_sizes(ax: Any, sizes: Array) -> None:
    """Ticks at sizes, as many as there is room for, on a logarithmic axis if they span a decade."""
    logarithmic = sizes[0] > 0 and sizes[-1] > _DECADE * sizes[0]
    if logarithmic:
        ax.set_xscale("log")
    places = np.log(sizes) if logarithmic else sizes
    kept = [0]
    gap = 0.07 * (places[-1] - places[0])
    for place in range(1, len(places)):
        if places[place] - places[kept[-1]] >= gap:
            kept.append(place)
    if kept[-1] != len(places) - 1:
        kept[-1 if len(kept) > 1 else len(kept) :] = [len(places) - 1]
    ax.set_xticks(sizes[kept], [f"{size:g}" for size in sizes[kept]])
    ax.minorticks_off()


def _pca_errors(X: Array) -> Array:
    """Squared errors per row of PCA of these rows, with 1, 2, ... codes."""
    spectrum = np.linalg.svd(X - X.mean(axis=0), compute_uv=False) ** 2
    left: Array = np.maximum(spectrum.sum() - np.cumsum(spectrum), 0.0) / len(X)
    return left
