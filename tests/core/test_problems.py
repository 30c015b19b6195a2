import json

from flowcraft.core.problems import Guesses, Problem, as_github, as_json, as_text, did_you_mean, nearest, ordered

PROBLEM = Problem(
    file="p.yaml",
    line=6,
    column=5,
    code="FC101",
    message="unknown key 'promt' in stage 'analysis'",
    hint="did you mean 'prompt'?",
    source='    promt: "Plan"',
    width=5,
)


def test_text_shows_place_line_caret_and_help() -> None:
    assert as_text(PROBLEM) == (
        "p.yaml:6:5: error[FC101]: unknown key 'promt' in stage 'analysis'\n"
        '    6 |     promt: "Plan"\n'
        "      |     ^~~~~\n"
        "      = help: did you mean 'prompt'?"
    )


def test_text_of_a_problem_of_the_whole_file_has_no_line() -> None:
    assert as_text(Problem(file="p.yaml", code="FC005", message="no such file")) == "p.yaml: error[FC005]: no such file"


def test_a_very_long_line_is_cut_around_the_place() -> None:
    text = as_text(Problem(file="p", line=1, column=5000, code="X", message="m", source="a" * 9999 + "b", width=3))

    quoted, caret = text.splitlines()[1:]
    assert len(quoted) < 140
    assert caret.endswith("^~~")


def test_json_holds_every_field() -> None:
    [row] = json.loads(as_json([PROBLEM]))

    assert row == {
        "file": "p.yaml",
        "line": 6,
        "column": 5,
        "severity": "error",
        "code": "FC101",
        "message": "unknown key 'promt' in stage 'analysis'",
        "help": "did you mean 'prompt'?",
    }


def test_github_annotation_escapes_its_separators() -> None:
    problem = Problem(file="a,b:c.yaml", line=1, column=2, code="FC1", message="50% of\nit")

    assert as_github(problem) == "::error file=a%2Cb%3Ac.yaml,line=1,col=2,title=FC1::50%25 of%0Ait"


def test_nearest_finds_the_word_that_was_meant() -> None:
    assert nearest("promt", ["prompt", "params"]) == "prompt"
    assert nearest("zzz", ["prompt"]) is None


def test_did_you_mean_lists_a_few_names_when_none_is_near() -> None:
    assert did_you_mean("zzz", ["b", "a"]) == "known: a, b"
    assert did_you_mean("zzz", [str(n) * 3 for n in range(50)]) is None


def test_problems_are_ordered_by_place_and_said_once() -> None:
    later = Problem(file="p.yaml", line=9, column=1, code="FC1", message="later")

    assert ordered([later, PROBLEM, later]) == [PROBLEM, later]


def test_thousands_of_wrong_names_get_no_guess_each() -> None:
    guesses = Guesses()
    asked: list[str] = []

    def known() -> list[str]:
        asked.append("once more")
        return [f"stage_{number}" for number in range(30_000)]

    hints = [guesses.did_you_mean("stege_7", known) for _ in range(4)]

    assert [hint is not None for hint in hints] == [True, True, False, False]
    assert guesses.nearest("stege_7", known) is None
    assert len(asked) == 2
