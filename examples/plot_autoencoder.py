"""
Fewer codes than PCA needs
==========================

`Autoencoder` takes the place of PCA in a Pipeline, with two networks in place of two linear maps.
Four of its codes reconstruct held-out digits better than eight principal components do. With
`latent_growth` its codes are ordered by importance, as principal components are, so that one fit
serves every number of codes. The errors are then larger than those of a fit for each number.
"""

from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from skae import Autoencoder
from skae.metrics import reconstruction_error
from skae.plotting import LatentSizeDisplay, ReconstructionDisplay

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=500, stratify=y, random_state=0)

# %%
# Search over the number of codes
# -------------------------------
# A classifier reads the codes. The search ranks models and numbers of codes by the accuracy of the
# classifier. The codes of a network have no fixed scale, therefore a `StandardScaler` stands
# before the classifier.

network = Autoencoder(
    hidden_layer_sizes=(128, 64),
    learning_rate="cosine",
    learning_rate_init=3e-3,
    max_iter=20,
    tol=0,
    random_state=0,
)
pipeline = Pipeline(
    [
        ("reduce", network),
        ("scale", StandardScaler()),
        ("classify", LogisticRegression(max_iter=1000)),
    ]
)
grid = {"reduce": [PCA(), network], "reduce__n_components": [2, 4, 8]}
search = GridSearchCV(pipeline, grid, cv=3).fit(X_train, y_train)

size = search.best_params_["reduce__n_components"]
print(f"best: {type(search.best_params_['reduce']).__name__}, {size} codes")
print(f"accuracy on {len(X_test)} held-out digits: {search.score(X_test, y_test):.1%}")

display = LatentSizeDisplay.from_estimator(search)

# %%
# One fit for all sizes, or one fit for each
# ------------------------------------------
# There are two ways to order codes by importance. ``latent_growth="incremental"`` adds the codes to
# the network one after another during training. ``latent_growth="nested"`` trains all codes from
# the start, but keeps only the first k codes of a row, with a random k for each row and step.
# `reconstruction_path` gives the squared error with the first code, the first two codes, and so on.

network.set_params(max_iter=60)
n_codes = 12
sizes = {"PCA": range(1, n_codes + 1), "one fit for each size": [4, 8, 12]}
models, errors = {}, {}
print("Mean squared error of held-out digits, and seconds of all fits")
print(f"{'number of codes':<24}" + "".join(f"{k:>5}" for k in range(1, n_codes + 1)))


def show(name, seconds):
    found = dict(zip(sizes[name], errors[name], strict=True))
    cells = (f"{found[k]:>5.0f}" if k in found else " " * 5 for k in range(1, n_codes + 1))
    print(f"{name:<24}" + "".join(cells) + f"{seconds:>7.1f} s")


for name, model in {"PCA": PCA(), "one fit for each size": network}.items():
    start = perf_counter()
    models[name] = {k: clone(model).set_params(n_components=k).fit(X_train) for k in sizes[name]}
    errors[name] = [
        reconstruction_error(X_test, fitted.inverse_transform(fitted.transform(X_test)))
        for fitted in models[name].values()
    ]
    show(name, perf_counter() - start)

for growth in ("incremental", "nested"):
    start = perf_counter()
    model = clone(network).set_params(n_components=n_codes, latent_growth=growth).fit(X_train)
    name = f"one fit, {growth}"
    models[name], sizes[name] = model, range(1, n_codes + 1)
    errors[name] = model.reconstruction_path(X_test)
    show(name, perf_counter() - start)

assert errors["one fit for each size"][0] < errors["PCA"][7]  # 4 codes, 8 components

# %%
# The first codes of an ordered fit are better than as many principal components, and worse than the
# codes of a network that is fitted for this number.

curves = {name: (sizes[name], np.reshape(errors[name], (-1, 1))) for name in errors}
pca = curves.pop("PCA")
display = LatentSizeDisplay(
    curves, pca=pca, ylabel="squared error of a held-out digit (squared grey levels)"
).plot()

# %%
# Reconstructions with eight codes
# --------------------------------
# `truncate` gives the estimator of the first codes of an ordered fit, without fitting again.

k = 8
one_of_each = X_test[[np.flatnonzero(y_test == digit)[0] for digit in range(10)]]
shown = {f"PCA({k})": models["PCA"][k], f"Autoencoder({k})": models["one fit for each size"][k]}
for growth in ("incremental", "nested"):
    shown[f"{growth}, first {k} of {n_codes} codes"] = models[f"one fit, {growth}"].truncate(k)

_, axes = plt.subplots(2, 2, figsize=(9, 3), layout="constrained")
for ax, (name, model) in zip(axes.ravel(), shown.items(), strict=True):
    ReconstructionDisplay.from_estimator(
        model, one_of_each, n_samples=10, image_shape=(8, 8), ax=ax
    )
    ax.set_title(name)

plt.show()
