"""An adapter's two files: as a form (RFC 7578) that is read piece by piece while it is sent, and as a folder that is written.

Does not know what is in them, nor how they are sent.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Optional, Union, cast

import anyio.to_thread

from ._errors import TigerCityError

FileContent = Union[bytes, bytearray, memoryview, "os.PathLike[str]", IO[bytes]]
"""What a file is given as: its bytes, its path, or a file opened for reading bytes, which is read from where it stands."""
Folder = Union[str, "os.PathLike[str]"]

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PIECE_BYTES = 1 << 20


class _Part:
    """One part of the form."""

    def __init__(self, name: str, content: Union[str, FileContent]) -> None:
        self.name = name
        self._content = content
        self._start: Optional[int] = None
        """Where an open file stood, if it can be put back."""
        self.used = False
        """Some of it was read, and it cannot be read again."""
        self.size = self._prepared()

    def _prepared(self) -> Optional[int]:
        """Bytes, or None where they cannot be known."""
        content = self._content
        if isinstance(content, os.PathLike):
            return os.stat(content).st_size
        if isinstance(content, (bytes, bytearray, memoryview)):
            return memoryview(content).nbytes
        if isinstance(content, str) or not hasattr(content, "read"):
            kind = type(content).__name__
            raise TigerCityError(f"`{self.name}` must be bytes, a pathlib.Path or a file opened with 'rb'; it is of type {kind}")
        with contextlib.suppress(AttributeError, OSError, io.UnsupportedOperation):
            if content.seekable():
                self._start = content.tell()
                end = content.seek(0, os.SEEK_END)
                content.seek(self._start)
                return end - self._start
        return None

    def pieces(self) -> Iterator[bytes]:
        content = self._content
        if isinstance(content, (bytes, bytearray, memoryview)):
            whole = memoryview(content).cast("B")
            yield from (bytes(whole[at : at + PIECE_BYTES]) for at in range(0, len(whole), PIECE_BYTES))
        elif isinstance(content, os.PathLike):
            with open(content, "rb") as opened:
                yield from self._read(opened)
        else:
            file = cast("IO[bytes]", content)
            if self._start is None:
                self.used = True
            else:
                file.seek(self._start)
            yield from self._read(file)

    def _read(self, file: IO[bytes]) -> Iterator[bytes]:
        while piece := file.read(PIECE_BYTES):
            if not isinstance(piece, bytes):
                raise TigerCityError(f"`{self.name}` gives {type(piece).__name__}, not bytes; open the file with 'rb'")
            yield piece


class Form:
    """A form of texts and files, for all tries of a call."""

    def __init__(self, texts: Mapping[str, str], files: Mapping[str, FileContent]) -> None:
        self._edge = uuid.uuid4().hex
        self._parts = [_Part(name, text.encode()) for name, text in texts.items()]
        self._parts += [_Part(name, content) for name, content in files.items()]

    @property
    def unused(self) -> bool:
        """False: a file was read that cannot be read again."""
        return not any(part.used for part in self._parts)

    def headers(self) -> dict[str, str]:
        """Its type, and its length where that is known."""
        headers = {"Content-Type": f"multipart/form-data; boundary={self._edge}"}
        sizes = [part.size for part in self._parts]
        if None not in sizes:
            around = sum(len(self._head(part)) + 2 for part in self._parts) + len(self._end())
            headers["Content-Length"] = str(around + sum(size or 0 for size in sizes))
        return headers

    def pieces(self) -> Iterator[bytes]:
        """The body, from its beginning."""
        for part in self._parts:
            yield self._head(part)
            yield from part.pieces()
            yield b"\r\n"
        yield self._end()

    async def async_pieces(self) -> AsyncIterator[bytes]:
        """The same, without keeping the event loop waiting for the disk."""
        pieces = self.pieces()
        while (piece := await anyio.to_thread.run_sync(next, pieces, None)) is not None:
            yield piece

    def _head(self, part: _Part) -> bytes:
        return f'--{self._edge}\r\nContent-Disposition: form-data; name="{part.name}"\r\n\r\n'.encode()

    def _end(self) -> bytes:
        return f"--{self._edge}--\r\n".encode()


def adapter_form(
    folder: Optional[Folder], config: Optional[FileContent], weights: Optional[FileContent], params: Mapping[str, Any]
) -> Form:
    """The form of an import, from a folder or from both files."""
    if (folder is None) == (config is None or weights is None) or (folder is not None and (config is not None or weights is not None)):
        raise TigerCityError("give the adapter's folder, or both `adapter_config` and `adapter_model`")
    if folder is not None:
        config, weights = Path(folder) / CONFIG_FILE, Path(folder) / WEIGHTS_FILE
    texts = {name: value for name, value in params.items() if value is not None}
    for name, value in texts.items():
        if not isinstance(value, str):
            raise TigerCityError(f"`{name}` must be a text; it is of type {type(value).__name__}")
    return Form(texts, {"adapter_config": cast(FileContent, config), "adapter_model": cast(FileContent, weights)})


@contextlib.contextmanager
def new_adapter_folder(folder: Folder) -> Iterator[Path]:
    """A place for both files, which come into `folder` together when all went well. Nothing is overwritten."""
    path = Path(folder)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if (path / name).exists():
            raise FileExistsError(f"{path / name} is there already and is not overwritten; name another folder")
    made = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=path, prefix=".adapter-") as place:
            yield Path(place)
            for name in (CONFIG_FILE, WEIGHTS_FILE):
                os.rename(Path(place) / name, path / name)
    except BaseException:
        if made:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise
