"""A network that is trained within a stack learns what it would learn by itself."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.callback import ScoringMonitor
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import check_scoring
from torch import nn

from helpers import At, learned, make_rows, network
from skae import VAE, VQVAE, AdversarialAE, Autoencoder, HelmholtzMachine
from skae._training import length, stackable
from skae._training.callbacks import StopWhenFlat
from skae._training.contexts import is_stacking
from skae._training.module import TrainableModule
from skae._training.together import run_together
from skae._training.trainer import TrainingOptions

# Of scores, relative to those above 1; of weights, losses and averages of gradients.
SCORES, ROUNDING = 1e-4, 2e-4

X = make_rows(72)
GAPS = make_rows(72, gaps=0.1)
COINS = (X.mean(axis=0) < X).astype(np.float32)
COUNTS = np.floor(np.abs(X))
WEIGHT = np.random.default_rng(1).uniform(0.2, 2.0, len(X))
LABELS = np.arange(len(X)) % 3
# Rows to learn from: in three batches of 16 each, the last of which are of 17, 8, 9 and 7 rows.
FOLDS = [np.arange(49), np.arange(20, 60), np.r_[0:20, 51:72], np.arange(30, 69)]


def fits(models, rows=X, folds=None, weight=None, y=None):
    """Calls that fit copies of models to folds, and score the other rows; each has two of the
    folds unless all of them are given."""

    def fit(model, fold):
        kwargs = {} if weight is None else {"sample_weight": weight[fold]}
        labels = () if y is None else (y[fold],)
        others = np.setdiff1d(np.arange(len(rows)), fold)
        fitted = type(model)(**model.get_params()).fit(rows[fold], *labels, **kwargs)
        labels = () if y is None else (y[others],)
        return fitted, fitted.score(rows[others], *labels)

    of_models = [(m, folds or (FOLDS[i % 4], FOLDS[(i + 1) % 4])) for i, m in enumerate(models)]
    return [lambda m=m, fold=fold: fit(m, fold) for m, some in of_models for fold in some]


def assert_close(actual, expected, tol=ROUNDING):
    """All that two fits left behind, but for the seconds that epochs took."""
    assert actual.n_iter_ == expected.n_iter_
    actual, expected = learned(actual), learned(expected)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, (np.ndarray, torch.Tensor, float, np.floating)):
            largest = np.abs(np.nan_to_num(np.asarray(value))).max(initial=0.0)
            np.testing.assert_allclose(
                actual[name], value, rtol=tol, atol=tol * min(1.0, largest) + 1e-7, err_msg=name
            )
        elif not isinstance(value, (TrainableModule, torch.Generator)):
            assert actual[name] == value, name


def assert_trained_alike(calls, n_stacks=1, tol=ROUNDING):
    """That the calls give together what each gives by itself, in so many stacks of all of them."""
    report = []
    together = run_together(calls, report=report)
    stacks = [training for training in report if training.obstacle is None]
    assert len(stacks) == n_stacks, report
    assert sorted({i for training in stacks for i in training.calls}) == list(range(len(calls)))
    for call, (model, score) in zip(calls, together, strict=True):
        alone, expected = call()
        assert abs(score - expected) <= SCORES * max(1.0, abs(expected))
        assert_close(model, alone, tol)
    return [model for model, _ in together]


def several(model=Autoencoder, **params):
    """Models of eight epochs, one for each of the values that the longest of the lists holds."""
    n = max(len(value) for value in params.values() if isinstance(value, list))
    return [
        network(
            model,
            **{
                "max_iter": 8,
                **{k: v[i % len(v)] if isinstance(v, list) else v for k, v in params.items()},
            },
        )
        for i in range(n)
    ]


SIZES = [1, 3, 2]
AUTOENCODERS = {
    "sizes": {"n_components": SIZES},
    "linear start": {"n_components": SIZES, "init": "linear"},
    "seeds and decay": {"n_components": [1, 2], "random_state": [0, 1, 2], "alpha": [0.0, 0.3]},
    "rates": {"n_components": SIZES, "learning_rate_init": [1e-3, 1e-2, 3e-3]},
    "noise variance": {"noise_variance": [0.5, 2.0], "n_components": SIZES},
    "numbers of any type": {"noise_variance": [0.5, 1, np.float64(2.0)]},
    "noise variance, learned": {"noise_variance": "per_feature", "n_components": SIZES},
    "momentum": {
        "solver": "sgd",
        "learning_rate_init": 0.01,
        "momentum": [0.0, 0.5, 0.9],
        "alpha": [0.1, 0.0],
        "n_components": SIZES,
    },
    "adamw": {"solver": "adamw", "alpha": [0.0, 0.1, 1.0], "n_components": SIZES},
    "cosine": {"learning_rate": "cosine", "learning_rate_init": 0.01, "max_iter": [3, 8, 5]},
    "schedules": {"learning_rate": ["cosine", "constant", "invscaling"], "n_components": SIZES},
    "adaptive": {
        "learning_rate": ["adaptive", "adaptive", "cosine"],
        "tol": 0.05,
        "learning_rate_init": [0.01, 0.05],
        "n_iter_no_change": 50,
        "n_components": SIZES,
    },
    "averages": {"weight_averaging": [0.5, 0.9, 0.99], "n_components": SIZES},
    "averages of equal networks": {"weight_averaging": [0.5, 0.9]},
    "averages, held-out rows": {
        "weight_averaging": [0.5, 0.9],
        "early_stopping": True,
        "n_components": SIZES,
    },
    "averages, epochs": {"weight_averaging": 0.9, "max_iter": [3, 8, 5]},
    "batch sizes": {"batch_size": [18, 16, 15], "n_components": SIZES},
    "noise": {"noise": [None, "gaussian", "masking"], "noise_level": [0.3, 0.2, 0.1]},
    "ends of the range": {
        "noise": "salt_and_pepper",
        "noise_level": [0.3, 0.1],
        "n_components": SIZES,
    },
    "sparsity": {"sparsity": [0.1, 0.3], "sparsity_weight": [0.5, 2.0], "n_components": SIZES},
    "tied": {"tied_weights": True, "n_components": SIZES},
    "nested": {"latent_growth": "nested", "n_components": SIZES},
    "incremental": {"latent_growth": "incremental", "n_components": SIZES, "random_state": [0, 1]},
    "no hidden layer": {"hidden_layer_sizes": (), "n_components": SIZES},
}
OTHERS = {
    "vae": (VAE, {"n_components": SIZES, "beta": [0.5, 1.5, 2.0], "random_state": [0, 1]}),
    "vae, free bits": (VAE, {"n_components": SIZES, "free_bits": [0.05, 0.2, 0.1]}),
    "vae, averages": (
        VAE,
        {"weight_averaging": [0.9, 0.5], "noise_variance": "per_feature", "n_components": SIZES},
    ),
    "helmholtz, averages": (
        HelmholtzMachine,
        {"weight_averaging": [0.9, 0.5], "n_components": SIZES, "hidden_layer_sizes": (3,)},
    ),
    "adversarial, averages": (
        AdversarialAE,
        {"weight_averaging": [0.9, 0.5], "prior": "mixture", "n_components": SIZES},
    ),
    "vae, warm-up": (VAE, {"n_components": SIZES, "beta_warm_up": [10, 5], "beta": [0.5, 2.0]}),
    "vae, mixture": (VAE, {"prior": "mixture", "random_state": [0, 1], "alpha": [0.0, 0.1]}),
    "vae, vamp": (VAE, {"prior": "vamp", "random_state": [0, 1]}),
    "adversarial": (
        AdversarialAE,
        {"n_components": SIZES, "alpha": [0.0, 0.1], "random_state": [0, 1]},
    ),
    "adversarial, Gaussian": (AdversarialAE, {"posterior": "gaussian", "n_components": SIZES}),
    "adversarial, mixture": (
        AdversarialAE,
        {"prior": "mixture", "n_components": SIZES, "learning_rate": "cosine"},
    ),
    "adversarial, numbers of any type": (
        AdversarialAE,
        {"discriminator_learning_rate_init": [1e-3, np.float64(2e-3)], "random_state": [0, 1]},
    ),
    "adversarial, divergence": (
        AdversarialAE,
        {"adversarial_weight": [1.0, 5.0], "n_components": SIZES, "random_state": [0, 1]},
    ),
    "adversarial, sgd": (
        AdversarialAE,
        {"solver": "sgd", "learning_rate_init": 0.01, "n_components": SIZES, "momentum": [0, 0.9]},
    ),
}


@pytest.mark.parametrize("params", AUTOENCODERS.values(), ids=AUTOENCODERS)
def test_autoencoders_learn_what_each_learns_alone(params):
    assert_trained_alike(fits(several(**params)))


@pytest.mark.parametrize(("model", "params"), OTHERS.values(), ids=OTHERS)
def test_others_learn_what_each_learns_alone(model, params):
    assert_trained_alike(fits(several(model, **params)))


def test_bfloat16_is_as_near_as_its_rounding():
    """Whose products of a batch are not rounded as those of each."""
    calls, report = fits(several(precision="bfloat16", random_state=[0, 1])), []
    for call, (fitted, score) in zip(calls, run_together(calls, report=report), strict=True):
        alone, expected = call()
        assert score == pytest.approx(expected, rel=1e-3)
        losses = [[epoch["train_loss"] for epoch in m.history_] for m in (fitted, alone)]
        np.testing.assert_allclose(*losses, rtol=1e-2)
    assert [training.obstacle for training in report] == [None]


@pytest.mark.parametrize("model", [Autoencoder, VAE, AdversarialAE])
def test_weights_of_rows_and_gaps(model):
    """Whose folds have unequal numbers of seen values, too."""
    models = several(model, n_components=SIZES)
    assert_trained_alike(fits(models, rows=GAPS, weight=WEIGHT))
    assert_trained_alike(fits(models[1:], rows=GAPS, folds=FOLDS[2:]))


@pytest.mark.parametrize("likelihood", ["bernoulli", "poisson"])
def test_likelihoods_of_coins_and_counts(likelihood):
    rows = COINS if likelihood == "bernoulli" else COUNTS
    assert_trained_alike(fits(several(VAE, likelihood=likelihood, n_components=SIZES), rows=rows))


def test_codes_beside_labels():
    """A conditional VAE's decoder reads them behind codes, of which there are more or fewer."""
    folds = [np.arange(49), np.arange(20, 60)]
    models = several(VAE, conditional=True, n_components=SIZES)
    assert_trained_alike(fits(models, y=LABELS, folds=folds))


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"weight_averaging": 0.9},
        {"codebook_update": "loss"},
        {"quantizer": "simvq"},
        {"quantizer": "fsq", "levels": (4, 2)},
    ],
    ids=["ema", "averages", "loss", "simvq", "fsq"],
)
def test_codebooks(params):
    """Their index priors, which are trained afterwards, are not stacked."""
    short = {"prior_max_iter": 1, "prior_channels": 4, "n_codes": 8}
    models = several(VQVAE, random_state=[0, 1], learning_rate_init=[1e-3, 5e-3], **short, **params)
    calls, report = fits(models), []
    together = run_together(calls, report=report)
    assert [t.calls for t in report if t.obstacle is None] == [tuple(range(4))]
    assert {t.obstacle for t in report if t.obstacle} <= {
        "networks of this kind are trained one by one"
    }
    for call, (model, score) in zip(calls, together, strict=True):
        alone, expected = call()
        assert abs(score - expected) <= SCORES * max(1.0, abs(expected))
        assert_close(model, alone)


@pytest.mark.parametrize("algorithm", ["wake-sleep", "reweighted", "free-energy"])
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_helmholtz_machines(algorithm, likelihood):
    rows = COINS if likelihood == "bernoulli" else X
    params = {"algorithm": algorithm, "likelihood": likelihood, "n_components": SIZES}
    if algorithm != "wake-sleep":
        params["n_particles"] = 3
    assert_trained_alike(fits(several(HelmholtzMachine, **params), rows=rows))


# ------------------------------------------------------------------------- going on afterwards


@pytest.mark.parametrize(
    ("model", "params"),
    [
        (Autoencoder, {"n_components": SIZES, "max_iter": [4, 2, 7]}),
        (Autoencoder, {"n_components": SIZES, "solver": "sgd", "momentum": [0.9, 0.0]}),
        (VAE, {"n_components": SIZES, "beta_warm_up": 10}),
        (AdversarialAE, {"n_components": SIZES, "learning_rate": "cosine"}),
        (VQVAE, {"random_state": [0, 1], "prior": None, "n_codes": 8}),
        (HelmholtzMachine, {"n_components": SIZES, "likelihood": "gaussian"}),
    ],
)
def test_training_goes_on_alike(model, params):
    """By `partial_fit` with more rows, and by a warm start."""
    calls = fits(several(model, **{"max_iter": 5, **params}), folds=FOLDS[:2])
    for call, (together, _) in zip(calls, run_together(calls), strict=True):
        alone, _ = call()
        for fitted in (together, alone):
            for _ in range(3):
                fitted.partial_fit(X[50:])
            fitted.set_params(warm_start=True, max_iter=3).fit(X[:40])
        assert_close(together, alone)


def test_calls_that_train_twice():
    """What goes on from an earlier training is trained alone, between stacks."""

    def twice(k):
        model = network(n_components=k, warm_start=True).fit(X)
        model.fit(X)
        other = network(n_components=k, random_state=5).fit(X[:40])
        return model, other

    calls, report = [lambda k=k: twice(k) for k in SIZES], []
    for call, pair in zip(calls, run_together(calls, report=report), strict=True):
        for together, alone in zip(pair, call(), strict=True):
            assert_close(together, alone)
    assert [(t.calls, t.obstacle) for t in report] == [
        ((0, 1, 2), None),
        *(((i,), "it continues an earlier training") for i in range(3)),
        ((0, 1, 2), None),
    ]


# --------------------------------------------------------------------------- when trainings end


def ends(calls):
    """How many epochs each training took, by itself."""
    return {call()[0].n_iter_ for call in calls}


def test_a_tolerance_ends_each_by_itself():
    """Decided early, while losses still fall by far more than rounding."""
    models = several(
        tol=[0.3, 0.1, 1e-9], n_iter_no_change=2, n_components=SIZES, max_iter=25, alpha=[0, 0.1]
    )
    calls = fits(models, folds=FOLDS[:2])
    assert len(ends(calls)) > 2
    assert_trained_alike(calls)


def test_held_out_rows_are_watched():
    """Their losses are in the history, and the best epoch is kept; few of them are too few."""
    models = several(
        early_stopping=True,
        n_components=SIZES,
        learning_rate_init=[0.3, 0.05],
        n_iter_no_change=2,
        validation_fraction=0.2,
    )
    calls = fits(models, folds=[np.arange(60), np.r_[0:30, 41:71]])
    fitted = assert_trained_alike(calls)
    assert all("valid_loss" in epoch for model in fitted for epoch in model.history_)
    assert len({model.n_iter_ for model in fitted}) > 1


@pytest.mark.parametrize("model", [Autoencoder, AdversarialAE])
def test_choices_after_many_epochs_in_float64(model, monkeypatch):
    """Early stopping, which in float32 may choose another epoch of two that are about as good."""
    before = torch.get_default_dtype(), torch.float32
    try:
        torch.set_default_dtype(torch.float64)
        monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
        monkeypatch.setattr(torch, "float32", torch.float64)
        models = several(
            model,
            early_stopping=True,
            n_components=SIZES,
            n_iter_no_change=3,
            max_iter=80,
            learning_rate_init=0.01,
        )
        rows = X.astype(np.float64)
        fitted = assert_trained_alike(fits(models, rows=rows, folds=[np.arange(60)]), tol=1e-9)
    finally:
        monkeypatch.undo()
        torch.set_default_dtype(before[0])
    assert torch.float32 is before[1]
    assert len({model.n_iter_ for model in fitted}) > 1
    types = {value.dtype for model in fitted for value in model.net_.module_.parameters()}
    assert types == {torch.float64}


# ------------------------------------------------------------------------------ divergence


def diverge(monkeypatch, model, chosen, epoch):
    """Let the loss of those networks that are chosen be NaN from an epoch on (from 0)."""
    kind = type(network(model, max_iter=1).fit(X).net_.module_)
    begin_epoch = kind.begin_epoch

    def begin(self, now):
        begin_epoch(self, now)
        if now >= epoch and chosen(self.architecture):
            self.likelihood.variance.fill_(torch.nan)

    monkeypatch.setattr(kind, "begin_epoch", begin)


@pytest.mark.parametrize(
    ("model", "solver"),
    [(Autoencoder, "adam"), (Autoencoder, "sgd"), (VAE, "adamw"), (AdversarialAE, "adam")],
)
@pytest.mark.parametrize("epoch", [1, pytest.param(2, marks=pytest.mark.long), 4])
def test_one_that_diverges_goes_back_and_harms_no_other(model, solver, epoch, monkeypatch):
    """It has its state after the last epoch that was of use, warns, and goes on from there."""
    diverge(monkeypatch, model, lambda architecture: architecture.n_components == 3, epoch)
    models = several(
        model, solver=solver, learning_rate_init=0.01, n_components=SIZES, max_iter=[7, 7, 4]
    )
    calls, report = fits(models, folds=FOLDS[:2]), []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        together = run_together(calls, report=report)
    messages = [str(w.message) for w in caught if w.category is ConvergenceWarning]
    messages = [message for message in messages if "diverged" in message]
    assert [len(training.calls) for training in report] == [6]
    assert len(messages) == 2
    for message in messages:
        assert f"diverged in epoch {epoch + 1}" in message
        assert f"The state after epoch {epoch} is kept" in message
    for call, (fitted, _), n in zip(calls, together, [7, 7, epoch, epoch, 4, 4], strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            alone, _ = call()
        assert fitted.n_iter_ == n
        assert_close(fitted, alone)
    monkeypatch.undo()
    for call, (fitted, _) in zip(calls[2:4], together[2:4], strict=True):
        alone, _ = fits([models[1].set_params(max_iter=epoch)], folds=FOLDS[:2])[call is calls[3]]()
        for one in (fitted, alone):
            for _ in range(2):
                one.partial_fit(X[50:])
        np.testing.assert_allclose(fitted.score(X), alone.score(X), rtol=1e-4)


def test_steps_that_are_too_long_end_one_training():
    """As they do of itself; what diverges is not computed as equal, being chaotic before."""
    models = several(
        solver="sgd", momentum=0.9, learning_rate_init=[0.01, 0.9, 0.02], n_components=SIZES
    )
    calls = fits(models, folds=FOLDS[:1])
    with pytest.warns(ConvergenceWarning, match="Training diverged in epoch"):
        together = run_together(calls)
    for i in (0, 2):
        assert_close(together[i][0], calls[i]()[0])
    assert together[1][0].n_iter_ < 20


# ------------------------------------------------------------------ what is not trained as one


class Own(nn.Sequential):
    """A network of the user's."""

    def __init__(self, n_in, n_out):
        super().__init__(nn.Linear(n_in, n_out))


@pytest.mark.parametrize(
    ("model", "params", "match"),
    [
        (
            Autoencoder,
            {"solver": "lbfgs", "max_iter": 2},
            "solver='lbfgs' does not compute the step of each weight",
        ),
        (Autoencoder, {"encoder": Own(5, 2), "decoder": Own(2, 5)}, "modules of your own"),
        (Autoencoder, {"contraction": 0.1}, "contraction=0.1"),
        (Autoencoder, {"normalization": "batch"}, "normalization='batch'"),
        (VAE, {"n_importance": 3}, "n_importance=3"),
        (Autoencoder, {"callbacks": [At(99)]}, "callbacks, which may change it"),
    ],
)
def test_what_cannot_be_stacked_is_trained_alone(model, params, match):
    params = {"max_iter": 1, **params}
    models = [network(model, random_state=seed, **params) for seed in (0, 1)]
    report = []
    together = run_together([lambda m=m: m.fit(X) for m in models], report=report)
    assert [training.calls for training in report] == [(0,), (1,)]
    assert all(match in training.obstacle for training in report), report
    for fitted, seed in zip(together, (0, 1), strict=True):
        alone = network(model, random_state=seed, **params).fit(X)
        np.testing.assert_allclose(fitted.score(X), alone.score(X), rtol=1e-7)


def test_large_networks_are_trained_alone(monkeypatch):
    """From the row on with which they are: 16 rows of a batch, 40 products each."""
    calls = [lambda s=s: network(random_state=s, n_components=2).fit(X) for s in (0, 1)]
    for limit, why in [(640, None), (639, "it is so large that a stack would not be faster")]:
        monkeypatch.setattr(stackable, "_LARGE", limit)
        report = []
        run_together(calls, report=report)
        assert {training.obstacle for training in report} == {why}


def test_compiled_losses_are_not_stacked(monkeypatch):
    """The compiler itself is not needed to see that."""
    monkeypatch.setattr(torch, "compile", lambda function, **kwargs: function)
    report = []
    calls = [lambda s=s: network(compile=True, random_state=s).fit(X) for s in (0, 1)]
    run_together(calls, report=report)
    assert [training.obstacle for training in report] == ["compile=True"] * 2


@pytest.mark.parametrize(
    "params",
    [
        {"noise_variance": ["scalar", "per_feature", 1.0]},
        {"likelihood": ["gaussian", "laplace"]},
        {"activation": ["tanh", "relu"]},
        {"hidden_layer_sizes": [(8,), (7,)]},
        {"solver": ["adam", "sgd"]},
        {"precision": ["float32", "bfloat16"]},
        {"batch_size": [16, 32]},
        {"early_stopping": [False, True]},
    ],
)
def test_what_is_not_alike_is_no_stack(params):
    """But is trained, each as by itself."""
    calls, report = fits(several(**{"max_iter": 3, **params}), folds=FOLDS[:1]), []
    for call, (fitted, _) in zip(calls, run_together(calls, report=report), strict=True):
        assert_close(fitted, call()[0], 1e-7)
    assert {training.obstacle for training in report} == {"no other network is of the same kind"}


def test_rows_with_gaps_and_without_are_two_stacks():
    models = several(n_components=SIZES, max_iter=3)
    report = []
    calls = [
        *fits(models, folds=FOLDS[:1]),
        *fits(models, rows=GAPS, folds=FOLDS[:1]),
        *fits(models, weight=WEIGHT, folds=FOLDS[:1]),
    ]
    for call, (fitted, _) in zip(calls, run_together(calls, report=report), strict=True):
        assert_close(fitted, call()[0])
    assert [training.calls for training in report] == [(0, 1, 2), (3, 4, 5), (6, 7, 8)]


def falls_back(monkeypatch, name, change, model=Autoencoder):
    """That networks whose code depends on stacking are trained alone, each as by itself."""
    kind = type(network(model, max_iter=1).fit(X).net_.module_)
    monkeypatch.setattr(kind, name, change(getattr(kind, name)))
    diverge(monkeypatch, model, lambda architecture: architecture.n_components == 3, 4)
    calls, report = fits(several(model, n_components=SIZES, max_iter=6), folds=FOLDS[:1]), []
    with pytest.warns(ConvergenceWarning, match="The state after epoch 4 is kept"):
        together = run_together(calls, report=report)
    assert [len(training.calls) for training in report] == [1, 1, 1]
    for call, (fitted, _) in zip(calls, together, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            assert_close(fitted, call()[0], 1e-7)
    (why,) = {training.obstacle for training in report}
    return why


def test_losses_that_differ_within_a_stack_make_none(monkeypatch):
    """And leave what is trained alone whole: its snapshots, too."""

    def change(loss):
        def changed(self, batch):
            found = loss(self, batch)
            if is_stacking():
                found = found._replace(terms={k: 1.01 * v for k, v in found.terms.items()})
            return found

        return changed

    why = falls_back(monkeypatch, "loss", change)
    assert why == "in a stack its gradients would differ"


def test_phases_that_differ_within_a_stack_make_none(monkeypatch):
    """The discriminator's, which is another loss."""

    def change(phases):
        def changed(self):
            def scaled(phase):
                return phase._replace(
                    loss=lambda *args: phase.loss(*args) * (1.01 if is_stacking() else 1.0)
                )

            return [scaled(phase) for phase in phases(self)]

        return changed

    why = falls_back(monkeypatch, "phases", change, AdversarialAE)
    assert why == "in a stack its gradients would differ"


def test_losses_that_read_values_make_no_stack(monkeypatch):
    """As a module may that was written without stacks in mind."""

    def change(loss):
        def changed(self, batch):
            assert float(batch.x.sum()) != 0
            return loss(self, batch)

        return changed

    assert "cannot be stacked" in falls_back(monkeypatch, "loss", change)


def test_terms_that_are_of_one_alone_make_no_stack(monkeypatch):
    def change(loss):
        def changed(self, batch):
            found = loss(self, batch)
            if self.architecture.n_components == 1:
                found.terms["own"] = found.terms["reconstruction"] * 0
            return found

        return changed

    assert falls_back(monkeypatch, "loss", change) == "its loss has terms of its own"


# ------------------------------------------------------------------- members, while they train


def test_the_order_of_calls_is_kept():
    """However settings are sorted, and whoever ends first."""
    models = several(
        learning_rate_init=[0.05, 0.001, 0.01, 0.002], max_iter=[2, 5, 3, 4], n_components=SIZES
    )
    calls = fits(models, folds=FOLDS[:2])
    assert_trained_alike(calls)


@pytest.mark.parametrize("hook", ["on_epoch_begin", "on_epoch_end"])
def test_errors_of_who_listens_are_those_of_one_fit(hook, monkeypatch):
    """The others train on."""

    def fail(self, net, **kwargs):
        if net.module_.architecture.n_components == 3 and len(net.history) == 3:
            raise RuntimeError("a disk is full")

    monkeypatch.setattr(StopWhenFlat, hook, fail)

    def fit(k):
        try:
            return network(n_components=k, tol=1e-9, learning_rate_init=0.03 / k).fit(X)
        except RuntimeError as error:
            return str(error)

    report = []
    together = run_together([lambda k=k: fit(k) for k in SIZES], report=report)
    assert [training.calls for training in report] == [(0, 1, 2)]
    assert together[1] == "a disk is full"
    for i in (0, 2):
        assert_close(together[i], fit(SIZES[i]))


@pytest.mark.parametrize(
    "model", [Autoencoder, VAE, AdversarialAE, VQVAE, HelmholtzMachine], ids=lambda m: m.__name__
)
def test_scores_after_twenty_epochs(model):
    """Which is what is promised of all of them."""
    varied = {"random_state": [0, 1, 2], "learning_rate_init": [1e-3, 3e-3], "alpha": [0.0, 0.1]}
    if model is VQVAE:
        varied |= {"prior": None}
    if model is HelmholtzMachine:
        varied |= {"likelihood": "gaussian"}
    calls = fits(several(model, n_components=[2, 2, 2], max_iter=20, **varied))[::2]
    assert_trained_alike(calls)


@pytest.mark.parametrize("model", [Autoencoder, VAE])
def test_trials_of_how_long_to_train_are_stacks_too(model, monkeypatch):
    """With rows held out, and then without: each net is trained for as long as pays."""
    monkeypatch.setattr(length, "_PATIENCE", 10)
    models = several(model, max_iter=[None] * 2, n_components=[1, 2], init="linear")
    calls, report = fits(models, folds=FOLDS[:1]), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for call, (fitted, score) in zip(calls, run_together(calls, report=report), strict=True):
            alone, expected = call()
            assert_close(fitted, alone)
            assert abs(score - expected) <= SCORES * max(1.0, abs(expected))
    assert {(training.calls, training.obstacle) for training in report} == {((0, 1), None)}
    assert len(report) > 1


def test_callbacks_of_scikit_learn_hear_of_every_epoch():
    """Of each fit by itself, with the attributes that it has then."""

    def fit(k):
        model = network(n_components=k)
        monitor = ScoringMonitor(scoring={"nats": check_scoring(model)})
        model.set_callbacks(monitor).fit(X)
        rows = [row for row in monitor.get_logs().data if row["task_name"] == "epoch"]
        return model, [row["nats"] for row in rows]

    calls, report = [lambda k=k: fit(k) for k in SIZES], []
    together = run_together(calls, report=report)
    assert [training.calls for training in report] == [(0, 1, 2)]
    for call, (model, nats) in zip(calls, together, strict=True):
        alone, expected = call()
        assert len(set(expected)) == 4
        np.testing.assert_allclose(nats, expected, rtol=1e-4)
        np.testing.assert_allclose(model.score(X), alone.score(X), rtol=1e-4)


def test_some_are_not_to_be_trained_at_all(monkeypatch):
    """As after a trial that found the start to be best; beside others that are."""
    epochs = {0.0: 0, 0.1: 3}
    monkeypatch.setattr(TrainingOptions, "n_epochs", lambda options, n: epochs[options.alpha])
    assert_trained_alike(fits(several(alpha=[0.0, 0.1], n_components=[1, 3]), folds=FOLDS[:1]))
