"""Densities of codes: fit, score_samples and sample, as scikit-learn's."""
