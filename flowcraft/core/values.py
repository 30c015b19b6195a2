"""What the settings say, as frozen values; shared by everything that chooses or calls a model.

Times are in seconds, prices in US dollars per million tokens, sizes in tokens. The small ones are named tuples: to make
the class of a frozen dataclass takes seven times as long, in each start of a process.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple


class Origin(NamedTuple):
    """Where a setting comes from: a file with line and column, or `default`."""

    file: str = "default"
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


_NOWHERE = Origin()


class Timeouts(NamedTuple):
    """Time limits of one call, in seconds; `total` covers all attempts and the waits between them."""

    connect: float = 5.0
    first_event: float = 60.0
    idle: float = 60.0
    total: float = 600.0


class Prices(NamedTuple):
    """US dollars per million tokens. Of the input, `cached_input` is for what comes from the service's cache and
    `cache_write` for what goes into it; None means as much as other input.
    """

    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
    cache_write: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """One usable model: which provider serves it and how.

    `name` is how settings and pipelines call it, `model` how the provider does. `options` holds the
    keys that only its provider understands (`command`, `oauth_path` ...). `max_concurrency` and
    `requests_per_minute` limit what all threads together ask of it; None is no limit. `vision` is whether it takes
    images, None if that is not known.
    """

    name: str
    provider: str
    model: str
    base_url: str | None = field(default=None, repr=False)  # in code, somebody may have put a password into it
    api_key_env: str | None = None
    context: int | None = None
    max_tokens: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    prices: Prices | None = None
    timeouts: Timeouts = Timeouts()
    max_concurrency: int | None = None
    requests_per_minute: int | None = None
    vision: bool | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    origin: Origin = Origin()


@dataclass(frozen=True, slots=True, kw_only=True)
class LLMSettings:
    """The `llm:` part of the settings; a tier with several models falls back from left to right.

    `prices` are by the name a model is used by, for models that bring none. `budget` is for one run,
    `usd`, `tokens` and more; what is not limited is not in it. `on_exceed` is stop or ask.
    `unknown_prices` is refuse or allow: what a budget in money does with calls that have no largest price.
    `telemetry` is off, otel or otel+cost.
    """

    cheap_models: tuple[str, ...]
    expensive_models: tuple[str, ...]
    expensive_stages: tuple[str, ...]
    qwen_oauth_path: Path
    models: Mapping[str, ModelSettings] = field(default_factory=dict)
    timeouts: Timeouts = Timeouts()
    retries: int = 2
    budget: Mapping[str, Decimal | int] = field(default_factory=dict)
    on_exceed: str = "stop"
    prices: Mapping[str, Prices] = field(default_factory=dict)
    unknown_prices: str = "refuse"
    telemetry: str = "off"

    @property
    def cheap_model(self) -> str:
        return self.cheap_models[0]

    @property
    def expensive_model(self) -> str:
        return self.expensive_models[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that is set; `origins` tells for each dotted key (`llm.cheap_model`) where it was.

    `jobs` is how many stages may run at once, None where nothing is set.
    """

    llm: LLMSettings
    jobs: int | None = None
    file: Path | None = None
    origins: Mapping[str, Origin] = field(default_factory=dict)

    def origin(self, key: str) -> Origin:
        """Where the dotted `key` was set."""
        return self.origins.get(key) or _NOWHERE
