"""How many tokens an image is at most, by the family of the model; upper bounds, so that a ceiling holds.

Claude: width x height / 750, newer models one token per 28 x 28 pixels, after scaling down to at most 4,784 (1,600
for most); docs.claude.com, Vision. GPT: 85 + 170 per tile of 512 pixels, at most 8 tiles; or patches of 32 x 32, at
most 1,536 times 2.46 (nano), or 10,000 times 1.2 (`detail: original`); gpt-4o-mini 2,833 + 5,667 per tile;
platform.openai.com, Images and vision. Qwen-VL: 28 x 28 pixels a token, at most 16,384, and two around it;
alibabacloud.com/help/en/model-studio/vision. What nobody knows counts as the largest of the usual ones, 16,386.
An image without a known size counts as the largest.
"""

import math
import re
from collections.abc import Callable

from flowcraft.core.values import ModelSettings

Pixels = tuple[int, int] | None

AROUND = 64  # what services add per image without saying so; 32 were seen with OpenAI's
UNKNOWN = 16_386

_GPT = re.compile(r"(^|/)(gpt|chatgpt|o\d)(-|$)", re.IGNORECASE)


def most_tokens(pixels: Pixels, model: ModelSettings) -> int:
    """The most that an image of this width and height may count for in a request to `model`."""
    return _family(model)(pixels) + AROUND


def _family(model: ModelSettings) -> Callable[[Pixels], int]:
    name = model.model.lower()
    if model.provider == "anthropic" or "claude" in name:
        return _claude
    if model.provider == "qwen-code" or "qwen" in name:
        return _qwen
    if "gpt-4o-mini" in name:
        return lambda pixels: 2833 + 8 * 5667
    return _gpt if _GPT.search(name) else lambda pixels: UNKNOWN


def _claude(pixels: Pixels) -> int:
    if pixels is None:
        return 4784
    return min(max(_squares(pixels, 28), math.ceil(pixels[0] * pixels[1] / 750)), 4784)


def _gpt(pixels: Pixels) -> int:
    patches = 10_000 if pixels is None else _squares(pixels, 32)
    return max(85 + 8 * 170, math.ceil(min(patches, 1536) * 2.46), math.ceil(min(patches, 10_000) * 1.2))


def _qwen(pixels: Pixels) -> int:
    # Tiny images are scaled up, narrow ones to some dozens of tokens.
    return UNKNOWN if pixels is None else min(max(_squares(pixels, 28), 64), 16_384) + 2


def _squares(pixels: tuple[int, int], side: int) -> int:
    return math.ceil(pixels[0] / side) * math.ceil(pixels[1] / side)
