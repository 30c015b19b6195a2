"""Which request makes an agent use a model: agents offer theirs in one of two ways."""

from collections.abc import Iterator, Mapping
from typing import Any

from flowcraft.core.errors import ProviderError
from flowcraft.core.problems import did_you_mean


def choose_model(
    agent: str, opened: Mapping[str, Any], model: str | None, *, required: bool
) -> tuple[str | None, dict[str, Any]]:
    """The method and parameters that choose `model`, given the answer to `session/new`.

    The method is None where nothing is to be chosen. Raises ProviderError if a required one is not offered.
    """
    if model is None:
        return None, {}
    option = _model_option(opened)
    models = opened.get("models")
    models = models if isinstance(models, Mapping) else {}
    offered = [*_values(option), *_ids(models)]
    if model in (option.get("currentValue"), models.get("currentModelId")):
        return None, {}
    if model in _values(option):
        return "session/set_config_option", {"configId": option["id"], "value": model}
    if model not in offered and not required:
        return None, {}
    if offered and model not in offered:
        raise ProviderError(
            f"{agent} has no model '{model}'",
            sent=False,
            hint=did_you_mean(model, offered) or "leave `model` out to use the agent's own choice",
        )
    return "session/set_model", {"modelId": model}


def _model_option(opened: Mapping[str, Any]) -> Mapping[str, Any]:
    options = opened.get("configOptions")
    for option in options if isinstance(options, list) else ():
        if isinstance(option, Mapping) and "id" in option and "model" in (option.get("category"), option["id"]):
            return option
    return {}


def _values(option: Mapping[str, Any]) -> list[str]:
    return [str(choice["value"]) for choice in _choices(option.get("options")) if "value" in choice]


def _choices(options: Any) -> Iterator[Mapping[str, Any]]:
    for choice in options if isinstance(options, list) else ():
        if isinstance(choice, Mapping):
            yield choice
            yield from _choices(choice.get("options"))  # options may come in groups


def _ids(models: Mapping[str, Any]) -> list[str]:
    available = models.get("availableModels")
    available = available if isinstance(available, list) else []
    return [str(entry["modelId"]) for entry in available if isinstance(entry, Mapping) and "modelId" in entry]
