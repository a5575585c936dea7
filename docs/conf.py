"""How Sphinx builds the documentation.

`sphinx-build -W --keep-going docs docs/_build/html` runs every example of the gallery and takes
minutes. With `SKAE_DOCS_PLOT=0` in the environment no example runs, and pictures of the gallery
are missing. Neither needs a network.
"""

import os
import re
import sys
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert

import skae

# Options that are functions must be given as strings, so that Sphinx can compare them with those
# of the last build. The strings name functions of gallery_options.py, in this folder.
sys.path.insert(0, str(Path(__file__).parent))

run_examples = os.environ.get("SKAE_DOCS_PLOT", "1") != "0"

project = "skae"
author = "The skae developers"
copyright = author  # noqa: A001
version = release = skae.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.extlinks",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "_templates", "gallery/*.ipynb"]
templates_path = ["_templates"]
# A reference to a class or method of skae that does not exist is a warning. What other packages
# have is not looked up, because that would need a network.
nitpicky = True
_peers = "matplotlib|numpy|pandas|polars|scipy|sklearn|skorch|torch"
nitpick_ignore_regex = [("py:.*", rf"({_peers})\..*")]
if not run_examples:
    suppress_warnings = ["image.not_readable"]

smartquotes = False  # "relu" is a value to copy

# Pages
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

# Reference. Parameters have their types in the docstrings, so that signatures need none.
default_role = "literal"
autosummary_generate = True
autodoc_default_options = {"no-value": True}
autodoc_typehints = "none"
numpydoc_class_members_toctree = False
numpydoc_show_inherited_class_members = {"skae.metrics.ParzenScore": False}  # those of a tuple
extlinks = {
    "doi": ("https://doi.org/%s", "doi:%s"),
    "arxiv": ("https://arxiv.org/abs/%s", "arXiv:%s"),
}

# Gallery
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "within_subsection_order": "gallery_options.position",
    "plot_gallery": run_examples,
    "parallel": 2,
    # Before each example matplotlib gets its defaults back and warnings become errors.
    "reset_modules": ("matplotlib", "gallery_options.warnings_as_errors"),
    "reset_modules_order": "both",
    # Links from code to the reference, and from the reference to examples
    "reference_url": {"skae": None},
    "doc_module": ("skae",),
    "backreferences_dir": "reference/generated/backreferences",
    "write_computation_times": False,
    "download_all_examples": False,
    "show_signature": False,
}

# Look
html_theme = "pydata_sphinx_theme"
html_title = "skae"
html_static_path = ["_static"]
html_css_files = ["skae.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "header_links_before_dropdown": 6,
    "show_toc_level": 2,
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"index": [], "changelog": [], "benchmarks": []}


def unlink_scikit_learn(app, what, name, obj, options, lines):
    """Makes plain text of references to pages of scikit-learn's documentation.

    Methods inherited from scikit-learn refer to its user guide and its glossary, which are not
    pages of this documentation.
    """
    text = "\n".join(lines)
    text = re.sub(r":(?:ref|term|doc):`([^`<]+?)\s*<[^`]*>`", r"\1", text)
    text = re.sub(r":(?:ref|term|doc):`([^`]+)`", r"\1", text)
    lines[:] = text.split("\n")


def escape_underscores(app, what, name, obj, options, lines):
    """Makes plain text of names such as n_features_in_ in types and sentences without markup.

    reStructuredText reads a word that ends in an underscore as a link.
    """
    for i, line in enumerate(lines):
        if "_" in line and not line.lstrip().startswith((">>>", "...", "..")):
            parts = line.split("`")  # every second part is inside of backticks
            parts[::2] = [re.sub(r"(\w)_(?=$|[\s,.:;()\]])", r"\1\\_", part) for part in parts[::2]]
            lines[i] = "`".join(parts)


def strip_code(app, doctree):
    """Removes the empty line at the end of a block of code, which doctest needs on pages."""
    for block in doctree.findall(nodes.literal_block):
        if block.rawsource == block.astext():
            block.rawsource = block.rawsource.rstrip("\n")
            block[:] = [nodes.Text(block.rawsource)]


def write_math(self, node):
    """Writes a formula as MathML, which browsers show without a script from the network."""
    latex = node.astext().strip()
    if r"\\" in latex and r"\begin" not in latex:  # several lines
        latex = rf"\begin{{aligned}}{latex}\end{{aligned}}"
    display = "block" if isinstance(node, nodes.math_block) else "inline"
    formula = convert(latex, display=display)
    # Spaces around the relation \sim, and after the logarithm in \log p but not in \log(p).
    formula = formula.replace("<mi>&#x0007E;</mi>", "<mo>&#x0223C;</mo>")
    formula = re.sub(
        r"(<mi>(?:log|exp|ln)</mi>)(?=<m(?!o|row))", r'\1<mspace width="0.17em"/>', formula
    )
    self.body.append(formula)
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (write_math, None), (write_math, None))
    app.connect("doctree-read", strip_code)
    # Before and after numpydoc, which connects at the default priority of 500.
    app.connect("autodoc-process-docstring", unlink_scikit_learn, priority=400)
    app.connect("autodoc-process-docstring", escape_underscores, priority=600)
