"""Secrets that can be told apart wherever they turn up, as they are or written in another way.

`CANARIES` are the secrets by the place where they are put; `leaks(data)` names those in some bytes. Each has a core of
letters and digits, which the escapes of JSON, URLs, HTML and the shell leave as it is, so that looking for cores finds
these too; base64 and hexadecimal writing are looked for beside it.
"""

import base64
from collections.abc import Iterable

# Legal in a header, and changed by every way of writing text down.
ODD = "q\"u\\o'te/+=&%41<b>;$1"


def _canary(core: str, around: str = "{}") -> str:
    return around.format(f"{ODD}{core}{ODD}")


CORES = {
    "key of openai": "Ka1Canary7hQ2zX",
    "key of anthropic": "Kb2Canary8jW3yV",
    "key of qwen": "Kc3Canary9kE4xU",
    "key in code": "Kd4Canary1mR5wT",
    "header in code": "Ke5Canary2nT6vS",
    "access token": "Kf6Canary3pY7uR",
    "refresh token": "Kg7Canary4qU8tQ",
    "new access token": "Kh8Canary5rI9sP",
    "new refresh token": "Ki9Canary6sO1rN",
    "device code": "Kj1Canary7tP2qM",
    "password of the proxy": "Kk2Canary8uA3pL",
    "password in a URL": "Km3Canary9vS4nK",
    "secret input by variable": "Kn4Canary1wD5mJ",
    "secret input by option": "Kp5Canary2xF6kH",
    "secret input of many lines": "Kq6Canary3yG7jG",
    "variable of nobody": "Kr7Canary4zH8hF",
    "variable of an agent": "Ks8Canary5aJ9gD",
    "password in .netrc": "Kt9Canary6bK1fS",
}
_LINES = "-----BEGIN KEY-----\n{}\n-----END KEY-----\n"
_AROUND = {"secret input of many lines": _LINES, "key of qwen": "sk-{}"}
_PLAIN = ("password in .netrc",)  # in that file a word has no quotes
CANARIES = {name: core if name in _PLAIN else _canary(core, _AROUND.get(name, "{}")) for name, core in CORES.items()}


def _written(core: str) -> set[bytes]:
    """The ways to write a core down that are looked for."""
    plain = core.encode()
    forms = {plain, plain.lower(), plain.hex().encode(), plain[::-1], core.encode("utf-16-le")}
    for before in (b"", b"x", b"xx"):  # base64 looks different at each place among three
        text = base64.b64encode(before + plain)
        forms.add(text[len(before) + 2 if before else 0 : -4])
    return forms


_FORMS = {name: _written(core) for name, core in CORES.items()}


def leaks(data: bytes | str, names: Iterable[str] = CORES) -> list[str]:
    """The names of the canaries in `data`."""
    data = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
    return [name for name in names if any(form in data for form in _FORMS[name])]
