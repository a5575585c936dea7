"""VAE on counts whose rows differ by orders of magnitude, beside the truth and scvi-tools.

    python benchmarks/bright_counts.py           # with scvi-tools==1.4.2, if it is installed

"bright": 1,000 rows of 64 channels with one profile, whose brightness is log-normal with a
standard deviation of 2 (counts up to about 1,900). "cells": 500 rows of 400 features, with profiles
of four latent factors and totals of 1e2 to 1e5. VAE has 8 codes, likelihood="poisson" and 100
epochs; SCVI has the same codes, layers, epochs and gene_likelihood="poisson".

The columns are the mean score of the training rows, which is a bound on log p(x) in nats per row;
the bound given the total of each row, which is the convention of scvi-tools; and scores of new rows
of 1, 10 and 100 times the counts. The truth is log p(x) of the law that the rows came from, by
quadrature over the brightness. For cells it is log p(x | code, total) of the true codes, plus the
log density of totals, which is an upper reference. SCVI's bound is that of get_marginal_ll with as
many draws; on the bright rows its training ends with an error.

Measured figures: docs/benchmarks.md.
"""

import logging
import time
import warnings

import numpy as np
from _common import describe_machine
from scipy import special, stats

from skae import VAE, Autoencoder

FACTORS = (1, 10, 100)
EPOCHS, N_CODES, N_DRAWS = 100, 8, 100


class Bright:
    """Rows of one profile with log-normal brightness."""

    name = "bright"

    def __init__(self):
        x = np.linspace(-2, 2, 64)
        self.profile = np.exp(-(x**2))
        rng = np.random.RandomState(0)
        self.X = self.rows(rng, 1000, 1)
        self.new = {factor: self.rows(rng, 200, factor) for factor in FACTORS}

    def rows(self, rng, n, factor):
        return rng.poisson(factor * np.exp(2 * rng.randn(n, 1) + 2) * self.profile)

    def truth(self, X):
        """Mean log p(x) under the law of the training rows, and given the totals."""
        share = self.profile / self.profile.sum()
        total = X.sum(1)
        grid = np.linspace(-10, 14, 6001)
        log_mass = stats.poisson.logpmf(total[:, None], np.exp(grid) * self.profile.sum())
        log_mass = log_mass + stats.norm.logpdf(grid, 2, 2)
        of_total = special.logsumexp(log_mass, axis=1) + np.log(grid[1] - grid[0])
        given = stats.multinomial.logpmf(X, total, share)
        of_size = given + stats.poisson.logpmf(total, np.maximum(total, 1e-30))
        return (given + of_total).mean(), of_size.mean()


class Cells:
    """Profiles of four latent factors, with totals over three orders of magnitude."""

    name = "cells"

    def __init__(self):
        rng = np.random.RandomState(1)
        n_features, n_factors = 400, 4
        self.loadings = 0.7 * rng.randn(n_factors, n_features)
        self.level = 2.0 * rng.randn(n_features)
        self.X, self.shares = self.rows(rng, 500, 1)
        self.new, self.of_new = {}, {}
        for factor in FACTORS:
            self.new[factor], self.of_new[factor] = self.rows(rng, 200, factor)

    def rows(self, rng, n, factor):
        codes = rng.randn(n, len(self.loadings))
        shares = special.softmax(codes @ self.loadings + self.level, axis=1)
        return rng.poisson(factor * 10 ** rng.uniform(2, 5, (n, 1)) * shares), shares

    def truth(self, X):
        """Upper references: log p(x | code, total), and with the density of totals."""
        shares = next(s for rows, s in [(self.X, self.shares), *self.pairs()] if rows is X)
        total = X.sum(1)
        given = stats.multinomial.logpmf(X, total, shares)
        of_total = -np.log(np.log(1e3) * np.maximum(total, 1))  # log-uniform totals
        of_size = given + stats.poisson.logpmf(total, total)
        return (given + of_total).mean(), of_size.mean()

    def pairs(self):
        return [(self.new[factor], self.of_new[factor]) for factor in FACTORS]


def fit_scvi(X, new, seed):
    """Bounds given the totals of training and of new rows, and seconds of the training."""
    import anndata
    import scvi

    scvi.settings.seed = seed
    data = anndata.AnnData(X.astype(np.float32))
    scvi.model.SCVI.setup_anndata(data)
    model = scvi.model.SCVI(data, n_latent=N_CODES, n_hidden=100, gene_likelihood="poisson")
    start = time.perf_counter()
    model.train(max_epochs=EPOCHS, train_size=1.0, accelerator="cpu", enable_progress_bar=False)
    seconds = time.perf_counter() - start

    def bound(rows):
        table = anndata.AnnData(rows.astype(np.float32))
        found = model.get_marginal_ll(table, n_mc_samples=N_DRAWS, return_mean=False)
        return float(np.mean(np.asarray(found)))

    return [bound(X), *(bound(rows) for rows in new)], seconds


def line(name, *figures):
    print(f"{name:32s}" + "".join(f"{figure:>14}" for figure in figures), flush=True)


def main():
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    try:
        import scvi

        with_scvi, packages = True, ["scvi-tools"]
        scvi.settings.verbosity = logging.ERROR
    except ImportError:
        with_scvi, packages = False, []
    print(describe_machine(*packages))
    for table in (Bright(), Cells()):
        X, new = table.X, list(table.new.values())
        print(f"\n{table.name}: {len(X)} x {X.shape[1]}, counts up to {X.max()}")
        line("", "log p(x)", "given totals", *(f"{factor}x" for factor in FACTORS), "seconds")
        whole, given = table.truth(X)
        of_new = [table.truth(rows) for rows in new]
        line("truth", f"{whole:.1f}", f"{given:.1f}", *(f"{of[0]:.1f}" for of in of_new))
        line("truth, given totals", "", "", *(f"{of[1]:.1f}" for of in of_new))
        for seed in range(4):
            model = VAE(N_CODES, likelihood="poisson", max_iter=EPOCHS, random_state=seed)
            start = time.perf_counter()
            model.fit(X)
            seconds = time.perf_counter() - start
            given = model.score_samples(X, size_factor="row").mean()
            scores = [f"{model.score(rows):.1f}" for rows in new]
            line(
                f"VAE, seed {seed}",
                f"{model.score(X):.1f}",
                f"{given:.1f}",
                *scores,
                f"{seconds:.1f}",
            )
        plain = Autoencoder(N_CODES, likelihood="poisson", max_iter=EPOCHS, random_state=0).fit(X)
        line("Autoencoder (reconstruction)", "", f"{plain.score(X):.1f}")
        for seed in range(2 if with_scvi else 0):
            if table.name == "bright":  # SCVI's training ends with an error on these rows
                break
            bounds, seconds = fit_scvi(X, new, seed)
            of_rows = [f"{bound:.1f}" for bound in bounds]
            line(f"SCVI, seed {seed}, given totals", "", *of_rows, f"{seconds:.1f}")


if __name__ == "__main__":
    main()
