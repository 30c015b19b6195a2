"""Commands in list form: a value is an argument, never code for an interpreter; the same table serves scripts."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from flowcraft.core.errors import PipelineError
from flowcraft.pipeline.load import load

V = "${{ stages.a.output }}"
REFUSED: list[list[str]] = [
    ["bash", "-c", f"grep {V} notes.txt"],
    ["sh", "-c", V],
    ["/bin/sh", "-ec", f"echo '{V}'"],
    ["bash", "-lc", V],
    ["bash", "-euo", "pipefail", "-c", V],
    ["bash", "-c", "-e", V],
    ["bash", "-c", 'eval "$1"', "_", V],
    ["bash", "-c", "( " * 200, "_", V],
    ["bash", "-c", '"$2" PWN', "_", "a", V],
    ["bash", "-c", 'x=$1; bash -c "$x"', "_", V],
    ["sh", "-c", 'echo "$@" | sh', "_", V],
    ["sh", "-c", 'sh -c \'eval "$1"\' _ "$1"', "_", V],
    ["bash", "--norc", "-c", f"echo {V}"],
    ["dash", "-c", V],
    ["zsh", "-c", V],
    ["ksh", "-c", V],
    ["busybox", "sh", "-c", V],
    ["env", "sh", "-c", V],
    ["env", "-i", "A=b", "-u", "C", "bash", "-c", V],
    ["env", "-S", f"echo {V}"],
    ["timeout", "-k", "5", "10", "bash", "-c", V],
    ["nice", "-n", "5", "nohup", "bash", "-c", V],
    ["stdbuf", "-oL", "setsid", "sh", "-c", V],
    ["sudo", "-u", "me", "sh", "-c", V],
    ["doas", "sh", "-c", V],
    ["xargs", "-a", "list", "sh", "-c", V],
    ["find", ".", "-name", "*.py", "-exec", "sh", "-c", f"cat {V}", ";"],
    ["find", ".", "-execdir", "bash", "-c", V, ";"],
    ["find", ".", "-ok", "python3", "-c", V, ";"],
    ["find", ".", "-exec", V, "{}", ";"],
    ["ssh", "host", f"ls {V}"],
    ["ssh", "-p", "22", "host", "ls", V],
    ["ssh", "-o", f"ProxyCommand={V}", "host"],
    ["su", "-c", f"ls {V}", "me"],
    ["su", "me", "-c", V],
    ["watch", "-n", "5", f"ls {V}"],
    ["parallel", f"echo {V}", ":::", "a"],
    ["parallel", ":::", V],
    ["parallel", "sh", "-c", "echo {}", ":::", V],
    ["script", "-q", "-c", V, "/dev/null"],
    ["flock", "lock", "-c", V],
    ["docker", "run", "--rm", "alpine", "sh", "-c", f"ls {V}"],
    ["python", "-c", f"print('{V}')"],
    ["python3", "-Ic", V],
    ["python3.12", "-W", "ignore", "-c", V],
    ["/usr/bin/python3", f"-c{V}"],
    ["uv", "run", "python", "-c", V],
    ["perl", "-e", V],
    ["perl", "-lane", f"print if /{V}/", "f"],
    ["perl", "-E", V],
    ["perl", f"-M{V}", "f.pl"],
    ["ruby", "-rjson", "-e", V],
    ["node", "-e", V],
    ["node", "-p", V],
    ["node", "--eval", V],
    ["node", f"--eval={V}"],
    ["php", "-r", V],
    ["lua", "-e", V],
    ["Rscript", "-e", V],
    ["awk", f"/{V}/ {{print}}", "f"],
    ["gawk", "-F", ":", "-v", "x=1", f"{{print {V}}}", "f"],
    ["gawk", "-e", V, "f"],
    ["sed", "-i", f"s/x/{V}/", "f"],
    ["sed", "-n", "-e", "p", "-e", V, "f"],
    ["sed", f"--expression={V}", "f"],
    ["make", "--eval", V],
    ["make", f"--eval={V}"],
    ["make", f"TITLE={V}"],
    ["make", V],
    ["git", "-c", f"alias.x={V}", "x"],
    ["git", "-c", f"core.sshCommand={V}", "fetch"],
    ["git", "-c", V, "log"],
    ["git", "config", "core.pager", V],
    ["git", "config", V, "x"],
    ["git", "clone", f"--upload-pack={V}", "x"],
    ["git", "rebase", "-x", V, "main"],
    ["git", "submodule", "foreach", V],
    ["tar", f"--to-command={V}", "-xf", "a.tar"],
    ["tar", "-I", V, "-xf", "a.tar"],
    ["rsync", "-e", V, "a", "b:"],
    ["sort", f"--compress-program={V}", "f"],
    ["vim", "-c", V, "f"],
    ["sqlite3", "x.db", f"select '{V}'"],
    ["psql", "-c", f"select '{V}'"],
    ["eval", V],
    [V, "x"],
    [f"./bin/{V}", "x"],
    ["env", V, "PWN"],
    ["env", "A=b", V],
    ["env", f"BASH_ENV={V}", "bash", "x.sh"],
    ["timeout", "5", V, "PWN"],
    ["nice", V],
    ["nohup", V],
    ["sudo", "-u", "me", V],
    ["xargs", "-a", "list", V],
]
ALLOWED: list[list[str]] = [
    ["bash", "-c", 'grep "$1" notes.txt', "_", V],
    ["bash", "-c", "-e", 'grep "$1" notes.txt', "_", V],
    ["bash", "script.sh", "-c", V],
    ["bash", "-c", 'eval "$1"; echo "$2"', "_", "ls", V],
    ["bash", "-c", 'eval "$1', "_", "ls", V],
    ["bash", "-o", "pipefail", "script.sh", V],
    ["env", f"SAID={V}", "printenv", "SAID"],
    ["timeout", V, "ls"],
    ["python3", "-c", "import sys; print(sys.argv[1])", V],
    ["python3", "script.py", "-c", V],
    ["python3", "-m", "pytest", "-c", V],
    ["perl", "-ne", "print", "--", V],
    ["node", "app.js", "-e", V],
    ["awk", "-v", f"x={V}", "{print x}", "f"],
    ["awk", "-F", V, "{print $1}", "f"],
    ["awk", "-f", "prog.awk", V],
    ["sed", "-n", "p", "--", V],
    ["sed", "-e", "p", "--", V],
    ["grep", "-c", V, "f"],
    ["grep", "-e", V, "f"],
    ["echo", "bash", "-c", V],
    ["git", "commit", "-m", V],
    ["bash", "-c", "git; xargs; find; env; parallel; ssh; make; git -c; git config", "_", V],
    ["git", "commit", "-c", V],
    ["git", "-c", f"user.name={V}", "commit"],
    ["git", "config", "user.name", V],
    ["gh", "pr", "create", "--title", V],
    ["find", ".", "-name", V, "-exec", "cat", "{}", ";"],
    ["make", "-C", "dir", "test"],
    ["jq", "--arg", "x", V, ".[$x]", "f.json"],
    ["ssh", "-l", V, "host", "ls"],
    ["parallel", "echo", ":::", V],
    ["curl", "-e", V, "-d", V, "http://127.0.0.1/"],
    ["docker", "run", "-e", f"X={V}", "alpine", "ls", V],
    ["rg", "python", "-c", V],
    ["command", "-v", V],
    ["tar", "-cf", "a.tar", "--", V],
    ["xargs", "-a", "list", "grep", V],
    ["sqlite3", "-safe", "x.db", V],
    ["${{ 'bash' }}", "-c", "${{ 'ls' }}"],
    ["${{ inputs.tool }}", "x"],
    ["make", "${{ inputs.tool }}"],
]


def problems(where: Path, stage: str) -> list[str]:
    path = where / "p.yaml"
    path.write_text(f"flowcraft: 1\ninputs: {{tool: string}}\nstages:\n  - {{id: a, prompt: x}}\n{stage}")
    try:
        load(path)
    except PipelineError as error:
        return [str(problem) for problem in error.problems]
    return []


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_a_value_is_no_code_of_a_command_in_list_form(words: Sequence[str], tmp_path: Path) -> None:
    told = problems(tmp_path, f"  - {{id: b, run: {json.dumps(words)}}}\n")

    assert [("error[FC210]" in one, "help" in one or "hint" in one) for one in told] == [(True, True)]


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_a_value_is_no_code_of_a_command_of_a_check(words: Sequence[str], tmp_path: Path) -> None:
    words = [word.replace(V, "${{ output }}") for word in words]

    told = problems(tmp_path, f"  - {{id: b, prompt: x, check: [{{run: {json.dumps(words)}}}]}}\n")

    assert ["error[FC210]" in one for one in told] == [True]


@pytest.mark.parametrize("words", ALLOWED, ids=" ".join)
def test_a_value_is_an_argument_of_a_command_in_list_form(words: Sequence[str], tmp_path: Path) -> None:
    assert problems(tmp_path, f"  - {{id: b, run: {json.dumps(words)}}}\n") == []
