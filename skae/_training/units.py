"""Units of networks: rows in float32, standardised and clipped."""

from typing import NamedTuple, Self

import torch
from torch import Tensor

# Values beyond these limits are set to them; the first limit is for standardised values, the second
# for others. float32 can represent the squares of both, also after some layers.
FARTHEST, _FARTHEST_RAW = 1e9, 1e18
# Types whose values float32 represents exactly.
SMALL = (torch.uint8, torch.int8, torch.int16, torch.bool, torch.float16, torch.bfloat16)


def in_float32(values: Tensor, *, near: bool = False, copy: bool = False) -> Tensor:
    """Convert values to float32, and clip values whose squares float32 cannot represent.

    With `near`, no value is clipped, because the caller knows that all are small enough.
    """
    if not near and values.dtype in (torch.float32, torch.float64):
        values, copy = values.clamp(-_FARTHEST_RAW, _FARTHEST_RAW), False
    return values.to(torch.float32, copy=copy)


class Affine(NamedTuple):
    """Units of the network: it reads (x - center) / scale.

    `scale` is one value for all columns, or for a table one value for each column. Both are
    float64, because rows may be far from zero.
    """

    center: Tensor
    scale: float | Tensor

    def to(self, device: torch.device) -> Self:
        """Return a copy on a device, in float32 if the device has no float64."""
        wide = torch.float32 if device.type == "mps" else torch.float64
        scale = self.scale.to(device, wide) if isinstance(self.scale, Tensor) else self.scale
        return self._replace(center=self.center.to(device, wide), scale=scale)

    def apply(self, x: Tensor, near: bool = False) -> Tensor:
        """Convert rows of any type to float32 in the units of the network.

        See `in_float32` for `near`.
        """
        if x.dtype not in (torch.float32, torch.float64):
            x = x.float() if x.dtype in SMALL else x.double()
        scale = self.scale.to(x.dtype) if isinstance(self.scale, Tensor) else self.scale
        standardised = (x - self.center.to(x.dtype)).div_(scale)
        if not near:
            standardised.clamp_(-FARTHEST, FARTHEST)
        return standardised.float()

    def are_near(self, low: float, high: float) -> bool:
        """Return whether values in this range need no clipping."""
        ends = torch.tensor([low, high], dtype=torch.float64)
        places = (ends[:, None] - self.center.cpu()) / self.scale
        return bool((places.abs() < FARTHEST).all() and (ends.abs() < _FARTHEST_RAW).all())

    def undo(self, y: Tensor) -> Tensor:
        """Convert rows back to the units of the data, as float64 on the CPU."""
        scale = self.scale.cpu() if isinstance(self.scale, Tensor) else self.scale
        return y.cpu().double() * scale + self.center.cpu()


class Units(NamedTuple):
    """Units of the encoder's input and of the decoder's output; None leaves rows as they are."""

    inputs: Affine | None
    targets: Affine | None
