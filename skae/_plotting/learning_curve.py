"""Losses of training over epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, Self

import numpy as np

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

_PREFIXES = ("train_", "valid_")
# Terms of a loss that are squared distances of codes, and no nats.
_SQUARED_ERRORS = ("commitment", "codebook")
# Inches that a panel is wide at least, where axes are given.
_NARROWEST = 2.2
# Up to so many epochs, each is marked by a point.
_MOST_POINTS = 20


class LearningCurveDisplay:
    """Losses of training over epochs, a panel for each term of the loss.

    Losses of training rows are drawn as solid lines, those of held-out rows as dashed lines. Use
    :meth:`LearningCurveDisplay.from_estimator` to make one of a fitted estimator.

    Parameters
    ----------
    history : list of dict
        The losses of every epoch: `train_loss`, `valid_loss` and the terms of the loss, such as
        `train_kl` and `valid_kl`. Other entries are not drawn.
    prior_history : list of dict, default=None
        The losses of a prior that was trained after the model, in the same form. Their terms are
        called `prior_loss` and so on, and are drawn in separate panels.
    terms : list of str, default=None
        The terms to draw, such as "loss", "kl" and "prior_loss". None draws all of them.
    kept_epoch : int, default=None
        Epoch whose weights the model kept, counted from 1. It is marked by a dotted line. 0 means
        that the model kept its initial weights. None draws no line.
    step_name : str, default="epoch"
        Label of the horizontal axis of `history`.

    Attributes
    ----------
    ax_ : matplotlib Axes or ndarray of Axes
        The axes; an array of Axes if there are several terms.
    figure_ : matplotlib Figure
        The figure.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import VAE
    >>> from skae.plotting import LearningCurveDisplay
    >>> X, _ = load_digits(return_X_y=True)
    >>> vae = VAE(2, max_iter=3, early_stopping=True, random_state=0).fit(X[:300])
    >>> display = LearningCurveDisplay.from_estimator(vae)
    >>> [axes.get_title() for axes in display.ax_.ravel()]
    ['loss', 'reconstruction', 'kl']
    """

    def __init__(
        self,
        history: Sequence[Mapping[str, Any]],
        *,
        prior_history: Sequence[Mapping[str, Any]] | None = None,
        terms: Sequence[str] | None = None,
        kept_epoch: int | None = None,
        step_name: str = "epoch",
    ) -> None:
        self.history = history
        self.prior_history = prior_history
        self.terms = terms
        self.kept_epoch = kept_epoch
        self.step_name = step_name

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, terms: Sequence[str] | None = None, ax: Any = None
    ) -> Self:
        """Draw the losses that a fitted estimator recorded.

        Parameters
        ----------
        estimator : estimator, Pipeline or search
            A fitted model with `history_`, as all models with a network have, or with
            `log_likelihoods_` or `lower_bounds_` (PPCA fitted by EM) or `objectives_`
            (CountMixtureAE); a fitted Pipeline that contains such a model; or a fitted search over
            either.
        terms : list of str, default=None
            The terms to draw, such as "loss", "reconstruction" and "kl"; the terms of the prior of
            a VQVAE begin with `prior_`. None draws all of them.
        ax : matplotlib Axes, default=None
            Axes to draw into; None makes a figure. Several terms share the area of the axes.

        Returns
        -------
        display : LearningCurveDisplay
            The display, drawn.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError
            If the estimator recorded no losses, such as a model with a closed-form solution.
        ValueError
            If `terms` has a name that is not among the recorded terms.

        Notes
        -----
        A dotted line marks the epoch whose weights the model kept, if it is not the last epoch.
        With `early_stopping=True`, this is the epoch with the smallest held-out loss. The line is
        at epoch 0 if training did not improve on the linear start and the model kept it. There is
        no line for models that were loaded from a file, that were trained in several fits
        (`warm_start=True`), or that add their codes one by one (`latent_growth="incremental"`),
        because the display does not know which weights they kept.
        """
        check_matplotlib(cls.__name__)
        fitted = Fitted(estimator)
        model = fitted.model
        step_name, prior = "epoch", None
        history = getattr(model, "history_", None)
        if history is not None:
            history = list(history)
            prior = getattr(model, "prior_history_", None)
        elif hasattr(model, "log_likelihoods_"):
            step_name = "iteration"
            history = [{"train_log-likelihood": float(value)} for value in model.log_likelihoods_]
        elif hasattr(model, "lower_bounds_"):
            step_name = "iteration"
            history = [{"train_lower bound": float(value)} for value in model.lower_bounds_]
        elif hasattr(model, "objectives_"):
            step_name = "iteration"
            # Cells are chosen by counts that are held out.
            key = "valid_log-likelihood" if hasattr(model, "cells_") else "train_objective"
            history = [{key: float(value)} for value in model.objectives_]
        else:
            raise TypeError(
                f"{cls.__name__} draws the losses that training recorded in history_; "
                f"estimator={fitted.name} has none. Models with a network have one, and PPCA "
                'fitted with solver="em" and CountMixtureAE have the values of their iterations.'
            )
        display = cls(
            history,
            prior_history=None if prior is None else list(prior),
            terms=terms,
            kept_epoch=_kept_epoch(model, history),
            step_name=step_name,
        )
        return display.plot(ax=ax)

    @with_matplotlib
    def plot(self, ax: Any = None) -> Self:
        """Draw the losses over epochs.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw into; None makes a figure.

        Returns
        -------
        display : LearningCurveDisplay
            The display, whose `ax_` and `figure_` are set.
        """
        from matplotlib.axes import Axes

        curves = self._curves()
        self.ax_: Any
        self.figure_: Any
        if len(curves) == 1:
            axes = single_axes(ax, (5.6, 3.6))
            self.ax_, self.figure_ = axes, axes.figure
            cells, n_columns = [axes], 1
        else:
            n_columns = 2 if len(curves) in (2, 4) else 3
            if isinstance(ax, Axes):  # which may have little room
                figure: Any = ax.figure
                width = ax.get_window_extent().width / figure.dpi
                n_columns = min(n_columns, max(1, int(width / _NARROWEST)))
            n_lines = -(-len(curves) // n_columns)
            size = (3.3 * n_columns, 2.4 * n_lines + 0.3)
            self.figure_, self.ax_ = grid_of_axes(ax, n_lines, n_columns, size)
            cells = list(self.ax_.ravel())
        for cell, (term, (train, valid)) in zip(cells, curves.items(), strict=False):
            self._draw(cell, term, train, valid)
        for cell, below in zip(cells, cells[n_columns:], strict=False):
            if cell.get_xlabel() == below.get_xlabel():
                cell.set_xlabel("")
        for cell in cells[len(curves) :]:
            cell.set_axis_off()
        self._draw_legend(ax, cells[: len(curves)])
        return self

    def _curves(self) -> dict[str, tuple[Array, Array]]:
        """Losses of training and of held-out rows by term, NaN where an epoch has none."""
        curves = _curves_of("history", self.history)
        for term, values in _curves_of("prior_history", self.prior_history or []).items():
            curves[f"prior_{term}"] = values
        if not curves:
            raise ValueError(
                "history has no entry whose name begins with train_ or valid_; there is nothing "
                "to draw."
            )
        if self.terms is None:
            return curves
        terms = [self.terms] if isinstance(self.terms, str) else list(self.terms)
        unknown = [term for term in terms if term not in curves]
        if unknown or not terms:
            raise ValueError(
                f"terms={self.terms!r} must name recorded terms, which are {list(curves)}."
            )
        return {term: curves[term] for term in terms}

    def _draw(self, cell: Any, term: str, train: Array, valid: Array) -> None:
        from matplotlib.ticker import MaxNLocator

        of_prior = self.prior_history is not None and term.startswith("prior_")
        marker = "." if len(train) <= _MOST_POINTS else None
        epochs = np.arange(1, len(train) + 1)
        for values, style, colour, label in (
            (train, "-", COLOURS[0], "training rows"),
            (valid, "--", COLOURS[4], "held-out rows"),
        ):
            if np.isfinite(values).any():
                cell.plot(epochs, values, style, color=colour, marker=marker, label=label)
        if self.kept_epoch is not None and not of_prior:
            cell.axvline(
                self.kept_epoch,
                color=ink(),
                linestyle=":",
                label="weights kept: "
                + (
                    f"{self.step_name} {self.kept_epoch}"
                    if self.kept_epoch
                    else "those of the start"
                ),
            )
        cell.set_title("prior: " + term.removeprefix("prior_") if of_prior else term)
        squared = term.removeprefix("prior_") in _SQUARED_ERRORS
        cell.set_ylabel("squared error per row" if squared else "nats per row")
        cell.set_xlabel("epoch of the prior" if of_prior else self.step_name)
        cell.ticklabel_format(axis="y", useOffset=False)
        cell.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        cell.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
        if len(train) == 1:
            cell.set_xticks([0, 1] if self.kept_epoch == 0 else [1])

    def _draw_legend(self, ax: Any, cells: list[Any]) -> None:
        """One legend for all panels: in a panel that is alone, or else above the panels."""
        host: Any
        place: dict[str, Any]
        handles: dict[str, Any] = {}
        for cell in cells:
            for handle, label in zip(*cell.get_legend_handles_labels(), strict=True):
                handles.setdefault(label, handle)
        # With several panels, the legend is above all of them, or above the first one where axes
        # were given, whose figure has other contents.
        if len(cells) == 1:
            host, place = cells[0], {"loc": "best"}
        elif ax is None:
            host, place = self.figure_, {"loc": "outside upper center", "ncols": len(handles)}
        else:
            host = cells[0]
            place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 2.5}
        labels = list(handles)
        host.legend(list(handles.values()), labels, fontsize="small", **place)


def _curves_of(name: str, history: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Array, Array]]:
    if not all(isinstance(epoch, Mapping) for epoch in history):
        raise TypeError(f"{name} must be a list of dicts, one for each epoch.")
    terms: dict[str, None] = {"loss": None}
    for epoch in history:
        for key, value in epoch.items():
            if _is_loss(key, value):
                terms.setdefault(key[len(_PREFIXES[0]) :])
    curves = {}
    for term in terms:
        train, valid = (
            np.array(
                [
                    float(epoch[prefix + term]) if prefix + term in epoch else np.nan
                    for epoch in history
                ]
            )
            for prefix in _PREFIXES
        )
        if any(prefix + term in epoch for epoch in history for prefix in _PREFIXES):
            curves[term] = train, valid
    return curves


def _is_loss(key: Any, value: Any) -> bool:
    number = isinstance(value, Real) and not isinstance(value, bool | np.bool_)
    return isinstance(key, str) and key.startswith(_PREFIXES) and number


def _kept_epoch(model: Any, history: list[Any]) -> int | None:
    """The epoch whose weights a model kept, 0 for its start; None where that is not known."""
    net = vars(getattr(model, "net_", None) or object).get("at_start_")
    if net is None or not history:
        return None
    if net:
        return 0
    certain = (
        getattr(model, "early_stopping", False)
        and not getattr(model, "warm_start", False)
        and getattr(model, "latent_growth", None) != "incremental"
        and not model.net_.useful_untrained
    )
    losses = np.array([epoch.get("valid_loss", np.nan) for epoch in history], dtype=np.float64)
    if not certain or not np.isfinite(losses[-1]):
        return None
    best = int(np.nanargmin(losses)) + 1
    return best if best < len(history) else None
