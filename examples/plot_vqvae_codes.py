"""
VQVAE codes as categories for a tree model
==========================================

The codes of a VQVAE are categories: code 5 does not lie between codes 4 and 6. Gradient-boosted
trees can read columns as categories. With a codebook of 16 or 64 entries, they classify digits
better from codes as categories than from the same codes as numbers. With 16 codes of 4 bits, which
take 8 bytes per digit, the trees are about as accurate as with 16 real numbers of PCA or of an
``Autoencoder``, which take 64 bytes, and as with the 64 pixels. Other small codes exist: the
numbers of PCA, rounded to 8 bytes per digit, are equally accurate within two standard errors.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer

from skae import VQVAE, Autoencoder
from skae.plotting import LatentSizeDisplay

X, y = load_digits(return_X_y=True)
X = X / 16
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=797, stratify=y, random_state=0)
n_positions = 16

# %%
# Codes for the trees
# -------------------
# A prior is not needed where no rows are drawn. The trees accept at most 255 categories per column,
# so that ``n_codes`` must not be larger.

networks = {
    "hidden_layer_sizes": (256,),
    "out_activation": "logistic",
    "init": "random",
    "solver": "adamw",
    "alpha": 1.0,
    "learning_rate": "cosine",
    "learning_rate_init": 5e-3,
    "max_iter": 30,
    "random_state": 0,
}
n_codes = [4, 16, 64]
bytes_of_codes = n_positions * np.log2(n_codes) / 8
vqvaes = [
    VQVAE(n_positions, n_codes=k, commitment_weight=4.0, prior=None, **networks).fit(X_train)
    for k in n_codes
]

# %%
# The codes of PCA and of the ``Autoencoder`` are float32 numbers of 4 bytes. In addition, the
# numbers of PCA are rounded to as many levels as the VQVAE has codes. A pixel has 17 grey levels
# and takes one byte.

n_columns = np.array([4, 8, n_positions])
autoencoder = Autoencoder(n_positions, **networks).fit(X_train)
pcas = [PCA(k).fit(X_train) for k in n_columns]
rounded = [
    make_pipeline(PCA(n_positions), KBinsDiscretizer(k, encode="ordinal", strategy="uniform"))
    for k in n_codes
]
methods = {
    "VQVAE, as categories": (bytes_of_codes, vqvaes),
    "VQVAE, as numbers": (bytes_of_codes, vqvaes),
    "PCA": (4 * n_columns, pcas),
    "PCA(16), rounded": (bytes_of_codes, [model.fit(X_train) for model in rounded]),
    "Autoencoder(16)": ([4 * n_positions], [autoencoder]),
    "64 pixels": ([X.shape[1]], [None]),
}

# %%
# Classify digits
# ---------------
# The same trees are fitted to the training digits with the codes of every method.
# ``categorical_features`` tells the trees which columns are categories.


def correct(model, categorical):
    """Whether the trees classify each test digit correctly."""
    trees = HistGradientBoostingClassifier(
        max_iter=50,
        max_leaf_nodes=8,
        categorical_features=list(range(n_positions)) if categorical else None,
        random_state=0,
    )
    train, test = (X if model is None else model.transform(X) for X in (X_train, X_test))
    return trees.fit(train, y_train).predict(test) == y_test


results = {
    name: (sizes, np.array([correct(model, name == "VQVAE, as categories") for model in models]))
    for name, (sizes, models) in methods.items()
}

print(f"Accuracy on {len(X_test)} test digits")
print(f"{'':<24}{'bytes per digit':>16}{'accuracy':>18}")
for name, (sizes, hits) in results.items():
    for size, hit in zip(sizes, hits, strict=True):
        error = hit.std() / np.sqrt(len(hit))
        print(f"{name:<24}{size:>16.0f}{hit.mean():>11.1%} ± {error:.1%}")

print("\nAccuracy of 16 codes (8 bytes) as categories, minus that of")
eight_bytes = results["VQVAE, as categories"][1][1].astype(float)
gains = {}
for name, (sizes, hits) in results.items():
    if name != "VQVAE, as categories":
        which = 1 if name in ("VQVAE, as numbers", "PCA(16), rounded") else -1
        gain = eight_bytes - hits[which]
        gains[name] = gain.mean()
        title = f"{name}, {sizes[which]:.0f} bytes"
        print(f"{title:<32}{gain.mean():>+7.1%} ± {gain.std() / np.sqrt(len(gain)):.1%} (paired)")
assert gains["VQVAE, as numbers"] > 0
assert min(gains["PCA"], gains["64 pixels"]) > -0.02

# %%
# Means over the test digits, and bands of one standard error. The VQVAE and the rounded PCA have 4,
# 16 and 64 codes or levels, which take 4, 8 and 12 bytes.

display = LatentSizeDisplay(
    results, xlabel="bytes per digit", ylabel="accuracy on test digits"
).plot()

plt.show()
