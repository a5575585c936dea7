"""What the scores of a model are: kinds of scores, and likelihoods of columns."""

from collections.abc import Mapping
from typing import Any, cast

from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.neighbors import KernelDensity
from sklearn.utils import get_tags

from skae._utils.types import ScoreKind

# Kinds of scores that are log-likelihoods of rows or bounds on them.
COMPARABLE = frozenset({"log_likelihood", "lower_bound"})
# Likelihoods that are densities. All other likelihoods are probabilities.
OF_DENSITIES = ("gaussian", "laplace", "continuous_bernoulli")


def kind_of_scores(model: Any) -> ScoreKind | None:
    """The `score_kind` of a model, or that of a density of scikit-learn's; None where unknown."""
    kind = getattr(model, "score_kind", None)
    if kind is not None:
        return cast(ScoreKind, kind)
    if isinstance(model, PCA | FactorAnalysis | KernelDensity):
        return "log_likelihood"
    tagged = hasattr(model, "__sklearn_tags__")
    density = tagged and get_tags(model).estimator_type == "density_estimator"
    return "log_likelihood" if density else None


def fitted_likelihoods(model: Any, n_features: int) -> list[str]:
    """Likelihood of each column under a fitted model; "gaussian" for models without a choice."""
    of_columns = getattr(model, "likelihoods_", None)
    if isinstance(of_columns, Mapping):
        return list(of_columns.values())
    chosen = getattr(model, "likelihood_", None) or getattr(model, "likelihood", None)
    return [chosen if isinstance(chosen, str) else "gaussian"] * n_features
