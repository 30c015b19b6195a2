"""Many calls with many faults, and forks among many threads: what is left behind, and who got whose answer.

    python benchmarks/soak.py [--calls 10000] [--threads 8] [--each 1000]

First a soak: every tenth call meets a fault (a refusal, a reset, a cut, a stall, a bomb, nonsense), half of the calls
are streams, some are left early. Then 16 threads with a token each call through one client while the process forks.
The service runs in a process of its own. The exit status is 1 if something leaked or an answer was not one's own.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from fakes import settings_of  # noqa: E402
from servers import ChatServer, Handler, answer, raw, status, stream  # noqa: E402

from flowcraft.core.errors import FlowcraftError  # noqa: E402
from flowcraft.core.values import ModelSettings, Timeouts  # noqa: E402
from flowcraft.llm.base import LLMMessage  # noqa: E402
from flowcraft.llm.integration import LLMIntegration  # noqa: E402
from flowcraft.llm.providers.openai import OpenAIProvider  # noqa: E402

MIB = 1024 * 1024
SLOPE_MIB = 1.0  # so much may be kept of 1,000 calls
LONG = "data: " + json.dumps({"choices": [{"delta": {"content": "some words"}}]}) + "\n\n"


def main() -> int:
    """Run both parts; the exit status is 1 if a promise was broken."""
    if sys.argv[1:] == ["--serve"]:
        return serve()
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    for name, count in (("calls", 10_000), ("threads", 8), ("each", 1000)):
        parser.add_argument(f"--{name}", type=int, default=count)
    wanted = parser.parse_args()
    service = subprocess.Popen(
        [sys.executable, __file__, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert service.stdout
    assert service.stdin
    try:
        address = service.stdout.readline().strip()
        sound = [soak(address, wanted.calls, wanted.threads), forks(address, wanted.each)]
    finally:
        service.stdin.close()
        service.wait(10)
    return 0 if all(sound) else 1


# --- the service ------------------------------------------------------------------------------


def serve() -> int:
    """Answer until stdin ends; the prompt says what is wanted."""
    faults = [
        status(503),
        status(429, headers={"Retry-After": "0.01"}),
        status(200, b"<html>a login page</html>"),
        raw(b""),
        raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", end="reset"),
        stream(b'data: {"choi', last_chunk=False, end="close"),
        stream(LONG.encode(), end="hold", last_chunk=False),
        status(200, zlib.compress(b"a" * 50 * MIB), headers={"Content-Encoding": "deflate"}),
        raw(b"SSH-2.0-nonsense\r\n"),
    ]
    turn = iter(range(10**9))
    lock = threading.Lock()

    def reply(handler: Handler) -> None:
        prompt = handler.received.body["messages"][-1]["content"]
        if prompt.startswith("echo "):
            answer(f"{prompt} {handler.received.headers['Authorization']}", pieces=None)(handler)
        elif prompt == "fault":
            with lock:
                number = next(turn)
            faults[number % len(faults)](handler)
        elif prompt == "long":
            stream(*[LONG.encode()] * 1000, end="hold", last_chunk=False)(handler)
        else:
            answer("ok")(handler)

    with ChatServer(reply) as server:
        print(server.base_url, flush=True)
        sys.stdin.read()
    return 0


# --- the parts --------------------------------------------------------------------------------


def client(address: str, provider: OpenAIProvider | None = None) -> LLMIntegration:
    model = ModelSettings(
        name="m", provider="openai", model="m", base_url=address, timeouts=Timeouts(first_event=5, idle=0.2, total=1)
    )
    return LLMIntegration(settings_of(model), providers={"m": provider} if provider else None, jitter=lambda: 0.0)


def soak(address: str, calls: int, threads: int) -> bool:
    """Many calls, every tenth with a fault; what is open and how much memory there is, every 1,000 calls."""
    outcomes: Counter[str] = Counter()

    def call(number: int) -> str:
        prompt = "fault" if number % 10 == 0 else "long" if number % 50 == 7 else "hello"
        messages = [LLMMessage(role="user", content=prompt)]
        try:
            if prompt == "long":
                with llm.stream_completion(messages) as pieces:
                    next(pieces)
                return "left early"
            if number % 2 and prompt == "hello":
                return "".join(llm.stream_completion(messages))
            return llm.chat_completion(messages).content if number % 20 else "".join(llm.stream_completion(messages))
        except FlowcraftError as error:
            return type(error).__name__
        except BaseException as error:
            return f"FOREIGN {type(error).__name__}"

    rows = []
    began = time.monotonic()
    with client(address) as llm, ThreadPoolExecutor(threads) as pool:
        for start in range(0, calls, 1000):
            outcomes.update(pool.map(call, range(start, min(start + 1000, calls))))
            rows.append((resident(), len(os.listdir("/dev/fd")), threading.active_count()))
    # The pools, caches and the allocator fill in the beginning.
    settled = rows[len(rows) // 4 :] if len(rows) > 4 else rows
    slope = (settled[-1][0] - settled[0][0]) / MIB / max(1, len(settled) - 1)
    sockets = open_sockets()
    foreign = sum(count for name, count in outcomes.items() if name.startswith("FOREIGN"))
    print(f"soak: {calls} calls, {threads} threads, {time.monotonic() - began:.1f} s: {dict(outcomes)}")
    print(
        f"  memory {slope:+.3f} MiB per 1,000 calls, from {settled[0][0] / MIB:.1f} to {settled[-1][0] / MIB:.1f} MiB"
    )
    print(f"  files {rows[0][1]} -> {rows[-1][1]}, threads {rows[0][2]} -> {rows[-1][2]}, sockets at the end {sockets}")
    return not foreign and not sockets and slope < SLOPE_MIB and rows[-1][2] <= rows[0][2] + 1


def forks(address: str, each: int) -> bool:
    """16 threads with a token each, and children forked in between: whose answer and token came back."""
    own = threading.local()
    provider = OpenAIProvider(
        ModelSettings(name="m", provider="openai", model="m", base_url=address),
        headers=lambda: {"Authorization": f"Bearer {own.token}"},
    )

    def ask(who: str, times: int) -> int:
        own.token, wrong = f"token-of-{who}", 0
        for number in range(times):
            messages = [LLMMessage(role="user", content=f"echo {who} {number}")]
            text = "".join(llm.stream_completion(messages)) if number % 2 else llm.chat_completion(messages).content
            wrong += text != f"echo {who} {number} Bearer {own.token}"
        return wrong

    children = []
    with client(address, provider) as llm, ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(ask, f"thread-{number}", each) for number in range(16)]
        for number in range(8):
            time.sleep(0.1)
            child = os.fork()
            if not child:
                wrong = 99
                try:
                    wrong = min(98, ask(f"child-{number}", each // 10))
                finally:
                    os._exit(wrong)
            children.append(child)
        wrong = sum(future.result() for future in asked)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    print(f"forks: 16 threads x {each} calls, 8 children x {each // 10}: {wrong + sum(codes)} wrong answers or tokens")
    return not wrong and not any(codes)


def resident() -> int:
    """The memory of this process in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    raise OSError("there is no VmRSS in /proc/self/status")


def open_sockets() -> int:
    """The sockets that this process has open."""
    links = (Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd"))
    return sum(os.readlink(link).startswith("socket:") for link in links if link.is_symlink())


if __name__ == "__main__":
    sys.exit(main())
