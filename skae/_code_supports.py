"""Old location of `Support`, for models saved by earlier versions."""

from skae._densities.code_supports import Support as Support
