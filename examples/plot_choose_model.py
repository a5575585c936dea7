"""
Choose the model and its size in one search
===========================================

PCA and PPCA score the exact log-likelihood of a row. A VAE scores a lower bound on its own
log-likelihood. These two kinds of scores can be compared: both are nats per row, for the same rows
in the same units. Scores of other kinds cannot be compared with them. On the digits, the search
chooses the VAE: its bound is higher than the exact values of PCA and PPCA at every size, and also
on test digits.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import KFold, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from skae import PPCA, VAE, GridSearchCV, sample_pipeline
from skae.metrics import bits_per_dim
from skae.plotting import LatentSizeDisplay, SampleDisplay

# %%
# Grey levels become real numbers
# -------------------------------
# A pixel is one of 17 grey levels. A density of integers has no upper limit: it grows as the noise
# variance around the integers shrinks. We therefore replace each level k by a number drawn
# uniformly from [k, k + 1), and divide by 17.

levels, y = load_digits(return_X_y=True)
X = (levels + np.random.RandomState(0).uniform(size=levels.shape)) / 17
X_train, X_test = train_test_split(X, test_size=500, stratify=y, random_state=0)

# %%
# The search
# ----------
# ``skae.GridSearchCV`` gives the results of scikit-learn's, and shares work between candidates.
# With ``verbose=1`` it prints what was shared.
#
# All three models have one noise variance for all pixels. The scaler therefore gives all pixels the
# same variance; some of them are nearly always empty. Without the scaler, PCA with nearly all
# components would have the highest score, because only they fit pixels that hardly vary.

vae = VAE(
    hidden_layer_sizes=(128,),
    noise_variance="scalar",
    prior="mixture",
    learning_rate="cosine",
    learning_rate_init=5e-3,
    max_iter=30,
    tol=0,
    random_state=0,
)
models = [PCA(), PPCA(), vae]
sizes = [5, 10, 20, 40]
search = GridSearchCV(
    Pipeline([("scale", StandardScaler()), ("reduce", PCA())]),
    {"reduce": models, "reduce__n_components": sizes},
    cv=KFold(3, shuffle=True, random_state=0),
    verbose=1,
)
search.fit(X_train)

display = LatentSizeDisplay.from_estimator(search)

# %%
# The same scores as a table, in nats per row of standardised pixels:

nats = {name: scores.mean(axis=1) for name, (_, scores) in display.curves.items()}
print(f"{'n_components':<14}" + "".join(f"{k:>10}" for k in sizes))
for name, curve in nats.items():
    print(f"{name:<14}" + "".join(f"{score:>10.2f}" for score in curve))
best = search.best_params_["reduce"]
print(f"chosen: {type(best).__name__}, {search.best_params_['reduce__n_components']} components")

# %%
# Test digits
# -----------
# Bits per pixel need the density of the grey levels: the density of the standardised pixels divided
# by their standard deviations, with levels that are 1/17 apart. Equal probabilities for all 17
# levels would give 4.09 bits per pixel.

fitted, scores = {}, {}
print(f"The best size of each model, on {len(X_test)} test digits")
print(f"{'':<14}{'nats per row':>14}{'bits per pixel':>18}  kind")
for model in models:
    name = type(model).__name__
    size = sizes[np.argmax(nats[name])]
    pipeline = clone(search.estimator).set_params(reduce=clone(model), reduce__n_components=size)
    fitted[name] = pipeline.fit(X_train)
    score = scores[name] = pipeline.score_samples(X_test)
    kind = getattr(pipeline["reduce"], "score_kind", "log_likelihood")
    bits = bits_per_dim(score - np.log(pipeline["scale"].scale_).sum(), 64, level=1 / 17)
    title, error = f"{name}({size})", score.std() / np.sqrt(len(score))
    print(f"{title:<14}{score.mean():>8.2f} ± {error:.2f}{bits:>17.3f}  {kind}")
gain = scores["VAE"] - scores["PCA"]
print(f"VAE - PCA, paired {gain.mean():>8.2f} ± {gain.std() / np.sqrt(len(gain)):.2f}")
assert isinstance(best, VAE)
assert gain.mean() > 0

# %%
# New digits
# ----------
# PPCA and the VAE generate new rows; PCA has no method for it. ``sample_pipeline`` draws rows in
# the units of the pixels, here without pixel noise.

figure, axes = plt.subplots(1, 2, figsize=(9, 2.7), layout="constrained")
for name, cell in zip(("PPCA", "VAE"), axes, strict=True):
    cell.set_title(f"{name}: {scores[name].mean():.1f} nats per test digit")
    drawn = sample_pipeline(fitted[name], 32, noise=False, random_state=0)
    display = SampleDisplay(drawn, image_shape=(8, 8), limits=(0, 1)).plot(ax=cell)

plt.show()
