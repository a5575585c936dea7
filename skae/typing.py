"""Types in the signatures of skae, for annotations in code that uses skae."""

from skae._utils.types import (
    Activation,
    ArrayOrFrame,
    ColumnLikelihood,
    CountLikelihood,
    DataFrame,
    ImageShape,
    LayerSizes,
    LearningRate,
    Likelihood,
    NoiseVariance,
    OutActivation,
    Pooling,
    Precision,
    RandomState,
    ScoreKind,
    SizeFactor,
)

__all__ = [
    "Activation",
    "ArrayOrFrame",
    "ColumnLikelihood",
    "CountLikelihood",
    "DataFrame",
    "ImageShape",
    "LayerSizes",
    "LearningRate",
    "Likelihood",
    "NoiseVariance",
    "OutActivation",
    "Pooling",
    "Precision",
    "RandomState",
    "ScoreKind",
    "SizeFactor",
]
