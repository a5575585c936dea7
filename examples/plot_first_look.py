"""
A first look: codes, reconstructions, new digits
================================================

A variational autoencoder (VAE) of scikit-learn's handwritten digits, next to PCA. The script fits
both models with two codes for each image, compares them on images that were held out, and draws
what a newcomer wants to see first: reconstructions, codes and new images.
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split

from skae import VAE
from skae.metrics import reconstruction_error
from skae.plotting import LatentSpaceDisplay, ReconstructionDisplay, SampleDisplay

# %%
# Fit and compare
# ---------------
# Each row is an image of 8 x 8 pixels. skae's models have scikit-learn's methods, so that the same
# lines serve both. `score` is the mean log-likelihood of held-out rows in nats: exact for PCA, and
# a lower bound for the VAE (`score_kind`).

X, y = load_digits(return_X_y=True)
X_train, X_test, _, y_test = train_test_split(X, y, test_size=500, stratify=y, random_state=0)

pca = PCA(n_components=2).fit(X_train)
vae = VAE(n_components=2, hidden_layer_sizes=(128, 64), max_iter=100, random_state=0).fit(X_train)

print("500 held-out digits")
print(f"{'':<12}{'squared error':>15}{'log-likelihood':>18}")
for name, model in {"PCA": pca, "VAE": vae}.items():
    error = reconstruction_error(X_test, model.inverse_transform(model.transform(X_test)))
    print(f"{name:<12}{error:>15.1f}{model.score(X_test):>13.1f} nats")
assert vae.score(X_test) > pca.score(X_test)

# %%
# Draw
# ----
# A display computes what it draws from a fitted model. It makes a figure of its own, or draws into
# the axes that it is given.

figure, axes = plt.subplot_mosaic(
    [["pca", "codes"], ["vae", "codes"], ["samples", "codes"]],
    figsize=(12.5, 5.6),
    width_ratios=[1.25, 1],
    height_ratios=[2, 2, 3],
    layout="constrained",
)
for name, model in {"pca": pca, "vae": vae}.items():
    ReconstructionDisplay.from_estimator(
        model, X_test, n_samples=12, image_shape=(8, 8), ax=axes[name]
    )
    axes[name].set_title(f"Held-out digits, reconstructed by {name.upper()} from two codes")
SampleDisplay.from_estimator(
    vae, n_samples=36, image_shape=(8, 8), random_state=0, ax=axes["samples"]
)
axes["samples"].set_title("New digits, drawn by the VAE")
LatentSpaceDisplay.from_estimator(vae, X_test, y_test, posterior=False, ax=axes["codes"])
axes["codes"].set_title("Codes of the held-out digits, coloured by label")

figure.savefig("first_look.png", dpi=120)
print("\nThe picture is in first_look.png")
plt.show()
