"""The scores of a search over the number of codes, and those of PCA on the same folds."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator, clone, is_classifier, is_regressor
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV, check_cv
from sklearn.utils.validation import check_is_fitted

from skae._plotting.canvas import Array
from skae._plotting.fitted import best_estimator
from skae._plotting.score import LABELS
from skae._search.scikit_learn import is_own_score
from skae._utils.score_kinds import COMPARABLE, OF_DENSITIES, kind_of_scores

_SIZE = "n_components"

Curve = tuple[Array, Array]


class SearchScores(NamedTuple):
    """What a search found."""

    param: str  # the parameter that is the number of codes
    curves: dict[str, Curve]  # sizes, and scores (n_sizes, n_folds), by the other parameters
    chosen: tuple[str, int] | None
    label: str
    best: int  # the best candidate


def is_search(estimator: Any) -> bool:
    """Whether an estimator is a search, fitted or not."""
    return hasattr(estimator, "cv_results_") or (
        hasattr(estimator, "refit") and hasattr(estimator, "scoring")
    )


def search_scores(search: Any, param: str | None) -> SearchScores:
    """The held-out scores of a fitted search, by size and by the other parameters."""
    results = _results(search)
    candidates = results["params"]
    param = _checked_param(param, candidates)
    metric = _metric(search)
    folds = np.column_stack(
        [results[f"split{fold}_test_{metric}"] for fold in range(search.n_splits_)]
    )
    groups: dict[str, list[int]] = {}
    for index, name in enumerate(_names(search, candidates, param)):
        if param in candidates[index]:
            groups.setdefault(name, []).append(index)
    best = getattr(search, "best_index_", None)
    curves: dict[str, Curve] = {}
    chosen = None
    for name, members in groups.items():
        sizes = np.array([_checked_size(param, candidates[index][param]) for index in members])
        order = np.argsort(sizes, kind="stable")
        curves[name] = sizes[order], folds[members][order]
        if best in members:
            chosen = name, int(candidates[int(best)][param])
    if best is None:
        means = [
            np.nan_to_num(folds[i].mean(), nan=-np.inf) if param in candidates[i] else -np.inf
            for i in range(len(candidates))
        ]
        best = int(np.argmax(means))
    return SearchScores(
        param,
        curves,
        chosen,
        _label(search, metric),
        int(best),
    )


def pca_scores(search: Any, found: SearchScores, X: Any, y: Any) -> tuple[Curve | None, str | None]:
    """Sizes and scores of PCA in the place of the model; or None, and the reason for it."""
    candidate = search.cv_results_["params"][found.best]
    place = _place_of(found.param)
    if found.param.rpartition("__")[2] != _SIZE:
        return None, f"PCA has no {found.param}"
    why = _obstacle(search, place)
    if why is not None:
        return None, why
    try:
        folds = _folds(search, X, y)
    except (TypeError, ValueError):
        folds = None
    if folds is None:
        return None, "the folds of the search cannot be made again"
    sizes = np.unique(np.concatenate([sizes for sizes, _ in found.curves.values()])).astype(int)
    estimator: Any = PCA(random_state=0)
    if place:
        others = {
            name: value
            for name, value in candidate.items()
            if name != place and not name.startswith(f"{place}__")
        }
        estimator = clone(search.estimator).set_params(**{**others, place: estimator})
    again = GridSearchCV(
        estimator,
        {found.param: sizes.tolist()},
        scoring=search.scoring,
        cv=folds,
        refit=False,
        n_jobs=search.n_jobs,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sizes beyond those that PCA has on these rows
        try:
            again.fit(X, y)
        except ValueError:
            return None, "it cannot be fitted to these rows"
    scores = np.column_stack(
        [again.cv_results_[f"split{fold}_test_score"] for fold in range(len(folds))]
    )
    scored = np.isfinite(scores).all(axis=1)
    if not scored.any():
        return None, "it cannot be fitted to these rows"
    return (sizes[scored], scores[scored]), None


# ------------------------------------------------------------------------- what was searched


def _results(search: Any) -> dict[str, Any]:
    check_is_fitted(search, "cv_results_")
    results: dict[str, Any] = search.cv_results_
    if "iter" in results:
        raise TypeError(
            f"estimator={type(search).__name__} scored its candidates on different numbers of "
            "rows, and their scores make no curve. Use GridSearchCV or RandomizedSearchCV."
        )
    return results


def _checked_param(param: str | None, candidates: list[dict[str, Any]]) -> str:
    searched = list(dict.fromkeys(name for candidate in candidates for name in candidate))
    sizes = [name for name in searched if name == _SIZE or name.endswith(f"__{_SIZE}")]
    if param is not None:
        if param not in searched:
            raise ValueError(f"param={param!r} must be a searched parameter, one of {searched}.")
        return param
    if not sizes:
        raise ValueError(
            f"No searched parameter ends in {_SIZE}; the search has {searched}. Search over "
            f"{_SIZE}, or name the parameter of the number of codes by param."
        )
    if len(sizes) > 1:
        raise ValueError(f"param=None, but the search has {sizes}; name one of them by param.")
    return sizes[0]


def _checked_size(param: str, size: Any) -> int:
    if isinstance(size, bool) or not isinstance(size, int | np.integer):
        raise ValueError(
            f"The search tried {param}={size!r}; only whole numbers of codes can be drawn."
        )
    return int(size)


def _metric(search: Any) -> str:
    if not getattr(search, "multimetric_", False):
        return "score"
    if isinstance(search.refit, str):
        return search.refit
    raise ValueError(
        f"estimator={type(search).__name__} has several scores ({', '.join(search.scorer_)}) and "
        f"refit={search.refit!r}; set refit to the name of the one to draw."
    )


def _names(search: Any, candidates: list[dict[str, Any]], param: str) -> list[str]:
    """A name for each candidate, of the values of the parameters other than the size that vary."""
    sized = [candidate for candidate in candidates if param in candidate]
    others = [
        name
        for name in dict.fromkeys(name for candidate in candidates for name in candidate)
        if name != param and len({repr(candidate.get(name, "")) for candidate in sized}) > 1
    ]
    if not others:
        return [type(_model_of(search, param)).__name__] * len(candidates)
    last = [name.rsplit("__", 1)[-1] for name in others]
    short = dict(zip(others, last if len(set(last)) == len(last) else others, strict=True))
    # Classes name models, unless several models are of the same class.
    classes: dict[str, set[str]] = {}
    for candidate in sized:
        for value in candidate.values():
            classes.setdefault(type(value).__name__, set()).add(repr(value))

    def word(name: str, value: Any) -> str:
        if isinstance(value, BaseEstimator):
            kind = type(value).__name__
            return kind if len(classes[kind]) == 1 else " ".join(repr(value).split())
        return f"{short[name]}={value:g}" if isinstance(value, float) else f"{short[name]}={value}"

    return [
        ", ".join(word(name, candidate[name]) for name in others if name in candidate)
        for candidate in candidates
    ]


# --------------------------------------------------------------------------- what scores are


def _models(search: Any) -> list[Any]:
    """The last steps of the estimator with the parameters of each candidate."""
    found = []
    for candidate in search.cv_results_["params"]:
        estimator = clone(search.estimator).set_params(**clone(candidate, safe=False))
        found.append(_last_of(estimator))
    return found


def _last_of(estimator: Any) -> Any:
    return best_estimator(estimator.steps[-1][1]) if hasattr(estimator, "steps") else estimator


def _place_of(param: str) -> str:
    """The parameter that is the model whose size a parameter is; empty for the estimator itself."""
    return param.rpartition("__")[0]


def _model_of(search: Any, param: str) -> Any:
    """The model whose size was searched for."""
    estimator = getattr(search, "best_estimator_", search.estimator)
    place = _place_of(param)
    return estimator.get_params().get(place, estimator) if place else _last_of(estimator)


def _label(search: Any, metric: str) -> str:
    if metric != "score":
        return f"mean held-out {metric}"
    if not is_own_score(search.scorer_):
        name = search.scoring if isinstance(search.scoring, str) else "score (scoring)"
        return f"mean held-out {name.replace('_', ' ')}"
    last = _models(search)
    if all(is_classifier(model) for model in last):
        return "mean held-out accuracy"
    if all(is_regressor(model) for model in last):
        return "mean held-out R²"
    kinds = {kind_of_scores(model) for model in last}
    if len(kinds) == 1 and (kind := kinds.pop()) is not None:
        return f"mean held-out {LABELS[kind]}"
    if None not in kinds and kinds <= COMPARABLE:
        return "mean held-out log-likelihood, or lower bound on it (nats per row)"
    return "mean held-out score"


def _obstacle(search: Any, place: str) -> str | None:
    """Why scores of PCA may not be compared with those of the search; None if they may."""
    if getattr(search, "multimetric_", False):
        return "the search has several scores"
    last = _models(search)
    supervised = all(is_classifier(model) or is_regressor(model) for model in last)
    if supervised and place:
        return None
    if place and search.estimator.get_params().get(place) is not _last_of(search.estimator):
        return "scores are not those of the model itself"
    if not is_own_score(search.scorer_):
        return "candidates were ranked by scoring"
    if not {kind_of_scores(model) for model in last} <= COMPARABLE:
        return "scores are no log-likelihoods of rows"
    fitted = getattr(search, "best_estimator_", None)
    if not all(_has_density(model, None if fitted is None else _last_of(fitted)) for model in last):
        return "scores are probabilities, PCA's are densities"
    return None


def _has_density(model: Any, fitted: Any) -> bool:
    """Whether rows have a density under the likelihood of a model, and not a probability."""
    likelihood = model.get_params(deep=False).get("likelihood")
    if isinstance(likelihood, Mapping):
        return set(likelihood.values()) <= set(OF_DENSITIES)
    if likelihood == "auto":  # the data chose it
        chosen = getattr(fitted, "likelihood_", None)
        return chosen == "gaussian" or getattr(fitted, "noise_variance_", None) is not None
    return likelihood is None or likelihood in OF_DENSITIES


def _folds(search: Any, X: Any, y: Any) -> list[Any] | None:
    """The folds of the search; None where its splitter makes others every time."""
    splitter = check_cv(search.cv, y, classifier=is_classifier(search.estimator))
    first, second = list(splitter.split(X, y)), list(splitter.split(X, y))
    same = len(first) == len(second) == search.n_splits_ and all(
        np.array_equal(a, b)
        for one, two in zip(first, second, strict=True)
        for a, b in zip(one, two, strict=True)
    )
    return first if same else None
