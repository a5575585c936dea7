"""The published figures of docs/benchmarks.md in a small size: the same effects on 8x8 digits.

Rows are digits of scikit-learn with grey values in [0, 1], or binary rows drawn from them. Limits
lie between the values of the better and of the worse model, as measured with several seeds.
"""

from math import cos, pi

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from skae import VAE, Autoencoder, HelmholtzMachine


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
        return train(model, 40, 3e-3, seed=10)

    one = nll(train(vae(), 10, 2e-3, seed=100))
    several = nll(train(vae().set_params(n_importance=20), 10, 2e-3, seed=100))
    assert several < one - 0.1


def squared_error(model):
    return float(((model.reconstruct(OTHERS) - OTHERS) ** 2).sum(axis=1).mean())
