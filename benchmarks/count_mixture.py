"""CountMixtureAE on the cameraman: time to convergence, growth with the counts, quality.

    pip install "skae[fast,plots]"
    python benchmarks/count_mixture.py time       # 1,000,000 counts, K = 100², 250², 300²
    python benchmarks/count_mixture.py ten_million  # 10,000,000 counts, K = 300²
    python benchmarks/count_mixture.py scaling    # 10^5 to 10^7 counts; figures/count_scaling.png
    python benchmarks/count_mixture.py quality    # against the true image, beside the peers
    python benchmarks/count_mixture.py peers      # GaussianMixture and pomegranate, one thread

Every setting of the quality table is chosen by the nats of a tenth of the counts, held out; then
all of them are fitted. The true image only judges the outcome. More images are in count_images.py.
With `--without-numba`, the fits run as if Numba was not installed. Its code is compiled before
times are measured.

Measured figures: docs/benchmarks.md.
"""

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from _common import added_to_peak, alternate, describe_machine
from _count_images import (
    Line,
    by_histogram,
    by_mixture,
    by_nl_means,
    by_tv,
    choose,
    lines_of_kernels,
    nats,
    quality,
    split,
)
from skimage.data import camera
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from skae import CountMixtureAE, counts_to_image, image_to_counts, sample_counts, thin

IMAGE = camera().astype(float)
SHAPE = IMAGE.shape
TRUTH = IMAGE / IMAGE.sum()
N_COUNTS = 1_000_000
SIZES = (100**2, 250**2, 300**2)


def image_model(n_components: int | None, n_jobs: int = 2, **params: object) -> CountMixtureAE:
    return CountMixtureAE(n_components, image_shape=SHAPE, n_jobs=n_jobs, random_state=0, **params)


# ------------------------------------------------------------------------------ time


def timed_model(size: int, **params: object) -> CountMixtureAE:
    """The model whose times are measured, independent of defaults that may change."""
    return image_model(size, covariance_type="full", prior_counts=5, **params)


def compile_loops() -> None:
    """Fit enough counts that Numba compiles all loops, or loads what it has compiled before."""
    counts = sample_counts(IMAGE, 200_000, random_state=1)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        timed_model(50_000, max_iter=2).fit(counts)
    print(f"first fit, with loading or compiling the loops: {time.perf_counter() - start:.1f} s")


def compare_times(repeats: int) -> None:
    compile_loops()
    counts = sample_counts(IMAGE, N_COUNTS, random_state=0)
    pixels, weight = image_to_counts(counts_to_image(counts, SHAPE))
    print(f"{N_COUNTS} counts to convergence (medians of {repeats})")
    print(f"{'K':>6} {'rows':>8} {'s':>6} {'iterations':>10} {'MB':>6} {'objective':>10}")
    reached = {}
    for size in SIZES:
        for name, rows, of_rows in (("pixels", pixels, weight), ("counts", counts, None)):
            model = timed_model(size)

            def fit(model=model, rows=rows, of_rows=of_rows) -> None:
                model.fit(rows, sample_weight=of_rows)

            megabytes = added_to_peak(fit)
            seconds = alternate({name: fit}, repeats)[name]
            reached[size] = model.objectives_[-1]
            print(
                f"{size:>6} {name:>8} {seconds:>6.2f} {model.n_iter_:>10} {megabytes:>6.0f} "
                f"{reached[size]:>10.4f}",
                flush=True,
            )
    warnings.simplefilter("ignore", ConvergenceWarning)
    for size in SIZES:
        longer = timed_model(size, tol=0.0, max_iter=200).fit(counts)
        gain = longer.objectives_[-1] - reached[size]
        print(f"{size:>6} counts: 200 iterations gain {gain:.5f} nats per count more")


def time_ten_million() -> None:
    compile_loops()
    counts = sample_counts(IMAGE, 10_000_000, random_state=0)
    model = timed_model(SIZES[-1])
    start = time.perf_counter()
    megabytes = added_to_peak(lambda: model.fit(counts))
    print(
        f"{len(counts)} counts, K = {SIZES[-1]}: {time.perf_counter() - start:.1f} s, "
        f"{model.n_iter_} iterations, {megabytes:.0f} MB more memory at the peak, "
        f"objective {model.objectives_[-1]:.4f}"
    )


def show_scaling() -> None:
    import matplotlib.pyplot as plt

    print("seconds of a fit, one component for 100 counts, and per count and log2 of K")
    sizes, seconds = [10**5, 316_228, 10**6, 3_162_278, 10**7], []
    for n in sizes:
        counts = sample_counts(IMAGE, n, random_state=0)
        start = time.perf_counter()
        model = image_model(n // 100).fit(counts)
        seconds.append(time.perf_counter() - start)
        each = seconds[-1] / n / np.log2(n // 100)
        print(f"{n:>9} {seconds[-1]:>7.2f} s, {model.n_iter_} iterations, {1e9 * each:.0f} ns")
    figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
    axes.loglog(sizes, seconds, "o-", label="measured")
    law = np.array(sizes) * np.log2(np.array(sizes) / 100)
    axes.loglog(sizes, seconds[2] * law / law[2], "--", label="n log K")
    axes.set(xlabel="counts n, of K = n / 100 components", ylabel="seconds of a fit")
    axes.legend()
    path = Path("figures", "count_scaling.png")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=120)
    print(f"picture: {path.resolve()}")


# --------------------------------------------------------------------------- quality


def show_quality(n_counts: int) -> None:
    counts = sample_counts(IMAGE, n_counts, random_state=0)
    train, held_out = split(counts, SHAPE)
    new_counts = counts_to_image(sample_counts(IMAGE, 500_000, random_state=1), SHAPE)
    plain = {"algorithm": "partition", "prior_counts": 0}
    scale = n_counts / N_COUNTS
    ten_thousand = max(4, int(10_000 * scale))
    sizes = [max(4, int(k * scale)) for k in (2_500, 5_000, 10_000, 20_000)]
    cell_sizes = [max(4, int(k * scale)) for k in (500, 1000, 1500, 2000, 2500, 3000, 4000, 5000)]
    some = {"n_averages": 8}
    groups: dict[str, list[Line]] = {
        "histogram": [{"": by_histogram}],
        "kernels": lines_of_kernels(),
        "Anscombe + non-local means": [
            {f"h {h}": by_nl_means(h) for h in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)}
        ],
        "Anscombe + total variation": [
            {f"weight {w}": by_tv(w) for w in (0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 8.0)}
        ],
        "plain partition, spherical": [
            {f"K {k}": by_mixture(k, covariance_type="spherical", **plain) for k in sizes}
        ],
        "plain partition, full": [{f"K {k}": by_mixture(k, **plain) for k in sizes}],
        f"partition with prior, K {ten_thousand}": [
            {"": by_mixture(ten_thousand, algorithm="partition")}
        ],
        f"em without prior, K {ten_thousand}": [{"": by_mixture(ten_thousand, prior_counts=0)}],
        f"em (default), K {ten_thousand}": [{"": by_mixture(ten_thousand)}],
        "em (default), any K": [{f"K {k}": by_mixture(k) for k in sizes}],
        "cells": [{f"K {k}": by_mixture(k, covariance_type="cell") for k in cell_sizes}],
        "cells, 8 averages": [
            {f"K {k}": by_mixture(k, covariance_type="cell", **some) for k in cell_sizes}
        ],
        "cells, 32 averages": [
            {f"K {k}": by_mixture(k, covariance_type="cell", n_averages=32) for k in cell_sizes}
        ],
    }
    print(f"{n_counts} counts; the true density has {nats(TRUTH, new_counts):.4f} nats per count")
    print(f"{'':<36}{'chosen':>14}{'PSNR':>7}{'SSIM':>7}{'KL':>9}{'nats':>10}{'stored':>8}{'s':>7}")
    for name, lines in groups.items():
        choice = choose(lines, train, held_out)
        start = time.perf_counter()
        density = choice.restore(train + held_out)
        seconds = time.perf_counter() - start
        found = quality(density, IMAGE, new_counts)
        model = getattr(choice.restore, "model", None)
        stored = "" if model is None else f"{100 / model.compression_ratio_:.2f} %"
        print(
            f"{name:<36}{choice.name:>14}{found.psnr:>7.2f}{found.ssim:>7.3f}{found.kl:>9.4f}"
            f"{found.nats:>10.4f}{stored:>8}{seconds:>7.1f}",
            flush=True,
        )


# ----------------------------------------------------------------------------- peers


def compare_with_sklearn() -> None:
    print("20,000 counts, K = 50, full covariances, no prior: mean log-likelihood, seconds")
    counts = thin(sample_counts(IMAGE, N_COUNTS, random_state=0), 20_000, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for tol in (1e-3, 1e-4, 1e-5):
            peer = GaussianMixture(50, tol=tol, max_iter=1000, random_state=0)
            own = {
                init: image_model(50, 1, init=init, prior_counts=0, tol=tol, max_iter=1000)
                for init in ("quantiles", "split")
            }
            models = {"GaussianMixture": peer, **own}
            seconds = alternate({name: lambda m=m: m.fit(counts) for name, m in models.items()}, 3)
            for name, model in models.items():
                print(
                    f"tol {tol:g} {name:<16} {model.score(counts):.4f} nats, "
                    f"{seconds[name]:.2f} s, {model.n_iter_} iterations"
                )


class Trace(NamedTuple):
    """Held-out nats after 1, 2, 4, ... iterations, and seconds of the processor until then.

    With one thread, these are the seconds that pass on an idle machine. The initialisation counts.
    """

    of_iteration: float  # seconds, in the last half of the iterations
    iterations: list[int]
    seconds: list[float]
    nats: list[float]

    def until(self, target: float) -> float:
        """Seconds, interpolated between numbers of iterations."""
        return float(np.interp(target, np.maximum.accumulate(self.nats), self.seconds))


def trace(run: Callable[[int], float], score: Callable[[], float], limit: float) -> Trace:
    """Train for about half the limit, or until twice the iterations gain 0.0005 nats.

    `run` makes so many iterations more, and returns its seconds.
    """
    done, seconds, found = [1], [run(1)], [score()]
    while len(done) < 2 or (
        seconds[-1] < limit / 2 and (len(done) < 4 or found[-1] - found[-2] > 5e-4)
    ):
        more = done[-1]
        seconds.append(seconds[-1] + run(more))
        done.append(done[-1] + more)
        found.append(score())
    of_iteration = (seconds[-1] - seconds[-2]) / (done[-1] - done[-2])
    return Trace(of_iteration, done, seconds, found)


def trace_sklearn(size: int, counts: np.ndarray, held_out: np.ndarray, limit: float) -> Trace:
    model = GaussianMixture(size, tol=0, warm_start=True, random_state=0)

    def run(n_iterations: int) -> float:
        start = time.process_time()
        model.set_params(max_iter=n_iterations).fit(counts)
        return time.process_time() - start

    return trace(run, lambda: model.score(held_out), limit)


def trace_pomegranate(size: int, counts: np.ndarray, held_out: np.ndarray, limit: float) -> Trace:
    import torch
    from pomegranate.distributions import Normal
    from pomegranate.gmm import GeneralMixtureModel

    torch.set_num_threads(1)
    model = GeneralMixtureModel([Normal() for _ in range(size)], random_state=0)
    # It computes E[x²] - E[x]² in single precision, which needs places near zero.
    centre = counts.mean(axis=0)
    rows, others = (torch.from_numpy((x - centre).astype("f4")) for x in (counts, held_out))

    def run(n_iterations: int) -> float:
        start = time.process_time()
        with torch.no_grad():
            for _ in range(n_iterations):
                model.summarize(rows)
                model.from_summaries()
        return time.process_time() - start

    def score() -> float:
        with torch.no_grad():
            return float(model.log_probability(others).double().mean())

    return trace(run, score, limit)


def trace_own(size: int, counts: np.ndarray, held_out: np.ndarray, limit: float) -> Trace:
    """Of fits from the start, because over-relaxed steps depend on those before."""
    model, n_done, last = image_model(size, 1, prior_counts=0, tol=0), 0, 0.0

    def run(n_iterations: int) -> float:
        nonlocal n_done, last
        n_done += n_iterations
        before, start = last, time.process_time()
        model.set_params(max_iter=n_done).fit(counts)
        last = time.process_time() - start
        return last - before

    return trace(run, lambda: float(model.score(held_out)), limit)


def compare_with_peers(limit: float) -> None:
    print("full covariances, no prior, one thread; seconds of the processor, with initialisation")
    print("target: the most held-out nats that all reach, less 0.001\n")
    print("| counts | K | | s of an iteration | iterations | most nats | target | s to it |")
    print("|---|---|---|---|---|---|---|---|")
    ways = {"GaussianMixture": trace_sklearn, "CountMixtureAE": trace_own}
    if find_spec("pomegranate") is None:
        print("pomegranate is not installed (pip install pomegranate): no rows of it.")
    else:
        ways["pomegranate"] = trace_pomegranate
    held_out = sample_counts(IMAGE, 50_000, random_state=1)
    warnings.simplefilter("ignore", ConvergenceWarning)
    # The responsibilities of a million counts for 500 components would need gigabytes.
    for n_counts, size in ((100_000, 50), (100_000, 500), (1_000_000, 50)):
        counts = sample_counts(IMAGE, n_counts, random_state=0)
        with threadpool_limits(1):
            traces = {name: way(size, counts, held_out, limit) for name, way in ways.items()}
        target = min(max(found.nats) for found in traces.values()) - 0.001
        for name, found in traces.items():
            print(
                f"| {n_counts:,} | {size} | {name} | {found.of_iteration:.4f} | "
                f"{found.iterations[-1]} | {max(found.nats):.4f} | {target:.4f} | "
                f"{found.until(target):.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["time", "ten_million", "scaling", "quality", "peers"])
    parser.add_argument("--without-numba", action="store_true", help="as if it was not installed")
    parser.add_argument("--n-counts", type=int, default=N_COUNTS, help="of quality")
    parser.add_argument("--repeats", type=int, default=3, help="of time")
    parser.add_argument("--limit", type=float, default=120, help="of peers, seconds of a model")
    arguments = parser.parse_args()
    if arguments.without_numba:
        sys.modules["numba"] = None  # an import raises ImportError
    has_numba = not arguments.without_numba and find_spec("numba") is not None
    print(describe_machine("scikit-image", *(["numba"] if has_numba else [])))
    match arguments.what:
        case "time":
            compare_times(arguments.repeats)
        case "ten_million":
            time_ten_million()
        case "scaling":
            show_scaling()
        case "quality":
            show_quality(arguments.n_counts)
        case "peers":
            compare_with_sklearn()
            compare_with_peers(arguments.limit)
