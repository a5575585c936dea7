"""
Codes that follow a chosen prior
================================

`AdversarialAE` trains the codes of all rows to have the distribution of a prior: here a Gaussian, a
mixture of two Gaussians, or a Swiss roll. For each of the three, the codes of the digits have
nearly the means, standard deviations and correlation of the prior. These moments do not show that
the distributions are equal: a nearest-neighbour classifier tells codes from draws of the prior more
often than by chance, most often for the Swiss roll.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from skae import AdversarialAE
from skae.metrics import reconstruction_error
from skae.plotting import LatentSpaceDisplay

X, y = load_digits(return_X_y=True)
X = X / 16

# %%
# Three priors
# ------------
# `transform` gives the codes of rows, and `sample_latent` draws from the prior. The codes of the
# digits are in the upper line, coloured by label. As many draws of the prior are below them.

priors = {
    "gaussian": "N(0, I)",
    "mixture": "N(-3, I) or N(3, I)",
    "swiss_roll": "a spiral, 0.05 thick",
}
settings = {
    "hidden_layer_sizes": (128, 64),
    "discriminator_layer_sizes": (128, 128),
    "discriminator_learning_rate_init": 5e-3,
    "learning_rate": "cosine",
    "learning_rate_init": 2e-3,
    "max_iter": 50,
    "tol": 0,
    "random_state": 0,
}
models = {prior: AdversarialAE(2, prior=prior, **settings).fit(X) for prior in priors}
codes = {prior: model.transform(X) for prior, model in models.items()}
draws = {prior: model.sample_latent(len(X), random_state=0) for prior, model in models.items()}

_, axes = plt.subplots(2, 3, figsize=(11.5, 7.2), sharex="col", sharey="col", layout="constrained")
for prior, (upper, lower) in zip(priors, axes.T, strict=True):
    LatentSpaceDisplay(codes[prior], y).plot(upper)
    LatentSpaceDisplay(draws[prior]).plot(lower)
    upper.set(title=f'codes, prior="{prior}"', aspect="equal")
    lower.set(title=f"draws of {priors[prior]}", aspect="equal")
    upper.set_xlabel("")
    if prior != "swiss_roll":
        upper.get_legend().remove()

# %%
# Moments, and a classifier
# -------------------------
# First the moments of codes and draws:

print(f"{'':<20}{'means':^16}{'std deviations':^16}{'correlation':>12}")
for prior in priors:
    for name, points in (("codes", codes[prior]), ("draws", draws[prior])):
        cells = [*points.mean(axis=0), *points.std(axis=0), np.corrcoef(points.T)[0, 1]]
        line = "".join(f"{cell:>8.2f}" for cell in cells[:4]) + f"{cells[4]:>12.2f}"
        print(f"{prior + ', ' + name:<20}{line}")
    error = np.abs(codes[prior].mean(axis=0) - draws[prior].mean(axis=0)).max()
    ratio = codes[prior].std(axis=0) / draws[prior].std(axis=0)
    assert error < 0.4 * draws[prior].std(), prior
    assert np.all((ratio > 0.8) & (ratio < 1.25)), prior

# %%
# A classifier is trained to tell codes from draws by their 20 nearest neighbours. Its
# cross-validated accuracy would be 50 % if both had the same distribution. The last column is the
# squared error of the reconstructions.

print(f"{'':<20}{'accuracy':>12}{'squared error':>16}")
is_draw = np.repeat([0, 1], len(X))
for prior, model in models.items():
    points = np.vstack([codes[prior], draws[prior]])
    accuracy = cross_val_score(KNeighborsClassifier(20), points, is_draw, cv=5).mean()
    error = reconstruction_error(X, model.reconstruct(X))
    print(f"{prior:<20}{accuracy:>12.0%}{error:>16.2f}")

plt.show()
