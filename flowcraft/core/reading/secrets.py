"""What looks like a secret in a line of text, hidden before the line is shown."""

import re

# `api_key: hunter2secret` and `token="..."`, but neither `max_tokens: 500000` nor `api_key_env: SOME_NAME`. Names begin
# at a word and are no longer than names are: else a line of one long word would be gone through once for each letter.
_NAMED = re.compile(
    r"""(?i)(?P<name>(?<![\w-])[\w-]{0,80}(?:api_?key|token|secret|passw)[\w-]{0,80}["']?\s*[:=]\s*["']?)(?P<value>[^\s"',{}\[\]]{6,})"""
)
# `--api-key hunter2secret`, but not `--token-file NAME`.
_OPTION = re.compile(
    r"(?i)(?P<name>(?<!\S)--?[\w-]{0,80}(?:api-?key|token|secret|password)\s+)(?P<value>[^\s\"'-]\S{5,})"
)
_HARMLESS = re.compile(r"[A-Z][A-Z0-9_]*|[0-9.,_kM]+|<.*")
# The beginnings that services give their keys.
_SHAPED = re.compile(r"\b(?:sk|pk|rk|gsk|hf|ghp|gho|github_pat|xox[abp]|glpat)[-_][\w-]{8,}|\bAIza[\w-]{20,}")
_USERINFO = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def masked(line: str) -> str:
    """The line with each secret replaced by as many asterisks, so that columns stay."""
    line = _OPTION.sub(_hide_value, _NAMED.sub(_hide_value, line))
    for pattern in (_SHAPED, _USERINFO):
        line = pattern.sub(lambda match: "*" * len(match.group()), line)
    return line


def _hide_value(match: re.Match[str]) -> str:
    value = match["value"]
    return match["name"] + (value if _HARMLESS.fullmatch(value) else "*" * len(value))
