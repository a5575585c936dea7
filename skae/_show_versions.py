"""Versions and hardware, as a report of a problem needs them."""

import platform
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from threadpoolctl import threadpool_info

from skae import __version__

# Packages that skae needs, and those that it can use.
_NEEDED = (
    "numpy",
    "scipy",
    "scikit-learn",
    "torch",
    "skorch",
    "filelock",
    "narwhals",
    "tqdm",
    "threadpoolctl",
    "joblib",
)
_OPTIONAL = (
    "matplotlib",
    "scikit-image",
    "pandas",
    "polars",
    "pyarrow",
    "skops",
    "numba",
    "zuko",
    "dask",
    "distributed",
    "astropy",
    "h5py",
    "ptufile",
    "tifffile",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "skl2onnx",
)


def show_versions() -> None:
    """Print the versions of skae and other packages, and what torch and NumPy compute on.

    Add the output to a report of a problem. It has the same format as that of
    `sklearn.show_versions`. Packages that are not installed are shown as None. The function loads
    torch, which takes a few seconds, and lists its threads and devices. The last part lists the
    pools of threads that are loaded, as threadpoolctl finds them.

    See Also
    --------
    sklearn.show_versions : The same for scikit-learn alone.

    Examples
    --------
    >>> from skae import show_versions
    >>> show_versions()  # doctest: +ELLIPSIS
    <BLANKLINE>
    System:
        python: ...
    """
    parts: dict[str, list[tuple[str, Any]]] = {
        "System": [
            ("python", " ".join(sys.version.split())),
            ("executable", sys.executable),
            ("machine", platform.platform()),
        ],
        "Python dependencies": [
            ("skae", __version__),
            *((name, _installed(name)) for name in _NEEDED),
        ],
        "Optional dependencies": [(name, _installed(name)) for name in _OPTIONAL],
        "torch": _of_torch(),
    }
    for title, lines in parts.items():
        print(f"\n{title}:")
        _print_aligned(lines)
    print("\nthreadpoolctl info:")
    for number, pool in enumerate(threadpool_info()):
        if number:
            print()
        _print_aligned(list(pool.items()))


def _installed(name: str) -> str | None:
    """The version of an installed distribution; None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _of_torch() -> list[tuple[str, Any]]:
    """Threads and devices of torch; the reason if it cannot be imported."""
    try:
        torch = import_module("torch")
    except ImportError as error:
        return [("not available", error)]
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    n_devices = torch.cuda.device_count() if cuda else 0
    return [
        ("threads", torch.get_num_threads()),
        ("interop threads", torch.get_num_interop_threads()),
        ("built for CUDA", torch.version.cuda),
        ("CUDA available", cuda),
        *((f"cuda:{i}", torch.cuda.get_device_name(i)) for i in range(n_devices)),
        ("MPS available", mps),
    ]


def _print_aligned(lines: list[tuple[str, Any]]) -> None:
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        print(f"{name:>{width + 4}}: {value}")
