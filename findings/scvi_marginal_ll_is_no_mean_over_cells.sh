#!/usr/bin/env bash
# scvi-tools 1.4.2: get_marginal_ll() is the mean of the means of minibatches, so that the cells of a
# smaller last minibatch weigh more than the others, and it divides by a number of draws that it may
# not have made. get_elbo() has neither fault.
#
# A good engineer's guess: SCVI.get_marginal_ll(adata) is the mean over the cells, as "the mean
# marginal log-likelihood" says and as get_elbo(adata) is, so that batch_size and the order of the
# cells are matters of speed alone; n_mc_samples_per_pass is one too ("useful to avoid memory
# issues").
# What happens: each minibatch of 128 cells is averaged, then these averages are, whatever their
# numbers of cells. Of 129 cells, the last one has half of the weight. The mean over the cells is
# get_marginal_ll(..., return_mean=False).mean(). Draws are made in whole passes, but the sum is
# divided by n_mc_samples: with 10 draws in passes of 8, it is the sum of 16, and the result is
# too high by log(16/10) for every cell.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0
"$folder/venv/bin/pip" install -q scvi-tools==1.4.2 anndata==0.12.19 lightning==2.6.6 \
    numpy==2.4.6 scipy==1.17.1 pandas==2.3.3
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import logging
import platform
import warnings

import anndata
import numpy as np
import scvi
import torch

warnings.simplefilter("ignore")
for name in ("lightning.pytorch", "lightning.fabric", "scvi"):
    logging.getLogger(name).setLevel(logging.ERROR)
print("Python", platform.python_version(), "torch", torch.__version__, "scvi-tools", scvi.__version__,
      "anndata", anndata.__version__)

rng = np.random.default_rng(0)
X = rng.poisson(1.0, (129, 40)).astype(np.float32)
X[-1] = rng.poisson(30.0, 40)  # the last cell has thirty times the counts
cells = anndata.AnnData(X)
scvi.settings.seed = 0
scvi.model.SCVI.setup_anndata(cells)
model = scvi.model.SCVI(cells)
model.train(max_epochs=2, train_size=1.0, batch_size=129, accelerator="cpu",
            enable_progress_bar=False, logger=False)


def seeded(compute, **options):
    """The same draws of the codes in every call."""
    torch.manual_seed(0)
    return compute(cells, **options)


draws = {"n_mc_samples": 20}
each = np.asarray(seeded(model.get_marginal_ll, return_mean=False, **draws))
mean = float(seeded(model.get_marginal_ll, **draws))
print(f"get_marginal_ll of 129 cells: {mean:.2f}; mean over its values of the cells {each.mean():.2f}")
print(f"    mean of the first 128 cells {each[:128].mean():.2f}, the last cell {each[128]:.2f}")
np.testing.assert_allclose(mean, (each[:128].mean() + each[128]) / 2, rtol=1e-5)
assert abs(mean - each.mean()) > 20

whole = float(seeded(model.get_marginal_ll, batch_size=129, **draws))
print(f"    with batch_size=129: {whole:.2f}")
assert abs(whole - each.mean()) < 1  # other draws

each = np.asarray(seeded(model.get_elbo, return_mean=False))
mean = float(seeded(model.get_elbo))
print(f"get_elbo of 129 cells: {mean:.2f}; mean over its values of the cells {each.mean():.2f}")
np.testing.assert_allclose(mean, each.mean(), rtol=1e-5)

two_passes = {"n_mc_samples_per_pass": 8, "return_mean": False}
ten = np.asarray(seeded(model.get_marginal_ll, n_mc_samples=10, **two_passes))
sixteen = np.asarray(seeded(model.get_marginal_ll, n_mc_samples=16, **two_passes))
excess = ten - sixteen
print(f"passes of 8: n_mc_samples=10 exceeds n_mc_samples=16 by {excess.min():.4f} to "
      f"{excess.max():.4f} in all cells; log(16/10) = {np.log(1.6):.4f}")
np.testing.assert_allclose(excess, np.log(1.6), atol=1e-3)
print("as described")
PY
