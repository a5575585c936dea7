"""Tables of counts for count_tables.py: simulated ones with their true law, and one of cells."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import gammaln, log_softmax, logsumexp

Array = np.ndarray

HELD_OUT = 0.2  # share of the rows


@dataclass
class Law:
    """The law that rows were drawn from.

    A row of group c and batch b has the profile softmax(base + markers[c] + u @ factors +
    shifts[b]) with u ~ N(0, I), and independent negative binomial counts of the means size *
    profile and of one shape theta for each gene. The groups are equally frequent.
    """

    base: Array
    markers: Array
    factors: Array
    shifts: Array
    theta: Array

    def log_profile(self, group: Array, u: Array, batch: Array) -> Array:
        fixed = self.base + self.markers[group] + self.shifts[batch]
        return log_softmax(fixed + u @ self.factors, axis=-1)

    def draw(self, mean: Array, rng: np.random.Generator) -> Array:
        return rng.poisson(rng.gamma(self.theta, mean / self.theta)).astype(np.float32)

    def log_prob(self, X: Array, log_mean: Array) -> Array:
        """Log p(x | means), up to `constant`; nats per row."""
        log_sum = np.log(self.theta + np.exp(log_mean))
        return (X * (log_mean - log_sum) - self.theta * log_sum).sum(-1)

    def constant(self, X: Array) -> Array:
        """What the log probabilities of a row contain besides its means."""
        t = self.theta
        return (gammaln(X + t) - gammaln(X + 1) - gammaln(t) + t * np.log(t)).sum(-1)

    def modes(self, X: Array, log_size: Array, group: Array, batch: Array) -> tuple[Array, Array]:
        """Largest p(u | x, group) of every row and its precision, by Fisher scoring."""
        n, k = len(X), len(self.factors)
        u, eye = np.zeros((n, k)), np.eye(k)
        for _ in range(15):
            log_profile = self.log_profile(group, u, batch)
            profile = np.exp(log_profile)
            mean = np.exp(log_size[:, None] + log_profile)
            share = self.theta / (self.theta + mean)
            # The derivatives of the log means by u are the factors less their mean.
            slopes = self.factors.T - (profile @ self.factors.T)[:, None]
            gradient = np.einsum("ng,ngk->nk", (X - mean) * share, slopes) - u
            precision = np.swapaxes(slopes, 1, 2) @ ((mean * share)[:, :, None] * slopes) + eye
            step = np.linalg.solve(precision, gradient[:, :, None])[:, :, 0]
            u = u + step / np.maximum(1, np.linalg.norm(step, axis=1, keepdims=True))
        return u, precision

    def scores(self, X: Array, size: Array, batch: Array, n_draws: int, seed: int) -> Array:
        """Importance-weighted log p(x | size, batch) of the law; nats per row."""
        rng = np.random.default_rng(seed)
        X, log_size = X.astype(float), np.log(size)
        n, k = len(X), len(self.factors)
        terms = []
        for c in range(len(self.markers)):
            group = np.full(n, c)
            mode, precision = self.modes(X, log_size, group, batch)
            root = np.linalg.cholesky(np.linalg.inv(precision))
            log_weights = np.empty((n_draws, n))
            log_root = np.log(np.diagonal(root, axis1=1, axis2=2)).sum(1)
            for weights in log_weights:
                noise = rng.standard_normal((n, k))
                u = mode + np.einsum("nkl,nl->nk", root, noise)
                log_mean = log_size[:, None] + self.log_profile(group, u, batch)
                weights[:] = self.log_prob(X, log_mean) + log_root
                weights += ((noise**2).sum(1) - (u**2).sum(1)) / 2
            terms.append(logsumexp(log_weights, axis=0) - np.log(n_draws))
        return logsumexp(terms, axis=0) - np.log(len(terms)) + self.constant(X)


@dataclass
class Table:
    """Rows of counts with their groups, the last fifth of which is held out of training."""

    name: str
    X: Array
    group: Array
    batch: Array | None = None
    law: Law | None = None
    u: Array | None = None
    size: Array | None = None

    @cached_property
    def n_train(self) -> int:
        return len(self.X) - int(HELD_OUT * len(self.X))

    def part(self, values: Array | None, held_out: bool) -> Array | None:
        rows = slice(self.n_train, None) if held_out else slice(self.n_train)
        return None if values is None else values[rows]

    def describe(self) -> str:
        total = self.X.sum(1)
        batches = "" if self.batch is None else f", {len(np.unique(self.batch))} batches"
        return (
            f"{self.name}: {self.n_train} rows of training and {len(self.X) - self.n_train} held "
            f"out, {self.X.shape[1]} columns, {len(np.unique(self.group))} groups{batches}, "
            f"{np.mean(self.X == 0):.0%} zeros, median total {np.median(total):.0f}"
        )

    def truth(self, n_draws: int) -> dict[str, float]:
        """Nats per held-out row under the true law, by what is given."""
        law, X = self.law, self.part(self.X, held_out=True)
        group, u, size, batch = (
            self.part(values, held_out=True)
            for values in (self.group, self.u, self.size, self.batch)
        )
        batch = np.zeros(len(X), int) if batch is None else batch
        log_profile, constant = law.log_profile(group, u, batch), law.constant(X)
        found = {}
        for name, given in (("row total", X.sum(1)), ("true size", size)):
            of_codes = law.log_prob(X, np.log(given)[:, None] + log_profile) + constant
            found[f"log p(x | true code, {name})"] = float(of_codes.mean())
            marginal = law.scores(X, given, batch, n_draws, seed=0)
            found[f"log p(x | {name})"] = float(marginal.mean())
        return found


def simulated(name: str, n_rows: int, n_genes: int, n_batches: int, seed: int) -> Table:
    """Rows of six groups and three factors, of log-normal sizes."""
    rng = np.random.default_rng(seed)
    n_groups, n_factors = 6, 3
    markers = rng.normal(size=(n_groups, n_genes)) * (rng.random((n_groups, n_genes)) < 0.15)
    law = Law(
        base=rng.normal(0, 1.2, n_genes),
        markers=0.9 * markers,
        factors=rng.normal(0, 0.25, (n_factors, n_genes)),
        shifts=rng.normal(0, 0.5, (n_batches, n_genes)) * (n_batches > 1),
        theta=rng.lognormal(np.log(2), 0.7, n_genes),
    )
    group, batch = rng.integers(n_groups, size=n_rows), rng.integers(n_batches, size=n_rows)
    u, size = rng.normal(size=(n_rows, n_factors)), rng.lognormal(np.log(600), 0.5, n_rows)
    X = law.draw(size[:, None] * np.exp(law.log_profile(group, u, batch)), rng)
    return Table(name, X, group, batch if n_batches > 1 else None, law, u, size)


def cells(seed: int) -> Table:
    """The cells of scanpy's pbmc68k_reduced: 700 rows, of 765 genes, with the labels of types.

    The file has logarithms of counts per ten thousand, rounded to three decimals; the smallest
    value of each row is that of one count, so that the counts are its quotients.
    """
    import scanpy

    data = scanpy.datasets.pbmc68k_reduced()
    rates = np.expm1(data.raw.X.toarray().astype(float))
    one = np.where(rates > 0, rates, np.inf).min(1, keepdims=True)
    counts = np.rint(rates / one)
    if not np.allclose(rates / one, counts, rtol=0.02, atol=0.05):
        raise ValueError("The counts of pbmc68k_reduced cannot be computed from its logarithms.")
    order = np.random.default_rng(seed).permutation(len(counts))
    group = np.unique(data.obs["bulk_labels"], return_inverse=True)[1]
    return Table("blood cells", counts.astype(np.float32)[order], group[order])
