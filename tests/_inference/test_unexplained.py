"""Columns that are reconstructed worse than by their mean: by NumPy, from reconstructions."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from helpers import At, allowed_rows, low_rank_rows
from skae import VAE, VQVAE, AdversarialAE, Autoencoder, HelmholtzMachine
from skae._inference import unexplained as module_under_test
from skae._inference.unexplained import describe, unexplained
from skae._nn.likelihoods import likelihood_module
from skae._training.columns import Columns
from skae._training.data import Data, Dataset
from skae._training.units import Affine, Units

MODELS = {
    "autoencoder": Autoencoder(2),
    "ordered": Autoencoder(3, latent_growth="nested"),
    "laplace": Autoencoder(2, likelihood="laplace"),
    "bernoulli": Autoencoder(2, likelihood="bernoulli"),
    "vae": VAE(2),
    "poisson": VAE(2, likelihood="poisson", size_factor=None),
    "conditional": VAE(2, conditional=True),
    "adversarial": AdversarialAE(2),
    "vqvae": VQVAE(2, n_codes=8),
    "helmholtz": HelmholtzMachine(3, hidden_layer_sizes=(4,), likelihood="gaussian"),
}


def small(model):
    return model.set_params(max_iter=4, batch_size=30, random_state=0)


def truth(X, back, weight):
    """Residual and variance of every column, over what was seen."""
    counts = ~np.isnan(X) * weight[:, None]
    mean = np.nansum(X * counts, 0) / counts.sum(0)
    squares = (X - back) ** 2, (X - mean) ** 2
    return [np.nansum(s * counts, 0) / counts.sum(0) for s in squares]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("gaps", [0.0, 0.2])
@pytest.mark.parametrize("name", MODELS)
def test_shares_are_those_of_reconstructions(name, gaps):
    """With weights; in squared units of the rows."""
    model = small(MODELS[name])
    X = allowed_rows(getattr(model, "likelihood", "gaussian"), low_rank_rows(90), 2.0)
    X = 3 * X if name in ("autoencoder", "vae", "vqvae") else X
    rng = np.random.default_rng(0)
    X[rng.random(X.shape) < gaps] = np.nan
    weight = rng.uniform(0.5, 2.0, len(X))
    given = (rng.integers(0, 3, len(X)),) if name == "conditional" else ()
    model.fit(X, *given, sample_weight=weight)
    condition = model._condition_of(*given, len(X)) if given else None
    rows = model._dataset(Data(X, weight, condition))
    with model._trainer.inference():
        found = unexplained(model._trainer.module, rows)
    residual, variance = truth(X, model.reconstruct(X, *given), weight)
    scale = model._architecture.target_scale
    np.testing.assert_allclose(found.residual * scale**2, residual, rtol=1e-4)
    np.testing.assert_allclose(found.variance * scale**2, variance, rtol=1e-4)
    np.testing.assert_allclose(found.share, residual / variance, rtol=1e-4)


# ------------------------------------------------------------- which columns are worse


class Shifted:
    """In place of a network: the means of the columns and `shift`, or a share of the rows."""

    def __init__(self, X, shift=0.0, share=0.0, likelihood="gaussian", rescaled=True, weight=None):
        n_features, center = X.shape[1], X.astype(np.float64).mean(0)
        self.shift, self.share = torch.as_tensor(shift), share
        self.architecture = SimpleNamespace(
            n_features=n_features, center=center, scale=1.0, target_scale=1.0, columns=None
        )
        self.likelihood = likelihood_module(
            likelihood, n_features, "scalar", unit=1.0, mean_variance=1.0
        )
        affine = Affine(torch.from_numpy(center), 1.0)
        self.mean = 0.0 if rescaled else affine.center
        units = Units(affine, affine if rescaled else None)
        self.rows = Dataset(
            Data(X, weight), units=units, with_mask=False, reread=True, device=torch.device("cpu")
        )

    def reconstructed(self, batch):
        return self.mean + self.shift + self.share * (batch.y - self.mean)

    def worse(self):
        return unexplained(self, self.rows).worse


def normal(n_rows, n_features, seed=0):
    """Of mean 0 and variance 1, exactly."""
    X = np.random.default_rng(seed).normal(size=(n_rows, n_features))
    return (X - X.mean(0)) / X.std(0)


@pytest.mark.parametrize("scale", [1.0, 1e-5, 1e5])
def test_columns_off_their_mean_by_more_than_noise(scale):
    """A constant that is off by c standard deviations leaves 1 + c² of the variance."""
    shift = np.sqrt([0.0, 0.4, 0.8, 3.0])
    model = Shifted(scale * normal(1000, 4), scale * shift)
    found = unexplained(model, model.rows)
    np.testing.assert_allclose(found.share, 1 + shift**2, rtol=1e-5)
    np.testing.assert_array_equal(found.worse, [False, False, True, True])
    # Of the difference of squares, c² - 2cx, the mean is c² with a standard error of 2c / √n.
    few = Shifted(scale * normal(30, 4), scale * shift)
    np.testing.assert_array_equal(few.worse(), [False, False, False, True])
    # So it is where 30 rows have nearly all of the weight.
    X = np.vstack([normal(30, 4), normal(970, 4)])
    weight = np.repeat([100.0, 1e-4], [30, 970])
    heavy = Shifted(scale * X, scale * shift, weight=weight)
    np.testing.assert_array_equal(heavy.worse(), few.worse())


def test_columns_of_tables_may_be_at_their_median_under_laplace_alone():
    """Twice the limit for that column, whatever the others are; the network sorts them by kind."""
    model = Shifted(normal(1000, 2), np.sqrt(0.8))
    model.architecture.columns = Columns(("laplace", "gaussian"), (0, 0))
    np.testing.assert_array_equal(model.worse(), [False, True])
    model.shift = torch.tensor(np.sqrt(3.0))
    np.testing.assert_array_equal(model.worse(), [True, True])


@pytest.mark.parametrize("rescaled", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_columns_that_only_rounding_moves_do_not_count(dtype, rescaled):
    """Constants, and numbers beside their neighbours; a small column does count."""
    X = normal(500, 4).astype(dtype)
    X[:, 1] = 0.1
    X[:, 2] = 4.1
    X[::2, 2] = np.nextafter(X[0, 2], dtype(5))
    X[:, 3] = 7 + 1e-3 * X[:, 3]
    assert X[:, 2].var() > 0
    assert Shifted(X, 0.1, rescaled=rescaled).worse().tolist() == [False, False, False, True]


@pytest.mark.parametrize("rescaled", [True, False])
def test_offsets_that_float32_loses_the_values_beside(rescaled):
    """Of rows that are explained as they are, what is left is rounding, to multiples of 8."""
    X = normal(500, 2) + np.array([0.0, 1e8 + 4])
    assert Shifted(X, 10.0, rescaled=rescaled).worse().tolist() == [True, rescaled]


def test_columns_of_which_few_rows_say_all_do_not_count():
    """Such as pixels of a border; what one row in twenty has does count."""
    X = normal(2000, 3)
    X[:, 1] = np.arange(2000) % 200 == 0
    X[:, 2] = np.arange(2000) % 20 == 0
    assert Shifted(X, 0.8).worse().tolist() == [True, False, True]


def test_medians_are_no_failure_of_absolute_errors():
    """The best constant for them may leave up to twice the variance."""
    X = np.zeros((1000, 2))
    X[:450] = 1.0
    shift = [-0.45, 1.0]  # the median leaves 0.45, of a variance of 0.2475; the other 1.2475
    assert Shifted(X, shift).worse().tolist() == [True, True]
    assert Shifted(X, shift, likelihood="laplace").worse().tolist() == [False, True]


def test_some_of_many_rows_are_looked_at(monkeypatch):
    """Evenly spaced, so that sorted rows are seen from end to end."""
    monkeypatch.setattr(module_under_test, "_ROWS", 256)
    X = np.sort(np.random.default_rng(0).normal(size=(1000, 2)), axis=0)
    found = unexplained(model := Shifted(X, share=0.5), model.rows)
    some = X[::4]
    np.testing.assert_allclose(found.variance, some.var(0), rtol=1e-4)
    np.testing.assert_allclose(found.residual, ((some - X.mean(0)) ** 2).mean(0) / 4, rtol=1e-4)


# ------------------------------------------------------------------------- the warning


def unequal(n_rows=300, seed=0):
    """Independent columns, one of a standard deviation of 100 beside others of 1."""
    return normal(n_rows, 4, seed) * [1.0, 100.0, 1.0, 1.0] + 5.0


def own(**params):
    """Networks that begin at random, whatever the built-in ones begin at."""
    torch.manual_seed(0)
    networks = {"encoder": nn.Linear(4, 1), "decoder": nn.Linear(1, 4)}
    return Autoencoder(1, **networks, random_state=0, **{"max_iter": 200, **params})


def fit_warned(model, X, **more):
    with pytest.warns(ConvergenceWarning) as caught:
        model.fit(X, **more)
    (text,) = [str(w.message) for w in caught if "worse than by their mean" in str(w.message)]
    found = re.match(
        r"(\d+) of (\d+) columns .* column (.+), with .* error of ([\d.e+]+) times", text
    )
    return found.groups(), text


@pytest.mark.parametrize("weighted", [False, True])
def test_columns_without_weight_in_the_loss_are_named(weighted):
    """How many, and of the worst its name and share, as NumPy finds them."""
    X, weight = unequal(), np.ones(300)
    if weighted:
        weight = np.random.default_rng(1).uniform(0.5, 2.0, 300)
    model = own(max_iter=40)
    frame = pd.DataFrame(X, columns=["a", "wide", "b", "c"])
    (n_worse, n, name, share), text = fit_warned(model, frame, sample_weight=weight)
    residual, variance = truth(X, model.reconstruct(frame), weight)
    shares = residual / variance
    assert (int(n_worse), int(n)) == ((shares > 1.5).sum(), 4)
    assert 1 <= int(n_worse) <= 3
    assert name == repr(frame.columns[shares.argmax()])
    assert float(share) == pytest.approx(shares.max(), rel=0.01)
    assert "StandardScaler" in text
    assert "max_iter" not in text
    assert re.search(r"Its variance is (\S+) times", text)[1] == f"{4e-4:.1g}"


def test_a_training_too_short_is_to_be_longer():
    """Where all is explained badly, scaling would change nothing."""
    (n_worse, _, column, _), text = fit_warned(own(max_iter=1), unequal())
    assert int(n_worse) > 0
    assert column in "0123"
    assert "longer (training ended after 1 epochs, with max_iter=1)" in text
    assert "learning_rate_init (now 0.001)" in text
    assert "StandardScaler" not in text


def test_no_scaling_of_what_has_no_scale():
    """Bits and counts are not standardised: advice is what the estimator can do."""
    X = normal(100, 2) * [1.0, 0.01]
    found = unexplained(model := Shifted(X, [0.0, 0.02], share=0.1), model.rows)
    assert found.worse.tolist() == [False, True]
    assert describe(found, None, False, "Try.").endswith("times its variance. Try.")
    assert "StandardScaler" in describe(found, None, True, "Try.")


def test_interruptions_say_that_alone():
    """Whoever ends training early knows."""
    with pytest.warns(UserWarning, match="interrupted") as caught:
        own(callbacks=[At(3)]).fit(unequal())
    assert len(caught) == 1


@pytest.mark.filterwarnings("error")
def test_streams_say_nothing():
    """A column may need more batches."""
    own().partial_fit(unequal())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("model", [Autoencoder(3), VAE(3), AdversarialAE(3)])
def test_a_good_fit_says_nothing(model):
    """Warnings are errors here: rows of three factors, each column of its own size."""
    X = low_rank_rows(300, rank=3) * np.geomspace(0.3, 3, 6)
    model.set_params(random_state=0, max_iter=60).fit(X)
    residual, variance = truth(X, model.reconstruct(X), np.ones(300))
    assert (residual < variance).all()
