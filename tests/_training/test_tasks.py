"""Tasks of a fit of several trainings, as scikit-learn's callbacks hear of them."""

import pytest
from sklearn.callback import ScoringMonitor
from sklearn.metrics import check_scoring
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skae
from helpers import make_rows, network
from skae import VQVAE, LatentDensityEstimator


class Heard:
    """The tasks that have begun, with their names and totals, and those that have ended."""

    max_propagation_depth = None

    def __init__(self):
        self.begun, self.ended = [], []

    def setup(self, estimator, context):
        """Nothing to prepare."""

    def teardown(self, estimator, context):
        """Nothing to close."""

    def on_fit_task_begin(self, estimator, context):
        self.begun.append((_path(context), context.max_subtasks))

    def on_fit_task_end(self, estimator, context):
        self.ended.append(_path(context))

    def epochs_within(self):
        """Number of epochs in each task that has any, by the names from the fit down."""
        found = {}
        for path in self.ended:
            if path[-1][0] == "epoch":
                names = tuple(path[:-1])
                found[names] = found.get(names, 0) + 1
        return found


def _path(context):
    path = []
    while context is not None:
        path.insert(0, (context.task_name, context.task_id))
        context = context.parent
    return tuple(path)


def test_the_prior_of_a_vqvae_is_a_training_of_its_own():
    """Its epochs are tasks, and do not count as those of the network, whose models are scored."""
    heard, model = Heard(), network(VQVAE, n_codes=8)
    monitor = ScoringMonitor(scoring={"nats": check_scoring(model)})
    model.set_callbacks(heard, monitor).fit(make_rows())
    fit = ("fit", 0)
    assert heard.epochs_within() == {
        (fit, ("network", 0)): model.n_iter_,
        (fit, ("prior", 1)): len(model.prior_history_),
    }
    totals = dict(heard.begun)
    assert totals[fit,] == 2
    assert totals[fit, ("network", 0)] == totals[fit, ("prior", 1)] == 4
    assert sorted(path for path, _ in heard.begun) == sorted(heard.ended)
    epochs = [row for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert len(epochs) == model.n_iter_


@pytest.mark.parametrize("prior", ["independent", None])
def test_a_single_training_has_no_name(prior):
    heard = Heard()
    network(VQVAE, n_codes=8, prior=prior).set_callbacks(heard).fit(make_rows())
    assert heard.epochs_within() == {(("fit", 0),): 4}
    assert dict(heard.begun)[("fit", 0),] == 4


def test_trials_are_trainings_of_their_own():
    """With max_iter=None, the totals are known when each training begins."""
    heard = Heard()
    model = network(max_iter=None, tol=None).set_callbacks(heard).fit(make_rows(30))
    fit, totals, epochs = ("fit", 0), dict(heard.begun), heard.epochs_within()
    trials = [(fit, ("trial", i)) for i in range(3)]
    assert totals[fit,] == 4
    assert all(0 < epochs[trial] <= totals[trial] for trial in trials)
    assert epochs.get((fit, ("network", 3)), 0) == totals[fit, ("network", 3)] == model.n_iter_


def test_trainings_of_several_starts():
    heard = Heard()
    network(VQVAE, n_codes=8, n_init=2).set_callbacks(heard).fit(make_rows())
    names = [tuple(name for name, _ in path) for path in heard.epochs_within()]
    assert sorted(names) == [
        ("fit", "start", "network"),
        ("fit", "start", "network"),
        ("fit", "start", "prior"),
        ("fit", "start", "prior"),
    ]


@pytest.mark.parametrize("density", ["autoregressive", GaussianMixture(random_state=0)])
def test_a_latent_density_estimator_is_a_task(density):
    """Also with a density of scikit-learn, which has no epochs; and behind a scaler."""
    heard = Heard()
    options = (
        {"n_channels": 4, "n_mixture": 2, "max_iter": 3} if density == "autoregressive" else {}
    )
    model = LatentDensityEstimator(network(), density=density, random_state=0, **options)
    make_pipeline(StandardScaler(), model).set_callbacks(heard).fit(make_rows())
    assert len({path for path, _ in heard.begun}) == len(heard.begun)
    assert {path for path, _ in heard.begun} == set(heard.ended)
    assert sum(heard.epochs_within().values()) == (3 if options else 0)


@pytest.mark.parametrize("search", [GridSearchCV, skae.GridSearchCV])
def test_epochs_within_a_search(search):
    """Each fit of a search has its epochs, with the networks trained one by one or together."""
    heard = Heard()
    candidates = {"n_components": [1, 2]}
    search(network(), candidates, cv=2, scoring=_zero).set_callbacks(heard).fit(make_rows())
    assert list(heard.epochs_within().values()) == [4] * 5


def _zero(model, X, y=None):
    return 0.0


def test_the_progress_bar_of_scikit_learn(capsys):
    """It shows the trainings by name."""
    pytest.importorskip("rich")
    from sklearn.callback import ProgressBar

    network(VQVAE, n_codes=8).set_callbacks(ProgressBar()).fit(make_rows())
    shown = capsys.readouterr().out
    assert "VQVAE - network #0" in shown
    assert "VQVAE - prior #1" in shown
