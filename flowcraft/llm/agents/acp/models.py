"""Which requests make an agent use a model and a mode: agents offer their models in one of two ways.

A model may be named by its id or by the name that the agent shows (Qwen's ids are made for machines).
"""

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
    by_option, by_method = _names(option, "value"), _names(models, "modelId")
    chosen = by_option.get(model) or by_method.get(model)
    if chosen is None and not required:
        return None, {}
    if chosen is None and (by_option or by_method):
        raise ProviderError(
            f"{agent} has no model '{model}'",
            sent=False,
            hint=did_you_mean(model, {*by_option, *by_method}) or "leave `model` out to use the agent's own choice",
        )
    if chosen and chosen in (option.get("currentValue"), models.get("currentModelId")):
        return None, {}
    if model in by_option:
        return "session/set_config_option", {"configId": option["id"], "value": chosen}
    return "session/set_model", {"modelId": chosen or model}


def choose_mode(opened: Mapping[str, Any], mode: str | None) -> tuple[str | None, dict[str, Any]]:
    """The method and parameters that choose `mode`; None where it is chosen already or not offered."""
    modes = opened.get("modes")
    modes = modes if isinstance(modes, Mapping) else {}
    offered = [entry.get("id") for entry in modes.get("availableModes") or [] if isinstance(entry, Mapping)]
    if mode is None or mode not in offered or mode == modes.get("currentModeId"):
        return None, {}
    return "session/set_mode", {"modeId": mode}


def _model_option(opened: Mapping[str, Any]) -> Mapping[str, Any]:
    options = opened.get("configOptions")
    for option in options if isinstance(options, list) else ():
        if isinstance(option, Mapping) and "id" in option and "model" in (option.get("category"), option["id"]):
            return option
    return {}


def _names(offer: Mapping[str, Any], key: str) -> dict[str, str]:
    """The id for each id and each name of what is offered."""
    entries = [entry for entry in _choices(offer.get("options") or offer.get("availableModels")) if key in entry]
    names = {str(entry["name"]): str(entry[key]) for entry in entries if "name" in entry}
    return names | {str(entry[key]): str(entry[key]) for entry in entries}


def _choices(options: Any) -> Iterator[Mapping[str, Any]]:
    for choice in options if isinstance(options, list) else ():
        if isinstance(choice, Mapping):
            yield choice
            yield from _choices(choice.get("options"))  # options may come in groups
