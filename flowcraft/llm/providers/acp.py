"""Provider `acp`: any agent that speaks the Agent Client Protocol over stdio.

Options of a model: `agent` (a preset) or `command`; `cwd` (an empty folder if it is missing), `env` (names of
variables to pass on), `permission` (reject or allow), `reads` and `writes` (globs below `cwd`), `mode`,
`auth_method`.
"""

import os
from collections.abc import Iterator

from flowcraft.core.errors import UsageError
from flowcraft.core.problems import did_you_mean
from flowcraft.core.scope import Scope
from flowcraft.core.values import ModelSettings
from flowcraft.llm.agents.acp.agent import Agent
from flowcraft.llm.agents.acp.link import Launch
from flowcraft.llm.agents.acp.options import INSTALL, command, folder, model_of, not_installed, policy, start, variables
from flowcraft.llm.agents.acp.pool import Agents
from flowcraft.llm.agents.failures import without_secrets
from flowcraft.llm.agents.presets import PRESETS, Preset
from flowcraft.llm.agents.prompt import prompt_parts
from flowcraft.llm.base import BaseLLMProvider, ChatRequest, Delta

_UNKNOWN = Preset((), install=INSTALL)


class AcpProvider(BaseLLMProvider):
    """Asks an agent; the conversation goes to it as one text with its images (`flowcraft.llm.agents.prompt`)."""

    provider_name = "acp"
    acts = True
    takes_images = True  # an agent that does not says so when it starts

    def __init__(self, config: ModelSettings | None = None) -> None:
        super().__init__(config)
        self._agents = Agents(self._start)

    def deltas(self, request: ChatRequest) -> Iterator[Delta]:
        model, required = model_of(self.config)
        prompt = prompt_parts(request.messages)
        env = variables(self.config, self._preset().variables)
        with without_secrets(env), self._agents.lent(request.scope) as agent:
            yield from agent.answer(prompt, request.scope, model=model, required=required)

    def missing(self) -> str | None:
        preset = self._preset()
        return not_installed(command(self.config, preset.command), variables(self.config), preset.install)

    def close(self) -> None:
        self._agents.close()

    def _start(self, scope: Scope) -> Agent:
        preset = self._preset()
        argv = command(self.config, preset.command)
        launch = Launch(
            name=os.path.basename(argv[0]),
            argv=argv,
            env=variables(self.config, preset.variables),
            cwd=folder(self.config),
            policy=policy(self.config),
            authenticates=preset.authenticates,
            mode=self.config.options.get("mode") or preset.asks,
            auth_method=self.config.options.get("auth_method"),
            evict=preset.evict,
            login=preset.login,
            start_s=self.config.timeouts.first_event,
            idle_s=self.config.timeouts.idle,
        )
        return start(launch, scope, preset.install)

    def _preset(self) -> Preset:
        name = self.config.options.get("agent")
        if name is None:
            return _UNKNOWN
        if name not in PRESETS:
            raise UsageError(
                f"model '{self.config.name}': there is no agent '{name}'",
                hint=did_you_mean(str(name), PRESETS) or "give its command line in `command`",
            )
        return PRESETS[str(name)]
