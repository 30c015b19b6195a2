"""Whether the models of stages take the images under `reads`: said before a run, and before a stage."""

from collections.abc import Iterable, Iterator
from itertools import islice

from flowcraft.core.catalogue import known_models
from flowcraft.core.errors import FlowcraftError, UsageError
from flowcraft.core.values import ModelSettings
from flowcraft.llm.base import takes_images
from flowcraft.llm.integration import LLMIntegration
from flowcraft.llm.routing import Choice, Named
from flowcraft.pipeline.model import Stage
from flowcraft.runner.attachments import is_image, matching
from flowcraft.runner.work import Question
from flowcraft.runner.workspace import Workspace


def check_stages(chosen: Iterable[tuple[Stage, Choice]], llm: LLMIntegration, files: Workspace) -> None:
    """Raise UsageError with every stage that shows an image, of those there are by now, to a model that takes none."""
    said: dict[str, None] = {}
    for stage, choice in chosen:
        if stage.reads and not sees(llm, choice.model):
            said |= dict.fromkeys(_refusal(stage.id, choice.model, path) for path in _images(stage, files))
    if said:
        raise UsageError("\n".join(said), hint=_hint(llm))


def check_question(stage: str, question: Question, llm: LLMIntegration) -> None:
    """Raise UsageError if one of the models of a prompt stage takes no images, and is to be shown one."""
    image = next((one.called for message in question.messages for one in message.images), None)
    if image is None:
        return
    for named in (question.model, *(Named(name, "stage") for name in question.ladder)):
        model = llm.choose(stage, named).model
        if not sees(llm, model):
            raise UsageError(_refusal(stage, model, image), hint=_hint(llm))


def sees(llm: LLMIntegration, model: ModelSettings) -> bool:
    """Whether images can be sent to it, as far as that is known."""
    return takes_images(model, llm.provider(model))


def _images(stage: Stage, files: Workspace) -> Iterator[str]:
    """The first image that the stage reads, if there is one by now."""
    try:
        paths = matching(files, stage.reads)
        yield from islice((path for path in paths if is_image(files, path)), 1)
    except (OSError, FlowcraftError):  # said when the stage starts
        return


def _refusal(stage: str, model: ModelSettings, image: str) -> str:
    return f"'{stage}' reads the image {image}, and its model '{model.name}' takes no images"


def _hint(llm: LLMIntegration) -> str:
    """A model that can; where nobody knows one, how to name it."""
    seeing = [model.name for model in known_models(llm.settings) if model.vision]
    if seeing:
        return f"name one that does: model: {seeing[0]}"
    described = "{provider: openai, model: ..., vision: true}"
    return f"name one that does: model: NAME, with llm: {{models: {{NAME: {described}}}}} in the settings"
