"""Densities of codes with fit, score_samples and sample, as in scikit-learn."""
