"""Kind and size of images by their first bytes, and no harm by any bytes."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pictures import gif, jpeg, png, webp

from flowcraft.core.images import media_type, pixels

HEADS = [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"RIFF\0\0\0\0WEBPVP8 ", b"RIFF\0\0\0\0WEBPVP8L", b""]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (png(640, 480), "image/png"),
        (jpeg(640, 480), "image/jpeg"),
        (gif(640, 480), "image/gif"),
        (webp("VP8X", 640, 480), "image/webp"),
        (webp("VP8L", 640, 480), "image/webp"),
        (webp("VP8 ", 640, 480), "image/webp"),
    ],
)
def test_kind_and_size_are_read_from_the_content(data: bytes, kind: str) -> None:
    assert media_type(data) == kind
    assert pixels(data) == (640, 480)


@pytest.mark.parametrize("data", [b"", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7", b"RIFF\0\0\0\0WAVE"])
def test_everything_else_is_no_image(data: bytes) -> None:
    assert media_type(data) is None
    assert pixels(data) is None


@pytest.mark.parametrize("whole", [png(), jpeg(), gif(), webp("VP8X"), webp("VP8L"), webp("VP8 ")])
def test_a_header_that_ends_too_early_has_no_size_or_the_right_one(whole: bytes) -> None:
    assert {pixels(whole[:length]) for length in range(len(whole))} <= {None, (4, 3)}


def test_a_size_of_nothing_is_no_size() -> None:
    assert pixels(gif(0, 3)) is None


@given(st.sampled_from(HEADS), st.binary(max_size=200))
@example(b"\xff\xd8\xff", b"\xe0\x00\x00")
@example(b"\xff\xd8\xff", b"\xe0\xff")
def test_no_bytes_do_harm(head: bytes, rest: bytes) -> None:
    found = pixels(head + rest)
    assert found is None or all(0 < side < 1 << 32 for side in found)
