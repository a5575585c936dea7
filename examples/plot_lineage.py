"""
From PCA to VQ-VAE
==================

An autoencoder is a pair of maps, recognition (the encoder) and generation (the decoder), whose
target is its own input. Principal component analysis is the oldest such pair. Every later model
kept the pair, and changed what the code of a row is and how the maps are learned. This guide walks
through six of them on the same data, with the same methods, and draws what each one does to the
same images. At the end, one table ranks them.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skae import PPCA, VAE, VQVAE, Autoencoder, HelmholtzMachine, LinearAE
from skae.plotting import (
    CodebookDisplay,
    LatentSpaceDisplay,
    LearningCurveDisplay,
    ReconstructionDisplay,
    SampleDisplay,
    ScoreDisplay,
    TraversalDisplay,
)

# %%
# The data
# --------
# The rows are the handwritten digits of scikit-learn, images of 8 x 8 pixels with 17 grey levels.
# A density of integers has no upper limit, therefore uniform noise turns each grey level k into a
# number in [k, k + 1). Every model stands behind a `StandardScaler` in a Pipeline, so that all
# scores are log densities of the same standardised pixels. Displays take the whole Pipeline, and
# draw images in their original units.

levels, y = load_digits(return_X_y=True)
X = levels + np.random.RandomState(0).uniform(size=levels.shape)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=500, stratify=y, random_state=0)

one_of_each = X_test[[np.flatnonzero(y_test == label)[0] for label in range(10)]]


def fitted(model):
    """A Pipeline of a scaler and the model, fitted to the training images."""
    return make_pipeline(StandardScaler(), model).fit(X_train)


def draw(pipeline):
    """Ten held-out digits beside their reconstructions, and 20 new digits."""
    figure, (upper, lower) = plt.subplots(2, figsize=(8.5, 4.2), layout="constrained")
    ReconstructionDisplay.from_estimator(
        pipeline, one_of_each, n_samples=10, image_shape=(8, 8), ax=upper
    )
    upper.set_title(f"{type(pipeline[-1]).__name__}: held-out digits and their reconstructions")
    SampleDisplay.from_estimator(
        pipeline, n_samples=20, image_shape=(8, 8), random_state=0, ax=lower
    )
    lower.set_title("New digits")
    return figure


# %%
# PCA as an autoencoder
# ---------------------
# The encoder and the decoder are linear: z = W_e x and x' = W_d z, in centred rows. The pair with
# the smallest squared error spans the principal subspace (Bourlard and Kamp 1988; Baldi and Hornik
# 1989). The code of a row is a point. `LinearAE` gives the results of `sklearn.decomposition.PCA`,
# with the same parameters. Its new rows come from a Gaussian, the density by which PCA scores rows.

linear = fitted(LinearAE(32))
_ = draw(linear)

# %%
# Probabilistic PCA: the code becomes a distribution
# --------------------------------------------------
# Tipping and Bishop (1999) start from generation: a code z ~ N(0, I) gives x = W z + mu + noise.
# Recognition follows by Bayes' rule: the code of a row is a Gaussian, p(z|x). The ellipses show
# one standard deviation of it, here for a model with two codes.

ppca = fitted(PPCA(32))
display = LatentSpaceDisplay.from_estimator(fitted(PPCA(2)), X_test[:150], y_test[:150])
display.figure_.suptitle("PPCA with two codes: posteriors of held-out digits")

# %%
# The autoencoder: both maps become networks
# ------------------------------------------
# Hinton and Salakhutdinov (2006) trained deep networks for both maps. The code is a point again.
# With the same number of codes, its error on held-out digits is about a quarter below PCA's. But
# training does not determine where the codes lie. `sample` draws codes from a Gaussian that is
# fitted to the training codes, and many of them decode to no digit.

settings = {"learning_rate": "cosine", "random_state": 0}
networks = {"hidden_layer_sizes": 256, **settings}
deep = fitted(Autoencoder(32, learning_rate_init=5e-3, alpha=1e-3, max_iter=60, tol=0, **networks))
_ = draw(deep)

# %%
# The Helmholtz machine: recognition is learned
# ---------------------------------------------
# Dayan et al. (1995) went the other way: a network of binary units generates rows from the top
# layer down, and a second network learns to recognise which units were active. Both learn from each
# other. The code is a vector of bits, and the score is a lower bound on the log-likelihood.

helmholtz = fitted(
    HelmholtzMachine(
        32,
        hidden_layer_sizes=128,
        algorithm="reweighted",
        learning_rate_init=0.2,
        max_iter=60,
        **settings,
    )
)
_ = draw(helmholtz)

# %%
# The variational autoencoder: both ideas together
# ------------------------------------------------
# Kingma and Welling (2014) trained the two networks of the autoencoder as the two halves of the
# Helmholtz machine. The code of a row is a Gaussian, as in probabilistic PCA, whose mean and
# variance a network computes. Both networks maximise one bound on the log-likelihood by gradients.

vae = fitted(VAE(32, learning_rate_init=1e-2, alpha=3e-4, max_iter=80, **networks))
_ = draw(vae)

# %%
# The loss has two terms: the error of the reconstruction, and the divergence of the codes from
# their prior N(0, I).

display = LearningCurveDisplay.from_estimator(vae)

# %%
# The prior keeps codes where the decoder knows what to do with them. One code of one digit can
# therefore be changed, while the others keep their values.

display = TraversalDisplay.from_estimator(vae, X_test, image_shape=(8, 8), n_components=4)

# %%
# VQ-VAE: the code becomes discrete
# ---------------------------------
# Van den Oord et al. (2017) replaced the Gaussian by a codebook: the encoder's output is rounded to
# the nearest of `n_codes` vectors, so that a row is a few integers. A second network, the prior,
# learns which integers occur together, and new rows are drawn from it.

vq = fitted(
    VQVAE(
        16,
        n_codes=64,
        hidden_layer_sizes=256,
        commitment_weight=4.0,
        learning_rate="cosine",
        learning_rate_init=5e-3,
        max_iter=40,
        random_state=0,
    )
)
_ = draw(vq)

# %%
# How often each entry of the codebook is used:

display = CodebookDisplay.from_estimator(vq, X_test)

# %%
# One table
# ---------
# An exact log-likelihood and a lower bound on it may be compared: the bound can only be too low.
# The score of a plain autoencoder is that of a row given its own code, and ranks with no other.
# `data_score_samples` counts the code, too, by the Gaussian that `sample` draws codes from, and is
# a lower bound. Squared errors are those of standardised rows, whose variance is 64 in total.

pipelines = [linear, ppca, deep, helmholtz, vae, vq]
scores, errors = {}, {}
print(f"{'':<18}{'score_kind':<16}{'nats per row':>14}{'squared error':>15}")
for pipeline in pipelines:
    scaler, model = pipeline
    name, rows = type(model).__name__, scaler.transform(X_test)
    if model.score_kind == "reconstruction":
        scores[name], kind = model.data_score_samples(rows), "lower_bound *"
    else:
        scores[name], kind = model.score_samples(rows), model.score_kind
    errors[name] = np.mean(np.sum((model.reconstruct(rows) - rows) ** 2, axis=1))
    print(f"{name:<18}{kind:<16}{scores[name].mean():>14.1f}{errors[name]:>15.1f}")
print("* by data_score_samples")

assert errors["Autoencoder"] == min(errors.values())
assert scores["Autoencoder"].mean() < scores["PPCA"].mean()
for name in ("HelmholtzMachine", "VAE"):
    gain = scores[name] - scores["PPCA"]
    print(f"{name}: {gain.mean():.1f} ± {gain.std() / np.sqrt(len(gain)):.1f} above PPCA, paired")
    assert gain.mean() > 2

# %%
# Scores also tell typical rows from others. Under the VAE, images of noise with the mean and the
# variance of every pixel lie far below all digits.

noise = np.random.RandomState(1).normal(X_train.mean(axis=0), X_train.std(axis=0), X_test.shape)
display = ScoreDisplay.from_estimator(vae, {"digits": X_test, "noise": noise})

plt.show()
