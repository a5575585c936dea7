"""Settings of a density of codes as plain values, and those that training cannot change."""

from typing import Any

from skae._densities.network_density import (
    NETWORK_DENSITIES,
    UNUSED_BY,
    given_orderings,
    plain,
)
from skae._densities.network_sizes import sizes_for
from skae._densities.wrapped_estimators import fingerprint
from skae._modules.architecture import layer_sizes

# Default sizes in version 0.1.0, which did not depend on the number of rows.
_EARLIER_DEFAULTS = {"n_mixture": 30, "n_channels": 64, "max_iter": 50}


def check_density(density: Any) -> None:
    """Raise unless this is the name of a density or an estimator that can be used as one."""
    if isinstance(density, str):
        wrong = density not in NETWORK_DENSITIES
    else:
        wrong = isinstance(density, type) or not all(
            hasattr(density, name) for name in ("fit", "score_samples", "sample", "get_params")
        )
    if wrong:
        raise ValueError(
            f"density={density!r} must be one of {list(NETWORK_DENSITIES)}, or a "
            "scikit-learn estimator with fit, score_samples and sample."
        )


def settings_of(
    estimator: Any, n_rows: int | None, before: dict[str, Any] | None
) -> dict[str, Any]:
    """Return the settings of a LatentDensityEstimator as plain values.

    Sizes that are None are those of `before` if training continues, and otherwise the defaults for
    this number of rows; None rows mean a stream.
    """
    settings = {
        **fingerprints(estimator),
        "n_components": None if estimator.n_components is None else int(estimator.n_components),
        "density": estimator.density if isinstance(estimator.density, str) else "own",
        "support": plain(estimator.support),
    }
    if settings["density"] == "own":
        return settings
    sizes = sizes_for(settings["density"], n_rows)._asdict() | (before or {})

    def size(name: str) -> int:
        value = getattr(estimator, name)
        return int(sizes[name] if value is None else value)

    if settings["density"] == "flow":
        network = {"n_channels": size("n_channels"), "n_transforms": int(estimator.n_transforms)}
        return {**settings, **network}
    dilations = estimator.dilations
    return {
        **settings,
        "n_mixture": size("n_mixture"),
        "mixture_kind": estimator.mixture_kind,
        "n_channels": size("n_channels"),
        "filter_size": int(estimator.filter_size),
        "dilations": None if dilations is None else layer_sizes("dilations", dilations),
        "position_embedding": bool(estimator.position_embedding),
        "input_transform": estimator.input_transform,
        "divisive_normalization": bool(estimator.divisive_normalization),
        "orderings": given_orderings(estimator.orderings),
    }


def fingerprints(estimator: Any) -> dict[str, str | None]:
    """Return fingerprints of the wrapped estimators; those that can continue training are None."""
    wrapped = {"autoencoder": estimator.autoencoder}
    if not isinstance(estimator.density, str):
        wrapped["own"] = estimator.density
    return {
        name: "goes on" if getattr(part, "warm_start", False) else fingerprint(part)
        for name, part in wrapped.items()
    }


def check_unchanged(estimator: Any, settings: dict[str, Any], before: dict[str, Any]) -> None:
    """Raise if a parameter differs from the one with which training began."""
    changed = [name for name in settings if settings[name] != before.get(name)]
    if not changed:
        return
    name = "density" if changed[0] == "own" else changed[0]
    was = "" if name in ("autoencoder", "density") else f": it was {before[name]!r}"
    raise ValueError(
        f"{name}={getattr(estimator, name)!r} cannot change while training continues{was}. Fit "
        "anew with warm_start=False."
    )


def without_unused_defaults(state: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a model of version 0.1.0 with unused sizes set to None.

    Otherwise, the defaults of that version would be taken for values that the user has set.
    """
    kind = state["density"] if isinstance(state["density"], str) else "own"
    open_ones = {
        name: None
        for name, default in _EARLIER_DEFAULTS.items()
        if name in UNUSED_BY[kind] and state[name] == default
    }
    return state | open_ones
