"""Mixtures of Gaussians and of cells, fitted to counts, without torch."""
