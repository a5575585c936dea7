"""Saved states of skae 0.1.0 and earlier, in the form of today."""

from typing import Any

import numpy as np

from skae._utils.versions import has_format


def ppca_state(state: dict[str, Any]) -> dict[str, Any]:
    """The state of a PPCA with the parameters and attributes of today."""
    later = {"noise_variance": "auto", "loadings_prior": None, "rotation": None}
    if "solver" in state and not any(name in state for name in later):
        state = {**state, **later}
        if "loadings_" in state:
            state = {**state, "_rotation": None, "_spread": None}
    if has_format(state):
        return state
    # Old files do not say whether EM was used because of missing values.
    if "loadings_" in state and "_is_of_missing_values" not in state:
        state = {**state, "_is_of_missing_values": "log_likelihoods_" in state}
    # In old files, components_ were the axes.
    if "components_" in state and "axes_" not in state:
        n, variance = state["n_samples_"], state["explained_variance_"]
        state = {
            **state,
            "axes_": state["components_"],
            "components_": np.ascontiguousarray(state["loadings_"].T),
            "singular_values_": np.sqrt(variance * (n - 1)).astype(variance.dtype),
        }
    return state


def linear_ae_state(state: dict[str, Any]) -> dict[str, Any]:
    """The state of a LinearAE with the attributes of today."""
    if has_format(state):
        return state
    # In old files, components_ were the axes, also with alpha > 0.
    if "components_" in state and "axes_" not in state:
        axes = state["components_"]
        maps = axes if state["whiten"] or state["alpha"] == 0 else state["encoder_"]
        seen = state["n_samples_"]
        state = {**state, "axes_": axes, "components_": maps, "n_samples_seen_": seen}
    return state
