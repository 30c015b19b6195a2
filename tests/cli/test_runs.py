"""The commands about runs, as a user types them; the model is a recording."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flowcraft.cli.main import run_command

PIPELINE = """\
flowcraft: 1
stages:
  - id: first
    prompt: one
  - id: security_review
    prompt: review ${{ stages.first.output }}
outputs: {result: "${{ stages.security_review.output }}"}
"""


@pytest.fixture(autouse=True)
def files(workspace: Path) -> None:
    (workspace / "answers.jsonl").write_text(
        '{"match": "one", "response": {"content": "1", "usage": {"prompt_tokens": 1000, "completion_tokens": 100}}}\n'
        '{"match": "review", "response": {"content": "fine", "usage": {"prompt_tokens": 10, "completion_tokens": 5}}}\n'
    )
    (workspace / "settings.yaml").write_text(
        "llm:\n  cheap_model: small\n  expensive_model: large\n  models:\n"
        "    small: {provider: replay, model: s, path: answers.jsonl, prices: {input: 1, output: 2}}\n"
        "    large: {provider: replay, model: l, path: answers.jsonl, prices: {input: 10, output: 20}}\n"
    )
    (workspace / "p.yaml").write_text(PIPELINE)


def typed(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    """What a command prints on stdout, or on stderr if it fails."""
    assert run_command(list(words)) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.err


def test_why_names_the_rule_with_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    typed(capsys, "run", "p.yaml")

    said = typed(capsys, "why", "security_review")

    assert "large [expensive]: the stage matches llm.expensive_stages (default)" in said


def test_why_shows_what_is_different_from_the_run_before(capsys: pytest.CaptureFixture[str]) -> None:
    typed(capsys, "run", "p.yaml")
    Path("p.yaml").write_text(PIPELINE.replace("prompt: one", "prompt: one more"))
    typed(capsys, "run", "p.yaml")

    said = typed(capsys, "why", "first")

    assert "in: prompt" in said
    assert "'one' is now 'one more'" in said


def test_why_says_that_nothing_has_changed(capsys: pytest.CaptureFixture[str]) -> None:
    typed(capsys, "run", "p.yaml")
    shown = typed(capsys, "run", "p.yaml")

    said = typed(capsys, "why", "first")

    assert "first: ok, cached from run" in shown
    assert "cached, because nothing that it depends on has changed since run" in said


def test_cost_stands_beside_what_one_tier_alone_would_have_cost(capsys: pytest.CaptureFixture[str]) -> None:
    typed(capsys, "run", "p.yaml")

    found = json.loads(typed(capsys, "cost", "--json"))

    # 1000 in and 100 out on small, 10 in and 5 out on large
    assert found["actual"] == pytest.approx(0.0014)
    assert found["tiers"] == pytest.approx({"cheap": 0.00122, "expensive": 0.0122})


def test_what_the_cache_saves_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    typed(capsys, "run", "p.yaml")
    typed(capsys, "run", "p.yaml")

    found = json.loads(typed(capsys, "cost", "--json"))

    assert (found["actual"], found["cached"], found["saved"]) == (0, 2, pytest.approx(0.0014))


def test_runs_are_listed_latest_first(capsys: pytest.CaptureFixture[str]) -> None:
    typed(capsys, "run", "p.yaml")
    typed(capsys, "run", "p.yaml", "--fresh")

    listed = json.loads(typed(capsys, "runs", "--json"))

    assert [row["status"] for row in listed] == ["succeeded", "succeeded"]
    assert listed[0]["started"] > listed[1]["started"]


def test_show_has_prompt_and_answer_of_a_stage(capsys: pytest.CaptureFixture[str]) -> None:
    run = json.loads(typed(capsys, "run", "p.yaml", "--json"))["id"]

    said = typed(capsys, "show", run, "security_review")

    assert "[user]\nreview 1" in said
    assert "[answer]\nfine" in said


def test_export_is_json_of_everything(capsys: pytest.CaptureFixture[str]) -> None:
    typed(capsys, "run", "p.yaml")

    found = json.loads(typed(capsys, "export"))

    assert [stage["calls"][0]["answer"] for stage in found["stages"]] == ["1", "fine"]


def test_prune_deletes_all_but_the_latest(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        typed(capsys, "run", "p.yaml", "--fresh")

    said = typed(capsys, "prune", "--keep", "1")

    assert said == "deleted 2 of 3 runs\n"
    assert len(json.loads(typed(capsys, "runs", "--json"))) == 1


def test_prune_without_a_choice_deletes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    typed(capsys, "run", "p.yaml")

    assert "--older-than" in typed(capsys, "prune", code=2)


def test_the_database_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    typed(capsys, "run", "p.yaml")

    assert ": ok, version 4, 1 run\n" in typed(capsys, "db", "check")


@pytest.mark.parametrize("words", [["runs"], ["show"], ["why", "first"], ["cost"], ["export"], ["resume"]])
def test_a_folder_without_runs_says_so(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "there are no runs here" in typed(capsys, *words, code=2)


def test_a_stage_that_is_misspelt_gets_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    typed(capsys, "run", "p.yaml")

    assert "did you mean 'first'?" in typed(capsys, "why", "frist", code=2)


def test_a_recording_plays_offline_and_names_the_first_difference(capsys: pytest.CaptureFixture[str]) -> None:
    first = json.loads(typed(capsys, "run", "p.yaml", "--json", "--record", "kept.jsonl"))
    Path("answers.jsonl").unlink()
    played = json.loads(typed(capsys, "run", "p.yaml", "--json", "--replay", "kept.jsonl"))
    Path("p.yaml").write_text(PIPELINE.replace("review ${{", "REVIEW ${{"))

    run_command(["run", "p.yaml", "--replay", "kept.jsonl"])
    said = capsys.readouterr().out

    assert played["outputs"] == first["outputs"]
    assert "recorded 'review 1', asked 'REVIEW 1'" in said


def test_fresh_before_the_file_means_all_stages(capsys: pytest.CaptureFixture[str]) -> None:
    typed(capsys, "run", "p.yaml")

    shown = typed(capsys, "run", "--fresh", "p.yaml")

    assert "cached" not in shown


def test_resume_tells_that_the_file_was_edited(capsys: pytest.CaptureFixture[str]) -> None:
    typed(capsys, "run", "p.yaml")
    Path("p.yaml").write_text(PIPELINE.replace("review ${{", "REVIEW ${{").replace("REVIEW", "please review"))
    run_command(["resume"])

    captured = capsys.readouterr()

    assert "was edited since run" in captured.err
    assert "security_review: started, large [expensive]; runs again: changed since it ran: prompt" in captured.out


@pytest.mark.parametrize("budget", ["eur=2", "usd=much", "usd=-1", "usd"])
def test_a_budget_that_is_none_is_refused(budget: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "= help:" in typed(capsys, "run", "p.yaml", "--budget", budget, code=2)


@pytest.mark.parametrize("place", ["missing/rec", "."])
def test_a_recording_that_cannot_be_written_is_refused_before_anything_is_asked(
    place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["run", "p.yaml", "--record", place]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert not Path(".flowcraft").exists()


def test_an_edit_that_failed_and_was_undone_costs_nothing_again(capsys: pytest.CaptureFixture[str]) -> None:
    typed(capsys, "run", "p.yaml")
    Path("p.yaml").write_text(PIPELINE.replace("prompt: one", "prompt: unheard of"))
    typed(capsys, "resume", code=1)
    Path("p.yaml").write_text(PIPELINE)

    said = typed(capsys, "resume")

    assert said.count(": ok, cached from run") == 2
    assert json.loads(typed(capsys, "cost", "--json"))["actual"] == pytest.approx(0.0014)


def test_a_run_that_was_refused_leaves_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    settings = Path("settings.yaml")
    settings.write_text(settings.read_text().replace(", prices: {input: 10, output: 20}", ""))

    said = typed(capsys, "run", "p.yaml", "--budget", "usd=1", code=2)

    assert "a budget in money" in said
    assert typed(capsys, "runs") == "no runs yet\n"


def test_a_resume_that_was_refused_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    typed(capsys, "run", "p.yaml")
    settings = Path("settings.yaml")
    settings.write_text(settings.read_text().replace(", prices: {input: 10, output: 20}", ""))
    before = typed(capsys, "export")

    typed(capsys, "resume", "--budget", "usd=1", code=2)

    assert typed(capsys, "export") == before


def test_only_without_the_results_before_it_leaves_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    said = typed(capsys, "run", "p.yaml", "--only", "security_review", code=2)

    assert "of which there is no result yet" in said
    assert typed(capsys, "runs") == "no runs yet\n"


def test_show_takes_a_single_name_for_a_stage_of_the_latest_run_as_why_does(
    capsys: pytest.CaptureFixture[str],
) -> None:
    typed(capsys, "run", "p.yaml")

    assert "[answer]\nfine" in typed(capsys, "show", "security_review")
    assert json.loads(typed(capsys, "show", "first", "--json"))["path"] == "first"
    assert "did you mean 'first'?" in typed(capsys, "show", "frist", code=2)
    assert "there is no run '2000'" in typed(capsys, "show", "2000", code=2)


def test_the_last_line_of_a_resume_counts_what_was_paid_for_replaced_results(
    capsys: pytest.CaptureFixture[str],
) -> None:
    typed(capsys, "run", "p.yaml")
    Path("p.yaml").write_text(PIPELINE.replace("prompt: one", "prompt: one more"))

    said = typed(capsys, "resume")

    assert ": succeeded in" in said
    assert ", 3 calls, 2215 tokens, $0.0026" in said


def test_what_had_not_run_does_not_run_again(capsys: pytest.CaptureFixture[str]) -> None:
    Path("p.yaml").write_text(PIPELINE.replace("prompt: one", "prompt: unheard of"))
    typed(capsys, "run", "p.yaml", code=1)
    Path("p.yaml").write_text(PIPELINE)

    said = typed(capsys, "resume")

    assert "first: started, small [cheap]; runs again: it had failed\n" in said
    assert "security_review: started, large [expensive]\n" in said


def test_why_shows_the_difference_from_a_run_that_took_its_answer_from_the_cache(
    capsys: pytest.CaptureFixture[str],
) -> None:
    typed(capsys, "run", "p.yaml")
    typed(capsys, "run", "p.yaml")
    Path("p.yaml").write_text(PIPELINE.replace("prompt: one", "prompt: one more"))
    typed(capsys, "run", "p.yaml")

    assert "'one' is now 'one more'" in typed(capsys, "why", "first")


def test_why_and_show_tell_an_older_question_of_the_run_from_the_answer_that_counts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    typed(capsys, "run", "p.yaml")
    Path("p.yaml").write_text(PIPELINE.replace("prompt: one", "prompt: one more"))
    typed(capsys, "run", "p.yaml", "--model", "first=large")
    Path("p.yaml").write_text(PIPELINE)
    typed(capsys, "resume", "--model", "first=small")

    assert "  before that: attempt 1 (first) large: answered" in typed(capsys, "why", "first")
    shown = typed(capsys, "show", "first")
    assert "first of run " in shown
    assert ": cached from run " in shown
    assert "--- attempt 1 (first, before that): large" in shown


def test_show_names_the_command_that_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    typed(capsys, "run", "p.yaml", "--budget", "calls=1", code=1)

    assert typed(capsys, "show").splitlines()[-1].startswith("continue with: flowcraft resume 2")


def test_a_resume_from_another_folder_asks_the_models_of_the_run(
    capsys: pytest.CaptureFixture[str], workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(capsys, "run", "p.yaml")
    Path("p.yaml").write_text(PIPELINE.replace("prompt: one", "prompt: one more"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)

    said = typed(capsys, "resume", "--workspace", str(workspace))

    assert "first: started, small [cheap]; runs again: changed since it ran: prompt" in said
    assert "security_review: ok, done before" in said
    assert "all cheap (small)" in typed(capsys, "cost", "--workspace", str(workspace))


def test_after_a_spent_budget_the_last_line_says_how_to_go_on_with_a_higher_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_command(["run", "p.yaml", "--budget", "calls=1"]) == 1
    last = capsys.readouterr().out.splitlines()[-1]

    assert last.endswith(" --budget calls=...")
    assert typed(capsys, "show").splitlines()[-1] == last
    typed(capsys, "resume", "--budget", "calls=2")


def test_a_stage_that_only_leaves_out_is_known_to_why(capsys: pytest.CaptureFixture[str]) -> None:
    Path("p.yaml").write_text("flowcraft: 1\nstages: [{id: a, run: echo}, {id: b, needs: [], run: echo}]\n")
    typed(capsys, "run", "p.yaml", "--only", "b")

    assert "a of run" in (said := typed(capsys, "why", "a"))
    assert said.endswith("skipped, because not asked for (--only b)\n")
    typed(capsys, "resume", "--only", "a")
    assert "a of run" in (said := typed(capsys, "why", "a"))
    assert "succeeded" in said
    typed(capsys, "resume", "--only", "b")
    assert "succeeded" in typed(capsys, "why", "a")


@pytest.mark.parametrize(
    "command", [["runs"], ["show"], ["show", "first"], ["why", "first"], ["cost"], ["db", "check"]]
)
def test_what_only_reads_works_on_a_read_only_file_system(
    command: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    typed(capsys, "run", "p.yaml")
    expected = typed(capsys, *command)
    here, program = shlex.quote(str(Path.cwd())), shlex.join([sys.executable, "-m", "flowcraft", *command])
    script = f"mount --bind {here} {here} && mount -o remount,bind,ro {here} && cd {here} && echo mounted && {program}"
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("needs a mount of its own")

    ended = subprocess.run([unshare, "-rm", "sh", "-c", script], capture_output=True, text=True, check=False)

    if "mounted" not in ended.stdout:
        pytest.skip("needs a mount of its own")
    assert (ended.stdout.removeprefix("mounted\n"), ended.stderr) == (expected, "")
