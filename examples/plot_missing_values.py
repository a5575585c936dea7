"""
Missing values
==============

`PPCAImputer` fits `PPCA` to rows with missing values (NaN) as they are, and replaces each missing
value by its mean given the observed values of the row. Here a fifth of the pixels of digits is
removed. With its default settings, `PPCAImputer` fills them in more accurately than scikit-learn's
`IterativeImputer`, which fits one regression for each pixel in each round, and a classifier after
it is as accurate as after `IterativeImputer`. `KNNImputer`, which averages similar rows, is better
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

from skae import PPCAImputer
from skae.plotting import ReconstructionDisplay

_ = threadpool_limits(1)  # the matrices are small, and several threads would be slower

# %%
# Remove a fifth of the pixels
# ----------------------------

X, digit = load_digits(return_X_y=True)
removed = np.random.RandomState(0).uniform(size=X.shape) < 0.2
X_seen = np.where(removed, np.nan, X)

# %%
# Fill in by four imputers
# ------------------------
# The number of components of `PPCAImputer` is the largest that is possible; the prior of its
# loadings switches off those that are not needed. Each pixel has its own noise variance.

imputers = {
    "SimpleImputer": SimpleImputer(),
    "KNNImputer": KNNImputer(),
    "IterativeImputer": IterativeImputer(random_state=0),
    "PPCAImputer": PPCAImputer(random_state=0),
}
filled, errors = {}, {}
print(f"The {removed.sum()} removed pixels (grey levels 0 to 16)")
print(f"{'':<18}{'RMSE':>8}{'seconds':>10}")
for name, imputer in imputers.items():
    start = perf_counter()
    filled[name] = imputer.fit_transform(X_seen)
    seconds = perf_counter() - start
    errors[name] = np.sqrt(np.mean((filled[name] - X)[removed] ** 2))
    print(f"{name:<18}{errors[name]:>8.2f}{seconds:>10.2f}")

print(f"components of PPCAImputer: {imputers['PPCAImputer'].ppca_.n_components_} of 63 are not 0")

# %%
# Classify the digits
# -------------------
# The classifier does not accept NaN. Each imputer stands before it in a Pipeline, learns from the
# training rows, and fills in the missing pixels of new rows.

train, test, digit_train, digit_test = train_test_split(
    X_seen, digit, test_size=1 / 3, stratify=digit, random_state=0
)
accuracies = {}
print(f"{len(test)} new digits with missing pixels")
print(f"{'':<18}{'accuracy':>10}")
for name, imputer in imputers.items():
    pipeline = make_pipeline(imputer, StandardScaler(), LogisticRegression(max_iter=1000))
    accuracies[name] = pipeline.fit(train, digit_train).score(test, digit_test)
    print(f"{name:<18}{accuracies[name]:>10.1%}")

# %%
# Ten of the digits, below them the same digits with missing pixels, and what three of the imputers
# fill in. The accuracy is that of the classifier after each of them.

panels = {"Removed pixels": ("observed", X_seen)}
for name in ("KNNImputer", "IterativeImputer", "PPCAImputer"):
    title = f"{name}: RMSE {errors[name]:.2f}, accuracy {accuracies[name]:.1%}"
    panels[title] = ("filled in", filled[name])

_, axes = plt.subplots(2, 2, figsize=(9, 3), layout="constrained")
for ax, (title, (label, rows)) in zip(axes.ravel(), panels.items(), strict=True):
    ReconstructionDisplay(X[:10], rows[:10], image_shape=(8, 8)).plot(ax)
    ax.set_title(title)
    ax.set_yticklabels(["complete", label])

plt.show()
