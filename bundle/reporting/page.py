"""Parts that all pages share: templates with the functions that format numbers and names, and embedded pictures."""

import base64
from inspect import getmembers, isfunction

import jinja2

from bundle.reporting import places, verdicts, words

FUNCTIONS = {
    name: function for module in (words, verdicts, places) for name, function in getmembers(module, isfunction)
}


def load_template(file: str) -> jinja2.Template:
    """A page's template, with the functions of `words` and `verdicts`."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bundle.reporting", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals.update(FUNCTIONS)
    return environment.get_template(file)


def embed_png(content: bytes) -> str:
    """A PNG as a data URI, so that the page needs no other file."""
    return "data:image/png;base64," + base64.b64encode(content).decode()
