"""A settings file -> frozen values with their places.

`settings.schema.json` judges the file; here is only what a schema cannot say. Codes: FC150 an address,
FC151 an address without encryption (a warning), FC152 not the name of a variable, FC153 no provider.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flowcraft.core import resources
from flowcraft.core.catalogue import CATALOGUE, KIRO, QWEN, completed
from flowcraft.core.document import Document, load
from flowcraft.core.errors import SettingsError
from flowcraft.core.problems import Problem, ordered
from flowcraft.core.schema import check
from flowcraft.core.values import LLMSettings, ModelSettings, Origin, Prices, Settings, Timeouts

EXPENSIVE_STAGES = ("security_review", "architecture_design", "complex_debugging")
# What every provider understands; all other keys of a model are options of its provider.
FIELDS = (
    *("provider", "model", "base_url", "api_key_env", "context", "max_tokens"),
    *("max_concurrency", "requests_per_minute", "vision"),
)
_ADDRESSES = ("base_url", "oauth_base_url")


def read(path: Path, home: Path, oauth_path: Path) -> tuple[Settings, tuple[Problem, ...]]:
    """The settings in the file, and warnings; `oauth_path` is the default for `llm.qwen_oauth_path`.

    Raises SettingsError with all problems of the file.
    """
    document = load(path, error=SettingsError, blank={})
    problems = check(document, (), resources.schema("settings"))
    problems += [problem for place, entry in _models(document) for problem in _model_problems(document, place, entry)]
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        raise SettingsError(ordered(errors))
    # Not resolved: relative paths belong to the folder that the user sees, also behind a link.
    return _Settings(document, path.absolute(), home).made(oauth_path), tuple(ordered(problems))


def expanded(text: str, home: Path) -> Path:
    """The path with a leading `~` replaced by `home`, which need not be this process's."""
    if text == "~" or text.startswith("~/"):
        return home / text[2:]
    return Path(text)


def _models(document: Document) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    llm = document.data.get("llm") if isinstance(document.data, dict) else None
    models = llm.get("models") if isinstance(llm, dict) else None
    for name, entry in models.items() if isinstance(models, dict) else ():
        if isinstance(entry, dict):
            yield ("llm", "models", name), entry


def _model_problems(document: Document, place: tuple[str, ...], entry: Mapping[str, Any]) -> Iterator[Problem]:
    name = place[-1]
    if "provider" not in entry and name not in CATALOGUE:
        hint = "add one:  provider: openai  (any server that speaks the protocol of OpenAI, with its base_url)"
        yield document.problem(place, f"model '{name}' has no provider", code="FC153", hint=hint, at="key")
    for key in _ADDRESSES:
        address = entry.get(key)
        if not isinstance(address, str) or not address.startswith(("http://", "https://")):
            continue  # the schema has told
        wrong = _wrong_address(address)
        if wrong:
            hint = "an address such as https://api.openai.com/v1; a key is named by api_key_env"
            yield document.problem((*place, key), f"'{key}' {wrong}", code="FC150", hint=hint, quiet=True)
        elif address.startswith("http:") and not _on_this_machine(address):
            message = "keys, prompts and answers travel to this server without encryption"
            yield document.problem(
                (*place, key), message, code="FC151", hint="use https:// if the server has it", severity="warning"
            )


def _wrong_address(address: str) -> str | None:
    """What is wrong with an http address, without repeating it: it may hold a password."""
    if not address.isascii() or not address.isprintable() or set(address) & set(' "<>\\^`{|}'):
        return "has characters that an address cannot have"
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        return "is not an address"
    if "@" in parts.netloc:
        return "holds a user name or password"
    if not parts.hostname or port == 0:
        return "names no server"
    if parts.query or parts.fragment or address.endswith(("?", "#")):
        return "goes on after the path ('?' or '#')"
    return None


def _on_this_machine(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _budget(given: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _decimal(value) if key == "usd" else value for key, value in given.items() if key != "on_exceed"}


class _Settings:
    """Makes values from a document that is known to be good."""

    def __init__(self, document: Document, path: Path, home: Path) -> None:
        self._document = document
        self._path = path
        self._home = home
        self._llm: Mapping[str, Any] = document.data.get("llm") or {}
        self._origins = dict(self._places((), document.data))

    def made(self, oauth_path: Path) -> Settings:
        llm, data = self._llm, self._document.data
        named = llm.get("qwen_oauth_path")
        settings = LLMSettings(
            cheap_models=_names(llm.get("cheap_model", QWEN)),
            expensive_models=_names(llm.get("expensive_model", KIRO)),
            expensive_stages=tuple(llm.get("expensive_stages", EXPENSIVE_STAGES)),
            qwen_oauth_path=self._place(named) if named else oauth_path,
            timeouts=_timeouts(llm.get("timeouts", {}), Timeouts()),
            retries=llm.get("retries", 2),
            telemetry=llm.get("telemetry", "off"),
            budget=_budget(llm.get("budget", {})),
            on_exceed=llm.get("budget", {}).get("on_exceed", "stop"),
            prices={name: _prices(prices) for name, prices in llm.get("prices", {}).get("override", {}).items()},
            unknown_prices=llm.get("prices", {}).get("unknown", "refuse"),
        )
        models = {name: self._model(name, entry, settings) for name, entry in llm.get("models", {}).items()}
        return Settings(
            llm=replace(settings, models=models), jobs=data.get("jobs"), file=self._path, origins=self._origins
        )

    def _model(self, name: str, entry: Mapping[str, Any], llm: LLMSettings) -> ModelSettings:
        base = CATALOGUE.get(name) or ModelSettings(name=name, provider=entry["provider"], model=name)
        taken: dict[str, Any] = {key: entry[key] for key in FIELDS if key in entry}
        taken["params"] = dict(entry.get("params", {}))
        if "prices" in entry:
            taken["prices"] = _prices(entry["prices"])
        taken["options"] = self._options(entry)
        taken["origin"] = self._origins[f"llm.models.{name}"]
        model = completed(replace(base, **taken), llm)
        return replace(model, timeouts=_timeouts(entry.get("timeouts", {}), llm.timeouts))

    def _options(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        declared = resources.schema("settings")["$defs"]["model"]["properties"]
        options = dict(entry.get("options", {}))
        for key in entry.keys() - {*FIELDS, "params", "prices", "timeouts", "options"}:
            is_path = declared[key].get("x-flowcraft", {}).get("path", False)
            options[key] = str(self._place(entry[key])) if is_path else entry[key]
        return options

    def _place(self, text: str) -> Path:
        """A path as the file means it: `~` is the user's home, other relative ones begin at the file's folder."""
        return self._path.parent / expanded(text, self._home)

    def _places(self, path: tuple[str | int, ...], value: Any) -> Iterator[tuple[str, Origin]]:
        """Dotted key and place of everything in the file; of a map or list the place of its key."""
        if path:
            nested = isinstance(value, (dict, list)) and isinstance(path[-1], str)
            line, column = self._document.position(path, at="key" if nested else "value")
            yield _dotted(path), Origin(self._document.file, line, column)
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, part in inner:
            yield from self._places((*path, key), part)


def _dotted(path: tuple[str | int, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)[1:]


def _names(value: str | list[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _timeouts(given: Mapping[str, float], base: Timeouts) -> Timeouts:
    return base._replace(**{name: float(seconds) for name, seconds in given.items()})


def _prices(given: Mapping[str, Any]) -> Prices:
    return Prices(**{key: _decimal(value) for key, value in given.items()})


def _decimal(number: float) -> Decimal:
    # Through the shortest text that means the same float: what the user has typed.
    return Decimal(str(number))
