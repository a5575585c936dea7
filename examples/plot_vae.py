"""
Sample, traverse and fill in with one VAE
=========================================

A variational autoencoder describes how rows arise: a code z is drawn from N(0, I), and then a row x
from p(x|z). One VAE of the digits draws new digits, shows what each of its codes changes, and fills
in a missing half of a digit more accurately than `PPCA`, which is the linear model of this kind. A
second VAE is given labels, and draws the digit that is asked for.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from skae import PPCA, VAE
from skae.plotting import ReconstructionDisplay, SampleDisplay, TraversalDisplay

X, y = load_digits(return_X_y=True)
X = X / 16
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=500, stratify=y, random_state=0)

# %%
# Train with complete and with incomplete digits
# ----------------------------------------------
# NaN is a missing value. The encoder learns from every training digit twice, once complete and once
# without its lower half, so that it can encode both kinds of rows.

settings = {
    "n_components": 10,
    "hidden_layer_sizes": (256,),
    "learning_rate": "cosine",
    "learning_rate_init": 3e-3,
    "tol": 0,
    "random_state": 0,
}
upper_half = np.arange(64) < 32
X_half = np.where(upper_half, X_test, np.nan)
halves = np.where(upper_half, X_train, np.nan)
vae = VAE(max_iter=60, **settings).fit(np.concatenate([X_train, halves]))
ppca = {k: PPCA(k).fit(X_train) for k in (10, 30)}

# %%
# Draw new digits
# ---------------
# The samples are means of p(x|z), without the noise of the pixels. Samples of the VAE are nearer to
# the training digits than samples of PPCA, and farther from them than held-out digits.


def distance(rows):
    """Median of the squared distances of rows to their nearest training digits."""
    nearest = NearestNeighbors(n_neighbors=1).fit(X_train).kneighbors(rows)[0]
    return np.median(nearest**2)


print("Squared distance to the nearest training digit, median of 500 rows")
for name, rows in {
    "held-out digits": X_test,
    "their reconstructions": vae.reconstruct(X_test),
    "samples of VAE(10)": vae.sample(500, noise=False, random_state=0),
    "samples of PPCA(10)": ppca[10].sample(500, noise=False, random_state=0),
}.items():
    print(f"{name:<26}{distance(rows):>6.2f}")

display = SampleDisplay.from_estimator(
    vae, X_test, n_samples=20, image_shape=(8, 8), random_state=0
)

# %%
# Change one code at a time
# -------------------------
# The display draws the codes with the largest mean KL divergence from the prior. These codes carry
# the most information about the rows. The first row that it is given is a three, whose other codes
# keep their values.

three = np.flatnonzero(y_test == 3)[0]
display = TraversalDisplay.from_estimator(
    vae, np.concatenate([X_test[[three]], X_test]), image_shape=(8, 8)
)

# %%
# Fill in the missing half
# ------------------------
# `impute` gives the means of the missing pixels given the observed ones. For PPCA they are exact.
# For the VAE they are estimated from 1000 weighted draws of z for each row.

missing = np.isnan(X_half)
filled = {
    "mean": np.where(missing, X_train.mean(axis=0), X_test),
    "PPCA(10)": ppca[10].impute(X_half),
    "PPCA(30)": ppca[30].impute(X_half),
    "VAE(10)": vae.impute(X_half, n_importance=1000),
}
errors = {name: np.sqrt(np.mean((rows - X_test)[missing] ** 2)) for name, rows in filled.items()}
print("RMSE of the lower half of 500 held-out digits (pixels from 0 to 1)")
for name, error in errors.items():
    print(f"{name:<26}{error:>6.3f}")
assert errors["VAE(10)"] < errors["PPCA(30)"] < errors["mean"]

# %%
# With `n_draws`, `impute` draws missing values in place of their means.

shown = [np.flatnonzero(y_test == label)[0] for label in range(10)]
draw = vae.impute(X_half[shown], n_draws=1, n_importance=1000, random_state=0)[0]
panels = {
    "Removed pixels": ("observed", X_half[shown]),
    f"PPCA(30): RMSE {errors['PPCA(30)']:.3f}": ("filled in", filled["PPCA(30)"][shown]),
    f"VAE(10): RMSE {errors['VAE(10)']:.3f}": ("filled in", filled["VAE(10)"][shown]),
    "VAE(10), a draw": ("filled in", draw),
}
_, axes = plt.subplots(2, 2, figsize=(9, 3), layout="constrained")
for ax, (title, (label, rows)) in zip(axes.ravel(), panels.items(), strict=True):
    ReconstructionDisplay(X_test[shown], rows, image_shape=(8, 8)).plot(ax)
    ax.set_title(title)
    ax.set_yticklabels(["complete", label])

# %%
# Ask for a digit
# ---------------
# With `conditional=True`, the model learns p(x|z, y). The prior of the codes does not depend on y,
# but the codes may still carry the label. A larger `beta` reduces what they carry, so that the
# decoder takes the label from y. A classifier of the training digits checks the samples.

conditional = VAE(conditional=True, beta=3, max_iter=60, **settings).fit(X_train, y_train)
labels = np.tile(conditional.classes_, 50)
samples = conditional.sample(len(labels), y=labels, noise=False, random_state=0)
classifier = KNeighborsClassifier(3).fit(X_train, y_train)
accuracy = classifier.score(samples, labels)
print(f"accuracy of the classifier on held-out digits: {classifier.score(X_test, y_test):.1%}")
print(f"share of samples recognised as the label:      {accuracy:.1%}")
assert accuracy > 0.8

display = SampleDisplay(samples[:50], image_shape=(8, 8), limits=(0, 1)).plot()
display.ax_.set_title("Samples given the label, one column for each label")

plt.show()
