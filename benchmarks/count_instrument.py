"""CountMixtureAE with the instrument of the counts: pixels, edges, exposure.

    pip install "skae[plots]"
    python benchmarks/count_instrument.py pixels      # indices of pixels, 200,000 counts, 64 x 48
    python benchmarks/count_instrument.py edges       # the cameraman, with and without reflection
    python benchmarks/count_instrument.py exposure    # vignetting and dead pixels, 256 x 256

Times are of one fit each, in the order of the rows of a table, on one thread. The true image only
judges the outcome.

Measured figures: docs/benchmarks.md.
"""

import argparse
import time
import warnings

import numpy as np
from _common import describe_machine
from skimage.data import camera
from skimage.metrics import peak_signal_noise_ratio
from sklearn.datasets import load_sample_image

from skae import CountMixtureAE, sample_counts


def timed(model, rows):
    start = time.perf_counter()
    model.fit(rows)
    return time.perf_counter() - start


def centre_of(image):
    return np.array([(axis * image).sum() / image.sum() for axis in np.indices(image.shape)])


def pixels():
    shape = (64, 48)
    picture = load_sample_image("china.jpg").mean(axis=2)[: 6 * 64, : 6 * 48]
    truth = picture.reshape(64, 6, 48, 6).mean(axis=(1, 3))
    counts = sample_counts(truth, 200_000, random_state=0)
    truth = truth / truth.sum()
    indices = np.floor(counts).astype("uint16")
    cases = {
        "continuous places": (counts, {}),
        "indices of pixels": (indices, {}),
        "indices + 0.5 as continuous places": (indices + 0.5, {}),
        "indices as continuous places": (indices, {"coordinates": "continuous"}),
    }
    print("| rows | edges | L1 distance | shift of the centre, pixels | iterations | seconds |")
    print("|---|---|---|---|---|---|")
    for name, (rows, more) in cases.items():
        for edges in ("reflect", "open"):
            model = CountMixtureAE(300, image_shape=shape, edges=edges, **more)
            seconds = timed(model, rows)
            image = model.intensity()
            distance = np.abs(image - truth).sum()
            shift = ", ".join(f"{value:+.2f}" for value in centre_of(image) - centre_of(truth))
            print(
                f"| {name} | {edges} | {distance:.3f} | {shift} | {model.n_iter_} | {seconds:.1f} |"
            )


def edges():
    picture = camera().astype(float)
    border = np.ones(picture.shape, dtype=bool)
    border[16:-16, 16:-16] = False
    print("| counts | components | edges | mass inside | PSNR, dB | of the border, dB | seconds |")
    print("|---|---|---|---|---|---|---|")
    for n_counts, n_components in ((20_000, 100), (1_000_000, 2_500), (1_000_000, 10_000)):
        counts = sample_counts(picture, n_counts, random_state=0)
        for how in ("reflect", "open"):
            model = CountMixtureAE(n_components, image_shape=picture.shape, edges=how)
            seconds = timed(model, counts)
            image = model.intensity() * picture.sum()
            figures = [
                peak_signal_noise_ratio(picture[part], image[part], data_range=255)
                for part in (np.ones_like(border), border)
            ]
            mass = image.sum() / picture.sum()
            print(
                f"| {n_counts:,} | {n_components:,} | {how} | {mass:.4f} | {figures[0]:.2f} | "
                f"{figures[1]:.2f} | {seconds:.1f} |"
            )


def exposure():
    picture = camera()[::2, ::2].astype(float) + 1
    row, column = np.indices(picture.shape) / 256 - 0.5
    smooth = np.exp(-3 * (row**2 + column**2))
    dead = np.random.RandomState(0).random_sample(picture.shape) < 0.01
    cases = {
        "none": None,
        "1 % of dead pixels": np.where(dead, 0.0, 1.0),
        "vignetting": smooth,
        "both": np.where(dead, 0.0, smooth),
    }
    print("| exposure | components | corrected | PSNR, dB | iterations | seconds |")
    print("|---|---|---|---|---|---|")
    for name, values in cases.items():
        seen = picture if values is None else picture * values
        counts = sample_counts(seen, 200_000, random_state=0)
        for kind, n_components, corrects in (
            ("full", 1_000, True),
            ("full", 1_000, False),
            ("cell", 1_000, True),
        ):
            if values is None and not corrects:
                continue
            model = CountMixtureAE(
                n_components,
                covariance_type=kind,
                n_averages=8 if kind == "cell" else 1,
                image_shape=picture.shape,
                exposure=values if corrects else None,
                random_state=0,
            )
            seconds = timed(model, counts)
            image = model.intensity(fill=True) * picture.sum()
            psnr = peak_signal_noise_ratio(picture, image, data_range=255)
            what = f"{n_components:,} " + ("cells, 8 averages" if kind == "cell" else "Gaussians")
            print(
                f"| {name} | {what} | {'yes' if corrects else 'no'} | {psnr:.2f} | "
                f"{model.n_iter_} | {seconds:.1f} |"
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = {"pixels": pixels, "edges": edges, "exposure": exposure}
    parser.add_argument("part", choices=[*parts, "all"])
    chosen = parser.parse_args().part
    print(describe_machine("scikit-image"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, part in parts.items():
            if chosen in (name, "all"):
                print(f"\n{name}\n")
                part()


if __name__ == "__main__":
    main()
