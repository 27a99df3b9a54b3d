"""Runs schemathesis beside a server: TIGER_BASE_URL, TIGER_API_KEY, TIGER_DATA_DIR. `run.py SCHEMATHESIS ARGUMENT…`

First the examples of the document, which must all be answered with success; then everything, with an API key, and signed in for the page's own
routes. Knows no operation but the few that would end the session or leave this machine.
"""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request

URL = os.environ["TIGER_BASE_URL"]
KEY = os.environ["TIGER_API_KEY"]
BINARY = os.environ.get("TIGER_BIN", "../../target/debug/tiger")
PASSWORD = "correct horse battery"
# Signing out ends the run; pulls of random names would ask the hub for them.
LEFT_OUT = ["sign_out", "begin_pull"]


def call(method, path, body=None, headers=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(URL + path, data, {"content-type": "application/json", **(headers or {})}, method=method)
    try:
        return urllib.request.urlopen(request)
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{method} {path}: {error.code} {error.read().decode()}\nthe example: {json.dumps(body)}") from None


def examples(document):
    """Sends the example of every request body that has one."""
    sent = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            media = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            name = media.get("schema", {}).get("$ref", "").rsplit("/", 1)[-1]
            example = document["components"]["schemas"].get(name, {}).get("example")
            if example is not None:
                sent.append((0 if operation["operationId"] == "create_model" else 1, method.upper(), path.replace("{id}", "pirate"), example))
    # The model that the others speak of is made first.
    for _, method, path, example in sorted(sent, key=lambda one: one[0]):
        call(method, path, example, {"authorization": f"Bearer {KEY}"})
    if len(sent) < 9:
        raise SystemExit(f"only {len(sent)} request bodies have an example")
    print(f"{len(sent)} examples of the document are answered")


def session():
    """The token of the owner's session."""
    owner = [BINARY, "accounts", "owner", "ada", "--data-dir", os.environ["TIGER_DATA_DIR"]]
    subprocess.run(owner, input=PASSWORD, text=True, check=True, stdout=subprocess.DEVNULL)
    answer = call("POST", "/api/session", {"name": "ada", "password": PASSWORD}, {"x-tiger-csrf": "1"})
    return answer.headers["set-cookie"].split(";")[0].removeprefix("tiger_session=")


def main():
    program, *more = sys.argv[1:]
    examples(json.load(call("GET", "/openapi.json")))
    command = [program, "--config-file", "schemathesis.toml", "run", f"{URL}/openapi.json", "--url", URL, *more]
    left_out = [f"--exclude-operation-id={name}" for name in LEFT_OUT]
    return subprocess.run([*command, *left_out], env={**os.environ, "TIGER_SESSION": session()}).returncode


if __name__ == "__main__":
    sys.exit(main())
