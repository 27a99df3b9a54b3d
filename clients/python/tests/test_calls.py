"""Tries, headers, errors and options, over a transport that answers from a list."""

from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any, Union

import httpx
import pytest

import tigercity
from tigercity import AsyncTigerCity, TigerCity, _retry

Answer = Union[httpx.Response, httpx.RequestError]

TRAINED = {
    **{name: 0.0 for name in ("loss", "policy_loss", "kl_loss", "kl_parent", "kl_sampler", "entropy", "frac_tapered", "frac_capped")},
    **{
        "ratio": {"mean": 1.0, "max": 1.0},
        "grad_norm": 0.0,
        "step_scale": 1.0,
        "id": "train_1",
        "model": "m",
        "revision": 1,
        "updated": True,
    },
    **{"steps": 1, "reward": {"mean": 0.5, "std": 0.5, "min": 0.0, "max": 1.0}, "responses": [], "learning_rate": 0.1, "trained_tokens": 0},
    **{"duration": 0.0, "warnings": [], "usage": {"duration": 0.0, "input_tokens": 0, "trained_tokens": 0}},
}
MODEL = {
    **{
        "name": "M",
        "id": "m",
        "description": "",
        "read_only": False,
        "temperature": 1.0,
        "top_p": 1.0,
        "base_model": "b",
        "status": "ready",
    }
}
GENERATED = {
    **{"id": "gen_1", "model": "m", "revision": 0, "message": {"role": "assistant", "content": "Hi"}, "stop_reason": "end_turn"},
    **{"response_id": "resp_1", "usage": {"duration": 0.0, "input_tokens": 1, "cached_tokens": 0, "output_tokens": 1}},
}


def failure(status: int, code: str = "some_code", **headers: str) -> httpx.Response:
    body = {"type": "some_type", "code": code, "message": "what to do", "param": "field", "request_id": "req_1"}
    return httpx.Response(status, json={"error": body}, headers={name.replace("_", "-"): value for name, value in headers.items()})


class World:
    """A server that gives the answers of a list, and a clock that only notes how long it was slept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.requests: list[httpx.Request] = []
        self.pauses: list[float] = []
        self.answers: list[Answer] = []
        monkeypatch.setattr("time.sleep", self.pauses.append)

        async def sleep(seconds: float) -> None:
            self.pauses.append(seconds)

        monkeypatch.setattr("anyio.sleep", sleep)

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, httpx.Response):
            return answer
        raise answer

    def sync(self, **options: Any) -> TigerCity:
        transport = httpx.MockTransport(self.handle)
        return TigerCity(api_key="k", base_url="http://tiger.test", http_client=httpx.Client(transport=transport), **options)

    def asynchronous(self) -> AsyncTigerCity:
        transport = httpx.MockTransport(self.handle)
        return AsyncTigerCity(api_key="k", base_url="http://tiger.test", http_client=httpx.AsyncClient(transport=transport))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def train(client: TigerCity) -> Any:
    return client.train(model="m", messages=[{"role": "user", "content": "?"}], responses=[{"content": "a", "reward": 1}])


def generate(client: TigerCity) -> Any:
    return client.generate(model="m", messages=[{"role": "user", "content": "?"}])


def create(client: TigerCity) -> Any:
    return client.models.create(name="M", description="", parent_model="b")


def rollback(client: TigerCity) -> Any:
    return client.models.rollback("m", 0)


# Method, first answer, last answer, whether there is a second try.
RETRIES: list[tuple[Callable[[TigerCity], Any], Answer, Any, bool]] = [
    (generate, failure(500), GENERATED, True),
    (generate, failure(502), GENERATED, True),
    (generate, failure(503, "draining", retry_after="5"), GENERATED, True),
    (generate, failure(503, "not_downloaded"), GENERATED, False),
    (generate, failure(429, retry_after="2"), GENERATED, True),
    (generate, failure(429, retry_after="3600"), GENERATED, False),
    (generate, failure(422), GENERATED, False),
    (generate, failure(401), GENERATED, False),
    (generate, failure(404), GENERATED, False),
    (generate, failure(409), GENERATED, False),
    (generate, httpx.ConnectError("refused"), GENERATED, True),
    (generate, httpx.ReadTimeout("slow"), GENERATED, True),
    (train, failure(500), TRAINED, True),
    (train, httpx.ReadError("reset"), TRAINED, True),
    (train, failure(409, "idempotency_in_flight"), TRAINED, True),
    (train, failure(409, "revision_conflict"), TRAINED, False),
    # What is not safe to repeat is repeated only where nothing was done.
    (create, failure(500), MODEL, False),
    (create, httpx.ReadError("reset"), MODEL, False),
    (create, httpx.ConnectError("refused"), MODEL, True),
    (create, failure(429), MODEL, True),
    (create, failure(503, "starting", retry_after="1"), MODEL, True),
    (rollback, failure(500), MODEL, False),
    (rollback, httpx.ConnectTimeout("slow"), MODEL, True),
]


@pytest.mark.parametrize("number", range(len(RETRIES)))
def test_tries(world: World, number: int) -> None:
    call, first, last, again = RETRIES[number]
    world.answers = [first, httpx.Response(200, json=last)]
    if again:
        call(world.sync())
        assert len(world.requests) == 2
        assert len(world.pauses) == 1
    else:
        with pytest.raises(tigercity.TigerCityError):
            call(world.sync())
        assert len(world.requests) == 1
        assert world.pauses == []


def test_the_async_client_tries_alike(world: World) -> None:
    world.answers = [failure(500), httpx.ConnectError("refused"), httpx.Response(200, json=GENERATED)]
    answer = asyncio.run(world.asynchronous().generate(model="m", messages=[]))
    assert answer.message == tigercity.Message("assistant", "Hi")
    assert len(world.pauses) == 2


def test_opening_a_stream_is_tried_again(world: World) -> None:
    stop = json.dumps({**{k: v for k, v in GENERATED.items() if k != "message"}, "type": "stop"})
    world.answers = [failure(429), httpx.Response(200, text=stop)]
    assert world.sync().generate_stream(model="m", messages=[]).final().id == "gen_1"
    assert [json.loads(request.content)["stream"] for request in world.requests] == [True, True]


def test_retry_after_is_honoured_with_jitter(world: World) -> None:
    world.answers = [failure(429, retry_after="7"), httpx.Response(200, json=GENERATED)]
    generate(world.sync())
    assert 7 <= world.pauses[0] <= 7 * 1.25


def test_pauses_grow_and_differ(world: World) -> None:
    world.answers = [*(failure(500) for _ in range(6)), httpx.Response(200, json=GENERATED)]
    generate(world.sync(max_retries=6))
    for pause, longest in zip(world.pauses, (0.5, 1, 2, 4, 8, 8)):
        assert 0.75 * longest <= pause <= longest
    assert world.pauses[4] != world.pauses[5]


def test_retries_are_counted(world: World) -> None:
    world.answers = [failure(500) for _ in range(9)]
    for options, requests in (({}, 3), ({"max_retries": 0}, 1), ({"max_retries": 1}, 2)):
        world.requests.clear()
        with pytest.raises(tigercity.InternalServerError):
            generate(world.sync(**options))
        assert len(world.requests) == requests


def test_retry_after_may_be_a_date() -> None:
    when = datetime.now(timezone.utc) + timedelta(seconds=30)
    seconds = _retry.retry_after_s(format_datetime(when, usegmt=True))
    assert seconds is not None and 28 <= seconds <= 30
    assert _retry.retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert _retry.retry_after_s("1.5") == 1.5
    assert [_retry.retry_after_s(text) for text in (None, "soon", "nan", "-1", "")] == [None] * 5


def test_one_idempotency_key_a_call(world: World) -> None:
    world.answers = [failure(500), httpx.ReadError("reset"), *[httpx.Response(200, json=TRAINED) for _ in range(3)]]
    client = world.sync()
    train(client)
    train(client)
    client.train(model="m", batch=[], idempotency_key="mine")
    keys = [request.headers["idempotency-key"] for request in world.requests]
    assert keys[0] == keys[1] == keys[2] != keys[3]
    assert len(keys[0]) == 32
    assert keys[4] == "mine"


def test_what_is_sent(world: World) -> None:
    world.answers = [httpx.Response(200, json=GENERATED)]
    turns = [tigercity.Message("user", "Hi"), {"role": "assistant", "content": "Hello"}]
    world.sync().generate(model="m", messages=turns, temperature=0, top_k=None, stop=["a"])  # type: ignore[arg-type]
    [request] = world.requests
    assert str(request.url) == "http://tiger.test/v1/generate_response"
    assert request.headers["authorization"] == "Bearer k"
    assert request.headers["user-agent"] == f"tigercity-python/{tigercity.__version__}"
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    assert json.loads(request.content) == {"model": "m", "messages": messages, "temperature": 0, "stop": ["a"]}


def test_none_takes_a_default_back(world: World) -> None:
    world.answers = [httpx.Response(200, json=MODEL)]
    world.sync().models.update("m", temperature=None, description="another")
    assert json.loads(world.requests[0].content) == {"temperature": None, "description": "another"}


def test_names_are_encoded(world: World) -> None:
    world.answers = [httpx.Response(200, json=MODEL)]
    world.sync().models.get("My Model/ä")
    assert world.requests[0].url.raw_path == b"/v1/models/My%20Model%2F%C3%A4"


def revision(number: int) -> dict[str, Any]:
    return {"revision": number, "created": 1.0, "available": True}


def test_revisions_come_page_by_page(world: World) -> None:
    pages = [[5, 4], [3, 2, 1], [0]]
    world.answers = [httpx.Response(200, json=[revision(number) for number in page]) for page in pages]
    assert [found.revision for found in world.sync().models.revisions("m")] == [5, 4, 3, 2, 1, 0]
    assert [request.url.query for request in world.requests] == [b"", b"before=4", b"before=1"]


def test_revisions_stop_at_the_limit(world: World) -> None:
    world.answers = [httpx.Response(200, json=[revision(9), revision(8)]), httpx.Response(200, json=[revision(7)])]
    assert [found.revision for found in world.sync().models.revisions("m", limit=3, before=10)] == [9, 8, 7]
    assert [request.url.query for request in world.requests] == [b"limit=3&before=10", b"limit=1&before=8"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, tigercity.BadRequestError),
        (401, tigercity.AuthenticationError),
        (403, tigercity.PermissionDeniedError),
        (404, tigercity.NotFoundError),
        (409, tigercity.ConflictError),
        (413, tigercity.APIStatusError),
        (422, tigercity.UnprocessableEntityError),
        (429, tigercity.RateLimitError),
        (500, tigercity.InternalServerError),
        (503, tigercity.InternalServerError),
    ],
)
def test_errors_by_status(world: World, status: int, kind: type[tigercity.APIStatusError]) -> None:
    world.answers = [failure(status, retry_after="9")]
    with pytest.raises(tigercity.APIStatusError) as caught:
        generate(world.sync(max_retries=0))
    error = caught.value
    assert type(error) is kind
    assert (error.status, error.code, error.param, error.request_id, error.retry_after) == (status, "some_code", "field", "req_1", 9)
    assert str(error) == f"{status} some_code: what to do (request req_1)"


def test_an_error_of_something_else(world: World) -> None:
    for body in ("<html>bad gateway</html>", "[]", '{"error": "text"}', ""):
        world.answers = [httpx.Response(502, text=body, headers={"x-request-id": "req_9"})]
        with pytest.raises(tigercity.InternalServerError, match="base URL") as caught:
            generate(world.sync(max_retries=0))
        assert caught.value.request_id == "req_9"
    world.answers = [httpx.Response(200, text="<html>")]
    with pytest.raises(tigercity.UnexpectedAnswerError, match="base URL"):
        generate(world.sync())
    world.answers = [httpx.DecodingError("incorrect header")]
    with pytest.raises(tigercity.UnexpectedAnswerError, match="decompressed"):
        generate(world.sync())


def test_errors_can_be_copied(world: World) -> None:
    world.answers = [failure(429, retry_after="9")]
    with pytest.raises(tigercity.RateLimitError) as caught:
        generate(world.sync(max_retries=0))
    copied = pickle.loads(pickle.dumps(caught.value))
    assert (str(copied), copied.retry_after, copied.param) == (str(caught.value), 9, "field")


def test_a_model_without_a_name_is_no_path(world: World) -> None:
    for name in ("", None, 3):
        with pytest.raises(tigercity.TigerCityError, match="`model` must be"):
            world.sync().models.delete(name)  # type: ignore[arg-type]
    assert world.requests == []


def test_connection_errors(world: World) -> None:
    world.answers = [httpx.ConnectError("refused"), httpx.ReadTimeout("slow")]
    with pytest.raises(tigercity.APIConnectionError, match="cannot reach http://tiger.test: refused") as caught:
        generate(world.sync(max_retries=0))
    assert isinstance(caught.value.__cause__, httpx.ConnectError)
    assert caught.value.request_id is None
    with pytest.raises(tigercity.APITimeoutError, match="raise `timeout`"):
        generate(world.sync(max_retries=0))


def test_options(world: World) -> None:
    world.answers = [httpx.Response(200, json=GENERATED) for _ in range(3)]
    client = world.sync(timeout=3)
    generate(client)
    other = client.with_options(timeout=None, max_retries=5, api_key="other", base_url="https://elsewhere.test/v1/")
    generate(other)
    generate(client.with_options(max_retries=0))
    assert [request.extensions["timeout"]["read"] for request in world.requests] == [3, None, 3]
    assert [request.headers["authorization"] for request in world.requests] == ["Bearer k", "Bearer other", "Bearer k"]
    assert str(world.requests[1].url) == "https://elsewhere.test/v1/generate_response"
    assert (client.max_retries, other.max_retries) == (2, 5)
    other.close()
    assert not client._http.is_closed


def test_what_cannot_be_used_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TIGER_API_KEY", raising=False)
    with pytest.raises(tigercity.TigerCityError, match="TIGER_API_KEY"):
        TigerCity()
    with pytest.raises(tigercity.TigerCityError, match="api_key"):
        TigerCity(api_key="two words")
    for url in ("localhost:45678", "ftp://x", "http://"):
        with pytest.raises(tigercity.TigerCityError, match="base_url"):
            TigerCity(api_key="k", base_url=url)
    with pytest.raises(tigercity.TigerCityError, match="max_retries"):
        TigerCity(api_key="k", max_retries=-1)


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIGER_API_KEY", "from-there")
    monkeypatch.setenv("TIGER_BASE_URL", "http://there.test/")
    client = AsyncTigerCity()
    assert (client.api_key, client.base_url) == ("from-there", "http://there.test")
    monkeypatch.delenv("TIGER_BASE_URL")
    assert TigerCity().base_url == "http://localhost:45678"
