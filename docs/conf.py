"""How Sphinx makes the site of `make docs`: the repository's Markdown as it stands, and the API from the docstrings.

The source folder is the repository, so that links between its pages mean the same there and on the site.
"""

from vidnoise import __version__

project = author = "vidnoise"
version = release = __version__
project_copyright = "vidnoise contributors"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
include_patterns = ["*.md", "*/README.md", "docs/*.md", "benchmarks/*.md"]
exclude_patterns = [".*"]
root_doc = "README"

# The pages in the order of the sidebar. The README needs no list of them where it is read in the repository.
CONTENTS = """

```{toctree}
:hidden:
:caption: Guide
docs/LOOKING
docs/STRENGTH
docs/BATCH
docs/STREAMS
docs/FIDELITY
docs/RELIABILITY
docs/GPU
docs/BACKENDS
docs/COMPLAINTS
models/README
samples/README
```

```{toctree}
:hidden:
:caption: Python
examples/README
docs/API
docs/SERVER
```

```{toctree}
:hidden:
:caption: Project
docs/ARCHITECTURE
docs/GLOSSARY
CONTRIBUTING
CODE_OF_CONDUCT
SECURITY
CHANGELOG
```

```{toctree}
:hidden:
:caption: Measurements
:glob:
benchmarks/README
benchmarks/*
```
"""

myst_heading_anchors = 3
highlight_language = "text"

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say it in words, the signatures in code
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Returns"]  # as it stands: what comes before a colon there is no type

html_theme = "furo"
html_title = f"vidnoise {__version__}"
templates_path = ["templates"]
html_additional_pages = {"index": "to_readme.html"}
html_copy_source = False


def setup(app):
    def complete(app, docname, source):
        if docname == root_doc:
            source[0] += CONTENTS
        elif not source[0].startswith("# "):  # tables of results, which other pages quote
            source[0] = f"# {docname.rpartition('/')[2]}\n\n{source[0]}"

    def keep_colons(app, what, name, obj, options, lines):
        if what in ("attribute", "property"):
            lines.insert(0, "")  # or napoleon takes what comes before a colon in the first line for a type

    app.connect("source-read", complete)
    app.connect("autodoc-process-docstring", keep_colons, priority=400)
