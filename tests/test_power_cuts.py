"""The power fails at any moment: the short form of benchmarks/power_cuts.py, recorded from real programs."""

import random
from collections.abc import Iterator
from pathlib import Path

import power
import pytest
import traced
from cuts import MODELS
from killing import Server
from power_login import Login
from qwen_service import QwenProcess

CUTS = 60  # of each program under each model
RESUMED = 3

pytestmark = pytest.mark.skipif(not traced.usable(), reason="strace is not there, or may not trace")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as made:
        yield made


def test_what_was_promised_survives_a_power_cut_at_any_moment(tmp_path: Path, server: Server) -> None:
    chance = random.Random(25)
    for chapter in power.story(tmp_path, server):
        for model in MODELS:
            for seed in range(CUTS):
                at = chance.randint(0, len(chapter.steps))
                faults = power.after_cut(chapter, at, model, seed, tmp_path / "cut")
                if seed < RESUMED and chapter.run:
                    faults += power.resumed(chapter, tmp_path / "cut", server)

                assert faults == [], f"{chapter.name}, {model}, after step {at} of {len(chapter.steps)}"


def test_no_login_is_lost_in_a_power_cut(tmp_path: Path) -> None:
    with QwenProcess() as service:
        login = Login(tmp_path, service, times=4)
    for model in MODELS:
        for seed in range(CUTS):
            at = random.Random(seed).randint(0, len(login.steps))

            assert login.after_cut(at, model, seed, tmp_path / "cut") == [], f"{model}, after step {at}"
