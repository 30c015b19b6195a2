"""The key of a service: where it comes from, whether one is needed, and what to tell who has none."""

import ipaddress
import os
from contextlib import suppress
from urllib.parse import urlsplit

from flowcraft.core.errors import AuthError
from flowcraft.core.masking import Unpicklable


class ApiKey(Unpicklable):
    """A key that is given, or else stands in the environment variable `variable`; looked up at each call."""

    def __init__(self, variable: str | None, base_url: str, *, given: str | None = None) -> None:
        self._variable = variable
        self._given = given
        self._keyless = _may_be_keyless(base_url, named=variable is not None)

    def value(self) -> str:
        """The key; empty if there is none."""
        if self._given is not None:
            return self._given.strip()
        return os.environ.get(self._variable, "").strip() if self._variable else ""

    def missing(self) -> str | None:
        """The key as the object of "it needs", if the service cannot be asked without it; None if all is there."""
        if self._keyless or self.value():
            return None
        return f"an API key: set {self._variable}" if self._variable else "an API key: name its variable, api_key_env"

    def check_keyless(self) -> None:
        """Raise AuthError unless the service may be asked without a key."""
        if self._keyless:
            return
        name = self._variable
        raise AuthError(
            f"there is no API key: the environment variable {name} is not set" if name else "there is no API key",
            sent=False,
            hint=self.hint,
        )

    @property
    def hint(self) -> str:
        """What a user can do about a missing or refused key."""
        if self._variable:
            return f"export {self._variable}=... with a valid key of the service"
        return (
            "name the environment variable that holds the key as api_key_env of the model in the settings "
            "(if the service needs none, let it hold any word)"
        )


def _may_be_keyless(base_url: str, *, named: bool) -> bool:
    """Whether a service may be asked without a key: on this machine, or unnamed key on a private network."""
    with suppress(ValueError):  # it is no address at all, which is said when it is used
        return _is_near(urlsplit(base_url).hostname or "", named=named)
    return False


def _is_near(host: str, *, named: bool) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return not named and "." not in host
    return address.is_loopback or (not named and address.is_private)
