"""Parts that all pages share: templates, which know how numbers and names are written, and pictures in the page."""

import base64

import jinja2

from bundle.reporting import verdicts, words

SAID = (  # how the template writes numbers and names
    words.amount,
    words.between,
    words.change,
    words.count,
    words.listed,
    words.name,
    words.p_value,
    words.share,
    words.share3,
    words.sign,
    words.signed,
    verdicts.ends,
    verdicts.gap,
    verdicts.percent,
    verdicts.score,
    verdicts.value,
)


def template(name: str) -> jinja2.Template:
    """A page to be filled, which knows how numbers and names are written."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bundle.reporting", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals.update({said.__name__: said for said in SAID})
    return environment.get_template(name)


def embed_png(content: bytes) -> str:
    """A PNG as a data URI, so that the page needs no other file."""
    return "data:image/png;base64," + base64.b64encode(content).decode()
