"""How long networks train where that is left open."""

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback

from skae import PPCA, VAE, AdversarialAE, Autoencoder
from skae._training.length import Looks

IRIS = StandardScaler().fit_transform(load_iris().data)
CANCER = StandardScaler().fit_transform(load_breast_cancer().data)


def looks(figures, counts_start=True):
    found = Looks(counts_start)
    found.steps = list(range(0, 10 * len(figures), 10))
    found.figures = list(figures)
    return found


def test_the_best_figure_is_that_of_neighbours_together():
    falls_and_rises = [9.0, 5.0, 4.0, 3.0, 2.0, 3.0, 4.0, 5.0]
    assert looks(falls_and_rises).best_steps == 40
    one_lucky_look = [9.0, 5.0, 4.0, 2.0, 2.0, 2.0, 4.0, 5.0, 0.9, 9.0]
    assert looks(one_lucky_look).best_steps == 40
    assert looks([1.0, 5.0, 4.0, 3.0, 2.0]).best_steps == 0
    assert looks([1.0, 5.0, 4.0, 3.0, 2.0], counts_start=False).best_steps > 0


def test_of_figures_that_are_about_alike_the_earliest_counts():
    assert looks([9.0, 5.0, 1.0, 1.0005, 1.0004, 1.0, 1.0, 1.0, 1.0]).best_steps == 30


def test_a_curve_that_falls_to_the_end_still_gains():
    assert looks(np.linspace(9, 0, 30)).still_gains
    assert not looks([*np.linspace(9, 0, 10), *np.linspace(0, 9, 20)]).still_gains
    assert not looks(np.linspace(0, 9, 30)).still_gains  # the start is best


def test_trials_are_averaged_as_far_as_all_went():
    found = Looks.mean_of([looks([1.0, 3.0, 8.0]), looks([3.0, 5.0])])
    assert found.steps == [0, 10]
    assert found.figures == [2.0, 4.0]


class Epochs(Callback):
    """Counts the epochs that it hears of."""

    n = 0

    def on_epoch_end(self, net, **kwargs):
        self.n += 1


@pytest.mark.long
@pytest.mark.parametrize("Estimator", [Autoencoder, VAE])
def test_the_fit_is_that_of_as_many_epochs_with_a_cosine(Estimator):
    heard = Epochs()
    X = IRIS[::2]
    found = Estimator(2, callbacks=[heard], random_state=0).fit(X)
    assert heard.n == len(found.history_) == found.n_iter_ > 0
    given = Estimator(2, max_iter=found.n_iter_, learning_rate="cosine", random_state=0).fit(X)
    np.testing.assert_array_equal(found.transform(X), given.transform(X))
    np.testing.assert_array_equal(found.score_samples(X), given.score_samples(X))


def test_a_number_of_epochs_is_trained_at_a_constant_rate_as_before():
    params = {"max_iter": 3, "random_state": 0}
    left_open, constant = (
        Autoencoder(2, learning_rate=rate, **params).fit(IRIS) for rate in (None, "constant")
    )
    np.testing.assert_array_equal(left_open.transform(IRIS), constant.transform(IRIS))


@pytest.mark.long
def test_few_rows_of_many_columns_are_not_learned_by_heart():
    X = CANCER[::4]
    train, test = X[::2], X[1::2]
    vae, ppca = VAE(5, random_state=0).fit(train), PPCA(5).fit(train)
    long = VAE(5, max_iter=2000, random_state=0).fit(train)
    assert long.score(test) < ppca.score(test) - 5
    assert vae.score(test) > ppca.score(test) - 0.5


def test_where_held_out_rows_gain_nothing_the_linear_model_is_kept():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(150, 2)) @ rng.normal(size=(2, 6)) + 0.3 * rng.normal(size=(150, 6))
    model = VAE(2, learning_rate_init=1.0, random_state=0)
    with pytest.warns(ConvergenceWarning, match=r"linear model .* Lower learning_rate_init"):
        model.fit(X)
    assert model.n_iter_ == 0
    np.testing.assert_allclose(model.score_samples(X), PPCA(2).fit(X).score_samples(X), atol=1e-3)


@pytest.mark.long
def test_an_adversarial_ae_trains_for_200_epochs_at_least():
    model = AdversarialAE(2, batch_size=30, random_state=0).fit(IRIS[::7])
    assert model.n_iter_ >= 200


def test_of_many_rows_some_are_held_out_of_training_itself():
    X = np.random.default_rng(0).normal(size=(10_001, 3)).astype(np.float32)
    model = VAE(1, n_iter_no_change=1, batch_size=2048, random_state=0).fit(X)
    assert "valid_loss" in model.history_[0]
    assert model.n_iter_ < 200


@pytest.mark.parametrize(
    "params",
    [{"early_stopping": True, "n_iter_no_change": 2}, {"tol": 1e3, "n_iter_no_change": 2}],
    ids=str,
)
def test_what_ends_training_otherwise_needs_no_trial(params):
    model = VAE(2, random_state=0, **params).fit(IRIS)
    assert 0 < model.n_iter_ < 200
    short = VAE(2, max_iter=model.n_iter_, random_state=0).fit(IRIS)
    if "tol" in params:  # at a constant rate, on all rows
        np.testing.assert_array_equal(model.transform(IRIS), short.transform(IRIS))


def test_of_few_rows_the_linear_start_is_the_fit():
    model = VAE(2, random_state=0).fit(IRIS[::8])
    assert model.n_iter_ == 0
    np.testing.assert_allclose(
        model.score_samples(IRIS), PPCA(2).fit(IRIS[::8]).score_samples(IRIS), atol=1e-3
    )


def test_epochs_that_are_a_clock_and_those_of_lbfgs_need_no_trial():
    assert VAE(2, max_iter=0, random_state=0).fit(IRIS)._by_trial()
    for model in (
        VAE(2, beta_warm_up=3),
        Autoencoder(2, latent_growth="incremental"),
    ):
        assert not model.set_params(max_iter=2, random_state=0).fit(IRIS)._by_trial()
    model = Autoencoder(1, hidden_layer_sizes=(), solver="lbfgs", random_state=0).fit(IRIS[:25])
    assert model.n_iter_ == 200


def test_rows_that_do_not_vary_need_no_trial():
    heard = Epochs()
    Autoencoder(1, callbacks=[heard], random_state=0).fit(np.ones((30, 2)))
    assert heard.n == 200


@pytest.mark.long
def test_a_second_fit_is_the_same():
    first, second = (Autoencoder(2, random_state=3).fit(IRIS[::7]) for _ in range(2))
    assert first.n_iter_ == second.n_iter_
    np.testing.assert_array_equal(first.transform(IRIS), second.transform(IRIS))
