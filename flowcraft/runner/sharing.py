"""Whether a result may serve other runs: what it depends on must be known, and it must be all there is."""

from flowcraft.core.errors import UsageError
from flowcraft.llm.integration import LLMIntegration
from flowcraft.llm.routing import Choice
from flowcraft.runner.outcome import Outcome
from flowcraft.runner.work import Task


class Sharing:
    """Knows the models that may do more than answer."""

    def __init__(self, llm: LLMIntegration) -> None:
        self._llm = llm
        self._acting: dict[str, bool] = {}

    def allowed(self, task: Task, choice: Choice | None) -> bool:
        """Whether the result of this task may come from another run, and go to one."""
        if choice is None:
            return task.cache is True and bool(task.reads) and bool(task.writes)
        allowed = task.cache
        if allowed is None:
            checks = task.contract.checks
            allowed = not (checks and any(check.run for check in checks))  # they look at files that nobody has named
        return allowed and not self._acts(choice.model.name)

    def is_whole(self, outcome: Outcome, choice: Choice | None) -> bool:
        """Whether it was accepted, is nobody else's, and comes from a model that the stage names itself."""
        if not outcome.ok or outcome.cached_from or any(self._acts(attempt.name) for attempt in outcome.attempts):
            return False
        answers = [attempt for attempt in outcome.attempts if attempt.event != "check"]
        climbed = any(attempt.event == "escalation" for attempt in answers)
        return choice is None or climbed or all(attempt.name == choice.model.name for attempt in answers[-1:])

    def _acts(self, name: str) -> bool:
        if name not in self._acting:
            try:
                self._acting[name] = self._llm.provider(self._llm.choose(model=name).model).acts
            except UsageError:  # of an earlier session, and gone from the settings since
                return True
        return self._acting[name]
