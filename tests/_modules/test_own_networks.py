"""Functions and classes that make the user's networks."""

import pickle
import re
from functools import partial

import joblib
import numpy as np
import pytest
import skops.io
import torch
from sklearn import model_selection
from sklearn.base import clone
from torch import nn

from helpers import make_rows, through_joblib, through_pickle
from skae import VAE, VQVAE, AdversarialAE, Autoencoder, Ensemble, GridSearchCV
from skae._training.random_state import preserve_global_rngs

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

X = make_rows(80, 6)
OPTIONS = {"max_iter": 2, "random_state": 0, "learning_rate_init": 1e-2}


def encode(n_features_in, n_components, n_hidden=7):
    return nn.Sequential(
        nn.Linear(n_features_in, n_hidden), nn.Tanh(), nn.Linear(n_hidden, n_components)
    )


def decode(n_features_in, n_components):
    return encode(n_components, n_features_in)


def encode_moments(n_features_in, n_components):
    return encode(n_features_in, 2 * n_components)


def lazy(n_features_in, n_components):
    """Draws its weights when it reads the first batch."""
    return nn.Sequential(nn.LazyLinear(7), nn.Tanh(), nn.LazyLinear(n_components))


class Encoder(nn.Module):
    def __init__(self, n_features_in, n_components):
        super().__init__()
        self.linear = nn.Linear(n_features_in, n_components)
        self.shift = nn.Parameter(torch.tensor(np.random.normal(size=n_components)).float())  # noqa: NPY002

    def forward(self, x):
        return self.linear(x) + self.shift


NETWORKS = {
    "Autoencoder": (Autoencoder, encode),
    "VAE": (VAE, encode_moments),
    "AdversarialAE": (AdversarialAE, encode),
    "AdversarialAE, gaussian": (partial(AdversarialAE, posterior="gaussian"), encode_moments),
    "VQVAE": (partial(VQVAE, code_dim=3, prior=None, n_codes=4), encode),
}
FACTORIES = {
    "function": encode,
    "class": Encoder,
    "partial": partial(encode, n_hidden=3),
    "lazy": lazy,
}
every_network = pytest.mark.parametrize(("Network", "encoder"), NETWORKS.values(), ids=NETWORKS)
every_factory = pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)


def weights(model):
    return [p.detach().numpy().copy() for p in model.net_.module_.encoder.parameters()]


def is_alike(a, b):
    return all(map(np.array_equal, weights(a), weights(b)))


def noted(make, calls):
    def factory(*sizes):
        calls.append(sizes)
        return make(*sizes)

    return factory


@every_network
def test_both_networks(Network, encoder):
    """One pair of functions makes networks of every size; clones and files have them, too."""
    for n_components in (1, 3):
        model = Network(n_components, encoder=encoder, decoder=decode, **OPTIONS).fit(X)
        Z = model.transform(X)
        assert Z.shape == (len(X), n_components)
        assert model.inverse_transform(Z).shape == X.shape
        assert np.isfinite(model.score_samples(X)).all()
        np.testing.assert_array_equal(clone(model).fit(X).transform(X), Z)
        loaded = through_pickle(model, None)
        np.testing.assert_array_equal(loaded.transform(X), Z)
        assert loaded.encoder is encoder


@every_factory
def test_weights_follow_the_seed(factory, tmp_path):
    """Equal seeds draw equal weights, others do not; the global generators stay as they are."""
    model = Autoencoder(2, encoder=factory, max_iter=0, random_state=0).fit(X)
    with preserve_global_rngs(seed=5):
        before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        assert is_alike(clone(model).fit(X), model)
        assert not is_alike(clone(model).set_params(random_state=1).fit(X), model)
        unseeded = clone(model).set_params(random_state=None)
        assert not is_alike(clone(unseeded).fit(X), unseeded.fit(X))
        assert is_alike(through_joblib(model, tmp_path / "model.joblib"), model)
        assert torch.equal(torch.get_rng_state(), before[0])
        np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


def test_encoder_and_decoder_differ():
    """One function in both places draws other weights in each."""

    def square(n_features_in, n_components):
        return nn.Linear(6, 6)

    model = Autoencoder(6, encoder=square, decoder=square, max_iter=0, random_state=0).fit(X)
    module = model.net_.module_
    assert not torch.equal(module.encoder.weight, module.decoder.weight)


def test_what_functions_are_called_with():
    """The columns that are read or written, and the values of a code with what stands beside."""
    y = np.arange(80) % 3
    holes = np.where(np.arange(X.size).reshape(X.shape) % 7, X, np.nan)
    cases = [
        (Autoencoder(2), X, None, (6, 2), (6, 2)),
        (Autoencoder(None), X, None, (6, 6), (6, 6)),
        (Autoencoder(2), holes, None, (12, 2), (6, 2)),
        (VAE(2), X, None, (6, 2), (6, 2)),
        (VAE(2, conditional=True), X, y, (6, 2), (6, 5)),
        (VQVAE(2, code_dim=3, prior=None), X, None, (6, 6), (6, 6)),
    ]
    for model, rows, targets, of_encoder, of_decoder in cases:
        encoder = encode_moments if isinstance(model, VAE) else encode
        encoded, decoded = [], []
        own = {"encoder": noted(encoder, encoded), "decoder": noted(decode, decoded)}
        model.set_params(**own, **OPTIONS).fit(rows, targets)
        assert set(encoded) == {of_encoder}, model
        assert set(decoded) == {of_decoder}, model


@pytest.mark.parametrize("n_components", [2, 0.8, None])
def test_images(n_components):
    """With image_shape, the sizes are those of rows, and the networks read and write images."""
    images = make_rows(60, 16)

    def of_images(n_features_in, n_components):
        return nn.Sequential(nn.Conv2d(1, 3, 3, 2, 1), nn.Flatten(), nn.Linear(12, n_components))

    def to_images(n_features_in, n_components):
        return nn.Sequential(nn.Linear(n_components, n_features_in), nn.Unflatten(1, (1, 4, 4)))

    model = Autoencoder(
        n_components, encoder=of_images, decoder=to_images, image_shape=(1, 4, 4), **OPTIONS
    ).fit(images)
    assert model.reconstruct(images).shape == images.shape


def test_a_shared_module_is_not_trained():
    """A function may return a module that it keeps."""
    kept = nn.Linear(6, 2)
    before = kept.weight.detach().clone()
    model = Autoencoder(2, encoder=lambda *_: kept, max_iter=3, random_state=0).fit(X)
    assert torch.equal(kept.weight, before)
    assert not torch.equal(model.net_.module_.encoder.weight, before)


def test_starts_and_members_draw_their_own():
    """Several starts and the members of an ensemble begin with other weights."""
    started = []

    def recorded(*sizes):
        started.append(Encoder(*sizes))
        return started[-1]

    Autoencoder(2, encoder=recorded, n_init=3, **OPTIONS).fit(X)
    assert len({float(encoder.linear.weight[0, 0]) for encoder in started}) == 3
    ensemble = Ensemble(VAE(2, encoder=encode_moments, **OPTIONS), n_members=2, random_state=0)
    assert not is_alike(*ensemble.fit(X).estimators_)


@pytest.mark.parametrize("Search", [GridSearchCV, model_selection.GridSearchCV])
@pytest.mark.parametrize("n_jobs", [None, pytest.param(2, marks=pytest.mark.long)])
def test_a_search_over_sizes(Search, n_jobs):
    """Each candidate has networks of its size, and scores as a fit of its own."""
    model = VAE(encoder=encode_moments, decoder=decode, **OPTIONS)
    grid = {"n_components": [1, 0.5, None]}
    folds = model_selection.KFold(2)
    search = Search(model, grid, cv=folds, n_jobs=n_jobs).fit(X)
    for candidate, n_components in enumerate(grid["n_components"]):
        for split, (train, test) in enumerate(folds.split(X)):
            own = clone(model).set_params(n_components=n_components).fit(X[train])
            found = search.cv_results_[f"split{split}_test_score"][candidate]
            assert found == pytest.approx(own.score(X[test]), rel=1e-6)
    if Search is GridSearchCV:
        assert {entry["why"] for entry in search.shared_fits_} == {"it has modules of your own"}


@every_factory
def test_training_continues(factory):
    """With the same function it goes on; with another, it is an error."""
    model = Autoencoder(2, encoder=factory, warm_start=True, **OPTIONS).fit(X)
    n_epochs = model.fit(X).n_iter_
    assert n_epochs == 4
    assert pickle.loads(pickle.dumps(model)).partial_fit(X).n_iter_ == 5
    with pytest.raises(ValueError, match=r"own networks and distributions .*cannot change"):
        model.set_params(encoder=partial(encode, n_hidden=9)).fit(X)


def broken(n_features_in, n_components):
    raise KeyError("no such layer")


ERRORS = {
    "raises": (broken, ValueError, r"encoder=.*broken.* called with \(6, 2\), raised KeyError"),
    "arguments": (lambda n: nn.Linear(n, 2), ValueError, r"called with \(6, 2\).*two positional"),
    "no module": (lambda n, k: k, TypeError, r"must return a torch\.nn\.Module, got 2"),
    "a class": (lambda n, k: Encoder, TypeError, r"must return a torch\.nn\.Module, got <class"),
    "output": (lambda n, k: nn.Linear(n, k + 1), ValueError, r"encoder .* to \(2, 3\).*\(2, 2\)"),
    "input": (lambda n, k: nn.Linear(n + 1, k), ValueError, r"encoder must accept .* \(2, 6\)"),
    "a string": ("conv", ValueError, r"'encoder' parameter .* a callable or None"),
}


@pytest.mark.parametrize(("encoder", "kind", "message"), ERRORS.values(), ids=ERRORS)
def test_errors_name_the_argument(encoder, kind, message):
    with pytest.raises(kind, match=message) as caught:
        Autoencoder(2, encoder=encoder, **OPTIONS).fit(X)
    if encoder is broken:
        assert isinstance(caught.value.__cause__, KeyError)


def test_errors_of_decoders():
    with pytest.raises(ValueError, match=r"decoder=.*broken.* called with \(6, 2\)"):
        Autoencoder(2, decoder=broken, **OPTIONS).fit(X)
    with pytest.raises(ValueError, match=re.escape("decoder maps a batch of shape (2, 2) to")):
        Autoencoder(2, decoder=lambda n, k: nn.Linear(k, n + 1), **OPTIONS).fit(X)


def test_what_cannot_be_saved():
    """pickle stores functions by reference; skops stores no code of the user."""
    model = Autoencoder(2, encoder=encode, **OPTIONS)
    for saved in (model, clone(model).fit(X), clone(model).fit(X).set_params(encoder=None)):
        with pytest.raises(TypeError, match=r"a function that makes one.* skops cannot check"):
            skops.io.dumps(saved)
    local = Autoencoder(2, encoder=lambda n, k: nn.Linear(n, k), **OPTIONS).fit(X)
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(local)
    assert joblib.hash(model) == joblib.hash(clone(model))
