"""The child process of a python stage: imports a module, calls a function, writes its result as JSON.

Started by its path with the file of the call as its only argument; imports nothing of FlowCraft.
"""

import importlib
import json
import os
import sys
import traceback
from typing import Any

# not of the function that failed: this file, and what imports its module
_OURS = (__file__, importlib.__file__, "<frozen importlib._bootstrap>", "<frozen importlib._bootstrap_external>")


def main(place: str) -> int:
    """Make the call that the file describes; returns the exit code."""
    with open(place, encoding="utf-8") as file:
        call = json.load(file)
    sys.path[0] = os.getcwd()  # in place of the folder of this file
    try:
        result = function(call["target"])(**call["arguments"])
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        sys.stderr.write("".join(traceback.format_list([frame for frame in frames if frame.filename not in _OURS])))
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    try:
        text = json.dumps(result, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else error
        sys.stderr.write(f"{call['target']} has returned what is not JSON: {why}\n")
        return 1
    with open(call["result"], "w", encoding="utf-8") as file:
        file.write(text)
    return 0


def function(target: str) -> Any:
    """The function that `module:function` names."""
    module, _, name = target.partition(":")
    found = getattr(importlib.import_module(module), name, None)
    if not callable(found):
        raise LookupError(f"the module {module} has no function {name}")
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
