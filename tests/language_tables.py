"""The tables of docs/language.md as they follow from the schema; `python tests/language_tables.py` writes them."""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowcraft.core.resources import schema
from flowcraft.pipeline.checking.roots import FIELDS, LOOP_FIELDS, RUN_FIELDS
from flowcraft.pipeline.expressions.filters import FILTERS
from flowcraft.pipeline.expressions.lists import TESTS
from flowcraft.pipeline.expressions.syntax import FUNCTIONS
from flowcraft.pipeline.reading.shape import KINDS

DOCUMENT = Path(__file__).parents[1] / "docs" / "language.md"
ROOT = schema("pipeline")


def resolved(part: Mapping[str, Any]) -> dict[str, Any]:
    """A key's schema with what it refers to; its own words win."""
    reference = part.get("$ref", "").removeprefix("#/$defs/")
    return {**resolved(ROOT["$defs"][reference]), **part} if reference else dict(part)


def row(key: str, part: Mapping[str, Any], *more: str) -> str:
    """One key as a row of a table."""
    found = resolved(part)
    default = f"`{json.dumps(found['default'])}`" if "default" in found else ""
    example = json.dumps(found["examples"][0], ensure_ascii=False) if found.get("examples") else ""
    cells = [f"`{key}`", *more, default, found["description"], f"`{example}`"]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def keys(properties: Mapping[str, Any]) -> list[str]:
    """A table of keys."""
    return [
        "| key | default | meaning | example |",
        "|---|---|---|---|",
        *(row(key, properties[key]) for key in properties),
    ]


def stage_keys() -> list[str]:
    """The keys of stages, each with the kinds that have it."""
    kinds: dict[str, list[str]] = {}
    parts: dict[str, Any] = {}
    for kind in KINDS:
        for key, part in ROOT["$defs"][f"{kind}_stage"]["properties"].items():
            kinds.setdefault(key, []).append(kind)
            parts.setdefault(key, part)
    rows = [row(key, parts[key], "all" if len(of) == len(KINDS) else ", ".join(of)) for key, of in kinds.items()]
    return ["| key | kinds | default | meaning | example |", "|---|---|---|---|---|", *rows]


def tables() -> dict[str, list[str]]:
    """The tables by name."""
    defs = ROOT["$defs"]
    checks = {**defs["check_that"]["properties"], **defs["check_run"]["properties"], **defs["check_ask"]["properties"]}
    words = {
        "`stages.<id>.`": FIELDS,
        "`run.`": RUN_FIELDS,
        "`loop.` (in `repeat`)": LOOP_FIELDS,
        "functions": FUNCTIONS,
        "filters": sorted(FILTERS),
        "tests (`x is ...`)": sorted(TESTS),
    }
    return {
        "top": keys(ROOT["properties"]),
        "stages": stage_keys(),
        "foreach": keys(defs["each"]["properties"]),
        "repeat": keys(defs["repeat"]["properties"]),
        "check": keys(checks),
        "output": keys(defs["output"]["properties"]),
        "input": keys(defs["input"]["properties"]),
        "params": keys(defs["params"]["properties"]),
        "budget": keys(defs["budget"]["properties"]),
        "words": [
            "| where | names |",
            "|---|---|",
            *(f"| {where} | {' '.join(f'`{w}`' for w in of)} |" for where, of in words.items()),
        ],
    }


def filled(text: str) -> str:
    """The document with its tables as they should be."""
    for name, lines in tables().items():
        block = "\n".join([f"<!-- table: {name} -->", *lines, "<!-- end -->"])
        text = re.sub(rf"<!-- table: {name} -->.*?<!-- end -->", lambda _, block=block: block, text, flags=re.DOTALL)
    return text


if __name__ == "__main__":
    DOCUMENT.write_text(filled(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
    sys.exit(0)
