"""How the calls of a search are cut into pieces of work."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skae import PPCA
from skae._search.plan import make_plan

X = np.random.default_rng(0).normal(size=(30, 4))


def calls(estimator, name, values, n_splits):
    """As scikit-learn makes them: all folds of a candidate, then the next."""
    return [
        (
            None,
            (estimator, X, None),
            {
                "parameters": {name: value},
                "candidate_progress": (candidate, len(values)),
                "split_progress": (split, n_splits),
            },
        )
        for candidate, value in enumerate(values)
        for split in range(n_splits)
    ]


@pytest.mark.parametrize(
    ("n_jobs", "sizes"),
    [(1, [8] * 5), (2, [8, 8, 8, 8, 2, 2, 2, 2]), (5, [8] * 5), (16, [2] * 20)],
)
def test_with_jobs_to_spare_the_last_folds_are_cut(n_jobs, sizes):
    pipeline = make_pipeline(StandardScaler(), Ridge())
    plan = make_plan(calls(pipeline, "ridge__alpha", range(8), 5), n_jobs, False)
    assert [len(unit) for unit in plan.units] == sizes
    assert sorted(sum(plan.units, [])) == list(range(40))  # noqa: RUF017
    assert all(len({number % 5 for number in unit}) == 1 for unit in plan.units)  # of one fold


def test_sizes_of_one_fit_are_not_cut():
    plan = make_plan(calls(PPCA(), "n_components", [1, 2, 3, 9], 3), 16, False)
    assert plan.units == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    assert plan.alone == [9, 10, 11]  # more than there are features
    assert list(plan.reasons) == [3]
