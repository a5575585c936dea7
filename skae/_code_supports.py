"""Where files of earlier versions look for `Support`."""

from skae._densities.code_supports import Support as Support
