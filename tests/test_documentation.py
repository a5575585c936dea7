"""The documentation is whole: every public name, every page, every link, every example."""

import ast
import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

import skae

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    page
    for page in DOCS.rglob("*.md")
    if not {"_build", "gallery", "generated"} & set(page.relative_to(DOCS).parts)
)
EXAMPLES = sorted((ROOT / "examples").glob("plot_*.py"))
PUBLIC_MODULES = ["skae", *(f"skae.{name}" for name in skae._MODULES)]


def public_names(module_name):
    """Names that a module offers: its __all__, or what it defines without an underscore."""
    module = import_module(module_name)
    return getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module_name
    ]


def names_in_reference():
    """(module, name) of every entry of an autosummary or of data in docs/reference/."""
    entries = []
    for page in (DOCS / "reference").glob("*.md"):
        module, listing = None, False
        for line in page.read_text().splitlines():
            if line.startswith(".. currentmodule::"):
                module = line.split()[-1]
            elif line.startswith(".. autosummary::"):
                listing = True
            elif line.startswith("```"):
                listing = False
            elif line.startswith(".. py:data:: "):
                entries.append((module, line.split()[-1]))
            elif listing and re.fullmatch(r" +\w+", line):
                entries.append((module, line.strip()))
    return entries


def public_methods():
    """Public methods and properties of every public class, by a label."""
    methods = {}
    for module_name in PUBLIC_MODULES:
        for name in public_names(module_name):
            value = getattr(import_module(module_name), name)
            if inspect.isclass(value):
                for attribute, method in inspect.getmembers_static(value):
                    is_method = inspect.isroutine(method) or isinstance(method, property)
                    if is_method and not attribute.startswith("_"):
                        methods[f"{name}.{attribute}"] = getattr(value, attribute)
    return methods


def prose(text):
    """A page without its blocks of code, in which nothing is a link or a heading."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def anchor(heading):
    """The anchor that a heading gets, as on GitHub and by MyST."""
    plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def headings(page):
    return re.findall(r"^#+ (.*)$", prose(page.read_text()), flags=re.MULTILINE)


def relative_links(page):
    """Targets of the links of a page that lead to files of this repository."""
    links = re.findall(r"\[[^]]*\]\(([^)\s]+)\)", prose(page.read_text()))
    return [link for link in links if not re.match(r"[a-z]+:", link)]


def why_broken(page, link):
    """What is wrong with a relative link, or None."""
    name, _, fragment = link.partition("#")
    target = (page.parent / name).resolve() if name else page
    if target.parent.name == "gallery":  # built by Sphinx from the examples
        example = re.fullmatch(r"(plot_\w+|index)\.rst", target.name)
        if example is None:
            return "no page of the gallery has such a name"
        script = ROOT / "examples" / f"{example[1]}.py"
        return None if example[1] == "index" or script.exists() else f"no file {script.name}"
    if target.parent.parent.name == "gallery":
        picture = re.fullmatch(r"sphx_glr_(plot_\w+)_\d{3}\.png", target.name)
        exists = picture and (ROOT / "examples" / f"{picture[1]}.py").exists()
        return None if exists else "no example draws it"
    if not target.exists():
        return "no such file"
    if fragment and fragment not in {anchor(heading) for heading in headings(target)}:
        return f"no such heading; there are {sorted(map(anchor, headings(target)))}"
    return None


@pytest.mark.parametrize("module_name", PUBLIC_MODULES)
def test_every_public_name_is_in_the_reference(module_name):
    module = import_module(module_name)
    # A class may be imported from two modules, and stands in the reference once.
    listed = [
        getattr(import_module(home), name)
        for home, name in names_in_reference()
        if name in public_names(module_name)
    ]
    missing = [
        name
        for name in public_names(module_name)
        if not any(getattr(module, name) is value for value in listed)
    ]
    assert not missing, f"add to a page of docs/reference/: {missing}"


def test_every_name_in_the_reference_exists():
    unknown = [
        f"{home}.{name}"
        for home, name in names_in_reference()
        if home not in PUBLIC_MODULES or name not in public_names(home)
    ]
    assert not unknown


def test_no_name_is_in_the_reference_twice():
    names = names_in_reference()
    assert len(names) > 20
    assert len(set(names)) == len(names)


def test_every_public_method_has_a_docstring():
    methods = public_methods()
    assert {"VAE.posterior", "VAE.fit", "PPCA.get_params", "VAE.history_"} <= set(methods)
    without = [label for label, method in methods.items() if not inspect.getdoc(method)]
    assert not without


def test_names_that_end_with_an_underscore_are_quoted():
    """Outside of backticks Sphinx would read them as links, and find no target."""
    unquoted = {}
    for name, method in public_methods().items():
        text = re.sub(r"``.*?``|`[^`]*`", "", inspect.getdoc(method) or "", flags=re.DOTALL)
        text = re.sub(r"^(>>>|\.\.\.|[\w, ]+ : ).*", "", text, flags=re.MULTILINE)
        if found := re.findall(r"\w+_(?![\w({])", text):
            unquoted[name] = found
    assert not unquoted


def test_every_page_is_in_a_toctree():
    listed = set()
    for page in PAGES:
        for block in re.findall(
            r"^```\{toctree\}\n(.*?)^```$", page.read_text(), flags=re.DOTALL | re.MULTILINE
        ):
            entries = [line for line in block.splitlines() if line and not line.startswith(":")]
            names = [re.sub(r".*<(.*)>", r"\1", entry) for entry in entries]
            listed |= {(page.parent / f"{name}.md").resolve() for name in names}
    pages = {page.resolve() for page in PAGES}
    lost = pages - listed - {(DOCS / "index.md").resolve()}
    assert not lost, "no toctree lists these pages"
    unwritten = listed - pages - {(DOCS / "gallery" / "index.md").resolve()}
    assert not unwritten, "toctrees list these pages, which do not exist"


@pytest.mark.parametrize(
    "page",
    [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")), *PAGES],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_relative_links_lead_somewhere(page):
    broken = {link: why_broken(page, link) for link in relative_links(page)}
    assert not {link: why for link, why in broken.items() if why}


def strings(path):
    """All strings of a module, as Python joins them."""
    tree = ast.parse(path.read_text())
    return [
        " ".join(node.value.split())
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def test_pages_that_docstrings_and_messages_mention_exist():
    sections = {}
    for page in PAGES:
        title, *rest = headings(page) or [None]
        sections.setdefault(title, set()).update(rest)
    wrong = []
    for path in [*(ROOT / "skae").rglob("*.py"), *EXAMPLES]:
        for text in strings(path):
            files = re.findall(r"\bdocs/[\w/.]+\.md", text)
            wrong += [f"{path.name}: {name}" for name in files if not (ROOT / name).exists()]
            mentions = re.findall(
                r'page "([^"]+)" of the documentation(?:, section "([^"]+)")?', text
            )
            wrong += [
                f"{path.name}: {title}, {section}"
                for title, section in mentions
                if section not in sections.get(title, ())
                and not (title in sections and not section)
            ]
    assert not wrong, "these pages or sections do not exist"


def test_every_example_has_its_place_in_the_gallery():
    options = ast.parse((DOCS / "gallery_options.py").read_text())
    order = next(
        ast.literal_eval(node.value)
        for node in options.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "ORDER"
    )
    assert sorted(order) == [example.name for example in EXAMPLES]
