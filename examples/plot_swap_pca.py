"""
PCA, LinearAE and PPCA in each other's place
============================================

In a Pipeline the three are one step with three names: a grid search fits each of them
with each number of components and ranks all by the same figure, the log-likelihood of
rows held out, in nats per row. LinearAE scores what PCA scores, and PPCA as much within
0.02 nats: its variances are divided by n, PCA's by n - 1. What PCA cannot do, the
others can: draw new digits.
"""

from pathlib import Path

import matplotlib.pyplot as plt
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from skae import PPCA, LinearAE, sample_pipeline

# %%
# The grid search
# ---------------
# `score` of a Pipeline is `score` of its last step. The scaler is the same for all, so
# their densities are over the same rows and may be compared.

X, _ = load_digits(return_X_y=True)
models = [PCA(), LinearAE(), PPCA()]
sizes = [2, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50]
search = GridSearchCV(
    Pipeline([("scale", StandardScaler()), ("reduce", PCA())]),
    {"reduce": models, "reduce__n_components": sizes},
    cv=KFold(5, shuffle=True, random_state=0),
)
search.fit(X)

# %%
# The table
# ---------

nats = {type(model).__name__: {} for model in models}
for params, score in zip(
    search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True
):
    nats[type(params["reduce"]).__name__][params["reduce__n_components"]] = score

print(f"Held-out log-likelihood on {len(X)} digits, nats per row")
print(f"{'n_components':>12}" + "".join(f"{name:>12}" for name in nats))
for size in sizes:
    print(f"{size:>12}" + "".join(f"{scores[size]:>12.3f}" for scores in nats.values()))
best_size = search.best_params_["reduce__n_components"]
print(f"best: {best_size} components")

# %%
# New digits
# ----------
# The winner's pipeline with LinearAE in it: the same codes and the same score, and rows
# from the model's own density, taken back through the scaler. `noise=False` draws the
# means of p(x|z), without the pixel noise that the model adds to them.

pipeline = clone(search.best_estimator_).set_params(reduce=LinearAE(best_size)).fit(X)
shown = 8
drawn = sample_pipeline(pipeline, 2 * shown, noise=False, random_state=0)
rows = {
    "data": X[:shown],
    "reconstructed": pipeline.inverse_transform(pipeline.transform(X[:shown])),
    "drawn": drawn[:shown],
    "drawn too": drawn[shown:],
}

# %%
# The picture
# -----------

figure = plt.figure(figsize=(11, 4), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=[1, 1.15])

axes = left.subplots()
# One mark around another: the curves lie on each other.
marks = [("o-", 3, "black"), ("s", 8, "tab:blue"), ("D", 12, "tab:orange")]
for (name, scores), (style, size, colour) in zip(nats.items(), marks, strict=True):
    axes.plot(
        sizes, scores.values(), style, markersize=size, fillstyle="none", color=colour, label=name
    )
axes.axvline(best_size, color="0.8", zorder=0)
axes.set(
    xlabel="number of components",
    ylabel="held-out log-likelihood (nats per row)",
    title="One grid search, three estimators",
)
axes.legend()

right.suptitle(f"LinearAE({best_size}) in PCA's place")
grid = right.subplots(len(rows), shown)
for (name, images), line in zip(rows.items(), grid, strict=True):
    for image, cell in zip(images, line, strict=True):
        cell.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
        cell.set(xticks=[], yticks=[])
    line[0].set_ylabel(name)

path = Path("figures", "swap_pca.png")
path.parent.mkdir(exist_ok=True)
figure.savefig(path, dpi=120)
print(f"picture: {path.resolve()}")
