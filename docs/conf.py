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


def lead_home(app, env, node, content):
    """Let a public name, such as `kdlit.SoftLabels`, lead to where it is documented."""
    name = node.get("reftarget", "").removeprefix("kdlit.")
    home = kdlit._HOME_OF.get(name)
    if node.get("refdomain") != "py" or home is None:
        return None
    return env.get_domain("py").resolve_xref(
        env, node["refdoc"], app.builder, node["reftype"], f"{home}.{name}", node, content
    )


def setup(app):
    """Connect it."""
    app.connect("missing-reference", lead_home)
