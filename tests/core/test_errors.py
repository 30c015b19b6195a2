"""What errors say of themselves."""

from flowcraft.core.errors import ProviderError


def test_only_known_facts_follow_the_message() -> None:
    error = ProviderError("it broke", provider="mine", model="", status=500)

    assert str(error) == "it broke (provider mine, status 500)"
    assert str(ProviderError("it broke", model="")) == "it broke"
