"""An epoch of one network in one process and in several, which torchrun starts.

    python benchmarks/several_processes.py --mnist mnist.npz
    python benchmarks/several_processes.py --mnist mnist.npz --processes 1 2 4 --device cuda

A VAE 784-400-400-20 is trained on the rows of MNIST. Each process has one thread on a CPU. Beside
the seconds of an epoch (the median of all but the first), the largest difference of a weight from
the training in one process is printed, after the same number of epochs.

Measured figures: docs/benchmarks.md.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from _common import describe_machine, load_mnist


def fit(options: argparse.Namespace) -> None:
    """Train in this process, and write what the first rank measures."""
    import torch

    from skae import VAE

    torch.set_num_threads(options.threads)
    X = load_mnist(options.mnist)[0].astype(np.float32)
    vae = VAE(
        20,
        hidden_layer_sizes=(400, 400),
        max_iter=options.epochs,
        batch_size=options.batch_size,
        device=options.device,
        precision="float32",
        distributed=True,
        random_state=0,
    ).fit(X)
    if os.environ.get("RANK", "0") == "0":
        state = vae.net_.module_.state_dict()
        weights = {name: values.cpu().numpy() for name, values in state.items()}
        np.savez(options.out, seconds=[epoch["dur"] for epoch in vae.history_], **weights)


def run(options: argparse.Namespace, n: int, threads: int, batch_size: int, out: Path) -> dict:
    """Train by n processes; returns what the first one wrote."""
    start = [sys.executable, "-W", "ignore"]
    if n > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n}"]
    more = ["--fit", "--out", str(out), "--threads", str(threads), "--device", options.device]
    more += ["--mnist", str(options.mnist)] if options.mnist else []
    more += ["--batch-size", str(batch_size), "--epochs", str(options.epochs)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    subprocess.run([*start, __file__, *more], check=True, env=environment)
    return dict(np.load(out))


def main() -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", type=Path)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[128, 1024, 8192])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--fit", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--batch-size", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fit:
        fit(options)
        return
    print(describe_machine("torch"))
    print("| batch_size | processes x threads | s per epoch | largest difference of a weight |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for batch_size in options.batch_sizes:
            kinds = [(n, 1) for n in options.processes]
            kinds += [(1, max(options.processes))] if options.device == "cpu" else []
            one: dict = {}
            for n, threads in kinds:
                found = run(options, n, threads, batch_size, Path(folder) / "found.npz")
                seconds = float(np.median(found.pop("seconds")[1:]))
                one = one or found
                apart = max(float(np.abs(found[name] - one[name]).max(initial=0)) for name in one)
                print(
                    f"| {batch_size} | {n} x {threads} | {seconds:.2f} | {apart:.1e} |", flush=True
                )


if __name__ == "__main__":
    main()
