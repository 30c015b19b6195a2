"""Programs that run what they are given: which of their arguments are code, and which name the next program.

Taken from their manuals: bash(1), POSIX sh, python(1), perlrun(1), ruby(1), `node --help`, php(1), lua(1), gawk(1),
sed(1), GNU make(1), ssh(1), git-config(1), find(1), xargs(1), coreutils; the variables from bash(1) and ld.so(8).
What is not named here, such as the SQL of a database or the filter of jq, counts as data.
"""

import re
from dataclasses import dataclass

EXAMPLES = {  # the safe form: words, as a list has them; a script has them with blanks between
    "shell": ("bash", "-c", "'echo \"$1\"'", "bash", "${{ x }}"),
    "python": ("python3", "-c", "'import sys; print(sys.argv[1])'", "${{ x }}"),
    "perl": ("perl", "-e", "'print $ARGV[0]'", "--", "${{ x }}"),
    "ruby": ("ruby", "-e", "'puts ARGV[0]'", "--", "${{ x }}"),
    "node": ("node", "-e", "'console.log(process.argv[1])'", "--", "${{ x }}"),
    "php": ("php", "-r", "'echo $argv[1];'", "--", "${{ x }}"),
    "awk": ("awk", "'BEGIN {print ARGV[1]}'", "--", "${{ x }}"),
}


@dataclass(frozen=True, slots=True)
class Program:
    """How a program is given code; the patterns are of a whole option.

    code      options whose value is code: the next word, or what the last group holds
    valued    options with a value of their own in the next word
    settings  values of those that are code
    stops     options behind which all is data of a script
    first     the first operand is code, unless an option has given it
    all       every operand from this number on is code; -1 none
    files     options that name a file of code
    stdin     without code and operands it reads code from stdin, `always` also with operands
    anywhere  its code options are clear enough to be found behind any program
    mixed     options may follow operands
    """

    code: str = r"(?!)"
    valued: str = r"(?!)"
    settings: str = r"(?!)"
    stops: str = r"(?!)"
    files: str = r"(?!)"
    first: bool = False
    all: int = -1
    stdin: bool = False
    always: bool = False
    anywhere: bool = False
    mixed: bool = False
    example: str = "shell"


_SHELL = Program(valued=r"[-+][A-Za-z]*[oO]", files=r"--rcfile|--init-file", stdin=True, anywhere=True)
_PROGRAMS: tuple[tuple[str, Program], ...] = (
    (r"(?:ba|rba|da|z|k|mk|pdk|ya|a|fi|c|tc|pw)?sh", _SHELL),
    (
        r"(?:python|pypy)[\d.]*",
        Program(
            code=r"-[bBdEhiIOPqsSuvVx]*c(.*)",
            valued=r"-[bBdEiIOPqsSuvx]*[WX]|--check-hash-based-pycs",
            stops=r"-[bBdEiIOPqsSuvx]*m.*",
            stdin=True,
            anywhere=True,
            example="python",
        ),
    ),
    (
        r"perl[\d.]*",
        Program(r"-[acfnlpsStTuUvwWX0-9]*[eE](.*)|-[mM](.*)", r"-I", stdin=True, anywhere=True, example="perl"),
    ),
    (
        r"ruby[\d.]*",
        Program(r"-[aclnpsSvwW0-9]*e(.*)", r"-[IrCE]", stdin=True, anywhere=True, example="ruby"),
    ),
    (
        r"node(?:js)?|bun|tsx",
        Program(
            r"-(?:e|p|pe|ep)|--(?:eval|print)(?:=(.*))?",
            r"-[rC]|--require|--import|--loader|--conditions|--input-type|--title",
            stdin=True,
            anywhere=True,
            example="node",
        ),
    ),
    (
        r"php[\d.]*",
        Program(
            r"-[rBRE](.*)|--(?:run|process-(?:begin|code|end))", r"-[dczSt]", stdin=True, anywhere=True, example="php"
        ),
    ),
    (r"lua(?:jit)?[\d.]*", Program(r"-e(.*)", r"-l", stdin=True, anywhere=True)),
    (
        r"Rscript|R|julia|osascript|groovy|scala|elixir|guile|racket|octave|sbcl|emacs|expect|tclsh|vim?|nvim",
        Program(r"-(?:e|E|c|eval)|--?(?:eval|execute|print|cmd)(?:=(.*))?|\+(.+)", stdin=True),
    ),
    (
        r"ed|ex|gdb|at|batch|m4",
        Program(r"-(?:c|ex)|\+(.+)|--eval-command(?:=(.*))?", r"-[fqtDIU]", stdin=True, always=True),
    ),
    (
        r"sqlite3|psql|mysql|mariadb",
        Program(
            r"-cmd|-[ce](.*)|--(?:command|execute)(?:=(.*))?",
            r"-[hpUdvPu]|--(?:host|port|username|dbname|set|variable|user|database)|-separator|-newline|-nullvalue",
            stops=r"--?safe",
            all=1,
            stdin=True,
            always=True,
        ),
    ),
    (
        r"(?:[gmn]|orig)?awk",
        Program(
            r"-e(.*)|--source(?:=(.*))?",
            r"-[Fvil]|--assign|--field-separator|--include|--load",
            files=r"-[fE]|--file|--exec",
            first=True,
            example="awk",
        ),
    ),
    (
        r"g?sed",
        Program(
            r"-[nrEszu]*e(.*)|--expression(?:=(.*))?",
            r"-l|--line-length",
            files=r"-[nrEszu]*f|--file",
            first=True,
            example="awk",
        ),
    ),
    (r"g?make", Program(r"-E(.*)|--eval(?:=(.*))?", r"-[CIjloW]|--directory", files=r"-f|--file|--makefile")),
    (
        r"ssh",
        Program(
            r"-o((?:Proxy|Local|KnownHosts)Command.*)",
            r"-[BbcDEeFIiJLlmOopQRSWw]",
            settings=r"(?:Proxy|Local|KnownHosts)Command.*",
            all=1,
            stdin=True,
            always=True,
        ),
    ),
    (
        r"su|runuser|script|flock|npx|npm|nix-shell",
        Program(r"-c(.*)|--(?:command|session-command|run|call)(?:=(.*))?", mixed=True),
    ),
    (r"watch", Program(valued=r"-[nq]|--interval|--equexit", all=0)),
    (r"eval|alias|trap|let|compgen|complete", Program(all=0)),
    (r"source|\.", Program(stdin=True)),
    (r"crontab", Program(valued=r"-u", stdin=True)),
    (r"tar|bsdtar", Program(r"-I(.*)|--(?:checkpoint-action|to-command|use-compress-program|rsh-command)(?:=(.*))?")),
    (r"rsync", Program(r"-[A-Za-z]*e|--(?:rsh|rsync-path)(?:=(.*))?")),
    (r"sort", Program(r"--compress-program(?:=(.*))?")),
    (r"man", Program(r"-P(.*)|--pager(?:=(.*))?")),
)
_NAMED = re.compile("|".join(f"(?P<p{number}>{names})" for number, (names, _) in enumerate(_PROGRAMS)))
# Keys of git whose value it runs.
_GIT_RUNS = (
    r"alias\..*|.*\.(?:command|editor|pager|helper|program|external|textconv|hookspath|fsmonitor|clean|smudge|process"
    r"|cmd|driver|sshcommand|askpass|gitproxy|uploadpack|receivepack)|pager\..*"
)
GIT_KEY = re.compile(rf"(?:{_GIT_RUNS})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Wrapper:
    """A program that runs the program among its operands, behind `operands` of its own."""

    valued: str = r"(?!)"
    operands: int = 0
    query: str = r"(?!)"  # options with which it runs nothing


WRAPPERS = {
    "env": Wrapper(r"-[uC]|--unset|--chdir"),
    "timeout": Wrapper(r"-[ks]|--kill-after|--signal", 1),
    "nice": Wrapper(r"-n|--adjustment"),
    "stdbuf": Wrapper(r"-[ioe]|--input|--output|--error"),
    "sudo": Wrapper(r"-[ugpCDRThrt]|--user|--group|--prompt|--chdir|--host", query=r"-[lvK]"),
    "doas": Wrapper(r"-[uC]"),
    "command": Wrapper(query=r"-[vV]+"),
    "exec": Wrapper(r"-a"),
    "time": Wrapper(r"-[fo]|--format|--output"),
    "ionice": Wrapper(r"-[cn]|--class|--classdata"),
    "chrt": Wrapper(operands=1),
    "taskset": Wrapper(operands=1),
    "chroot": Wrapper(operands=1),
    "flock": Wrapper(r"-[wE]|--timeout|--wait", 1),
    "strace": Wrapper(r"-[eopsuEP]"),
    "xargs": Wrapper(r"-[IndELPsa]|--max-args|--max-procs|--delimiter|--arg-file|--max-lines|--max-chars"),
    "parallel": Wrapper(r"-[jISNnaL]|--jobs|--delay|--timeout|--joblog|--arg-file|--colsep|--results"),
    **dict.fromkeys(("nohup", "setsid", "busybox", "builtin", "coproc", "unbuffer", "valgrind", "pkexec"), Wrapper()),
}
# These run programs elsewhere; what they are fed goes on to them.
RUNNERS = ("docker", "podman", "kubectl", "nerdctl", "ssh", "uv", "uvx", "poetry", "pipx", "conda", "npx", "nix", "wsl")
# These never run what they are told, whatever it looks like.
ONLY_TELL = ("echo", "printf", "grep", "egrep", "fgrep", "rg", "test", "[", ":", "true", "false", "cat", "for", "case")
FIND_RUNS = ("-exec", "-execdir", "-ok", "-okdir")
STDIN = ("-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")

# What a result may not say: which programs are found, what is loaded into them or run before them.
DECIDES = re.compile(
    r"BASH_ENV|ENV|PS[0-4]|PROMPT_COMMAND|BASH_FUNC_.*|SHELLOPTS|BASHOPTS|IFS|PATH|SHELL|CDPATH|GLOBIGNORE"
    r"|LD_[A-Z_]+|DYLD_[A-Z_]+|GCONV_PATH|PYTHON(?:STARTUP|PATH|HOME|INSPECT|BREAKPOINT|WARNINGS|USERBASE)"
    r"|PERL5(?:OPT|LIB|DB)|PERLLIB|RUBY(?:OPT|LIB)|NODE_(?:OPTIONS|PATH)|LUA_(?:INIT|PATH|CPATH)\w*|PHPRC|PHP_INI_SCAN_DIR"
    r"|JAVA_TOOL_OPTIONS|_JAVA_OPTIONS|JDK_JAVA_OPTIONS|MAKEFLAGS|GNUMAKEFLAGS|MAKEFILES|AWKPATH|AWKLIBPATH"
    r"|GIT_(?:SSH|SSH_COMMAND|EDITOR|SEQUENCE_EDITOR|PAGER|ASKPASS|EXTERNAL_DIFF|PROXY_COMMAND|EXEC_PATH|TEMPLATE_DIR)"
    r"|GIT_CONFIG\w*|GIT_DIR|SSH_ASKPASS|SUDO_ASKPASS|(?:MAN)?PAGER|EDITOR|VISUAL|BROWSER|LESSOPEN|LESSCLOSE|LESS"
    r"|TAR_OPTIONS|RSYNC_RSH|INPUTRC|HISTFILE"
)
DECLARE = ("declare", "typeset", "local", "export", "readonly")


def program(name: str) -> Program | None:
    """What is known of a program, by its name or path."""
    found = _NAMED.fullmatch(name.rpartition("/")[2])
    return _PROGRAMS[int(str(found.lastgroup)[1:])][1] if found else None


def is_shell(known: Program | None) -> bool:
    """Whether it takes `-c` as shells do: the code is the first operand then."""
    return known is _SHELL
