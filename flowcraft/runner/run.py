"""The front door: everything that a run needs is put together and checked here; nothing has been called before.

The run itself is the business of the coordinator, which alone knows all of it, and of workers that know one task each.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from flowcraft.core.masking import Unshown
from flowcraft.core.scope import Scope
from flowcraft.core.settings import SettingsManager
from flowcraft.core.values import Settings
from flowcraft.llm.integration import LLMIntegration
from flowcraft.pipeline.load import load
from flowcraft.pipeline.model import Pipeline
from flowcraft.pipeline.plan import bind
from flowcraft.runner.aftermath import Witness
from flowcraft.runner.bounds import check_money
from flowcraft.runner.budget import Budget, limits
from flowcraft.runner.choices import models_of_stages
from flowcraft.runner.coordinator import Coordinator
from flowcraft.runner.events import Event
from flowcraft.runner.executors import open_executor
from flowcraft.runner.files import take_back
from flowcraft.runner.gates import Ask, Decision, Opened
from flowcraft.runner.inputs import secret_texts, shown
from flowcraft.runner.leaves import UNDO_LETTERS
from flowcraft.runner.minutes import Minutes
from flowcraft.runner.names import Names, RunNames
from flowcraft.runner.outcome import RunRecord
from flowcraft.runner.session import CheckMoney, Durable, Session, new_id, open_session
from flowcraft.runner.sight import check_stages
from flowcraft.runner.store.fingerprint import digest
from flowcraft.runner.store.ledger import FOLDER
from flowcraft.runner.tasks import Renderer
from flowcraft.runner.workspace import Workspace

DEFAULT_JOBS = 4  # calls at a time that the usual services allow

Listener = Callable[[Event], None]


def run_pipeline(  # noqa: PLR0913 - the front door: all but the first have a default
    pipeline: Pipeline | str | os.PathLike[str],
    inputs: Mapping[str, Any] | None = None,
    *,
    settings: SettingsManager | Settings | None = None,
    llm: LLMIntegration | None = None,
    jobs: int | None = None,
    models: Mapping[str, str] | None = None,
    workspace: str | os.PathLike[str] | None = None,
    keep_going: bool = False,
    on_event: Listener | None = None,
    scope: Scope | None = None,
    durable: Durable | None = None,
    ask: Ask | None = None,
    decisions: Mapping[str, Decision] | None = None,
) -> RunRecord:
    """Run a pipeline to its end and say what came of it; a failed stage is an outcome, not an exception.

    `llm` is used and left open; without it one is made from `settings`. `models` names the model of single stages
    and wins over all else. `on_event` is called in this thread. Ctrl-C, and cancelling `scope` from
    another thread, end what runs and give a record with the status `interrupted`. `durable` writes everything
    down in the workspace, so that the run can be resumed and what was paid for is used again. `ask` is called, in this
    thread, for each gate (`approve`) that `decisions` (path -> what was decided) does not answer; a gate without an
    answer pauses the run.
    Raises UsageError, PipelineError or SettingsError for what is wrong before anything has run, and
    LedgerError if it cannot be written down.
    """
    inputs = Unshown(inputs or {})
    checked = pipeline if isinstance(pipeline, Pipeline) else load(Path(pipeline))
    values = bind(checked, inputs, os.environ)
    root = Workspace(workspace or ".").root
    with ExitStack() as stack:
        llm = llm or stack.enter_context(LLMIntegration(settings))
        _check_models(checked, llm, models or {}, Workspace(root))
        check = partial(check_money, checked, llm, models or {})
        session = _session(stack, root, checked, values, llm, durable, check)
        run_id = session.run_id if session else new_id()
        place = Witness(root, tag=run_id)
        names = Names.of(checked, values, RunNames(run_id, root / FOLDER / "runs" / run_id))
        spilled = session.spilled() if session else stack.enter_context(_temporary_folder())
        limit = jobs or llm.settings.jobs or DEFAULT_JOBS
        own = session.budget if session else Budget(limits(checked.budget))
        undo = (session.folder if session else spilled) / "undo"
        run = Coordinator(
            id=run_id,
            pipeline=checked,
            inputs=shown(checked, values),
            names=names,
            renderer=Renderer(checked, place, spilled, secrets=secret_texts(checked, values)),
            workspace=place,
            undo=undo,
            llm=llm,
            models=models or {},
            jobs=limit,
            keep_going=keep_going,
            executor=stack.enter_context(open_executor(limit)),
            minutes=Minutes(on_event, session),
            scope=Scope(own.left_s(), parent=scope),
            budgets=() if session or not own.limit else ((checked.name, own),),
            gates=Opened(session.folder if session else spilled),
            decisions=decisions or {},
            ask=ask,
        )
        # A second Ctrl-C may tear the first one's cancelling off: what then still runs is ended here.
        stack.callback(run.end)
        with llm.workflow(checked.name):
            return _carried_out(run)


def _carried_out(run: Coordinator) -> RunRecord:
    """Carry the run out; first, files are put back that a killed session has left half done."""
    session = run.minutes.session
    done = session.succeeded() if session else set()
    take_back(run.undo, {digest(path)[:UNDO_LETTERS] for path in done}, run.workspace)
    record = run.carried_out()
    shutil.rmtree(run.undo, ignore_errors=True)
    return record


def _check_models(pipeline: Pipeline, llm: LLMIntegration, models: Mapping[str, str], files: Workspace) -> None:
    """Make the providers of the models that are known before the run; raises UsageError or SettingsError."""
    chosen = tuple(models_of_stages(pipeline, llm, models))
    for _, choice in chosen:
        for model in (choice.model, *choice.fallbacks):
            llm.provider(model)
    check_stages(chosen, llm, files)


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="flowcraft-") as folder:
        yield Path(folder)


def _session(
    stack: ExitStack,
    root: Path,
    pipeline: Pipeline,
    values: Mapping[str, Any],
    llm: LLMIntegration,
    durable: Durable | None,
    check: CheckMoney,
) -> Session | None:
    if durable is None:
        check(limited="usd" in limits(pipeline.budget))
        return None
    return stack.enter_context(open_session(root, pipeline, shown(pipeline, values), llm, durable, check))
