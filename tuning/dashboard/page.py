"""Pages as HTML documents that need nothing else: data, scripts, styles and plotly itself are inside."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from plotly.offline import get_plotlyjs
from pydantic_core import to_json

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Page:
    template: str
    """Its blocks are the page's parts."""
    facts: Mapping[str, Any]
    """The variables of the template."""
    data: Mapping[str, Any]
    """What the script draws, by kind: `sweep`, `several`; empty for a page without charts."""
    version: str
    """Of the records."""
    watching: bool
    """It polls its server for newer versions."""

    @cached_property
    def document(self) -> str:
        """JSON: what the script needs to draw the page, or to bring an older one up to date."""
        template = _environment().get_template(self.template)
        context = template.new_context(dict(self.facts))
        parts = {name: "".join(block(context)) for name, block in template.blocks.items()}
        found = {"version": self.version, "watching": self.watching, "parts": parts, **self.data}
        # JSON has no non-finite numbers. Escaped it is safe inside a script element, whatever strings it contains.
        return to_json(found, inf_nan_mode="null").decode().replace("<", "\\u003c")

    def html(self) -> str:
        return _environment().get_template("page.html").render(
            title=self.facts["title"],
            content=_environment().get_template(self.template).render(self.facts),
            data=self.document,
            css=(HERE / "page.css").read_text("utf-8"),
            modules=json.dumps({"imports": modules()}),
            plotly=get_plotlyjs() if self.data else "",
        )  # fmt: skip


@cache
def modules() -> dict[str, str]:
    """`page/NAME` -> the script of that name as an address, from which the others import it."""
    return {
        f"page/{file.stem}": f"data:text/javascript;base64,{base64.b64encode(file.read_bytes()).decode()}"
        for file in sorted((HERE / "script").glob("*.js"))
    }


@cache
def _environment() -> Environment:
    found = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # Parts of pages are also rendered alone, without the imports at the top of a template.
    macros = found.get_template("macros.html").module
    found.globals |= {name: getattr(macros, name) for name in ("scrolled", "table", "terms", "card")}
    return found
