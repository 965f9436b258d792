"""Pages as HTML documents that need nothing else: data, scripts, styles and plotly itself are inside."""

import base64
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from tuning.analysis.results import choice_text
from tuning.dashboard.style import templates

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Content:
    """What a page shows.

    Attributes:
        facts: the variables of its template.
        data: what the script draws, by kind: `sweep`, `several`; empty for a page without charts.
    """

    facts: Mapping[str, Any]
    data: Mapping[str, Any]


class Page:
    """A page of certain records; its content is made when it is asked for.

    Args:
        template: whose blocks are the page's parts.
        records: all that it is made of, but for pictures.
        watching: it polls its server for newer versions.
    """

    def __init__(self, template: str, records: bytes, watching: bool, make: Callable[[], Content]) -> None:
        self.template, self.watching, self._make = template, watching, make
        self.version = hashlib.sha256(records).hexdigest()[:16]

    @cached_property
    def content(self) -> Content:
        """Raises: UserError when storage fails."""
        return self._make()

    @cached_property
    def document(self) -> str:
        """JSON: what the script needs to draw the page, or to bring an older one up to date. Raises: UserError."""
        template = _environment().get_template(self.template)
        context = template.new_context(dict(self.content.facts))
        found = {
            "version": self.version,
            "watching": self.watching,
            "parts": {name: "".join(block(context)) for name, block in template.blocks.items()},
            "templates": templates(),
            **self.content.data,
        }
        # Safe inside a script element, whatever strings it contains.
        return json.dumps(_known(found), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")

    def html(self) -> str:
        """Raises: UserError."""
        facts = self.content.facts
        return _environment().get_template("page.html").render(
            title=facts["title"],
            content=_environment().get_template(self.template).render(facts),
            data=self.document,
            css=(HERE / "page.css").read_text(),
            modules=json.dumps({"imports": modules()}),
            plotly=get_plotlyjs() if self.content.data else "",
        )  # fmt: skip


def _known(value: Any) -> Any:
    """JSON has no numbers that are none, or infinite."""
    if isinstance(value, Mapping):
        return {name: _known(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_known(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@cache
def modules() -> dict[str, str]:
    """`page/NAME` -> the script of that name as an address, from which the others import it."""
    files = sorted((HERE / "script").glob("*.js"))
    return {
        f"page/{file.stem}": f"data:text/javascript;base64,{base64.b64encode(file.read_bytes()).decode()}"
        for file in files
    }


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["value"] = choice_text
    return environment
