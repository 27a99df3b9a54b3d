"""Adapters, imported and exported: over a transport that answers from a list, and against the real program."""

from __future__ import annotations

import asyncio
import email
import email.policy
import io
import json
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, cast

import httpx
import pytest
from test_calls import MODEL, World, failure

import tigercity
from tigercity import AsyncTigerCity, TigerCity

QUESTION: list[tigercity.MessageParam] = [{"role": "user", "content": "What is the capital of France?"}]
FILES = ("adapter_config.json", "adapter_model.safetensors")


class Pipe(io.RawIOBase):
    """What can be read once."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._data.readinto(buffer)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(monkeypatch)
    monkeypatch.setattr(made, "handle", reading(made.handle))
    return made


def reading(handle: Callable[[httpx.Request], httpx.Response]) -> Callable[[httpx.Request], httpx.Response]:
    """A server that reads the body before it answers."""

    def read(request: httpx.Request) -> httpx.Response:
        request.read()
        return handle(request)

    return read


def parts(request: httpx.Request) -> dict[str, bytes]:
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + request.content, policy=email.policy.HTTP)
    named = ((str(part.get_param("name", header="content-disposition")), part) for part in message.iter_parts())
    return {name: cast(bytes, part.get_payload(decode=True)) for name, part in named}


def open_at(data: bytes, at: int) -> io.BytesIO:
    file = io.BytesIO(data)
    file.seek(at)
    return file


def folder(at: Path) -> Path:
    (at / FILES[0]).write_bytes(b"{}")
    (at / FILES[1]).write_bytes(b"weights")
    return at


def test_what_is_sent(world: World, tmp_path: Path) -> None:
    world.answers = [httpx.Response(201, json=MODEL) for _ in range(6)]
    client, told = world.sync(), {"name": "Ärger", "parent_model": "b"}
    files = {"adapter_config": b"{}", "adapter_model": b"weights"}
    client.models.import_adapter(folder(tmp_path), description="for a test", **cast(Any, told))
    client.models.import_adapter(str(tmp_path), description=None, **cast(Any, told))
    client.models.import_adapter(adapter_config=b"{}", adapter_model=bytearray(b"weights"), **cast(Any, told))
    client.models.import_adapter(adapter_config=tmp_path / FILES[0], adapter_model=open_at(b"xxweights", 2), **cast(Any, told))
    client.models.import_adapter(adapter_config=memoryview(b"{}"), adapter_model=cast(Any, Pipe(b"weights")), **cast(Any, told))
    texts = {name: value.encode() for name, value in told.items()}
    assert [parts(request) for request in world.requests] == [{**texts, "description": b"for a test", **files}] + [{**texts, **files}] * 4
    lengths = [request.headers.get("content-length") for request in world.requests]
    assert lengths == [str(len(request.content)) for request in world.requests[:4]] + [None]
    assert world.requests[4].headers["transfer-encoding"] == "chunked"
    assert {request.url.path for request in world.requests} == {"/v1/adapters"}


def test_the_async_client_sends_alike(world: World, tmp_path: Path) -> None:
    async def handle(request: httpx.Request) -> httpx.Response:
        await request.aread()
        return world.handle(request)

    async def run() -> None:
        transport = httpx.MockTransport(handle)
        client = AsyncTigerCity(api_key="k", http_client=httpx.AsyncClient(transport=transport))
        world.answers = [failure(429), httpx.Response(201, json=MODEL)]
        made = await client.models.import_adapter(folder(tmp_path), name="M", parent_model="b")
        assert made.id == "m"

    asyncio.run(run())
    assert [parts(request)["adapter_model"] for request in world.requests] == [b"weights"] * 2


# How the weights are given, the first answer, and whether there is a second try.
TRIES: list[tuple[Callable[[], Any], Any, bool]] = [
    (lambda: b"weights", failure(429), True),
    (lambda: b"weights", failure(503, "starting", retry_after="1"), True),
    (lambda: b"weights", httpx.ConnectError("refused"), True),
    # The first may have made the model.
    (lambda: b"weights", httpx.ReadError("reset"), False),
    (lambda: b"weights", failure(500), False),
    (lambda: open_at(b"xxweights", 2), failure(429), True),
    # What was read is gone.
    (lambda: Pipe(b"weights"), failure(429), False),
    (lambda: Pipe(b"weights"), httpx.ConnectError("refused"), False),
]


@pytest.mark.parametrize("number", range(len(TRIES)))
def test_a_body_is_sent_again_whole_or_not_at_all(world: World, number: int) -> None:
    given, first, again = TRIES[number]
    world.answers = [first, httpx.Response(201, json=MODEL)]

    def call() -> None:
        world.sync().models.import_adapter(adapter_config=b"{}", adapter_model=given(), name="M", parent_model="b")

    if again:
        call()
        assert [parts(request)["adapter_model"] for request in world.requests] == [b"weights"] * 2
    else:
        with pytest.raises(tigercity.TigerCityError):
            call()
        assert len(world.requests) == 1


def test_a_pipe_that_was_not_read_yet_is_sent_later(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    world.answers = [httpx.ConnectError("refused"), httpx.Response(201, json=MODEL)]

    def handle(request: httpx.Request) -> httpx.Response:
        if len(world.answers) == 1:
            request.read()
        return world.handle(request)

    monkeypatch.setattr("httpx.MockTransport.handle_request", lambda _, request: handle(request))
    world.sync().models.import_adapter(adapter_config=b"{}", adapter_model=cast(Any, Pipe(b"weights")), name="M", parent_model="b")
    assert parts(world.requests[1])["adapter_model"] == b"weights"


def test_what_cannot_be_sent_is_refused_at_once(world: World, tmp_path: Path) -> None:
    models, told = world.sync().models, cast(Any, {"name": "M", "parent_model": "b"})
    refused: list[tuple[str, Callable[[], object]]] = [
        ("folder, or both", lambda: models.import_adapter(**told)),
        ("folder, or both", lambda: models.import_adapter(adapter_config=b"{}", **told)),
        ("folder, or both", lambda: models.import_adapter(tmp_path, **{"adapter_config": b"{}", "adapter_model": b"", **told})),
        ("`adapter_config` must be bytes", lambda: models.import_adapter(adapter_config=cast(Any, "{}"), adapter_model=b"", **told)),
        ("`adapter_model` must be bytes", lambda: models.import_adapter(adapter_config=b"{}", adapter_model=cast(Any, [1]), **told)),
        ("open the file with 'rb'", lambda: models.import_adapter(adapter_config=cast(Any, io.StringIO("{}")), adapter_model=b"", **told)),
        ("`name` must be a text", lambda: models.import_adapter(tmp_path, **{**told, "name": 3})),
    ]
    folder(tmp_path)
    for message, call in refused:
        with pytest.raises(tigercity.TigerCityError, match=message):
            call()
    with pytest.raises(FileNotFoundError, match=FILES[0]):
        models.import_adapter(tmp_path / "nothing", **told)
    assert world.requests == []


def test_an_export_is_whole_or_nothing(world: World, tmp_path: Path) -> None:
    models = world.sync().models
    broken = httpx.Response(200, stream=Broken())
    world.answers = [httpx.Response(200, content=b"{}"), broken, failure(404), httpx.Response(200, content=b"{}"), httpx.Response(200)]
    with pytest.raises(tigercity.StreamInterruptedError, match="connection reset"):
        models.export_adapter("m", tmp_path / "new")
    with pytest.raises(tigercity.NotFoundError):
        models.export_adapter("m", tmp_path)
    assert list(tmp_path.iterdir()) == []
    models.export_adapter("m", tmp_path / "deep/er", revision=2)
    assert sorted(path.name for path in (tmp_path / "deep/er").iterdir()) == list(FILES)
    assert world.requests[-1].url.query == b"revision=2"
    with pytest.raises(FileExistsError, match=f"{FILES[0]} is there already"):
        models.export_adapter("m", tmp_path / "deep/er")


class Broken(httpx.SyncByteStream):
    def __iter__(self) -> Iterator[bytes]:
        yield b"weig"
        raise httpx.ReadError("connection reset")


# Against the real program


@pytest.fixture(scope="module")
def client() -> Iterator[TigerCity]:
    assert "TIGER_BASE_URL" in os.environ, "run by `clients/run`, or below `clients/with-server`"
    with TigerCity() as client:
        yield client


@pytest.fixture(scope="module")
def exported(client: TigerCity, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The adapter of a trained model."""
    at = tmp_path_factory.mktemp("exported")
    made = client.models.create(name="To be exported", description="", parent_model="tiger-nano")
    sampled = client.generate(model=made.id, messages=QUESTION, n=8, seed=3)
    rated: list[tigercity.TrainedResponse] = [
        {"response_id": sample.response_id, "reward": float(len(sample.content) < 30)} for sample in sampled.responses or []
    ]
    assert client.train(model=made.id, messages=QUESTION, responses=rated).updated
    client.models.export_adapter(made.id, at)
    assert (at / FILES[1]).read_bytes() == client.models.adapter(made.id)
    yield at
    client.models.delete(made.id)


def says(client: TigerCity, model: str) -> Any:
    answer = client.generate(model=model, messages=QUESTION, seed=5, logprobs=True)
    return answer.message.content, answer.logprobs


def test_an_imported_adapter_is_the_exported_one(client: TigerCity, exported: Path) -> None:
    made = client.models.import_adapter(exported, name="Back again", description="from a file", parent_model="Tiger-Nano")
    try:
        assert (made.description, made.parent_model, made.revision) == ("from a file", "Tiger-Nano", 0)
        assert says(client, made.id) == says(client, "to-be-exported") != says(client, "tiger-nano")
        assert client.models.adapter(made.id) == (exported / FILES[1]).read_bytes()
    finally:
        client.models.delete(made.id)


def test_async(exported: Path, tmp_path: Path) -> None:
    async def run() -> None:
        async with AsyncTigerCity() as client:
            made = await client.models.import_adapter(exported, name="Async import", parent_model="tiger-nano")
            await client.models.export_adapter(made.id, tmp_path / "out", revision=0)
            await client.models.delete(made.id)

    asyncio.run(run())
    assert [(tmp_path / "out" / file).read_bytes() for file in FILES] == [(exported / file).read_bytes() for file in FILES]


def test_refusals_name_the_file(client: TigerCity, exported: Path) -> None:
    config, weights = (exported / FILES[0]).read_bytes(), (exported / FILES[1]).read_bytes()
    dora = json.dumps({**json.loads(config), "use_dora": True}).encode()
    other_base = [(Path(__file__).parents[3] / "golden/peft/patterns" / file).read_bytes() for file in FILES]
    refused: list[tuple[bytes, bytes, str, str]] = [
        (dora, weights, "adapter_config", "use_dora: true is not supported"),
        (config.replace(b'"q_proj"', b'"c_attn"'), weights, "adapter_config", "c_attn"),
        (b"{", weights, "adapter_config", "is not JSON"),
        (config, weights[:-4], "adapter_model", "may be cut"),
        (other_base[0], other_base[1], "adapter_model", "tensor"),
    ]
    for one, two, param, message in refused:
        with pytest.raises(tigercity.UnprocessableEntityError, match=message) as caught:
            client.models.import_adapter(adapter_config=one, adapter_model=two, name="Refused", parent_model="tiger-nano")
        assert caught.value.param == param
    with pytest.raises(tigercity.NotFoundError) as missing:
        client.models.import_adapter(exported, name="Refused", parent_model="nobody")
    assert missing.value.param == "parent_model"
    with pytest.raises(tigercity.UnprocessableEntityError, match="no base model") as private:
        client.models.import_adapter(exported, name="Refused", parent_model="to-be-exported")
    assert private.value.param == "parent_model"
    with pytest.raises(tigercity.ConflictError) as taken:
        client.models.import_adapter(exported, name="To be exported", parent_model="tiger-nano")
    assert taken.value.param == "name"


def test_a_large_file_is_not_held_in_memory(client: TigerCity, tmp_path: Path) -> None:
    folder(tmp_path)
    with (tmp_path / FILES[1]).open("r+b") as file:
        file.truncate(256 << 20)
    tracemalloc.start()
    # It is refused, once it is there; a wrong key at once, while it is on its way.
    with pytest.raises(tigercity.UnprocessableEntityError):
        client.models.import_adapter(tmp_path, name="Large", parent_model="tiger-nano")
    with pytest.raises(tigercity.AuthenticationError):
        client.with_options(api_key="tiger_wrong").models.import_adapter(tmp_path, name="Large", parent_model="tiger-nano")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 16 << 20
