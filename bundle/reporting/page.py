"""Parts that all pages share: templates, which know how numbers and names are written, and pictures in the page."""

import base64

import jinja2

from bundle.reporting.verdicts import ends, gap, percent, score, value
from bundle.reporting.words import amount, between, change, count, listed, name, p_value, share, share3, sign, signed

NUMBERS = (amount, between, change, count, p_value, share, share3, signed, ends, gap, percent, value)
NAMES = (listed, name, score, sign)


def template(file: str) -> jinja2.Template:
    """A page to be filled, which knows how numbers and names are written."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bundle.reporting", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals.update({write.__name__: write for write in (*NUMBERS, *NAMES)})
    return environment.get_template(file)


def embed_png(content: bytes) -> str:
    """A PNG as a data URI, so that the page needs no other file."""
    return "data:image/png;base64," + base64.b64encode(content).decode()
