#!/usr/bin/env bash
# scikit-learn 1.9.1: a search of which every score failed refits its first candidate; a search of
# which every fit failed raises.
#
# A good engineer's guess: GridSearchCV raises if it has nothing to choose by. It does, with "All
# the 10 fits failed", if no candidate could be fitted.
# What happens: if the scorer raises for every candidate in every fold, fit warns, gives every
# candidate rank 1, and best_params_, best_estimator_ and predict are those of the first in the
# grid, with best_score_ nan. A program that goes on after warnings uses the order of its grid.
# error_score="raise" stops it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpy==2.4.6 scipy==1.17.1 scikit-learn==1.9.1
"$folder/venv/bin/python" - <<'PY'
import platform
import warnings

import numpy as np
import sklearn
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV

print("Python", platform.python_version(), "numpy", np.__version__, "scikit-learn", sklearn.__version__)

rng = np.random.default_rng(0)
X = rng.normal(size=(60, 3))
y = X.sum(1) + 0.1 * rng.normal(size=60)  # has negative values, of which no logarithm is taken
LOG = "neg_mean_squared_log_error"


def found(X, alphas, scoring, error_score=np.nan):
    search = GridSearchCV(Ridge(), {"alpha": alphas}, scoring=scoring, error_score=error_score)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        try:
            search.fit(X, y)
        except ValueError as error:
            return str(error).strip().splitlines()[0]
    kinds = {w.category.__name__ for w in seen}
    return (search.best_params_["alpha"], float(search.best_score_).__round__(3),
            search.cv_results_["rank_test_score"].tolist(), round(search.best_estimator_.score(X, y), 3),
            *sorted(kinds))


print("best alpha, its score, ranks, R2 of the refit estimator, categories of warnings")
cases = {
    "all scores exist": found(X, [1e5, 1.0], "r2"),
    "no fit works": found(X, [-1.0, -2.0], LOG),
    "no score works": found(X, [1e5, 1.0], LOG),
    "no score works, other order": found(X, [1.0, 1e5], LOG),
    "no score works, error_score='raise'": found(X, [1e5, 1.0], LOG, "raise"),
}
for name, result in cases.items():
    print(f"{name:36}", result)
assert cases["all scores exist"][:3:2] == (1.0, [2, 1])
assert cases["no fit works"] == "All the 10 fits failed."
for name, first in (("no score works", 1e5), ("no score works, other order", 1.0)):
    best, score, ranks, _, *kinds = cases[name]
    assert best == first and np.isnan(score) and ranks == [1, 1] and kinds == ["UserWarning"]
assert "Logarithmic Error cannot be used" in cases["no score works, error_score='raise'"]
print("as described")
PY
