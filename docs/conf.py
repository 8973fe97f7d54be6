"""How Sphinx makes the site of `make docs`: the repository's Markdown as it stands, and the API from the docstrings.

The source folder is the repository, so that links between its pages mean the same there and on the site.
"""

from sphinx.ext.napoleon import Config, GoogleDocstring

from vidnoise import __version__

project = author = "vidnoise"
version = release = __version__
project_copyright = "vidnoise contributors"

extensions = ["myst_parser", "sphinx.ext.autodoc"]
include_patterns = ["*.md", "*/README.md", "docs/*.md", "benchmarks/*.md"]
exclude_patterns = [".*"]
root_doc = "README"

# The pages in the order of the sidebar. The README needs no list of them where it is read in the repository.
CONTENTS = """

```{toctree}
:hidden:
:caption: Guide
docs/INSTALL
docs/TUTORIAL
docs/RECIPES
docs/FAQ
docs/GALLERY
docs/USAGE
docs/LOOKING
docs/STRENGTH
docs/BATCH
docs/CLUSTER
docs/PICTURES
docs/CONFIGURATION
docs/STREAMS
docs/EDITORS
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
:caption: For
docs/FOOTAGE
docs/CAMERAS
docs/ENCODING
docs/VISION
```

```{toctree}
:hidden:
:caption: Python
examples/README
docs/API
docs/SERVER
docs/TRAINING
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
smartquotes = False  # quotes in the texts of options are those of Python strings
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "undoc-members": True}
python_maximum_signature_line_length = 100

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

    # Sections of docstrings are Google's. "Returns" stays as it stands, and attributes are not named to napoleon: in
    # both it would take what comes before a colon for a type.
    sections = Config(napoleon_custom_sections=["Returns"])

    def read_sections(app, what, name, obj, options, lines):
        lines[:] = GoogleDocstring(lines, sections).lines()

    app.connect("source-read", complete)
    app.connect("autodoc-process-docstring", read_sections)
