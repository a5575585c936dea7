"""
Digits as 16 integers, and new digits from a prior over them
============================================================

A VQVAE rounds the output of its encoder to entries of a codebook, so that the code of a digit is 16
integers. To draw new digits, the model also needs a distribution of these integers, the prior p(k).
This example compares three priors on top of the same autoencoder. Codes that are drawn with equal
probabilities decode to images that show no digits. Codes whose positions are drawn independently
are little better. Codes that are drawn one position after another, each given the positions before
it, mostly decode to digits. The scores of held-out digits rank the three priors in the same order.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from skae import VQVAE
from skae.metrics import frechet_distance, reconstruction_error
from skae.plotting import CodebookDisplay, ReconstructionDisplay, SampleDisplay

X, y = load_digits(return_X_y=True)
X = X / 16
X_rest, X_test, y_rest, y_test = train_test_split(X, y, test_size=500, stratify=y, random_state=0)
X_train, X_valid, y_train, _ = train_test_split(
    X_rest, y_rest, test_size=200, stratify=y_rest, random_state=0
)
n_positions = 16

# %%
# Choose the number of codes
# --------------------------
# A larger codebook lowers the reconstruction error, and it takes more bits to store which entries a
# digit uses. Without a prior, a position costs log2(n_codes) bits. With a prior, the code of a
# digit costs -log2 p(k) bits; ``score_codes`` returns log p(k) in nats. ``score_samples`` counts
# both the error and the code, and its mean over 200 validation digits chooses the size.


def fit(n_codes, prior):
    return VQVAE(
        n_positions,
        n_codes=n_codes,
        prior=prior,
        prior_channels=32,
        prior_learning_rate_init=1e-2,
        prior_max_iter=20,
        commitment_weight=4.0,  # above its default, because priors then fit the codes better
        hidden_layer_sizes=(256,),
        out_activation="logistic",
        init="random",
        solver="adamw",
        alpha=1.0,
        learning_rate="cosine",
        learning_rate_init=5e-3,
        max_iter=30,
        random_state=0,
    ).fit(X_train)


causal = {n_codes: fit(n_codes, "autoregressive") for n_codes in (16, 64)}

print(
    f"Digits as {n_positions} integers: {len(X_test)} for the test, {len(X_valid)} for validation"
)
print(f"{'':<8}{'squared':>10}{'':>14}{'bits per code':^28}{'nats per digit':^24}")
print(f"{'n_codes':<8}{'error':>10}{'perplexity':>14}{'no prior':>12}", end="")
print(f"{'autoregressive':>16}{'test':>12}{'validation':>12}")
valid = {}
for n_codes, model in causal.items():
    valid[n_codes] = model.score(X_valid)
    bits = -model.score_codes(model.transform(X_test)).mean() / np.log(2)
    error = reconstruction_error(X_test, model.reconstruct(X_test))
    print(f"{n_codes:<8}{error:>10.2f}{model.perplexity(X_test):>14.1f}", end="")
    print(f"{n_positions * np.log2(n_codes):>12.1f}{bits:>16.1f}", end="")
    print(f"{model.score(X_test):>12.2f}{valid[n_codes]:>12.2f}")
n_codes = max(valid, key=valid.get)
print(f"chosen: n_codes={n_codes}")

# %%
# Codes and decoded digits
# ------------------------
# The networks are fully connected, so that a position does not belong to one part of the image.

model = causal[n_codes]
one_of_each = X_test[[np.flatnonzero(y_test == label)[0] for label in range(10)]]
for label, code in enumerate(model.transform(one_of_each)):
    print(f"code of the {label}: " + " ".join(f"{k:>2}" for k in code))

display = ReconstructionDisplay.from_estimator(model, one_of_each, n_samples=10, image_shape=(8, 8))

# %%
# The test digits use all entries of the codebook, some of them much more often than others:

display = CodebookDisplay.from_estimator(model, X_test)

# %%
# Three priors, one autoencoder
# -----------------------------
# The seed and the settings are the same, so that the autoencoders are equal and only p(k) differs.
# Without a prior, all codes are equally likely, and ``inverse_transform`` decodes codes drawn at
# random. A classifier that was fitted to the training digits measures whether new images look like
# digits, by the largest class probability that it predicts for them. The Fréchet distance compares
# the means and covariances of 500 images with those of the test digits.

independent = fit(n_codes, "independent")
codes = model.transform(X_test)
assert np.array_equal(independent.transform(X_test), codes)

random_codes = np.random.RandomState(0).randint(n_codes, size=(500, n_positions))
drawn = {
    "no prior": model.inverse_transform(random_codes),
    "independent": independent.sample(500, noise=False, random_state=0),
    "autoregressive": model.sample(500, noise=False, random_state=0),
}
given_codes = (model.score_samples(X_test) - model.score_codes(codes)).mean()  # log p(x|k)
nats = {
    "no prior": given_codes - n_positions * np.log(n_codes),
    "independent": independent.score(X_test),
    "autoregressive": model.score(X_test),
}

classifier = LogisticRegression(max_iter=1000).fit(X_train, y_train)
table = {"training digits": X_train[:500], "test digits, decoded": model.reconstruct(X_test)}
table |= drawn
sure = {name: classifier.predict_proba(rows).max(axis=1).mean() for name, rows in table.items()}
apart = {name: frechet_distance(X_test, rows) for name, rows in table.items()}
print(f"{'500 images of each':<24}{'class probability':>18}{'Fréchet distance':>20}", end="")
print(f"{'nats per digit':>18}")
for name in table:
    score = f"{nats[name]:.2f}" if name in nats else ""
    print(f"{name:<24}{sure[name]:>18.0%}{apart[name]:>20.2f}{score:>18}")

assert nats["no prior"] < nats["independent"] < nats["autoregressive"]
for name in ("no prior", "independent"):
    assert sure["autoregressive"] > sure[name] + 0.15
    assert apart["autoregressive"] < 0.7 * apart[name]

figure, axes = plt.subplots(1, 3, figsize=(9, 1.9), layout="constrained")
for name, cell in zip(drawn, axes, strict=True):
    cell.set_title(f"{name}: {nats[name]:.1f} nats")
    display = SampleDisplay(drawn[name][:32], image_shape=(8, 8), limits=(0, 1)).plot(ax=cell)

plt.show()
