"""Cuts a byte stream into lines, wherever the network cut it. Does not know what a line holds."""

from __future__ import annotations

from collections.abc import Iterator

from ._errors import UnexpectedAnswerError

MAX_LINE_BYTES = 64 * 1024 * 1024
"""Longer lines are refused: a server that never ends a line would otherwise fill the memory."""


class Lines:
    """Bytes in, complete lines out; empty lines are left out."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def push(self, data: bytes) -> Iterator[bytes]:
        """The lines that are complete now."""
        # Only new bytes are searched, so that a long line costs its length once.
        searched = len(self._rest)
        self._rest += data
        start = 0
        while (end := self._rest.find(b"\n", max(start, searched))) >= 0:
            line = bytes(self._rest[start:end]).strip()
            start = end + 1
            if line:
                yield line
        del self._rest[:start]
        if len(self._rest) > MAX_LINE_BYTES:
            raise UnexpectedAnswerError(f"a line of the stream is longer than {MAX_LINE_BYTES} bytes")

    def finish(self) -> Iterator[bytes]:
        """A last line without its end."""
        line = bytes(self._rest).strip()
        self._rest.clear()
        if line:
            yield line
