"""Networks, likelihoods and distributions as torch functions and modules, without estimators."""
