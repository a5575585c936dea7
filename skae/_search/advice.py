"""A warning where the estimators' own scores would choose the wrong candidate."""

import warnings
from collections.abc import Mapping
from typing import Any

from skae._search.evaluation import Call, model_of
from skae._search.same_work import fingerprint, steps_of

_DENSITIES = {"log_likelihood", "lower_bound"}
# Likelihoods under which values have a density; under others they have a probability.
OF_DENSITIES = ("gaussian", "laplace", "continuous_bernoulli")

_REMEDY = (
    "Give a scoring: what the codes are for, such as scoring='accuracy' or 'r2' with a classifier "
    "or regressor behind the model in a Pipeline; or how far samples are from held-out rows, "
    "scoring=lambda model, X, y=None: -skae.metrics.frechet_distance(X, model.sample(10_000, "
    "random_state=0)). The scores of LinearAE, PPCA, VAE and VQVAE, likelihoods of rows or bounds "
    "on them, rank sizes rightly."
)


def warn_of_scores(search: str, calls: list[Call]) -> None:
    """Warn if own scores of the candidates may not be compared, or like more codes always."""
    models = {}
    for call in calls:
        candidate = (call[2].get("candidate_progress") or (0,))[0]
        if candidate not in models:
            try:
                models[candidate] = steps_of(model_of(call))
            except Exception:  # its own fit says what is wrong
                return
    why = _why_not(list(models.values()))
    if why is not None:
        warnings.warn(
            f"{search} ranks candidates by their own scores here (scoring=None), {why} {_REMEDY}",
            UserWarning,
            stacklevel=8,  # who called fit of the search
        )


def _why_not(candidates: list[list[Any]]) -> str | None:
    """Why the scores of these steps may not be compared; None if they may."""
    last = [steps[-1] for steps in candidates]
    kinds = {kind for step in last if (kind := getattr(step, "score_kind", None)) is not None}
    if not kinds:
        return None
    if len(kinds) > 1 and not kinds <= _DENSITIES:
        return f"which are of kinds that may not be compared: {', '.join(sorted(kinds))}."
    if kinds == {"reconstruction"} and _differ([_size(step) for step in last]):
        return "reconstruction scores, which always like more codes."
    if kinds == {"latent"} and _differ([_size(step) for step in last]):
        return "densities of codes, which grow as codes shrink and may not be compared."
    if _differ([measure for step in last if (measure := _measure(step)) is not None]):
        return (
            "densities of values under some likelihoods and probabilities of values under others, "
            "which may not be compared."
        )
    if _differ([tuple(map(fingerprint, steps[:-1])) for steps in candidates]):
        return (
            "densities of rows that the steps before have changed, which may not be compared "
            "where these steps differ."
        )
    return None


def _size(step: Any) -> Any:
    """What says how many codes there are, and by which model."""
    params = step.get_params(deep=False)
    autoencoder = params.get("autoencoder")
    inner = None if autoencoder is None else fingerprint(autoencoder)
    return type(step), repr(params.get("n_components")), inner


def _measure(step: Any) -> Any:
    """Whether columns have densities, or else probabilities; None where no parameter tells."""
    likelihood = step.get_params(deep=False).get("likelihood")
    if isinstance(likelihood, Mapping):
        kinds = {name: kind in OF_DENSITIES for name, kind in likelihood.items()}
        return kinds if len(set(kinds.values())) > 1 else any(kinds.values())
    return None if likelihood in (None, "auto") else likelihood in OF_DENSITIES


def _differ(values: list[Any]) -> bool:
    return any(value != values[0] for value in values)
