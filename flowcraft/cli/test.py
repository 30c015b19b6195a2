"""`flowcraft test`: `*.test.yaml` files with scripted answers and what is expected; `--record` makes one from a run."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from flowcraft.cli.options import FILE, workspace_option
from flowcraft.core.errors import FlowcraftError, UsageError

_ENDING = ".test.yaml"


@click.command()
@click.argument("places", nargs=-1, type=FILE, metavar="[FILE|FOLDER]...")
@click.option("--record", "run_id", metavar="RUN", help="Write a test that plays this run again, to the FILE.")
@workspace_option
def test(places: Sequence[Path], run_id: str | None, workspace: Path | None) -> int:
    """Run the tests in FILES and folders (default: here); no model is called.

    A test is a map: pipeline, inputs, answers (stage: a list, one per attempt), verdicts, approve,
    files, settings, expect (status, stages, outputs).
    Exit code 0: all pass, 1: some do not, 2: some cannot be run.
    """
    if run_id is not None:
        return _recorded(run_id, places, Path(workspace or ".").resolve())
    ends = [end for file in _files(places or [Path()]) for end in _played(file)]
    unrun = len([end for end in ends if end is None])
    failed = len([end for end in ends if end is False])
    click.echo(f"{ends.count(True)} passed, {failed} failed" + (f", {unrun} cannot be run" if unrun else ""))
    return 2 if unrun else 1 if failed else 0


def _played(file: Path) -> Iterator[bool | None]:
    """Whether each test of the file passes; None for what cannot be run."""
    from flowcraft.cli.main import show_error
    from flowcraft.cli.screen import clean
    from flowcraft.runner.cases import load_cases
    from flowcraft.runner.scripted import check

    try:
        cases = load_cases(file)
    except UsageError as error:
        click.echo(clean(f"ERROR  {file}"))
        show_error(error)
        yield None
        return
    for case in cases:
        try:
            complaints = check(case)
        except FlowcraftError as error:
            click.echo(clean(f"ERROR  {file}: {case.name}"))
            show_error(error)
            yield None
            continue
        click.echo(clean(f"{'FAILED' if complaints else 'ok'}  {file}: {case.name}"))
        for complaint in complaints:
            click.echo(clean(f"  {complaint}"))
        yield not complaints


def _files(places: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for place in places:
        inside = (
            sorted(one for one in place.rglob(f"*{_ENDING}") if ".flowcraft" not in one.parts)
            if place.is_dir()
            else [place]
        )
        found += inside
    if not found:
        raise UsageError(
            f"there are no tests (*{_ENDING}) here", hint="make one from a run: flowcraft test --record RUN x.test.yaml"
        )
    return found


def _recorded(run_id: str, places: Sequence[Path], root: Path) -> int:
    from flowcraft.cli.screen import clean
    from flowcraft.core.layout import yaml_text
    from flowcraft.pipeline.load import load
    from flowcraft.runner.recorded import case_of, lost_in
    from flowcraft.runner.store.records import open_records

    if len(places) != 1 or not places[0].name.endswith(_ENDING):
        raise UsageError("name the file to write", hint=f"flowcraft test --record {run_id} change{_ENDING}")
    with open_records(root) as (records, _):
        row = records.run(run_id)
        if not row.file.is_file():
            raise UsageError(f"the pipeline of run {row.id} is gone: {row.file}", hint="put it back, then record again")
        pipeline = load(row.file)
        data = case_of(records, row, pipeline, root, places[0].resolve().parent)
        lost = lost_in(records, row, pipeline)
    try:
        places[0].write_text(yaml_text(data), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{places[0]} cannot be written: {error.strerror}") from None
    click.echo(f"{places[0]}: plays run {row.id} again")
    for sentence in lost:
        click.echo(clean(f"  note: {sentence}"))
    return 0
