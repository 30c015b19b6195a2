"""Which model a stage of a pipeline asks for, as far as it is known before the run."""

from collections.abc import Iterator, Mapping
from types import EllipsisType

from flowcraft.core.errors import UsageError
from flowcraft.core.problems import did_you_mean
from flowcraft.core.values import Origin
from flowcraft.llm.integration import LLMIntegration
from flowcraft.llm.routing import Choice, Named
from flowcraft.pipeline.model import Inclusion, Pipeline, Prompt, Stage


def check_stage_names(pipeline: Pipeline, models: Mapping[str, str]) -> None:
    """Raise UsageError if a name in `models` (stage -> model) is not a prompt stage."""
    if not models:
        return
    stages = [stage for _, stage in all_stages(pipeline)]
    prompts = {stage.id for stage in stages if stage.kind == "prompt"}
    for name in models:
        if name in prompts:
            continue
        if any(stage.id == name for stage in stages):
            raise UsageError(f"stage '{name}' asks no model", hint=did_you_mean(name, prompts))
        raise UsageError(f"pipeline '{pipeline.name}' has no stage '{name}'", hint=did_you_mean(name, prompts))


def stage_model(pipeline: Pipeline, stage: Stage, models: Mapping[str, str]) -> Named | EllipsisType | None:
    """What the command line or the stage names; None: nothing; `...`: known only when the stage starts."""
    if not isinstance(stage.work, Prompt):
        return None
    if stage.id in models:
        return Named(models[stage.id], "--model", Origin(f"{stage.id}={models[stage.id]}"))
    if stage.work.model is None:
        return None
    return named_by_stage(pipeline, stage, stage.work.model.source) if stage.work.model.is_static else ...


def named_by_stage(pipeline: Pipeline, stage: Stage, name: str) -> Named:
    """The model `name` as the stage's own wish."""
    return Named(name, "stage", Origin(str(pipeline.file), stage.line))


def named_models(pipeline: Pipeline, llm: LLMIntegration, models: Mapping[str, str]) -> Iterator[Choice]:
    """The model of every prompt stage for which it is known before the run; raises as `models_of_stages`."""
    return (choice for _, choice in models_of_stages(pipeline, llm, models))


def models_of_stages(
    pipeline: Pipeline, llm: LLMIntegration, models: Mapping[str, str]
) -> Iterator[tuple[Stage, Choice]]:
    """Every prompt stage with each of its models that is known before the run.

    Raises UsageError or SettingsError for a stage or model that nobody knows.
    """
    check_stage_names(pipeline, models)
    for owner, stage in all_stages(pipeline):
        for choice in models_of_stage(owner, stage, llm, models):
            yield stage, choice


def models_of_stage(
    pipeline: Pipeline, stage: Stage, llm: LLMIntegration, models: Mapping[str, str]
) -> Iterator[Choice]:
    """The models of one prompt stage that are known before the run, those of its ladder included."""
    if not isinstance(stage.work, Prompt):
        return
    named = stage_model(pipeline, stage, models)
    if named is not ...:
        yield llm.choose(stage.id, named)
    for rung in stage.work.models[1:] if stage.id not in models else ():
        if rung.is_static:
            yield llm.choose(stage.id, named_by_stage(pipeline, stage, rung.source))


def judges_of_stage(pipeline: Pipeline, stage: Stage, llm: LLMIntegration) -> Iterator[Choice]:
    """The models that its checks ask, as far as they are known before the run."""
    for check in stage.checks:
        if check.ask is not None and (check.model is None or check.model.is_static):
            yield llm.choose(stage.id, named_by_stage(pipeline, stage, check.model.source) if check.model else None)


def all_stages(pipeline: Pipeline) -> Iterator[tuple[Pipeline, Stage]]:
    """All stages of a pipeline and of those it uses (each once), with the pipeline they are in."""
    waiting, seen = [pipeline], {pipeline.file}
    while waiting:
        owner = waiting.pop()
        for stage in owner.every_stage():
            yield owner, stage
            if isinstance(stage.work, Inclusion) and stage.work.pipeline.file not in seen:
                seen.add(stage.work.pipeline.file)
                waiting.append(stage.work.pipeline)
