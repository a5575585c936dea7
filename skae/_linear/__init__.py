"""Linear algebra and EM of linear Gaussian models, without torch."""
