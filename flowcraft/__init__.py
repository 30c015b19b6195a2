"""FlowCraft: a blocking SDK for language models and a runner for YAML pipelines.

The public names are loaded on first use (PEP 562), so that `import flowcraft` costs
next to nothing. This is the only file of the package that re-exports.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from flowcraft.core.version import VERSION

if TYPE_CHECKING:
    from flowcraft.core.errors import FlowcraftError as FlowcraftError
    from flowcraft.core.settings import SettingsManager as SettingsManager
    from flowcraft.llm.base import BaseLLMProvider as BaseLLMProvider
    from flowcraft.llm.base import LLMMessage as LLMMessage
    from flowcraft.llm.base import LLMResponse as LLMResponse
    from flowcraft.llm.base import Usage as Usage
    from flowcraft.llm.factory import LLMProviderFactory as LLMProviderFactory
    from flowcraft.llm.integration import LLMIntegration as LLMIntegration
    from flowcraft.llm.parts import ImagePart as ImagePart
    from flowcraft.llm.parts import TextPart as TextPart
    from flowcraft.pipeline.load import Pipeline as Pipeline
    from flowcraft.runner.run import run_pipeline as run_pipeline

__version__ = VERSION

_HOMES = {
    "BaseLLMProvider": "flowcraft.llm.base",
    "FlowcraftError": "flowcraft.core.errors",
    "ImagePart": "flowcraft.llm.parts",
    "LLMIntegration": "flowcraft.llm.integration",
    "LLMMessage": "flowcraft.llm.base",
    "LLMProviderFactory": "flowcraft.llm.factory",
    "LLMResponse": "flowcraft.llm.base",
    "Pipeline": "flowcraft.pipeline.load",
    "SettingsManager": "flowcraft.core.settings",
    "TextPart": "flowcraft.llm.parts",
    "Usage": "flowcraft.llm.base",
    "run_pipeline": "flowcraft.runner.run",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'flowcraft' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
