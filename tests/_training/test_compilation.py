"""Compiled losses. CUDA graphs are imitated: each call writes to the memory of the call before."""

import pytest
import torch

from skae._training import compilation
from skae._training.module import Loss


@pytest.fixture
def calls(monkeypatch):
    """Arguments of torch.compile, whose results are written to the same memory by every call."""
    found = []

    def compile_(loss, **options):
        found.append(options)
        memory = torch.zeros(2)

        def call(batch):
            memory.copy_(torch.stack([loss(batch).terms["a"], loss(batch).logged["b"]]).detach())
            return Loss({"a": memory[0]}, batch, (), {"b": memory[1]})

        return call

    monkeypatch.setattr(torch, "compile", compile_)
    return found


def loss(batch):
    return Loss({"a": batch.sum()}, batch, (), {"b": batch.prod()})


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")
def test_losses_of_small_networks_on_a_gpu_are_kept_after_the_next_step(calls):
    step = compilation.compiled(loss, torch.device("cuda"), 10)
    first = step(torch.tensor([2.0, 3.0]))
    step(torch.tensor([5.0, 7.0]))
    assert calls == [{"dynamic": False, "mode": "reduce-overhead"}]
    assert (float(first.terms["a"]), float(first.logged["b"])) == (5.0, 6.0)


@pytest.mark.parametrize(("device", "products"), [("cpu", 10), ("cuda", 2**40)])
def test_other_losses_are_compiled_without_a_graph(calls, device, products):
    compilation.compiled(loss, torch.device(device), products)
    assert calls == [{"dynamic": False}]
