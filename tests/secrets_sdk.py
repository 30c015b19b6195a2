"""Uses the SDK with canaries for credentials against a service that repeats them: `python secrets_sdk.py URL FOLDER`.

What anybody could print, log, keep or send on afterwards goes to the files of FOLDER, one for each kind of sink.
"""

import contextlib
import logging
import pickle
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from canaries import CANARIES
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from secrets_scene import TROUBLE

from flowcraft import LLMIntegration, LLMMessage, SettingsManager, run_pipeline
from flowcraft.core.errors import FlowcraftError
from flowcraft.core.values import ModelSettings, Timeouts
from flowcraft.llm.oauth import credentials
from flowcraft.llm.otel import OpenTelemetry
from flowcraft.llm.providers.anthropic import AnthropicProvider
from flowcraft.llm.providers.openai import OpenAIProvider
from flowcraft.llm.providers.qwen import QwenCodeProvider

URL, FOLDER = sys.argv[1], Path(sys.argv[2])
HELLO = [LLMMessage("user", "hello")]
QUICK = Timeouts(connect=5, first_event=5, idle=5, total=10)


def keep(sink: str, *texts: object) -> None:
    """Write to the file of a sink."""
    with open(FOLDER / sink, "ab") as file:
        for text in texts:
            file.write(text if isinstance(text, bytes) else f"{text}\n".encode("utf-8", "surrogateescape"))


def look_at(thing: Any) -> None:
    """Everything that Python itself makes of an object."""
    keep("repr str format", repr(thing), str(thing), f"{thing}", [thing], {"a": thing})
    for protocol in (0, 5):
        with contextlib.suppress(Exception):
            keep("pickle", pickle.dumps(thing, protocol))


def look_at_error(error: BaseException) -> None:
    """An exception with all that hangs on it."""
    logging.getLogger("app").error("it failed", exc_info=error)
    keep("traceback", *traceback.format_exception(error))
    chain: list[BaseException | None] = [error]
    while (last := chain.pop()) is not None:
        keep("cause and context", repr(last), vars(last), last.args)
        chain += [one for one in (last.__cause__, last.__context__) if one is not None] or [None]
        look_at(last)


def look_at_frames(work: Callable[[], object]) -> None:
    """The variables that some loggers of errors show; `work` has to fail."""
    try:
        work()
    except Exception as error:
        failures: list[BaseException | None] = [error]
        while failures:
            failure = failures.pop()
            if failure is not None:
                frames = [frame for frame, _ in traceback.walk_tb(failure.__traceback__)]
                keep(
                    "variables of frames", *[frame.f_locals for frame in frames if frame.f_code.co_filename != __file__]
                )
                failures += [failure.__cause__, failure.__context__]
    else:
        raise AssertionError("it should have failed")


def fail(_: object) -> None:
    """A callback."""
    raise RuntimeError("the callback has failed")


def ask(provider: Any, stream: bool, **params: Any) -> None:
    """One call; what comes of it is looked at."""
    try:
        if stream:
            pieces = provider.stream_completion(HELLO, **params)
            look_at(pieces)
            list(pieces)
            look_at(pieces.response)
        else:
            look_at(provider.chat_completion(HELLO, **params))
    except Exception as error:
        look_at_error(error)
        keep("outcomes", f"{type(error).__name__} {isinstance(error, FlowcraftError)}")
    else:
        keep("outcomes", "answered")


class Unruly:
    """A callback that fails while a call is under way."""

    def started(self, call: Any) -> None:
        raise RuntimeError("the callback has failed")

    def finished(self, call: Any) -> None:
        raise RuntimeError("the callback has failed")


def settings_for(base_url: str, **options: Any) -> ModelSettings:
    return ModelSettings(name="m", provider="p", model="m", base_url=base_url, timeouts=QUICK, **options)


def providers() -> Iterator[Any]:
    """All that speak to a service, at each of its addresses."""
    for kind in ("ok", *TROUBLE):
        config = settings_for(f"{URL}/{kind}/v1", api_key_env="APP_OPENAI")
        yield OpenAIProvider(config)
        yield OpenAIProvider(
            config, api_key=CANARIES["key in code"], headers=lambda: {"X-Team": CANARIES["header in code"]}
        )
        yield QwenCodeProvider(settings_for(f"{URL}/{kind}/v1", api_key_env="APP_QWEN", options={"auth": "api-key"}))
        yield QwenCodeProvider(
            settings_for(f"{URL}/{kind}/v1", options={"auth": "oauth", "oauth_base_url": f"{URL}/api"})
        )
    for kind in ("messages", *TROUBLE):
        yield AnthropicProvider(settings_for(f"{URL}/{kind}", api_key_env="APP_ANTHROPIC"))
    yield QwenCodeProvider(settings_for(f"{URL}/ok/v1", options={"auth": "oauth", "oauth_base_url": f"{URL}/refuse"}))


def main() -> None:
    """All calls, all objects."""
    logging.basicConfig(
        level=logging.DEBUG, filename=FOLDER / "log", format="%(name)s %(message)s %(args)s %(pathname)s"
    )
    spans, metrics, tracing = InMemorySpanExporter(), InMemoryMetricReader(), TracerProvider()
    tracing.add_span_processor(SimpleSpanProcessor(spans))
    telemetry = OpenTelemetry(tracer_provider=tracing, meter_provider=MeterProvider([metrics]), draft_cost=True)
    for provider in providers():
        for stream in (False, True):
            ask(provider, stream)
        look_at(provider)
        provider.close()
    found = credentials.read(credentials.default_path())
    look_at(found)
    manager = SettingsManager()
    with LLMIntegration(manager, observer=telemetry) as llm:
        for one in (manager, manager.settings, llm, llm.get_current_model_info("x"), telemetry):
            look_at(one)
        for stage in ("cheap", "expensive_x", "trouble", "proxied", "tunneled", "agent"):
            for stream in (False, True):
                ask(llm, stream, stage_name=stage)
        try:
            look_at(run_pipeline("pipeline.yaml", llm=llm, inputs={"key": CANARIES["secret input by option"]}))
        except FlowcraftError as error:
            look_at_error(error)
    with LLMIntegration(manager, observer=Unruly()) as llm:
        ask(llm, False)
        ask(llm, True)
    url = f"http://me:{CANARIES['password in a URL']}@127.0.0.1:1/v1"
    for address in (url, url.replace("Canary", "?Canary"), url.replace("Canary", "#/Canary@"), f"{url}?key=1"):
        try:
            provider = OpenAIProvider(settings_for(address), api_key="x")
        except FlowcraftError as error:
            look_at_error(error)
        else:
            look_at(provider)
            keep("repr str format", repr(provider.config))
            ask(provider, False)
    look_at_variables(manager)
    keep("spans and metrics", *(span.to_json() for span in spans.get_finished_spans()))
    keep("spans and metrics", metrics.get_metrics_data().to_json() if spans.get_finished_spans() else "")


def look_at_variables(manager: SettingsManager) -> None:
    """Failures of all kinds but those in which a service has repeated a secret."""
    closed = settings_for("http://127.0.0.1:1/v1", api_key_env="APP_OPENAI")
    given = {"key": CANARIES["secret input by option"]}
    for work in (
        lambda: OpenAIProvider(closed).chat_completion(HELLO),
        lambda: OpenAIProvider(closed, api_key=CANARIES["key in code"]).chat_completion(HELLO),
        lambda: list(OpenAIProvider(closed).stream_completion(HELLO)),
        lambda: OpenAIProvider(closed).chat_completion(HELLO, timeout=1e-9),
        lambda: AnthropicProvider(replace(closed, api_key_env="APP_ANTHROPIC")).chat_completion(HELLO),
        lambda: QwenCodeProvider(replace(closed, api_key_env="APP_QWEN")).chat_completion(HELLO),
        lambda: QwenCodeProvider(replace(closed, options={"region": "nowhere"})),
        lambda: SettingsManager("userinfo.yaml"),
        lambda: SettingsManager("missing.yaml"),
        lambda: run_pipeline("pipeline.yaml", settings=manager.settings, inputs={**given, "more": "x"}),
        lambda: run_pipeline("pipeline.yaml", settings=manager.settings, inputs=given, on_event=fail),
    ):
        look_at_frames(work)


if __name__ == "__main__":
    main()
