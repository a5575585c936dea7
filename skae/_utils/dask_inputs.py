"""Recognise input that is a collection of Dask, without importing Dask."""

import sys
from typing import Any


def is_dask_array(values: Any) -> bool:
    """Whether values are an array of Dask."""
    module = sys.modules.get("dask.array")
    return module is not None and isinstance(values, module.Array)


def is_dask_frame(values: Any) -> bool:
    """Whether values are a data frame or a series of Dask."""
    module = sys.modules.get("dask.dataframe")
    return module is not None and isinstance(values, (module.DataFrame, module.Series))


def is_dask(values: Any) -> bool:
    """Whether values are an array, a data frame or a series of Dask."""
    return is_dask_array(values) or is_dask_frame(values)


def in_memory(values: Any) -> Any:
    """Compute a collection of Dask; other values stay as they are."""
    return values.compute() if is_dask(values) else values
