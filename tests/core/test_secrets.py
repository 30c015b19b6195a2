"""Lines of files are shown without what looks like a secret."""

import pytest

from flowcraft.core.reading.secrets import masked


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("api_key: hunter2secret", "api_key: *************"),
        ("  apiKey: 'hunter2secret', b: 1", "  apiKey: '*************', b: 1"),
        ('{"client-secret": "hunter2secret"}', '{"client-secret": "*************"}'),
        ("PASSWORD=hunter2", "PASSWORD=*******"),
        ("run: curl -H x sk-proj-hunter2hunter2", "run: curl -H x **********************"),
        ("base_url: https://me:hunter2@host/v1", "base_url: https://**********@host/v1"),
        ("x: ghp_hunter2hunter2", "x: ******************"),
        ("run: prog --api-key hunter2hunter2 --more", "run: prog --api-key ************** --more"),
    ],
)
def test_secrets_become_asterisks_and_columns_stay(line: str, shown: str) -> None:
    assert masked(line) == shown
    assert len(masked(line)) == len(line)


@pytest.mark.parametrize(
    "line",
    [
        "max_tokens: 500000",
        "tokens: 1.5M",
        "api_key_env: OPENAI_API_KEY",
        "token: {type: string, secret: true}",
        "env: {GH_TOKEN: ${{ inputs.token }}}",
        "prompt: Count the tokens of this text",
        "base_url: https://api.openai.com/v1",
        "id: task-skeleton",
        "run: prog --max-tokens 500000 --no-password --more",
        "run: prog --token-file tokens.txt",
    ],
)
def test_ordinary_lines_stay_as_they_are(line: str) -> None:
    assert masked(line) == line


@pytest.mark.parametrize("word", ["x", "token", "api_key-", "://", "sk-", "token ", "a@"])
def test_a_line_of_a_megabyte_is_gone_through_once(word: str) -> None:
    line = word * (1_000_000 // len(word))

    assert len(masked(line)) == len(line)
