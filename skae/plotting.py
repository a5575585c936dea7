"""Displays of fitted models, in scikit-learn's convention.

``XDisplay.from_estimator(estimator, X)`` computes what is drawn, and draws it; ``display.plot``
draws it again; ``display.figure_`` and ``display.ax_`` are matplotlib's. The estimator may be a
model, a Pipeline that contains one, or a fitted search. matplotlib is the extra ``skae[plots]``.
"""

from skae._plotting.reconstruction import ReconstructionDisplay

__all__ = ["ReconstructionDisplay"]
