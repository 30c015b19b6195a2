"""What a pipeline declares by JSON Schema: its inputs, and the results of its stages."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowcraft.core import document as documents
from flowcraft.core.document import Place
from flowcraft.core.errors import PipelineError
from flowcraft.core.judging.keywords import TYPES
from flowcraft.core.schema import check_schema, check_value
from flowcraft.pipeline.model import Input
from flowcraft.pipeline.reading.complaints import Complaints
from flowcraft.pipeline.reading.included import Unusable, located


def declared_input(name: str, data: Any, complaints: Complaints) -> Input:
    """One input, from a type name or a schema."""
    if not isinstance(data, dict):
        return Input(name=name, schema={"type": data})
    place = ["inputs", name]
    schema = {key: value for key, value in data.items() if key not in ("secret", "env")}
    secret = data.get("secret") is True
    description, env = data.get("description"), data.get("env")
    if "default" in data and secret:
        message = f"the secret input '{name}' has a default, which is no secret"
        complaints.at([*place, "default"], message, "FC012", "give it by a variable: env: NAME", at="key")
    if _has_type(schema):
        unusable = check_schema(schema)
        complaints.each(place, unusable, "FC010")
        if "default" in data and not unusable and not secret:
            reasons = check_value(data["default"], schema)
            complaints.each([*place, "default"], (_of_default(name, reason) for reason in reasons), "FC011")
    return Input(
        name=name,
        schema=schema,
        required="default" not in data,
        default=data.get("default"),
        secret=secret,
        env=env if isinstance(env, str) else None,
        description=description if isinstance(description, str) else "",
    )


class Schemas:
    """The schemas of results, from the pipeline itself or files in its folder, each of which is read once."""

    def __init__(self, folder: Path, complaints: Complaints) -> None:
        self._folder = folder
        self._complaints = complaints
        self._files: dict[str, Mapping[str, Any]] = {}

    def read(self, value: Any, place: Place) -> Mapping[str, Any]:
        """The schema that stands at `place`."""
        if isinstance(value, bool):
            return {} if value else {"not": {}}
        if not isinstance(value, dict):
            return {}
        if isinstance(value.get("file"), str):
            return self._file(value["file"], [*place, "file"])
        self._complaints.each(place, check_schema(value), "FC127")
        return value

    def _file(self, name: str, place: Place) -> Mapping[str, Any]:
        if name not in self._files:
            try:
                path = located(self._folder, name)
            except Unusable as error:
                self._complaints.at(place, str(error), error.code, error.hint)
                return {}
            self._files[name] = self._from_file(path)
        return self._files[name]

    def _from_file(self, path: Path) -> Mapping[str, Any]:
        try:
            # JSON is YAML, and the YAML loader tells where things are.
            found = documents.load(path, error=PipelineError)
        except PipelineError as error:
            self._complaints.problems += error.problems
            return {}
        self._complaints.problems += [found.problem([], told, code="FC127") for told in check_schema(found.data)]
        return found.data if isinstance(found.data, dict) else {}


def _has_type(schema: Mapping[str, Any]) -> bool:
    """Whether shape.py has found nothing wrong with its type."""
    kinds = schema.get("type", [])
    return all(kind in TYPES for kind in (kinds if isinstance(kinds, list) else [kinds]))


def _of_default(name: str, message: str) -> str:
    message = message.replace("the answer", "it", 1) if message.startswith("the answer") else message
    return f"the default of '{name}' does not fit: {message}"
