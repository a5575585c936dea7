"""
Five autoencoders, one lineage
==============================

Each stage kept the pair of recognition and generation, and changed what the code of a row is:
numbers by linear maps, Gaussians by linear maps, numbers by networks, bits in layers, Gaussians
by networks. The last two are networks and models of how rows arise: under them digits held out
are likelier than under the linear models of any size, by some 5 nats a row. The plain
autoencoder reconstructs best; once its codes are paid for, its bound is below all of these.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from skae import PPCA, VAE, Autoencoder, HelmholtzMachine, LinearAE

# %%
# The digits
# ----------
# Each of the 17 grey levels k becomes a number drawn from [k, k + 1), so that densities are
# bounded, and pixels are standardised, so that one noise variance for all is fair. These are
# the units of all that follows.

levels, y = load_digits(return_X_y=True)
grey = (levels + np.random.RandomState(0).uniform(size=levels.shape)) / 17
grey_train, grey_test, _, y_test = train_test_split(
    grey, y, test_size=500, stratify=y, random_state=0
)
scaler = StandardScaler().fit(grey_train)
X_train, X_test = scaler.transform(grey_train), scaler.transform(grey_test)

# %%
# The lineage
# -----------
# 32 codes each, though a bit holds less than a number; the order is of kin, not of years. All
# noise is Gaussian with one variance: HelmholtzMachine, too, takes likelihood="gaussian", by
# "auto", of rows that are not binary. Settings were chosen on 300 of the training rows. What
# matters most for HelmholtzMachine is the learning rate, here 20 times its default.

settings = {"learning_rate": "cosine", "random_state": 0}
networks = {"hidden_layer_sizes": 256, **settings}
stages = [
    (LinearAE(32), "Bourlard & Kamp 1988", "32 numbers, by linear maps"),
    (PPCA(32), "Tipping & Bishop 1999", "32 Gaussians, by linear maps"),
    (
        Autoencoder(32, learning_rate_init=5e-3, alpha=1e-3, max_iter=60, tol=0, **networks),
        "Hinton & Salakhutdinov 2006",
        "32 numbers, by networks",
    ),
    (
        HelmholtzMachine(
            32,
            hidden_layer_sizes=128,
            algorithm="reweighted",
            learning_rate_init=0.2,
            max_iter=60,
            **settings,
        ),
        "Dayan et al. 1995",
        "32 bits on top of 128",
    ),
    (
        VAE(32, learning_rate_init=1e-2, alpha=3e-4, max_iter=80, **networks),
        "Kingma & Welling 2014",
        "32 Gaussians, by networks",
    ),
]

# %%
# Nats, and squared errors
# ------------------------
# An exact log-likelihood and a lower bound on it may be compared. How well a row is written
# given its code may not: the code itself is free. `data_score_samples` makes the plain
# autoencoder pay for it, by the Gaussian that `sample` draws codes from, and is a lower bound.
# HelmholtzMachine reconstructs by its 32 upper units alone, and by their probabilities.

print(f"{len(X_test)} digits held out; squared errors are of rows whose variance is 64\n")
heads = f"{'score_kind':<16}{'nats per row':>12}{'squared error':>15}"
print(f"{'':<18}{'paper':<29}{'code of a row':<30}{heads}")
scores, errors = {}, {}
for model, paper, code in stages:
    name = type(model).__name__
    scores[name] = model.fit(X_train).score_samples(X_test)
    errors[name] = np.mean(np.sum((model.reconstruct(X_test) - X_test) ** 2, axis=1))
    nats = f"{scores[name].mean():.1f} "
    if model.score_kind == "reconstruction":
        nats = f"({nats[:-1]})"
        paid = model.data_score_samples(X_test).mean()
    print(f"{name:<18}{paper:<29}{code:<30}{model.score_kind:<16}{nats:>12}{errors[name]:>15.1f}")
print(f"( ) ranks with no other; with its codes paid for, that is {paid:.1f}, a lower bound\n")

# %%
# The linear models may take any number of codes, even the one that is best for these very digits.

by_size = {k: PPCA(k).fit(X_train).score_samples(X_test) for k in range(1, 64)}
size = max(by_size, key=lambda k: by_size[k].mean())
print(f"{f'PPCA({size}), the best size':<27}{by_size[size].mean():>6.1f} nats per row")
for name in ("HelmholtzMachine", "VAE"):
    gain = scores[name] - by_size[size]
    spread = gain.std() / np.sqrt(len(gain))
    print(f"{f'{name} above it':<27}{gain.mean():>6.1f} ± {spread:.1f}, paired")
    assert gain.mean() > 2
assert errors["Autoencoder"] == min(errors.values())
assert paid < scores["PPCA"].mean() - 0.5

# %%
# The picture
# -----------


def tiled(lines):
    """Two lines of digits, as one image."""
    cells = scaler.inverse_transform(lines).reshape(-1, 8, 8)
    cells = np.pad(cells, ((0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    return cells.reshape(2, -1, 9, 9).swapaxes(1, 2).reshape(18, -1)[:-1, :-1]


shown = X_test[[np.flatnonzero(y_test == label)[0] for label in range(10)]]
colours = plt.get_cmap("gray_r").with_extremes(bad="0.85")
figure, grid = plt.subplots(len(stages), 2, figsize=(12, 8.2), layout="constrained")
for (model, paper, code), (left, right) in zip(stages, grid, strict=True):
    name = type(model).__name__
    nats = f"{scores[name].mean():.1f} nats per row"
    title = {
        "log_likelihood": f"{nats}, exact",
        "lower_bound": f"{nats}, a lower bound",
        "reconstruction": f"{paid:.1f} nats per row, a lower bound with codes paid for",
    }[model.score_kind]
    left.imshow(tiled([*shown, *model.reconstruct(shown)]), cmap=colours, vmin=0, vmax=1)
    left.set_title(f"{name}, {paper}\n{code}", loc="left", fontsize=11)
    left.set_yticks([3.5, 12.5], ["held out", "reconstructed"])
    samples = model.sample(20, noise=False, random_state=0)
    right.imshow(tiled(samples), cmap=colours, vmin=0, vmax=1)
    right.set_title(title, loc="left", fontsize=11)
    right.set_yticks([3.5, 12.5], ["drawn", "drawn"])
    for axes in (left, right):
        axes.set_xticks([])
        axes.tick_params(length=0)
figure.suptitle("Digits held out, their reconstructions, and rows drawn without pixel noise")

path = Path("figures", "lineage.png")
path.parent.mkdir(exist_ok=True)
figure.savefig(path, dpi=120)
print(f"\npicture: {path.resolve()}")
