"""What a model answers stays a value wherever it flows: to no shell a script, never a template, no option of a program.

Every place gets all hostile answers in one run. Most would make a file `PWNED`, or give 1337, if they were read.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from fakes import ScriptedProvider, llm_of

from flowcraft.llm.base import ChatRequest
from flowcraft.runner.gates import Decision
from flowcraft.runner.outcome import RunRecord
from flowcraft.runner.run import run_pipeline

NUL, LONG = "a\0touch PWNED", "x" * ((1 << 20) - 14) + "$(touch PWNED)"
OPTIONS = ("--output=PWNED", "-oPWNED", "--help\n; touch PWNED", "-e touch PWNED", "-exec touch PWNED ;")
HOSTILE = (
    "$(touch PWNED)",
    "`touch PWNED`",
    '"; touch PWNED; "',
    "'; touch PWNED; '",
    "\"'; touch PWNED #",
    "\n touch PWNED\n",
    "x\r\ntouch PWNED\r\n",
    "; touch PWNED &",
    "| touch PWNED",
    "&& touch PWNED || touch PWNED",
    "> PWNED",
    "<(touch PWNED)",
    "${FLOWCRAFT_VALUE_1:=$(touch PWNED)}",
    "a[$(touch PWNED)]",
    "EOF\ntouch PWNED\nEOF",
    '\\"$(touch PWNED)\\',
    "!touch PWNED",
    "* ? [a-z] ~ {1,2}",
    "%s%n $'\\x24(touch PWNED)'",
    "${{ 7 * 191 }} ${{ read('secret.txt') }}",
    "${% for x in range(1337) %}x${% endfor %}",
    "{{ 7 * 191 }} {% print(1337) %} {# x #}",
    "}} ${{ 1337",
    "\u201c; touch PWNED; \u201d \u2018$(touch PWNED)\u2019 \uff04(touch PWNED) \u037e touch PWNED",
    "\x1b]0;1337\x07\x1b[31m\u202e [bold]red[/bold]",
    "../PWNED",
    "() { :; }; touch PWNED",
    "  $(touch PWNED)  \n\n",
    "'''; import os; os.system('touch PWNED'); '''",
    "true",
    "${{ secrets.x }}\\u0024{{ 7 * 191 }}",
    *OPTIONS,
    NUL,
    LONG,
)
READABLE = tuple(value for value in HOSTILE if value != NUL)
NO_SHELL_TAKES = {NUL: "FC300"}  # it stops before the shell starts


def answer(request: ChatRequest) -> str:
    """The hostile answer with the number that is asked for; anything else is said back."""
    asked = request.messages[-1].content
    return HOSTILE[int(asked)] if asked.isdigit() else "fine"


def ran(stages: str, tail: str = "", model: ScriptedProvider | None = None, **options: Any) -> RunRecord:
    """A run in which stage `m` has given all hostile answers."""
    first = f"  - {{id: m, foreach: {{in: range({len(HOSTILE)})}}, prompt: '${{{{ item }}}}'}}\n"
    Path("out").mkdir(exist_ok=True)
    Path("p.yaml").write_text(f"flowcraft: 1\nstages:\n{first}{stages}{tail}")
    with llm_of(model or ScriptedProvider(otherwise=answer)) as llm:
        return run_pipeline("p.yaml", llm=llm, jobs=4, **options)


def stage(rest: str) -> str:
    """A stage that runs once for each answer, whatever becomes of the others."""
    head = "  - id: s\n    foreach: {in: stages.m.output, as: said, parallel: 4}\n    on_error: continue\n"
    return head + "".join(f"    {line}\n" for line in rest.strip().splitlines())


def items(record: RunRecord) -> dict[str, Any]:
    """What came of each answer, by the answer."""
    found = {outcome.path: outcome for outcome in record.outcomes}
    return {value: found[f"s[{number}]"] for number, value in enumerate(HOSTILE)}


def nothing_was_run() -> bool:
    return not [path for path in Path.cwd().parent.rglob("*") if "PWNED" in path.name]


def in_files() -> dict[str, str]:
    """What was written for each answer."""
    return {HOSTILE[int(path.name)]: path.read_bytes().decode() for path in Path("out").iterdir()}


def held(record: RunRecord, refused: Mapping[str, str]) -> None:
    """Every answer has arrived as it is, but those that are refused with these codes."""
    written = in_files()
    for value, outcome in items(record).items():
        if value in refused:
            assert (outcome.status, refused[value] in str(outcome.error)) == ("failed", True), (value[:40], outcome)
            assert value not in written
        else:
            assert outcome.status == "succeeded", (value[:40], outcome.error)
            assert written[value] == value
    assert nothing_was_run()


PROGRAM = "#!/usr/bin/env bash\nprintf '%s' \"${@: -1}\" > out/$1\n"


def program() -> None:
    Path("show").write_text(PROGRAM)
    Path("show").chmod(0o755)


TO_FILE = "printf '%s' {} > out/${{{{ index }}}}"
SHELLS = {
    "in quotes": TO_FILE.format('"${{ said }}"'),
    "without quotes": TO_FILE.format("${{ said }}"),
    "in a text": 'x="before ${{ said }} after"; x=${x#before }; printf \'%s\' "${x% after}" > out/${{ index }}',
    "on stdin": 'x=$(cat <<< "${{ said }}"; printf .); printf \'%s\' "${x%??}" > out/${{ index }}',
    "in a here-document": "x=$(cat <<EOF\n${{ said }}\nEOF\nprintf .); printf '%s' \"${x%??}\" > out/${{ index }}",
    "in a function": 'show() { printf "%s" "$1"; }; show ${{ said }} > out/${{ index }}',
    "as what a program reads": './show ${{ index }} -- <<< "${{ said }}" > /dev/null; '
    + TO_FILE.format('"${{ said }}"'),
    "in an array": "x=(${{ said }} b); printf '%s' \"${x[0]}\" > out/${{ index }}",
}


@pytest.mark.parametrize("place", SHELLS)
def test_an_answer_is_no_part_of_a_script(place: str) -> None:
    program()
    script = "\n".join(f"  {line}" for line in SHELLS[place].splitlines())

    held(ran(stage(f"run: |\n{script}")), NO_SHELL_TAKES)


def test_an_answer_is_a_value_in_the_environment() -> None:
    record = ran(stage("env: {SAID: '${{ said }}'}\nrun: printf '%s' \"$SAID\" > out/${{ index }}"))

    held(record, {NUL: "no program can receive", LONG: "too long"})


@pytest.mark.parametrize("before", ["", "-m, ", "-rn, ", "--message, ", "x, ", "'-${{ index }}', "])
def test_an_answer_is_one_argument_and_no_option(before: str) -> None:
    program()

    record = ran(stage(f"run: [./show, '${{{{ index }}}}', {before}'${{{{ said }}}}']"))

    held(record, {NUL: "no program can receive", LONG: "too long", **dict.fromkeys(OPTIONS, "FC210")})


def test_behind_two_dashes_and_in_an_option_of_its_own_every_answer_is_an_argument() -> None:
    program()

    record = ran(stage("run: [./show, '${{ index }}', --, '${{ said }}']"))

    held(record, {NUL: "no program can receive", LONG: "too long"})


def test_no_answer_chooses_the_program() -> None:
    program()

    record = ran(stage("run: ['${{ said }}', x]"))

    assert ["FC210" in str(outcome.error) for outcome in items(record).values()] == [True] * len(HOSTILE)


@pytest.mark.parametrize(
    "words", ["./show ${{ index }} ${{ said }}", './show -m "${{ said }}"', "if ./show ${{ said }}; then :; fi"]
)
def test_an_answer_is_no_option_of_a_program_in_a_script(words: str) -> None:
    program()

    outcomes = items(ran(stage(f"run: |\n  {words}")))

    assert {value for value, outcome in outcomes.items() if "FC210" in str(outcome.error)} == set(OPTIONS)


def test_an_answer_is_an_argument_of_a_function() -> None:
    Path("taken.py").write_text("def all(said):\n    return said\n")
    taken = "  - {id: s, python: 'taken:all', with: {said: '${{ stages.m.output }}'}}\n"

    record = ran(taken, "outputs: {all: '${{ stages.s.output }}'}\n")

    assert record.outputs["all"] == list(HOSTILE)
    assert nothing_was_run()


def test_an_answer_is_text_of_the_next_prompt() -> None:
    model = ScriptedProvider(otherwise=answer)

    ran(stage("prompt: 'Say: ${{ said }}'\nsystem: 'As: ${{ said }}'"), model=model)

    asked = {tuple(message.content for message in request.messages) for request in model.requests}
    assert [value for value in HOSTILE if value != LONG and (f"As: {value}", f"Say: {value}") not in asked] == []


JOINED = "\"It is ${{ stages.m.output[:-1] | join('|') }}.\""  # all but the one that leaves no room


def test_an_answer_is_an_output_as_it_is() -> None:
    record = ran("", f"outputs:\n  all: ${{{{ stages.m.output }}}}\n  text: {JOINED}\n")

    assert record.outputs == {"all": list(HOSTILE), "text": f"It is {'|'.join(HOSTILE[:-1])}."}


def test_an_answer_is_an_input_of_another_pipeline() -> None:
    program()
    Path("used.yaml").write_text(
        "flowcraft: 1\ninputs: {said: string, index: integer}\nstages:\n"
        "  - {id: a, run: [./show, '${{ inputs.index }}', '${{ inputs.said }}']}\n"
        "outputs: {again: '${{ inputs.said }}'}\n"
    )

    record = ran(stage("uses: used.yaml\nwith: {said: '${{ said }}', index: '${{ index }}'}"))

    held(record, {NUL: "no program can receive", LONG: "too long", **dict.fromkeys(OPTIONS, "FC210")})
    outcomes = items(record)
    assert [o.output["again"] for v, o in outcomes.items() if o.ok] == [v for v, o in outcomes.items() if o.ok]


def test_an_answer_is_a_value_in_an_expression() -> None:
    record = ran(
        stage(
            "if: stages.m.output | length > 0\nrun: printf '%s' \"${{ said | length }}\" > out/${{ index }}\n"
            "repeat: {until: said | length > loop.index, max: 2}\ncheck: ['said | length > 0']"
        )
    )

    assert {value: outcome.status for value, outcome in items(record).items()} == dict.fromkeys(HOSTILE, "succeeded")
    assert in_files() == {value: str(len(value)) for value in HOSTILE}
    assert nothing_was_run()


def test_an_answer_is_a_value_for_the_command_of_a_check() -> None:
    command = json.dumps(TO_FILE.format('"${{ output }}"'))

    held(ran(stage(f"prompt: '${{{{ index }}}}'\nattempts: 1\ncheck: [{{run: {command}}}]")), NO_SHELL_TAKES)


def test_an_answer_is_one_argument_and_no_option_for_the_program_of_a_check() -> None:
    program()

    checked = "prompt: '${{ index }}'\nattempts: 1\ncheck: [{run: [./show, '${{ index }}', '${{ output }}']}]"

    held(ran(stage(checked)), {NUL: "no program can receive", LONG: "too long", **dict.fromkeys(OPTIONS, "FC210")})


def test_an_answer_is_text_of_what_a_check_says_and_asks() -> None:
    model = ScriptedProvider(otherwise=answer)

    ran(
        stage("prompt: '${{ index }}'\ncheck: [{that: output | length < 0, say: 'No: ${{ output }}'}]")
        + stage("prompt: '${{ index }}'\ncheck: [{ask: 'Good: ${{ output }}?'}]").replace("id: s", "id: t"),
        model=model,
    )

    asked = "\n".join(request.messages[-1].content for request in model.requests)
    assert [value for value in HOSTILE if value != LONG and f"No: {value}" not in asked] == []
    assert [value for value in HOSTILE if value != LONG and f"Good: {value}?" not in asked] == []


def test_an_answer_is_text_of_what_a_person_is_asked() -> None:
    asked: list[str] = []

    def said_yes(path: str, text: str, limit_s: float | None) -> Decision:
        asked.append(text)
        return Decision(approved=True)

    ran(f"  - {{id: gate, approve: {JOINED}}}\n", ask=said_yes)

    assert asked == [f"It is {'|'.join(HOSTILE[:-1])}."]


def test_an_answer_is_a_value_in_the_last_stages() -> None:
    last = stage("run: |\n  " + TO_FILE.format('"${{ said }}"')).replace(
        "stages.m.output", "'stages.m.output | default([])'"
    )

    record = ran("", f"finally:\n{last}")

    written = in_files()
    assert record.status == "succeeded"
    assert [value[:40] for value in HOSTILE if value != NUL and written[value] != value] == []
    assert nothing_was_run()


def files() -> dict[str, str]:
    """What is in the world of this test, by path."""
    top = Path.cwd().parent
    return {str(path.relative_to(top)): path.read_text() for path in top.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("save", "taken"),
    [
        ("out/${{ said }}", lambda value: f"workspace/out/{value}"),
        ("${{ said }}", lambda value: f"workspace/{value}"),
        ("out/${{ index }}/${{ said }}.md", lambda value: f"workspace/out/{HOSTILE.index(value)}/{value}.md"),
    ],
)
def test_an_answer_leads_no_file_out_of_the_workspace(save: str, taken: Callable[[str], str]) -> None:
    (Path.cwd() / "p.yaml").touch()
    before = files()

    record = ran(stage(f'run: printf \'%s\' "saved"\noutput: {{save: "{save}"}}'))

    saved = {taken(value) for value, outcome in items(record).items() if outcome.ok}
    new = {path for path in files() if path not in before}
    assert new == saved
    assert not [path for path in new if "\n" in path or ".." in path or "\x1b" in path]


@pytest.mark.parametrize(
    "use", ["cwd: '${{ said }}'\nrun: pwd", "run: echo ${{ read(said) }}", "run: echo ${{ glob(said) }}"]
)
def test_an_answer_reads_nothing_outside_the_workspace(use: str) -> None:
    (Path.cwd().parent / "PASSWORDS").write_text("secret")
    told = ("..", "../PASSWORDS", str(Path.cwd().parent), str(Path.cwd().parent / "PASSWORDS"), "x/../../PASSWORDS")
    told += ("link", "link/PASSWORDS", "../*", "link/*", "~", "~/*", "file:///etc/passwd", "/etc/*")
    Path("link").symlink_to("..")
    model = ScriptedProvider(otherwise=lambda request: told[int(request.messages[-1].content) % len(told)])

    record = ran(stage(use), model=model)

    outcomes = items(record).values()
    assert {outcome.status for outcome in outcomes} <= {"failed", "succeeded"}
    assert {outcome.output for outcome in outcomes if outcome.ok} <= {"[]"}


def test_an_answer_names_no_unknown_model() -> None:
    record = ran(stage("prompt: x\nmodel: ${{ said }}"))

    assert {outcome.status for outcome in items(record).values()} == {"failed"}


def in_a_file(request: ChatRequest) -> str:
    """An answer with a file whose name and text are hostile, or a hostile answer."""
    asked = request.messages[-1].content
    number = asked.split()[1] if asked.startswith("file") else ""
    return f"out/{HOSTILE[int(number)]}\n```\n{HOSTILE[int(number)]}\n```\n" if number else answer(request)


def test_files_of_an_answer_stay_where_the_stage_may_write() -> None:
    Path("p.yaml").touch()
    before = files()
    written = stage("prompt: 'file ${{ index }}'\nwrites: ['out/**']\noutput: files\nattempts: 1")

    ran(written.replace("parallel: 4", "parallel: 1"), model=ScriptedProvider(otherwise=in_a_file))

    new = [path for path in files() if path not in before]
    assert len(new) >= 3
    assert [path for path in new if not path.startswith("workspace/out/")] == []


@pytest.mark.parametrize(
    "words",
    [
        "['${{ said }}', PWNED]",
        "[env, '${{ said }}', PWNED]",
        "[timeout, '5', '${{ said }}', PWNED]",
        "[env, 'BASH_ENV=${{ said }}', bash, -c, 'true']",
        "[make, '${{ said }}']",
    ],
)
def test_no_answer_of_a_loop_decides_what_a_command_runs(words: str) -> None:
    record = ran(stage(f"run: {words}"))

    assert ["FC210" in str(outcome.error) for outcome in items(record).values()] == [True] * len(HOSTILE)
    assert nothing_was_run()


@pytest.mark.parametrize("name", ["BASH_ENV", "PATH", "LD_PRELOAD", "GIT_SSH_COMMAND"])
def test_no_answer_of_a_loop_decides_what_programs_do(name: str) -> None:
    record = ran(stage(f"env: {{{name}: '${{{{ said }}}}'}}\nrun: ls"))

    assert ["FC210" in str(outcome.error) for outcome in items(record).values()] == [True] * len(HOSTILE)
    assert nothing_was_run()


def test_no_answer_of_a_loop_is_the_program_of_a_script() -> None:
    record = ran(stage('run: x="${{ said }}"; "$x" PWNED'))

    assert ["FC210" in str(outcome.error) for outcome in items(record).values()] == [True] * len(HOSTILE)
    assert nothing_was_run()
