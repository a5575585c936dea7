"""VAE beside scvi-tools' SCVI on tables of counts: bounds, groups, batches, seconds of a fit.

    pip install "skae" scvi-tools==1.4.2 scanpy==1.11.5
    python benchmarks/count_tables.py            # about ten minutes on two cores
    python benchmarks/count_tables.py --quick    # small tables and few epochs, to see that it runs
    python benchmarks/count_tables.py --development --variants    # other tables, other settings

SCVI has its defaults: ten codes, one hidden layer of 128 a side, zero-inflated negative binomial
counts, and as many epochs as its heuristic says (400), but it learns from all training rows, where
its default sets a tenth of them aside, which it only reports on. With early stopping, it ends when
these rows no longer improve. VAE has the same sizes, and the same number of epochs, with and
without early stopping, or its own.
Both get dense float32 rows and two threads (or OMP_NUM_THREADS of them), and take turns in one
process. "CPU s" are seconds of all threads, which other work on the machine changes less.

Bounds are nats per held-out row in scvi-tools' convention: log p(x | size = row total), so that
the law of the totals is no part of them. "ELBO" has one draw of the codes, "bound" has the
importance weights of 100 (`--draws`), with SCVI.get_marginal_ll and with VAE.score_samples, each
with the distribution of the codes that it draws from by itself. The mean over rows is taken of
return_mean=False, because get_marginal_ll otherwise returns a mean of the means of minibatches. On
the simulated tables, the same quantity is known for the law that the rows were drawn from.

Silhouettes are those of the groups, and of the batches, by the codes of the held-out rows; "mixing"
is the mean entropy of the batches of the 30 nearest held-out rows, as a share of that of even
batches. With both simulated tables, the seed changes the training only; with the table of cells
also the rows that are held out.

Measured figures: docs/benchmarks.md.
"""

import argparse
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from _common import describe_machine
from _count_tables import Array, Table, cells, simulated
from scipy.special import entr
from sklearn.metrics import silhouette_score
from sklearn.neighbors import NearestNeighbors

from skae import VAE

N_CODES, N_HIDDEN = 10, 128
N_THREADS = int(os.environ.get("OMP_NUM_THREADS", 2))
SCVI_EPOCHS = 400  # its heuristic for up to 20,000 rows
ZINB, NB = "zero_inflated_negative_binomial", "negative_binomial"


@dataclass
class Fitted:
    """What a trained model says of the held-out rows, and the time of its training."""

    seconds: tuple[float, float]  # by the clock, and of the processor
    epochs: int
    codes: Array
    elbo: float
    bound: float


Fit = Callable[[Table, int, int], Fitted]


def clocks() -> Array:
    return np.array([time.perf_counter(), time.process_time()])


def fit_scvi(
    epochs: int = SCVI_EPOCHS,
    plan: dict[str, object] | None = None,
    early_stopping: bool = False,
    **params: object,
) -> Fit:
    def fit(table: Table, seed: int, n_draws: int) -> Fitted:
        import scvi
        from anndata import AnnData

        def annotated(held_out: bool) -> AnnData:
            data = AnnData(table.part(table.X, held_out))
            data.obs_names = [str(i) for i in range(data.n_obs)]
            if table.batch is not None:
                data.obs["batch"] = table.part(table.batch, held_out).astype(str)
            return data

        train, test = annotated(False), annotated(True)
        scvi.settings.seed = seed
        torch.set_num_threads(N_THREADS)
        start = clocks()
        scvi.model.SCVI.setup_anndata(train, batch_key=None if table.batch is None else "batch")
        model = scvi.model.SCVI(train, n_latent=N_CODES, n_hidden=N_HIDDEN, **params)
        model.train(
            max_epochs=epochs,
            train_size=None if early_stopping else 1.0,
            early_stopping=early_stopping,
            accelerator="cpu",
            plan_kwargs=plan,
            enable_progress_bar=False,
            logger=False,
        )
        seconds = tuple(clocks() - start)
        n_epochs = model.trainer.current_epoch
        elbo = model.get_elbo(test, return_mean=False)
        bound = model.get_marginal_ll(test, n_mc_samples=n_draws, return_mean=False)
        codes = model.get_latent_representation(test)
        return Fitted(seconds, n_epochs, codes, float(elbo.mean()), float(bound.mean()))

    return fit


def fit_vae(**params: object) -> Fit:
    def fit(table: Table, seed: int, n_draws: int) -> Fitted:
        train, test = table.part(table.X, False), table.part(table.X, True)
        y, y_test = table.part(table.batch, False), table.part(table.batch, True)
        torch.set_num_threads(N_THREADS)
        start = clocks()
        model = VAE(
            N_CODES,
            hidden_layer_sizes=(N_HIDDEN,),
            conditional=y is not None,
            random_state=seed,
            **params,
        ).fit(train, y)
        seconds = tuple(clocks() - start)
        elbo, bound = (
            model.score_samples(test, y_test, n_importance=n, size_factor="row").mean()
            for n in (1, n_draws)
        )
        codes = model.transform(test)
        return Fitted(seconds, model.n_iter_, codes, float(elbo), float(bound))

    return fit


def mixing(codes: Array, batch: Array, n_neighbours: int = 30) -> float:
    """Mean entropy of the batches of a row's neighbours, by that of even batches."""
    near = NearestNeighbors(n_neighbors=n_neighbours).fit(codes).kneighbors(return_distance=False)
    shares = np.stack([(batch[near] == b).mean(1) for b in np.unique(batch)], axis=1)
    return float(entr(shares).sum(1).mean() / np.log(shares.shape[1]))


def figures(table: Table, fitted: Fitted) -> dict[str, float]:
    group, batch = table.part(table.group, True), table.part(table.batch, True)
    found = {
        "bound": fitted.bound,
        "ELBO": fitted.elbo,
        "s": fitted.seconds[0],
        "CPU s": fitted.seconds[1],
        "epochs": fitted.epochs,
        "ms / epoch": 1000 * fitted.seconds[0] / max(fitted.epochs, 1),
        "groups": silhouette_score(fitted.codes, group),
    }
    if batch is not None:
        found |= {
            "batches": silhouette_score(fitted.codes, batch),
            "mixing": mixing(fitted.codes, batch),
        }
    return found


DIGITS = {"bound": 2, "ELBO": 2, "s": 1, "CPU s": 1, "epochs": 0, "ms / epoch": 0}


def compare(make: Callable[[int], Table], fits: dict[str, Fit], seeds: list[int], n_draws: int):
    """Fit all models with every seed, in turn, and print means and spreads over the seeds."""
    print(f"\n{make(0).describe()}")
    if make(0).law is not None:
        for name, value in make(0).truth(n_draws).items():
            print(f"    the true law: {name} = {value:.2f}")
    found: dict[str, list[dict[str, float]]] = {name: [] for name in fits}
    order = list(fits.items())
    for seed in seeds:
        table, order = make(seed), order[1:] + order[:1]
        for name, fit in order:
            found[name].append(figures(table, fit(table, seed, n_draws)))
            now = "  ".join(f"{key} {value:.3f}" for key, value in found[name][-1].items())
            print(f"seed {seed}, {name}: {now}", file=sys.stderr, flush=True)
    names = list(found[order[0][0]][0])
    print(f"{'mean ± standard deviation over seeds':<36}" + "".join(f"{s:>18}" for s in names))
    for name, runs in found.items():
        cells = []
        for figure in names:
            values, digits = [run[figure] for run in runs], DIGITS.get(figure, 3)
            cells.append(f"{np.mean(values):.{digits}f} ± {np.std(values):.{digits}f}")
        print(f"{name:<36}" + "".join(f"{cell:>18}" for cell in cells))
    first, *others = found
    for name in others:
        seconds, of_cpu = (
            np.mean([b[s] / a[s] for a, b in zip(found[first], found[name], strict=True)])
            for s in ("s", "CPU s")
        )
        print(f"{name}: {seconds:.2f} times the seconds of {first}, {of_cpu:.2f} times the CPU s")


def tables(quick: bool, development: bool) -> dict[str, Callable[[int], Table]]:
    """The tables by their names; the held-out rows of the cells depend on the seed."""
    n_rows, n_genes = (500, 200) if quick else (1500, 600)
    first = 100 * development
    one = simulated("one batch", n_rows, n_genes, 1, first)
    two = simulated("two batches", n_rows, n_genes, 2, first + 1)
    return {
        "one": lambda seed: one,
        "two": lambda seed: two,
        "cells": lambda seed: cells(first + seed),
    }


def variants(epochs: int) -> dict[str, Fit]:
    same: dict[str, object] = {"likelihood": ZINB, "max_iter": epochs}
    warm_up = {"beta_warm_up": epochs}  # as in SCVI
    return {
        "SCVI": fit_scvi(epochs),
        "SCVI, early stopping": fit_scvi(epochs, early_stopping=True),
        "SCVI, early stopping, warm-up of 20": fit_scvi(
            epochs, {"n_epochs_kl_warmup": 20}, early_stopping=True
        ),
        "SCVI, nb": fit_scvi(epochs, gene_likelihood="nb"),
        "SCVI, no warm-up": fit_scvi(epochs, {"n_epochs_kl_warmup": None}),
        "SCVI, no dropout": fit_scvi(epochs, dropout_rate=0.0),
        "SCVI, no batch normalisation": fit_scvi(epochs, use_batch_norm="none"),
        "VAE, same epochs": fit_vae(**same),
        "VAE, early stopping": fit_vae(**same, early_stopping=True),
        "VAE, nb": fit_vae(**same | {"likelihood": NB}),
        "VAE, poisson": fit_vae(**same | {"likelihood": "poisson"}),
        "VAE, random start": fit_vae(**same, init="random"),
        "VAE, random start, warm-up": fit_vae(**same, init="random", **warm_up),
        "VAE, batch normalisation": fit_vae(**same, normalization="batch"),
        "VAE, bn, warm-up": fit_vae(**same, normalization="batch", **warm_up),
        "VAE, warm-up": fit_vae(**same, **warm_up),
        "VAE, learning rate 3e-4": fit_vae(**same, learning_rate_init=3e-4),
        "VAE, learning rate 3e-3": fit_vae(**same, learning_rate_init=3e-3),
        "VAE, cosine": fit_vae(**same, learning_rate="cosine"),
        "VAE, alpha 1e-4": fit_vae(**same, alpha=1e-4),
        "VAE, own epochs, zinb": fit_vae(likelihood=ZINB),
        "VAE, own epochs, nb": fit_vae(likelihood=NB),
        "VAE, own epochs, poisson": fit_vae(likelihood="poisson"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", nargs="+", choices=("one", "two", "cells"))
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--epochs", type=int, default=SCVI_EPOCHS)
    parser.add_argument("--draws", type=int, default=100, help="draws of the codes in bounds")
    parser.add_argument("--quick", action="store_true", help="small tables, 5 epochs, one seed")
    parser.add_argument("--development", action="store_true", help="other tables, for choices")
    parser.add_argument("--variants", nargs="*", help="settings of both (default all of them)")
    args = parser.parse_args()
    if args.quick:
        args.epochs, args.seeds, args.draws = 5, 1, 10
    for name in ("lightning.pytorch", "lightning.fabric", "scvi"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    print(
        f"{N_THREADS} threads,",
        describe_machine("torch", "scvi-tools", "anndata", "scanpy", "lightning"),
    )
    fits = variants(args.epochs)
    if args.variants is None:
        own = {"max_iter": 5} if args.quick else {}
        fits = {
            "SCVI": fits["SCVI"],
            "SCVI, early stopping": fits["SCVI, early stopping"],
            "VAE, same epochs": fits["VAE, same epochs"],
            "VAE, early stopping": fits["VAE, early stopping"],
            "VAE, own epochs": fit_vae(likelihood=NB, **own),
        }
    elif args.variants:
        fits = {name: fits[name] for name in args.variants}
    made = tables(args.quick, args.development)
    for name in args.tables or made:
        compare(made[name], fits, list(range(args.seeds)), args.draws)


if __name__ == "__main__":
    main()
