#!/usr/bin/env bash
# scikit-learn 1.9.1, ScoringMonitor: its documented default use and a plain function as scorer
# both fail, and without a target nothing is scored.
#
# A good engineer's guess: ScoringMonitor(scoring=None) logs the estimator's own score after
# every task, as GridSearchCV(scoring=None) ranks by it; a callable in scoring={...} is called with
# the sample weights of the fit, or without them.
# What happens:
#   fit(X) (no target)                       an entry is logged, without any score
#   scoring=None, fit(X, y)                  TypeError: 'float' object is not iterable
#   scoring={"name": function}, with weights AttributeError: ... '_accept_sample_weight'
#   scoring={"name": check_scoring(model)}   works in all cases that have a target
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpy==2.4.6 scipy==1.17.1 scikit-learn==1.9.1
"$folder/venv/bin/python" - <<'PY'
import platform

import numpy as np
import sklearn
from sklearn.base import BaseEstimator
from sklearn.callback import CallbackSupportMixin, ScoringMonitor, with_callbacks
from sklearn.metrics import check_scoring

print("Python", platform.python_version(), "numpy", np.__version__, "scikit-learn", sklearn.__version__)


class Mean(CallbackSupportMixin, BaseEstimator):
    """Learns the mean of y; one task."""

    @with_callbacks
    def fit(self, X, y=None, sample_weight=None):
        context = self._init_callback_context(max_subtasks=0)
        context.call_on_fit_task_begin(estimator=self, X=X, y=y)
        self.mean_ = 0.0 if y is None else float(np.average(y, weights=sample_weight))
        context.call_on_fit_task_end(
            estimator=self,
            X=X,
            y=y,
            metadata=None if sample_weight is None else {"sample_weight": sample_weight},
            reconstruction_attributes={"mean_": self.mean_},
        )
        return self

    def score(self, X, y, sample_weight=None):
        return -float(np.average((np.asarray(y) - self.mean_) ** 2, weights=sample_weight))


X, y, weight = np.zeros((4, 1)), np.array([0.0, 1.0, 2.0, 3.0]), np.array([1.0, 1.0, 1.0, 3.0])


def outcome(scoring, *arguments, **more):
    monitor = ScoringMonitor(scoring=scoring)
    try:
        Mean().set_callbacks(monitor).fit(X, *arguments, **more)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    known = {"task_id_path", "parent_task_id_path", "estimator_name", "task_name", "task_id",
             "sequential_subtasks"}
    return {k: v for k, v in monitor.get_logs().data[0].items() if k not in known}


found = {
    "scoring=None, no target": outcome(None),
    "scoring=None, target": outcome(None, y),
    "a function by name, weights": outcome({"s": lambda m, X, y: m.score(X, y)}, y, sample_weight=weight),
    "check_scoring by name": outcome({"s": check_scoring(Mean())}, y),
    "check_scoring by name, weights": outcome({"s": check_scoring(Mean())}, y, sample_weight=weight),
}
for case, result in found.items():
    print(f"{case:32} {result}")
assert found["scoring=None, no target"] == {}
assert "'float' object is not iterable" in found["scoring=None, target"]
assert "_accept_sample_weight" in found["a function by name, weights"]
assert found["check_scoring by name"] == {"s": -1.25}
assert abs(found["check_scoring by name, weights"]["s"] + 4 / 3) < 1e-12
print("as described")
PY
