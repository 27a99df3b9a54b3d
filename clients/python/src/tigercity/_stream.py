"""Streams: lines to chunks, chunks to the whole answer. `Reader` does it without a socket; `Stream` and `AsyncStream` feed it.

A stream ends in exactly one `stop` or `error`. Anything else is an interrupted one, which raises.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Callable, Generic, Optional, TypeVar, Union, cast

import httpx

from . import _retry
from . import _types as t
from ._decode import decode
from ._errors import APITimeoutError, StreamInterruptedError, TigerCityError, UnexpectedAnswerError, streamed_error
from ._lines import Lines

Chunk = TypeVar("Chunk")
Final = TypeVar("Final")


@dataclass(frozen=True)
class Kind(Generic[Chunk, Final]):
    """What the stream of an endpoint holds."""

    stop: type[Any]
    """The dataclass of its last chunk."""
    final: Callable[[list[t.DeltaChunk], Any], Final]
    """The whole answer, from the pieces of text and the last chunk."""


class Reader(Generic[Chunk, Final]):
    """Bytes in, chunks out, and in the end the whole answer."""

    def __init__(self, kind: Kind[Chunk, Final]) -> None:
        self._kind = kind
        self._lines = Lines()
        self._deltas: list[t.DeltaChunk] = []
        self._final: Optional[Final] = None
        self.ended = False

    def push(self, data: bytes) -> Iterator[Chunk]:
        """The chunks that are complete now. Raises what an `error` chunk says."""
        for line in self._lines.push(data):
            yield from self._line(line)

    def finish(self) -> Iterator[Chunk]:
        """The connection has ended."""
        for line in self._lines.finish():
            try:
                json.loads(line)
            except ValueError:
                break
            yield from self._line(line)
        if not self.ended:
            raise StreamInterruptedError("the connection ended before the answer was complete; try again")

    @property
    def final(self) -> Final:
        """The whole answer; there is one once the stream has ended."""
        if self._final is None:
            raise StreamInterruptedError("the stream was closed before its last chunk")
        return self._final

    def _line(self, line: bytes) -> Iterator[Chunk]:
        if self.ended:
            return
        chunk = self._parse(line)
        if chunk is None:
            return
        if isinstance(chunk, t.DeltaChunk):
            self._deltas.append(chunk)
        elif isinstance(chunk, self._kind.stop):
            self._final = self._kind.final(self._deltas, chunk)
            self.ended = True
        yield cast(Chunk, chunk)

    def _parse(self, line: bytes) -> Optional[object]:
        try:
            value = json.loads(line)
        except ValueError as error:
            raise UnexpectedAnswerError(f"a line of the stream is not JSON: {error}") from error
        kind = value.get("type") if isinstance(value, dict) else None
        if kind == "info":
            return decode(t.InfoChunk, value)
        if kind == "delta":
            return decode(t.DeltaChunk, value)
        if kind == "progress":
            return decode(t.ProgressChunk, {**value, "metrics": value.get("metrics") or None})
        if kind == "stop":
            return cast(object, decode(self._kind.stop, value))
        if kind == "error":
            self.ended = True
            raise streamed_error(value.get("error") or {})
        # A newer server's.
        return None


def interrupted(error: httpx.RequestError) -> TigerCityError:
    """The error of a body that broke off."""
    if isinstance(error, httpx.DecodingError):
        return _retry.undecodable(error)
    if isinstance(error, httpx.TimeoutException):
        return APITimeoutError("the server sent nothing more of the answer in time; raise `timeout` if it needs longer")
    return StreamInterruptedError(f"the connection failed before the answer was complete: {str(error) or type(error).__name__}")


def _generated(deltas: list[t.DeltaChunk], stop: t.GenerateStop) -> t.GenerateResponse:
    ends: list[Union[t.GenerateStop, t.StreamedSample]] = list(stop.responses) if stop.responses else [stop]
    samples = [_sample([d for d in deltas if (d.index or 0) == index], end) for index, end in enumerate(ends)]
    first = samples[0]
    return t.GenerateResponse(
        id=stop.id,
        model=stop.model,
        revision=stop.revision,
        message=t.Message(role="assistant", content=first.content),
        stop_reason=stop.stop_reason,
        response_id=stop.response_id,
        usage=stop.usage,
        logprobs=first.logprobs,
        reasoning=first.reasoning,
        responses=samples if stop.responses else None,
    )


def _sample(deltas: list[t.DeltaChunk], end: Union[t.GenerateStop, t.StreamedSample]) -> t.Sample:
    logprobs = [token for delta in deltas for token in delta.logprobs or []]
    reasoning = "".join(delta.reasoning or "" for delta in deltas)
    return t.Sample(
        content="".join(delta.delta or "" for delta in deltas),
        stop_reason=end.stop_reason,
        response_id=end.response_id,
        logprobs=logprobs or None,
        reasoning=reasoning or None,
    )


def _itself(_: list[t.DeltaChunk], stop: Any) -> Any:
    return stop


GENERATE: Kind[t.GenerateChunk, t.GenerateResponse] = Kind(t.GenerateStop, _generated)
TRAIN: Kind[t.TrainChunk, t.TrainResponse] = Kind(t.TrainStop, _itself)
EVALUATE: Kind[t.EvaluateChunk, t.EvaluateResponse] = Kind(t.EvaluateStop, _itself)
CREATE: Kind[t.CreateChunk, t.ModelInfo] = Kind(t.CreateStop, _itself)


class Stream(Generic[Chunk, Final]):
    """Iterates over the chunks of an answer while it is made. Closing it, or leaving its `with`, stops the work on the server."""

    def __init__(self, kind: Kind[Chunk, Final], response: httpx.Response) -> None:
        self._reader = Reader(kind)
        self._response = response
        self._chunks = self._read()

    def _read(self) -> Generator[Chunk, None, None]:
        try:
            for data in self._response.iter_bytes():
                yield from self._reader.push(data)
            yield from self._reader.finish()
        except httpx.StreamClosed as error:
            raise StreamInterruptedError("the stream was closed before its last chunk") from error
        except httpx.RequestError as error:
            # After the last chunk nothing is lost.
            if not self._reader.ended:
                raise interrupted(error) from error
        finally:
            self._response.close()

    def __iter__(self) -> Iterator[Chunk]:
        return self._chunks

    def __next__(self) -> Chunk:
        return next(self._chunks)

    def final(self) -> Final:
        """Reads to the end and gives the whole answer, the same as without streaming."""
        for _ in self._chunks:
            pass
        return self._reader.final

    def close(self) -> None:
        """Hangs up."""
        # A thread that reads meanwhile sees the connection end.
        with contextlib.suppress(ValueError):
            self._chunks.close()
        self._response.close()

    def __enter__(self) -> Stream[Chunk, Final]:
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        self.close()


class GenerateStream(Stream[t.GenerateChunk, t.GenerateResponse]):
    """A text while it is made."""

    def __enter__(self) -> GenerateStream:
        return self

    @property
    def text(self) -> Iterator[str]:
        """The pieces of the (first) response's text; joined they are its `content`."""
        for chunk in self:
            if isinstance(chunk, t.DeltaChunk) and chunk.delta and not chunk.index:
                yield chunk.delta


class AsyncStream(Generic[Chunk, Final]):
    """Iterates over the chunks of an answer while it is made. Closing it, or leaving its `async with`, stops the work on the server."""

    def __init__(self, kind: Kind[Chunk, Final], response: httpx.Response) -> None:
        self._reader = Reader(kind)
        self._response = response
        self._chunks = self._read()

    async def _read(self) -> AsyncGenerator[Chunk, None]:
        try:
            async for data in self._response.aiter_bytes():
                for chunk in self._reader.push(data):
                    yield chunk
            for chunk in self._reader.finish():
                yield chunk
        except httpx.StreamClosed as error:
            raise StreamInterruptedError("the stream was closed before its last chunk") from error
        except httpx.RequestError as error:
            # After the last chunk nothing is lost.
            if not self._reader.ended:
                raise interrupted(error) from error
        finally:
            await self._response.aclose()

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self._chunks

    async def __anext__(self) -> Chunk:
        return await self._chunks.__anext__()

    async def final(self) -> Final:
        """Reads to the end and gives the whole answer, the same as without streaming."""
        async for _ in self._chunks:
            pass
        return self._reader.final

    async def close(self) -> None:
        """Hangs up."""
        # A task that reads meanwhile sees the connection end.
        with contextlib.suppress(RuntimeError):
            await self._chunks.aclose()
        await self._response.aclose()

    async def __aenter__(self) -> AsyncStream[Chunk, Final]:
        return self

    async def __aexit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        await self.close()


class AsyncGenerateStream(AsyncStream[t.GenerateChunk, t.GenerateResponse]):
    """A text while it is made."""

    async def __aenter__(self) -> AsyncGenerateStream:
        return self

    @property
    async def text(self) -> AsyncIterator[str]:
        """The pieces of the (first) response's text; joined they are its `content`."""
        async for chunk in self:
            if isinstance(chunk, t.DeltaChunk) and chunk.delta and not chunk.index:
                yield chunk.delta
