"""
The weight beta of a VAE
========================

The loss of a VAE weights the KL divergence of the posterior q(z|x) from the prior p(z) = N(0, I) by
`beta`. The larger `beta` is, the less information the codes carry about a row: the codes move
closer to the prior, the posteriors become wider, the codes of different digits overlap, and
reconstructions become blurred.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skae import VAE
from skae.metrics import reconstruction_error
from skae.plotting import LatentSpaceDisplay, ReconstructionDisplay

X, y = load_digits(return_X_y=True)
X = X / 16
X_train, X_test, _, y_test = train_test_split(X, y, test_size=500, stratify=y, random_state=0)

# %%
# Three values of beta, one noise variance
# ----------------------------------------
# The noise variance s of p(x|z) = N(H(z), s I) is fixed at 0.03, in squared units of pixels from 0
# to 1. Up to a constant, the loss is the squared error over 2 s, plus beta times KL. If s were
# learned, it would grow with the squared error, and a larger s would increase the relative weight
# of KL further.

betas = [1, 5, 12]
settings = {
    "hidden_layer_sizes": (128, 64),
    "noise_variance": 0.03,
    "learning_rate": "cosine",
    "learning_rate_init": 3e-3,
    "max_iter": 80,
    "tol": 0,
    "random_state": 0,
}
models = {beta: VAE(2, beta=beta, **settings).fit(X_train) for beta in betas}

# %%
# How much information the codes carry
# ------------------------------------
# The mutual information says how well a code identifies one of the 500 held-out digits. It is at
# most log 500 = 6.2 nats. Sharpness is the sum of the differences between neighbouring pixels,
# relative to that of the digits.


def sharpness(rows):
    images = rows.reshape(-1, 8, 8)
    return sum(np.abs(np.diff(images, axis=axis)).sum() for axis in (1, 2))


table = {
    name: []
    for name in ("squared error", "sharpness", "KL (nats)", "information (nats)", "std of q(z|x)")
}
for model in models.values():
    reconstructed = model.reconstruct(X_test)
    cells = (
        reconstruction_error(X_test, reconstructed),
        sharpness(reconstructed) / sharpness(X_test),
        model.elbo_terms(X_test).kl.mean(),
        model.mutual_information(X_test),
        model.posterior(X_test)[1].mean(),
    )
    for column, cell in zip(table.values(), cells, strict=True):
        column.append(cell)
print(f"{len(X_test)} held-out digits")
print(f"{'beta':<20}" + "".join(f"{beta:>8}" for beta in betas))
for name, cells in table.items():
    print(f"{name:<20}" + "".join(f"{cell:>8.2f}" for cell in cells))
    assert cells == sorted(cells, reverse=name not in ("squared error", "std of q(z|x)"))

# %%
# Codes of the held-out digits. Coloured ellipses are one standard deviation of the posterior, for
# 80 of the digits; black circles are one and two standard deviations of the prior.

_, axes = plt.subplots(1, 3, figsize=(11, 3.9), sharex=True, sharey=True, layout="constrained")
for ax, (beta, model), information in zip(
    axes, models.items(), table["information (nats)"], strict=True
):
    LatentSpaceDisplay.from_estimator(model, X_test, y_test, ax=ax)
    for radius in (1, 2):
        ax.add_patch(plt.Circle((0, 0), radius, fill=False))
    ax.set_title("", loc="right")
    ax.set(
        title=f"beta = {beta}: {information:.1f} nats of information",
        xlim=(-4, 4),
        ylim=(-4, 4),
        aspect=1,
    )
    if ax is not axes[-1]:
        ax.get_legend().remove()

# %%
# Reconstructions from the two codes:

_, axes = plt.subplots(3, figsize=(8, 5.6), layout="constrained")
one_of_each = X_test[[np.flatnonzero(y_test == digit)[0] for digit in range(10)]]
for ax, (beta, model), error in zip(axes, models.items(), table["squared error"], strict=True):
    ReconstructionDisplay.from_estimator(
        model, one_of_each, n_samples=10, image_shape=(8, 8), ax=ax
    )
    ax.set_title(f"beta = {beta}: squared error {error:.2f}")

plt.show()
