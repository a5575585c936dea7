"""How far zuko's flows and LatentDensityEstimator come on BSDS300 in the same CPU time.

    python benchmarks/bsds300_flows.py --images bsds300.npz --seconds 120

A masked autoregressive flow and a neural spline flow of zuko, with five transformations, each
trained by Adam at a rate that falls to zero as a cosine until the CPU time is spent, in
batches of 512 whitened patches (a flow that has to learn the covariance first falls further
behind); and LatentDensityEstimator with as many rows as it passes in that time, in one epoch.
Printed: nats per patch of held-out images (see bsds300.py for the protocol).

Measured figures: docs/benchmarks.md.
"""

import argparse
import time
from math import cos, pi
from pathlib import Path

import numpy as np
import torch
import zuko
from _common import describe_machine
from bsds300 import model_for, patches


def flows(n: int) -> dict[str, torch.nn.Module]:
    torch.manual_seed(0)
    return {
        "zuko MAF, 5 x (512, 512)": zuko.flows.MAF(n, transforms=5, hidden_features=(512, 512)),
        "zuko NSF, 5 x (256, 256)": zuko.flows.NSF(n, transforms=5, hidden_features=(256, 256)),
    }


def train_flow(flow: torch.nn.Module, rows: torch.Tensor, seconds: float, rate: float) -> int:
    """Epochs' worth of rows that were seen."""
    optimizer = torch.optim.Adam(flow.parameters(), lr=rate)
    start, seen = time.process_time(), 0
    while (spent := (time.process_time() - start) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate * 0.5 * (1 + cos(pi * spent))
        batch = rows[torch.randint(len(rows), (512,))]
        optimizer.zero_grad()
        (-flow().log_prob(batch).mean()).backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 5.0)
        optimizer.step()
        seen += len(batch)
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=120, help="of CPU, for each model")
    parser.add_argument("--rows", type=int, default=100_000, help="that the estimator sees")
    args = parser.parse_args()
    print(describe_machine("torch", "zuko"), vars(args), sep="\n")
    train, valid, _ = patches(args.images)
    valid = valid[:10_000]

    model = model_for(orders=2, epochs=1)
    start = time.process_time()
    model.fit(train[: args.rows])
    spent = time.process_time() - start
    score = model.score(valid)
    print(f"LatentDensityEstimator: {score:.2f} after {spent:.0f} s, {args.rows} rows", flush=True)

    mean = train.mean(axis=0, dtype=np.float64)
    root = np.linalg.cholesky(np.cov(train.T.astype(np.float64)))
    white = np.linalg.inv(root)
    volume = np.log(np.diag(root)).sum()
    rows, held_out = (
        torch.from_numpy(((X - mean) @ white.T).astype(np.float32)) for X in (train, valid)
    )
    for name, flow in flows(train.shape[1]).items():
        seen = train_flow(flow, rows, args.seconds, rate=1e-3)
        with torch.no_grad():
            score = float(flow().log_prob(held_out).double().mean()) - volume
        print(f"{name}: {score:.2f} after {args.seconds:.0f} s, {seen} rows", flush=True)


if __name__ == "__main__":
    main()
