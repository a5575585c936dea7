"""Training in several processes: torchrun starts them, and one process is the truth."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ranked_fits import SMALL, X, cases, fitted, learned

from skae import VAE, Autoencoder
from skae._training.ranks import Ranks

SCRIPT = Path(__file__).with_name("ranked_fits.py")
# Line searches enlarge differences of rounding in the weights, but not in the loss.
ONLY_LOSSES = {"lbfgs": 1e-4}


def torchrun(group, folder, n_ranks):
    """Run a group of fits, and return what the processes print."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={n_ranks}", str(SCRIPT), group, str(folder)]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr[-5000:]
    return done.stdout + done.stderr


def test_two_processes_train_the_model_of_one(tmp_path):
    torchrun("equal", tmp_path, 2)
    first, second = (dict(np.load(tmp_path / f"equal{rank}.npz")) for rank in range(2))
    for name, case in cases().items():
        for part, truth in learned(fitted(case)).items():
            found = first[f"{name}/{part}"]
            np.testing.assert_array_equal(found, second[f"{name}/{part}"], err_msg=name)
            if name not in ONLY_LOSSES or part == "losses":
                tolerance = ONLY_LOSSES.get(name, 1e-5)
                np.testing.assert_allclose(
                    found, truth, rtol=tolerance, atol=tolerance, err_msg=f"{name}, {part}"
                )


def test_batches_may_have_fewer_rows_than_processes(tmp_path):
    torchrun("few", tmp_path, 3)
    first, *others = (dict(np.load(tmp_path / f"few{rank}.npz")) for rank in range(3))
    for name in {key.split("/")[0] for key in first}:
        model, rows, more = cases()[name]
        cut = {key: value[:9] for key, value in more.items()}
        one = learned(model.set_params(batch_size=7).fit(rows[:9], **cut))
        for part, truth in one.items():
            for other in others:
                np.testing.assert_array_equal(first[f"{name}/{part}"], other[f"{name}/{part}"])
            np.testing.assert_allclose(first[f"{name}/{part}"], truth, rtol=1e-4, atol=1e-5)


def test_ranks_agree(tmp_path):
    printed = torchrun("together", tmp_path, 2)
    first, second = (
        json.loads((tmp_path / f"together{rank}.json").read_text()) for rank in range(2)
    )
    for name in (
        "unseeded",
        "stop",
        "interrupt",
        "dropout",
        "printed",
        "resumed",
        "after the error",
    ):
        assert first[name] == second[name], name
    # One rank ends the training of all; after Ctrl-C, this is at the end of the epoch.
    assert first["stop"][0] == second["stop"][0] == 2
    assert first["interrupt"][0] == second["interrupt"][0] == 2
    # Only the first rank warns, prints and writes files; the other resumes from them.
    assert len(first["interrupt, warnings"]) == 1
    assert second["interrupt, warnings"] == []
    assert printed.count("train_loss ") == 1  # the head of PrintLog's table
    assert printed.count("VAE network: ") == 1
    assert first["files"] > 0
    assert second["files"] is False
    whole = learned(VAE(2, **SMALL | {"max_iter": 4}).fit(X))["weights"]
    np.testing.assert_allclose(first["resumed"], whole, rtol=1e-5, atol=1e-5)
    assert first["parameters"] == second["parameters"]
    assert "n_components was given as 2 and 3" in first["parameters"]
    # What only the first rank does, and its errors, are the same on all.
    assert first["folder"] == second["folder"]
    assert "must be a folder in which files can be written" in first["folder"]
    assert first["drawn"] == second["drawn"]
    assert len(first["own"]) == 1
    # An error of one rank ends the training of all, and the next training is not affected.
    assert "Another process of this training" in first["error"]
    assert second["error"] == "of one rank"
    # Ranks that were given different rows are told so.
    for name, told in (("shards", "shapes [(151, 64), (150, 64)]"), ("values", "different values")):
        assert first[name] == second[name]
        assert "same X, y and sample_weight on every rank" in first[name]
        assert told in first[name]


def test_without_torchrun_a_process_trains_alone():
    given = {"hidden_layer_sizes": (8,), "max_iter": 2, "random_state": 0}
    alone, plain = (VAE(2, distributed=d, **given).fit(X) for d in (True, False))
    np.testing.assert_array_equal(learned(alone)["weights"], learned(plain)["weights"])
    assert not torch.distributed.is_initialized()


def test_worker_processes_of_a_search_are_told(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    values = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("skae._training.ranked_fit.parent_process", lambda: object())
    with pytest.raises(ValueError, match=r"distributed=True was given in a worker process"):
        Autoencoder(2, max_iter=1, distributed=True).fit(X)


def test_each_rank_has_a_gpu_of_its_own(monkeypatch):
    ranks = object.__new__(Ranks)
    ranks.local_rank = 3
    assert [ranks.device_of(name) for name in ("cuda", "cuda:1", "cpu")] == [
        "cuda:3",
        "cuda:1",
        "cpu",
    ]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert ranks.device_of("auto") == "cuda:3"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert ranks.device_of("auto") == "cpu"


def test_wrong_values_of_distributed_are_refused():
    with pytest.raises(ValueError, match="'distributed' parameter of VAE must be"):
        VAE(2, distributed="yes").fit(X)
