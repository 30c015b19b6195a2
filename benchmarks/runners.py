"""One runner of pipelines, measured from the inside; a child process of `compare.py`, in the runner's own venv.

    python runners.py NAME STAGES      prints one JSON object: CPU and wall seconds a stage, and of building it all

Every runner does the same: a chain of stages that each take the text of the one before and give it on.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypedDict

Build = Callable[[int, Path], Callable[[], object]]


def thread_pool(stages: int, folder: Path) -> Callable[[], object]:
    pool = ThreadPoolExecutor(4)

    def run() -> str:
        value = "x"
        for _ in range(stages):
            value = pool.submit(str, value).result()
        return value

    return run


def _flowcraft(stages: int, folder: Path, *, ledger: bool) -> Callable[[], object]:
    from flowcraft.core.values import LLMSettings, ModelSettings, Settings
    from flowcraft.llm.base import BaseLLMProvider, Delta
    from flowcraft.llm.integration import LLMIntegration
    from flowcraft.pipeline.load import load
    from flowcraft.runner.run import run_pipeline
    from flowcraft.runner.session import Durable

    class Echo(BaseLLMProvider):
        provider_name = "openai"

        def deltas(self, request: Any) -> Any:
            yield Delta(content=request.messages[-1].content.rpartition(" ")[2], finish_reason="stop")

    # No prompt is like another: what was answered before would be taken from the ledger.
    lines = ["flowcraft: 1", "stages:", "  - {id: s0, prompt: 0 x}"]
    lines += [f"  - {{id: s{n}, prompt: '{n} ${{{{ stages.s{n - 1}.output }}}}'}}" for n in range(1, stages)]
    file = folder / "chain.yaml"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    pipeline = load(file)
    model = ModelSettings(name="m", provider="openai", model="m")
    names = {"cheap_models": ("m",), "expensive_models": ("m",), "expensive_stages": ()}
    settings = Settings(llm=LLMSettings(**names, qwen_oauth_path=Path("none"), models={"m": model}))
    llm = LLMIntegration(settings, providers={"m": Echo()})

    def run() -> object:
        record = run_pipeline(pipeline, llm=llm, workspace=folder, durable=Durable() if ledger else None)
        assert record.status == "succeeded"
        return record

    return run


def flowcraft(stages: int, folder: Path) -> Callable[[], object]:
    return _flowcraft(stages, folder, ledger=False)


def flowcraft_ledger(stages: int, folder: Path) -> Callable[[], object]:
    return _flowcraft(stages, folder, ledger=True)


def _langgraph(stages: int, saver: Any) -> Callable[[], object]:
    from langgraph.graph import END, START, StateGraph

    class State(TypedDict):
        value: str

    graph = StateGraph(State)
    for n in range(stages):
        graph.add_node(f"s{n}", lambda state: {"value": state["value"]})
        graph.add_edge(f"s{n - 1}" if n else START, f"s{n}")
    graph.add_edge(f"s{stages - 1}", END)
    made = graph.compile(checkpointer=saver)
    config = {"recursion_limit": stages + 10, "configurable": {"thread_id": "1"}}
    return lambda: made.invoke({"value": "x"}, config)


def langgraph(stages: int, folder: Path) -> Callable[[], object]:
    return _langgraph(stages, None)


def langgraph_sqlite(stages: int, folder: Path) -> Callable[[], object]:
    import sqlite3

    from langgraph.checkpoint.sqlite import SqliteSaver

    return _langgraph(stages, SqliteSaver(sqlite3.connect(folder / "graph.db", check_same_thread=False)))


def haystack(stages: int, folder: Path) -> Callable[[], object]:
    from haystack import Pipeline, component

    @component
    class Echo:
        @component.output_types(value=str)
        def run(self, value: str) -> dict[str, str]:
            return {"value": value}

    pipeline = Pipeline()
    for n in range(stages):
        pipeline.add_component(f"s{n}", Echo())
        if n:
            pipeline.connect(f"s{n - 1}.value", f"s{n}.value")
    return lambda: pipeline.run({"s0": {"value": "x"}})


def prefect(stages: int, folder: Path) -> Callable[[], object]:
    from prefect import flow, task

    @task
    def echo(value: str) -> str:
        return value

    @flow
    def chain() -> str:
        value = "x"
        for _ in range(stages):
            value = echo(value)
        return value

    return chain


RUNNERS: dict[str, tuple[Build, tuple[str, ...]]] = {
    "thread_pool": (thread_pool, ()),
    "flowcraft": (flowcraft, ()),
    "flowcraft_ledger": (flowcraft_ledger, ()),
    "langgraph": (langgraph, ("langgraph",)),
    "langgraph_sqlite": (langgraph_sqlite, ("langgraph", "langgraph-checkpoint-sqlite")),
    "haystack": (haystack, ("haystack-ai",)),
    "prefect": (prefect, ("prefect",)),
}


def main() -> None:
    build, packages = RUNNERS[sys.argv[1]]
    stages = int(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        build(2, Path(folder))()  # imports, first uses
        begun = time.process_time()
        with tempfile.TemporaryDirectory() as own:
            run = build(stages, Path(own))
            cpu, wall = time.process_time(), time.perf_counter()
            run()
            figures = {
                "cpu": (time.process_time() - cpu) / stages,
                "wall": (time.perf_counter() - wall) / stages,
                "build": (cpu - begun) / stages,
                "warm_up": begun - start,
            }
    about = {package: version(package) for package in packages}
    print(json.dumps({**figures, "about": about}), flush=True)


if __name__ == "__main__":
    main()
