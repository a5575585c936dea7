"""
PCA, LinearAE and PPCA in the same Pipeline
===========================================

`PCA` of scikit-learn, `LinearAE` and `PPCA` have the same methods. One grid search can therefore
try each of them as the same step of a Pipeline, with each number of components, and rank them all
by the log-likelihood of held-out rows in nats per row. `LinearAE` has the scores of PCA. The scores
of `PPCA` differ from them by less than 0.02 nats, because PPCA divides variances by n and PCA
divides them by n - 1. `LinearAE` and `PPCA` can also draw new digits. The page "PCA's place in
other packages" of the documentation lists packages in which they can replace PCA as well.
"""

import matplotlib.pyplot as plt
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from skae import PPCA, LinearAE
from skae.plotting import LatentSizeDisplay, ReconstructionDisplay, SampleDisplay

# %%
# The grid search
# ---------------
# The method `score` of a Pipeline calls `score` of the last step. All candidates stand behind the
# same scaler, so that their log-likelihoods are densities of the same rows and may be compared.

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
# The three curves lie on top of each other. The band is one standard error over the five folds.

display = LatentSizeDisplay.from_estimator(search)

# %%
# The same scores as a table:

nats = {type(model).__name__: {} for model in models}
for params, score in zip(
    search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True
):
    nats[type(params["reduce"]).__name__][params["reduce__n_components"]] = score

print(f"Log-likelihood of held-out digits (5 folds of {len(X)} digits), nats per row")
print(f"{'n_components':>12}" + "".join(f"{name:>12}" for name in nats))
for size in sizes:
    print(f"{size:>12}" + "".join(f"{scores[size]:>12.3f}" for scores in nats.values()))
best_size = search.best_params_["reduce__n_components"]
print(f"best: {best_size} components")

# %%
# Reconstructions and new digits
# ------------------------------
# The best Pipeline is fitted again with `LinearAE` as its last step. It reconstructs digits as PCA
# does.

pipeline = clone(search.best_estimator_).set_params(reduce=LinearAE(best_size)).fit(X)
display = ReconstructionDisplay.from_estimator(pipeline, X, n_samples=10, image_shape=(8, 8))

# %%
# New digits come from the Gaussian density that also gives the scores. The display shows the mean
# of p(x|z) for each code that it draws, without the noise of the pixels. The scaler takes the means
# back to grey levels.

display = SampleDisplay.from_estimator(
    pipeline, X, n_samples=20, image_shape=(8, 8), random_state=0
)

plt.show()
