"""Where files of earlier versions look for `CodeUnits`."""

from skae._densities.code_units import CodeUnits as CodeUnits
