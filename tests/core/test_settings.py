"""Which settings file is read, what it means, and what is said when it is wrong."""

import json
from decimal import Decimal
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from flowcraft.core import resources
from flowcraft.core.errors import SettingsError
from flowcraft.core.settings import SettingsManager, describe
from flowcraft.core.values import ModelSettings, Origin, Prices, Settings, Timeouts

GOLDEN = sorted((Path(__file__).parent / "errors" / "settings").glob("*.yaml"), key=lambda path: path.name)
FOUR_KEYS = """\
    llm:
      cheap_model: qwen3-coder-plus
      expensive_model: kiro-cli
      expensive_stages: [security_review, architecture_design, complex_debugging]
      qwen_oauth_path: ~/.qwen/oauth_creds.json
    """


def write(text: str, path: str = "settings.yaml") -> Path:
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(dedent(text))
    return place


def settings(text: str) -> Settings:
    return SettingsManager(write(text)).settings


def model(text: str, name: str = "m") -> ModelSettings:
    return settings(f"llm: {{models: {{{name}: {text}}}}}").llm.models[name]


def problems(text: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        settings(text)
    return [f"{problem.line}:{problem.column} {problem.code}" for problem in caught.value.problems]


class TestLookUp:
    def test_the_argument_wins(self, workspace: Path) -> None:
        for place in ("own.yaml", "named.yaml", "settings.yaml"):
            write(f"llm: {{cheap_model: {place}}}", place)

        manager = SettingsManager("own.yaml", env={"FLOWCRAFT_SETTINGS": "named.yaml"})

        assert manager.settings.llm.cheap_model == "own.yaml"
        assert manager.path == workspace / "own.yaml"

    def test_then_the_variable_then_the_folder_then_home(self, workspace: Path) -> None:
        home = workspace / "home"
        for place in ("named.yaml", "settings.yaml", "home/.flowcraft/settings.yaml"):
            write(f"llm: {{cheap_model: {place}}}", place)
        env = {"FLOWCRAFT_SETTINGS": "named.yaml", "HOME": str(home)}

        found = [SettingsManager(env=env)]
        (workspace / "named.yaml").unlink()
        found.append(SettingsManager(env={**env, "FLOWCRAFT_SETTINGS": ""}))
        (workspace / "settings.yaml").unlink()
        found.append(SettingsManager(env={"HOME": str(home)}))

        assert [manager.settings.llm.cheap_model for manager in found] == [
            "named.yaml",
            "settings.yaml",
            "home/.flowcraft/settings.yaml",
        ]
        assert [manager.notice for manager in found] == [None] * 3

    def test_without_any_file_the_embedded_model_serves_both_tiers_and_a_line_says_so(self) -> None:
        manager = SettingsManager()

        assert manager.settings.llm.cheap_models == manager.settings.llm.expensive_models == ("embedded",)
        assert manager.settings.file is None
        assert manager.notice is not None
        assert "\n" not in manager.notice

    @pytest.mark.parametrize("path", ["missing.yaml", "~/missing.yaml", "folder"])
    def test_a_named_file_must_be_there(self, workspace: Path, path: str) -> None:
        (workspace / "folder").mkdir()

        with pytest.raises(SettingsError) as caught:
            SettingsManager(path)

        assert caught.value.exit_code == 2

    def test_a_file_that_the_variable_names_must_be_there(self) -> None:
        with pytest.raises(SettingsError, match=r"no file missing.yaml, which \$FLOWCRAFT_SETTINGS names"):
            SettingsManager(env={"FLOWCRAFT_SETTINGS": "missing.yaml"})

    def test_a_link_that_leads_nowhere_is_not_passed_over(self, workspace: Path) -> None:
        (workspace / "settings.yaml").symlink_to("gone.yaml")

        with pytest.raises(SettingsError, match="no file settings.yaml"):
            SettingsManager()

    def test_another_folder_can_be_looked_in(self, workspace: Path) -> None:
        write("llm: {cheap_model: there}", "other/settings.yaml")

        assert SettingsManager(cwd=workspace / "other").settings.llm.cheap_model == "there"


class TestDefaults:
    def test_the_four_keys_are_enough(self, workspace: Path) -> None:
        llm = settings(FOUR_KEYS).llm

        assert (llm.cheap_model, llm.expensive_model) == ("qwen3-coder-plus", "kiro-cli")
        assert llm.expensive_stages == ("security_review", "architecture_design", "complex_debugging")
        assert llm.qwen_oauth_path == Path.home() / ".qwen" / "oauth_creds.json"

    @pytest.mark.parametrize("text", ["", "# nothing\n", "llm:\n", "llm: {}\n", "x-mine: 1\n"])
    def test_missing_keys_have_the_same_values(self, text: str) -> None:
        assert settings(text).llm == settings(FOUR_KEYS).llm

    def test_times_and_retries(self) -> None:
        llm = settings("llm: {timeouts: {total: 30}, retries: 0}").llm

        assert llm.timeouts == Timeouts(connect=5, first_event=60, idle=60, total=30)
        assert llm.retries == 0

    def test_a_tier_can_be_a_list(self) -> None:
        llm = settings("llm: {cheap_model: [a, b], expensive_model: c}").llm

        assert (llm.cheap_models, llm.cheap_model, llm.expensive_models) == (("a", "b"), "a", ("c",))

    @pytest.mark.parametrize(("qwen_home", "place"), [("/q", "/q"), ("~/q", "{home}/q"), ("q", "{cwd}/q"), ("", None)])
    def test_the_credential_file_follows_qwen_home(self, workspace: Path, qwen_home: str, place: str | None) -> None:
        found = SettingsManager(env={"QWEN_HOME": qwen_home, "HOME": "/h"}).settings

        expected = (place or "/h/.qwen").format(home="/h", cwd=workspace)
        assert found.llm.qwen_oauth_path == Path(expected, "oauth_creds.json")
        assert str(found.origin("llm.qwen_oauth_path")) == ("$QWEN_HOME" if place else "default")

    def test_a_path_in_the_file_beats_qwen_home(self) -> None:
        path = write("llm: {qwen_oauth_path: ~/mine.json}")

        found = SettingsManager(path, env={"QWEN_HOME": "/q", "HOME": "/h"}).settings.llm

        assert found.qwen_oauth_path == Path("/h/mine.json")

    def test_jobs_and_budget(self) -> None:
        found = settings("jobs: 3\nllm: {budget: {usd: 0.1, tokens: 500000}}")

        assert found.jobs == 3
        assert found.llm.budget == {"usd": Decimal("0.1"), "tokens": 500_000}

    def test_settings_cannot_be_changed(self) -> None:
        with pytest.raises(AttributeError):
            settings("").llm.retries = 3  # type: ignore[misc]


class TestModels:
    def test_a_model_has_all_that_was_said_of_it(self) -> None:
        found = model(
            "{provider: openai, model: gpt-5-mini, base_url: 'https://api.openai.com/v1', api_key_env: OPENAI_API_KEY,"
            " context: 128000, max_tokens: 8192, max_concurrency: 4, requests_per_minute: 60,"
            " params: {temperature: 0}, prices: {input: 0.25, output: 2},"
            " timeouts: {idle: 9}}"
        )

        assert found == ModelSettings(
            name="m",
            provider="openai",
            model="gpt-5-mini",
            base_url="https://api.openai.com/v1",
            api_key_env="OPENAI_API_KEY",
            context=128_000,
            max_tokens=8192,
            max_concurrency=4,
            requests_per_minute=60,
            params={"temperature": 0},
            prices=Prices(input=Decimal("0.25"), output=Decimal(2)),
            timeouts=Timeouts(idle=9),
            origin=Origin("settings.yaml", 1, 16),
        )

    def test_a_model_is_called_by_its_name_unless_said_otherwise(self) -> None:
        assert model("{provider: openai}").model == "m"

    def test_its_times_complete_those_of_all(self) -> None:
        found = settings("llm: {timeouts: {total: 9}, models: {m: {provider: openai, timeouts: {idle: 3}}}}")

        assert found.llm.models["m"].timeouts == Timeouts(idle=3, total=9)

    def test_a_name_of_the_catalogue_is_completed(self) -> None:
        found = model("{provider: openai, base_url: 'https://dashscope.example/v1'}", "qwen3-coder-plus")

        assert (found.provider, found.model, found.context) == ("openai", "qwen3-coder-plus", 1_000_000)
        assert found.max_tokens == 65_536

    def test_keys_of_one_provider_are_options(self) -> None:
        found = model("{provider: command, command: [a, b], env: [X_*], permission: allow, options: {mine: 1}}")

        assert found.options == {"command": ["a", "b"], "env": ["X_*"], "permission": "allow", "mine": 1}

    @pytest.mark.parametrize(("path", "place"), [("~/a", "/h/a"), ("a/b", "{folder}/a/b"), ("/a", "/a")])
    @pytest.mark.parametrize("key", ["path", "oauth_path", "cwd"])
    def test_relative_paths_begin_at_the_file(self, workspace: Path, key: str, path: str, place: str) -> None:
        file = write(f"llm: {{models: {{m: {{provider: p, {key}: {path}}}}}}}", "config/settings.yaml")

        found = SettingsManager(file, env={"HOME": "/h"}).settings.llm.models["m"]

        assert found.options[key] == place.format(folder=workspace / "config")

    def test_qwen_models_know_where_the_credentials_are(self) -> None:
        found = settings("llm: {qwen_oauth_path: /c.json, models: {m: {provider: qwen-code}}}")

        assert found.llm.models["m"].options == {"oauth_path": "/c.json"}

    @pytest.mark.parametrize("price", ["0.1", "0.3", "1.23456789", "2", "0"])
    def test_prices_are_what_was_typed(self, price: str) -> None:
        found = model(f"{{provider: p, prices: {{input: {price}, output: {price}, cached_input: {price}}}}}").prices

        assert found == Prices(input=Decimal(price), output=Decimal(price), cached_input=Decimal(price))

    def test_prices_can_be_given_apart_and_give_way_to_the_models_own(self) -> None:
        found = settings(
            "llm: {prices: {override: {a: {input: 1, output: 1}, b: {input: 1, output: 1}}},"
            " models: {a: {provider: p}, b: {provider: p, prices: {input: 2, output: 2}}}}"
        ).llm.models

        assert [found[name].prices.input for name in "ab" if found[name].prices] == [1, 2]

    @pytest.mark.parametrize(
        "address",
        [
            "https://api.openai.com/v1", "http://localhost:11434/v1", "http://127.0.0.1:1", "http://[::1]:8080/v1",
            "https://10.0.0.1", "https://host/with%20blank", "http://x.localhost/v1",
        ],
    )  # fmt: skip
    def test_good_addresses(self, workspace: Path, address: str) -> None:
        manager = SettingsManager(write(f"llm: {{models: {{m: {{provider: p, base_url: '{address}'}}}}}}"))

        assert manager.settings.llm.models["m"].base_url == address
        assert manager.warnings == ()

    @pytest.mark.parametrize(
        "address",
        [
            "api.openai.com/v1", "ftp://host/v1", "https://", "https:///v1", "https://:8080/v1", "http//host", "file:///x",
            "https://user:hunter2@host/v1", "https://hunter2@host", "https://host:port/v1", "https://host:99999/v1",
            "https://host/a b", "https://host/v1?key=hunter2", "https://host/v1#x", "https://ho\\\\st/", "https://[::1/v1",
            "https://host\\x00/", "https://bücher.example/", "https://host:0/",
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("key", ["base_url", "oauth_base_url"])
    def test_bad_addresses_are_refused_and_not_repeated(self, key: str, address: str) -> None:
        path = write(f'llm:\n  models:\n    m:\n      provider: p\n      {key}: "{address}"\n')

        with pytest.raises(SettingsError) as caught:
            SettingsManager(path)

        [problem] = caught.value.problems
        assert (problem.line, problem.code) == (5, "FC150")
        assert "hunter2" not in str(caught.value)

    def test_an_address_without_encryption_is_a_warning(self) -> None:
        manager = SettingsManager(write("llm: {models: {m: {provider: p, base_url: 'http://10.0.0.3/v1'}}}"))

        assert [(problem.severity, problem.code, problem.line) for problem in manager.warnings] == [
            ("warning", "FC151", 1)
        ]

    @pytest.mark.parametrize("key", ["sk-hunter2hunter2", "hunter2 hunter2", "$HUNTER2", "abc/hunter2=="])
    def test_a_key_in_place_of_its_variable_is_not_repeated(self, key: str) -> None:
        path = write(f"llm: {{models: {{m: {{provider: p, api_key_env: '{key}', modl: x}}}}}}")

        with pytest.raises(SettingsError) as caught:
            SettingsManager(path)

        assert [problem.code for problem in caught.value.problems] == ["FC152", "FC101"]
        assert key not in "".join(map(str, caught.value.problems)).replace("export OPENAI_API_KEY", "")

    @pytest.mark.parametrize("key", ["api_key", "apikey", "token", "key", "client_secret", "password", "Authorization"])
    @pytest.mark.parametrize("more", ["", ", modl: x"])
    def test_secrets_in_the_file_are_refused_and_not_repeated(self, key: str, more: str) -> None:
        path = write(f"llm: {{models: {{m: {{provider: p, {key}: sk-hunter2hunter2{more}}}}}}}")

        with pytest.raises(SettingsError) as caught:
            SettingsManager(path)

        assert "hunter2" not in str(caught.value)
        assert caught.value.problems[0].code == "FC101"


class TestProblems:
    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("[]", ["1:1 FC100"]),
            ("llm: x", ["1:6 FC100"]),
            ("lm: {}", ["1:1 FC101"]),
            ("llm: {cheap_model: ''}", ["1:20 FC100"]),
            ("llm: {cheap_model: []}", ["1:20 FC100"]),
            ("llm: {cheap_model: [a, 3]}", ["1:24 FC100"]),
            ("llm: {cheap_model: }", ["1:19 FC100"]),
            ("llm: {expensive_stages: {a: b}}", ["1:25 FC100"]),
            ("llm: {retries: 2.5}", ["1:16 FC100"]),
            ("llm: {timeouts: {total: -1}}", ["1:25 FC100"]),
            ("llm: {timeouts: {total: 1e9}}", ["1:25 FC100"]),
            ("llm: {budget: {usd: lots}}", ["1:21 FC100"]),
            ("llm: {models: {m: {}}}", ["1:16 FC153"]),
            ("llm: {models: {cheap: {provider: p}}}", ["1:16 FC100"]),
            ("llm: {models: {'a b': {provider: p}}}", ["1:16 FC100"]),
            ("llm: {models: {m: {provider: p, prices: {input: -1, output: 1}}}}", ["1:49 FC100"]),
            ("llm: {models: {m: {provider: p, context: 0}}}", ["1:42 FC100"]),
            ("jobs: 0", ["1:7 FC100"]),
            ("llm: {cheap_model: a, cheap_model: b}", ["1:23 FC006"]),
            ("llm: {cheap_model: .inf}", ["1:20 FC009"]),
            (
                "jobs: 0\nllm: {retries: x, models: {m: {base_url: ftp}}}",
                ["1:7 FC100", "2:16 FC100", "2:28 FC153", "2:42 FC150"],
            ),
        ],
    )  # fmt: skip
    def test_mistakes_are_told_together_each_at_its_place(self, text: str, found: list[str]) -> None:
        assert problems(text) == found

    @pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
    def test_words_are_those_of_the_golden_files(self, workspace: Path, path: Path) -> None:
        write(path.read_text(encoding="utf-8"))

        with pytest.raises(SettingsError) as caught:
            SettingsManager()

        assert str(caught.value) + "\n" == path.with_suffix(".txt").read_text(encoding="utf-8")


class TestOrigins:
    TEXT = """\
        llm:
          cheap_model:
            - a
            - b
          expensive_stages:
            - "*_review"
          models:
            a: {provider: p, prices: {input: 1, output: 2},
                path: x}
            b:
              provider: openai
              command: [run, --api-key=sk-hunter2hunter2]
        """

    @pytest.mark.parametrize(
        ("key", "place"),
        [
            ("llm.cheap_model", "settings.yaml:2"),
            ("llm.cheap_model[1]", "settings.yaml:4"),
            ("llm.expensive_stages[0]", "settings.yaml:6"),
            ("llm.models.a", "settings.yaml:8"),
            ("llm.models.a.path", "settings.yaml:9"),
            ("llm.retries", "default"),
        ],
    )
    def test_each_setting_knows_its_line(self, key: str, place: str) -> None:
        assert str(settings(self.TEXT).origin(key)) == place

    def test_description_names_values_and_places_and_no_secrets(self, workspace: Path) -> None:
        rows = {key: (value, origin) for key, value, origin in describe(settings(self.TEXT))}

        assert rows["llm.cheap_model"] == (["a", "b"], "settings.yaml:2")
        assert rows["llm.expensive_model"] == ("kiro-cli", "default")
        assert rows["llm.timeouts.total"] == (600.0, "default")
        assert rows["llm.models.a.prices"] == ("1/2", "settings.yaml:8")
        assert rows["llm.models.a.path"] == (str(workspace / "x"), "settings.yaml:9")
        assert rows["llm.models.b.provider"] == ("openai", "settings.yaml:11")
        assert "hunter2" not in str(rows)

    @pytest.mark.parametrize(
        "more",
        [
            "params: {api_token: hunter2hunter2}",
            "options: {client_secret: hunter2hunter2}",
            "options: {nested: {password: hunter2hunter2}}",
            "options: {list: [token=hunter2hunter2]}",
            "command: [prog, --api-key, hunter2hunter2, other]",
            "command: prog --api-key hunter2hunter2 other",
            "command: prog --token=hunter2hunter2 other",
        ],
    )
    def test_description_hides_what_is_called_a_secret(self, more: str) -> None:
        text = f"llm: {{models: {{a: {{provider: command, {more}}}}}}}"

        assert "hunter2" not in str(describe(settings(text)))
        assert ("other" in str(describe(settings(text)))) is ("other" in more)

    def test_description_without_a_file(self) -> None:
        rows = describe(SettingsManager(env={"QWEN_HOME": "/q", "HOME": "/h"}).settings)

        assert ("llm.cheap_model", "embedded", "default") in rows
        assert ("llm.qwen_oauth_path", "/q/oauth_creds.json", "$QWEN_HOME") in rows


def keys(schema: dict[str, Any], path: str = "") -> Any:
    for name, inner in schema.get("properties", {}).items():
        yield f"{path}.{name}", inner
        yield from keys(inner, f"{path}.{name}")


class TestSchema:
    schema = resources.schema("settings")

    def test_it_is_a_schema(self) -> None:
        Draft202012Validator.check_schema(self.schema)

        assert self.schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert self.schema["$id"]
        assert self.schema["title"]

    def test_every_key_is_described_and_its_examples_and_defaults_are_right(self) -> None:
        found = [*keys(self.schema)]
        for name, part in self.schema["$defs"].items():
            found += keys(part, name)
        judge = Draft202012Validator(self.schema)

        assert len(found) > 40
        for name, part in found:
            assert part["description"], name
            assert part["examples"], name
            for example in [*part["examples"], *([part["default"]] if "default" in part else [])]:
                assert not [*judge.evolve(schema=part).iter_errors(example)], (name, example)

    def test_every_foreign_name_leads_to_a_key_that_exists(self) -> None:
        waiting: list[Any] = [self.schema]
        while waiting:
            part = waiting.pop()
            waiting += [inner for inner in part.values() if isinstance(inner, dict)]
            for name, ours in part.get("x-flowcraft", {}).get("foreign", {}).items():
                assert name not in part["properties"]
                assert " " in ours or ours in part["properties"]

    def test_every_key_of_a_model_arrives(self) -> None:
        for key, part in self.schema["$defs"]["model"]["properties"].items():
            example = part["examples"][0]
            found = model(json.dumps({"provider": "p", key: example}))

            plain = model("{provider: p}")
            assert found != plain, key

    def test_what_init_writes_is_good(self) -> None:
        path = write(resources.start_text("settings.yaml"))

        assert SettingsManager(path).settings.llm.cheap_model == "embedded"
