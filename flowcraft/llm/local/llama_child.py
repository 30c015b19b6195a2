"""The program of the child process that holds the embedded model: `python -m flowcraft.llm.local.llama_child`.

It reads one JSON line (what to load, how, under which key), starts llama.cpp's own HTTP server on
loopback, answers with one JSON line (`url` or `error`) and lives until its stdin ends. It imports nothing of
FlowCraft, because it has to start fast, and is a process of its own because native code can die.
"""

import json
import os
import sys
import threading
from typing import Any


def main() -> None:
    """Serve until the parent closes our stdin, by intent or by its death."""
    # llama.cpp may print: only our answer may reach the parent's pipe.
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    settings = json.loads(sys.stdin.buffer.readline())
    watcher = threading.Thread(target=_end_with_parent, daemon=True)
    watcher.start()  # before the model is loaded, which takes a while for a large one
    try:
        server, result = _serve(settings)
    except ImportError as error:
        server, result = None, {"error": "import", "message": str(error)}
    except Exception as error:  # whatever it is, the parent has to hear of it
        server, result = None, {"error": "load", "message": str(error)}
    print(json.dumps(result), file=answer, flush=True)
    if server is not None:
        watcher.join()


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)  # no farewell to native threads


def _serve(settings: dict[str, Any]) -> tuple[object, dict[str, str]]:
    import xllamacpp  # noqa: PLC0415 - its absence is an answer, not a crash

    params = xllamacpp.CommonParams()
    params.model.path = settings["path"]
    params.model_alias = [settings["alias"]]
    for name, value in settings["params"].items():
        # The names follow llama.cpp and change with it; none of these is needed to work.
        if hasattr(params, name):
            setattr(params, name, value)
    params.api_keys = [settings["api_key"]]
    server = xllamacpp.Server(params)
    return server, {"url": server.listening_address}


if __name__ == "__main__":
    main()
