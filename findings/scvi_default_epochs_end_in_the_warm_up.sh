#!/usr/bin/env bash
# scvi-tools 1.4.2: with more than 20,000 cells, the default training of SCVI ends while the KL
# divergence still has a small weight, and a second call of train() starts again from weight 0.
#
# A good engineer's guess: train() with default arguments maximises the evidence lower bound, at least
# in its last epochs: its number of epochs and its warm-up of the KL weight are defaults that fit
# each other. To train longer, one calls train() again.
# What happens: the weight rises over 400 epochs, always, and the number of epochs falls with the
# number of cells: it is 400 up to 20,000 cells and 80 for 100,000, which end with weights of 0.9975
# and 0.1975. The latter is the training of a beta-VAE with beta below 0.2: KL(q(z|x) || p(z)) is
# larger and the bound lower than after a warm-up that fits into the 80 epochs, which
# plan_kwargs={"n_epochs_kl_warmup": ...} makes. A second call starts a new warm-up at 0.
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
from lightning.pytorch.callbacks import Callback

warnings.simplefilter("ignore")
for name in ("lightning.pytorch", "lightning.fabric", "scvi"):
    logging.getLogger(name).setLevel(logging.ERROR)
print("Python", platform.python_version(), "torch", torch.__version__, "scvi-tools", scvi.__version__,
      "anndata", anndata.__version__)

rng = np.random.default_rng(0)


def model_of(n_cells, n_genes):
    codes = rng.normal(size=(n_cells, 2)).astype(np.float32)
    rates = np.exp(codes @ rng.normal(size=(2, n_genes)).astype(np.float32))
    cells = anndata.AnnData(rng.poisson(rates).astype(np.float32))
    scvi.settings.seed = 0
    scvi.model.SCVI.setup_anndata(cells)
    return scvi.model.SCVI(cells)


def train(model, **options):
    model.train(accelerator="cpu", enable_progress_bar=False, log_every_n_steps=1, **options)


def weights(model):
    """The weight of every epoch so far."""
    return model.history["kl_weight"]["kl_weight"].astype(float).to_numpy()


def divergence(model):
    """Mean KL(q(z|x) || p(z)) of the cells, nats."""
    mean, var = model.get_latent_representation(return_dist=True)
    return float((mean**2 + var - np.log(var) - 1).sum(1).mean() / 2)


class FirstEpochOnly(Callback):
    """Notes how many epochs training is to have, and ends it after one."""

    def on_train_start(self, trainer, plan):
        self.epochs, trainer.should_stop = trainer.max_epochs, True


found = {}
for n_cells in (20_000, 100_000):
    note = FirstEpochOnly()
    train(model_of(n_cells, 2), callbacks=[note], limit_train_batches=1)
    model = model_of(128, 2)
    train(model, max_epochs=note.epochs, train_size=1.0)
    found[n_cells] = note.epochs, round(float(weights(model)[-1]), 6)
    print(f"{n_cells} cells: {note.epochs} epochs; a model trained for so many (on 128 cells, to "
          f"save time) ends with weight {found[n_cells][1]}")
assert list(found.values()) == [(400, 0.9975), (80, 0.1975)]

model = model_of(384, 30)
train(model, max_epochs=80)
short = divergence(model), float(model.get_elbo())
train(model, max_epochs=10)
around = weights(model)[77:83]
print("weights of the last epochs of a first call and of the first of a second call:",
      around.round(4).tolist())
np.testing.assert_allclose(around, [0.1925, 0.195, 0.1975, 0, 0.0025, 0.005], atol=1e-6)

model = model_of(384, 30)
train(model, max_epochs=80, plan_kwargs={"n_epochs_kl_warmup": 20})
full = divergence(model), float(model.get_elbo())
print(f"80 epochs: KL {short[0]:.2f}, ELBO {short[1]:.2f}; with a warm-up of 20 epochs: "
      f"KL {full[0]:.2f}, ELBO {full[1]:.2f} nats per cell")
assert short[0] > full[0] + 1 and full[1] > short[1] + 1
print("as described")
PY
