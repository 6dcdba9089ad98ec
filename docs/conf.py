"""The documentation's settings: python -m sphinx -W docs docs/_build."""

import kdlit

project = "kdlit"
version = release = kdlit.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"kdlit {release}"
exclude_patterns = ["_build"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

# Every reference to a public name of ours must lead somewhere; other projects' names need not.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!kdlit).*"), ("py:class", r"kdlit\..*\._\w+")]
