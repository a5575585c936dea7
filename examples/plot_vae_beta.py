"""
beta: order among the codes, for sharpness of the rows
======================================================

The VAE's loss weighs ``KL(q(z|x) || p(z))`` with `beta`. The larger it is, the less the codes
may tell about a row: they move closer to the prior N(0, I), each row's share of the plane
grows, kinds of digits run into each other, and what is decoded gets blurrier.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Circle
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skae import VAE
from skae.metrics import reconstruction_error

X, y = load_digits(return_X_y=True)
X = X / 16
X_train, X_test, _, y_test = train_test_split(X, y, test_size=500, stratify=y, random_state=0)

# %%
# Three values of beta, one noise variance
# ----------------------------------------
# The noise variance s of p(x|z) = N(H(z), s I) is held at 0.03, in squared units of a pixel
# from 0 to 1. Learned, it would act beside beta: the loss is |x - H(z)|² / 2s + beta KL, and
# blurrier rows raise s, which multiplies beta once more.

betas = [1, 5, 12]
models = {
    beta: VAE(
        2,
        hidden_layer_sizes=(128, 64),
        noise_variance=0.03,
        beta=beta,
        learning_rate="cosine",
        learning_rate_init=3e-3,
        max_iter=150,
        tol=0,
        random_state=0,
    ).fit(X_train)
    for beta in betas
}

# %%
# What the codes keep
# -------------------
# Information is about which of the held-out digits a code comes from, at most log 500 = 6.2
# nats. Sharpness is the sum of differences between neighbouring pixels, beside the digits'.


def sharpness(rows):
    images = rows.reshape(-1, 8, 8)
    return sum(np.abs(np.diff(images, axis=axis)).sum() for axis in (1, 2))


names = ["squared error", "sharpness", "KL (nats)", "information (nats)", "sd of q(z|x)"]
table = {}
for beta, model in models.items():
    reconstructed = model.reconstruct(X_test)
    table[beta] = [
        reconstruction_error(X_test, reconstructed),
        sharpness(reconstructed) / sharpness(X_test),
        model.elbo_terms(X_test).kl.mean(),
        model.mutual_information(X_test),
        model.posterior(X_test)[1].mean(),
    ]
print(f"{len(X_test)} digits held out")
print(f"{'beta':<20}" + "".join(f"{beta:>8}" for beta in betas))
for name, *cells in zip(names, *table.values(), strict=True):
    print(f"{name:<20}" + "".join(f"{cell:>8.2f}" for cell in cells))
errors, sharp, divergences, kept, widths = zip(*table.values(), strict=True)
assert list(errors) == sorted(errors)
assert list(widths) == sorted(widths)
for falling in (sharp, divergences, kept):
    assert list(falling) == sorted(falling, reverse=True)

# %%
# The picture
# -----------

shown = [np.flatnonzero(y_test == digit)[0] for digit in (0, 2, 3, 4, 5, 6, 9)]

figure = plt.figure(figsize=(12, 6.8), layout="constrained")
figure.suptitle(
    "Codes of digits held out (circles: 1 and 2 sd of the prior), and their decoded rows"
)
columns = figure.subfigures(1, len(betas))
for column, (beta, model) in zip(columns, models.items(), strict=True):
    upper, lower = column.subfigures(2, 1, height_ratios=[3.6, 1.5])
    axes = upper.subplots()
    codes = model.transform(X_test)
    for digit in range(10):
        axes.scatter(*codes[y_test == digit].T, s=7, color=f"C{digit}", label=str(digit))
    for radius in (1, 2):
        axes.add_patch(Circle((0, 0), radius, fill=False, edgecolor="black"))
    error, _, _, information, width = table[beta]
    axes.set(
        title=f"beta = {beta}: {information:.1f} nats kept",
        xlabel="code 0",
        ylabel="code 1",
        xlim=(-4, 4),
        ylim=(-4, 4),
        aspect="equal",
    )
    # In the corner how wide q(z|x) is: its standard deviation, averaged.
    axes.add_patch(Circle((2.8, -3), width, color="0.7"))
    axes.text(2.8, -3.1 - width, "1 sd of q(z|x)", ha="center", va="top", fontsize="small")
    if beta == betas[-1]:
        axes.legend(markerscale=2, loc="upper right", fontsize="small", handletextpad=0, ncols=2)

    grid = lower.subplots(2, len(shown))
    for images, line in zip((X_test, model.reconstruct(X_test)), grid, strict=True):
        for image, cell in zip(images[shown], line, strict=True):
            cell.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
            cell.set(xticks=[], yticks=[])
    lower.supxlabel(f"above: held out; below: decoded, squared error {error:.2f}", fontsize=10)

path = Path("figures", "vae_beta.png")
path.parent.mkdir(exist_ok=True)
figure.savefig(path, dpi=120)
print(f"\npicture: {path.resolve()}")
