"""Images restored from counts, by CountMixtureAE and by other methods.

    pip install "skae[plots]" bm3d
    python benchmarks/count_images.py images      # six images, four numbers of counts
    python benchmarks/count_images.py blurred     # deconvolution, beside Richardson-Lucy
    python benchmarks/count_images.py stars       # point sources: the prior, and scikit-learn
    python benchmarks/count_images.py pictures    # figures/count_images_*.png

Every setting is chosen by the nats of a tenth of the counts, held out; then all counts are fitted.
The true image only judges the outcome. PSNR is of the peak 255 for all images.

`--cache FILE` appends each row to a file of JSON lines, and reads from there what is not named by
`--only`. With `--only` and no name, only the tables are printed. The licence of bm3d allows use for
research that is not commercial. Without this package, its rows are missing.

Measured figures: docs/benchmarks.md.
"""

import argparse
import json
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from _common import describe_machine
from _count_images import (
    Line,
    by_bm3d,
    by_histogram,
    by_mixture,
    by_nl_means,
    by_richardson_lucy,
    by_tv,
    choose,
    divergence,
    geometric,
    lines_of_adaptive_kernels,
    lines_of_anscombe,
    lines_of_kernels,
    nats,
    quality,
    split,
)
from scipy.ndimage import gaussian_filter
from skimage import data
from skimage.color import rgb2gray
from sklearn.datasets import load_sample_image
from sklearn.mixture import GaussianMixture

from skae import counts_to_image, sample_counts

COUNTS = (20_000, 200_000, 1_000_000, 5_000_000)
NEW_COUNTS = 500_000
BLUR = 2.0  # standard deviation of the point spread of `blurred`, in pixels
IMAGES: dict[str, Callable[[], np.ndarray]] = {
    "camera": lambda: data.camera().astype(float),
    "moon": lambda: data.moon().astype(float),
    "astronaut": lambda: 255 * rgb2gray(data.astronaut()),
    "hubble": lambda: 255 * rgb2gray(data.hubble_deep_field())[::2, ::2],
    "china": lambda: 255 * rgb2gray(load_sample_image("china.jpg")),
    "flower": lambda: 255 * rgb2gray(load_sample_image("flower.jpg")),
}
BLURRED = "camera, blurred"
DEFAULT, CELLS, GAUSSIANS = "CountMixtureAE", "cells, 32 averages", "Gaussians"
BM3D = "Anscombe + BM3D"
OWN = (DEFAULT, CELLS, GAUSSIANS)


class Method(NamedTuple):
    lines: list[Line]
    start: int = 0


# ---------------------------------------------------------------------------- methods


def peers() -> dict[str, Method]:
    weights, strengths = geometric(0.35, 12, 2**0.25), geometric(0.1, 2.5, 2**0.25)
    sigmas = geometric(0.48, 3, 1.2)
    return {
        "histogram": Method([{"": by_histogram}]),
        "kernels": Method(lines_of_kernels()),
        "adaptive kernels": Method(lines_of_adaptive_kernels()),
        "Anscombe + total variation": Method(lines_of_anscombe(by_tv, "weight", weights), 6),
        "Anscombe + non-local means": Method(lines_of_anscombe(by_nl_means, "h", strengths), 10),
        BM3D: Method(lines_of_anscombe(by_bm3d, "sigma", sigmas), 4),
    }


def own_methods(n_counts: int, psf: float | None = None) -> dict[str, Method]:
    more = {} if psf is None else {"psf": psf}
    sizes = [int(k) for k in geometric(20, 60_000, 2 if psf else 2**0.5)]
    usual_cells, usual_gaussians = 3_000 * (n_counts / 1e6) ** 0.85, n_counts / 150
    methods = {
        DEFAULT: Method([{"": by_mixture(**more)}]),
        GAUSSIANS: Method(
            [{f"K {k}": by_mixture(k, covariance_type="full", **more) for k in sizes}],
            int(np.searchsorted(sizes, usual_gaussians)),
        ),
    }
    if psf is None:
        cells = {f"K {k}": by_mixture(k, covariance_type="cell", n_averages=32) for k in sizes}
        methods[CELLS] = Method([cells], int(np.searchsorted(sizes, usual_cells)))
    return methods


def methods_for_image(n_counts: int) -> dict[str, Method]:
    return {**peers(), **own_methods(n_counts)}


def methods_for_blurred(n_counts: int) -> dict[str, Method]:
    iterations = dict.fromkeys(int(n) for n in geometric(1, 1000, 2**0.5))

    def line(sieve: float) -> Line:
        return {
            f"{n} iterations" + f", sieve {sieve:g}" * (sieve > 0): by_richardson_lucy(
                BLUR, n, sieve
            )
            for n in iterations
        }

    return {
        "Richardson-Lucy": Method([line(0)]),
        "Richardson-Lucy with a sieve": Method([line(sieve) for sieve in (4, 2.8, 2, 1.4, 1)]),
        f"{BM3D}, not sharpened": peers()[BM3D],
        **own_methods(n_counts, psf=BLUR**2),
    }


# ------------------------------------------------------------------------------ rows


class Cache:
    """Rows by image, counts and method, in a file of JSON lines; the last row of each counts."""

    def __init__(self, path: Path | None, only: list[str] | None) -> None:
        self.path, self.only = path, only
        self.rows: dict[tuple, dict] = {}
        if path is not None and path.exists():
            for line in path.read_text().splitlines():
                row = json.loads(line)
                self.rows[row["image"], row["counts"], row["method"]] = row

    def wants(self, image: str, n_counts: int, method: str) -> bool:
        if self.only is not None:
            return method in self.only
        return (image, n_counts, method) not in self.rows

    def add(self, row: dict) -> None:
        self.rows[row["image"], row["counts"], row["method"]] = row
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")

    def of(self, image: str, n_counts: int) -> list[dict]:
        return [row for key, row in self.rows.items() if key[:2] == (image, n_counts)]


def measure(
    name: str, image: np.ndarray, n_counts: int, methods: dict[str, Method], cache: Cache
) -> None:
    """Add a row for each method. Counts of `blurred` are of the blurred image."""
    wanted = {key: way for key, way in methods.items() if cache.wants(name, n_counts, key)}
    if find_spec("bm3d") is None:
        for key in [key for key in wanted if BM3D in key]:
            print(f"bm3d is not installed (pip install bm3d): no row of {key!r}.", flush=True)
            del wanted[key]
    if not wanted:
        return
    blurs = name == BLURRED
    seen = blurred(image) if blurs else image
    counts = sample_counts(seen, n_counts, random_state=0)
    new_counts = counts_to_image(sample_counts(seen, NEW_COUNTS, random_state=1), image.shape)
    train, held_out = split(counts, image.shape)
    for method, (lines, start) in wanted.items():
        as_seen = [with_blur(line) for line in lines] if blurs and "not" not in method else lines
        choice = choose(as_seen, train, held_out, start=start)
        restore = next(line[choice.name] for line in lines if choice.name in line)
        began = time.perf_counter()
        density = restore(train + held_out)
        seconds = time.perf_counter() - began
        found = quality(density, image, new_counts)
        if blurs:
            recorded = density if "not" in method else blurred(density)
            found = found._replace(nats=nats(recorded, new_counts))
        row = {"image": name, "counts": n_counts, "method": method, "chosen": choice.name}
        row.update(found._asdict(), seconds=seconds, choice_seconds=choice.seconds)
        cache.add(row)


def blurred(image: np.ndarray) -> np.ndarray:
    return gaussian_filter(image, BLUR)


def with_blur(line: Line) -> Line:
    """The densities of the recorded counts, by which settings are chosen."""
    return {
        name: lambda counts, restore=restore: blurred(restore(counts))
        for name, restore in line.items()
    }


# ----------------------------------------------------------------------------- output


def show_table(name: str, shape: tuple[int, ...], n_counts: int, rows: list[dict]) -> None:
    print(f"\n{name} ({shape[0]} x {shape[1]}), {n_counts:,} counts\n")
    print("| | chosen | PSNR (dB) | SSIM | KL | nats | s | s of the choice |")
    print("|---|---|---|---|---|---|---|---|")
    for row in sorted(rows, key=lambda row: -row["kl"]):
        print(
            f"| {row['method']} | {row['chosen']} | {row['psnr']:.2f} | {row['ssim']:.3f} | "
            f"{row['kl']:.4f} | {row['nats']:.4f} | {row['seconds']:.1f} | "
            f"{row['choice_seconds']:.1f} |"
        )


def show_summary(cells: dict[tuple[str, int], list[dict]]) -> None:
    """The best method of each cell; the best peer, and BM3D, beside the best own method."""
    print(
        "\n| image | counts | first in KL | first in nats | KL: best own, best peer, ratio | ",
        end="",
    )
    print("dB: best own, BM3D, difference | default: KL ratio, dB behind BM3D |")
    print("|---|---|---|---|---|---|---|")
    ratios, behind, first = [], [], 0
    for (name, n_counts), rows in cells.items():
        own = [row for row in rows if row["method"] in OWN]
        others = [row for row in rows if row["method"] not in OWN]
        if not own or not others:
            continue
        best = min(rows, key=lambda row: row["kl"])
        best_own, best_peer = (min(some, key=lambda row: row["kl"]) for some in (own, others))
        ratio = best_own["kl"] / best_peer["kl"]
        bm3d = next((row for row in others if BM3D in row["method"]), None)
        default = next((row for row in own if row["method"] == DEFAULT), None)
        of_bm3d = of_default = ""
        if bm3d is not None:
            gap = bm3d["psnr"] - best_own["psnr"]
            of_bm3d = f"{best_own['psnr']:.2f}, {bm3d['psnr']:.2f}, {gap:+.2f}"
        if default is not None:
            ratios.append(default["kl"] / best_peer["kl"])
            first += ratios[-1] < 1
            of_default = f"{ratios[-1]:.2f}"
            if bm3d is not None:
                behind.append(bm3d["psnr"] - default["psnr"])
                of_default += f", {behind[-1]:+.2f}"
        print(
            f"| {name} | {n_counts:,} | {best['method']} | "
            f"{max(rows, key=lambda row: row['nats'])['method']} | {best_own['kl']:.4f}, "
            f"{best_peer['kl']:.4f}, {ratio:.2f} | {of_bm3d} | {of_default} |"
        )
    if ratios:
        print(
            f"\n{DEFAULT}: first in KL in {first} of {len(ratios)} cells; KL divided by that of ",
            end="",
        )
        print(f"the best peer: median {np.median(ratios):.2f}, largest {max(ratios):.2f}")
    if behind:
        print(f"dB behind BM3D: median {np.median(behind):+.2f}, largest {max(behind):+.2f}")


def show_images(names: list[str], sizes: list[int], cache: Cache) -> None:
    cells = {}
    for name in names:
        image = IMAGES[name]()
        for n_counts in sizes:
            measure(name, image, n_counts, methods_for_image(n_counts), cache)
            cells[name, n_counts] = cache.of(name, n_counts)
            show_table(name, image.shape, n_counts, cells[name, n_counts])
    show_summary(cells)


def show_blurred(sizes: list[int], cache: Cache) -> None:
    image = IMAGES["camera"]()
    for n_counts in sizes:
        measure(BLURRED, image, n_counts, methods_for_blurred(n_counts), cache)
        show_table(BLURRED, image.shape, n_counts, cache.of(BLURRED, n_counts))


# --------------------------------------------------------------------------- pictures


def show_pictures(names: list[str], sizes: list[int], cache: Cache) -> None:
    """The true image, the counts, and the settings that the cache has for each method."""
    import matplotlib.pyplot as plt

    Path("figures").mkdir(exist_ok=True)
    for name, n_counts in ((name, n_counts) for name in names for n_counts in sizes):
        image = IMAGES[name]()
        counts = counts_to_image(sample_counts(image, n_counts, random_state=0), image.shape)
        methods = methods_for_image(n_counts)
        rows = [row for row in cache.of(name, n_counts) if row["method"] != "histogram"]
        panels = [("truth", image), (f"{n_counts:,} counts", counts * image.sum() / n_counts)]
        for row in sorted(rows, key=lambda row: -row["kl"]):
            line = next(line for line in methods[row["method"]].lines if row["chosen"] in line)
            title = f"{row['method']}\n{row['psnr']:.2f} dB, KL {row['kl']:.4f}"
            panels.append((title, line[row["chosen"]](counts) * image.sum()))
        n_columns = (len(panels) + 1) // 2
        height = 4 * image.shape[0] / image.shape[1] + 0.8
        figure, axes = plt.subplots(
            2, n_columns, figsize=(4 * n_columns, 2 * height), layout="constrained"
        )
        for axis in axes.flat:
            axis.axis("off")
        for axis, (title, picture) in zip(axes.flat, panels, strict=False):
            axis.imshow(picture, cmap="gray", vmin=0, vmax=np.quantile(image, 0.999))
            axis.set_title(title)
        path = Path("figures", f"count_images_{name}_{n_counts}.png")
        figure.savefig(path, dpi=100)
        plt.close(figure)
        print(f"picture: {path.resolve()}", flush=True)


# ------------------------------------------------------------------------------ stars


def image_of_stars(n_stars: int = 20, size: int = 64, sd: float = 0.7) -> np.ndarray:
    """Density of Gaussian stars of unequal brightness on a uniform background of 10 %."""
    random = np.random.RandomState(0)
    centres = random.uniform(4, size - 4, (n_stars, 2))
    brightness = random.pareto(1.5, n_stars) + 1
    places = np.arange(size + 1)
    from scipy.special import ndtr

    stars = sum(
        share * np.outer(*(np.diff(ndtr((places - middle) / sd)) for middle in centre))
        for share, centre in zip(brightness / brightness.sum(), centres, strict=True)
    )
    return 0.9 * stars / stars.sum() + 0.1 / size**2


def show_stars(n_counts: int = 20_000) -> None:
    truth = image_of_stars()
    counts = sample_counts(truth, n_counts, random_state=0)
    new = sample_counts(truth, NEW_COUNTS, random_state=1)
    new_image = counts_to_image(new, truth.shape)
    train, held_out = split(counts, truth.shape)
    sizes = [int(k) for k in geometric(10, 1_000, 2**0.5)]
    priors: list[tuple[str, dict]] = [
        *((f"prior_counts={p:g}", {"prior_counts": p}) for p in (0, 0.5, 5)),
        ("prior_counts by default", {}),
    ]
    print(f"\n20 stars on 64 x 64 pixels, {n_counts:,} counts; the true density has ", end="")
    print(f"{nats(truth, new_image):.4f} nats\n\n| | chosen | KL | nats | s | s of the choice |")
    print("|---|---|---|---|---|---|")

    def show(name: str, chosen: str, density: np.ndarray, seconds: float, of_choice: float) -> None:
        print(
            f"| {name} | {chosen} | {divergence(truth, density):.4f} | "
            f"{nats(density, new_image):.4f} | {seconds:.2f} | {of_choice:.1f} |",
            flush=True,
        )

    def show_choice(name: str, lines: list[Line], start: int = 0) -> None:
        choice = choose(lines, train, held_out, start=start)
        began = time.perf_counter()
        density = choice.restore(train + held_out)
        show(name, choice.name, density, time.perf_counter() - began, choice.seconds)

    show_choice("kernels", lines_of_kernels())
    show_choice("adaptive kernels", lines_of_adaptive_kernels())
    for name, prior in priors:
        given = {"covariance_type": "full", **prior}
        show_choice(f"{name}, K = 50", [{"": by_mixture(50, **given)}])
        show_choice(f"{name}, any K", [{f"K {k}": by_mixture(k, **given) for k in sizes}], start=4)
    show_choice(DEFAULT, [{"": by_mixture()}])
    began = time.perf_counter()
    peer = GaussianMixture(50, max_iter=1000, random_state=0).fit(counts)
    seconds = time.perf_counter() - began
    show("scikit-learn GaussianMixture(50)", "", on_pixels(peer, truth.shape), seconds, 0.0)


def on_pixels(model: GaussianMixture, shape: tuple[int, int], fine: int = 4) -> np.ndarray:
    """Density on pixels, by the mean of points within each."""
    rows, columns = (np.arange(length * fine) / fine + 0.5 / fine for length in shape)
    points = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    values = np.exp(model.score_samples(points))
    return values.reshape(shape[0], fine, shape[1], fine).mean(axis=(1, 3))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["images", "blurred", "stars", "pictures"])
    parser.add_argument("--images", default=",".join(IMAGES), help="names, with commas")
    parser.add_argument("--counts", help="numbers of counts, with commas")
    parser.add_argument(
        "--only", nargs="*", metavar="METHOD", help="compute these; 'peers' are all but ours"
    )
    parser.add_argument("--cache", type=Path, help="file of JSON lines")
    arguments = parser.parse_args()
    only = arguments.only
    if only is not None and "peers" in only:
        only = [*only, *peers()]
    names = arguments.images.split(",")
    sizes = [int(float(n)) for n in (arguments.counts or "").split(",") if n]
    cache = Cache(arguments.cache, only)
    print(describe_machine("scikit-image"))
    match arguments.what:
        case "images":
            show_images(names, sizes or list(COUNTS), cache)
        case "blurred":
            show_blurred(sizes or [1_000_000], cache)
        case "stars":
            show_stars()
        case "pictures":
            show_pictures(names, sizes or list(COUNTS), cache)
