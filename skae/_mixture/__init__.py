"""Mixtures of Gaussians and of cells, fitted to counts; no torch."""
