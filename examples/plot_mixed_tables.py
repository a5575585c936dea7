"""
Tables with categories: the passengers of the Titanic
=====================================================

A VAE can be fitted to a table with categorical, numeric, count and boolean columns, and with
missing values in all of them. ``likelihood="auto"`` chooses a likelihood for each column from its
type. With three codes per passenger, the VAE fills in hidden values about as well as PPCA of
one-hot columns with ten codes. It also generates passengers, whose rates of survival by class, sex
and age are close to those of the real passengers.
"""

import gzip
from importlib.resources import files
from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from skae import PPCA, VAE
from skae.plotting import LatentSpaceDisplay

threadpool_limits(1)  # matrices are small, so that more threads would be slower

# %%
# The table
# ---------
# scikit-learn has this table among its tests, so that nothing is downloaded;
# ``fetch_openml("titanic", version=1)`` returns the same. Fares range from 0 to 512 pounds. We take
# their logarithms, because a Gaussian likelihood has the same noise for small and large values. A
# fifth of the values is hidden.

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
        "survived": raw["survived"].astype("boolean"),  # a type that allows missing values
        "age": raw["age"],
        "siblings, spouses": raw["sibsp"].astype("Int64"),
        "parents, children": raw["parch"].astype("Int64"),
        "log10 fare": np.log10(1 + raw["fare"]),
    }
)
kept = np.random.RandomState(0).uniform(size=table.shape) > 0.2
seen = table.where(kept)
hidden = table.notna() & ~kept
print(f"{len(table)} passengers, {table.isna().to_numpy().sum()} missing values, of which")
print(f"{table['age'].isna().sum()} are ages, and {hidden.to_numpy().sum()} values hidden here")

# %%
# One model of all columns
# ------------------------
# ``n_importance=10`` draws 10 codes per row in training, which gives a tighter bound.
# ``score_columns`` returns the log-likelihood of each column given the code.

settings = {"learning_rate": "cosine", "learning_rate_init": 3e-3, "random_state": 0}
vae = VAE(3, likelihood="auto", n_importance=10, max_iter=100, **settings).fit(seen)
nats = np.asarray(vae.score_columns(seen)).sum(axis=0) / seen.notna().sum()
print(f"{'column':<20}{'likelihood':<14}nats per value, given the code")
for name, kind in vae.likelihoods_.items():
    print(f"{name:<20}{kind:<14}{nats[name]:>6.2f}")

# %%
# The two codes with the largest KL divergence from the prior. The colours are class and sex, from
# the complete table.

largest = np.argsort(-vae.elbo_terms(seen).kl_per_latent.mean(axis=0))[:2]
groups = table["class"].astype(str) + ", " + table["sex"].astype(str)
display = LatentSpaceDisplay.from_estimator(
    vae, seen, groups, components=np.sort(largest), posterior=False
)

# %%
# Fill in hidden values
# ---------------------
# The VAE is compared with the mean or the most frequent category of each column, and with PPCA.
# PPCA needs numeric columns: we standardise the numbers and make a column of zeros and ones for
# each category, and the category with the largest imputed value is the prediction. PPCA has three
# codes, or as many as the Bayesian information criterion (BIC) chooses.

are_labels = ["class", "sex", "port", "survived"]
are_numbers = [name for name in table if name not in are_labels]
numbers = seen[are_numbers].astype(float)
mean, std = numbers.mean(), numbers.std()
levels = {}
for name in are_labels:
    levels[name] = pd.get_dummies(seen[name].astype("category"), dtype=float)
    levels[name].loc[seen[name].isna()] = np.nan
one_hot = np.ascontiguousarray(pd.concat([(numbers - mean) / std, *levels.values()], axis=1))
stops = np.cumsum([len(are_numbers), *(level.shape[1] for level in levels.values())])[:-1]


def filled_by_ppca(ppca):
    """The table with values imputed by PPCA."""
    values, *guesses = np.split(ppca.impute(one_hot), stops, axis=1)
    filled = pd.DataFrame(values, columns=are_numbers) * std + mean
    for (name, level), guess in zip(levels.items(), guesses, strict=True):
        filled[name] = level.columns.to_numpy()[guess.argmax(axis=1)]
    return filled


plain = pd.DataFrame(index=table.index, columns=table.columns)
plain[are_labels] = [seen[name].mode()[0] for name in are_labels]
plain[are_numbers] = mean.to_numpy()
filled = {"mean, most frequent": plain}
for n_components in (3, "bic"):
    ppca = PPCA(n_components, random_state=0).fit(one_hot)
    filled[f"one-hot, PPCA({ppca.n_components_})"] = filled_by_ppca(ppca)
filled["VAE(3)"] = vae.impute(seen)


def evaluate(filled):
    """Share of correct labels, and the RMSE of numbers relative to that of the mean."""
    found = {}
    for name in table:
        truth, guess = (frame.loc[hidden[name], name] for frame in (table, filled))
        if name in are_labels:
            found[name] = (truth.astype(object) == guess.astype(object)).mean()
        else:
            truth, guess = truth.astype(float), guess.astype(float)
            found[name] = np.sqrt(
                ((truth - guess) ** 2).mean() / ((truth - mean[name]) ** 2).mean()
            )
    return found


results = pd.DataFrame({name: evaluate(frame) for name, frame in filled.items()})
shown = results.copy()
shown.loc["mean of labels"] = results.loc[are_labels].mean()
shown.loc["mean of numbers"] = results.loc[are_numbers].mean()
print("Hidden labels: share that is correct. Hidden numbers: RMSE, relative to that of the mean.")
print(shown.round(3).to_string())
assert shown.loc["mean of labels", "VAE(3)"] > shown.loc["mean of labels"].iloc[0] + 0.05
assert shown.loc["mean of numbers", "VAE(3)"] < 0.95

figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
colours = ("0.3", "#E69F00", "#009E73", "#0072B2")
labels = ("share of correct labels (higher is better)", "relative RMSE (lower is better)")
for cell, names, label in zip(axes, (are_labels, are_numbers), labels, strict=True):
    for method, marker, colour in zip(results, "|osD", colours, strict=True):
        cell.plot(results.loc[names, method], names, marker, color=colour, ms=8, label=method)
    cell.set(xlabel=label, ylim=(len(names) - 0.5, -0.5))
    cell.grid(axis="y", color="0.9")
legend = figure.legend(*cell.get_legend_handles_labels(), loc="outside upper center", ncols=4)

# %%
# Survival
# --------
# Conditional frequencies among many generated passengers are those that the model learned. Here
# they are the rates of survival by class, sex and age.

drawn = vae.sample(200_000, random_state=0)
edges = np.array([0, 12, 24, 36, 48, 80])


def survival(rows):
    """Share that survived, and number of passengers, by sex, class and age group."""
    rows = rows.dropna(subset=["age", "survived"])
    middle = pd.cut(rows["age"], edges, labels=(edges[:-1] + edges[1:]) / 2).astype(float)
    groups = rows["survived"].astype(float).groupby([rows["sex"], rows["class"], middle])
    return groups.agg(["mean", "size"])


real, generated = survival(table), survival(drawn)
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
styles = {"first": ("#0072B2", "o-"), "second": ("#E69F00", "s--"), "third": ("#009E73", "^-.")}
for cell, sex in zip(axes, ("female", "male"), strict=True):
    for name, (colour, style) in styles.items():
        line, dots = generated.loc[sex, name], real.loc[sex, name]
        cell.plot(line.index, line["mean"], style[1:], color=colour, label=f"{name} class")
        sizes = 4 * dots["size"] ** 0.8
        cell.scatter(dots.index, dots["mean"], sizes, colour, marker=style[0], alpha=0.6)
    cell.set(xlabel="age (years)", ylabel="share that survived", title=sex)
    cell.label_outer()
legend = axes[1].legend(title="lines: 200,000 generated passengers\nmarkers: real passengers")

plt.show()
