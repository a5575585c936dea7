"""Searches over the latent size, skae's beside scikit-learn's, over the same estimators.

    python benchmarks/search_speed.py --mnist mnist.npz
    python benchmarks/search_speed.py digits wine --jobs 2 1
    python benchmarks/search_speed.py digits wine --device cuda --jobs 1 --peer-jobs 1

Each search is `skae.GridSearchCV(n_jobs=2)` against scikit-learn's GridSearchCV(n_jobs=2), which
take turns in one run; the seconds are medians of `--repeats` rounds, after a small search by each
that starts the workers and loads what they need. The final fit of the best candidate is the same
work in both, and is left out of both (`refit=False`). Beside the seconds stand the largest
difference of the mean test scores, and the best size by each search. The case `starts` sets
`n_init=5` and an Ensemble of five beside one fit, and beside five fits in turn. Cases that need
the digits of `--mnist` are left out without it; `--rows` and `--epochs` make all of them smaller.

Measured figures: docs/benchmarks.md.
"""

import argparse
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _common import alternate, describe_machine, load_mnist
from sklearn import model_selection
from sklearn.base import clone
from sklearn.datasets import load_digits, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler, scale

import skae


@dataclass
class Search:
    """One search: the estimator, the name of its size, the sizes, and the rows."""

    title: str
    estimator: Any
    sizes: list[int]
    X: np.ndarray
    y: np.ndarray | None = None
    size_name: str = "n_components"

    def by(self, search_class: Any, n_jobs: int) -> Any:
        """A search of one class over five folds."""
        grid = {self.size_name: self.sizes}
        search = search_class(clone(self.estimator), grid, cv=5, n_jobs=n_jobs, refit=False)
        return search.fit(self.X, self.y)

    def small(self) -> "Search":
        """The same for a few rows and the smallest two sizes, so that workers are warm."""
        estimator = clone(self.estimator)
        if "max_iter" in estimator.get_params() and hasattr(estimator, "hidden_layer_sizes"):
            estimator.set_params(max_iter=1)
        y = None if self.y is None else self.y[:150]
        return Search("", estimator, self.sizes[:2], self.X[:150], y, self.size_name)


# --------------------------------------------------------------------------------- the cases


def linear(args: argparse.Namespace) -> Iterator[Search]:
    """PPCA and LinearAE, MNIST in float32."""
    X = load_mnist(args.mnist)[0].astype(np.float32)[: args.rows]
    sizes = [2, 4, 8, 16, 24, 32, 48, 64]
    for model in (skae.PPCA(), skae.LinearAE(random_state=0)):  # few rows are randomized
        yield Search(f"{type(model).__name__}, MNIST {X.shape}", model, sizes, X)


def digits(args: argparse.Namespace) -> Iterator[Search]:
    """An Autoencoder of 100 hidden units, five sizes, 40 epochs."""
    X = load_digits().data[: args.rows]
    model = skae.Autoencoder(
        hidden_layer_sizes=100, max_iter=args.epochs or 40, device=args.device, random_state=0
    )
    yield Search(f"Autoencoder, digits {X.shape}", model, [2, 4, 8, 16, 32], X)


def wine(args: argparse.Namespace) -> Iterator[Search]:
    """An Autoencoder and a VAE of 100 hidden units, eight sizes, 300 epochs."""
    X = scale(load_wine().data)[: args.rows]
    for network in (skae.Autoencoder, skae.VAE):
        model = network(
            hidden_layer_sizes=100, max_iter=args.epochs or 300, device=args.device, random_state=0
        )
        yield Search(f"{network.__name__}, wine {X.shape}", model, [1, 2, 3, 4, 5, 6, 8, 10], X)


def pipeline(args: argparse.Namespace) -> Iterator[Search]:
    """A scaler, PPCA and a classifier."""
    X, y = load_digits(return_X_y=True)
    steps = [
        ("scale", StandardScaler()),
        ("reduce", skae.PPCA()),
        ("classify", LogisticRegression(max_iter=1000)),
    ]
    yield Search(
        f"Pipeline(StandardScaler, PPCA, LogisticRegression), digits {X[: args.rows].shape}",
        Pipeline(steps),
        [2, 4, 8, 12, 16, 24, 32, 48],
        X[: args.rows],
        y[: args.rows],
        "reduce__n_components",
    )


SEARCHES: dict[str, Callable[[argparse.Namespace], Iterator[Search]]] = {
    "linear": linear,
    "digits": digits,
    "wine": wine,
    "pipeline": pipeline,
}
CASES = [*SEARCHES, "starts"]


# -------------------------------------------------------------------------------- the tables


def compare(search: Search, args: argparse.Namespace) -> None:
    """Print the seconds of each search of one table row, and how far their results differ."""
    peer = f"scikit-learn, n_jobs={args.peer_jobs}"
    settings = {peer: (model_selection.GridSearchCV, args.peer_jobs)}
    settings |= {f"skae, n_jobs={jobs}": (skae.GridSearchCV, jobs) for jobs in args.jobs}
    found: dict[str, Any] = {}

    def run(name: str) -> None:
        found[name] = search.by(*settings[name])

    for setting in settings.values():
        search.small().by(*setting)
    seconds = alternate({name: partial(run, name) for name in settings}, args.repeats)
    print(f"\n{search.title}, sizes {', '.join(map(str, search.sizes))}", flush=True)
    scores = {name: done.cv_results_["mean_test_score"] for name, done in found.items()}
    for name in settings:
        best = search.sizes[int(np.argmax(scores[name]))]
        print(
            f"  {name:24} {seconds[name]:8.2f} s  {seconds[peer] / seconds[name]:6.2f} x"
            f"  largest difference {np.abs(scores[name] - scores[peer]).max():.1e}"
            f"  best size {best}",
            flush=True,
        )


def starts(args: argparse.Namespace) -> None:
    """Print the seconds of five fits of a network, by `n_init`, as an Ensemble, and in turn."""
    X = load_digits().data[: args.rows]
    for network in (skae.Autoencoder, skae.VAE):
        model = network(
            8,
            hidden_layer_sizes=100,
            max_iter=args.epochs or 40,
            device=args.device,
            random_state=0,
        )
        several = clone(model).set_params(n_init=5)
        ensemble = skae.Ensemble(model, n_members=5, random_state=0)

        def in_turn(model: Any = model) -> None:
            for seed in range(5):
                clone(model).set_params(random_state=seed).fit(X)

        clone(model).set_params(max_iter=1).fit(X)
        work = {
            "one fit": partial(model.fit, X),
            "five fits in turn": in_turn,
            "n_init=5": partial(several.fit, X),
            "Ensemble of 5": partial(ensemble.fit, X),
        }
        seconds = alternate(work, args.repeats)
        print(f"\n{network.__name__}, digits {X.shape}, 8 codes")
        for name in work:
            times = seconds[name] / seconds["one fit"]
            print(f"  {name:24} {seconds[name]:8.2f} s  {times:6.2f} x one fit", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cases", nargs="*", default=CASES, metavar="case", help=", ".join(CASES))
    parser.add_argument("--mnist", type=Path, help=".npz with X_train and X_test")
    parser.add_argument("--repeats", type=int, default=3, help="rounds, of which the median counts")
    parser.add_argument("--jobs", type=int, nargs="+", default=[2], help="n_jobs of skae's")
    parser.add_argument("--peer-jobs", type=int, default=2, help="n_jobs of scikit-learn's")
    parser.add_argument("--device", default="cpu", help="of the networks")
    parser.add_argument("--rows", type=int, help="only the first rows of each data set")
    parser.add_argument("--epochs", type=int, help="in place of those of each case")
    args = parser.parse_args()
    for case in args.cases:
        if case not in CASES:
            parser.error(f"case {case!r} is none of {', '.join(CASES)}")
    os.environ["PYTHONWARNINGS"] = "ignore"  # for the workers, too
    warnings.simplefilter("ignore")
    print(describe_machine("torch", "skorch", "joblib"))
    for case in args.cases:
        if case == "starts":
            starts(args)
        elif case != "linear" or args.mnist is not None:
            for search in SEARCHES[case](args):
                compare(search, args)


if __name__ == "__main__":
    main()
