"""Which of our environment variables programs get to see: those they need, never all, since some are keys."""

import fnmatch
import os
from collections.abc import Iterable, Mapping

# What programs need to run at all, to find their own files and to reach the network.
_COMMON = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_*", "TZ", "TMPDIR", "XDG_*",
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS",
)  # fmt: skip


def variables(patterns: Iterable[str] = (), environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The common variables of `environ` (by default ours) and those whose name matches one of `patterns`."""
    wanted = [*_COMMON, *patterns]
    return {
        name: value
        for name, value in (os.environ if environ is None else environ).items()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in wanted)
    }
