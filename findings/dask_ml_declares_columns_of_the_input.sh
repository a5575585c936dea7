#!/usr/bin/env bash
# dask-ml 2025.1.0: the array that ParallelPostFit(...).transform returns declares as many columns as
# its input has, also if transform_meta is given, and slices of it differ from those of its values.
#
# A good engineer's guess: the lazy array has the shape that its values have. dask-ml runs transform
# on one row to learn what the result is like; if that were not enough, transform_meta, "an empty
# array that matches the output type", would say it.
# What happens: both give dask the type of the values only. The number of columns stays that of the
# input, so that a slice that counts from the end or that passes the declared end has other columns
# than the same slice of the values, or none. Nothing warns. predict_proba declares the right shape,
# and so does map_blocks of dask with chunks=...
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q dask-ml==2025.1.0 dask==2026.8.0 distributed==2026.8.0 \
    numpy==2.4.6 scikit-learn==1.9.1 pandas==3.1.1
"$folder/venv/bin/python" - <<'PY'
import platform

import dask
import dask.array as da
import dask_ml
import numpy as np
import sklearn
from dask_ml.wrappers import ParallelPostFit
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import PolynomialFeatures

print("Python", platform.python_version(), "dask-ml", dask_ml.__version__, "dask", dask.__version__)
print("numpy", np.__version__, "scikit-learn", sklearn.__version__)

X = np.random.default_rng(0).normal(size=(150, 4))
lazy_X = da.from_array(X, chunks=(50, 4))


def report(name, lazy):
    values = lazy.compute()
    print(f"{name}: declared {lazy.shape}, computed {values.shape}")
    return lazy.shape, values.shape


pca = PCA(2).fit(X)
plain = ParallelPostFit(pca).transform(lazy_X)
told = ParallelPostFit(pca, transform_meta=np.empty((0, 2))).transform(lazy_X)
assert report("PCA(2)", plain) == ((150, 4), (150, 2))
assert report("PCA(2), transform_meta of two columns", told) == ((150, 4), (150, 2))
for lazy in (plain, told):
    last = lazy[:, -2:].compute()
    print("    [:, -2:] computed", last.shape, "; of the values", lazy.compute()[:, -2:].shape)
    assert last.shape == (150, 0)
    np.testing.assert_allclose(lazy.compute(), pca.transform(X))

cubes = PolynomialFeatures(3).fit(X)
lazy = ParallelPostFit(cubes).transform(lazy_X)
assert report("PolynomialFeatures(3)", lazy) == ((150, 4), (150, 35))
columns = np.flatnonzero((lazy.compute() == lazy[:, -1].compute()[:, None]).all(0)).tolist()
print("    [:, -1] is column", *columns, "of the values")
assert columns == [3]

classifier = LogisticRegression().fit(X, X[:, 0] > 0)
lazy = ParallelPostFit(classifier).predict_proba(lazy_X)
assert report("predict_proba of two classes", lazy) == ((150, 2), (150, 2))

lazy = lazy_X.map_blocks(pca.transform, chunks=(lazy_X.chunks[0], (2,)), dtype=float)
assert report("map_blocks with chunks", lazy) == ((150, 2), (150, 2))
np.testing.assert_array_equal(lazy[:, -2:].compute(), lazy.compute())
print("as described")
PY
