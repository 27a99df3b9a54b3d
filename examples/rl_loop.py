"""Training by rewards over the HTTP API, with Python's standard library alone: sample, reward, train, look at held-out prompts, keep the best.

    python3 examples/rl_loop.py examples/questions.jsonl --model pirate --reward 'python3 examples/reward.py'

Needs a server (`tiger serve`) and TIGER_API_KEY. `tiger rl` is the same with more care: it resumes, retries and draws.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

BASE_URL = os.environ.get("TIGER_BASE_URL", "http://localhost:45678")


def call(method, path, body=None):
    """One request; an error of the server ends the program with the server's own words."""
    request = urllib.request.Request(BASE_URL + path, method=method, data=json.dumps(body).encode() if body is not None else None)
    request.add_header("Authorization", "Bearer " + os.environ.get("TIGER_API_KEY", ""))
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code == 404 and method == "GET":
            return None
        sys.exit(f"{path}: {json.load(error)['error']['message']}")


def messages(prompt):
    return prompt.get("messages") or [{"role": "user", "content": prompt["prompt"]}]


def judge(args, prompt, response):
    """Runs the reward command with the response as JSON on its standard input; it prints a number."""
    shown = {**prompt, "messages": messages(prompt), "response": response["content"], "stop_reason": response["stop_reason"]}
    ran = subprocess.run(args.reward, shell=True, input=json.dumps(shown), capture_output=True, text=True, timeout=30, check=False)
    if ran.returncode != 0:
        sys.exit(f"the reward failed: {ran.stderr}")
    return float(ran.stdout)


def answers(args, model, prompt, n, temperature, seed):
    """`n` responses to a prompt, each with its reward."""
    request = {"model": model, "messages": messages(prompt), "n": n, "temperature": temperature, "top_p": 1, "max_tokens": 64, "seed": seed}
    answer = call("POST", "/v1/generate_response", request)
    first = {"content": answer["message"]["content"], "stop_reason": answer["stop_reason"], "response_id": answer["response_id"]}
    return [{**response, "reward": judge(args, prompt, response)} for response in answer.get("responses", [first])]


def look(args, pool, model, held_out):
    """Mean reward of greedy answers to prompts that are not trained on."""
    judged = pool.map(lambda prompt: answers(args, model, prompt, 1, 0, 0)[0]["reward"], held_out)
    return sum(judged) / len(held_out)


def step(args, pool, model, prompts, number):
    """Samples, rewards and trains once; returns the mean reward and the model's new revision."""
    seeds = range(1000 * number, 1000 * number + len(prompts))
    judged = list(pool.map(lambda pair: answers(args, model, pair[0], args.samples, 1, pair[1]), zip(prompts, seeds)))
    rated = [[{"response_id": response["response_id"], "reward": response["reward"]} for response in group] for group in judged]
    batch = [{"messages": messages(prompt), "responses": responses} for prompt, responses in zip(prompts, rated)]
    trained = call("POST", "/v1/train", {"model": model, "batch": batch})
    return trained["reward"]["mean"], trained["revision"]


def main():
    parser = argparse.ArgumentParser(description="A loop of training by rewards")
    parser.add_argument("prompts", help="JSON lines with `prompt` or `messages`; all fields are given to the reward")
    parser.add_argument("--model", required=True)
    parser.add_argument("--base", default="tiger-nano", help="what the model is made from if it is not there")
    parser.add_argument("--reward", required=True, help="command that reads JSON and prints a number")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--prompts-per-step", type=int, default=8)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--held-out", type=int, default=32, help="number of prompts that are only looked at")
    parser.add_argument("--look-every", type=int, default=4)
    args = parser.parse_args()

    with open(args.prompts, encoding="utf-8") as file:
        prompts = [json.loads(line) for line in file if line.strip()]
    random.Random(0).shuffle(prompts)
    held_out, prompts = prompts[: args.held_out], prompts[args.held_out :]
    found = call("GET", "/v1/models/" + urllib.request.quote(args.model, safe=""))
    made = found or call("POST", "/v1/models", {"name": args.model, "description": "", "parent_model": args.base})
    model, revision = made["id"], made["revision"]

    with ThreadPoolExecutor(8) as pool:
        best = (look(args, pool, model, held_out), revision)
        print(f"before: {best[0]:.3f} on held-out prompts")
        order = []
        for number in range(1, args.steps + 1):
            while len(order) < args.prompts_per_step:
                order += random.Random(number).sample(prompts, len(prompts))
            picked, order = order[: args.prompts_per_step], order[args.prompts_per_step :]
            reward, revision = step(args, pool, model, picked, number)
            line = f"step {number}: reward {reward:.3f}, revision {revision}"
            if number % args.look_every == 0 or number == args.steps:
                seen = look(args, pool, model, held_out)
                best = max(best, (seen, revision))
                line += f", {seen:.3f} on held-out prompts"
            print(line, flush=True)
    if best[1] != revision:
        revision = call("POST", f"/v1/models/{model}/rollback", {"revision": best[1]})["revision"]
    print(f"{model}: revision {revision} has the best weights, {best[0]:.3f} on held-out prompts")


if __name__ == "__main__":
    main()
