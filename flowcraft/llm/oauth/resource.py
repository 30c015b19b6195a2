"""Where an OAuth token may go: `resource_url` of the credential file decides, within a list of hosts.

Parsers of URLs disagree (9 of 27 hostile ones were seen to), so this one knows a single strict form and
puts the URL together itself.
"""

import logging
import re
from collections.abc import Collection
from urllib.parse import urlsplit

log = logging.getLogger(__name__)

DEFAULT = "https://dashscope.aliyuncs.com/compatible-mode/v1"  # what the CLI uses without a resource_url
HOSTS = frozenset(
    {
        "portal.qwen.ai",
        "dashscope.aliyuncs.com",
        "dashscope-intl.aliyuncs.com",
        "dashscope-us.aliyuncs.com",
    }
)
LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})

_PATH = r"(?P<path>(?:/[A-Za-z0-9_~-][A-Za-z0-9_.~-]*)*)/?"
_HOST = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)+")
_PUBLIC = re.compile(rf"(?:https://)?(?P<host>{_HOST.pattern})(?::443)?" + _PATH)
_LOCAL = re.compile(r"(?P<scheme>https?://)?(?P<host>127\.0\.0\.1|localhost|\[::1\])(?P<port>:[0-9]{1,5})?" + _PATH)


def base_url(resource_url: str, more_hosts: Collection[str] = ()) -> str | None:
    """The base URL of the chat service that `resource_url` means, or None if no token may go there.

    `more_hosts` are hosts that the settings allow besides the vendor's; loopback (with any port) is
    only reached, and only then over plain http, if it is among them.
    """
    public = _PUBLIC.fullmatch(resource_url)
    if public and not _is_number(public["host"]) and public["host"] in HOSTS | set(more_hosts):
        return _with_version(f"https://{public['host']}{public['path']}")
    local = _LOCAL.fullmatch(resource_url)
    if local and local["host"] in more_hosts:
        return _with_version(f"{local['scheme'] or 'http://'}{local['host']}{local['port'] or ''}{local['path']}")
    return None


def is_safe(url: str) -> bool:
    """Whether credentials may go to `url` at all: https, or http on this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return False
    if "\\" in url or parts.username is not None or not host or parts.query or parts.fragment:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and host in ("127.0.0.1", "localhost", "::1"))


def host_of(base_url: str) -> str:
    """The host, with its port if that is named, of a base URL that was put together here or is safe."""
    parts = urlsplit(base_url)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


def is_host(text: str) -> bool:
    """Whether `text` is a host as `more_hosts` must name it: no scheme, port or path, in lower case."""
    return text in LOOPBACK or _HOST.fullmatch(text) is not None


def warn_refused() -> None:
    """Say, without quoting it, that the `resource_url` of a login was not followed."""
    host = urlsplit(DEFAULT).hostname
    log.warning("the login names a resource_url that no token may go to (see allowed_hosts); using %s", host)


def _with_version(url: str) -> str:
    return url if url.endswith("/v1") else f"{url}/v1"


def _is_number(host: str) -> bool:
    return host.replace(".", "").isdigit()
