#!/usr/bin/env bash
# scikit-learn 1.9.1: by its tags KernelDensity is no density estimator, and its score is a sum where
# that of those which are is a mean.
#
# A good engineer's guess: get_tags(model).estimator_type is "density_estimator" for the estimators
# of densities, as DensityMixin is documented as the mixin of all of them, so that generic code finds
# them by it and may treat their log-likelihoods alike.
# What happens: only the two mixtures have the type. That of KernelDensity is None, and it is no
# DensityMixin. Its score is the total over the rows, so that the same rows twice have twice the
# score, and unequal folds of a cross-validation unequal weights; that of a mixture is the mean.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpy==2.4.6 scipy==1.17.1 scikit-learn==1.9.1
"$folder/venv/bin/python" - <<'PY'
import platform

import numpy as np
import sklearn
from sklearn.base import DensityMixin
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from sklearn.utils import get_tags
from sklearn.utils.discovery import all_estimators

print("Python", platform.python_version(), "numpy", np.__version__, "scikit-learn", sklearn.__version__)

mixins = sorted(name for name, kind in all_estimators() if issubclass(kind, DensityMixin))
print("estimators with DensityMixin:", mixins)
print("its documentation:", DensityMixin.__doc__.strip().splitlines()[0])
assert mixins == ["BayesianGaussianMixture", "GaussianMixture"]
assert "all density estimators in scikit-learn" in DensityMixin.__doc__

X = np.random.default_rng(0).normal(size=(200, 2))
found = {}
for model in (GaussianMixture(random_state=0), KernelDensity()):
    model.fit(X)
    twice = np.vstack([X, X])
    np.testing.assert_allclose(model.score_samples(twice[200:]), model.score_samples(X))
    name = type(model).__name__
    found[name] = get_tags(model).estimator_type, round(float(model.score(twice) / model.score(X)), 6)
    print(f"{name:16} estimator_type {found[name][0]}, score of the rows {model.score(X):.3f}, "
          f"of the same rows twice {model.score(twice):.3f}")
assert found == {"GaussianMixture": ("density_estimator", 1.0), "KernelDensity": (None, 2.0)}
print("as described")
PY
