"""Fits that tests run in several processes by torchrun, and in one process for comparison.

As a script, `torchrun ... ranked_fits.py GROUP FOLDER` runs one group of fits, and every rank
writes what it found to FOLDER.
"""

import json
import os
import signal
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from scipy import sparse
from sklearn.datasets import load_digits
from skorch.callbacks import Callback, EpochScoring, PrintLog
from torch import nn

from skae import (
    VAE,
    VQVAE,
    AdversarialAE,
    Autoencoder,
    HelmholtzMachine,
    LatentDensityEstimator,
)
from skae._utils import stored_rows

RANK = int(os.environ.get("RANK", 0))
X, y = (a[:301] for a in load_digits(return_X_y=True))
HOLES = X.copy()
HOLES[::5, 20:30] = np.nan
WEIGHT = 0.1 + np.random.RandomState(0).rand(len(X))
MORE = {"random_state": 0, "batch_size": 64, "device": "cpu", "distributed": True}
SMALL = {"hidden_layer_sizes": (16,), "max_iter": 3, **MORE}


def encoder(n_inputs, n_codes):
    """A network of the user, with layers of torch that depend on the whole batch."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(n_inputs, 12),
        nn.BatchNorm1d(12, momentum=None),
        nn.Tanh(),
        nn.Linear(12, n_codes),
    )


def cases():
    """Models, their rows, and further arguments of `fit`."""
    return {
        "Autoencoder": (Autoencoder(3, **SMALL), X, {}),
        "weights": (Autoencoder(3, noise="gaussian", **SMALL), X, {"sample_weight": WEIGHT}),
        "missing": (Autoencoder(3, noise="masking", noise_level=0.2, **SMALL), HOLES, {}),
        "sparsity": (Autoencoder(3, sparsity=0.1, **SMALL), X, {"sample_weight": WEIGHT}),
        "contraction": (Autoencoder(3, contraction=0.1, **SMALL), X, {}),
        "ordered": (Autoencoder(3, latent_growth="nested", **SMALL), X, {}),
        "tied": (Autoencoder(3, tied_weights=True, alpha=0.1, **SMALL), X, {}),
        "batch norm": (Autoencoder(3, normalization="batch", solver="sgd", **SMALL), X, {}),
        "own": (Autoencoder(3, encoder=encoder(64, 3), solver="sgd", **SMALL), X, {}),
        "averages": (
            Autoencoder(3, normalization="batch", weight_averaging=0.8, solver="sgd", **SMALL),
            X,
            {},
        ),
        "convolutions": (
            Autoencoder(
                3,
                network="conv",
                image_shape=(1, 8, 8),
                normalization="batch",
                solver="sgd",
                **SMALL,
            ),
            X,
            {},
        ),
        "early stopping": (
            Autoencoder(3, early_stopping=True, **SMALL | {"learning_rate_init": 0.01}),
            X,
            {},
        ),
        "schedule": (VAE(3, learning_rate="cosine", n_init=2, **SMALL), X, {}),
        "free bits": (VAE(3, free_bits=0.7, **SMALL), HOLES, {"sample_weight": WEIGHT}),
        "importance": (VAE(3, n_importance=3, noise_variance="per_feature", **SMALL), X, {}),
        "vamp": (VAE(3, prior="vamp", **SMALL), X, {}),
        "ordered VAE": (VAE(3, latent_growth="nested", **SMALL), X, {}),
        "conditional": (VAE(3, conditional=True, **SMALL), X, {"y": y}),
        "counts": (VAE(3, likelihood="negative_binomial", solver="sgd", **SMALL), X, {}),
        "VQVAE": (
            VQVAE(4, n_codes=16, dead_code_threshold=0.5, prior="independent", **SMALL),
            X,
            {},
        ),
        "residual": (
            VQVAE(2, n_codes=8, n_quantizers=2, dead_code_threshold=0.5, **SMALL),
            X,
            {"sample_weight": WEIGHT},
        ),
        "AdversarialAE": (AdversarialAE(2, posterior="gaussian", **SMALL), X, {}),
        "HelmholtzMachine": (HelmholtzMachine(5, max_iter=3, **MORE), X / 16, {}),
        "reweighted": (HelmholtzMachine(5, max_iter=3, algorithm="reweighted", **MORE), X, {}),
        "density": (LatentDensityEstimator(Autoencoder(2, max_iter=2), max_iter=3, **MORE), X, {}),
        "lbfgs": (Autoencoder(3, **SMALL | {"max_iter": 1}, solver="lbfgs"), X, {}),
        "stream": (VAE(3, **SMALL), X, {"stream": True}),
        "sparse": (VAE(3, **SMALL), sparse.csr_array(X), {}),
        "stored": (VAE(3, early_stopping=True, **SMALL), Items(), {"sample_weight": WEIGHT}),
    }


class Items(torch.utils.data.Dataset):
    """Rows that are read in parts."""

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return X[i]


def fitted(case):
    """Fit a model, to batches one after another if the case says so."""
    model, rows, more = case
    if isinstance(rows, Items):
        window, block = stored_rows.WINDOW_BYTES, stored_rows._BLOCK_BYTES
        stored_rows.WINDOW_BYTES, stored_rows._BLOCK_BYTES = 80 * 8 * 64, 8 * 8 * 64
        try:
            return model.fit(rows, **more)
        finally:
            stored_rows.WINDOW_BYTES, stored_rows._BLOCK_BYTES = window, block
    if not more.get("stream"):
        return model.fit(rows, **more)
    return model.partial_fit(rows[:200]).partial_fit(rows[200:])


def learned(model):
    """What was learned: weights and buffers, and the scores of some rows."""
    net = model.net_ if hasattr(model, "net_") else model.density_.trainer.net
    state = [values.double().numpy().ravel() for values in net.module_.state_dict().values()]
    losses = [epoch["train_loss"] for epoch in net.history]
    return {
        "weights": np.concatenate(state),
        "losses": np.array(losses),
        "codes": np.asarray(model.transform(X[:20]), dtype=float),
    }


class StopOnOne(Callback):
    """Ends training after the second epoch, on the last rank only; or sends it Ctrl-C."""

    def __init__(self, how):
        self.how = how

    def on_batch_end(self, net, training=False, **kwargs):
        if self.how == "interrupt" and training and RANK and len(net.history) == 2:
            self.how = "done"
            os.kill(os.getpid(), signal.SIGINT)

        if self.how == "error" and training and RANK and len(net.history) == 2:
            raise ZeroDivisionError("of one rank")

    def on_epoch_end(self, net, **kwargs):
        if self.how == "stop" and RANK and len(net.history) == 2:
            raise KeyboardInterrupt


class DrawWeights(Callback):
    """Changes weights at the beginning of each epoch, in another way on each rank."""

    def on_epoch_begin(self, net, **kwargs):
        with torch.no_grad():
            for p in net.module_.parameters():
                p.add_(0.1 * RANK)


class OwnNormalisation(nn.BatchNorm1d):
    """A layer of the user."""

    def forward(self, x):
        return 2 * super().forward(x)


def error_of(call):
    try:
        call()
    except (ValueError, RuntimeError, ZeroDivisionError) as error:
        return str(error)
    return ""


def run_equal(folder):
    found = {}
    for name, case in cases().items():
        for part, values in learned(fitted(case)).items():
            found[f"{name}/{part}"] = values
    np.savez(folder / f"equal{RANK}.npz", **found)


def run_few(folder):
    """Batches with fewer rows than ranks, with layers that use whole batches."""
    found = {}
    for name in ("batch norm", "weights", "residual", "free bits"):
        model, rows, more = cases()[name]
        cut = {key: value[:9] for key, value in more.items()}
        model.set_params(batch_size=7)  # the second batch has two rows
        for part, values in learned(model.fit(rows[:9], **cut)).items():
            found[f"{name}/{part}"] = values
    np.savez(folder / f"few{RANK}.npz", **found)


def run_together(folder):
    found = {}
    unseeded = VAE(2, **SMALL | {"random_state": None}).fit(X)
    found["unseeded"] = learned(unseeded)["weights"].tolist()
    for how in ("stop", "interrupt"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = VAE(2, callbacks=[StopOnOne(how)], **SMALL | {"max_iter": 6}).fit(X)
        found[how] = [model.n_iter_, learned(model)["weights"].tolist()]
        found[f"{how}, warnings"] = [
            str(w.message) for w in caught if "interrupted" in str(w.message)
        ]
    dropout = nn.Sequential(nn.Linear(64, 12), nn.Dropout(0.5), nn.Linear(12, 2))
    model = Autoencoder(2, encoder=dropout, **SMALL).fit(X)
    found["dropout"] = learned(model)["weights"].tolist()
    if RANK == 0:
        print("<printed>", flush=True)
    printed = VAE(2, verbose=1, callbacks=[PrintLog()], **SMALL).fit(X)
    found["printed"] = learned(printed)["weights"].tolist()
    scoring = EpochScoring(lambda net, X, y=None: -len(net.history) + RANK, name="of_rank")
    VAE(2, callbacks=[scoring], **SMALL).fit(X)
    files = {"checkpoint_dir": folder / f"files{RANK}"}  # a folder of its own for each rank
    first = VAE(2, callbacks=[StopOnOne("stop")], **SMALL | {"max_iter": 4, **files})
    first.fit(X)
    found["resumed"] = learned(VAE(2, **SMALL | {"max_iter": 4, **files}).fit(X))[
        "weights"
    ].tolist()
    found["files"] = (
        len(list(files["checkpoint_dir"].glob("*")))
        if RANK == 0
        else (files["checkpoint_dir"].exists())
    )
    own_rows = X[RANK::2]
    found["shards"] = error_of(lambda: VAE(2, **SMALL).fit(own_rows))
    found["values"] = error_of(lambda: VAE(2, **SMALL).fit(X + RANK))
    found["parameters"] = error_of(lambda: VAE(2 + RANK, **SMALL).fit(X))
    if RANK == 0:
        (folder / "file").write_text("no folder")
    bad = {"checkpoint_dir": folder / "file" / "folder"}
    found["folder"] = error_of(lambda: VAE(2, **SMALL, **bad).fit(X))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        own = nn.Sequential(nn.Linear(64, 12), OwnNormalisation(12), nn.Linear(12, 2))
        Autoencoder(2, encoder=own, **SMALL).fit(X)
    found["own"] = [str(w.message) for w in caught if "OwnNormalisation" in str(w.message)]
    found["drawn"] = learned(VAE(2, callbacks=[DrawWeights()], **SMALL).fit(X))["losses"].tolist()
    found["error"] = error_of(lambda: VAE(2, callbacks=[StopOnOne("error")], **SMALL).fit(X))
    found["after the error"] = learned(VAE(2, **SMALL).fit(X))["weights"].tolist()
    found["threads"] = torch.get_num_threads()
    (folder / f"together{RANK}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    {"equal": run_equal, "few": run_few, "together": run_together}[sys.argv[1]](Path(sys.argv[2]))
