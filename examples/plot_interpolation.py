"""
Interpolation between digits and faces
======================================

Four models are trained on digits and faces together. `interpolate` decodes the codes on the
straight line from one digit to another digit, or from a digit to a face. For `AdversarialAE`, the
prior says how probable these codes are. Under a Gaussian prior, codes half way are at least as
probable as the ends. Under a mixture of N(-3, I) and N(3, I), the model places digits in one
component and faces in the other, without labels, and the path from a digit to a face crosses a
region of low density. `Autoencoder` has no prior. The images half way are about as far from the
nearest training image in all four models.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import multivariate_normal
from skimage.data import lfw_subset
from skimage.transform import resize
from sklearn.datasets import load_digits

from skae import AdversarialAE, Autoencoder
from skae.plotting import InterpolationDisplay

# %%
# Digits and faces of one size
# ----------------------------
# The rows are 600 digits, 100 faces and the mirror images of these faces. Every face is used twice,
# so that digits do not outnumber faces by too much.

side = 16
faces = lfw_subset()[:100]


def resized(images):
    small = [resize(image, (side, side), anti_aliasing=True) for image in images]
    return np.reshape(small, (len(images), -1))


digits = resized(load_digits().images[:600] / 16)
faces = resized(np.concatenate([faces, faces[:, :, ::-1]]))
X = np.concatenate([digits, faces])

settings = {
    "n_components": 8,
    "hidden_layer_sizes": (128, 64),
    "learning_rate": "cosine",
    "learning_rate_init": 2e-3,
    "max_iter": 60,
    "tol": 0,
    "random_state": 0,
}
models = {
    "AdversarialAE, Gaussian prior": AdversarialAE(prior="gaussian", **settings),
    # Training starts from random weights, because codes that start as those of PCA lie across both
    # components of the prior.
    "AdversarialAE, mixture prior": AdversarialAE(prior="mixture", init="random", **settings),
    "Autoencoder": Autoencoder(**settings),
    "Autoencoder, incremental": Autoencoder(latent_growth="incremental", **settings),
}
for model in models.values():
    model.fit(np.concatenate([X, faces]))

# %%
# Two paths
# ---------
# In each panel, the upper path leads from a digit to a digit, and the lower path from a digit to a
# face. A display draws grey images dark on white. The paths are given to it as images of three
# equal colour channels, so that faces are not drawn as negatives.

pairs = [(digits[0], digits[3]), (digits[4], faces[3])]
_, axes = plt.subplots(2, 2, figsize=(12, 4.4), layout="constrained")
for ax, (name, model) in zip(axes.ravel(), models.items(), strict=True):
    paths = np.stack([model.interpolate(one, other, 9) for one, other in pairs])
    display = InterpolationDisplay(np.tile(paths, 3), image_shape=(3, side, side), limits=(0, 1))
    display.plot(ax)
    ax.set_title(name)
    for path, label in zip(display.ax_, ("digit, digit", "digit, face"), strict=True):
        path.set_yticklabels([label])

# %%
# A hundred paths of each kind
# ----------------------------
# The table has medians over the codes half way on a path. The column "code" is the distance of the
# code to the nearest training code, in units of the median distance between a training code and its
# nearest neighbour. The column "image" is the distance of the decoded image to the nearest training
# image. The column "prior" is the log density of the code under the prior, minus the mean of this
# log density at the two ends.

n_steps, n_paths = 9, 100
half = n_steps // 2
rng = np.random.RandomState(0)
starts, ends, others = (rows[rng.choice(len(rows), n_paths)] for rows in (digits, digits, faces))
kinds = {"digit to digit": (starts, ends), "digit to face": (starts, others)}
fraction = np.linspace(0, 1, n_steps)


def log_prior(name, codes):
    """Log density of codes under the prior, in nats."""
    means = [-3, 3] if "mixture" in name else [0]
    logs = [multivariate_normal(np.full(8, mean)).logpdf(codes) for mean in means]
    return np.logaddexp.reduce(logs) - np.log(len(means))


densities, drop = {}, {}
print(f"{'':<32}" + "".join(f"{kind:^24}" for kind in kinds))
print(f"{'':<32}" + f"{'code':>8}{'image':>8}{'prior':>8}" * 2)
for name, model in models.items():
    line = ""
    known = model.transform(X)
    apart = cdist(known, known)
    np.fill_diagonal(apart, np.inf)
    for kind, rows in kinds.items():
        one, other = map(model.transform, rows)
        paths = one + fraction[:, None, None] * (other - one)
        to_code = np.median(cdist(paths[half], known).min(axis=1))
        to_image = np.median(cdist(model.inverse_transform(paths[half]), X).min(axis=1))
        line += f"{to_code / np.median(apart.min(axis=1)):>8.2f}{to_image:>8.2f}"
        if "prior" in name:
            densities[name, kind] = at = np.median(log_prior(name, paths), axis=1)
            drop[name, kind] = at[half] - (at[0] + at[-1]) / 2
            line += f"{drop[name, kind]:>8.1f}"
        else:
            line += " " * 8
    print(f"{name:<32}{line}")

gaussian, mixture = list(models)[:2]
shares = [np.mean(models[mixture].transform(rows).mean(axis=1) > 0) for rows in (digits, faces)]
print(f"in the component N(3, I) of the mixture: {shares[0]:.1%} of the digits, ", end="")
print(f"{shares[1]:.1%} of the faces")
assert abs(shares[0] - shares[1]) > 0.9
assert drop[gaussian, "digit to face"] > -2
assert drop[mixture, "digit to face"] < -10

# %%
# The log density of the prior along the paths, medians of 100 paths:

_, ax = plt.subplots(figsize=(6.4, 4.6), layout="constrained")
for (name, kind), at in densities.items():
    colour = "#0072B2" if name == gaussian else "#D55E00"
    style = "o-" if kind == "digit to face" else "s:"
    ax.plot(fraction, at, style, markersize=4, color=colour, label=f"{name}, {kind}")
ax.set(xlabel="fraction of the path", ylabel="log density of the prior (nats)", ylim=(-52, -4))
ax.legend(loc="lower center", fontsize="small")

plt.show()
