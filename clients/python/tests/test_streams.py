"""The recorded streams, shared with the TypeScript package, cut at every byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any, Optional

import httpx
import pytest

import tigercity
from tigercity import _calls, _stream
from tigercity._lines import Lines

STREAMS: list[dict[str, Any]] = json.loads((Path(__file__).parents[2] / "recorded/streams.json").read_text("utf-8"))["streams"]
KINDS: dict[str, _stream.Kind[Any, Any]] = {
    "generate": _stream.GENERATE,
    "train": _stream.TRAIN,
    "evaluate": _stream.EVALUATE,
    "create": _stream.CREATE,
}

every_stream = pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: str(stream["name"]))


def known(value: Any) -> Any:
    """`value` without a newer server's fields, and without what is empty."""
    if isinstance(value, dict):
        return {key: known(item) for key, item in value.items() if not key.startswith("later_") and item not in (None, {})}
    return [known(item) for item in value] if isinstance(value, list) else value


def read(stream: dict[str, Any], pieces: Iterable[bytes]) -> tuple[list[Any], Any, Optional[tigercity.TigerCityError]]:
    """Chunks, the whole answer and the error."""
    reader: _stream.Reader[Any, Any] = _stream.Reader(KINDS[stream["kind"]])
    chunks: list[Any] = []
    try:
        for piece in pieces:
            chunks.extend(reader.push(piece))
        chunks.extend(reader.finish())
    except tigercity.TigerCityError as error:
        return chunks, None, error
    return chunks, reader.final, None


def check(stream: dict[str, Any], chunks: list[Any], final: Any, error: Optional[tigercity.TigerCityError]) -> None:
    expected = [known(o) for o in stream["objects"] if o["type"] != "error" and not o["type"].startswith("later_")]
    assert [known(tigercity.to_dict(chunk)) for chunk in chunks] == expected
    if "error" in stream:
        assert isinstance(error, tigercity.InternalServerError)
        assert error.body == stream["error"]
        assert error.request_id == stream["error"]["request_id"]
    elif stream.get("interrupted"):
        assert isinstance(error, tigercity.StreamInterruptedError)
    else:
        assert error is None
        # Whole answers of generate are put together; the others are the last chunk.
        assert known(tigercity.to_dict(final)) == known(stream["final"])


@every_stream
def test_cut_in_two_at_every_byte(stream: dict[str, Any]) -> None:
    data = stream["text"].encode()
    chunks, final, error = read(stream, [data])
    check(stream, chunks, final, error)
    for at in range(len(data) + 1):
        cut_chunks, cut_final, cut_error = read(stream, [data[:at], data[at:]])
        assert (cut_chunks, cut_final, repr(cut_error)) == (chunks, final, repr(error)), f"cut at {at}"


@every_stream
def test_every_byte_alone(stream: dict[str, Any]) -> None:
    check(stream, *read(stream, (bytes([byte]) for byte in stream["text"].encode())))


class Pieces(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that comes in pieces, and perhaps breaks off."""

    def __init__(self, pieces: list[bytes], breaks: Optional[httpx.RequestError] = None) -> None:
        self.pieces, self.breaks, self.closed = pieces, breaks, False

    def __iter__(self) -> Iterator[bytes]:
        yield from self.pieces
        if self.breaks:
            raise self.breaks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True


def sync_client(body: Pieces) -> tigercity.TigerCity:
    transport = httpx.MockTransport(lambda request: httpx.Response(200, stream=body))
    return tigercity.TigerCity(api_key="k", http_client=httpx.Client(transport=transport, trust_env=False))


def async_client(body: Pieces) -> tigercity.AsyncTigerCity:
    transport = httpx.MockTransport(lambda request: httpx.Response(200, stream=body))
    return tigercity.AsyncTigerCity(api_key="k", http_client=httpx.AsyncClient(transport=transport, trust_env=False))


CALL = _calls.generate({}, stream=True)


def bodies(stream: dict[str, Any]) -> list[Pieces]:
    data = stream["text"].encode()
    return [Pieces([data[:at], data[at:]]) for at in range(0, len(data) + 1, 101)]


@every_stream
def test_sync_client(stream: dict[str, Any]) -> None:
    for body in bodies(stream):
        opened = _stream.Stream(KINDS[stream["kind"]], sync_client(body)._open(CALL))
        chunks: list[Any] = []
        final: Any = None
        failed: Optional[tigercity.TigerCityError] = None
        try:
            chunks.extend(chunk for chunk in opened)
            final = opened.final()
        except tigercity.TigerCityError as error:
            failed = error
        check(stream, chunks, final, failed)
        assert body.closed


@every_stream
def test_async_client(stream: dict[str, Any]) -> None:
    async def each(body: Pieces) -> None:
        opened = _stream.AsyncStream(KINDS[stream["kind"]], await async_client(body)._open(CALL))
        chunks: list[Any] = []
        final: Any = None
        failed: Optional[tigercity.TigerCityError] = None
        try:
            async for chunk in opened:
                chunks.append(chunk)
            final = await opened.final()
        except tigercity.TigerCityError as error:
            failed = error
        check(stream, chunks, final, failed)
        assert body.closed

    async def every() -> None:
        for body in bodies(stream):
            await each(body)

    asyncio.run(every())


TEXT = next(stream for stream in STREAMS if stream["name"].startswith("characters"))


def test_text_is_the_content() -> None:
    data = TEXT["text"].encode()
    with sync_client(Pieces([data])).generate_stream(model="m", messages=[]) as stream:
        assert "".join(stream.text) == TEXT["final"]["message"]["content"]
        assert stream.final().reasoning == TEXT["final"]["reasoning"]

    async def run() -> None:
        async with await async_client(Pieces([data])).generate_stream(model="m", messages=[]) as stream:
            assert "".join([piece async for piece in stream.text]) == TEXT["final"]["message"]["content"]
            assert (await stream.final()).reasoning == TEXT["final"]["reasoning"]

    asyncio.run(run())


def test_text_is_of_the_first_response() -> None:
    two = next(stream for stream in STREAMS if stream["name"].startswith("two responses"))
    with sync_client(Pieces([two["text"].encode()])).generate_stream(model="m", messages=[]) as stream:
        assert "".join(stream.text) == two["final"]["message"]["content"]


def test_a_broken_connection_is_an_interrupted_stream() -> None:
    data = TEXT["text"].encode()
    with sync_client(Pieces([data[:100]], breaks=httpx.ReadError("connection reset"))).generate_stream(model="m", messages=[]) as stream:
        with pytest.raises(tigercity.StreamInterruptedError, match="connection reset"):
            stream.final()
    # After the last chunk nothing is lost.
    with sync_client(Pieces([data + b"\n"], breaks=httpx.ReadError("connection reset"))).generate_stream(model="m", messages=[]) as stream:
        assert stream.final().id == TEXT["final"]["id"]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx.ReadTimeout("timed out"), tigercity.APITimeoutError),
        (httpx.DecodingError("incorrect header"), tigercity.UnexpectedAnswerError),
    ],
)
def test_what_ends_a_stream_is_of_this_package(error: httpx.RequestError, kind: type[tigercity.TigerCityError]) -> None:
    with sync_client(Pieces([], breaks=error)).generate_stream(model="m", messages=[]) as stream:
        with pytest.raises(kind):
            stream.final()


def test_leaving_hangs_up() -> None:
    body = Pieces([line.encode() + b"\n" for line in TEXT["text"].split("\n")])
    with sync_client(body).generate_stream(model="m", messages=[]) as stream:
        for _ in stream:
            break
        assert not body.closed
    assert body.closed
    with pytest.raises(tigercity.StreamInterruptedError):
        stream.final()


def test_what_is_no_json_is_an_error() -> None:
    with sync_client(Pieces([b"<html>\n"])).generate_stream(model="m", messages=[]) as stream:
        with pytest.raises(tigercity.UnexpectedAnswerError):
            stream.final()


def test_a_line_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tigercity._lines.MAX_LINE_BYTES", 100)
    with pytest.raises(tigercity.UnexpectedAnswerError, match="longer than 100 bytes"):
        list(Lines().push(b"x" * 101))
