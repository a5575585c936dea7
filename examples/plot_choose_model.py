"""
One search for the model and its size
=====================================

PCA and PPCA score the exact log-likelihood of a row, VAE a lower bound on its own. These
two kinds of score, and no others, may be ranked together: nats per row, of the same rows
in the same units. Of digits, the search takes a VAE with 20 latents: its bound is above the
exact figures of PCA and PPCA at every size, and on digits held out too.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV, KFold, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from skae import PPCA, VAE, sample_pipeline
from skae.metrics import bits_per_dim

# %%
# Grey levels become real numbers
# -------------------------------
# A pixel is one of 17 grey levels, and a density has no limit at 17 points: it grows as the
# noise around them shrinks. So each level k becomes a number drawn from [k, k + 1), and a
# pixel (k + u) / 17 lies in [0, 1).

levels, y = load_digits(return_X_y=True)
X = (levels + np.random.RandomState(0).uniform(size=levels.shape)) / 17
X_train, X_test = train_test_split(X, test_size=500, stratify=y, random_state=0)

# %%
# The search
# ----------
# All three models have one noise variance for all pixels. The scaler puts the pixels, some of
# them nearly always empty, into units in which that is fair; it is the same for all. Without
# it PCA with nearly all components wins: these alone can follow a pixel that never varies.

vae = VAE(
    hidden_layer_sizes=(256,),
    noise_variance="scalar",
    prior="mixture",
    learning_rate="cosine",
    learning_rate_init=5e-3,
    max_iter=60,
    tol=0,
    random_state=0,
)
models = [PCA(), PPCA(), vae]
sizes = [5, 10, 20, 40, 60]
search = GridSearchCV(
    Pipeline([("scale", StandardScaler()), ("reduce", PCA())]),
    {"reduce": models, "reduce__n_components": sizes},
    cv=KFold(3, shuffle=True, random_state=0),
)
search.fit(X_train)

nats = {type(model).__name__: {} for model in models}
for params, score in zip(
    search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True
):
    nats[type(params["reduce"]).__name__][params["reduce__n_components"]] = score

print(f"Cross-validated on {len(X_train)} digits, nats per row of standardised pixels")
print(f"{'n_components':<14}" + "".join(f"{k:>10}" for k in sizes))
for name, curve in nats.items():
    print(f"{name:<14}" + "".join(f"{curve[k]:>10.2f}" for k in sizes))
best, best_size = search.best_params_["reduce"], search.best_params_["reduce__n_components"]
print(f"chosen: {type(best).__name__}, {best_size} components\n")

# %%
# The digits held out
# -------------------
# Bits per pixel need the density per grey level: that of the standardised pixels, divided by
# their scales, and a level is 1/17 wide. 17 levels that are equally likely cost 4.09 bits.

fitted, scores, bits = {}, {}, {}
print(f"The best of each, on {len(X_test)} digits held out")
print(f"{'':<14}{'nats per row':>14}{'bits per pixel':>18}  kind")
for model in models:
    name = type(model).__name__
    size = max(nats[name], key=nats[name].get)
    pipeline = clone(search.estimator).set_params(reduce=clone(model), reduce__n_components=size)
    fitted[name, size] = pipeline.fit(X_train)
    score = scores[name] = pipeline.score_samples(X_test)
    kind = getattr(pipeline["reduce"], "score_kind", "log_likelihood")
    bits[name] = bits_per_dim(score - np.log(pipeline["scale"].scale_).sum(), 64, level=1 / 17)
    title, error = f"{name}({size})", score.std() / np.sqrt(len(score))
    print(f"{title:<14}{score.mean():>8.2f} ± {error:.2f}{bits[name]:>17.3f}  {kind}")
gain = scores["VAE"] - scores["PCA"]
print(f"VAE - PCA, paired {gain.mean():>8.2f} ± {gain.std() / np.sqrt(len(gain)):.2f}")
assert isinstance(best, VAE)
assert gain.mean() > 0

# %%
# The picture
# -----------

figure = plt.figure(figsize=(12, 4.2), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=[1, 1.2])

axes = left.subplots()
# One mark around another: PPCA scores what PCA does.
marks = [("o-", 3, "black"), ("s", 9, "tab:orange"), ("D-", 6, "tab:blue")]
for (name, curve), (style, size, colour) in zip(nats.items(), marks, strict=True):
    axes.plot(
        sizes, curve.values(), style, markersize=size, fillstyle="none", color=colour, label=name
    )
axes.axvline(best_size, color="0.85", zorder=0)
axes.set(
    xlabel="number of components",
    ylabel="cross-validated score (nats per row)",
    title="One search, one unit: exact for PCA and PPCA,\na lower bound for VAE",
    xscale="log",
)
axes.set_xticks(sizes, sizes)
axes.minorticks_off()
axes.legend()

shown = 10
rows = {"digits held out": X_test[:shown]}
for (name, size), pipeline in fitted.items():
    if name != "PCA":  # it draws no rows
        drawn = sample_pipeline(pipeline, 2 * shown, noise=False, random_state=0)
        rows[f"drawn by\n{name}({size}),\n{bits[name]:.2f} bits"] = drawn[:shown]
        rows[f"{name} again"] = drawn[shown:]
right.suptitle("Digits, and rows drawn by the best of each, without pixel noise")
grid = right.subplots(len(rows), shown)
for (name, images), line in zip(rows.items(), grid, strict=True):
    for image, cell in zip(images, line, strict=True):
        cell.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
        cell.set(xticks=[], yticks=[])
    label = "" if name.endswith("again") else name
    line[0].set_ylabel(label, rotation=0, ha="right", va="center")

path = Path("figures", "choose_model.png")
path.parent.mkdir(exist_ok=True)
figure.savefig(path, dpi=120)
print(f"\npicture: {path.resolve()}")
