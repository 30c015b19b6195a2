"""A stand-in ACP agent whose behaviour is named on its command line; standard library only.

    python acp_stub.py [BEHAVIOUR] [--log FILE]

Everything it receives is appended to FILE, one JSON object a line, so that a test can look at what it was told.
"""

import json
import os
import signal
import subprocess
import sys
import time

WAIT_S = 60


class Stub:
    def __init__(self, behaviour, log):
        self.behaviour, self.log = behaviour, log
        self.sessions = 0
        self.asked = 0

    def write(self, data):
        os.write(1, data)

    def send(self, **message):
        self.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    def update(self, session, **update):
        self.send(method="session/update", params={"sessionId": session, "update": update})

    def say(self, session, text, kind="agent_message_chunk"):
        self.update(session, sessionUpdate=kind, content={"type": "text", "text": text})

    def read(self):
        line = sys.stdin.buffer.readline()
        if not line:
            raise SystemExit(0)
        message = json.loads(line)
        if self.log:
            with open(self.log, "a") as file:
                file.write(json.dumps(message) + "\n")
        return message

    def ask(self, method, **params):
        """A request of the agent; its ids start at 0 and so collide with the client's."""
        number, self.asked = self.asked, self.asked + 1
        self.send(id=number, method=method, params=params)
        while True:
            message = self.read()
            if "method" not in message and message["id"] == number:
                return message
            if message.get("method") == "session/cancel":
                self.cancelled = True

    def serve(self):
        while True:
            message = self.read()
            method, params, number = message.get("method"), message.get("params", {}), message.get("id")
            if number is None or method is None:
                continue
            handler = getattr(self, "on_" + method.replace("/", "_").replace(".", "_"), None)
            if handler:
                handler(number, params)
            else:
                self.send(id=number, error={"code": -32601, "message": "Method not found"})

    def on_initialize(self, number, params):
        start = getattr(self, "start_" + self.behaviour, None)
        if start:
            start(number)
        version = 2 if self.behaviour == "version2" else 1
        methods = [{"id": "oauth", "name": "Browser"}, {"id": "use-key", "name": "Use an API key"}]
        can = {"promptCapabilities": {"image": True}} if self.behaviour == "blocks" else {}
        self.send(id=number, result={"protocolVersion": version, "agentCapabilities": can, "authMethods": methods})

    def on_authenticate(self, number, params):
        self.behaviour = "hello"
        self.send(id=number, result={})

    def on_session_new(self, number, params):
        self.sessions += 1
        if self.behaviour in ("auth", "needs_login"):
            return self.send(id=number, error={"code": -32000, "message": "Authentication required"})
        if self.behaviour == "no_session":
            return self.send(id=number, result={})
        result = {"sessionId": f"s{self.sessions}"}
        if self.behaviour == "models":
            result["models"] = {
                "currentModelId": "small",
                "availableModels": [{"modelId": "small"}, {"modelId": "large"}],
            }
        if self.behaviour == "options":
            groups = [{"group": "g", "options": [{"value": "small"}, {"value": "large"}]}]
            option = {
                "id": "the-model",
                "category": "model",
                "type": "select",
                "currentValue": "small",
                "options": groups,
            }
            result["configOptions"] = [{"id": "mode", "category": "mode"}, option]
        return self.send(id=number, result=result)

    def on_session_set_model(self, number, params):
        self.send(id=number, result={})

    def on_session_set_config_option(self, number, params):
        self.send(id=number, result={"configOptions": []})

    def on_session_prompt(self, number, params):
        session, name = params["sessionId"], self.behaviour
        if name.startswith("stop:"):
            self.say(session, "some text")
            return self.send(id=number, result={"stopReason": name[5:]})
        if name.startswith("fail:"):
            _, code, text = name.split(":", 2)
            error = {"code": int(code), "message": "Internal error", "data": {"details": text}}
            return self.send(id=number, error=error)
        return getattr(self, "turn_" + name, self.turn_hello)(number, session, params)

    def end(self, number, **more):
        self.send(id=number, result={"stopReason": "end_turn", **more})

    # --- how it starts

    def start_garbage(self, number):
        for count in range(3000):
            self.write(b"welcome to another program, line %d\n" % count)
        time.sleep(WAIT_S)

    def start_greets(self, number):
        self.write(b"welcome\n")
        time.sleep(WAIT_S)

    def start_login(self, number):
        sys.stderr.write("\x1b[1mOpen https://device.example/start and enter ABCD-1234\x1b[0m\n")
        sys.stderr.flush()
        time.sleep(WAIT_S)

    def start_dies(self, number):
        sys.stderr.write("cannot find my settings\n")
        raise SystemExit(7)

    def start_silent(self, number):
        time.sleep(WAIT_S)

    def start_wrong_id(self, number):
        self.send(id=999, result={})
        time.sleep(WAIT_S)

    def start_broken(self, number):
        self.write(b'{"jsonrpc":"2.0","id":1,"result":{"protocolVersion"\n')
        time.sleep(WAIT_S)

    def start_parse_error(self, number):
        self.send(id=None, error={"code": -32700, "message": "Parse error"})
        time.sleep(WAIT_S)

    # --- how it answers

    def turn_hello(self, number, session, params):
        self.say(session, "thinking", "agent_thought_chunk")
        for piece in ("", "Hello, ", "wörld"):
            self.say(session, piece)
        usage = {"inputTokens": 7, "outputTokens": 3, "totalTokens": 10}
        self.end(number, usage=usage)

    def turn_noise(self, number, session, params):
        self.write(b'a log line\n[1, 2]\n{}\n{"type":"text","content":"old"}\n')
        self.send(method="_vendor/news", params={"anything": 1})
        self.update(session, sessionUpdate="from_the_future", content=3)
        self.say("another-session", "not yours")
        self.turn_hello(number, session, params)

    def turn_echo(self, number, session, params):
        self.say(session, params["prompt"][0]["text"])
        self.end(number)

    def turn_blocks(self, number, session, params):
        """What the prompt is made of."""
        blocks = [
            f"text {one['text']}" if one["type"] == "text" else f"image {one['mimeType']} {len(one['data'])}"
            for one in params["prompt"]
        ]
        self.say(session, "|".join(blocks))
        self.end(number)

    def turn_count(self, number, session, params):
        self.say(session, f"{os.getpid()} {self.sessions}")
        self.end(number)

    def turn_folder(self, number, session, params):
        self.say(session, json.dumps({"cwd": os.getcwd(), "files": os.listdir("."), "env": dict(os.environ)}))
        self.end(number)

    def turn_huge(self, number, session, params):
        self.say(session, "x" * 3_000_000)
        self.end(number)

    def turn_gemini_usage(self, number, session, params):
        self.say(session, "ok")
        self.end(number, _meta={"quota": {"token_count": {"input_tokens": 11, "output_tokens": 2}}})

    def turn_kiro_usage(self, number, session, params):
        self.say(session, "ok")
        for value in (0.1, 0.25, 0.25):
            metering = [{"value": value, "unit": "credit", "unitPlural": "credits"}]
            self.send(method="_kiro.dev/metadata", params={"sessionId": session, "meteringUsage": metering})
        self.end(number)

    def turn_permission(self, number, session, params):
        options = [{"optionId": "reject", "name": "Yes!", "kind": "allow_once"}]
        options += [{"optionId": "7", "name": "No", "kind": "reject_once"}]
        reply = self.ask("session/request_permission", sessionId=session, toolCall={"toolCallId": "t"}, options=options)
        self.say(session, json.dumps(reply["result"]))
        self.end(number)

    def turn_files(self, number, session, params):
        wish = json.loads(params["prompt"][0]["text"])
        reply = self.ask(wish.pop("method"), sessionId=session, **wish)
        self.say(session, json.dumps(reply.get("result", reply.get("error"))))
        self.end(number)

    def turn_disguised(self, number, session, params):
        self.say(session, "Error: exceeded retry limit, last status: 429 Too Many Requests")
        self.end(number)

    def turn_empty(self, number, session, params):
        self.end(number)

    def turn_killed_in_turn(self, number, session, params):
        self.say(session, "half an ans")
        os.kill(os.getpid(), signal.SIGKILL)

    def turn_exits(self, number, session, params):
        sys.stderr.write("ThrottlingException: slow down\n")
        raise SystemExit(1)

    def turn_closes_stdin(self, number, session, params):
        sys.stdin.buffer.close()
        os.close(0)
        self.send(id=0, method="session/request_permission", params={"sessionId": session, "options": []})
        time.sleep(WAIT_S)

    def turn_silent_after_text(self, number, session, params):
        self.say(session, "working")
        time.sleep(WAIT_S)

    def turn_silent(self, number, session, params):
        time.sleep(WAIT_S)

    def turn_tool(self, number, session, params):
        """A tool that is silent for longer than the idle limit of the test."""
        self.update(session, sessionUpdate="tool_call", toolCallId="t", title="build", status="in_progress")
        time.sleep(0.8)
        self.update(session, sessionUpdate="tool_call_update", toolCallId="t", status="completed")
        self.say(session, "built")
        self.end(number)

    def turn_cancel(self, number, session, params):
        """Obeys a cancel, asks for a permission first, and sends a late chunk after its answer."""
        self.say(session, "working")
        while self.read().get("method") != "session/cancel":
            pass
        self.ask("session/request_permission", sessionId=session, options=[])
        self.send(id=number, result={"stopReason": "end_turn"})
        self.say(session, "too late")
        self.send(id=number, result={"stopReason": "cancelled"})
        self.behaviour = "count"

    def turn_deaf(self, number, session, params):
        """Neither obeys a cancel nor SIGTERM, and has a child that does not, either."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen(
            [sys.executable, "-c", "import signal,time; signal.signal(15,signal.SIG_IGN); time.sleep(60)"]
        )
        self.say(session, f"{os.getpid()} {child.pid}")
        while True:
            time.sleep(WAIT_S)

    def turn_stamp(self, number, session, params):
        """Each chunk is the time at which it was written."""
        for _ in range(int(params["prompt"][0]["text"])):
            time.sleep(0.003)
            self.say(session, f"{time.monotonic()}\n")
        self.end(number)


if __name__ == "__main__":
    words = sys.argv[1:]
    log = words[words.index("--log") + 1] if "--log" in words else None
    behaviour = words[0] if words and not words[0].startswith("--") else "hello"
    Stub(behaviour, log).serve()
