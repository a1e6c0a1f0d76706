"""Images, sounds and files."""

import base64
from pathlib import Path

import pytest
from mcp_types import BlobResourceContents, TextResourceContents

from mcpworker import Audio, File, Image


@pytest.mark.parametrize(
    ("media", "mime_type"),
    [
        (Image(data=b"x"), "image/png"),
        (Image(data=b"x", format="JPEG"), "image/jpeg"),
        (Image(path="photo.jpg"), "image/jpeg"),
        (Image(path=Path("photo.WEBP")), "image/webp"),
        (Image(path="photo.unknown"), "application/octet-stream"),
        (Audio(data=b"x"), "audio/wav"),
        (Audio(data=b"x", format="mp3"), "audio/mp3"),
        (Audio(path="sound.mp3"), "audio/mpeg"),
        (File(data=b"x"), "application/octet-stream"),
        (File(data=b"x", name="a.txt"), "text/plain"),
        (File(data=b"x", format="pdf"), "application/pdf"),
        (File(data=b"x", format="text/x-log"), "text/x-log"),
        (File(path="a.json"), "application/json"),
    ],
)
def test_type_comes_from_the_format_or_the_name(media: Image | Audio | File, mime_type: str) -> None:
    assert media.mime_type == mime_type


def test_path_is_read_when_the_value_is_sent(tmp_path: Path) -> None:
    image = Image(tmp_path / "x.png")
    (tmp_path / "x.png").write_bytes(b"pixels")

    assert base64.b64decode(image.to_image_content().data) == b"pixels"
    assert base64.b64decode(Audio(tmp_path / "x.png").to_audio_content().data) == b"pixels"


def test_file_is_text_where_it_can_be(tmp_path: Path) -> None:
    path = tmp_path / "a b.txt"
    path.write_text("grün")
    resource = File(path).to_resource_content().resource
    assert isinstance(resource, TextResourceContents)
    assert (resource.text, resource.uri) == ("grün", path.as_uri())

    blob = File(data=b"\xff", name="a.txt").to_resource_content().resource
    assert isinstance(blob, BlobResourceContents)
    assert (blob.blob, blob.mime_type, blob.uri) == ("/w==", "text/plain", "file:///a.txt")


@pytest.mark.parametrize("kind", [Image, Audio, File])
def test_either_a_path_or_data_is_needed(kind: type[Image]) -> None:
    with pytest.raises(ValueError, match="Either path or data must be provided"):
        kind()
    with pytest.raises(ValueError, match="Only one of path or data can be provided"):
        kind(path="x", data=b"x")
