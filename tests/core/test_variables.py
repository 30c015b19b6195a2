"""What programs get to see of our environment."""

import pytest

from flowcraft.core.programs.variables import variables
from flowcraft.llm.local import llama, wheel

OURS = {
    "PATH": "/bin",
    "HTTPS_PROXY": "http://proxy.test",
    "LC_ALL": "C.UTF-8",
    "PIP_INDEX_URL": "https://index.test",
    "OMP_NUM_THREADS": "2",
    "OPENAI_API_KEY": "sk-canary",
    "AWS_SECRET_ACCESS_KEY": "canary",
    "GITHUB_TOKEN": "ghp-canary",
}


@pytest.mark.parametrize(
    ("patterns", "more"),
    [((), set()), (llama.NEEDED, {"OMP_NUM_THREADS"}), (wheel.NEEDED, {"PIP_INDEX_URL"})],
    ids=["common", "the model server", "pip"],
)
def test_programs_see_what_they_need_and_no_keys(patterns: tuple[str, ...], more: set[str]) -> None:
    assert variables(patterns, OURS).keys() == {"PATH", "HTTPS_PROXY", "LC_ALL"} | more
