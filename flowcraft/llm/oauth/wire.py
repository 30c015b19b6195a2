"""The sign-in service over HTTP: forms out, bounded answers in."""

from collections.abc import Mapping

from flowcraft.core.scope import Scope
from flowcraft.core.values import Timeouts
from flowcraft.llm.oauth.service import HOST, FormAnswer, OAuthService
from flowcraft.llm.wire.http import Wire
from flowcraft.llm.wire.status import retry_after_s

_TIMEOUTS = Timeouts(connect=3.0, first_event=8.0, idle=8.0, total=8.0)  # old CLIs wait 10 s for their lock
_MAX_BYTES = 1_048_576  # firewalls answer with whole pages


def oauth_service(base_url: str | None = None) -> OAuthService:
    """The service at `base_url` (default: Qwen's); raises UsageError for an unsafe one."""
    # No kept connections: on one that is dead an answer seems lost, and a refresh token is good for one use.
    wire = Wire(keep_alive=False)

    def post(url: str, body: bytes, headers: Mapping[str, str], scope: Scope) -> FormAnswer:
        with wire.post(url, body, headers=headers, scope=scope, timeouts=_TIMEOUTS, streamed=False) as reply:
            return FormAnswer(reply.status, reply.headers, reply.read(_MAX_BYTES), retry_after_s(reply.headers))

    return OAuthService(post, base_url or HOST)
