"""The type in which training computes, by parameter, device and processor."""

import platform

import pytest
import torch

from skae import Autoencoder
from skae._training.precision import autocast_type

X = torch.arange(12.0).reshape(6, 2).numpy()


@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16"])
def test_a_cpu_uses_bfloat16_only_if_it_is_asked_to(precision):
    """ "auto" means float32 there."""
    expected = torch.bfloat16 if precision == "bfloat16" else None
    assert autocast_type(precision, torch.device("cpu")) == expected


@pytest.mark.parametrize(
    ("capability", "machine", "precision", "warns"),
    [
        ("AVX2", "x86_64", "bfloat16", True),
        ("DEFAULT", "AMD64", "bfloat16", True),
        ("AVX512", "x86_64", "bfloat16", False),
        ("DEFAULT", "aarch64", "bfloat16", False),
        ("AVX2", "x86_64", "float32", False),
        ("AVX2", "x86_64", "auto", False),
    ],
)
def test_slow_bfloat16_gives_a_warning(monkeypatch, recwarn, capability, machine, precision, warns):
    """It names the processor's capability and the remedy."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    Autoencoder(1, precision=precision, max_iter=1, device="cpu", random_state=0).fit(X)
    found = [str(w.message) for w in recwarn if "precision" in str(w.message)]
    assert len(found) == warns
    assert all(repr(capability) in text and "precision='float32'" in text for text in found)
