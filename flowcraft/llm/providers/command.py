"""Provider `command`: any program that takes one prompt and ends.

`command` is its argv: `{model}` stands for the model, `{prompt_file}` for a file with the prompt; without
that the prompt goes to stdin. `reply` says how its output is read, `success` what proves an answer (see
`flowcraft.llm.agents.reply`); `cwd`, `env` as for the other agents.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from flowcraft.core.errors import ProcessError, ProviderError
from flowcraft.core.values import ModelSettings
from flowcraft.llm.agents.acp.options import INSTALL, cannot_start, command, folder, not_installed, variables
from flowcraft.llm.agents.failures import disguised, empty, unproven, unread, without_secrets
from flowcraft.llm.agents.oneshot import OneShot
from flowcraft.llm.agents.presets import EmptyFolder
from flowcraft.llm.agents.prompt import prompt_text
from flowcraft.llm.agents.reply import Reader, Reply, Success
from flowcraft.llm.base import BaseLLMProvider, ChatRequest, Delta

_FILE = "{prompt_file}"


class CommandProvider(BaseLLMProvider):
    """Runs the program once per prompt, in an empty folder unless `cwd` names one."""

    provider_name = "command"
    acts = True

    def __init__(self, config: ModelSettings | None = None) -> None:
        super().__init__(config)
        self._success = Success.of(self.config.options.get("success"))
        self._reply = Reply.of(self.config.options.get("reply"))

    def deltas(self, request: ChatRequest) -> Iterator[Delta]:
        text = prompt_text(request.messages, self.config.name).encode("utf-8", "replace")
        argv = [part.replace("{model}", self.config.model) for part in command(self.config)]
        name = os.path.basename(argv[0])
        env = variables(self.config)
        with without_secrets(env), _prompted(argv, text) as (words, stdin), _folder(folder(self.config)) as cwd:
            try:
                with OneShot(
                    name,
                    words,
                    scope=request.scope,
                    limits=self.config.timeouts,
                    env=env,
                    cwd=cwd,
                    stdin=stdin,
                ) as program:
                    yield from self._answer(name, program)
            except ProcessError as error:
                raise cannot_start(error) from error

    def missing(self) -> str | None:
        return not_installed(command(self.config), variables(self.config), INSTALL)

    def _answer(self, name: str, program: OneShot) -> Iterator[Delta]:
        reader = self._reply.reader(name)
        try:
            for stream, data in program:
                if stream == "stdout":
                    yield from reader.add(data)
            yield from reader.add(b"", last=True)
            self._prove(name, program, reader)
        except ProviderError as error:
            error.partial_text = error.partial_text or reader.text
            raise
        yield Delta(finish_reason="stop", usage=reader.usage)

    def _prove(self, name: str, program: OneShot, reader: Reader) -> None:
        ended, text = program.completed, reader.text
        lacks = self._success.lacks(ended)
        if lacks is None and not reader.done:
            lacks = "but without what `done` asks for"
        if lacks is not None:
            how = f"with exit code {ended.returncode}" if ended.returncode >= 0 else f"by signal {-ended.returncode}"
            said = ended.stderr.decode("utf-8", "replace").strip()
            raise unproven(name, said or text, partial=text, ended=f"{how} {lacks}".rstrip())
        written = ended.stdout.decode("utf-8", "replace").strip()
        if not text.strip():
            raise empty(name) if self._reply.format == "text" or not written else unread(name, written)
        error = disguised(name, text)
        if error:
            raise error


@contextmanager
def _prompted(argv: list[str], text: bytes) -> Iterator[tuple[list[str], bytes]]:
    """The command line and stdin that carry the prompt."""
    if not any(_FILE in part for part in argv):
        yield argv, text
        return
    with tempfile.NamedTemporaryFile(prefix="flowcraft-", suffix=".txt") as file:
        file.write(text)
        file.flush()
        yield [part.replace(_FILE, file.name) for part in argv], b""


@contextmanager
def _folder(cwd: str | None) -> Iterator[str]:
    if cwd:
        yield cwd
        return
    own = EmptyFolder()
    try:
        yield own.path
    finally:
        own.close()
