"""Displays of fitted models, in scikit-learn's convention.

``XDisplay.from_estimator(estimator, X)`` computes what is drawn, and draws it; ``display.plot``
draws it again; ``display.figure_`` and ``display.ax_`` are matplotlib's. The estimator may be a
model, a Pipeline that contains one, or a fitted search. matplotlib is the extra ``skae[plots]``.
"""

from skae._plotting.codebook import CodebookDisplay
from skae._plotting.intensity import IntensityDisplay
from skae._plotting.interpolation import InterpolationDisplay
from skae._plotting.latent_size import LatentSizeDisplay
from skae._plotting.latent_space import LatentSpaceDisplay
from skae._plotting.learning_curve import LearningCurveDisplay
from skae._plotting.reconstruction import ReconstructionDisplay
from skae._plotting.samples import SampleDisplay
from skae._plotting.score import ScoreDisplay
from skae._plotting.traversal import TraversalDisplay

__all__ = [
    "CodebookDisplay",
    "IntensityDisplay",
    "InterpolationDisplay",
    "LatentSizeDisplay",
    "LatentSpaceDisplay",
    "LearningCurveDisplay",
    "ReconstructionDisplay",
    "SampleDisplay",
    "ScoreDisplay",
    "TraversalDisplay",
]
