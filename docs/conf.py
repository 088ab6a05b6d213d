"""Sphinx settings. `make docs` builds the site; warnings are errors."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Notebooks import the package from the checkout and run from its root.
os.environ["PYTHONPATH"] = str(HERE.parent)
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import api_docstrings
import generated_pages

import keras_agegender

project = "keras-agegender"
author = "The keras-agegender contributors"
copyright = author  # noqa: A001  (Sphinx's name)
version = release = keras_agegender.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build", "README.md"]
nitpicky = True
# Types of other packages; the site is built without a network.
nitpick_ignore_regex = [
    (r"py:.*", r"(?!keras_agegender).*"),
    # Internal classes in annotations: public names have one dot or two.
    (r"py:.*", r"keras_agegender\.\w+\.\w+\.\w+"),
    (r"py:.*", r"keras_agegender\.(files|labels|run_directory)\.\w+"),
]
# Notebooks that did not run have no language to highlight.
suppress_warnings = ["myst-nb.lexer"]

myst_enable_extensions = ["attrs_block", "attrs_inline", "colon_fence", "deflist",
                          "dollarmath", "fieldlist", "substitution"]  # fmt: skip
myst_heading_anchors = 3
myst_substitutions = {"version": version}

# Tutorials are notebooks in Markdown. They run when the site is built, and their
# outputs are cached until their code changes.
nb_execution_mode = os.environ.get("DOCS_NOTEBOOKS", "cache")
nb_execution_cache_path = str(HERE / "_build" / "notebooks")
nb_execution_in_temp = True
nb_execution_timeout = 900
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
nb_output_stderr = "remove"
nb_kernel_rgx_aliases = {".*": "python3"}

autodoc_inherit_docstrings = False
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True}
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_custom_sections = [("Yields", "returns_style")]
add_module_names = True
python_maximum_signature_line_length = 88
maximum_signature_line_length = 88

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_title = f"keras-agegender {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {"sidebar_hide_name": False, "navigation_with_keys": True}
pygments_style = "friendly"
pygments_dark_style = "native"


def setup(app):
    """Writes the pages that come from code and data, then hooks into autodoc."""
    generated_pages.write_all(HERE)
    api_docstrings.setup(app)
