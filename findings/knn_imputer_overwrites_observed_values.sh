#!/usr/bin/env bash
# scikit-learn 1.9.1: KNNImputer(keep_empty_features=True) replaces observed values by zero, in
# columns that had no observed value in fit.
#
# A good engineer's guess: an imputer fills in missing values and returns observed values unchanged,
# as SimpleImputer and IterativeImputer do, also in columns that were empty in fit. There,
# keep_empty_features=True says what stands in place of missing values: zero.
# What happens: transform of KNNImputer sets the whole column to zero. A value that is observed in
# new rows is lost without a warning. The parameter's documentation says that empty columns are
# imputed with 0, and not that observed values are.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q scikit-learn==1.9.1 numpy==2.4.6 scipy==1.17.1
"$folder/venv/bin/python" - <<'PY'
import platform
import warnings

import numpy as np
import sklearn
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

warnings.simplefilter("ignore")
print("Python", platform.python_version(), "numpy", np.__version__, "scikit-learn",
      sklearn.__version__)
rows = np.array([[1.0, np.nan], [2.0, np.nan], [3.0, np.nan]])
new = np.array([[1.5, 7.0], [np.nan, 8.0]])
found = {}
for Imputer in (SimpleImputer, IterativeImputer, KNNImputer):
    imputer = Imputer(keep_empty_features=True).fit(rows)
    found[Imputer.__name__] = imputer.transform(new)[:, 1].tolist()
    print(f"{Imputer.__name__:17} observed [7.0, 8.0] become {found[Imputer.__name__]}")
assert found["SimpleImputer"] == found["IterativeImputer"] == [7.0, 8.0]
assert found["KNNImputer"] == [0.0, 0.0]
PY
# Output seen:
# Python 3.11.7 numpy 2.4.6 scikit-learn 1.9.1
# SimpleImputer     observed [7.0, 8.0] become [7.0, 8.0]
# IterativeImputer  observed [7.0, 8.0] become [7.0, 8.0]
# KNNImputer        observed [7.0, 8.0] become [0.0, 0.0]
