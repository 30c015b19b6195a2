"""One client of a chat service, measured from the inside; a child process of `compare.py`, in the client's own venv.

    python clients.py NAME URL      then one JSON request per line on stdin, one JSON answer per line on stdout

Every client does the same: send one user message, give back the text, or the pieces of text as they arrive.
Several at once are threads; those of AsyncOpenAI are tasks of one event loop, as it is meant to be used.
"""

import json
import platform
import resource
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from importlib.metadata import version
from typing import Any, NamedTuple
from urllib.parse import urlsplit

PROMPT = "Write a sorting function in Python, with a docstring and tests."
Call = Callable[[], str]
Stream = Callable[[], Iterator[str]]


class Tasks(NamedTuple):
    """A client of an event loop: what runs a coroutine in it, and those for a call and a stream."""

    run: Callable[[Coroutine[Any, Any, Any]], Any]
    call: Callable[[], Coroutine[Any, Any, str]]
    stream: Callable[[], AsyncIterator[str]]


class Client(NamedTuple):
    """A way to ask; `tasks` is there where several at once are no threads."""

    call: Call
    stream: Stream
    tasks: Tasks | None = None


BODY = {"model": "bench-model", "messages": [{"role": "user", "content": PROMPT}]}
STREAMED = {**BODY, "stream": True, "stream_options": {"include_usage": True}}


def flowcraft(base_url: str) -> tuple[Call, Stream]:
    from pathlib import Path

    from flowcraft import LLMIntegration, LLMMessage
    from flowcraft.core.values import LLMSettings, ModelSettings, Settings

    model = ModelSettings(name="bench", provider="openai", model="bench-model", base_url=base_url)
    llm = LLMSettings(
        cheap_models=("bench",),
        expensive_models=("bench",),
        expensive_stages=("security_review", "architecture_design", "complex_debugging"),
        qwen_oauth_path=Path("none"),
        models={"bench": model},
    )
    client = LLMIntegration(Settings(llm=llm))
    messages = [LLMMessage(role="user", content=PROMPT)]
    return lambda: client.chat_completion(messages).content, lambda: client.stream_completion(messages)


def requests(base_url: str) -> tuple[Call, Stream]:
    import requests as library
    import sseclient

    session = library.Session()
    session.headers["Authorization"] = "Bearer x"
    session.mount("http://", library.adapters.HTTPAdapter(pool_maxsize=256))
    url = f"{base_url}/chat/completions"

    def call() -> str:
        response = session.post(url, json=BODY, timeout=60)
        response.raise_for_status()
        return response.json()["choices"][0]["message"]["content"]

    def stream() -> Iterator[str]:
        with session.post(url, json=STREAMED, stream=True, timeout=60) as response:
            response.raise_for_status()
            for event in sseclient.SSEClient(response).events():
                if event.data == "[DONE]":
                    continue
                for choice in json.loads(event.data)["choices"]:
                    if text := choice["delta"].get("content"):
                        yield text

    return call, stream


def urllib3(base_url: str) -> tuple[Call, Stream]:
    """What requests stands on, by hand: one pool, no sessions, no checks."""
    import urllib3 as library

    url = library.util.parse_url(f"{base_url}/chat/completions")
    pool = library.HTTPConnectionPool(url.host, url.port, maxsize=256)
    headers = {"Authorization": "Bearer x", "Content-Type": "application/json"}

    def opened(body: Any, **options: Any) -> Any:
        return pool.urlopen("POST", url.path, json.dumps(body).encode(), headers, retries=False, **options)

    def call() -> str:
        return json.loads(opened(BODY).data)["choices"][0]["message"]["content"]

    def stream() -> Iterator[str]:
        for chunk in opened(STREAMED, preload_content=False).stream(None):
            for event in chunk.split(b"\n\n"):
                if event.startswith(b"data: {"):
                    for choice in json.loads(event[6:])["choices"]:
                        if text := choice["delta"].get("content"):
                            yield text

    return call, stream


def raw_socket(base_url: str) -> tuple[Call, Stream]:
    """As little as possible: no errors, no headers, one connection a thread."""
    parts = urlsplit(base_url)
    local = threading.local()

    def opened(body: Any) -> Any:
        if not hasattr(local, "file"):
            local.socket = socket.create_connection((parts.hostname, parts.port))
            local.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            local.file = local.socket.makefile("rb")
        data = json.dumps(body).encode()
        head = f"POST {parts.path}/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
        local.socket.sendall(head.encode() + data)
        return local.file

    def call() -> str:
        file = opened(BODY)
        return json.loads(file.read(_length(file)))["choices"][0]["message"]["content"]

    def stream() -> Iterator[str]:
        file = opened(STREAMED)
        _length(file)
        while size := int(file.readline(), 16):
            data = file.read(size + 2)[6:-4]
            for choice in json.loads(data)["choices"] if data != b"[DONE]" else ():
                if text := choice["delta"].get("content"):
                    yield text
        file.readline()

    return call, stream


def _length(file: Any) -> int:
    """Read the headers; what they say about the length."""
    length = 0
    while (line := file.readline()) != b"\r\n":
        if line.lower().startswith(b"content-length:"):
            length = int(line[15:])
    return length


def openai(base_url: str) -> tuple[Call, Stream]:
    from openai import OpenAI

    client = OpenAI(base_url=base_url, api_key="x")

    def stream() -> Iterator[str]:
        with client.chat.completions.create(**STREAMED) as chunks:
            for chunk in chunks:
                if chunk.choices and chunk.choices[0].delta.content:
                    yield chunk.choices[0].delta.content

    return lambda: client.chat.completions.create(**BODY).choices[0].message.content or "", stream


def openai_async(base_url: str) -> Client:
    import asyncio

    from openai import AsyncOpenAI

    run, client = asyncio.new_event_loop().run_until_complete, AsyncOpenAI(base_url=base_url, api_key="x")

    async def call() -> str:
        return (await client.chat.completions.create(**BODY)).choices[0].message.content or ""

    async def stream() -> AsyncIterator[str]:
        async with await client.chat.completions.create(**STREAMED) as chunks:
            async for chunk in chunks:
                if chunk.choices and chunk.choices[0].delta.content:
                    yield chunk.choices[0].delta.content

    async def first(pieces: AsyncIterator[str]) -> str:
        return await anext(pieces)

    async def rest(pieces: AsyncIterator[str]) -> list[str]:
        return [piece async for piece in pieces]

    def pieces() -> Iterator[str]:
        coming = stream()
        yield run(first(coming))
        yield from run(rest(coming))

    return Client(lambda: run(call()), pieces, Tasks(run, call, stream))


def litellm(base_url: str) -> tuple[Call, Stream]:
    import litellm as library

    to = {"model": "openai/bench-model", "messages": BODY["messages"], "api_base": base_url, "api_key": "x"}

    def stream() -> Iterator[str]:
        for chunk in library.completion(**to, stream=True, stream_options={"include_usage": True}):
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content

    return lambda: library.completion(**to).choices[0].message.content, stream


def langchain(base_url: str) -> tuple[Call, Stream]:
    from langchain_openai import ChatOpenAI

    client = ChatOpenAI(base_url=base_url, api_key="x", model="bench-model", stream_usage=True)
    return (
        lambda: str(client.invoke(PROMPT).content),
        lambda: (str(chunk.content) for chunk in client.stream(PROMPT) if chunk.content),
    )


def llm(base_url: str) -> tuple[Call, Stream]:
    from llm.default_plugins.openai_models import Chat

    model = Chat("bench", key="x", model_name="bench-model", api_base=base_url)
    return lambda: model.prompt(PROMPT, stream=False).text(), lambda: iter(model.prompt(PROMPT, stream=True))


CLIENTS: dict[str, tuple[Callable[[str], tuple[Call, Stream] | Client], tuple[str, ...]]] = {
    "flowcraft": (flowcraft, ("requests", "urllib3")),
    "raw_socket": (raw_socket, ()),
    "urllib3": (urllib3, ("urllib3",)),
    "requests": (requests, ("requests", "urllib3", "sseclient-py")),
    "openai": (openai, ("openai",)),
    "openai_async": (openai_async, ("openai",)),
    "litellm": (litellm, ("litellm", "openai")),
    "langchain": (langchain, ("langchain-openai", "openai")),
    "llm": (llm, ("llm", "openai")),
}


class Worker:
    """Carries out the requests of `compare.py`; clients are made once for each address."""

    def __init__(self, name: str, url: str) -> None:
        self._name, self._url = name, url
        self._made: dict[str, Client] = {}

    def client(self, path: str) -> Client:
        if path not in self._made:
            self._made[path] = Client(*CLIENTS[self._name][0](f"{self._url}{path}/v1"))
        return self._made[path]

    def about(self) -> dict[str, Any]:
        packages = CLIENTS[self._name][1]
        return {"python": platform.python_version(), **{package: version(package) for package in packages}}

    def calls(self, n: int, path: str = "", threads: int = 1) -> dict[str, float]:
        call, _, tasks = self.client(path)

        async def work(tasks: Tasks) -> None:
            for _ in range(n):
                await tasks.call()

        if tasks and threads > 1:
            return _gathered(tasks, threads, work, threads * n)
        return _together(threads, lambda: [call() for _ in range(n)], threads * n)

    def streams(self, n: int, events: int, threads: int = 1) -> dict[str, float]:
        stream = self.client(f"/events-{events}")[1]

        def work() -> None:
            for _ in range(n):
                assert sum(1 for _ in stream()) == events

        return _together(threads, work, threads * n * events)

    def first(self, n: int) -> dict[str, float]:
        """To the first text of a stream; the rest of it is read, but not counted."""
        stream = self.client("/events-5")[1]
        cpu_s = wall_s = 0.0
        for _ in range(n):
            cpu, wall = time.process_time(), time.perf_counter()
            pieces = iter(stream())
            next(pieces)
            cpu_s += time.process_time() - cpu
            wall_s += time.perf_counter() - wall
            list(pieces)
        return {"cpu": cpu_s / n, "wall": wall_s / n}

    def paced(self, threads: int, rate: int, seconds: int) -> dict[str, float]:
        """Streams at a given pace: how late each piece is handed out, in seconds."""
        _, stream, tasks = self.client(f"/events-{rate * seconds}/rate-{rate}")
        late: list[float] = []

        def work() -> None:
            late.extend([time.monotonic() - float(text) for text in stream()])

        async def task(tasks: Tasks) -> None:
            late.extend([time.monotonic() - float(text) async for text in tasks.stream()])

        figures = _gathered(tasks, threads, task, 1) if tasks else _together(threads, work, 1)
        late.sort()
        return {**figures, "p50": late[len(late) // 2], "p99": late[len(late) * 99 // 100]}

    def memory(self, events: int) -> dict[str, float]:
        """Resident bytes after the first call, and the peak for each event of a long stream; for a fresh process."""
        self.client("")[0]()
        list(self.client("/events-100")[1]())
        first, before = _resident(), _peak()
        pieces = sum(1 for _ in self.client(f"/events-{events}")[1]())
        return {"first_call": first, "per_event": (_peak() - before) / pieces}

    def counts(self) -> dict[str, float]:
        """Function calls, which no load of the machine changes."""
        call, short, long = self.client("")[0], self.client("/events-100")[1], self.client("/events-1100")[1]
        call()
        list(short())
        few, many = _counted(lambda: list(short())), _counted(lambda: list(long()))
        return {"call": _counted(lambda: [call() for _ in range(20)]) / 20, "event": (many - few) / 1000}


def _together(threads: int, work: Callable[[], object], items: int) -> dict[str, float]:
    gate, failures = threading.Barrier(threads), list[BaseException]()

    def worker() -> None:
        gate.wait()
        try:
            work()
        except BaseException as error:
            failures.append(error)

    cpu, wall = time.process_time(), time.perf_counter()
    others = [threading.Thread(target=worker) for _ in range(threads - 1)]
    for one in others:
        one.start()
    worker()
    for one in others:
        one.join()
    if failures:
        raise failures[0]
    return {"cpu": (time.process_time() - cpu) / items, "wall": (time.perf_counter() - wall) / items}


def _gathered(
    tasks: Tasks, count: int, work: Callable[[Tasks], Coroutine[Any, Any, None]], items: int
) -> dict[str, float]:
    import asyncio

    async def all_of_them() -> None:
        await asyncio.gather(*(work(tasks) for _ in range(count)))

    cpu, wall = time.process_time(), time.perf_counter()
    tasks.run(all_of_them())
    return {"cpu": (time.process_time() - cpu) / items, "wall": (time.perf_counter() - wall) / items}


def _counted(work: Callable[[], object]) -> int:
    calls = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    threading.setprofile(count)
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return calls


def _peak() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _resident() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return _peak()


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # what a library prints must not be taken for an answer
    worker = Worker(sys.argv[1], sys.argv[2])
    for line in sys.stdin:
        wish = json.loads(line)
        try:
            result = getattr(worker, wish.pop("do"))(**wish)
        except Exception as error:
            result = {"error": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps(result), file=answers, flush=True)


if __name__ == "__main__":
    main()
