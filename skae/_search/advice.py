"""A warning if the scores of the estimators cannot be compared between candidates."""

from collections.abc import Mapping
from typing import Any

from skae._search.evaluation import Call, model_of
from skae._search.same_work import fingerprint, steps_of
from skae._utils.score_kinds import COMPARABLE, OF_DENSITIES, kind_of_scores
from skae._utils.warning import warn

_REMEDY = (
    "Set scoring. scoring=skae.metrics.log_likelihood_scorer ranks candidates by log-likelihoods "
    "of rows, or lower bounds on them, in the units of X for every scaler, and says why it refuses "
    "the others. To choose codes for a prediction task, put a classifier or regressor behind the "
    "model in a Pipeline and use scoring='accuracy' or 'r2'. To compare samples with held-out "
    "rows, use scoring=lambda model, X, y=None: -skae.metrics.frechet_distance(X, "
    "model.sample(10_000, random_state=0)). The scores of LinearAE, PPCA, VAE and VQVAE are "
    "likelihoods of rows or bounds on them, and can be compared between sizes."
)


def warn_of_scores(search: str, calls: list[Call]) -> None:
    """Warn if the scores of the candidates cannot be compared, or always increase with the size."""
    models = {}
    for call in calls:
        candidate = (call[2].get("candidate_progress") or (0,))[0]
        if candidate not in models:
            try:
                models[candidate] = steps_of(model_of(call))
            except Exception:  # the fit of the candidate will raise this error
                return
    why = _why_not(list(models.values()))
    if why is not None:
        warn(
            f"With scoring=None, {search} ranks the candidates by their own scores, {why} {_REMEDY}"
        )


def _why_not(candidates: list[list[Any]]) -> str | None:
    """Why the scores of the candidates cannot be compared; None if they can."""
    last = [steps[-1] for steps in candidates]
    kinds = {kind for step in last if (kind := kind_of_scores(step)) is not None}
    if not kinds:
        return None
    if len(kinds) > 1 and not kinds <= COMPARABLE:
        return f"which are of kinds that cannot be compared: {', '.join(sorted(kinds))}."
    if kinds == {"reconstruction"} and _differ([_size(step) for step in last]):
        return "which are reconstruction scores. These increase with the number of codes."
    if kinds == {"latent"} and _differ([_size(step) for step in last]):
        return (
            "which are densities of codes. These depend on the scale of the codes and cannot be "
            "compared."
        )
    if _differ([measure for step in last if (measure := _measure(step)) is not None]):
        return (
            "which are densities for some likelihoods and probabilities for others. These cannot "
            "be compared."
        )
    if _differ([tuple(map(fingerprint, steps[:-1])) for steps in candidates]):
        return (
            "which are densities of the rows that the earlier steps of the Pipeline return. These "
            "cannot be compared, because the earlier steps differ between the candidates."
        )
    return None


def _size(step: Any) -> Any:
    """The class of the model and the parameters that determine the number of codes."""
    params = step.get_params(deep=False)
    autoencoder = params.get("autoencoder")
    inner = None if autoencoder is None else fingerprint(autoencoder)
    return type(step), repr(params.get("n_components")), inner


def _measure(step: Any) -> Any:
    """Whether the likelihood of the columns is a density; None if no parameter says so."""
    likelihood = step.get_params(deep=False).get("likelihood")
    if isinstance(likelihood, Mapping):
        kinds = {name: kind in OF_DENSITIES for name, kind in likelihood.items()}
        return kinds if len(set(kinds.values())) > 1 else any(kinds.values())
    return None if likelihood in (None, "auto") else likelihood in OF_DENSITIES


def _differ(values: list[Any]) -> bool:
    return any(value != values[0] for value in values)
