"""
Digits as 16 small integers, and new ones from a prior over them
================================================================

VQVAE rounds what the encoder says to entries of a codebook, so that a digit is 16 integers.
Which integers stand together is for the prior p(k) to learn, when the networks are done. New
digits need it: codes drawn at random decode to blots, codes drawn position by position hardly
do better, and codes drawn in order, each given those before it, mostly decode to digits. The
scores of digits held out rank the three alike.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from skae import VQVAE
from skae.metrics import frechet_distance, reconstruction_error

X, y = load_digits(return_X_y=True)
X = X / 16
X_rest, X_test, y_rest, y_test = train_test_split(X, y, test_size=500, stratify=y, random_state=0)
X_train, X_valid, y_train, _ = train_test_split(
    X_rest, y_rest, test_size=200, stratify=y_rest, random_state=0
)
n_positions = 16

# %%
# How many codes
# --------------
# The more codes there are to choose from, the better the digits come back, and the more it
# takes to say which codes. Without a prior, a code costs log2(n_codes) bits at each position.
# The causal prior says the same in fewer, -log2 p(k), by `score_codes`. `score_samples` counts
# both, errors and bits. 200 digits choose by it: of those that are within a standard error of
# the best, the largest codebook. They chose the other settings, too: a `commitment_weight` above
# its default buys codes that the prior finds easier to foresee.


def fit(n_codes, prior):
    return VQVAE(
        n_positions,
        n_codes=n_codes,
        prior=prior,
        commitment_weight=4.0,
        hidden_layer_sizes=(256,),
        out_activation="logistic",
        init="random",  # for which these settings were chosen
        solver="adamw",
        alpha=1.0,
        learning_rate="cosine",
        learning_rate_init=5e-3,
        max_iter=40,
        random_state=0,
    ).fit(X_train)


sizes = (4, 16, 64)
causal = {n_codes: fit(n_codes, "autoregressive") for n_codes in sizes}

print(f"A digit as {n_positions} integers; {len(X_test)} digits held out")
print(f"{'':<8}{'squared':>10}{'codes in use':>14}{'bits of a code':^24}{'nats per digit':^24}")
print(f"{'n_codes':<8}{'error':>10}{'(perplexity)':>14}{'no prior':>12}{'causal':>12}", end="")
print(f"{'held out':>12}{'to choose':>12}")
valid = {}
for n_codes, model in causal.items():
    valid[n_codes] = model.score_samples(X_valid)
    bits = -model.score_codes(model.transform(X_test)).mean() / np.log(2)
    error = reconstruction_error(X_test, model.reconstruct(X_test))
    print(f"{n_codes:<8}{error:>10.2f}{model.perplexity(X_test):>14.1f}", end="")
    print(f"{n_positions * np.log2(n_codes):>12.1f}{bits:>12.1f}", end="")
    print(f"{model.score(X_test):>12.2f}{valid[n_codes].mean():>12.2f}")
best = max(valid.values(), key=np.mean)
enough = best.mean() - best.std() / np.sqrt(len(best))
n_codes = max(n_codes for n_codes, nats in valid.items() if nats.mean() >= enough)
print(f"chosen: n_codes={n_codes}, the best mean less its standard error is {enough:.2f}\n")

# %%
# Three priors, one autoencoder
# -----------------------------
# With the same seed, all else is the same: what differs is p(k). Without one, codes are drawn
# at random, all equally likely, and `inverse_transform` decodes them. A classifier of the
# training digits says how sure it is of what is drawn; the Fréchet distance compares the means
# and covariances of 500 rows with those of the digits held out.

models = {
    "no prior": fit(n_codes, None),
    "independent": fit(n_codes, "independent"),
    "autoregressive": causal[n_codes],
}
codes = models["autoregressive"].transform(X_test)
assert all(np.array_equal(model.transform(X_test), codes) for model in models.values())

random_codes = np.random.RandomState(0).randint(n_codes, size=(500, n_positions))
drawn = {
    name: model.inverse_transform(random_codes)
    if model.prior is None
    else model.sample(500, noise=False, random_state=0)
    for name, model in models.items()
}
decoded = models["autoregressive"].inverse_transform(codes)
judge = LogisticRegression(max_iter=1000).fit(X_train, y_train)

nats = {name: model.score(X_test) for name, model in models.items()}
table = {"digits of the training": X_train[:500], "held out, decoded": decoded, **drawn}
sure = {name: judge.predict_proba(rows).max(axis=1).mean() for name, rows in table.items()}
apart = {name: frechet_distance(X_test, rows) for name, rows in table.items()}
print(f"500 rows of each{'judge is sure':>24}{'Fréchet distance':>20}{'nats per row':>16}")
for name in table:
    score = f"{nats[name]:.2f}" if name in nats else ""
    print(f"{name:<24}{sure[name]:>16.0%}{apart[name]:>20.2f}{score:>16}")

names = list(models)
assert nats["no prior"] < nats["independent"] < nats["autoregressive"]
for name in names[:2]:
    assert sure["autoregressive"] > sure[name] + 0.15
    assert apart["autoregressive"] < 0.7 * apart[name]

# %%
# The picture
# -----------
# Left, the code of a digit, in four lines for the eye alone: the networks are fully connected,
# and no position stands for a place.

figure = plt.figure(figsize=(13, 6.4), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=[1, 1.75])


def show(cell, image):
    cell.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
    cell.set(xticks=[], yticks=[])


left.suptitle(f"Digits held out, their codes ({n_codes} to choose\nfrom at each position), decoded")
grid = left.subplots(4, 3)
shown = [np.flatnonzero(y_test == label)[0] for label in (0, 2, 4, 7)]
for i, (digit, cell, again) in zip(shown, grid, strict=True):
    show(digit, X_test[i])
    show(again, decoded[i])
    cell.set(xlim=(-0.5, 3.5), ylim=(3.5, -0.5), aspect="equal", xticks=[], yticks=[])
    for (row, column), code in np.ndenumerate(codes[i].reshape(4, 4)):
        cell.text(column, row, str(code), ha="center", va="center", fontsize=10)
for cell, title in zip(grid[0], ("digit", "16 integers", "decoded"), strict=True):
    cell.set_title(title, fontsize=10)

right.suptitle("Rows drawn, without pixel noise")
titles = {
    "no prior": "codes at random, all equally likely",
    "independent": "prior='independent': each position by itself",
    "autoregressive": "prior='autoregressive': each code given those before",
}
for block, name in zip(right.subfigures(3, 1), names, strict=True):
    text = f"{titles[name]}; {nats[name]:.1f} nats per digit held out, judge {sure[name]:.0%} sure"
    block.suptitle(text, fontsize=10)
    for image, cell in zip(drawn[name], block.subplots(2, 12).flat, strict=False):
        show(cell, image)

path = Path("figures", "vqvae.png")
path.parent.mkdir(exist_ok=True)
figure.savefig(path, dpi=120)
print(f"\npicture: {path.resolve()}")
