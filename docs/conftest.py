"""Which files of docs/ pytest reads: the pages, and nothing that Sphinx needs or has built."""

import sys

import pytest

collect_ignore = ["conf.py", "gallery_options.py"]
collect_ignore_glob = ["_build/*", "gallery/*", "reference/generated/*"]


@pytest.fixture(autouse=True)
def close_figures():
    """Close the figures of each page: matplotlib warns when more than 20 are open."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
