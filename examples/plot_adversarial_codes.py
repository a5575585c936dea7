"""
Codes with the distribution of your choice
==========================================

AdversarialAE pulls the codes of all rows together towards draws of a prior. From each of
three, a Gaussian, a mixture of two and a Swiss roll, the digits' codes take means, spreads
and correlation, nearly. A match of distributions is more than that: a classifier by nearest
neighbours still tells some codes from draws, most of all those of the thin spiral.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from skae import AdversarialAE
from skae.metrics import reconstruction_error

X, y = load_digits(return_X_y=True)
X = X / 16

# %%
# Three priors
# ------------
# `sample_latent` draws from the prior, `transform` gives the codes.

priors = {
    "gaussian": "N(0, I)",
    "mixture": "N(-3, I) or N(3, I)",
    "swiss_roll": "a spiral, 0.05 thick",
}
models = {
    prior: AdversarialAE(
        2,
        prior=prior,
        hidden_layer_sizes=(128, 64),
        discriminator_layer_sizes=(256, 256),
        discriminator_learning_rate_init=5e-3,
        learning_rate="cosine",
        learning_rate_init=2e-3,
        max_iter=75,
        tol=0,
        random_state=0,
    ).fit(X)
    for prior in priors
}
codes = {prior: model.transform(X) for prior, model in models.items()}
draws = {prior: model.sample_latent(len(X), random_state=0) for prior, model in models.items()}

# %%
# Moments, and what they do not tell
# ----------------------------------
# The classifier goes by the 20 nearest of codes and draws together; cross-validated, 50 %
# right is a guess.

print(f"Moments of the codes of {len(X)} digits, and of as many draws of the prior")
print(f"{'':<20}{'means':^16}{'deviations':^16}{'correlation':>12}")
for prior in priors:
    for name, points in (("codes", codes[prior]), ("draws", draws[prior])):
        cells = [*points.mean(axis=0), *points.std(axis=0), np.corrcoef(points.T)[0, 1]]
        line = "".join(f"{cell:>8.2f}" for cell in cells[:4]) + f"{cells[4]:>12.2f}"
        print(f"{prior + ', ' + name:<20}{line}")
    error = np.abs(codes[prior].mean(axis=0) - draws[prior].mean(axis=0)).max()
    ratio = codes[prior].std(axis=0) / draws[prior].std(axis=0)
    assert error < 0.4 * draws[prior].std(), prior
    assert np.all((ratio > 0.8) & (ratio < 1.25)), prior

print(f"\n{'':<20}{'told right':>12}{'squared error':>16}")
told = {}
for prior, model in models.items():
    points = np.vstack([codes[prior], draws[prior]])
    is_draw = np.repeat([0, 1], len(X))
    told[prior] = cross_val_score(KNeighborsClassifier(20), points, is_draw, cv=5).mean()
    error = reconstruction_error(X, model.reconstruct(X))
    print(f"{prior:<20}{told[prior]:>12.0%}{error:>16.2f}")

# %%
# The picture
# -----------

figure, grid = plt.subplots(
    2, len(priors), figsize=(11.5, 7.2), sharex="col", sharey="col", layout="constrained"
)
for prior, (above, below) in zip(priors, grid.T, strict=True):
    for digit in range(10):
        above.scatter(*codes[prior][y == digit].T, s=4, color=f"C{digit}", label=str(digit))
    below.scatter(*draws[prior].T, s=4, color="0.4")
    lowest = min(codes[prior].min(), draws[prior].min()) - 0.3
    highest = max(codes[prior].max(), draws[prior].max()) + 0.3
    above.set(xlim=(lowest, highest), ylim=(lowest, highest))
    above.set(
        title=f'prior="{prior}"\n{told[prior]:.0%} of codes and draws told right', aspect="equal"
    )
    below.set(title=f"draws: {priors[prior]}", xlabel="code 0", aspect="equal")
for axes in grid[:, 0]:
    axes.set_ylabel("code 1")
figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside right", markerscale=3)

path = Path("figures", "adversarial_codes.png")
path.parent.mkdir(exist_ok=True)
figure.savefig(path, dpi=120)
print(f"\npicture: {path.resolve()}")
