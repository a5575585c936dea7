"""
Counts of cells: groups without sequencing depth and batch
==========================================================

Sequencing counts the molecules of each gene in single cells. How many are counted in total, the
sequencing depth, varies by orders of magnitude between cells, and says nothing about the kind of
cell. Here the depths of simulated cells vary by two orders of magnitude, and two batches differ in
each gene. PCA of log counts finds depth and batch. The codes of a VAE with a likelihood of counts
hold the groups of cells, and neither depth nor batch.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from threadpoolctl import threadpool_limits

from skae import VAE

threadpool_limits(1)  # matrices are small, so that more threads would be slower

# %%
# Simulated cells
# ---------------
# A cell belongs to one of five groups, each with its own marker genes, and to one of two batches,
# which multiply the rate of every gene by a factor. The counts have a negative binomial
# distribution, whose mean is the depth of the cell times the share of the gene.

n_cells, n_genes, n_groups = 1000, 300, 5
rng = np.random.default_rng(0)
group = rng.choice(n_groups, n_cells, p=[0.3, 0.25, 0.2, 0.15, 0.1])
batch = rng.choice(["batch 1", "batch 2"], n_cells)
common = rng.gamma(0.5, 1, n_genes) + 0.02
is_marker = rng.uniform(size=(n_groups, n_genes)) < 0.15
of_group = np.exp(rng.normal(0, 1.2, (n_groups, n_genes)) * is_marker)
of_batch = np.exp(rng.normal(0, 0.5, (2, n_genes)))
share = common * of_group[group] * of_batch[(batch == "batch 2").astype(int)]
share /= share.sum(axis=1, keepdims=True)
depth = 10 ** rng.uniform(2.3, 4.3, n_cells)
dispersion = rng.gamma(4, 0.5, n_genes) + 0.2
noise = rng.gamma(dispersion, 1 / dispersion, (n_cells, n_genes))
counts = rng.poisson(depth[:, None] * share * noise)

total = counts.sum(axis=1)
print(
    f"{n_cells} cells, {n_genes} genes; {100 * (counts == 0).mean():.0f} % of the counts are zero"
)
print(f"counts per cell: {total.min()} to {total.max()}")

train, test = train_test_split(np.arange(n_cells), test_size=200, random_state=0)

# %%
# The models
# ----------
# The VAE gets raw counts. With ``size_factor="total"``, the default, the decoder gives the shares
# of the genes, and the model multiplies them by the total of the cell. With ``conditional=True``
# the decoder also reads the batch, so that the codes need not contain it. PCA gets the logarithms
# of the counts. For a second PCA the cells are scaled to the same total before the logarithm, and
# the mean of its batch is subtracted from each cell.


def fitted(likelihood):
    """A VAE of the training cells, given their batches."""
    settings = {"learning_rate": "cosine", "learning_rate_init": 3e-3, "random_state": 0}
    vae = VAE(2, likelihood=likelihood, conditional=True, max_iter=40, **settings)
    return vae.fit(counts[train], batch[train])


vae = fitted("negative_binomial")
logs = np.log1p(counts)
scaled_logs = np.log1p(counts * (vae.size_factor_ / total)[:, None])
for name in ("batch 1", "batch 2"):
    scaled_logs[batch == name] -= scaled_logs[train][batch[train] == name].mean(axis=0)
codes = {
    "PCA of log counts": PCA(2).fit(logs[train]).transform(logs),
    "PCA, scaled, without batch means": PCA(2).fit(scaled_logs[train]).transform(scaled_logs),
    "VAE of counts, given the batch": vae.transform(counts),
}

# %%
# What the codes hold
# -------------------
# For each held-out cell, the 15 training cells with the nearest codes predict its group, its batch
# and the logarithm of its depth. Groups should be recognised. The batch should be recognised no
# more often than by chance, in half of the cells, and depths should have an R² near zero.


def predicted(target, Z, neighbours):
    """Score of predictions for held-out cells."""
    return neighbours(15).fit(Z[train], target[train]).score(Z[test], target[test])


print(f"{'':<34}{'group':>8}{'batch':>8}{'depth':>8}")
print(f"{'':<34}{'correct':>8}{'correct':>8}{'R²':>8}")
found = {}
for name, Z in codes.items():
    found[name] = [
        predicted(group, Z, KNeighborsClassifier),
        predicted(batch, Z, KNeighborsClassifier),
        predicted(np.log10(total), Z, KNeighborsRegressor),
    ]
    print(f"{name:<34}" + "".join(f"{value:>8.2f}" for value in found[name]))
_, of_pca, of_vae = found.values()
assert of_vae[0] > of_pca[0] + 0.03
assert of_vae[1] < 0.65
assert of_vae[2] < 0.1

# %%
# The upper pictures are coloured by group, and have a marker for each batch. The lower pictures are
# coloured by depth.

figure, axes = plt.subplots(2, 3, figsize=(9.5, 6), layout="constrained")
palette = np.array(["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9"])
for (above, below), (name, Z) in zip(axes.T, codes.items(), strict=True):
    for label, marker in (("batch 1", "o"), ("batch 2", "x")):
        some = batch == label
        width = 0 if marker == "o" else 0.8
        above.scatter(*Z[some].T, 12, palette[group[some]], marker=marker, lw=width, alpha=0.8)
    of_depth = below.scatter(*Z.T, 8, total, norm="log", linewidths=0)
    above.set_title(name, fontsize=10)
    for cell in (above, below):
        cell.set(xticks=[], yticks=[], xlabel="first code", ylabel="second code")
colours = [plt.Line2D([], [], marker="o", ls="", ms=5, color=colour) for colour in palette]
marks = [plt.Line2D([], [], marker=m, ls="", ms=5, color="0.3") for m in "ox"]
names = [f"group {i + 1}" for i in range(n_groups)]
figure.legend(colours + marks, [*names, "batch 1", "batch 2"], loc="outside upper center", ncols=7)
figure.colorbar(of_depth, ax=axes[1], label="counts per cell")

# %%
# Which likelihood
# ----------------
# Scores of held-out cells are lower bounds on log p(x), given the batch, under likelihoods of
# counts. They may be compared with each other. The variance of these counts is larger than their
# mean, which a Poisson likelihood does not allow. The last column has the bounds given the total of
# each cell. They are higher, because the model need not predict the total, and may be compared only
# among themselves.

print(f"{'nats per held-out cell':<34}{'log p(x)':>10}{'log p(x | total)':>20}")
bounds = {}
for likelihood in ("poisson", "negative_binomial", "zero_inflated_negative_binomial"):
    model = vae if likelihood == vae.likelihood else fitted(likelihood)
    bounds[likelihood] = model.score(counts[test], batch[test])
    of_total = model.score_samples(counts[test], batch[test], size_factor="row").mean()
    print(f"{likelihood:<34}{bounds[likelihood]:>10.1f}{of_total:>20.1f}")
assert bounds["negative_binomial"] > bounds["poisson"] + 100

# %%
# With AnnData
# ------------
# Counts in an ``AnnData`` object of scanpy go into the model as they are, dense or sparse. This
# code is not run here::
#
#     vae = VAE(10, likelihood="negative_binomial", conditional=True, random_state=0)
#     vae.fit(adata.X, adata.obs["batch"])
#     adata.obsm["X_skae"] = vae.transform(adata.X)
#     scanpy.pp.neighbors(adata, use_rep="X_skae")
#
# The page "Tables of counts" of the documentation says more about it.

plt.show()
