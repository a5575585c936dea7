"""What is known of estimators before they may share work."""

import numpy as np
import pytest
from sklearn.decomposition import PCA, KernelPCA, TruncatedSVD
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, KBinsDiscretizer, StandardScaler
from sklearn.svm import SVC

from helpers import network
from skae import PPCA
from skae._search.same_work import (
    Keys,
    family,
    fingerprint,
    is_known,
    is_network,
    is_repeatable,
    steps_of,
)


class Foreign(StandardScaler):
    pass


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        (StandardScaler(), True),
        (StandardScaler(copy=False), False),
        (Foreign(), False),
        (make_pipeline(StandardScaler(), Foreign()), False),
        (make_pipeline("passthrough", None), True),
        (FunctionTransformer(np.log1p), True),
        (FunctionTransformer(lambda X: X), False),
        (SelectKBest(f_classif), True),
        (SVC(kernel=lambda A, B: A @ B.T), False),
        (PPCA(), True),
        (network(), True),
    ],
)
def test_who_is_known_to_write_on_no_rows(estimator, expected):
    assert is_known(estimator) is expected


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (StandardScaler(), True),
        (TruncatedSVD(), False),
        (TruncatedSVD(random_state=np.int64(3)), True),
        (TruncatedSVD(random_state=np.random.RandomState(3)), False),
        (make_pipeline(StandardScaler(), KBinsDiscretizer()), False),
        (make_pipeline(StandardScaler(), KBinsDiscretizer(random_state=0)), True),
        (network(), True),
    ],
)
def test_what_gives_the_same_twice(step, expected):
    assert is_repeatable(step) is expected


def test_fingerprints_tell_parameters_classes_and_output_apart():
    steps = [
        StandardScaler(),
        StandardScaler(with_mean=False),
        StandardScaler().set_output(transform="pandas"),
        Foreign(),
        PCA(2),
        PCA(3),
        PCA(2.0),
        KernelPCA(2, kernel_params={"a": 1}),
    ]
    prints = [fingerprint(step) for step in steps]
    assert len({*prints}) == len(steps)
    assert prints[0] == fingerprint(StandardScaler())
    assert fingerprint(FunctionTransformer(lambda X: X)) is None  # nobody can tell
    assert fingerprint(PCA().fit(np.eye(3))) != fingerprint(PCA())


def test_a_family_differs_in_its_size_only():
    assert family(PCA(2)) == family(PCA("mle")) is not None
    assert family(PCA(2)) != family(PCA(2, whiten=True))
    assert family(PCA(2)) != family(PPCA(2))
    assert family(StandardScaler()) is None
    assert family("passthrough") is None
    step = PCA(2)
    assert family(step)
    assert step.n_components == 2


def test_keys_are_those_before_a_fit():
    keys, step = Keys(), PCA(2)
    before = keys.fingerprint(step), keys.family(step)
    step.fit(np.eye(3))
    assert (keys.fingerprint(step), keys.family(step)) == before
    assert keys.path([step, None]) == (before[0], fingerprint(None))


def test_steps_are_those_that_rows_pass():
    scale, last = StandardScaler(), SVC()
    assert steps_of(make_pipeline(scale, "passthrough", None, last)) == [scale, last]
    assert steps_of(last) == [last]
    assert steps_of(make_pipeline(scale, None)) == [scale, None]
    for option in ({"memory": "folder"}, {"verbose": True}, {"transform_input": ["X"]}):
        pipeline = make_pipeline(scale, last, **option)
        assert steps_of(pipeline) == [pipeline]


def test_networks_are_those_with_a_seed():
    assert is_network(network())
    assert not is_network(network(random_state=None))
    assert not is_network(network(random_state=np.random.RandomState(0)))
    assert not is_network(PPCA(random_state=0))
    assert not is_network("passthrough")
