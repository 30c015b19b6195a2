#!/usr/bin/env python3
"""A stand-in for kiro-cli that replays what is known of it, byte for byte; standard library only.

What it does is named by variables, which a test sets through the settings key `env`:
KIRO_STUB (how `chat` ends), KIRO_STUB_VERSION, KIRO_STUB_WHOAMI, KIRO_STUB_FLAGS (of `chat --help`),
KIRO_STUB_ACP (a behaviour of acp_stub.py, or `no`), KIRO_STUB_LOG (a file for its command lines).
"""

import json
import os
import signal
import subprocess
import sys
import time

SIGN = b"\x1b[38;5;141m> \x1b[0m"
TRAILER = "\x1b[38;5;8m\n \u25b8 Credits: 0.24 \u2022 Time: 3s\n\x1b[0m".encode()
BANNER = b"\x1b[1mKiro\x1b[0m tips: use /help\nFailed to retrieve MCP settings; MCP functionality disabled\n"
ENVELOPE = "Kiro is having trouble: Encountered an error in the response stream: "
LOGIN = "Confirm the following code in the browser\nCode: QRST-7890\nOpen this URL: https://view.awsapps.com/start/#/device\n"
# name -> (stderr, exit code, stdout)
FAILURES = {
    "quota": ("Monthly request limit reached. Your limit resets on 12/01.", 0, b""),
    "rate": ("Kiro rate limit reached: Too many requests. (request_id: 1111-aaaa)", 0, b""),
    "throttle": (ENVELOPE + "ThrottlingException: Request quota exceeded. Please wait a moment", 0, b""),
    "key": ("Authentication failed. Your API key may be invalid or expired. Check your KIRO_API_KEY value.", 0, b""),
    "session": ("Authentication failed. Your session may have expired. Run kiro-cli login to re-authenticate.", 0, b""),
    "notlogged": ("error: You are not logged in, please log in with kiro-cli login", 1, b""),
    "overload": ("The model you\u2019ve selected is temporarily unavailable. Please use '/model'.", 0, b""),
    "overload2": ("The model 'claude-opus-4.6' is not available at the moment.", 0, b""),
    "badmodel": ("error: Model 'nope' does not exist. Available models: auto, claude-sonnet-4.6", 1, b""),
    "toolarge": ("The context window has overflowed, summarizing the history...", 0, b""),
    "malformed": (ENVELOPE + "ValidationException: Improperly formed request.", 0, b""),
    "transient": ("\x1b[31mKiro is having trouble responding right now: dispatch failure\x1b[0m\x1b[?25h", 0, b""),
    "tool": ("Tool approval required but --no-interactive was specified. Use --trust-all-tools.", 1, b""),
    "nothing": ("", 0, b""),
    "crash": ("", 0, SIGN + b"half an ans"),
    "usage": ("error: unexpected argument '--frobnicate' found", 2, b""),
}


def main(argv):
    if os.environ.get("KIRO_STUB_LOG"):
        with open(os.environ["KIRO_STUB_LOG"], "a") as file:
            file.write(json.dumps(argv) + "\n")
    command = argv[0] if argv else ""
    if command == "--version":
        say(os.environ.get("KIRO_STUB_VERSION", "kiro-cli 2.21.2"))
        return 0
    if command == "whoami":
        return whoami(os.environ.get("KIRO_STUB_WHOAMI", "yes"))
    if argv[:2] == ["chat", "--help"]:
        say("Usage: kiro-cli chat [OPTIONS] [INPUT]\n" + os.environ.get("KIRO_STUB_FLAGS", "--agent-engine --wrap"))
        return 0
    if command == "acp":
        return acp(os.environ.get("KIRO_STUB_ACP", "no"), argv)
    return chat(os.environ.get("KIRO_STUB", "ok"), argv)


def say(text):
    sys.stdout.write(text + "\n")


def whoami(how):
    if how == "hang":
        time.sleep(60)
    if how == "no":
        say("Not logged in")
        return 1
    say("Logged in with Builder ID" if how == "yes" else "Authenticated with API key")
    return 0


def acp(how, argv):
    if how == "no":
        sys.stderr.write("error: unrecognized subcommand 'acp'\n\nUsage: kiro-cli [OPTIONS] [SUBCOMMAND]\n")
        return 2
    stub = os.path.join(os.path.dirname(os.path.abspath(os.path.realpath(__file__))), "acp_stub.py")
    # Like the real launcher: another process does the work, and a signal to this one does not reach it.
    return subprocess.call([sys.executable, "-S", stub, how])


def chat(how, argv):
    prompt = sys.stdin.buffer.read().decode().strip()
    if not prompt:
        sys.stderr.write("error: Input must be supplied when running in non-interactive mode\n")
        return 1
    sys.stderr.buffer.write(BANNER)
    sys.stderr.buffer.flush()
    if how in FAILURES:
        said, code, out = FAILURES[how]
        os.write(1, out)
        sys.stderr.write(said + "\n")
        return code
    if "stream-json" in argv:
        return structured(how, prompt)
    return PLAIN[how](prompt)


def ok(prompt):
    os.write(1, SIGN + b"Hello, \x1b[1mw\xc3")
    time.sleep(0.02)
    os.write(1, b"\xb6rld\x1b[0m!\n\n> a quote\n\nlast line without a newline")
    os.write(2, TRAILER)
    return 0


def echo(prompt):
    os.write(1, SIGN + prompt.encode())
    os.write(2, TRAILER)
    return 0


def two_rounds(prompt):
    """The sign is printed once per model response, with a tool line between."""
    os.write(1, b"\x1b[?25l" + SIGN + b"First I look.\n")
    os.write(1, b"\x1b]0;kiro\x07Completed in 0.1s\n" + SIGN + b"Then I answer.")
    os.write(2, TRAILER)
    return 0


def login(prompt):
    """No credential: it shows a code and waits for ever, whatever the flags."""
    os.write(1, LOGIN.encode())
    time.sleep(60)
    return 0


def leak(prompt):
    """The answer is whole, but a helper keeps the pipes open after the exit."""
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    return echo("done")


def deaf(prompt):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(1, SIGN + b"never ending")
    time.sleep(60)
    return 0


def slow(prompt):
    os.write(1, SIGN + b"never ending")
    time.sleep(60)
    return 0


def big(prompt):
    for _ in range(16):
        sys.stdout.buffer.write(b"0123456789abcdef" * 4096)
        sys.stdout.buffer.flush()
    os.write(2, TRAILER)
    return 0


def flood(prompt):
    while True:
        os.write(1, b"x" * 65536)


def killed(prompt):
    os.write(1, SIGN + b"half")
    os.kill(os.getpid(), signal.SIGKILL)


def report(prompt):
    """What it can see: for tests of the folder and the environment."""
    os.write(1, json.dumps({"cwd": os.getcwd(), "files": os.listdir("."), "env": dict(os.environ)}).encode())
    os.write(2, TRAILER)
    return 0


PLAIN = {f.__name__: f for f in (ok, echo, two_rounds, login, leak, deaf, slow, big, flood, killed, report)}


def structured(how, prompt):
    def line(kind, **data):
        os.write(1, json.dumps({"type": kind, "data": data}).encode() + b"\n")

    def update(**update):
        line("sessionUpdate", sessionId="s", update=update)

    os.write(1, b"[INFO] [KiroAgent] starting\n")
    line("runStarted", sessionId="s")
    update(sessionUpdate="agent_thought_chunk", content={"type": "text", "text": "hm"})
    update(sessionUpdate="agent_message_chunk", content={"type": "text", "text": "Hello, "})
    update(sessionUpdate="agent_message_chunk", content={"type": "text", "text": prompt})
    if how == "unfinished":
        return 0
    line("metadata", sessionId="s", meteringUsage=[{"value": 0.5, "unit": "credit"}])
    status = "failed" if how == "failed" else "completed"
    if how == "failed":
        sys.stderr.write("ThrottlingException: slow down\n")
    line("runFinished", sessionId="s", status=status, stopReason="end_turn")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
