"""Settings of the book (`make book`): executed notebooks as they are, formulas as MathML, which browsers draw without a network."""
from latex2mathml.converter import convert

project, author, html_title = "Static for Dynamic", "the S4D companion", "Static for Dynamic"
extensions = ["myst_nb"]
nb_execution_mode = "off"
myst_enable_extensions = ["amsmath", "dollarmath"]
html_theme, html_math_renderer = "furo", "mathml"
html_static_path, html_css_files = ["_static"], ["book.css"]
html_show_sphinx, html_copy_source, html_show_sourcelink = False, False, False
suppress_warnings = ["mystnb.unknown_mime_type"]


def formula(display):
    """A function that writes one formula; Sphinx skips the node that it has written."""
    from docutils.nodes import SkipNode

    def write(self, node):
        self.body.append(f'<div class="math">{convert(node.astext(), display="block")}</div>' if display else convert(node.astext()))
        raise SkipNode
    return write


def setup(app):
    app.add_html_math_renderer("mathml", (formula(False), None), (formula(True), None))
