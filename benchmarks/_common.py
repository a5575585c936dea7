"""What the benchmark scripts share: data, alternating timings, peak memory, the machine."""

import gc
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np


def load_mnist(path: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Training and test pixels in [0, 1], float64, from an .npz file or from OpenML."""
    if path is not None:
        with np.load(path) as file:
            train, test = file["X_train"], file["X_test"]
    else:
        from sklearn.datasets import fetch_openml

        pixels = fetch_openml("mnist_784", as_frame=False).data
        train, test = pixels[:60_000], pixels[60_000:]
    return train.reshape(len(train), -1) / 255.0, test.reshape(len(test), -1) / 255.0


def alternate(work: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each piece of work, run in turn so that all share the weather.

    Each round starts with another piece: what runs after something slow finds cold caches.
    """
    seconds: dict[str, list[float]] = {name: [] for name in work}
    order = list(work.items())
    for _ in range(repeats):
        order = order[1:] + order[:1]
        for name, run in order:
            gc.collect()
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(times)) for name, times in seconds.items()}


def peak_extra_memory(run: Callable[[], object]) -> float:
    """MB by which `run` raises the peak of a forked process that already holds the data."""
    parent, child = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_measure, args=(run, child))
    process.start()
    megabytes = parent.recv()
    process.join()
    return megabytes


def _measure(run: Callable[[], object], connection: object) -> None:
    connection.send(added_to_peak(run))  # type: ignore[attr-defined]


def added_to_peak(run: Callable[[], object]) -> float:
    """MB by which `run` raises the peak of this process.

    For what uses threads that a forked process would wait for in vain.
    """
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak until now
    before = _peak()
    run()
    return (_peak() - before) / 1024


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(s for s in status.splitlines() if s.startswith("VmHWM")).split()[1])


def describe_machine(*more: str) -> str:
    """The machine and the versions of the packages that matter, of `more` too."""
    names = ("numpy", "scipy", "scikit-learn", *more)
    packages = ", ".join(f"{name} {version(name)}" for name in names)
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return f"{os.cpu_count()} cores of {model}, Python {platform.python_version()}, {packages}"
