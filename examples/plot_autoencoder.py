"""
Fewer codes than PCA, in PCA's place
====================================

Autoencoder is the step that PCA is, with two networks in place of two linear maps: of
digits held out, four of its codes keep more than eight principal components do. With
`latent_growth` the codes are ordered by importance, as principal components are, and one
fit serves every size, at a price that the last panel shows.
"""

from pathlib import Path
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

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=500, stratify=y, random_state=0)


def squared_error(rows):
    return np.mean(np.sum((rows - X_test) ** 2, axis=1))


# %%
# A search over the number of codes
# ---------------------------------
# Behind the reduction stands a classifier: sizes and reductions are ranked by the digits
# it recognises. Codes have units of their own, hence the scaler.

network = Autoencoder(
    hidden_layer_sizes=(128, 64), learning_rate_init=3e-3, max_iter=40, tol=0, random_state=0
)
pipeline = Pipeline(
    [
        ("reduce", network),
        ("scale", StandardScaler()),
        ("classify", LogisticRegression(max_iter=1000)),
    ]
)
searched = [2, 4, 8]
search = GridSearchCV(
    pipeline, {"reduce": [PCA(), network], "reduce__n_components": searched}, cv=3
)
search.fit(X_train, y_train)

accuracy = {}
for params, score in zip(
    search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True
):
    accuracy[type(params["reduce"]).__name__, params["reduce__n_components"]] = score
print("Digits recognised behind the reduction, cross-validated")
print(f"{'n_components':<14}" + "".join(f"{k:>8}" for k in searched))
for name in ("PCA", "Autoencoder"):
    print(f"{name:<14}" + "".join(f"{accuracy[name, k]:>8.1%}" for k in searched))
best, size = search.best_params_["reduce"], search.best_params_["reduce__n_components"]
print(f"best: {type(best).__name__}, {size} codes; ", end="")
print(f"{search.score(X_test, y_test):.1%} of {len(X_test)} digits held out\n")

# %%
# One fit for every size, and one for each
# ----------------------------------------
# "incremental" opens the codes one by one, "nested" cuts them at random sizes throughout.

network.set_params(max_iter=100)
n_codes = 12
ordered, paths = {}, {}
print("Squared error of a digit held out, and seconds")
print(f"{'n_components':<14}" + "".join(f"{k:>6}" for k in range(1, n_codes + 1)))


def show(name, errors, seconds):
    cells = (f"{errors[k]:>6.0f}" if k in errors else " " * 6 for k in range(1, n_codes + 1))
    print(f"{name:<14}" + "".join(cells) + f"{seconds:>8.1f}")


start = perf_counter()
pca = {k: PCA(k).fit(X_train) for k in range(1, n_codes + 1)}
paths["PCA"] = {
    k: squared_error(model.inverse_transform(model.transform(X_test))) for k, model in pca.items()
}
show("PCA", paths["PCA"], perf_counter() - start)

start = perf_counter()
separate = {k: clone(network).set_params(n_components=k).fit(X_train) for k in [2, 4, 8, 12]}
paths["a fit each"] = {k: squared_error(model.reconstruct(X_test)) for k, model in separate.items()}
show("a fit each", paths["a fit each"], perf_counter() - start)

for growth in ("incremental", "nested"):
    start = perf_counter()
    model = clone(network).set_params(n_components=n_codes, latent_growth=growth).fit(X_train)
    paths[growth] = dict(enumerate(model.reconstruction_path(X_test), start=1))
    ordered[growth] = model
    show(growth, paths[growth], perf_counter() - start)

# %%
# The pictures
# ------------
# `truncate` gives the estimator of the first codes, without refitting.

k = 8
rows = {
    "held out": X_test,
    f"PCA({k})": pca[k].inverse_transform(pca[k].transform(X_test)),
    f"Autoencoder({k})": separate[k].reconstruct(X_test),
    f"incremental,\n{n_codes} cut to {k}": ordered["incremental"].truncate(k).reconstruct(X_test),
    f"nested,\n{n_codes} cut to {k}": ordered["nested"].truncate(k).reconstruct(X_test),
}
shown = [np.flatnonzero(y_test == digit)[0] for digit in range(10)]

figure = plt.figure(figsize=(12, 4.2), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=[1.55, 1])
left.suptitle(f"{k} codes: reconstructions, and squared error of a digit")
grid = left.subplots(len(rows), len(shown))
for (name, images), line in zip(rows.items(), grid, strict=True):
    for image, cell in zip(images[shown], line, strict=True):
        cell.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
        cell.set(xticks=[], yticks=[])
    line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    error = squared_error(images)
    line[-1].text(1.15, 0.5, f"{error:.0f}" if error else "", transform=line[-1].transAxes)

axes = right.subplots()
styles = {
    "PCA": ("s-", "0.5", "PCA"),
    "incremental": ("-", "tab:orange", "incremental, one fit"),
    "nested": ("-", "tab:blue", "nested, one fit"),
    "a fit each": ("o", "black", "Autoencoder, a fit each"),
}
for name, (style, colour, label) in styles.items():
    axes.plot(
        paths[name].keys(), paths[name].values(), style, color=colour, label=label, markersize=4
    )
axes.axvline(k, color="0.85", zorder=0)
axes.set(
    xlabel="number of codes",
    ylabel="squared error of a digit held out",
    title="Every size: from one fit, and fitted for it",
    ylim=(0, None),
    xticks=range(2, n_codes + 1, 2),
)
axes.legend()

path = Path("figures", "autoencoder.png")
path.parent.mkdir(exist_ok=True)
figure.savefig(path, dpi=120)
print(f"\npicture: {path.resolve()}")
