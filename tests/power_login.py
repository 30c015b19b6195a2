"""Power cuts while a Qwen login is refreshed again and again: the file is whole, and no printed token is lost."""

import json
import os
import random
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from cuts import cut
from qwen_parts import ROOT, write
from qwen_service import QwenProcess
from traced import Step, traced

from flowcraft.core.errors import FlowcraftError
from flowcraft.llm.oauth import credentials
from flowcraft.llm.oauth.storage import recover

FILE = "oauth_creds.json"
PROGRAM = """
import sys
from flowcraft.core.scope import Scope
from qwen_parts import worker_source
tokens = worker_source(sys.argv[1], sys.argv[2])
found = tokens.current(Scope(60))
for _ in range(int(sys.argv[3])):
    found = tokens.after_refusal(found.access_token, Scope(60))
    print("token:", found.access_token, flush=True)
"""


class Login:
    """A folder with a login, and what a program did that has refreshed it `times` times."""

    def __init__(self, folder: Path, service: QwenProcess, times: int) -> None:
        life = folder / "life"
        path = write(life / FILE, service.credentials())
        self.origin = folder / "origin"
        shutil.copytree(life, self.origin)
        self.first = json.loads(path.read_text())["access_token"]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
        words = [sys.executable, "-c", PROGRAM, str(path), service.base_url, str(times)]
        code, steps = traced(words, life, folder / "aside", env)
        self.steps: Sequence[Step] = steps
        self.tokens = [self.first, *_printed(steps)]
        assert (code, len(self.tokens)) == (0, times + 1)

    def after_cut(self, at: int, model: str, seed: int, target: Path) -> list[str]:
        """Lay out what a cut leaves in `target`; what must not be is the answer."""
        cut(self.origin, self.steps, at, model, random.Random(seed), target)
        safe = len(_printed(self.steps[:at]))
        for when in ("as it is found", "recovered"):
            try:
                held = credentials.read(target / FILE).access_token
            except FlowcraftError as error:
                return [f"{when}: {error}"]
            if held not in self.tokens[safe : safe + 2]:
                return [f"{when}: token {self.tokens.index(held)} of at least {safe}"]
            recover(target / FILE)
        left = [path.name for path in target.iterdir() if path.suffix == ".tmp"]
        return [f"left: {left}"] if left else []


def _printed(steps: Sequence[Step]) -> list[str]:
    said = b"".join(step.data for step in steps if step.kind == "said").decode()
    return re.findall(r"^token: (\S+)$", said, re.MULTILINE)
