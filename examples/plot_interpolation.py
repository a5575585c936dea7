"""
What lies between two rows
==========================

Trained on digits and faces together, `interpolate` goes from one digit to another, and from
a digit to a face. AdversarialAE says what the codes between are worth: under a Gaussian
prior they are as probable as the ends; under a mixture of N(-3, I) and N(3, I) it puts
digits on one side and faces on the other, without having seen labels, and the way from one
to the other leads through a gap. An Autoencoder has no prior that would say so. The images
half way are about as far from any training image in all four.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import multivariate_normal
from skimage.data import lfw_subset
from skimage.transform import resize
from sklearn.datasets import load_digits

from skae import AdversarialAE, Autoencoder

# %%
# Digits and faces, of one size
# -----------------------------
# 600 digits; 100 faces and their mirror images, each twice, so that they count.

side = 16
digits = load_digits().images[:600] / 16
faces = lfw_subset()[:100]
faces = np.concatenate([faces, faces[:, :, ::-1]])


def resized(images):
    small = [resize(image, (side, side), anti_aliasing=True) for image in images]
    return np.reshape(small, (len(images), -1))


digits, faces = resized(digits), resized(faces)
X = np.concatenate([digits, faces])

# %%
# Four models
# -----------

settings = {
    "n_components": 8,
    "hidden_layer_sizes": (128, 64),
    "learning_rate": "cosine",
    "learning_rate_init": 2e-3,
    "max_iter": 80,
    "tol": 0,
    "random_state": 0,
}
models = {
    "AdversarialAE,\nGaussian prior": AdversarialAE(prior="gaussian", **settings),
    # From random weights: PCA's codes lie across both parts of the prior.
    "AdversarialAE,\nmixture prior": AdversarialAE(prior="mixture", init="random", **settings),
    "Autoencoder": Autoencoder(**settings),
    "Autoencoder,\nincremental": Autoencoder(latent_growth="incremental", **settings),
}
for model in models.values():
    model.fit(np.concatenate([X, faces]))

# %%
# A hundred ways of each kind
# ---------------------------
# How far from the training codes a way leads: distance of its codes to the nearest of them,
# in units of the distance that training codes have to each other's nearest (medians).

n_steps, n_ways = 9, 100
rng = np.random.RandomState(0)
starts, ends, others = (rows[rng.choice(len(rows), n_ways)] for rows in (digits, digits, faces))
kinds = {"digit to digit": (starts, ends), "digit to face": (starts, others)}
share = np.linspace(0, 1, n_steps)


def log_prior(name, codes):
    """Density of codes, nats."""
    means = [-3, 3] if "mixture" in name else [0]
    logs = [multivariate_normal(np.full(8, mean)).logpdf(codes) for mean in means]
    return np.logaddexp.reduce(logs) - np.log(len(means))


detour, nearest, density = {}, {}, {}
for name, model in models.items():
    known = model.transform(X)
    apart = cdist(known, known)
    np.fill_diagonal(apart, np.inf)
    unit = np.median(apart.min(axis=1))
    for kind, (one, other) in kinds.items():
        ways = model.transform(one) + share[:, None, None] * (
            model.transform(other) - model.transform(one)
        )
        detour[name, kind] = [np.median(cdist(codes, known).min(axis=1)) / unit for codes in ways]
        rows = [model.inverse_transform(codes) for codes in ways]
        nearest[name, kind] = [np.median(cdist(images, X).min(axis=1)) for images in rows]
        if "prior" in name:
            density[name, kind] = [np.median(log_prior(name, codes)) for codes in ways]

half = n_steps // 2
print("Half way, medians of 100 ways. code: distance to the nearest training code, in units of")
print("that between training codes; image: distance to the nearest training image; prior: its")
print("log density half way, less that at the ends, nats")
print(f"{'':<30}{'digit to digit':^24}{'digit to face':^24}")
print(f"{'':<30}" + f"{'code':>8}{'image':>8}{'prior':>8}" * 2)
drop = {key: values[half] - (values[0] + values[-1]) / 2 for key, values in density.items()}
for name in models:
    line = ""
    for kind in kinds:
        line += f"{detour[name, kind][half]:>8.2f}{nearest[name, kind][half]:>8.2f}"
        line += f"{drop[name, kind]:>8.1f}" if (name, kind) in drop else f"{'':>8}"
    print(f"{name.replace(chr(10), ' '):<30}{line}")

gaussian, mixture = list(models)[:2]
side_of = [models[mixture].transform(rows).mean(axis=1) > 0 for rows in (digits, faces)]
split = abs(np.mean(side_of[0]) - np.mean(side_of[1]))
print(
    f"\nmixture prior: {np.mean(side_of[0]):.1%} of the digits are on the side of N(3, I), ", end=""
)
print(f"{np.mean(side_of[1]):.1%} of the faces")
assert split > 0.9
assert drop[gaussian, "digit to face"] > -2
assert drop[mixture, "digit to face"] < -10

# %%
# The picture
# -----------

figure = plt.figure(figsize=(13, 7), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=[1.75, 1])

pairs = {"digit to digit": (digits[0], digits[3]), "digit to face": (digits[4], faces[3])}
for block, (kind, (one, other)) in zip(left.subfigures(2, 1), pairs.items(), strict=True):
    block.suptitle(f"Interpolation from {kind.replace('digit to', 'a digit to a')}")
    grid = block.subplots(len(models), n_steps + 2)
    for (name, model), line in zip(models.items(), grid, strict=True):
        images = [one, *model.interpolate(one, other, n_steps), other]
        for image, cell in zip(images, line, strict=True):
            cell.imshow(image.reshape(side, side), cmap="gray", vmin=0, vmax=1)
            cell.set(xticks=[], yticks=[])
        for cell in (line[0], line[-1]):
            cell.spines[:].set(color="tab:orange", linewidth=2)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")

colours = dict(zip(models, ["tab:blue", "tab:red", "black", "0.6"], strict=True))
upper, lower = right.subplots(2, 1, sharex=True)
for name, colour in colours.items():
    label = name.replace("\n", " ")
    upper.plot(share, detour[name, "digit to face"], "o-", ms=4, color=colour, label=label)
    if "prior" in name:
        for kind, style in (("digit to digit", ":"), ("digit to face", "o-")):
            lower.plot(share, density[name, kind], style, ms=4, color=colour)
upper.set(
    title="From a digit to a face: how far from any\ntraining code (1: as far as these are apart)",
    ylabel="relative distance",
    ylim=(0, None),
)
upper.legend(fontsize="small")
lower.set(
    title="log density of the prior along the way\n(dotted: from a digit to a digit)",
    xlabel="share of the way",
    ylabel="nats",
)

path = Path("figures", "interpolation.png")
path.parent.mkdir(exist_ok=True)
figure.savefig(path, dpi=120)
print(f"\npicture: {path.resolve()}")
