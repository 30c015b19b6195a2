"""FC250, a warning: text that looks like a value of the pipeline, and would be used as it is written."""

import re
from collections.abc import Iterable, Iterator

from flowcraft.core.problems import Problem
from flowcraft.pipeline.expr import Expression
from flowcraft.pipeline.reading.sites import Site

_BRACED = re.compile(r"\$?\{\{?\s*((?:inputs|stages)(?:\.[a-z_]\w*)+)\s*\}\}?")
_BARE = re.compile(r"(?:inputs|stages)(?:\.[a-z_]\w*)+")


def lookalikes(sites: Iterable[Site]) -> Iterator[Problem]:
    """What of the texts is probably meant as a value."""
    told: set[int] = set()
    for site in sites:
        # Stages that name the same prompt file share its template.
        if isinstance(site.item, Expression) or id(site.item) in told:
            continue
        told.add(id(site.item))
        source = site.item.source
        if source.startswith(("inputs.", "stages.")) and _BARE.fullmatch(source.strip()):
            yield _warning(site, source.strip(), 0, source.strip())
        # Searched for only where a plain look has found a brace that is not ours.
        elif "{inputs." in source or "{stages." in source or source.count("{{") != source.count("${{"):
            for match in _BRACED.finditer(source):
                if not match[0].startswith("${{"):
                    yield _warning(site, match[0], match.start(), match[1])


def _warning(site: Site, text: str, offset: int, name: str) -> Problem:
    hint = f"for the value write: ${{{{ {name} }}}}"
    message = f"'{text}' is text here, not a value"
    return site.problem(message, code="FC250", hint=hint, offset=offset, text=text, severity="warning")
