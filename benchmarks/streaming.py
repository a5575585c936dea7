"""LinearAE.partial_fit beside one fit and scikit-learn's IncrementalPCA.

    python benchmarks/streaming.py

1,000,000 x 100 in batches of 10,000, 32 components: time, what streaming adds to the peak
of memory after a tenth and after all of the batches, and the error of the variances
against one fit.

Measured figures: docs/benchmarks.md.
"""

import numpy as np
from _common import alternate, describe_machine, peak_extra_memory
from sklearn.decomposition import IncrementalPCA

from skae import LinearAE

N_SAMPLES, N_FEATURES, BATCH = 1_000_000, 100, 10_000


def stream(model: object, X: np.ndarray) -> object:
    for start in range(0, len(X), BATCH):
        model.partial_fit(X[start : start + BATCH])  # type: ignore[attr-defined]
    return model


def main() -> None:
    print(describe_machine())
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N_SAMPLES, N_FEATURES)) * np.arange(1, N_FEATURES + 1) ** -0.5 + 0.5
    work = {
        "LinearAE.fit": lambda: LinearAE(32).fit(X),
        "LinearAE.partial_fit": lambda: stream(LinearAE(32), X),
        "IncrementalPCA.partial_fit": lambda: stream(IncrementalPCA(32), X),
    }
    seconds = alternate(work, 3)
    exact = LinearAE(32).fit(X).explained_variance_
    for name, run in work.items():
        error = np.max(np.abs(run().explained_variance_ / exact - 1))  # type: ignore[attr-defined]
        ratio = seconds[name] / seconds["LinearAE.fit"]
        print(f"{name:28s} {seconds[name]:6.2f} s  {ratio:5.2f}  error {error:.1e}")
    for share in (0.1, 1.0):
        part = X[: int(share * N_SAMPLES)]
        extra = peak_extra_memory(lambda part=part: stream(LinearAE(32), part))
        print(f"peak memory of partial_fit over {len(part)} rows: + {extra:.0f} MB")


if __name__ == "__main__":
    main()
