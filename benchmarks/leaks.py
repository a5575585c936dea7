"""Do fits leak? Memory, threads, files and objects over 200 fits of every estimator.

    OMP_NUM_THREADS=1 python benchmarks/leaks.py
    OMP_NUM_THREADS=1 python benchmarks/leaks.py --only VAE

Each case runs in a process of its own: 20 fits to warm up, and 200 more. After each fit the
garbage is collected and the resident memory is read. Growth is the median slope of all pairs of
readings (Theil and Sen), times 200, as a share of the memory after the warm-up. Threads (of Python
and of the operating system) and open files must be as many as after the warm-up, and objects of
Python may not become more. The exit status is 1 if a case passes a limit.

The estimators are discovered. Networks have further cases: several starts, early stopping, a
stream, callbacks, an open number of epochs, sparse rows, tables, targets, files, and fits that
fail. The history of a network grows by two objects with every epoch, and is cleared.

Reads /proc, so that it runs on Linux only. Measured figures: docs/benchmarks.md.
"""

import argparse
import gc
import inspect
import json
import pickle
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _common import describe_machine
from scipy.sparse import csr_array
from scipy.stats import theilslopes

import skae

# Allowed growth of the resident memory, and number of objects for each fit.
MOST_GROWTH, MOST_OBJECTS = 0.05, 0.1
Fit = Callable[[], object]

ESTIMATORS = {
    name: value
    for name in skae.__all__
    if inspect.isclass(value := getattr(skae, name)) and hasattr(value, "fit")
}


def rows(n_features: int = 6) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.abs(rng.normal(size=(60, 2)) @ rng.normal(size=(2, n_features)) * 3) + 0.1


def small(name: str, **params: Any) -> Any:
    """An estimator with few codes; a network is small, and trains for two epochs."""
    Estimator = ESTIMATORS[name]
    if "estimator" in inspect.signature(Estimator).parameters:
        part = skae.PPCA(2)
        grid = {"param_grid": {"n_components": [1, 2]}, "param_distributions": {"tol": [1e-4]}}
        given = {k: v for k, v in grid.items() if k in inspect.signature(Estimator).parameters}
        return Estimator(part, **given, **({"n_iter": 1} if "param_distributions" in given else {}))
    model = Estimator(n_components=2)
    brief = {
        "hidden_layer_sizes": (8,),
        "n_channels": 4,
        "n_mixture": 2,
        "prior_channels": 4,
        "prior_max_iter": 2,
        "batch_size": 20,
        "max_iter": 2,
        "random_state": 0,
    }
    known = model.get_params()
    return model.set_params(**{k: v for k, v in brief.items() if k in known}, **params)


# ------------------------------------------------------------------------------- cases


def simply(name: str) -> Fit:
    X = rows()
    return lambda: small(name).fit(X)


def used(name: str) -> Fit:
    """With all that a fitted model computes."""
    X = rows()

    def fit() -> None:
        model = small(name).fit(X)
        if hasattr(model, "inverse_transform"):
            model.inverse_transform(model.transform(X))
        for method in ("score_samples", "predict", "reconstruct"):
            if hasattr(model, method):
                getattr(model, method)(X)
        if hasattr(model, "sample"):
            model.sample(5)

    return fit


def several_starts(name: str) -> Fit:
    X = rows()
    return lambda: small(name, n_init=2).fit(X)


def early_stopping(name: str) -> Fit:
    X = rows()
    return lambda: small(name, early_stopping=True).fit(X)


def stream(name: str) -> Fit:
    """One model that learns from batch after batch."""
    X, model = rows(), small(name)
    return lambda: _forget_history(model.partial_fit(X))


def warm(name: str) -> Fit:
    X, model = rows(), small(name, warm_start=True)
    return lambda: _forget_history(model.fit(X))


def _forget_history(model: Any) -> None:
    for name in ("history_", "prior_history_"):
        if hasattr(model, name):
            del getattr(model, name)[:]


def callbacks(name: str) -> Fit:
    from skorch.callbacks import EarlyStopping, LRScheduler

    X = rows()

    def fit() -> None:
        heard = [
            EarlyStopping(monitor="train_loss", patience=2),
            LRScheduler("StepLR", step_size=1),
        ]
        small(name, callbacks=heard).fit(X)

    return fit


def open_length(name: str) -> Fit:
    X = rows()
    return lambda: small(name, max_iter=None).fit(X)


def sparse(name: str) -> Fit:
    X = csr_array(np.where(rows() > 1, rows(), 0.0))
    return lambda: small(name).fit(X)


def table(name: str) -> Fit:
    import pandas as pd

    X = pd.DataFrame(rows(3), columns=list("abc"))
    X["kind"] = np.where(X["a"] > X["a"].median(), "large", "small")
    return lambda: small(name, likelihood="auto").fit(X).sample(3)


def conditional(name: str) -> Fit:
    X, y = rows(), np.arange(60) % 3
    return lambda: small(name, conditional=True).fit(X, y).score(X, y)


def files(name: str) -> Fit:
    model = small(name).fit(rows())
    return lambda: pickle.loads(pickle.dumps(model))


def failing(name: str) -> Fit:
    """A callback raises amid the second epoch."""
    from skorch.callbacks import Callback

    class Fails(Callback):
        def on_batch_end(self, net: Any, **kwargs: Any) -> None:
            if len(net.history) == 2:
                raise ZeroDivisionError

    X = rows()

    def fit() -> None:
        try:
            small(name, callbacks=[Fails()]).fit(X)
        except ZeroDivisionError:
            pass
        else:
            raise RuntimeError("the fit was to fail")

    return fit


def wrong(name: str) -> Fit:
    """Rows that are refused."""
    X = rows()
    X[3, 2] = np.inf

    def fit() -> None:
        try:
            small(name).fit(X)
        except ValueError:
            pass
        else:
            raise RuntimeError("the fit was to fail")

    return fit


# The cases, with a condition on the parameters and methods of an estimator.
CASES: dict[str, tuple[Callable[[str], Fit], Callable[[set[str]], bool]]] = {
    "fit": (simply, lambda has: True),
    "fit and use": (used, lambda has: True),
    "refused rows": (wrong, lambda has: True),
    "files": (files, lambda has: True),
    "n_init=2": (several_starts, lambda has: "n_init" in has),
    "early_stopping": (early_stopping, lambda has: "early_stopping" in has),
    "partial_fit": (stream, lambda has: "partial_fit" in has),
    "warm_start": (warm, lambda has: "warm_start" in has),
    "callbacks": (callbacks, lambda has: "callbacks" in has),
    "max_iter=None": (open_length, lambda has: "max_iter=None" in has),
    "sparse": (sparse, lambda has: "sparse" in has),
    "table": (table, lambda has: "handle_unknown" in has),
    "conditional": (conditional, lambda has: "conditional" in has),
    "failing callback": (failing, lambda has: "callbacks" in has),
}


def cases_of(name: str) -> list[str]:
    model = small(name)
    has = {*model.get_params(deep=False), *(m for m in dir(model) if m[0] != "_")}
    if model.__sklearn_tags__().input_tags.sparse:
        has.add("sparse")
    if "batch_size" in has and None in type(model)._parameter_constraints["max_iter"]:
        has.add("max_iter=None")
    return [case for case, (_, applies) in CASES.items() if applies(has)]


# -------------------------------------------------------------------------- measurements


def read() -> dict[str, int]:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "memory": pages * 4096,
        "threads": threading.active_count(),
        "tasks": len(list(Path("/proc/self/task").iterdir())),
        "files": len(list(Path("/proc/self/fd").iterdir())),
        "objects": len(gc.get_objects()),
    }


def measure(fit: Fit, n_warm_up: int, n_fits: int) -> dict[str, float]:
    warnings.simplefilter("ignore")
    for _ in range(n_warm_up):
        fit()
    gc.collect()
    gc.freeze()  # what is there is not visited again, which would take longer than a fit
    before, start, seen = read(), time.perf_counter(), []
    for _ in range(n_fits):
        fit()
        seen.append(read())
    seconds = time.perf_counter() - start
    memory, objects = (theilslopes([one[of] for one in seen]).slope for of in ("memory", "objects"))
    after = seen[-1]
    return {
        "growth": memory * n_fits / before["memory"],
        "kB": memory / 1000,
        "objects": objects,
        **{name: after[name] - before[name] for name in ("threads", "tasks", "files")},
        "memory": before["memory"] / 1e6,
        "seconds": seconds / n_fits,
    }


def leaks(found: dict[str, float]) -> list[str]:
    over = [name for name in ("threads", "tasks", "files") if found[name] > 0]
    if found["growth"] > MOST_GROWTH:
        over.append("memory")
    if found["objects"] > MOST_OBJECTS:
        over.append("objects")
    return over


def run_apart(name: str, case: str, options: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", name, case]
    command += ["--fits", str(options.fits), "--warm-up", str(options.warm_up)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name}, {case}: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", nargs="*", default=list(ESTIMATORS), help="names of estimators")
    parser.add_argument("--cases", nargs="*", default=list(CASES), help="names of cases")
    parser.add_argument("--fits", type=int, default=200)
    parser.add_argument("--warm-up", type=int, default=20)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, case = options.measure
        print(json.dumps(measure(CASES[case][0](name), options.warm_up, options.fits)))
        return
    print(describe_machine("torch"))
    print(f"{options.fits} fits after {options.warm_up}; kB and objects for each fit\n")
    print("| estimator | case | MB before | growth | kB | objects | threads | tasks | files | |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    failed = False
    for name in options.only:
        for case in cases_of(name):
            if case not in options.cases:
                continue
            found = run_apart(name, case, options)
            over = leaks(found)
            failed |= bool(over)
            print(
                f"| {name} | {case} | {found['memory']:.0f} | {100 * found['growth']:.2f} % | "
                f"{found['kB']:.2f} | {found['objects']:.2f} | {found['threads']:.0f} | "
                f"{found['tasks']:.0f} | {found['files']:.0f} | {', '.join(over)} |",
                flush=True,
            )
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
