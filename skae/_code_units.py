"""Old location of `CodeUnits`, for models saved by earlier versions."""

from skae._densities.code_units import CodeUnits as CodeUnits
