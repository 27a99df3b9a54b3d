"""Both clients against the real program, started by `clients/with-server`."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import tigercity
from tigercity import AsyncTigerCity, TigerCity

QUESTION: list[tigercity.MessageParam] = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def client() -> Iterator[TigerCity]:
    assert "TIGER_BASE_URL" in os.environ, "run by `clients/run`, or below `clients/with-server`"
    with TigerCity() as client:
        yield client


@pytest.fixture
def model(client: TigerCity, request: pytest.FixtureRequest) -> Iterator[str]:
    made = client.models.create(name=request.node.name[:60], description="for a test", parent_model="tiger-nano")
    yield made.id
    client.models.delete(made.id)


def rated(answer: tigercity.GenerateResponse) -> list[tigercity.TrainedResponse]:
    return [{"response_id": sample.response_id, "reward": float(len(sample.content) < 30)} for sample in answer.responses or []]


def test_generate(client: TigerCity) -> None:
    answer = client.generate(model="tiger-nano", messages=QUESTION, temperature=0, logprobs=True, top_logprobs=2)
    assert "Paris" in answer.message.content
    assert (answer.model, answer.revision, answer.stop_reason) == ("tiger-nano", 0, "end_turn")
    assert answer.logprobs and len(answer.logprobs) == answer.usage.output_tokens
    assert answer.logprobs[0].top and answer.logprobs[0].top[0].token_id == answer.logprobs[0].token_id
    again = client.generate(
        model="tiger-nano", messages=[*QUESTION, answer.message, {"role": "user", "content": "And Spain?"}], temperature=0
    )
    assert "Madrid" in again.message.content


def test_the_stream_gives_what_the_whole_answer_gives(client: TigerCity) -> None:
    def told(answer: tigercity.GenerateResponse) -> Any:
        return [(sample.content, sample.stop_reason, sample.logprobs) for sample in answer.responses or []], answer.message, answer.logprobs

    whole = client.generate(model="tiger-nano", messages=QUESTION, n=4, seed=7, logprobs=True)
    with client.generate(model="tiger-nano", messages=QUESTION, n=4, seed=7, logprobs=True, stream=True) as stream:
        assert told(stream.final()) == told(whole)
    with client.generate_stream(model="tiger-nano", messages=QUESTION, seed=7) as one:
        assert "".join(one.text) == client.generate(model="tiger-nano", messages=QUESTION, seed=7).message.content
    assert whole.responses and len(whole.responses) == 4


def test_json_schema(client: TigerCity) -> None:
    schema = {"type": "object", "properties": {"answer": {"type": "string", "maxLength": 20}}, "required": ["answer"]}
    answer = client.generate(model="tiger-nano", messages=QUESTION, seed=1, response_format={"type": "json_schema", "schema": schema})
    assert list(json.loads(answer.message.content)) == ["answer"]


def test_train_revisions_and_rollback(client: TigerCity, model: str) -> None:
    before = client.generate(model=model, messages=QUESTION, n=8, seed=3)
    trained = client.train(model=model, messages=QUESTION, responses=rated(before))
    assert (trained.updated, trained.revision) == (True, 1)
    assert [response.mode for response in trained.responses] == ["recorded"] * 8
    with client.train_stream(model=model, batch=[{"messages": QUESTION, "responses": rated(before)}], steps=2) as stream:
        chunks = list(stream)
        assert [chunk.step for chunk in chunks if chunk.type == "progress" and chunk.metrics] == [1, 2]
        assert stream.final().revision == 2
    assert client.models.rollback(model, 0).revision == 3
    revisions = client.models.revisions(model)
    assert [(found.revision, found.rolled_back_to) for found in revisions] == [(3, 0), (2, None), (1, None), (0, None)]
    assert (revisions[2].metrics or {})["id"] == trained.id
    assert [found.revision for found in client.models.revisions(model, limit=2, before=3)] == [2, 1]


def test_one_key_trains_once(client: TigerCity, model: str) -> None:
    responses: list[tigercity.TrainedResponse] = [{"content": "Paris", "reward": 1}, {"content": "It is Paris.", "reward": 0}]
    calls = [client.train(model=model, messages=QUESTION, responses=responses, idempotency_key="twice") for _ in range(2)]
    assert calls[0] == calls[1]
    assert client.models.get(model).revision == 1


def test_models(client: TigerCity, model: str) -> None:
    assert client.models.list()[0].read_only
    assert model in [found.id for found in client.models.list()]
    changed = client.models.update(model, description="another", temperature=0.5)
    assert (changed.description, changed.temperature) == ("another", 0.5)
    assert client.models.get(changed.name) == changed
    config = json.loads(client.models.adapter(model, "adapter_config.json"))
    assert config["peft_type"] == "LORA"
    weights = client.models.adapter(model, revision=0)
    assert int.from_bytes(weights[:8], "little") < len(weights)


def test_create_streamed(client: TigerCity) -> None:
    with client.models.create_stream(name="Streamed", description="", parent_model="tiger-nano") as stream:
        made = stream.final()
    assert client.models.get(made.id).name == "Streamed"
    assert client.models.delete(made.id).id == made.id


def test_evaluate(client: TigerCity, model: str) -> None:
    prompts: list[tigercity.EvaluatePrompt] = [{"messages": QUESTION, "responses": ["Paris"]}]
    found = client.models.evaluate(model, prompts=prompts, seed=5)
    # Nothing was trained, so both say the same.
    assert found.results[0].answers.model[0].content == found.results[0].answers.against[0].content
    assert found.results[0].responses[0].logprob == found.results[0].responses[0].logprob_against
    with client.models.evaluate(model, prompts=prompts, seed=5, stream=True) as stream:
        assert stream.final().mean_logprob == found.mean_logprob


def test_errors_name_the_request(client: TigerCity, model: str) -> None:
    rewarded: list[tigercity.TrainedResponse] = [{"content": "a", "reward": 1}]
    wrong_key = client.with_options(api_key="tiger_wrong")
    nano: Any = {"model": "tiger-nano", "messages": QUESTION}
    failures: list[tuple[type[tigercity.APIStatusError], str, Callable[[], object]]] = [
        (tigercity.NotFoundError, "model_not_found", lambda: client.models.get("nobody")),
        (tigercity.PermissionDeniedError, "read_only", lambda: client.models.delete("tiger-nano")),
        (tigercity.UnprocessableEntityError, "invalid_parameter", lambda: client.generate(**nano, top_p=2)),
        (tigercity.UnprocessableEntityError, "invalid_parameter", lambda: client.generate_stream(**nano, n=0)),
        (
            tigercity.ConflictError,
            "revision_conflict",
            lambda: client.train(model=model, messages=QUESTION, responses=rewarded, if_revision=9),
        ),
        (tigercity.AuthenticationError, "invalid_key", lambda: wrong_key.models.list()),
        (tigercity.InternalServerError, "not_downloaded", lambda: client.generate(model="llama-3.1-8b", messages=QUESTION)),
    ]
    for kind, code, call in failures:
        with pytest.raises(kind) as caught:
            call()
        assert caught.value.code == code
        assert (caught.value.request_id or "").startswith("req_")
        assert caught.value.message
    with pytest.raises(tigercity.UnprocessableEntityError) as caught:
        client.generate(model="tiger-nano", messages=QUESTION, temprature=1)  # type: ignore[call-overload]
    assert caught.value.param == "temprature"


def test_no_server() -> None:
    nowhere = TigerCity(api_key="k", base_url="http://127.0.0.1:9", max_retries=1)
    with pytest.raises(tigercity.APIConnectionError, match="tiger serve") as caught:
        nowhere.models.list()
    assert caught.value.unsent


def test_async(client: TigerCity) -> None:
    async def run() -> None:
        async with AsyncTigerCity() as other:
            whole = await other.generate(model="tiger-nano", messages=QUESTION, seed=7)
            async with await other.generate_stream(model="tiger-nano", messages=QUESTION, seed=7) as stream:
                assert "".join([text async for text in stream.text]) == whole.message.content
            made = await other.models.create(name="Async", description="", parent_model="tiger-nano")
            sampled = await other.generate(model=made.id, messages=QUESTION, n=8, seed=3)
            trained = await other.train(model=made.id, messages=QUESTION, responses=rated(sampled))
            assert trained.revision == 1
            async with await other.train(model=made.id, messages=QUESTION, responses=rated(sampled), stream=True) as steps:
                assert (await steps.final()).revision == 2
            assert (await other.models.rollback(made.id, 0)).revision == 3
            assert [found.revision for found in await other.models.revisions(made.id)] == [3, 2, 1, 0]
            assert (await other.models.update(made.id, description="x")).description == "x"
            assert (await other.models.evaluate(made.id, prompts=[{"messages": QUESTION}], seed=1)).seed == 1
            async with await other.models.evaluate_stream(made.id, prompts=[{"messages": QUESTION}]) as evaluation:
                assert (await evaluation.final()).revision == 3
            assert await other.models.adapter(made.id, "adapter_config.json") == client.models.adapter(made.id, "adapter_config.json")
            assert (await other.models.get(made.id)) in await other.models.list()
            async with await other.models.create_stream(name="Async 2", description="", parent_model=made.id) as making:
                copy = await making.final()
            assert (await other.models.delete(copy.id)).id == copy.id
            with pytest.raises(tigercity.NotFoundError):
                await other.models.get(copy.id)
            await other.models.delete(made.id)

    asyncio.run(run())


def test_many_at_once() -> None:
    async def run() -> None:
        async with AsyncTigerCity() as other:
            answers = await asyncio.gather(*(other.generate(model="tiger-nano", messages=QUESTION, seed=seed) for seed in range(16)))
        assert all("Paris" in answer.message.content for answer in answers)

    asyncio.run(run())
