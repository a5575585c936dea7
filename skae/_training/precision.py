"""The floating-point type in which training computes."""

import platform

import torch

from skae._utils.warning import warn

# Processors of this kind without AVX-512 compute products of bfloat16 by slow general code.
_X86 = ("x86_64", "amd64", "i386", "i686")


def autocast_type(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the type of the products in training, or None for float32.

    "auto" means bfloat16 on GPUs with instructions for it.
    """
    if precision == "auto":
        supported = device.type == "cuda" and torch.cuda.is_bf16_supported(
            including_emulation=False
        )
        return torch.bfloat16 if supported else None
    return torch.bfloat16 if precision == "bfloat16" else None


def warn_of_slow_precision(dtype: torch.dtype | None, device: torch.device) -> None:
    """Warn if products of bfloat16 are slower than those of float32 on this device."""
    if dtype is None or device.type != "cpu" or platform.machine().lower() not in _X86:
        return
    found = torch.backends.cpu.get_cpu_capability()
    if not found.startswith("AVX512"):
        warn(
            "precision='bfloat16' makes training slower on this processor, which lacks "
            f"instructions for it (its capability in torch is {found!r}). Set precision='float32'."
        )
