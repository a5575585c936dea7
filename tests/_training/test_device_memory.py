"""Rows on a GPU, which is imitated."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from filelock import FileLock

from skae._training import device_memory

CUDA = torch.device("cuda")


class Rows:
    """Rows that take a number of bytes, and what copies of them raise."""

    def __init__(self, nbytes, error=None):
        self.nbytes, self.error = nbytes, error

    def to(self, device):
        if self.error:
            raise self.error
        return f"on {device}"


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """A GPU with 100 free bytes."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="gpu-0")
    )
    monkeypatch.setattr(device_memory.tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path / "skae-gpu-0.lock"


def test_rows_that_fit_are_copied(gpu):
    assert device_memory.on_device(Rows(50), CUDA) == "on cuda"
    assert device_memory.on_device(Rows(10**6), torch.device("mps")) == "on mps"


@pytest.mark.parametrize(
    "rows", [Rows(51), Rows(50, torch.OutOfMemoryError("CUDA out of memory."))]
)
def test_rows_that_leave_too_little_memory_stay_where_they_are(gpu, rows):
    assert device_memory.on_device(rows, CUDA) is rows


def test_other_errors_are_raised_and_free_the_lock(gpu):
    with pytest.raises(RuntimeError, match="illegal"):
        device_memory.on_device(Rows(1, RuntimeError("illegal memory access")), CUDA)
    with FileLock(gpu, timeout=0):
        pass


def test_processes_take_turns_but_do_not_wait_for_ever(gpu, monkeypatch):
    hold = "import sys, time; from filelock import FileLock; FileLock(sys.argv[1]).acquire()"
    hold += "; print('held', flush=True); time.sleep(60)"
    other = subprocess.Popen(
        [sys.executable, "-c", hold, str(gpu)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "held\n"
        monkeypatch.setattr(device_memory, "_PATIENCE", 0.1)
        assert device_memory.on_device(Rows(50), CUDA) == "on cuda"  # later, but not never
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    monkeypatch.setattr(device_memory, "_PATIENCE", 10.0)
    assert device_memory.on_device(Rows(50), CUDA) == "on cuda"  # a killed process holds no lock
