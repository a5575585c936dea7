"""What notebooks show of a fitted model: a summary above scikit-learn's table of attributes."""

from collections.abc import Callable
from html import escape
from typing import Any

from sklearn.utils.validation import check_is_fitted

from skae._utils.validation import AttrsDict

# What the scores are, by `score_kind`.
SCORES = {
    "log_likelihood": "exact log-likelihood, nats per row",
    "lower_bound": "lower bound on the log-likelihood, nats per row",
    "reconstruction": "log-likelihood of the reconstruction, nats per row",
    "latent": "log-density of the codes, nats per row",
}

# Classes and colours are those of scikit-learn's tables, which also follow its themes.
_TABLE = """
        <div class="estimator-table">
            <details open>
                <summary>Fitted model</summary>
                <table class="parameters-table">
                  <tbody>
                    {rows}
                  </tbody>
                </table>
            </details>
        </div>
"""
_ROW = '<tr class="default"><td class="param">{}</td><td class="value">{}</td></tr>'


class FittedHTML(AttrsDict):
    """scikit-learn's table of the stored attributes of a model, below a summary of the model.

    Properties are not in the table, because some of them take long to compute. A value that cannot
    be shown, as in a model that is being fitted, is left out.
    """

    def __init__(self, estimator: Any, doc_link: str = "") -> None:
        shown = _stored(estimator) if _is_fitted(estimator) else {}
        super().__init__(fitted_attrs=shown, estimator_class=type(estimator), doc_link=doc_link)
        self._summary = summary(estimator) if shown else {}

    def _repr_html_inner(self) -> str:
        rows = (_ROW.format(escape(name), escape(text)) for name, text in self._summary.items())
        try:
            attributes = str(super()._repr_html_inner())
        except Exception:  # of the repr of an attribute
            attributes = ""
        return _TABLE.format(rows="\n".join(rows)) + attributes


def summary(estimator: Any) -> dict[str, str]:
    """Names and texts of what is most important in a fitted model."""
    lines: dict[str, Callable[[Any], str | None]] = {
        "score": lambda model: SCORES[model.score_kind],
        "latent size": lambda model: f"{model.n_components_} for {model.n_features_in_} features",
        "parameters": _n_parameters,
        "epochs": lambda model: str(model.n_iter_) if hasattr(model, "net_") else None,
        "iterations": lambda model: None if hasattr(model, "net_") else str(model.n_iter_),
        "best loss": _best_loss,
        "device": lambda model: str(model.net_.device),
    }
    found = {}
    for name, text_of in lines.items():
        try:
            text = text_of(estimator)
        except Exception:  # a representation never fails; models without it have no such line
            text = None
        if text is not None:
            found[name] = text
    return found


def _is_fitted(estimator: Any) -> bool:
    try:
        check_is_fitted(estimator)
    except Exception:  # not fitted, or in an undefined state
        return False
    return True


def _stored(estimator: Any) -> dict[str, Any]:
    """Public fitted attributes as scikit-learn's table reads them."""
    names = (name for name in sorted(vars(estimator)) if name[0] != "_" and name.endswith("_"))
    found: dict[str, Any] = {}
    for name in names:
        value = vars(estimator)[name]
        found[name] = {"type_name": type(value).__name__, "value": value}
        if hasattr(value, "shape") and hasattr(value, "dtype") and value.shape:
            found[name] |= {"shape": tuple(value.shape), "dtype": value.dtype}
    return found


def _n_parameters(model: Any) -> str:
    """Number of weights of a network, or of free parameters of another model."""
    if hasattr(model, "net_"):
        return f"{sum(p.numel() for p in model.net_.module_.parameters()):,} weights"
    if hasattr(model, "n_parameters_"):
        return f"{model.n_parameters_:,}"
    return f"{model._n_free_parameters():,}"


def _best_loss(model: Any) -> str | None:
    """The lowest loss, on held-out rows if there are any, and its epoch."""
    history = list(model.history_)
    of_valid = bool(history) and "valid_loss" in history[-1]
    key, rows = ("valid_loss", "held-out rows") if of_valid else ("train_loss", "training rows")
    losses = [(entry[key], entry["epoch"]) for entry in history if key in entry]
    if not losses:
        return None
    loss, epoch = min(losses)
    return f"{loss:.4g} nats per row ({rows}, epoch {epoch})"
