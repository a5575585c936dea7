"""What a density of codes is made by, as plain values, and what of it training cannot change."""

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

# Sizes of all densities, whatever the number of rows, of version 0.1.0.
_EARLIER_DEFAULTS = {"n_mixture": 30, "n_channels": 64, "max_iter": 50}


def check_density(density: Any) -> None:
    """Raise for what is neither the name of a density nor an estimator that is one."""
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
    """What a LatentDensityEstimator is made by, as plain values.

    Sizes that are left open are those of `before`, where training goes on, else those for
    so many rows; None in a stream.
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
        "weight_averaging": float(estimator.weight_averaging),
    }


def fingerprints(estimator: Any) -> dict[str, str | None]:
    """Of the estimators that it wraps; those that go on themselves may change."""
    wrapped = {"autoencoder": estimator.autoencoder}
    if not isinstance(estimator.density, str):
        wrapped["own"] = estimator.density
    return {
        name: "goes on" if getattr(part, "warm_start", False) else fingerprint(part)
        for name, part in wrapped.items()
    }


def check_unchanged(estimator: Any, settings: dict[str, Any], before: dict[str, Any]) -> None:
    """Raise if a parameter is another one than training went on with so far."""
    changed = [name for name in settings if settings[name] != before.get(name)]
    if not changed:
        return
    name = "density" if changed[0] == "own" else changed[0]
    was = "" if name in ("autoencoder", "density") else f": it was {before[name]!r}"
    raise ValueError(
        f"{name}={getattr(estimator, name)!r} cannot change while training goes on{was}. Fit "
        "anew, with warm_start=False."
    )


def without_unused_defaults(state: dict[str, Any]) -> dict[str, Any]:
    """The state of a model of version 0.1.0 whose unused sizes are left open, as today: the
    defaults of then would be taken for values that are set."""
    kind = state["density"] if isinstance(state["density"], str) else "own"
    open_ones = {
        name: None
        for name, default in _EARLIER_DEFAULTS.items()
        if name in UNUSED_BY[kind] and state[name] == default
    }
    return state | open_ones
