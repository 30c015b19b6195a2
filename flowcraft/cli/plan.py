"""`flowcraft plan`: what would run, who would answer, and what it can cost at most; calls nothing."""

import json
import os
from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowcraft.cli.options import (
    inputs,
    json_option,
    model_option,
    pairs,
    pipeline_argument,
    settings_option,
    show_warnings,
    workspace_option,
)
from flowcraft.core.problems import counted

if TYPE_CHECKING:
    from flowcraft.llm.integration import LLMIntegration
    from flowcraft.pipeline.model import Pipeline, Stage
    from flowcraft.runner.ceiling import Estimate


@click.command()
@pipeline_argument
@click.option("-i", "--input", "given", multiple=True, metavar="NAME=VALUE", help="An input: its size, --render.")
@settings_option
@model_option
@workspace_option
@click.option("--render", is_flag=True, help="Print the exact prompts, as far as they are known before the run.")
@json_option
def plan(
    file: Path,
    given: Sequence[str],
    settings_path: Path | None,
    models: Sequence[str],
    workspace: Path | None,
    render: bool,
    as_json: bool,
) -> int:
    """Show what would run: the order, each stage's model with the reason for it, and what it may cost.

    The ceiling counts every attempt, rung, round and item, and inputs as given with -i. Nothing is called.
    """
    from flowcraft.cli.screen import clean
    from flowcraft.core.settings import SettingsManager
    from flowcraft.llm.integration import LLMIntegration
    from flowcraft.llm.routing import KnownModels
    from flowcraft.pipeline.load import load
    from flowcraft.runner.ceiling import Estimator
    from flowcraft.runner.choices import models_of_stages
    from flowcraft.runner.sight import check_stages
    from flowcraft.runner.workspace import Workspace

    manager = SettingsManager(settings_path)
    pipeline = load(file, models=KnownModels(manager.settings))
    show_warnings(pipeline)
    values, chosen, place = inputs(given), pairs(models, "--model"), Workspace(workspace or ".")
    by_variable = {one.name: os.environ[one.env] for one in pipeline.inputs if one.env and one.env in os.environ}
    values = {**by_variable, **values}
    if render:
        click.echo(clean(_rendered(pipeline, values, place)))
        return 0
    with LLMIntegration(manager) as llm:
        rows = plan_rows(pipeline, llm, chosen)
        check_stages(models_of_stages(pipeline, llm, chosen), llm, place)
        found = Estimator(llm, place, chosen).estimates(pipeline, values)
        caps = {**llm.settings.llm.budget, **pipeline.budget}
        refused = _refused(pipeline, llm, chosen, "usd" in caps)
    sums = _sums(found, Decimal(str(caps["usd"])) if "usd" in caps else None)
    missing = [one.name for one in pipeline.inputs if one.required and one.name not in values]
    if as_json:
        whole = {"pipeline": pipeline.name, "file": str(file), "stages": _merged(rows, found), **sums}
        click.echo(json.dumps({**whole, "inputs_not_given": missing, "refused": refused}, indent=2, default=float))
        return 0
    if manager.notice:
        click.echo(manager.notice, err=True)
    _show(pipeline, rows, found, sums, missing)
    if refused:
        click.echo(clean(f"a run is refused: {refused}"))
    return 0


def _refused(pipeline: "Pipeline", llm: "LLMIntegration", models: dict[str, str], limited: bool) -> str | None:
    """Why a budget in money cannot be kept."""
    from flowcraft.core.errors import UsageError
    from flowcraft.runner.bounds import check_money

    try:
        check_money(pipeline, llm, models, limited=limited)
    except UsageError as error:
        return f"{error.message}\n  = help: {error.hint}"
    return None


def plan_rows(pipeline: "Pipeline", llm: "LLMIntegration", models: dict[str, str]) -> list[dict[str, Any]]:
    """One row per stage in the order of running; stages with the same order can run at the same time."""
    from flowcraft.pipeline.plan import order
    from flowcraft.runner.choices import check_stage_names

    check_stage_names(pipeline, models)
    rows: list[dict[str, Any]] = []
    for number, level in enumerate(order(pipeline.stages), start=1):
        for stage in level:
            rows += _rows(pipeline, stage, llm, models, number, "")
    for stage in pipeline.finals:
        rows += _rows(pipeline, stage, llm, models, len(rows) + 1, "finally/")
    return rows


def _rows(
    pipeline: "Pipeline", stage: "Stage", llm: "LLMIntegration", models: dict[str, str], number: int, prefix: str
) -> list[dict[str, Any]]:
    from flowcraft.pipeline.model import Inclusion
    from flowcraft.runner.choices import stage_model

    owner = stage.work.pipeline if isinstance(stage.work, Inclusion) else None
    named = stage_model(pipeline, stage, models)
    choice = llm.choose(stage.id, named) if stage.kind == "prompt" and named is not ... else None
    row = {
        "order": number,
        "stage": prefix + stage.id,
        "kind": stage.kind,
        "model": choice.model.name if choice else None,
        "provider": choice.model.provider if choice else None,
        "tier": choice.tier if choice else None,
        "cause": choice.cause if choice else None,
        "because": choice.because if choice else None,
        "source": str(choice.origin) if choice else None,
        "needs": list(stage.needs),
        "conditional": stage.condition is not None,
        "budgets": [dict(budget) for budget in (stage.budget, owner.budget if owner else {}) if budget],
    }
    below = [(f"{prefix}{stage.id}/", one) for one in (owner.stages if owner else stage.below)]
    below += [(f"{prefix}{stage.id}/finally/", one) for one in (owner.finals if owner else ())]
    inner = [_rows(owner or pipeline, one, llm, models, number, path) for path, one in below]
    return [row, *(one for several in inner for one in several)]


def _merged(rows: list[dict[str, Any]], found: "Sequence[Estimate]") -> list[dict[str, Any]]:
    by_path = {one.path: one for one in found}
    return [{**row, **_figures(by_path.get(row["stage"]))} for row in rows]


def _figures(one: "Estimate | None") -> dict[str, Any]:
    if one is None:
        nothing = {"usual_usd": 0.0, "ceiling_usd": 0.0, "ceiling_usd_if_none_breaks_off": 0.0, "ceiling_tokens": 0}
        return {"models": [], "calls": [0, 0], "first_input": 0, **nothing, "ceiling_requests": 0, "notes": []}
    return {
        "models": list(one.models),
        "calls": [one.least_calls, one.most_calls],
        "first_input": one.first_input,
        "usual_usd": one.usual,
        "ceiling_usd": one.ceiling,
        "ceiling_usd_if_none_breaks_off": one.answered,
        "ceiling_tokens": one.tokens,
        "ceiling_requests": one.requests,
        "notes": list(one.notes),
    }


def _sums(found: "Sequence[Estimate]", budget: Decimal | None) -> dict[str, Any]:
    from flowcraft.runner.ceiling import stops_at, total

    return {
        "usual_usd": total([one.usual for one in found]),
        "ceiling_usd": total([one.ceiling for one in found]),
        "ceiling_usd_if_none_breaks_off": total([one.answered for one in found]),
        "ceiling_tokens": total([one.tokens for one in found]),
        "ceiling_calls": sum(one.most_calls for one in found),
        "ceiling_requests": sum(one.requests for one in found),
        "budget_usd": budget,
        "stops_at": stops_at(found, budget),
    }


def _show(
    pipeline: "Pipeline",
    rows: list[dict[str, Any]],
    found: "Sequence[Estimate]",
    sums: dict[str, Any],
    missing: list[str],
) -> None:
    from flowcraft.cli.screen import clean, table

    by_path = {one.path: one for one in found}
    click.echo(f"{clean(pipeline.name)}: {counted(len(rows), 'stage')}")
    cells = [_cells(row, by_path.get(row["stage"])) for row in rows]
    click.echo(table(cells, ("order", "stage", "model", "calls", "first input", "usual", "ceiling", "why", "after")))
    budget = "" if sums["budget_usd"] is None else f"  budget {_usd(sums['budget_usd'])}"
    whole, answered = sums["ceiling_usd"], sums["ceiling_usd_if_none_breaks_off"]
    broken = f" ({_usd(answered)} if no call breaks off)" if whole and whole != answered else ""
    click.echo(f"total usual {_usd(sums['usual_usd'])}  ceiling {_usd(whole)}{broken}{budget}")
    if sums["stops_at"]:
        click.echo(f"the ceiling is above the budget: at worst the run stops at '{sums['stops_at']}'")
    for line in _inner_budgets(pipeline, rows, found):
        click.echo(clean(line))
    if missing:
        click.echo(f"counted as empty: {', '.join(missing)} (give them with -i)")
    for one in found:
        for note in one.notes:
            click.echo(clean(f"note: {one.path}: {note}"))


def _inner_budgets(pipeline: "Pipeline", rows: list[dict[str, Any]], found: "Sequence[Estimate]") -> Iterator[str]:
    """The budgets of stages and used pipelines, and where they would stop at worst."""
    from flowcraft.runner.budget import amount_text, limits
    from flowcraft.runner.ceiling import stops_at

    once = {stage.id for stage in (*pipeline.stages, *pipeline.finals)}  # anything deeper may have one for each round
    inside: dict[str, list[Estimate]] = {row["stage"]: [] for row in rows if row["budgets"]}
    for one in found if inside else ():
        for around in accumulate(one.path.split("/"), "{}/{}".format):
            if around in inside:
                inside[around].append(one)
    for row in rows:
        path = row["stage"]
        for given in row["budgets"]:
            caps = limits(given)
            amounts = ", ".join(amount_text(unit, amount) for unit, amount in caps.items())
            stop = stops_at(inside[path], caps.get("usd")) if path.removeprefix("finally/") in once else None
            yield f"budget of {path}: {amounts}" + (f"; at worst it stops at '{stop}'" if stop else "")


def _cells(row: dict[str, Any], one: "Estimate | None") -> tuple[str, ...]:
    why = row["because"] or ("runs a command" if row["kind"] == "run" else row["kind"])
    if row["kind"] == "prompt" and not row["because"]:
        why = "decided when the stage starts"
    why += "; may be skipped" if row["conditional"] else ""
    after = ", ".join(row["needs"])
    if one is None:
        return (str(row["order"]), row["stage"], "-", "-", "-", "-", "-", why, after)
    least, most = one.least_calls, one.most_calls
    calls = str(most) if least == most else f"{least}-{most}"
    model = " -> ".join(one.models)
    figures = (f"{one.first_input:,}", _usd(one.usual), _usd(one.ceiling))
    return (str(row["order"]), row["stage"], model, calls, *figures, why, after)


def _usd(amount: Decimal | None) -> str:
    return "unknown" if amount is None else f"{amount:.4f}"


def _rendered(pipeline: "Pipeline", values: dict[str, Any], place: Any) -> str:
    """The prompts with what is known put in; the rest stays as it is written."""
    from flowcraft.core.errors import FlowcraftError
    from flowcraft.llm.parts import shown
    from flowcraft.pipeline.model import Prompt
    from flowcraft.pipeline.partial import rendered
    from flowcraft.runner.attachments import attached, matching

    known = {one.name: values.get(one.name, one.default) for one in pipeline.inputs if not one.secret}
    scope = {"inputs": {name: value for name, value in known.items() if value is not None}}
    parts: list[str] = []
    for stage in pipeline.every_stage():
        if not isinstance(stage.work, Prompt):
            continue
        texts = [("system", stage.work.system), ("prompt", stage.work.text)]
        for title, template in texts:
            if template is not None:
                parts.append(f"=== {stage.id}: {title}\n{rendered(template, scope, place)}")
        try:
            parts[-1] = shown(attached(parts[-1], place, matching(place, stage.reads)))
        except FlowcraftError as error:
            parts.append(f"({error})")
    return "\n\n".join(parts)
