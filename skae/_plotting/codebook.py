"""How often rows use the entries of a codebook."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import entropy

from skae._plotting.canvas import (
    COLOURS,
    Array,
    check_matplotlib,
    grid_of_axes,
    ink,
    single_axes,
    with_matplotlib,
)
from skae._plotting.fitted import Fitted

# Bars of more entries touch each other.
_MOST_SEPARATE = 64


class CodebookDisplay:
    """How often rows use each entry of the codebook of a VQVAE.

    Bars are sorted from the entry that is used most to the one that is used least. The title states
    the perplexity, exp(-sum_k p_k log p_k) for the frequencies p_k of the entries. It is the
    effective number of entries in use: if n entries are used equally often, it is n. A dashed line
    shows equal use of all entries. Use :meth:`CodebookDisplay.from_estimator` to make one of a
    fitted estimator.

    Parameters
    ----------
    counts : array-like of shape (n_codes,) or (n_quantizers, n_codes)
        How often the rows use each entry, in the order of the codebook. If there are several
        quantizers, `counts` has one line for each of them.

    Attributes
    ----------
    perplexity_ : ndarray of shape (n_quantizers,)
        Perplexity of each quantizer, from 1 to `n_codes`.
    n_unused_ : ndarray of shape (n_quantizers,)
        Number of entries of each quantizer that no row uses.
    ax_ : matplotlib Axes or ndarray of Axes
        The axes. If there are several quantizers, an array with one Axes for each of them.
    figure_ : matplotlib Figure
        The figure.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import VQVAE
    >>> from skae.plotting import CodebookDisplay
    >>> X, _ = load_digits(return_X_y=True)
    >>> vqvae = VQVAE(n_codes=16, max_iter=2, random_state=0).fit(X[:300])
    >>> display = CodebookDisplay.from_estimator(vqvae, X)
    >>> display.counts.shape, int(display.counts.sum()) == len(X) * vqvae.n_components_
    ((1, 16), True)
    """

    def __init__(self, counts: ArrayLike) -> None:
        self.counts = counts

    @classmethod
    def from_estimator(cls, estimator: Any, X: ArrayLike, *, ax: Any = None) -> Self:
        """Count how often rows use each entry of the codebook, and draw the counts.

        Parameters
        ----------
        estimator : estimator, Pipeline or search
            A fitted VQVAE; a fitted Pipeline that contains one; or a fitted search over either.
        X : array-like of shape (n_samples, n_features)
            Rows.
        ax : matplotlib Axes, default=None
            Axes to draw into; None makes a figure. Several quantizers share the area of the
            axes.

        Returns
        -------
        display : CodebookDisplay
            The display, drawn.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError
            If the estimator has no codebook.
        """
        check_matplotlib(cls.__name__)
        fitted = Fitted(estimator)
        if not hasattr(fitted.model, "n_codes_"):
            raise TypeError(
                f"{cls.__name__} draws how often rows use the entries of a codebook, as VQVAE "
                f"has one; estimator={fitted.name} has none."
            )
        n_codes = int(fitted.model.n_codes_)
        n_quantizers = int(getattr(fitted.model, "n_quantizers", 1))
        codes = np.asarray(fitted.model.transform(fitted.read(X), output="indices"), dtype=np.int64)
        # The indices of a position stand side by side, one of each quantizer.
        counts = [
            np.bincount(codes[:, stage::n_quantizers].ravel(), minlength=n_codes)
            for stage in range(n_quantizers)
        ]
        return cls(np.array(counts)).plot(ax=ax)

    @with_matplotlib
    def plot(self, ax: Any = None) -> Self:
        """Draw how often each entry is used.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw into; None makes a figure.

        Returns
        -------
        display : CodebookDisplay
            The display, whose `ax_` and `figure_` are set.
        """
        counts = self._checked_counts()
        self.perplexity_ = np.exp(entropy(counts, axis=1))
        self.n_unused_ = (counts == 0).sum(axis=1)
        self.ax_: Any
        self.figure_: Any
        if len(counts) == 1:
            self.ax_ = single_axes(ax, (5.6, 3.6))
            self.figure_, cells, n_columns = self.ax_.figure, [self.ax_], 1
        else:
            n_columns = min(len(counts), 2) if ax is None else 1
            n_lines = -(-len(counts) // n_columns)
            size = (4.2 * n_columns, 2.6 * n_lines + 0.2)
            self.figure_, self.ax_ = grid_of_axes(ax, n_lines, n_columns, size, sharey=True)
            cells = list(self.ax_.ravel())
        for stage, values in enumerate(counts):
            self._draw(cells[stage], values, stage, several=len(counts) > 1)
        for cell in cells[: len(counts) - n_columns]:
            cell.set_xlabel("")
        for cell in cells[len(counts) :]:
            cell.set_axis_off()
        return self

    def _checked_counts(self) -> Array:
        counts = np.atleast_2d(np.asarray(self.counts, dtype=np.float64))
        if counts.ndim != 2 or not counts.size:
            raise ValueError(
                f"counts has shape {np.shape(self.counts)}; expected (n_codes,) or "
                "(n_quantizers, n_codes)."
            )
        if not np.isfinite(counts).all() or (counts < 0).any() or not counts.sum(axis=1).all():
            raise ValueError(
                "counts must be finite numbers of 0 or more, and one of each quantizer positive."
            )
        return counts

    def _draw(self, cell: Any, counts: Array, stage: int, *, several: bool) -> None:
        from matplotlib.ticker import MaxNLocator

        n_codes, n_unused = len(counts), int(self.n_unused_[stage])
        heights = np.sort(counts)[::-1]
        if n_codes <= _MOST_SEPARATE:
            cell.bar(np.arange(1, n_codes + 1), heights, color=COLOURS[0])
        else:
            edges = np.arange(n_codes + 1) + 0.5
            cell.stairs(heights, edges, fill=True, color=COLOURS[0])
        cell.axhline(counts.mean(), color=ink(), linestyle="--", linewidth=1.2)
        cell.annotate(
            "equal use",
            (1.0, counts.mean()),
            xycoords=("axes fraction", "data"),
            xytext=(-4, 3),
            textcoords="offset points",
            ha="right",
            fontsize="small",
        )
        bottom, top = cell.get_ylim()
        cell.set_ylim(bottom, max(top, 1.12 * counts.max()))
        title = f"perplexity {self.perplexity_[stage]:.1f} of {n_codes}, {n_unused} unused"
        cell.set_title(f"quantizer {stage + 1}: {title}" if several else title, fontsize="medium")
        cell.set_xlim(0.5 - 0.01 * n_codes, n_codes + 0.5 + 0.01 * n_codes)
        cell.set_xlabel("entry, by rank of use")
        cell.set_ylabel("number of codes")
        for axis in (cell.xaxis, cell.yaxis):
            axis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
        ticks = [tick for tick in cell.get_xticks() if 1 + 0.1 * n_codes < tick <= n_codes]
        cell.set_xticks([1, *ticks])
