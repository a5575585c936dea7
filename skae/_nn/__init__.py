"""Networks, likelihoods and distributions as torch functions and modules; no estimator."""
