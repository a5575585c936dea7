"""Linear algebra and EM of linear Gaussian models; no torch."""
