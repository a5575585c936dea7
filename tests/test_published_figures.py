"""The published figures of docs/benchmarks.md in a small size: the same effects in seconds.

Rows are 8x8 digits of scikit-learn with grey values in [0, 1], or binary rows drawn from them, if
nothing else is said. The head start by restricted Boltzmann machines is tested in _nn/test_rbm.py.
"""

import copy
from math import cos, pi

import numpy as np
from sklearn.datasets import load_digits, load_sample_images
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.tree import DecisionTreeClassifier

from skae import (
    VAE,
    AdversarialAE,
    Autoencoder,
    HelmholtzMachine,
    LatentDensityEstimator,
    LinearAE,
)
from skae.datasets import image_patches, make_shift_patterns
from skae.metrics import parzen_log_likelihood


def split(seed=0):
    """Grey rows for training, and others."""
    grey = (load_digits().data / 16).astype(np.float32)
    grey = grey[np.random.default_rng(seed).permutation(len(grey))]
    return grey[:1400], grey[1400:]


def binary(grey, seed):
    """Pixels drawn from their grey values."""
    return (np.random.default_rng(seed).random(grey.shape) < grey).astype(np.uint8)


GREY, OTHERS = split()
BINARY = binary(OTHERS, 1)
# Training of the models whose samples are compared.
GENERATOR = {"likelihood": "bernoulli", "batch_size": 100, "max_iter": 30, "random_state": 0}
GENERATOR |= {"learning_rate": "cosine", "learning_rate_init": 3e-3}


def train(model, n_epochs, rate, seed):
    """Epochs of rows whose pixels are drawn anew, at a rate that falls along a cosine."""
    for epoch in range(n_epochs):
        model.set_params(
            learning_rate_init=rate * (0.01 + 0.495 * (1 + cos(pi * epoch / n_epochs)))
        )
        model.partial_fit(binary(GREY, seed + epoch))
    return model


def nll(model):
    """Minus the bound with 500 draws, in nats per row."""
    return -float(model.score_samples(BINARY, n_importance=500).mean())


def test_importance_samples_in_training_give_a_tighter_bound():
    """After training with one draw, 20 draws gain more than as many epochs with one draw."""

    def vae():
        model = VAE(
            10,
            hidden_layer_sizes=(50, 50),
            likelihood="bernoulli",
            batch_size=100,
            random_state=0,
        )
        return train(model, 25, 3e-3, seed=10)

    one = nll(train(vae(), 6, 2e-3, seed=100))
    several = nll(train(vae().set_params(n_importance=20), 6, 2e-3, seed=100))
    assert several < one - 0.1


def test_silu_and_muon_give_a_better_density_in_as_many_epochs():
    """By about 0.2 nats per row."""

    def after_training(**params):
        model = VAE(
            10,
            hidden_layer_sizes=(50, 50),
            likelihood="bernoulli",
            batch_size=100,
            random_state=0,
            **params,
        )
        return nll(train(model, 25, 2e-3, seed=10))

    assert after_training(activation="silu", solver="muon") < after_training() - 0.1


def parzen(model):
    """Parzen log-likelihood of other rows by decoded draws of the prior, in nats per row."""
    samples = model.sample(2000, noise=False, random_state=0)
    return parzen_log_likelihood(samples, OTHERS[:150], OTHERS[150:]).log_likelihood


def test_samples_of_a_learned_prior_are_nearer_to_other_rows():
    """Their Parzen density is higher by about 2.5 nats per row."""
    learned = VAE(8, prior="vamp", n_prior_components=50, **GENERATOR).fit(GREY)
    assert parzen(learned) > parzen(VAE(8, **GENERATOR).fit(GREY)) + 1.5


def test_a_prior_of_the_shape_of_codes_gives_better_samples():
    """An AdversarialAE's, by about 5 nats per row, without worse reconstructions."""
    codes = Autoencoder(8, **GENERATOR).fit_transform(GREY).astype(np.float64)
    mixture = GaussianMixture(20, random_state=0).fit(PCA(whiten=True).fit_transform(codes))

    def found(**options):
        model = AdversarialAE(8, discriminator_learning_rate_init=3e-3, **options, **GENERATOR)
        error = np.square(model.fit(GREY).reconstruct(OTHERS) - OTHERS).sum(axis=1).mean()
        return parzen(model), error

    plain, plain_error = found()
    shaped, shaped_error = found(prior=FrozenEstimator(mixture))
    assert shaped > plain + 2.5
    assert shaped_error < 1.05 * plain_error


def test_reweighted_wake_sleep_learns_a_better_density_than_wake_sleep():
    """By about 0.7 nats per row."""
    params = {"likelihood": "bernoulli", "learning_rate": "cosine", "learning_rate_init": 1e-2}
    params |= {"max_iter": 20, "batch_size": 50, "random_state": 0}
    plain, reweighted = (
        nll(HelmholtzMachine(50, algorithm=algorithm, **params).fit(GREY))
        for algorithm in ("wake-sleep", "reweighted")
    )
    assert reweighted < plain - 0.4


def test_late_particles_improve_reweighted_wake_sleep():
    """After training with 5, 20 gain more than as many epochs with 5, by 0.08 nats."""
    machine = HelmholtzMachine(
        100,
        algorithm="reweighted",
        n_particles=5,
        likelihood="bernoulli",
        learning_rate="cosine",
        learning_rate_init=2e-2,
        batch_size=50,
        max_iter=8,
        warm_start=True,
        random_state=2,
    ).fit(GREY)
    machine.set_params(learning_rate_init=1e-2, max_iter=4)
    few, many = (
        nll(copy.deepcopy(machine).set_params(n_particles=n_particles).fit(GREY))
        for n_particles in (5, 20)
    )
    assert many < few - 0.04


def test_one_unit_learns_the_direction_of_the_shifter():
    """With positive weights, and layers one by one; otherwise it is right in half of the images."""
    machine = HelmholtzMachine(
        1,
        hidden_layer_sizes=(64,),
        algorithm="reweighted",
        positive=True,
        layerwise_fraction=0.4,
        learning_rate="cosine",
        learning_rate_init=0.05,
        batch_size=25,
        max_iter=12,
        random_state=1,
    ).fit(make_shift_patterns(4000, random_state=0)[0])
    images, direction = make_shift_patterns(4000, random_state=1)
    code = machine.transform(images)
    assert DecisionTreeClassifier(max_depth=1).fit(code, direction).score(code, direction) > 0.8


def test_a_causal_density_of_image_patches_gains_from_its_options():
    """By about 15 nats per patch, on parts of photographs that were not seen in training."""
    photographs = [image.mean(axis=2) for image in load_sample_images().images]
    patches = image_patches([image[:, :480] for image in photographs], 4000, random_state=0)
    others = image_patches([image[:, 480:] for image in photographs], 1000, random_state=1)

    def score(**options):
        model = LatentDensityEstimator(
            n_mixture=5,
            n_channels=32,
            dilations=[1, 2, 4, 8],
            learning_rate="cosine",
            learning_rate_init=4e-3,
            batch_size=64,
            max_iter=1,
            random_state=0,
            **options,
        )
        return model.fit(patches).score(others)

    plain = score(input_transform=None)
    chosen = score(divisive_normalization=True, solver="muon")
    assert LinearAE().fit(patches.astype(np.float64)).score(others) < plain - 50
    assert plain < chosen - 8


def test_the_deep_autoencoder_halves_the_error_of_pca():
    """That of other rows, with ten codes; its settings are those for MNIST."""
    model = Autoencoder(
        10,
        hidden_layer_sizes=(64, 32),
        activation="silu",
        normalization="batch",
        out_activation="logistic",
        solver="adamw",
        alpha=0.3,
        learning_rate="cosine",
        learning_rate_init=5e-3,
        batch_size=100,
        max_iter=30,
        random_state=0,
    ).fit(GREY)
    pca = PCA(10).fit(GREY)
    errors = (
        np.square(rows - OTHERS).sum(axis=1).mean()
        for rows in (model.reconstruct(OTHERS), pca.inverse_transform(pca.transform(OTHERS)))
    )
    deep, linear = errors
    assert deep < 0.55 * linear
