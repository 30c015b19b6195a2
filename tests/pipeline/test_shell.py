"""Values in scripts: run by the real bash, every value comes out as it is and nothing in it is run."""

import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcraft.core.errors import ExpressionError
from flowcraft.pipeline.expr import Script

PAYLOADS = [
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned",
    "&& touch pwned",
    "| touch pwned",
    "|| touch pwned",
    "& touch pwned &",
    "\ntouch pwned\n",
    '"; touch pwned; "',
    "'; touch pwned; '",
    '"$(touch pwned)"',
    "'$(touch pwned)'",
    "${IFS}touch${IFS}pwned",
    "$((a[$(touch pwned)]))",
    "a[$(touch pwned)]",
    "x=a[$(touch pwned)]",
    "{touch,pwned}",
    "<(touch pwned)",
    "> pwned",
    ">> pwned",
    "< /etc/passwd",
    "*",
    "?*",
    "~",
    "-n -e",
    "--version",
    "$HOME",
    "\\",
    "EOF\ntouch pwned\nEOF",
    "!!; touch pwned",
    "#{touch pwned}",
    "() { :;}; touch pwned",
    "'\"'\"'; touch pwned",
    "  spaced   out  ",
    "trailing newline\n\n",
    "\u2028\x1b[31m\u202e",
]
POSITIONS = {
    "unquoted": "printf '%s.' ${{ v }}",
    "double": "printf '%s.' \"${{ v }}\"",
    "assigned": "x=${{ v }}; printf '%s.' \"$x\"",
    "command substitution": "printf '%s.' \"$(printf '%s.' ${{ v }})\" | sed '$ s/.$//'",
    "quoted command substitution": "printf '%s.' \"$(printf '%s.' \"${{ v }}\")\" | sed '$ s/.$//'",
    "test": "[[ ${{ v }} == \"${{ v }}\" ]] && printf '%s.' ${{ v }}",
    "array": "a=(${{ v }} b); printf '%s.' \"${a[0]}\"",
    "function": "f() { printf '%s.' \"$1\"; }; f ${{ v }}",
    "loop": "for x in ${{ v }}; do printf '%s.' \"$x\"; done",
    "case": "case ${{ v }} in a) ;; *) printf '%s.' ${{ v }};; esac",
    "case in substitution": "printf '%s.' \"$(case b in a) echo;; *) printf '%s.' ${{ v }};; esac)\" | sed '$ s/.$//'",
    "after odd quotes": "x=\"it's \\\" $'\\''\" # don't\nprintf '%s.' ${{ v }}",
    "argument of bash -c": 'bash -c \'printf "%s." "$1"\' bash ${{ v }}',
}


def ran(script: str, value: Any, spill: Any = None, cwd: Path | None = None) -> str:
    text, env = Script(script).render({"v": value}, spill=spill)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **env},
        capture_output=True,
        check=False,
        cwd=cwd,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@pytest.mark.parametrize("position", POSITIONS)
def test_a_payload_only_prints_itself(position: str, workspace: Path) -> None:
    (workspace / "bait").touch()

    for payload in PAYLOADS:
        assert ran(POSITIONS[position], payload) == payload + "."

    assert [entry.name for entry in workspace.iterdir()] == ["bait"]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_payload_in_a_heredoc_only_prints_itself(payload: str, workspace: Path) -> None:
    assert ran("cat <<EOF\n<${{ v }}>\nEOF\n", payload) == f"<{payload}>\n"
    assert ran("cat <<-E1; cat <<E2\n\t<${{ v }}>\n\tE1\n[${{ v }}]\nE2\n", payload) == f"<{payload}>\n[{payload}]\n"
    assert list(workspace.iterdir()) == []


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",))))
def test_any_text_goes_through_the_shell_unchanged(value: str) -> None:
    assert ran("printf '%s|%s' ${{ v }} \"${{ v }}\"", value) == f"{value}|{value}"


@pytest.mark.parametrize(
    ("value", "text"), [(3, "3"), (True, "true"), (1.5, "1.5"), ([1], "[\n  1\n]"), ({"a": None}, '{\n  "a": null\n}')]
)
def test_values_that_are_not_text_go_in_as_json(value: Any, text: str) -> None:
    assert ran("printf %s ${{ v }}", value) == text


def test_a_large_value_travels_by_file_and_keeps_every_character(workspace: Path) -> None:
    large = "é'\"$(touch pwned)\n" * 60_000 + "\n\n"

    def spill(name: str, text: str) -> str:
        (workspace / name).write_text(text, newline="")
        return str(workspace / name)

    assert ran('printf %s ${{ v }}; printf %s "${{ v }}"', large, spill) == large * 2
    assert [entry.name for entry in workspace.iterdir()] == ["FLOWCRAFT_VALUE_1"]


def test_many_values_leave_the_environment_before_it_is_full(workspace: Path) -> None:
    spilled: dict[str, str] = {}
    script = "; ".join(f"echo ${{{{ v ~ {number} }}}}" for number in range(20))

    _, env = Script(script).render(
        {"v": "x" * 60_000}, spill=lambda name, text: spilled.setdefault(name, "/x") and "/x"
    )

    assert sum(map(len, env.values())) < 600_000
    assert len(spilled) + len(env) - len(spilled) == 20


def test_a_large_value_without_a_place_for_files_is_refused() -> None:
    with pytest.raises(ExpressionError, match="larger than 64 KiB"):
        Script("echo ${{ v }}").render({"v": "x" * 70_000})


@pytest.mark.parametrize("value", ["a\0b", None])
def test_what_no_variable_can_hold_is_refused(value: Any) -> None:
    with pytest.raises(ExpressionError, match="NUL|null") as caught:
        Script("echo ${{ v }}").render({"v": value})

    assert caught.value.code == "FC300"


@pytest.mark.parametrize(
    "script",
    [
        "echo \"${#a[@]} ${i%.*} $((1 + 2)) ${x:-{{}}}\" {{ {% {# `date` $'a\\'b'",
        "cat <<'EOF'\n{{ x }} ${y}\nEOF\n",
    ],
)
def test_a_script_without_values_stays_as_it_is(script: str) -> None:
    assert Script(script).is_static
    assert Script(script).render({}) == (script, {})


@pytest.mark.parametrize(
    "script",
    [
        "echo '${{ v }}'",
        "echo $'${{ v }}'",
        'echo "a" \'"${{ v }}"\'',
        "cat <<'EOF'\n${{ v }}\nEOF",
        'cat <<"EOF"\n${{ v }}\nEOF',
        "cat <<\\EOF\n${{ v }}\nEOF",
        "cat <<-'EOF'\n\tx\n\t${{ v }}\n\tEOF",
        "cat <<${{ v }}\na\n",
        "echo `echo ${{ v }}`",
        'echo "`echo ${{ v }}`"',
        "echo ${x:-${{ v }}}",
        'echo "${x:${{ v }}:1}"',
        'echo "${a[${{ v }}]}"',
        "eval ${{ v }}",
        'true; eval "echo ${{ v }}"',
        "bash -c ${{ v }}",
        'sudo sh -ec "echo ${{ v }}"',
        'python3 -c "print(${{ v }})"',
        'trap "echo ${{ v }}" EXIT',
        "printf -v ${{ v }} x",
        "read -r ${{ v }}",
        "declare ${{ v }}=1",
        "echo $(echo '${{ v }}')",
        "echo \"$(echo '${{ v }}')\"",
        "if true; then echo '${{ v }}'; fi",
        "echo \\${{ v }}",
        "${% if v %}",
    ],
)
def test_a_value_where_bash_would_not_take_it_as_data_is_refused(script: str) -> None:
    with pytest.raises(ExpressionError) as error:
        Script(script).check()

    assert error.value.code == ("FC202" if "${%" in script else "FC210")
    assert error.value.hint


@pytest.mark.parametrize(
    "script",
    [
        "echo $(( ${{ v }} + 1 ))",
        'echo "$(( ${{ v }} + 1 ))"',
        "(( ${{ v }} > 1 )) && echo yes || echo 4",
        "echo $[ ${{ v }} + 1 ]",
        '[[ "${{ v }}" -eq 3 ]] && echo 4',
        "a[${{ v }}]=4; echo ${a[3]}",
    ],
)
def test_where_bash_calculates_only_numbers_go_in(script: str, workspace: Path) -> None:
    assert ran(script, 3).strip() in ("4", "yes")
    with pytest.raises(ExpressionError, match="must be a number"):
        ran(script, "a[$(touch pwned)]")
    assert list(workspace.iterdir()) == []


def test_a_value_in_a_comment_does_no_harm() -> None:
    assert ran("echo a # it's ${{ v }}\necho '${x}' ${{ v }}", "b") == "a\n${x} b\n"


@settings(max_examples=200, deadline=None)
@given(st.text("'\"`$(){}[]<\\#; \n=EOFab") | st.text())
def test_any_script_can_be_scanned(script: str) -> None:
    with suppress(ExpressionError):
        text, env = Script(script + "${{ v }}").render({"v": "x"})
        assert env == {"FLOWCRAFT_VALUE_1": "x"}
        assert text.replace('"', "").endswith("${FLOWCRAFT_VALUE_1}")
