"""One runner of pipelines, measured from the inside; a child process of `compare.py`, in the runner's own venv.

    python runners.py NAME STAGES      prints one JSON object: CPU and wall seconds a stage, and of building it all
    python runners.py NAME ITEMS fan   the same for items of 10 ms, 16 at a time

In a chain every runner does the same: stages that each take the text of the one before and give it on.
"""

import json
import operator
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, TypedDict

Build = Callable[[int, Path], Callable[[], object]]

ITEM_S, WORKERS = 0.01, 16


def thread_pool(stages: int, folder: Path) -> Callable[[], object]:
    pool = ThreadPoolExecutor(4)

    def run() -> str:
        value = "x"
        for _ in range(stages):
            value = pool.submit(str, value).result()
        return value

    return run


def bare_commits(stages: int, folder: Path) -> Callable[[], object]:
    """No runner: two durable commits a stage, and nothing else."""

    def run() -> None:
        database = sqlite3.connect(folder / "bare.db", isolation_level=None)
        for pragma in ("journal_mode=WAL", "synchronous=FULL"):
            database.execute(f"PRAGMA {pragma}")
        database.execute("CREATE TABLE calls (number INTEGER PRIMARY KEY, request TEXT, response TEXT)")
        for number in range(stages):
            for sql in ("INSERT INTO calls VALUES (?, 'x', NULL)", "UPDATE calls SET response = 'x' WHERE number = ?"):
                database.execute("BEGIN IMMEDIATE")
                database.execute(sql, (number,))
                database.execute("COMMIT")
        database.close()

    return run


def _flowcraft(lines: list[str], folder: Path, *, ledger: bool = False, wait_s: float = 0) -> Callable[[], object]:
    from flowcraft.core.values import LLMSettings, ModelSettings, Settings
    from flowcraft.llm.base import BaseLLMProvider, Delta
    from flowcraft.llm.integration import LLMIntegration
    from flowcraft.pipeline.load import load
    from flowcraft.runner.run import run_pipeline
    from flowcraft.runner.session import Durable

    class Echo(BaseLLMProvider):
        provider_name = "openai"

        def deltas(self, request: Any) -> Any:
            if wait_s:
                time.sleep(wait_s)
            yield Delta(content=request.messages[-1].content.rpartition(" ")[2], finish_reason="stop")

    file = folder / "pipeline.yaml"
    file.write_text("\n".join(["flowcraft: 1", "stages:", *lines]) + "\n", encoding="utf-8")
    pipeline = load(file)
    model = ModelSettings(name="m", provider="openai", model="m")
    names = {"cheap_models": ("m",), "expensive_models": ("m",), "expensive_stages": ()}
    settings = Settings(llm=LLMSettings(**names, qwen_oauth_path=Path("none"), models={"m": model}))
    llm = LLMIntegration(settings, providers={"m": Echo()})

    def run() -> object:
        durable = Durable() if ledger else None
        record = run_pipeline(pipeline, llm=llm, workspace=folder, durable=durable, jobs=WORKERS if wait_s else None)
        assert record.status == "succeeded"
        return record

    return run


def _chain(stages: int) -> list[str]:
    # No prompt is like another: what was answered before would be taken from the ledger.
    later = [f"  - {{id: s{n}, prompt: '{n} ${{{{ stages.s{n - 1}.output }}}}'}}" for n in range(1, stages)]
    return ["  - {id: s0, prompt: 0 x}", *later]


def flowcraft(stages: int, folder: Path) -> Callable[[], object]:
    return _flowcraft(_chain(stages), folder)


def flowcraft_ledger(stages: int, folder: Path) -> Callable[[], object]:
    return _flowcraft(_chain(stages), folder, ledger=True)


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


def dask(stages: int, folder: Path) -> Callable[[], object]:
    from dask import delayed

    value = delayed(str)("x")
    for _ in range(stages - 1):
        value = delayed(str)(value)
    return lambda: value.compute(scheduler="threads", num_workers=4)


def thread_pool_fan(items: int, folder: Path) -> Callable[[], object]:
    pool = ThreadPoolExecutor(WORKERS)
    return lambda: list(pool.map(_waited, range(items)))


def flowcraft_fan(items: int, folder: Path) -> Callable[[], object]:
    lines = [
        f"  - {{id: fan, foreach: {{in: '${{{{ range({items}) }}}}', max: {items}}}, prompt: 'do ${{{{ item }}}}'}}"
    ]
    return _flowcraft(lines, folder, wait_s=ITEM_S)


def langgraph_fan(items: int, folder: Path) -> Callable[[], object]:
    from langgraph.graph import END, START, StateGraph
    from langgraph.types import Send

    class State(TypedDict):
        values: Annotated[list[int], operator.add]

    graph = StateGraph(State)
    graph.add_node("item", lambda state: {"values": [_waited(state["item"])]})
    graph.add_conditional_edges(START, lambda _: [Send("item", {"item": n}) for n in range(items)], ["item"])
    graph.add_edge("item", END)
    made = graph.compile()
    return lambda: made.invoke({"values": []}, {"max_concurrency": WORKERS})


def dask_fan(items: int, folder: Path) -> Callable[[], object]:
    import dask

    waiting = [dask.delayed(_waited)(number) for number in range(items)]
    return lambda: dask.compute(*waiting, scheduler="threads", num_workers=WORKERS)


def _waited(number: int) -> int:
    time.sleep(ITEM_S)
    return number


CHAINS: dict[str, tuple[Build, tuple[str, ...]]] = {
    "thread_pool": (thread_pool, ()),
    "bare_commits": (bare_commits, ()),
    "flowcraft": (flowcraft, ()),
    "flowcraft_ledger": (flowcraft_ledger, ()),
    "dask": (dask, ("dask",)),
    "langgraph": (langgraph, ("langgraph",)),
    "langgraph_sqlite": (langgraph_sqlite, ("langgraph", "langgraph-checkpoint-sqlite")),
    "haystack": (haystack, ("haystack-ai",)),
    "prefect": (prefect, ("prefect",)),
}
FANS: dict[str, tuple[Build, tuple[str, ...]]] = {
    "thread_pool": (thread_pool_fan, ()),
    "flowcraft": (flowcraft_fan, ()),
    "dask": (dask_fan, ("dask",)),
    "langgraph": (langgraph_fan, ("langgraph",)),
}


def main() -> None:
    name, stages = sys.argv[1], int(sys.argv[2])
    build, packages = (FANS if sys.argv[3:] == ["fan"] else CHAINS)[name]
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
