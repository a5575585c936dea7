"""
Missing values
==============

`PPCA` is fitted to rows with missing values (NaN) as they are: `fit` maximises the likelihood of
the observed values, and `impute` replaces each missing value by its mean given the observed values
of the row. Here a fifth of the pixels of digits is removed. PPCA fills them in as accurately as
scikit-learn's `IterativeImputer`, which fits one regression for each pixel in each round, and takes
less time. A classifier after `PPCAImputer`, which is PPCA as a step of a Pipeline, is about as
accurate as after `IterativeImputer`. `KNNImputer`, which averages similar rows, is more accurate
than both for digits, because each digit is similar to some others.
"""

from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.experimental import enable_iterative_imputer  # noqa: F401  provides IterativeImputer
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from skae import PPCA, PPCAImputer
from skae.plotting import ReconstructionDisplay

_ = threadpool_limits(1)  # the matrices are small, and several threads would be slower

# %%
# Remove a fifth of the pixels
# ----------------------------

X, digit = load_digits(return_X_y=True)
rng = np.random.RandomState(0)
removed = rng.uniform(size=X.shape) < 0.2
X_seen = np.where(removed, np.nan, X)


def rmse(filled, where):
    return np.sqrt(np.mean((filled - X)[where] ** 2))


# %%
# Choose the settings without the removed values
# ----------------------------------------------
# Further pixels are removed from the observed ones, and the settings that fill in these best are
# chosen. PPCA has one noise variance for all pixels, so that the units of the pixels matter. Each
# pixel is divided by a power of its standard deviation: power 0 keeps the grey levels, power 1
# standardises, and power 0.5 lies between them.

spread = np.nanstd(X_seen, axis=0)
spread[spread == 0] = 1


def fill_by_ppca(rows, power, n_components):
    scale = spread**power
    ppca = PPCA(n_components, tol=1e-4, random_state=0)  # more iterations do not fill in better
    return ppca.fit(rows / scale).impute(rows / scale) * scale


hidden = (rng.uniform(size=X.shape) < 0.1) & ~removed
X_less = np.where(hidden, np.nan, X_seen)
powers, sizes = [0, 0.5, 1], [20, 25, 30]
trials = {(p, q): rmse(fill_by_ppca(X_less, p, q), hidden) for p in powers for q in sizes}
power, n_components = min(trials, key=trials.get)

print("RMSE of the further pixels, by which the settings are chosen")
print(f"{'n_components':<14}" + "".join(f"{q:>8}" for q in sizes))
for p in powers:
    print(f"{'power ' + str(p):<14}" + "".join(f"{trials[p, q]:>8.2f}" for q in sizes))
print(f"chosen: power {power}, {n_components} components")

# %%
# Fill in by four methods
# -----------------------

methods = {
    "mean": SimpleImputer().fit_transform,
    "KNNImputer": KNNImputer().fit_transform,
    "IterativeImputer": IterativeImputer(random_state=0).fit_transform,
    "PPCA": lambda rows: fill_by_ppca(rows, power, n_components),
}
filled, errors = {}, {}
print(f"The {removed.sum()} removed pixels (grey levels 0 to 16)")
print(f"{'':<18}{'RMSE':>8}{'seconds':>10}")
for name, fill in methods.items():
    start = perf_counter()
    filled[name] = fill(X_seen)
    seconds = perf_counter() - start
    errors[name] = rmse(filled[name], removed)
    print(f"{name:<18}{errors[name]:>8.2f}{seconds:>10.2f}")

# %%
# Classify the digits
# -------------------
# The classifier does not accept NaN. Each imputer stands before it in a Pipeline, learns from the
# training rows, and fills in the missing pixels of new rows. `PPCAImputer` has the conventions of
# scikit-learn's imputers.

train, test, digit_train, digit_test = train_test_split(
    X_seen, digit, test_size=1 / 3, stratify=digit, random_state=0
)
imputers = {
    "mean": SimpleImputer(),
    "KNNImputer": KNNImputer(),
    "IterativeImputer": IterativeImputer(random_state=0),
    "PPCA": PPCAImputer(n_components, tol=1e-4, random_state=0),
}
accuracies = {}
print(f"{len(test)} new digits with missing pixels")
print(f"{'':<18}{'accuracy':>10}{'seconds':>10}")
for name, imputer in imputers.items():
    pipeline = make_pipeline(imputer, StandardScaler(), LogisticRegression(max_iter=1000))
    start = perf_counter()
    accuracies[name] = pipeline.fit(train, digit_train).score(test, digit_test)
    print(f"{name:<18}{accuracies[name]:>10.1%}{perf_counter() - start:>10.2f}")

# %%
# Ten of the digits, below them the same digits with missing pixels, and what three methods fill in.
# The accuracy is that of the classifier after each method.

panels = {"Removed pixels": ("observed", X_seen)}
for name in ("KNNImputer", "IterativeImputer", "PPCA"):
    title = f"{name}: RMSE {errors[name]:.2f}, accuracy {accuracies[name]:.1%}"
    panels[title] = ("filled in", filled[name])

_, axes = plt.subplots(2, 2, figsize=(9, 3), layout="constrained")
for ax, (title, (label, rows)) in zip(axes.ravel(), panels.items(), strict=True):
    ReconstructionDisplay(X[:10], rows[:10], image_shape=(8, 8)).plot(ax)
    ax.set_title(title)
    ax.set_yticklabels(["complete", label])

plt.show()
