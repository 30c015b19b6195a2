"""What is wrong with a value of a document, by a schema of ours: errors of jsonschema -> problems with places.

Our schemas may say more in `x-flowcraft`:

code, say, hint   for any mistake in this value: its code, what is wanted ("a duration such as 5m"), the help
secret            true: a wrong value is never repeated, nor its line
required          key -> {code, say, hint} for when it is missing
foreign           unknown key -> the key that FlowCraft has for it, or a whole sentence
elsewhere         unknown key -> where it may stand; then the code is FC107
later             unknown keys that a coming version will have
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flowcraft.core.document import Document
from flowcraft.core.judging.pattern import compiled
from flowcraft.core.judging.wording import Words, missing_key
from flowcraft.core.problems import Problem, did_you_mean
from flowcraft.core.reading.syntax import cited

_ANNOTATION = "x-flowcraft"
_SECRET = re.compile(r"(?i)key|token|secret|passw|credential|auth")


class Mistakes:
    """Collects problems of one value in a document."""

    def __init__(self, document: Document, path: Sequence[str | int], where: str) -> None:
        self.problems: list[Problem] = []
        self._document = document
        self._path = path
        self._where = where
        self._words = Words()

    def add(self, error: Any) -> None:
        """Tell an error of jsonschema in words for the writer of the document."""
        note = _note(error)
        place = [*self._path, *error.absolute_path]
        value: Any = error.instance
        if error.validator == "additionalProperties":
            schema: Any = error.schema
            for key in _unknown_keys(value, schema):
                self._unknown(key, [*place, key], schema, note)
        elif error.validator == "required":
            self._missing(error, place, note)
        else:
            self._wrong(error, place, note)

    def _unknown(self, key: str, place: list[str | int], schema: Mapping[str, Any], note: Mapping[str, Any]) -> None:
        inside = self._inside(place[:-1])
        code, message = "FC101", f"unknown key {cited(key)}{inside and f' in {inside}'}"
        if key in note.get("elsewhere", {}):
            code, message = "FC107", f"{cited(key)} cannot be used{inside and f' in {inside}'}"
            hint: str | None = note["elsewhere"][key]
        elif key in note.get("foreign", {}):
            ours = note["foreign"][key]
            hint = ours if " " in ours else f"in FlowCraft this is '{ours}'."
        elif key in note.get("later", ()):
            hint = "this version of FlowCraft does not have it yet"
        else:
            hint = did_you_mean(key, schema.get("properties", ()))
        # The value of a key that looks like a secret stays out of the terminal and of CI logs.
        self._tell(place, message, code, hint, at="key", quiet=bool(_SECRET.search(key)))

    def _missing(self, error: Any, place: list[str | int], note: Mapping[str, Any]) -> None:
        missing = missing_key(error)
        own = note.get("required", {}).get(missing, {})
        inside = self._inside(place)
        message = own.get("say", f"{cited(missing)} is missing{inside and f' in {inside}'}")
        self._tell(place, message, own.get("code", "FC100"), own.get("hint"))

    def _wrong(self, error: Any, place: list[str | int], note: Mapping[str, Any]) -> None:
        at = "value"
        if "propertyNames" in error.absolute_schema_path:
            place, at = [*place, str(error.instance)], "key"
        quiet = bool(note.get("secret"))
        name = self._name(place) if at == "value" else "this key"
        for sentence in self._words.sentences(error, name, wanted=note.get("say"), quiet=quiet):
            hint = note.get("hint") or self._words.hint(error)
            self._tell(place, sentence, note.get("code", "FC100"), hint, at=at, quiet=quiet)

    def _tell(
        self,
        place: list[str | int],
        message: str,
        code: str,
        hint: str | None,
        *,
        at: str = "value",
        quiet: bool = False,
    ) -> None:
        self.problems.append(self._document.problem(place, message, code=code, hint=hint, at=at, quiet=quiet))

    def _name(self, place: list[str | int]) -> str:
        if len(place) <= len(self._path) and self._where:
            return self._where
        if not place:
            return "the file"
        if isinstance(place[-1], int):
            return f"item {place[-1] + 1} of {self._name(place[:-1])}"
        return cited(place[-1])

    def _inside(self, place: list[str | int]) -> str:
        if len(place) <= len(self._path):
            return self._where
        return self._name(place) + (f" of {self._where}" if self._where else "")


def _note(error: Any) -> Mapping[str, Any]:
    note: Mapping[str, Any] = error.schema.get(_ANNOTATION, {}) if isinstance(error.schema, Mapping) else {}
    return note


def _unknown_keys(value: Iterable[str], schema: Mapping[str, Any]) -> list[str]:
    """The keys of `value` that an object schema names neither by `properties` nor by `patternProperties`."""
    patterns = [compiled(text) for text in schema.get("patternProperties", ())]
    known = schema.get("properties", ())
    return [key for key in value if key not in known and not any(pattern.search(key) for pattern in patterns)]
