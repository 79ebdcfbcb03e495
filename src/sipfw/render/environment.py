"""The one Jinja environment. Templates print finished lines; they never decide policy."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined, TemplateError

from sipfw.errors import SipfwError
from sipfw.resources import shipped_folder

if TYPE_CHECKING:
    from pathlib import Path


def render_template(name: str, template_dir: Path | None = None, **values: object) -> str:
    """Print one template; a file of the same name in `template_dir` wins over the shipped one.

    A template for HTML escapes every value. Raises SipfwError when an operator's own template is
    broken.
    """
    environment = _environment(template_dir, html=name.endswith(".html.j2"))
    try:
        return environment.get_template(name).render(**values)
    except (TemplateError, ArithmeticError, TypeError, ValueError, LookupError) as error:
        # The shipped templates raise none of these; an operator's own may raise any.
        line = getattr(error, "lineno", None)
        place = f"{name}:{line}" if line else name
        raise SipfwError(f"{place}: the template is broken: {error}") from error


def template_source(name: str, template_dir: Path | None = None) -> str:
    """Return a file among the templates as it is, with nothing to be filled in.

    Raises SipfwError when an operator's own file is no UTF-8 text.
    """
    environment = _environment(template_dir, html=False)
    loader = environment.loader
    if loader is None:
        raise AssertionError("the environment is made with a loader")
    try:
        return loader.get_source(environment, name)[0]
    except (TemplateError, ValueError) as error:
        raise SipfwError(f"{name}: the template is broken: {error}") from error


@cache
def _environment(template_dir: Path | None, *, html: bool) -> Environment:
    folders = ([template_dir] if template_dir else []) + [shipped_folder("templates")]
    return Environment(
        loader=ChoiceLoader([FileSystemLoader(folder) for folder in folders]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        # Other output is shell and iptables text, whose values are constrained in policy/types.py;
        # HTML escaping would corrupt it.
        autoescape=html,  # noqa: S701 - off only where there is no HTML
        finalize=_visible if html else None,
    )


def _visible(value: object) -> object:
    """Replace what cannot be seen: a control character, or one that turns the writing around."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return "".join(
        c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in value
    )
