"""The model that displays find in a Pipeline."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler

from helpers import low_rank_rows, network
from skae import PPCA, VAE
from skae._plotting.fitted import Fitted
from skae.plotting import (
    LatentSpaceDisplay,
    LearningCurveDisplay,
    ReconstructionDisplay,
    SampleDisplay,
    ScoreDisplay,
)

X = low_rank_rows(80)


@pytest.fixture(scope="module")
def nested():
    inner = make_pipeline(StandardScaler(), network(VAE, n_components=2))
    return make_pipeline(MinMaxScaler(), inner).fit(X)


def test_the_model_of_a_pipeline_in_a_pipeline_is_drawn(nested):
    vae = nested[-1][-1]
    read = nested[-1][0].transform(nested[0].transform(X))
    display = LatentSpaceDisplay.from_estimator(nested, X, posterior=True)
    np.testing.assert_allclose(display.codes, vae.transform(read))
    np.testing.assert_allclose(display.posterior[:, 0, 0], vae.posterior(read)[1][:, 0] ** 2)
    assert LearningCurveDisplay.from_estimator(nested).history == list(vae.history_)
    assert "lower bound" in ScoreDisplay.from_estimator(nested, X).xlabel
    back = nested[0].inverse_transform(nested[-1][0].inverse_transform(vae.reconstruct(read)))
    drawn = ReconstructionDisplay.from_estimator(nested, X).reconstructions
    np.testing.assert_allclose(drawn, back[:8])
    assert SampleDisplay.from_estimator(nested, random_state=0).samples.shape == (32, X.shape[1])


def test_a_classifier_may_stand_behind_a_pipeline_in_a_pipeline():
    inner = make_pipeline("passthrough", StandardScaler(), PPCA(2))
    whole = make_pipeline(inner, LogisticRegression()).fit(X, np.arange(80) % 2)
    assert Fitted(whole).model is whole[0][-1]
    np.testing.assert_allclose(
        LatentSpaceDisplay.from_estimator(whole, X).codes, whole[0].transform(X)
    )


def test_errors_name_the_step_as_the_user_did():
    class NoInverse(StandardScaler):
        @property
        def inverse_transform(self):
            raise AttributeError

    steps = [("mine", NoInverse()), ("identity", FunctionTransformer()), ("model", PPCA(2))]
    with pytest.raises(TypeError, match="the step 'mine' before PPCA has no inverse_transform"):
        ReconstructionDisplay.from_estimator(Pipeline(steps).fit(X), X)
