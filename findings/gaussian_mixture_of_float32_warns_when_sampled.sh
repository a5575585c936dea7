#!/usr/bin/env bash
# scikit-learn 1.9.1: a GaussianMixture fitted to float32 rows warns whenever it is sampled.
#
# A good engineer's guess: since estimators of scikit-learn keep float32, a mixture of the codes
# that a torch network returns is fitted and sampled like any other.
# What happens: the covariances are float32, and symmetric only to about 1e-6. sample() gives them
# to the multivariate_normal of NumPy, whose test of symmetry and definiteness has a tolerance of
# 1e-8 for any type: every call gives a RuntimeWarning for each component, "covariance is not
# symmetric positive-semidefinite", although the draws are those of the fitted covariances, and
# are float64. Rows in float64 give none. A mixture of one component gives none either.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q scikit-learn==1.9.1 numpy==2.4.6 scipy==1.17.1
"$folder/venv/bin/python" - <<'PY'
import warnings
from importlib.metadata import version

import numpy as np
from sklearn.mixture import GaussianMixture

print(", ".join(f"{name} {version(name)}" for name in ("scikit-learn", "numpy", "scipy")))
rng = np.random.default_rng(0)
rows = rng.normal(size=(1400, 8)) @ rng.normal(size=(8, 8))
found = {}
for dtype in (np.float64, np.float32):
    for n_components in (1, 3):
        mixture = GaussianMixture(n_components, random_state=0).fit(rows.astype(dtype))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            drawn, _ = mixture.sample(20_000)
        covariances = mixture.covariances_
        skew = np.abs(covariances - covariances.swapaxes(1, 2)).max()
        name = dtype.__name__, n_components
        found[name] = [str(warning.message) for warning in caught]
        print(
            f"{name}: covariances {covariances.dtype}, asymmetry {skew:.0e}, draws {drawn.dtype}, "
            f"{len(caught)} warnings {sorted(set(found[name]))}"
        )
        # The draws have the covariance of the rows, with and without the warning.
        ratio = np.cov(drawn.T).trace() / np.cov(rows.T).trace()
        assert abs(ratio - 1) < 0.05, ratio
        assert drawn.dtype == np.float64
assert found["float64", 1] == found["float64", 3] == found["float32", 1] == []
assert found["float32", 3] == ["covariance is not symmetric positive-semidefinite."] * 3
print("as described")
PY
