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


NEVER_DATA = [
    # here-documents, here-strings and pipes into interpreters
    "bash <<E\necho ${{ v }}\nE",
    "bash -s <<E\necho ${{ v }}\nE",
    "sudo -u me bash <<-E\n\techo ${{ v }}\n\tE",
    "python3 <<E\nprint('${{ v }}')\nE",
    "python3 - a <<E\nprint('${{ v }}')\nE",
    "perl <<E\n${{ v }}\nE",
    "node <<E\n${{ v }}\nE",
    "make -f /dev/stdin <<E\nall:\n\techo ${{ v }}\nE",
    "make -f - <<E\nall:\n\techo ${{ v }}\nE",
    "ssh host <<E\nls ${{ v }}\nE",
    "ssh host bash -s <<E\nls ${{ v }}\nE",
    "docker exec -i box sh <<E\nls ${{ v }}\nE",
    "sqlite3 x.db <<E\nselect '${{ v }}';\nE",
    "source /dev/stdin <<E\necho ${{ v }}\nE",
    'bash <<< "${{ v }}"',
    "sh <<< ${{ v }}",
    'bash 2>&1 <<< "${{ v }}"',
    'bash < <(echo "${{ v }}")',
    'echo "${{ v }}" | bash',
    'echo "${{ v }}" | sh -x',
    'echo "${{ v }}" | python3',
    'echo "${{ v }}" | tr a b | sudo bash -',
    'echo "${{ v }}" |& bash',
    'echo "${{ v }}" 2>&1 | bash',
    'echo "${{ v }}" |\n  bash',
    '{ echo "${{ v }}"; } | bash',
    '(echo a; echo "${{ v }}") | bash',
    'for x in ${{ v }}; do echo "$x"; done | bash',
    'if true; then echo "${{ v }}"; fi | bash',
    "cat <<E | bash\necho ${{ v }}\nE",
    'echo "${{ v }}" | . /dev/stdin',
    'echo "${{ v }}" | tee >(bash)',
    'source <(echo "${{ v }}")',
    '. <(printf %s "${{ v }}")',
    'bash <(echo "${{ v }}")',
    "python3 <(echo ${{ v }})",
    # xargs and parallel
    'echo "${{ v }}" | xargs -I{} sh -c "echo {}"',
    "echo \"${{ v }}\" | xargs -I % bash -c 'echo %'",
    'echo "${{ v }}" | xargs sh -c',
    'xargs -0 -n1 bash -c <<< "${{ v }}"',
    'echo "${{ v }}" | parallel',
    "echo \"${{ v }}\" | parallel sh -c 'echo {}'",
    # through substitutions and variables
    'eval "$(echo ${{ v }})"',
    'bash -c "$(cat <<< "${{ v }}")"',
    'v="${{ v }}"; echo "${v@P}"',
    'v="${{ v }}"; echo "${!v}"',
    'v="${{ v }}"; eval "$v"',
    'v="${{ v }}"; w="echo $v"; eval "${w}"',
    'v=$(echo "${{ v }}"); eval "$v"',
    'v="${{ v }}"; bash -c "$v"',
    'v="${{ v }}"; bash <<< "$v"',
    'v="${{ v }}"; bash -c "echo ${v:-x}"',
    'v=(a "${{ v }}"); eval "${v[@]}"',
    'local v="${{ v }}"; eval $v',
    'read -r v <<< "${{ v }}"; eval "$v"',
    'printf -v v %s "${{ v }}"; eval "$v"',
    'set -- "${{ v }}"; eval "$1"',
    'for v in ${{ v }}; do eval "$v"; done',
    'v=x; v+="${{ v }}"; eval "$v"',
    'v="${{ v }}"; trap "$v" EXIT',
    # programs with code as an argument
    'awk "/${{ v }}/ {print}" f',
    'sed -i "s/x/${{ v }}/" f',
    'find . -exec sh -c "cat ${{ v }}" \\;',
    'compgen -W "${{ v }}"',
    'timeout 5 bash -c "echo ${{ v }}"',
    'docker run alpine sh -c "ls ${{ v }}"',
    'ssh host "ls ${{ v }}"',
    'git -c alias.x="${{ v }}" x',
    'x="${{ v }}"; ssh host "ls $x"',
    'declare -i x="${{ v }}"',
    'for ((i = 0; i < 3; i++)); do eval "${{ v }}"; done',
    'case a in (a) eval "${{ v }}";; esac',
    'case a in a) eval "${{ v }}" ;; esac',
    'command eval "${{ v }}"',
    'f() { eval "${{ v }}"; }; f',
    'function f { eval "${{ v }}"; }; f',
    "bash -c 'eval \"$1\"' _ ${{ v }}",
    '\\bash -c "${{ v }}"',
    'bash \\\n  -c "${{ v }}"',
    # stdin of what stands around the interpreter
    'echo "${{ v }}" | (bash)',
    'echo "${{ v }}" | { bash; }',
    'echo "${{ v }}" | if true; then bash; fi',
    '{ bash; } <<< "${{ v }}"',
    '(cd x && bash) <<< "${{ v }}"',
    "( bash ) <<E\n${{ v }}\nE",
    'echo "${{ v }}" | while read -r l; do eval "$l"; done',
    'while true; do bash; done <<< "${{ v }}"',
]
NO_RESULT_DECIDES = [
    "${{ stages.v.output }} PWN",
    '"${{ stages.v.output }}" PWN',
    'true; "${{ stages.v.output }}" PWN',
    'true && "${{ stages.v.output }}" PWN',
    'true | "${{ stages.v.output }}" PWN',
    'if true; then "${{ stages.v.output }}" PWN; fi',
    'for x in a; do "${{ stages.v.output }}" PWN; done',
    '{ "${{ stages.v.output }}" PWN; }',
    '( "${{ stages.v.output }}" PWN )',
    'echo $("${{ stages.v.output }}" PWN)',
    'A=b "${{ stages.v.output }}" PWN',
    '> out "${{ stages.v.output }}" PWN',
    'env "${{ stages.v.output }}" PWN',
    'timeout 5 "${{ stages.v.output }}" PWN',
    'exec "${{ stages.v.output }}" PWN',
    'command "${{ stages.v.output }}" PWN',
    'sudo -u me "${{ stages.v.output }}" PWN',
    'find . -exec "${{ stages.v.output }}" PWN \\;',
    'echo PWN | xargs "${{ stages.v.output }}"',
    'echo "${{ stages.v.output }}" | xargs -I{} {} PWN',
    './bin/"${{ stages.v.output }}" PWN',
    'x="${{ stages.v.output }}"; "$x" PWN',
    'x="${{ stages.v.output }}"; $x',
    'x="${{ stages.v.output }}"; ${x} PWN',
    'x=("${{ stages.v.output }}"); "${x[@]}" PWN',
    'x=$(echo "${{ stages.v.output }}"); $x PWN',
    '$(echo "${{ stages.v.output }}") PWN',
    'case x in x) "${{ stages.v.output }}" PWN;; esac',
    'PS4="${{ stages.v.output }}"; set -x; ls',
    'PATH="${{ stages.v.output }}:$PATH" ls',
    'export BASH_ENV="${{ stages.v.output }}"',
    'env LD_PRELOAD="${{ stages.v.output }}" ls',
    'make "TITLE=${{ stages.v.output }}"',
]
DATA = [
    'echo "${{ v }}" 2>&1; ls',
    'ls &> log; cat <<< "${{ v }}"',
    "cat <<E > f\n${{ v }}\nE\nls",
    "python3 -c 'import sys; print(sys.stdin.read())' <<< \"${{ v }}\"",
    'python3 script.py <<< "${{ v }}"',
    "python3 script.py - <<E\n${{ v }}\nE",
    'bash script.sh "${{ v }}" <<< "${{ v }}"',
    'bash -s -- "${{ v }}" <<\'E\'\necho "$1"\nE',
    'echo "${{ v }}" | grep -c python',
    'grep bash <<< "${{ v }}"',
    'echo "${{ v }}" || bash x.sh',
    'echo "${{ v }}"; bash < x.sh',
    'echo "${{ v }}" | xargs -0 -n1 ls --',
    'echo "${{ v }}" | xargs -I{} sh -c \'echo "$1"\' _ {}',
    'echo "${{ v }}" | while read -r x; do echo "$x"; done',
    "awk -v x=\"${{ v }}\" '{print x}' f",
    "jq --arg x \"${{ v }}\" '.[$x]' f",
    'sed -n 2p <<< "${{ v }}"',
    'v="${{ v }}"; echo "${v@Q}" "${#v}" "${v%x}"',
    'v="${{ v }}"; ssh host "ls ${v@Q}"',
    'ssh host "ls $(printf %q ${{ v }})"',
    'bash -c \'echo "$v"\' _ "${{ v }}"',
    'case "${{ v }}" in "${{ v }}" | b) ls;; (c) ls;; ${{ v }}) ls;; esac',
    'a=(b "${{ v }}" c)\nls "${a[0]}"',
    'a=(\n  "${{ v }}"\n  c\n)',
    'diff <(echo "${{ v }}") f',
    'git commit -m "${{ v }}" -m "$(cat <<E\n${{ v }}\nE\n)"',
    'f() { echo "$1"; }; f "${{ v }}"',
    'x="${{ v }}" ./program',
    'command -v "${{ v }}"',
    'while [ "${{ v }}" != a ]; do break; done',
    "shopt -s extglob; ls !(${{ v }})",
    'n=$(wc -c <<< "${{ v }}"); echo $((n + 1))',
    'v="${{ v }}"; n=3; [[ -n "$v" && $n -gt 1 ]]',
    "docker exec -i box cat <<E\n${{ v }}\nE",
    'cat <<E\n$(cat <<< "${{ v }}")\nE',
    "# ${{ v }}\nls",
    'echo "${{ v }}" | { bash < x.sh; }',
    'echo "${{ v }}" | (bash x.sh)',
    'ls \\\n  "${{ v }}"',
    'find . -name "${{ v }}" -exec cat {} \\;',
    'if [ -f x ]; then echo "${{ v }}"; fi; bash x.sh',
]


def test_a_variable_that_doubles_itself_is_read_at_once() -> None:
    Script("x=${{ v }}\n" + "x=$x$x\n" * 200 + "echo $x").check()


@pytest.mark.parametrize("script", NEVER_DATA)
def test_a_value_is_no_code_wherever_the_script_leads_it(script: str) -> None:
    with pytest.raises(ExpressionError) as error:
        Script(script).check()

    assert error.value.code == "FC210"
    assert error.value.hint


@pytest.mark.parametrize("script", NO_RESULT_DECIDES)
def test_no_result_decides_what_runs(script: str) -> None:
    with pytest.raises(ExpressionError) as error:
        Script(script).check()
    with pytest.raises(ExpressionError) as later:
        Script(script.replace("stages.v.output", "v")).render({"v": "ls"}, given=lambda _: False)

    assert (error.value.code, later.value.code) == ("FC210", "FC210")
    Script(script.replace("stages.v.output", "v")).render({"v": "ls"}, given=lambda _: True)


@pytest.mark.parametrize("script", DATA)
def test_a_value_may_be_data(script: str) -> None:
    Script(script).check()
    Script(script.replace("${{ v }}", "${{ stages.v.output }}")).check()


@pytest.mark.parametrize(
    "script",
    [
        'for f in ${{ v }}; do ls "$f"; done',
        'f="${{ v }}"; ls "$f"',
        'f="${{ v }}"; ls a "${f}"',
        'set -- "${{ v }}"; ls "$1"',
        'f=("${{ v }}"); ls "${f[@]}"',
    ],
)
def test_a_result_is_no_option_through_a_variable(script: str) -> None:
    with pytest.raises(ExpressionError, match="would be an option of 'ls'"):
        Script(script).render({"v": "-la"}, given=lambda _: False)

    Script(script).render({"v": "-la"}, given=lambda _: True)
    Script(script).render({"v": "a"}, given=lambda _: False)
    Script(script.replace("ls ", "ls -- ")).render({"v": "-la"}, given=lambda _: False)


@pytest.mark.parametrize("script", ['f="${{ v }}"; ls $f', 'f="${{ v }}"; for g in $f; do ls "$g"; done'])
def test_no_word_of_a_result_is_an_option_where_bash_splits_it(script: str) -> None:
    with pytest.raises(ExpressionError, match="would be an option of 'ls'"):
        Script(script).render({"v": "a -la"}, given=lambda _: False)

    Script(script.replace("ls ", "ls -- ")).render({"v": "a -la"}, given=lambda _: False)
    Script('f="${{ v }}"; g=$f; ls "$g"').render({"v": "a -la"}, given=lambda _: False)


@pytest.mark.parametrize(
    "script",
    [
        "x=${{ v }}; echo $((x + 1))",
        "x=${{ v }}; echo $(($x + 1))",
        "x=${{ v }}; ((x > 2)) && echo 4",
        "x=${{ v }}; [[ $x -eq 3 ]] && echo 4",
        "x=${{ v }}; [[ 3 -eq x ]] && echo 4",
        "x=${{ v }}; y=abcde; echo ${y:x:1} | sed s/d/4/",
        "for ((i = ${{ v }}; i < 4; i++)); do echo 4; done",
        "set -- ${{ v }}; echo $(($1 + 1))",
        "x=${{ v }}; let y=x+1; echo $y",
        "x=${{ v }}; a[x]=4; echo ${a[3]}",
        "x=${{ v }}; a[$x]=4; echo ${a[3]}",
        "x=${{ v }}; a=(1 2 3 4); echo ${a[$x]}",
        "x=${{ v }}; echo $[x + 1]",
    ],
)
def test_where_bash_calculates_only_variables_with_numbers_go_in(script: str, workspace: Path) -> None:
    assert ran(script, 3).strip() == "4"
    with pytest.raises(ExpressionError, match="must be a number"):
        ran(script, "a[$(touch pwned)]")
    assert list(workspace.iterdir()) == []
