"""
Tables with categories: the passengers of the Titanic
=====================================================

A VAE takes a table as it is: classes and ports, numbers, counts, yes and no, with holes in
all of them. `likelihood="auto"` gives every column the likelihood of its kind. With three
codes for a passenger it fills in what is hidden about as well as PPCA of one-hot columns does
with ten, and draws passengers whose chances go by class, sex and age much as those of the
real ones did.
"""

import gzip
from importlib.resources import files
from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from skae import PPCA, VAE

threadpool_limits(1)  # small matrices: more threads only wait for each other

# %%
# The table
# ---------
# It comes with the tests of scikit-learn, so that nothing is downloaded;
# `fetch_openml("titanic", version=1)` has the same. Fares, from 0 to 512 pounds, are taken as
# logarithms: a Gaussian has one noise for the small and the large. Integers and booleans are
# of types that can have holes.

packed = files("sklearn.datasets") / "tests/data/openml/id_40945/data-v1-dl-16826755.arff.gz"
head, body = gzip.decompress(packed.read_bytes()).split(b"@data\n")
names = [line.split("'")[1] for line in head.decode().splitlines() if "@attribute" in line]
raw = pd.read_csv(BytesIO(body), names=names, na_values="?")

ports = {"C": "Cherbourg", "Q": "Queenstown", "S": "Southampton"}
table = pd.DataFrame(
    {
        "class": raw["pclass"].map({1: "first", 2: "second", 3: "third"}).astype("category"),
        "sex": raw["sex"].astype("category"),
        "port": raw["embarked"].map(ports).astype("category"),
        "survived": raw["survived"].astype("boolean"),
        "age": raw["age"],
        "siblings, spouses": raw["sibsp"].astype("Int64"),
        "parents, children": raw["parch"].astype("Int64"),
        "log10 fare": np.log10(1 + raw["fare"]),
    }
)
kept = np.random.RandomState(0).uniform(size=table.shape) > 0.2
seen = table.where(kept)
hidden = table.notna() & ~kept
n_missing, n_ages = table.isna().to_numpy().sum(), table["age"].isna().sum()
print(f"{len(table)} passengers; missing are {n_missing} values, {n_ages} of them ages,")
print(f"and {hidden.to_numpy().sum()} more that were hidden here\n")

# %%
# One model of all columns
# ------------------------
# Twenty draws of the code for each row in training explain rows that are held out better than
# one does, by 0.3 nats. `score_columns` tells how well each column is explained, given the code.

settings = {"learning_rate": "cosine", "learning_rate_init": 3e-3, "random_state": 0}
vae = VAE(3, likelihood="auto", n_importance=20, max_iter=100, **settings).fit(seen)
nats = np.asarray(vae.score_columns(seen)).sum(axis=0) / seen.notna().sum()
print(f"{'column':<20}{'kind':<14}nats per value, given the code")
for name, kind in vae.likelihoods_.items():
    print(f"{name:<20}{kind:<14}{nats[name]:>6.2f}")

# %%
# What was hidden
# ---------------
# Beside the VAE stand the most frequent level or the mean of a column, and PPCA, which wants
# numbers: standardised ones, and a column of zeros and ones for each level, of which the
# largest is taken. It has three codes, or as many as the Bayesian information criterion asks
# for.

are_labels = ["class", "sex", "port", "survived"]
are_numbers = [name for name in table if name not in are_labels]
numbers = seen[are_numbers].astype(float)
mean, spread = numbers.mean(), numbers.std()
levels = {}
for name in are_labels:
    levels[name] = pd.get_dummies(seen[name].astype("category"), dtype=float)
    levels[name].loc[seen[name].isna()] = np.nan
one_hot = pd.concat([(numbers - mean) / spread, *levels.values()], axis=1)
rows = np.ascontiguousarray(one_hot)


def fill_by_ppca(n_components):
    """The table as PPCA fills it in, and how many codes it has."""
    ppca = PPCA(n_components, random_state=0).fit(rows)
    guess = ppca.impute(rows)
    filled = pd.DataFrame(guess[:, : len(are_numbers)], columns=are_numbers) * spread + mean
    start = len(are_numbers)
    for name, columns in levels.items():
        stop = start + columns.shape[1]
        filled[name] = columns.columns.to_numpy()[guess[:, start:stop].argmax(axis=1)]
        start = stop
    return filled, ppca.n_components_


plain = pd.DataFrame(index=table.index, columns=table.columns)
plain[are_labels] = [seen[name].mode()[0] for name in are_labels]
plain[are_numbers] = mean.to_numpy()
small, large = fill_by_ppca(3), fill_by_ppca("bic")
ways = {
    "most frequent, mean": plain,
    f"one-hot, PPCA({small[1]})": small[0],
    f"one-hot, PPCA({large[1]})": large[0],
    "VAE(3)": vae.impute(seen),
}


def judge(filled):
    """Share of hidden labels that are right; RMSE of hidden numbers over that of their mean."""
    found = {}
    for name in table:
        truth, guess = (frame.loc[hidden[name], name] for frame in (table, filled))
        if name in are_labels:
            found[name] = (truth.astype(object) == guess.astype(object)).mean()
        else:
            truth, guess = truth.astype(float), guess.astype(float)
            error, usual = truth - guess, truth - mean[name]
            found[name] = np.sqrt((error**2).mean() / (usual**2).mean())
    return found


results = pd.DataFrame({name: judge(filled) for name, filled in ways.items()})
print(
    "\nOf what was hidden: share of labels that are right; RMSE of numbers, that of the mean as 1"
)
results.loc["mean of labels"] = results.loc[are_labels].mean()
results.loc["mean of numbers"] = results.loc[are_numbers].mean()
print(results.round(3).to_string())
plain_right, *_, right = results.loc["mean of labels"]
assert right > plain_right + 0.05
assert results.loc["mean of numbers", "VAE(3)"] < 0.95

# %%
# Who survived
# ------------
# Draws of the model are passengers that never were. Among many of them, conditional
# frequencies are those that the model has learned: here by class, sex and age.

drawn = vae.sample(200_000, random_state=0)
edges = np.array([0, 12, 24, 36, 48, 80])


def survival(rows):
    """Share that survived, and number, by sex, class and span of ages."""
    rows = rows.dropna(subset=["age", "survived"])
    span = pd.cut(rows["age"], edges, labels=(edges[:-1] + edges[1:]) / 2)
    groups = (
        rows["survived"].astype(float).groupby([rows["sex"], rows["class"], span.astype(float)])
    )
    return groups.agg(["mean", "size"])


real, modelled = survival(table), survival(drawn)

# %%
# The picture
# -----------
# Codes shown are the two that say most of a passenger.

colours = {"first": "#0072B2", "second": "#E69F00", "third": "#009E73"}
figure = plt.figure(figsize=(12, 8), layout="constrained")
upper, lower = figure.subfigures(2, 1, height_ratios=[1.15, 1])
codes_panel, *survival_panels = upper.subplots(1, 3, width_ratios=[1.25, 1, 1])

largest = np.argsort(vae.elbo_terms(seen).kl_per_latent.mean(axis=0))[::-1][:2]
codes = np.asarray(vae.transform(seen))[:, largest]
for name, colour in colours.items():
    for sex, face in (("female", colour), ("male", "none")):
        which = (table["class"] == name) & (table["sex"] == sex)
        codes_panel.scatter(
            *codes[which].T, s=14, facecolors=face, edgecolors=colour, linewidths=0.7, alpha=0.8
        )
codes_panel.set(xlabel=f"code {largest[0]}", ylabel=f"code {largest[1]}")
codes_panel.set_title("Codes of passengers\n(women filled, men open)", fontsize=11)

for panel, sex in zip(survival_panels, ("female", "male"), strict=True):
    for name, colour in colours.items():
        line = modelled.loc[sex, name]
        panel.plot(line.index, line["mean"], color=colour, label=name)
        dots = real.loc[sex, name]
        panel.scatter(dots.index, dots["mean"], s=4 * dots["size"] ** 0.8, color=colour, alpha=0.6)
    panel.set(ylim=(-0.03, 1.05), xlabel="age, years", ylabel="share that survived")
    panel.set_title({"female": "Women and girls", "male": "Men and boys"}[sex], fontsize=11)
survival_panels[1].legend(title="class", loc="upper right")
survival_panels[0].text(
    0.04, 0.05, "lines: 200,000 drawn passengers\ndots: real ones, by number",
    transform=survival_panels[0].transAxes, fontsize=9,
)  # fmt: skip

labels_panel, numbers_panel = lower.subplots(1, 2)
marks = dict(zip(ways, [("|", "0.4"), ("o", "#CC79A7"), ("s", "#56B4E9"), ("D", "k")], strict=True))
for panel, names in ((labels_panel, are_labels), (numbers_panel, are_numbers)):
    for height, name in enumerate(names[::-1]):
        panel.axhline(height, color="0.9", zorder=0)
        for way, (marker, colour) in marks.items():
            label = way if height == 0 else None
            panel.scatter(
                results.loc[name, way], height, s=70, marker=marker, color=colour, label=label
            )
    panel.set_yticks(range(len(names)), names[::-1])
    panel.set_ylim(-0.5, len(names) - 0.5)
labels_panel.set_xlabel("share of hidden labels that are right (more is better)")
numbers_panel.set_xlabel("RMSE of hidden numbers, that of the mean as 1 (less is better)")
lower.legend(*numbers_panel.get_legend_handles_labels(), loc="outside lower center", ncols=4)
lower.suptitle("A fifth of the values hidden, and filled in")

path = Path("figures", "mixed_tables.png")
path.parent.mkdir(exist_ok=True)
figure.savefig(path, dpi=120)
print(f"\npicture: {path.resolve()}")
