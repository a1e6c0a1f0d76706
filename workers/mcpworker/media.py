"""Values that a tool may return to send an image, a sound or a file."""

import base64
import mimetypes
from pathlib import Path

from mcp_types import AudioContent, BlobResourceContents, EmbeddedResource, ImageContent, TextResourceContents

__all__ = ["Audio", "File", "Image"]

_IMAGE_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
}
_AUDIO_TYPES = {
    ".wav": "audio/wav",
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
    ".flac": "audio/flac",
    ".aac": "audio/aac",
    ".m4a": "audio/mp4",
}
_UNKNOWN_TYPE = "application/octet-stream"


class _Media:
    """Bytes or a path to them, with a format; the path is read when the value is sent."""

    def __init__(
        self,
        path: str | Path | None = None,
        data: bytes | None = None,
        format: str | None = None,
    ) -> None:
        if path is None and data is None:
            raise ValueError("Either path or data must be provided")
        if path is not None and data is not None:
            raise ValueError("Only one of path or data can be provided")
        self.path = Path(path) if path is not None else None
        self.data = data
        self._format = format

    def read(self) -> bytes:
        """The bytes themselves.

        Raises:
            OSError: the path cannot be read.
        """
        if self.path is not None:
            return self.path.read_bytes()
        assert self.data is not None
        return self.data

    def _encoded(self) -> str:
        return base64.b64encode(self.read()).decode()


class Image(_Media):
    """An image; without a format, bytes count as PNG and a path is judged by its suffix."""

    @property
    def mime_type(self) -> str:
        if self._format:
            return f"image/{self._format.lower()}"
        if self.path is not None:
            return _IMAGE_TYPES.get(self.path.suffix.lower(), _UNKNOWN_TYPE)
        return "image/png"

    def to_image_content(self) -> ImageContent:
        """The protocol's form of the image."""
        return ImageContent(type="image", data=self._encoded(), mime_type=self.mime_type)


class Audio(_Media):
    """A sound; without a format, bytes count as WAV and a path is judged by its suffix."""

    @property
    def mime_type(self) -> str:
        if self._format:
            return f"audio/{self._format.lower()}"
        if self.path is not None:
            return _AUDIO_TYPES.get(self.path.suffix.lower(), _UNKNOWN_TYPE)
        return "audio/wav"

    def to_audio_content(self) -> AudioContent:
        """The protocol's form of the sound."""
        return AudioContent(type="audio", data=self._encoded(), mime_type=self.mime_type)


class File(_Media):
    """A file, sent as an embedded resource: text where its type is text and it is UTF-8, else a blob."""

    def __init__(
        self,
        path: str | Path | None = None,
        data: bytes | None = None,
        format: str | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(path, data, format)
        self.name = name or (self.path.name if self.path is not None else "file")

    @property
    def mime_type(self) -> str:
        if self._format:
            return self._format if "/" in self._format else f"application/{self._format.lower()}"
        guessed, _ = mimetypes.guess_type(self.path.name if self.path is not None else self.name)
        return guessed or _UNKNOWN_TYPE

    def to_resource_content(self) -> EmbeddedResource:
        """The protocol's form of the file."""
        uri = self.path.resolve().as_uri() if self.path is not None else f"file:///{self.name}"
        content = self.read()
        if self.mime_type.startswith("text/"):
            try:
                text = TextResourceContents(uri=uri, text=content.decode(), mime_type=self.mime_type)
                return EmbeddedResource(type="resource", resource=text)
            except UnicodeDecodeError:
                pass
        blob = BlobResourceContents(uri=uri, blob=base64.b64encode(content).decode(), mime_type=self.mime_type)
        return EmbeddedResource(type="resource", resource=blob)
