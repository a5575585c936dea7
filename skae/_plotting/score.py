"""Scores of several sets of rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from skae._plotting.canvas import (
    COLOURS,
    LINES,
    Array,
    check_matplotlib,
    ink,
    single_axes,
    with_matplotlib,
)
from skae._plotting.fitted import Fitted, best_estimator
from skae._utils.score_kinds import kind_of_scores

# What scores are, by `score_kind`.
LABELS = {
    "log_likelihood": "log-likelihood (nats per row)",
    "lower_bound": "lower bound on the log-likelihood (nats per row)",
    "reconstruction": "log-likelihood of the reconstruction (nats per row)",
    "latent": "log-likelihood of the code (nats per row)",
}
# The axis reaches at most this many interquartile ranges beyond the quartiles of any set.
_REACH = 8.0
# The axis is at most so many times as long as the first set needs on its own.
_MOST_SPANS = 20.0
# Line styles, as many as there are colours.
_STYLES = (*LINES, (0, (8, 2)), (0, (4, 1, 1, 1, 1, 1)), (0, (2, 1)))
# Bins at most, whatever a rule finds.
_MOST_BINS_GIVEN = 10_000
_MOST_BINS = 200


class ScoreDisplay:
    """Histograms of the scores of several sets of rows, such as normal rows and outliers.

    All sets have the same bins, and each histogram integrates to 1. Use
    :meth:`ScoreDisplay.from_estimator` to make one of a fitted estimator.

    Parameters
    ----------
    scores : mapping of str to array-like of shape (n_samples,), or one such array
        The scores of each set, by its name.
    bins : int, str or array-like of shape (n_bins + 1,), default="auto"
        Number of bins, a rule of :func:`numpy.histogram_bin_edges`, or the edges of the bins.
    threshold : float, default=None
        A share between 0 and 1. A vertical line marks this quantile of the first set, and the
        legend states the share of each set below it. None draws no line.
    xlabel : str, default="score"
        Label of the horizontal axis.

    Attributes
    ----------
    threshold_ : float or None
        The score at the line, in the units of the scores.
    shares_below_ : dict of str to float, or None
        Share of each set with a score below `threshold_`.
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        The figure.

    Notes
    -----
    The horizontal axis extends at most eight interquartile ranges beyond the quartiles of the sets,
    and to each side at most twenty times as far as for the first set alone. Scores beyond its ends
    are in none of the drawn bins. The label of the axis states the percentage of such scores in
    each set. If `bins` holds the edges, all bins are drawn. Scores that are not finite are in no
    bin.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import PPCA
    >>> from skae.plotting import ScoreDisplay
    >>> X, _ = load_digits(return_X_y=True)
    >>> model = PPCA(10).fit(X[:900])
    >>> sets = {"training rows": X[:900], "new rows": X[900:]}
    >>> display = ScoreDisplay.from_estimator(model, sets, threshold=0.05)
    >>> print(round(display.shares_below_["training rows"], 2))
    0.05
    """

    def __init__(
        self,
        scores: Any,
        *,
        bins: Any = "auto",
        threshold: float | None = None,
        xlabel: str = "score",
    ) -> None:
        self.scores = scores
        self.bins = bins
        self.threshold = threshold
        self.xlabel = xlabel

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        bins: Any = "auto",
        threshold: float | None = None,
        ax: Any = None,
    ) -> Self:
        """Score the rows of one or several sets, and draw histograms of the scores.

        Parameters
        ----------
        estimator : estimator, Pipeline or search
            A fitted model with `score_samples`; a fitted Pipeline that ends in such a model or
            contains one, which scores rows as the steps before it return them; or a fitted search
            over either.
        X : array-like of shape (n_samples, n_features), or mapping of str to such arrays
            Rows, or several sets of rows by their names.
        bins : int, str or array-like of shape (n_bins + 1,), default="auto"
            Number of bins, a rule of :func:`numpy.histogram_bin_edges`, or the edges of the bins.
        threshold : float, default=None
            A share between 0 and 1. A vertical line marks this quantile of the first set, and
            the legend states the share of each set below it. None draws no line.
        ax : matplotlib Axes, default=None
            Axes to draw into; None makes a figure.

        Returns
        -------
        display : ScoreDisplay
            The display, drawn.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError
            If the estimator has no `score_samples`.
        ValueError
            If `threshold` is not between 0 and 1, this quantile of the first set is not finite,
            a set has no finite score, or `bins` is not valid.
        """
        check_matplotlib(cls.__name__)
        scored: Any = best_estimator(estimator)
        if not hasattr(scored, "score_samples"):
            fitted = Fitted(estimator)
            fitted.require("score_samples", display=cls.__name__)
            model = fitted.model
        else:
            fitted, model = None, scored
            while hasattr(model, "steps"):
                model = best_estimator(model[-1])
        sets = _named(X)
        scores = {
            name: np.asarray(
                scored.score_samples(rows)
                if fitted is None
                else model.score_samples(fitted.read(rows)),
                dtype=np.float64,
            )
            for name, rows in sets.items()
        }
        label = LABELS.get(kind_of_scores(model) or "", f"score of {type(model).__name__}")
        display = cls(
            scores if _is_sets(X) else scores["rows"], bins=bins, threshold=threshold, xlabel=label
        )
        return display.plot(ax=ax)

    @with_matplotlib
    def plot(self, ax: Any = None) -> Self:
        """Draw the histograms.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw into; None makes a figure.

        Returns
        -------
        display : ScoreDisplay
            The display, whose `ax_` and `figure_` are set.
        """
        sets = {name: _checked(name, scores) for name, scores in _named(self.scores).items()}
        if not sets:
            raise ValueError("scores has no set; give one array or a mapping of names to arrays.")
        self._find_threshold(next(iter(sets.values())), sets)
        edges = self._edges(list(sets.values()))
        ax = single_axes(ax, (6.4, 4.0))
        for index, (name, scores) in enumerate(sets.items()):
            heights = np.histogram(scores, edges)[0] / len(scores) / np.diff(edges)
            label = name
            if self.shares_below_ is not None:
                label = f"{name}: {_percent(self.shares_below_[name])} below"
            ax.stairs(
                heights,
                edges,
                color=COLOURS[index % len(COLOURS)],
                linestyle=_STYLES[index % len(_STYLES)],
                linewidth=1.6,
                label=label,
            )
        if self.threshold_ is not None:
            ax.axvline(
                self.threshold_,
                color=ink(),
                linewidth=1.2,
                label=f"{_percent(float(self.threshold or 0))} quantile of {next(iter(sets))}",
            )
        ax.set_xlim(edges[0], edges[-1])
        ax.set_ylim(bottom=0)
        ax.set_xlabel(self._label(sets, edges))
        ax.set_ylabel("density (1 / nat)" if "nats" in self.xlabel else "density")
        if len(sets) > 1 or self.threshold_ is not None:
            ax.legend(fontsize="small")
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _find_threshold(self, first: Array, sets: dict[str, Array]) -> None:
        self.threshold_: float | None = None
        self.shares_below_: dict[str, float] | None = None
        if self.threshold is None:
            return
        share = self.threshold
        if not isinstance(share, float | np.floating) or not 0 < share < 1:
            raise ValueError(
                f"threshold={share!r} must be a float between 0 and 1, the share of the first set "
                "below the line, or None."
            )
        with np.errstate(invalid="ignore"):  # of scores that are -inf
            self.threshold_ = float(np.quantile(first, share))
        if not np.isfinite(self.threshold_):
            raise ValueError(
                f"threshold={share!r}, but the first set has NaN or infinite scores, and this "
                "quantile of them is not finite."
            )
        self.shares_below_ = {
            name: float(np.mean(scores < self.threshold_)) for name, scores in sets.items()
        }

    def _edges(self, sets: list[Array]) -> Array:
        if isinstance(self.bins, bool) or not isinstance(self.bins, str | int | np.integer):
            edges = np.asarray(self.bins, dtype=np.float64)
            if edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) > 0).all():
                raise ValueError(
                    f"bins={self.bins!r} must be a number of bins, the name of a rule, or rising "
                    "edges, at least two of them."
                )
            return edges
        ends = [_ends(scores) for scores in sets]
        first_low, first_high = ends[0]
        most = _MOST_SPANS * (first_high - first_low) or np.inf
        least, greatest = first_low - most, first_high + most
        # A set that is beyond the axis but for a few rows does not lengthen it.
        middles = [float(np.median(scores[np.isfinite(scores)])) for scores in sets]
        near = [
            end for end, middle in zip(ends, middles, strict=True) if least <= middle <= greatest
        ]
        low = max(min(low for low, _ in near), least)
        high = min(max(high for _, high in near), greatest)
        if self.threshold_ is not None:
            low, high = min(low, self.threshold_), max(high, self.threshold_)
        if not high > low:
            middle, half = low, max(abs(low) * 1e-3, 0.5)
            low, high = middle - half, middle + half
        if isinstance(self.bins, int | np.integer) and not 1 <= self.bins <= _MOST_BINS_GIVEN:
            raise ValueError(f"bins={self.bins} must be from 1 to {_MOST_BINS_GIVEN}.")
        if not isinstance(self.bins, str):
            return np.histogram_bin_edges(sets[0], self.bins, (low, high))
        # The rule is applied to each set, because its bins would be wide for sets that are far
        # apart; the bins drawn are between the narrowest and the widest.
        widths = [
            np.diff(np.histogram_bin_edges(inside, self.bins)[:2])[0]
            for scores in sets
            if len(inside := scores[(low <= scores) & (scores <= high)]) > 1
        ]
        widths = [width for width in widths if width > 0]
        width = np.exp(np.mean(np.log(widths))) if widths else (high - low) / 10
        n_bins = int(np.ceil((high - low) / width))
        return np.linspace(low, high, min(max(n_bins, 1), _MOST_BINS) + 1)

    def _label(self, sets: dict[str, Array], edges: Array) -> str:
        beyond = {
            name: float(np.mean(~((edges[0] <= scores) & (scores <= edges[-1]))))
            for name, scores in sets.items()
        }
        parts = [f"{_percent(share)} of {name}" for name, share in beyond.items() if share > 0]
        if not parts:
            return self.xlabel
        if len(parts) > 1 and sum(map(len, parts)) > 60:
            parts = [",\n".join(parts)]
        return f"{self.xlabel}\n(beyond the axis: {', '.join(parts)})"


def _is_sets(X: Any) -> bool:
    return isinstance(X, Mapping)


def _named(X: Any) -> dict[str, ArrayLike]:
    return {str(name): rows for name, rows in X.items()} if _is_sets(X) else {"rows": X}


def _checked(name: str, scores: Any) -> Array:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).any():
        raise ValueError(
            f"The scores of {name} have shape {values.shape} and {np.isfinite(values).sum()} "
            "finite values; expected (n_samples,) and at least one finite value."
        )
    return values


def _ends(scores: Array) -> tuple[float, float]:
    """Smallest and largest finite score that is no farther from the quartiles than the axis."""
    finite = scores[np.isfinite(scores)]
    low, high = np.quantile(finite, [0.25, 0.75])
    reach = _REACH * (high - low)
    if reach > 0:
        near = finite[(finite >= low - reach) & (finite <= high + reach)]
        return float(near.min()), float(near.max())
    return float(low), float(high)


def _percent(share: float) -> str:
    percent = 100 * share
    if percent == 0 or percent >= 10 or percent == round(percent):
        return f"{percent:.0f}%" if percent <= 99.5 or percent == 100 else f"{percent:.2f}%"
    return f"{percent:.2g}%"
