"""Raw values of a pipeline file -> templates, expressions, durations, models; each noted with its place.

What has a wrong shape is left out here: shape.py has told it.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowcraft.core.document import Document, Place
from flowcraft.core.globs import escapes, mistake
from flowcraft.core.problems import did_you_mean
from flowcraft.pipeline.expr import Expression, Script, Template
from flowcraft.pipeline.reading.complaints import Complaints
from flowcraft.pipeline.reading.included import TextFile, Unusable, is_guarded, located, read
from flowcraft.pipeline.reading.sites import Site, Spot

TIERS = ("cheap", "expensive")

_DURATION = re.compile(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,9})s)?", re.ASCII)
_AMOUNT = re.compile(r"\d{1,15}(?:\.\d{1,9})?[kKmM]?", re.ASCII)
_OUTSIDE = "use a path relative to the workspace, without '..'"


@dataclass(frozen=True, slots=True)
class Text:
    """A template and where it came from."""

    template: Template
    path: Place
    file: TextFile | None = None


class Material:
    """Reads the values of one file; `complaints`, `sites` and `named_texts` (text -> file) grow on the way."""

    def __init__(self, document: Document, path: Path, models: Collection[str] | None) -> None:
        self.document = document
        self.path = path
        self.complaints = Complaints(document)
        self.sites: list[Site] = []
        self._models = models
        self._files: dict[str, tuple[Template, TextFile]] = {}
        self.named_texts: dict[str, str] = {}

    def site(self, item: Expression | Template | Script, place: Place, key: str, spot: Spot) -> None:
        """Note a template that is rendered at `spot`; there is nothing to say about one without values."""
        if isinstance(item, Expression) or _says_something(item.source):
            self.sites.append(Site(item, self.document, place, spot, key))

    def text(self, value: Any, place: Place) -> Text | None:
        """A template, from the file itself or from one that it names; to be noted with `placed`."""
        if isinstance(value, str) and value:
            return Text(Template(value), place)
        if not isinstance(value, dict) or not isinstance(value.get("file"), str):
            return None
        path = [*place, "file"]
        found = self._file(value["file"], path)
        return Text(found[0], path, found[1]) if found else None

    def placed(self, text: Text | None, key: str, spot: Spot) -> Template | None:
        """The template of a text, noted where it is used."""
        if text is None:
            return None
        if _says_something(text.template.source):
            self.sites.append(Site(text.template, self.document, text.path, spot, key, text.file))
        return text.template

    def template(self, value: Any, place: Place, key: str, spot: Spot) -> Template:
        """A template from text, a number or a boolean."""
        template = Template(value if isinstance(value, str) else _literal(value))
        self.site(template, place, key, spot)
        return template

    def arguments(self, value: Any, place: Place, spot: Spot) -> Any:
        """Data in which every text is a template."""
        if isinstance(value, str):
            return self.template(value, place, "with", spot)
        if isinstance(value, dict):
            return {name: self.arguments(inner, [*place, name], spot) for name, inner in value.items()}
        if isinstance(value, list):
            return tuple(self.arguments(inner, [*place, number], spot) for number, inner in enumerate(value))
        return value

    def expression(self, value: Any, place: Place, key: str, spot: Spot) -> Expression | None:
        """A bare expression."""
        if isinstance(value, bool):
            value = "true" if value else "false"
        if not isinstance(value, str) or not value:
            return None
        expression = Expression(value)
        self.site(expression, place, key, spot)
        return expression

    def workspace_path(self, value: Any, place: Place, key: str, spot: Spot) -> Template | None:
        """A template of a path in the workspace."""
        if not isinstance(value, str):
            return None
        if "${" not in value:
            self.stays_inside(value, place)
        return self.template(value, place, key, spot)

    def stays_inside(self, path: str, place: Place) -> bool:
        """Complain of a path that leaves the workspace."""
        if escapes(path):
            self.complaints.at(place, f"{path} leaves the workspace", "FC131", _OUTSIDE)
            return False
        return True

    def is_ours(self, path: str, place: Place) -> None:
        """Complain of a path that no answer and no `save` may write."""
        if is_guarded(path):
            hint = "what git and FlowCraft keep is theirs; a run stage may change it"
            self.complaints.at(place, f"{path} may not be written", "FC131", hint)

    def globs(self, value: Any, place: Place) -> tuple[str, ...]:
        """A list of globs in the workspace."""
        listed = value if isinstance(value, list) else []
        kept = [(number, glob) for number, glob in enumerate(listed) if isinstance(glob, str) and glob]
        return tuple(glob for number, glob in kept if self._is_glob(glob, [*place, number]))

    def _is_glob(self, glob: str, place: Place) -> bool:
        if wrong := mistake(glob):
            self.complaints.at(place, f"{glob} {wrong[0]}", "FC131", wrong[1])
            return False
        return self.stays_inside(glob, place)

    def models(self, value: Any, place: Place) -> tuple[Text, ...]:
        """The models of a ladder, each to be noted with `placed`."""
        listed = value if isinstance(value, list) else [value]
        found = []
        for number, name in enumerate(listed):
            where = [*place, number] if isinstance(value, list) else place
            if isinstance(name, str) and name:
                self.known_model(name, where)
                found.append(Text(Template(name), where))
        return tuple(found)

    def known_model(self, name: str, place: Place) -> None:
        """Complain of a model that nobody knows."""
        known = self._models
        fixed = "${" not in name and name not in TIERS and "/" not in name
        if fixed and known is not None and name not in known:
            self.complaints.at(place, f"there is no model '{name}'", "FC129", did_you_mean(name, [*known, *TIERS]))

    def duration(self, value: Any, place: Place, code: str = "FC120") -> float | None:
        """A time in seconds."""
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        match = _DURATION.fullmatch(value) if isinstance(value, str) and value else None
        if match is None:
            return None
        hours, minutes, seconds = (int(part or 0) for part in match.groups())
        found = hours * 3600 + minutes * 60 + seconds
        if not found:
            key = place[-1]
            hint = "leave timeout out for the default" if key == "timeout" else f"leave {key} out, or give it some"
            self.complaints.at(place, f"{value} is no time at all", code, hint)
        return float(found)

    def budget(self, value: Any, place: Place) -> dict[str, Any]:
        """Amounts by unit; `time` in seconds, `tokens` as a number or such as 500k."""
        found = mapping(value)
        made: dict[str, Any] = {}
        usd, tokens = found.get("usd"), found.get("tokens")
        if isinstance(usd, (int, float)) and not isinstance(usd, bool):
            made["usd"] = usd
        if isinstance(tokens, int) or (isinstance(tokens, str) and _AMOUNT.fullmatch(tokens)):
            made["tokens"] = tokens
        time_s = self.duration(found.get("time"), [*place, "time"], "FC125")
        return made if time_s is None else {**made, "time": time_s}

    def params(self, value: Any) -> dict[str, Any]:
        """The parameters of a call."""
        return {name.removeprefix("x-"): inner for name, inner in mapping(value).items()}

    def _file(self, name: str, place: Place) -> tuple[Template, TextFile] | None:
        if name not in self._files:
            try:
                file = read(located(self.path.parent, name), name)
            except Unusable as error:
                self.complaints.at(place, str(error), error.code, error.hint)
                return None
            self._files[name] = Template(file.text), file
            self.named_texts[file.text] = file.file
        return self._files[name]


def mapping(value: Any) -> dict[str, Any]:
    """The value if it is a map, else an empty one."""
    return value if isinstance(value, dict) else {}


def string(value: Any) -> str:
    """The value if it is text, else an empty one."""
    return value if isinstance(value, str) else ""


def whole(value: Any) -> int | None:
    """The value if it is a whole number."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _literal(value: Any) -> str:
    """A number or boolean as a template that keeps its type."""
    if isinstance(value, bool):
        return f"${{{{ {str(value).lower()} }}}}"
    return f"${{{{ {value} }}}}" if isinstance(value, (int, float)) else ""


def _says_something(source: str) -> bool:
    """Whether there are values in a text, or what may be meant as one."""
    return "${" in source or "inputs." in source or "stages." in source
