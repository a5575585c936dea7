#!/usr/bin/env bash
# dask-ml 2025.1.0: PCA with svd_solver="auto" chooses "randomized" for wide arrays, with no power
# iterations. Its variances can then be wrong by half, and its axes are not those of PCA, without a warning.
#
# A good engineer's guess: "randomized" is as accurate as in scikit-learn, whose documentation dask-ml
# copies. There the randomized solver makes 4 or 7 power iterations, by iterated_power="auto", and
# variances are right to a percent or better.
# What happens: the default of dask-ml is iterated_power=0, and "auto" is not accepted. With variances
# that fall slowly, like 1/k, the axes are hardly better than random ones. iterated_power=4 mends it, and
# each iteration reads the array once more. svd_solver="tsqr" is exact and reads it once.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q dask-ml==2025.1.0 dask==2026.8.0 distributed==2026.8.0 \
    numpy==2.4.6 scikit-learn==1.9.1 pandas==3.1.1
OMP_NUM_THREADS=1 "$folder/venv/bin/python" - <<'PY'
import platform

import dask
import dask.array as da
import dask_ml
import numpy as np
import sklearn
from dask_ml.decomposition import PCA
from scipy.linalg import subspace_angles
from sklearn.decomposition import PCA as PCAOfScikitLearn

print("Python", platform.python_version(), "dask-ml", dask_ml.__version__, "dask", dask.__version__)
print("numpy", np.__version__, "scikit-learn", sklearn.__version__)

rng = np.random.default_rng(0)
X = rng.normal(size=(6000, 600)) * np.arange(1, 601) ** -0.5
lazy_X = da.from_array(X, chunks=(1000, 600))
exact = PCAOfScikitLearn(16, svd_solver="full").fit(X)


def errors(name, pca):
    variances = np.max(np.abs(pca.explained_variance_ / exact.explained_variance_ - 1))
    angles = np.degrees(subspace_angles(pca.components_.T, exact.components_.T))
    print(f"{name}: variances wrong by up to {variances:.1%}, largest angle {angles.max():.0f} degrees")
    return variances


# Output seen:
# scikit-learn, randomized: variances wrong by up to 0.0%, largest angle 1 degrees
# dask-ml, auto: variances wrong by up to 65.1%, largest angle 90 degrees
# dask-ml, iterated_power=4: variances wrong by up to 0.2%, largest angle 4 degrees
# dask-ml, tsqr: variances wrong by up to 0.0%, largest angle 0 degrees
ours = PCAOfScikitLearn(16, svd_solver="randomized", random_state=0).fit(X)
assert errors("scikit-learn, randomized", ours) < 0.03
assert errors("dask-ml, auto", PCA(16, random_state=0).fit(lazy_X)) > 0.3
four = PCA(16, svd_solver="randomized", iterated_power=4, random_state=0).fit(lazy_X)
assert errors("dask-ml, iterated_power=4", four) < 0.05
assert errors("dask-ml, tsqr", PCA(16, svd_solver="tsqr").fit(lazy_X)) < 1e-10
print("as described")
PY
