"""The optional packages that ONNX graphs need."""

from importlib import import_module
from typing import Any


def package(name: str) -> Any:
    """Import a package of the extra `onnx`; raise an ImportError that names the pip command."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        missing = (error.name or name).partition(".")[0]
        raise ImportError(
            f'Export to ONNX needs the package {missing}: pip install "skae[onnx]".', name=missing
        ) from error
