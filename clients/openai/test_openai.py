"""OpenAI's own Python SDK against this server: the real binary on an empty folder with the built-in model. Knows nothing of the server's insides."""

import json
import math
import os
import pathlib
import subprocess
import tempfile
import threading
import unittest

import openai

ROOT = pathlib.Path(__file__).resolve().parents[2]
TIGER = os.environ.get("TIGER_BIN", str(ROOT / "target/debug/tiger"))
MODEL = "tiger-nano"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": CITY}}


class Server:
    """`tiger serve` on a free port."""

    def __init__(self):
        self.data = tempfile.TemporaryDirectory()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TIGER_")}
        environment["TIGER_HOME"] = self.data.name
        made = subprocess.run([TIGER, "keys", "create", "sdk"], env=environment, capture_output=True, text=True, check=True)
        self.key = made.stdout.strip()
        command = [TIGER, "serve", "--port", "0", "--memory", "2"]
        self.process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if line.startswith("listening on "):
                self.url = line.removeprefix("listening on ").strip()
                break
        else:
            raise RuntimeError("the server ended before it listened")
        # Nobody may block on a full pipe.
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def stop(self):
        self.process.terminate()
        self.process.wait(30)
        self.process.stderr.close()
        self.data.cleanup()


class Suite(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.addClassCleanup(cls.server.stop)
        cls.client = openai.OpenAI(base_url=cls.server.url + "/openai/v1", api_key=cls.server.key, max_retries=0)

    def chat(self, **fields):
        return self.client.chat.completions.create(**{"model": MODEL, "messages": QUESTION, "temperature": 0, **fields})

    def test_models(self):
        self.assertIn(MODEL, [model.id for model in self.client.models.list()])
        self.assertEqual(self.client.models.retrieve(MODEL).owned_by, "tigercity")
        with self.assertRaises(openai.NotFoundError):
            self.client.models.retrieve("absent")
        with self.assertRaises(openai.PermissionDeniedError):
            self.client.models.delete(MODEL)

    def test_chat(self):
        answer = self.chat()
        choice = answer.choices[0]
        self.assertIn("Paris", choice.message.content)
        self.assertEqual((choice.finish_reason, choice.message.role, answer.object), ("stop", "assistant", "chat.completion"))
        self.assertEqual(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens)
        cut = self.chat(max_completion_tokens=2)
        self.assertEqual((cut.choices[0].finish_reason, cut.usage.completion_tokens), ("length", 2))

    def test_chat_stream(self):
        whole = self.chat(n=2, temperature=1, seed=4)
        chunks = list(self.chat(n=2, temperature=1, seed=4, stream=True, stream_options={"include_usage": True}))
        self.assertEqual(chunks[-1].choices, [])
        self.assertEqual(chunks[-1].usage.completion_tokens, whole.usage.completion_tokens)
        for choice in whole.choices:
            mine = [one for chunk in chunks for one in chunk.choices if one.index == choice.index]
            self.assertEqual("".join(one.delta.content or "" for one in mine), choice.message.content)
            self.assertEqual(mine[-1].finish_reason, choice.finish_reason)

    def test_stream_helper(self):
        with self.client.chat.completions.stream(model=MODEL, messages=QUESTION, temperature=0) as stream:
            text = "".join(event.delta for event in stream if event.type == "content.delta")
            self.assertEqual(stream.get_final_completion().choices[0].message.content, text)
        self.assertIn("Paris", text)

    def test_logprobs(self):
        choice = self.chat(logprobs=True, top_logprobs=5).choices[0]
        tokens = choice.logprobs.content
        self.assertEqual(b"".join(bytes(token.bytes) for token in tokens).decode(), choice.message.content)
        for token in tokens:
            numbers = [top.logprob for top in token.top_logprobs]
            self.assertEqual((len(numbers), numbers), (5, sorted(numbers, reverse=True)))
            self.assertLessEqual(sum(math.exp(number) for number in numbers), 1 + 1e-5)
            # Greedy: the drawn token is the first.
            self.assertEqual((token.token, token.logprob), (token.top_logprobs[0].token, token.top_logprobs[0].logprob))

    def test_seed_and_stop(self):
        texts = [self.chat(temperature=2, seed=seed, max_tokens=20).choices[0].message.content for seed in (1, 1, 2)]
        self.assertEqual(texts[0], texts[1])
        self.assertNotEqual(texts[0], texts[2])
        stopped = self.chat(stop=["aris"]).choices[0]
        self.assertTrue(stopped.message.content.endswith("P"))
        self.assertEqual(stopped.finish_reason, "stop")

    def test_response_format(self):
        self.assertIsInstance(json.loads(self.chat(response_format={"type": "json_object"}).choices[0].message.content), dict)
        format = {"type": "json_schema", "json_schema": {"name": "city", "strict": True, "schema": CITY}}
        self.assertIn(json.loads(self.chat(response_format=format).choices[0].message.content)["city"], ["Oslo", "Rome"])

    def test_parse(self):
        import typing

        import pydantic

        class City(pydantic.BaseModel):
            city: typing.Literal["Oslo", "Rome"]

        parsed = self.client.chat.completions.parse(model=MODEL, messages=QUESTION, temperature=0, response_format=City)
        self.assertIn(parsed.choices[0].message.parsed.city, ["Oslo", "Rome"])

    def test_tools(self):
        for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
            answer = self.chat(tools=[WEATHER], tool_choice=choice).choices[0]
            self.assertEqual(answer.finish_reason, "tool_calls")
            call = answer.message.tool_calls[0]
            self.assertEqual(call.function.name, "weather")
            self.assertIn(json.loads(call.function.arguments)["city"], ["Oslo", "Rome"])
            chunks = list(self.chat(tools=[WEATHER], tool_choice=choice, stream=True))
            calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
            self.assertEqual([(one.index, one.function) for one in calls][0][0], 0)
            self.assertEqual(json.loads(calls[0].function.arguments), json.loads(call.function.arguments))
        # The model's own message and the answer to its call go back as they came.
        told = [*QUESTION, answer.message, {"role": "tool", "tool_call_id": call.id, "content": "cold"}]
        self.assertIsInstance(self.chat(messages=told, tools=[WEATHER], tool_choice="none").choices[0].message.content, str)
        self.assertIsNone(self.chat(tools=[WEATHER], tool_choice="none").choices[0].message.tool_calls)
        self.assertIn(self.chat(tools=[WEATHER], max_tokens=30).choices[0].finish_reason, ("stop", "length", "tool_calls"))

    def test_completions(self):
        fields = {"model": MODEL, "prompt": "The capital of", "temperature": 0, "max_tokens": 6}
        answer = self.client.completions.create(**fields, logprobs=3)
        logprobs = answer.choices[0].logprobs
        self.assertEqual("".join(logprobs.tokens), answer.choices[0].text)
        self.assertEqual(len(logprobs.top_logprobs), len(logprobs.tokens))
        chunks = list(self.client.completions.create(**fields, stream=True))
        self.assertEqual("".join(chunk.choices[0].text for chunk in chunks), answer.choices[0].text)
        by_tokens = self.client.completions.create(**{**fields, "prompt": [5, 6, 7]})
        self.assertEqual(by_tokens.usage.prompt_tokens, 3)

    def test_responses(self):
        fields = {"model": MODEL, "input": QUESTION[0]["content"], "temperature": 0}
        answer = self.client.responses.create(**fields)
        self.assertIn("Paris", answer.output_text)
        self.assertEqual(answer.status, "completed")
        again = self.client.responses.create(**{**fields, "input": [*QUESTION, *answer.output, *QUESTION]})
        self.assertGreater(again.usage.input_tokens, answer.usage.input_tokens)
        events = list(self.client.responses.create(**fields, stream=True))
        self.assertEqual("".join(event.delta for event in events if event.type == "response.output_text.delta"), answer.output_text)
        self.assertEqual(events[-1].response.output_text, answer.output_text)
        with self.client.responses.stream(**fields) as stream:
            for _ in stream:
                pass
            self.assertEqual(stream.get_final_response().output_text, answer.output_text)
        format = {"format": {"type": "json_schema", "name": "city", "schema": CITY}}
        self.assertIn(json.loads(self.client.responses.create(**fields, text=format).output_text)["city"], ["Oslo", "Rome"])

    def test_errors(self):
        with self.assertRaises(openai.BadRequestError) as bad:
            self.chat(n=0)
        self.assertEqual((bad.exception.param, bad.exception.type, bad.exception.code), ("n", "invalid_request_error", "invalid_parameter"))
        with self.assertRaises(openai.BadRequestError) as bad:
            self.chat(presence_penalty=1)
        self.assertEqual(bad.exception.param, "presence_penalty")
        with self.assertRaises(openai.NotFoundError) as absent:
            self.chat(model="absent", stream=True)
        self.assertEqual(absent.exception.code, "model_not_found")
        with self.assertRaises(openai.AuthenticationError) as wrong:
            self.client.with_options(api_key="tiger_wrong").models.list()
        self.assertEqual(wrong.exception.code, "invalid_api_key")
        with self.assertRaises(openai.BadRequestError) as long:
            self.chat(messages=[{"role": "user", "content": "word " * 5000}])
        self.assertEqual(long.exception.code, "context_length_exceeded")


if __name__ == "__main__":
    unittest.main()
