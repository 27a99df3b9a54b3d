"""GGUF files that llama.cpp quantised, answered greedily by `tiger serve --model-dir FILE` and by `llama-server`: how many of 40 answers are alike.

    target/debug/examples/gguf models/nano/checkpoint models/nano/checkpoint bf16 q/bf16.gguf
    llama-quantize q/bf16.gguf q/Q4_K_M.gguf Q4_K_M            # and so on
    python golden/gguf/compare_llama.py target/debug/tiger llama-server q/*.gguf

Prints only; llama.cpp rounds activations to 8 bits, so near ties fall either way. No network, nothing but Python's own library.
"""

import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).parent.parent.parent
ASKED = 40


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Running:
    """A server until the block ends."""

    def __init__(self, port, health, command, **how):
        self.base = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **how)
        for _ in range(600):
            try:
                urllib.request.urlopen(self.base + health)
                return
            except OSError:
                time.sleep(0.1)
        sys.exit(f"{command[0]} does not answer")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def ask(self, path, model, question, key=""):
        body = {"model": model, "messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 40}
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        request = urllib.request.Request(self.base + path, json.dumps(body).encode(), headers)
        return json.load(urllib.request.urlopen(request))["choices"][0]["message"]["content"].strip()


def main(tiger, llama_server, files):
    questions = [q["question"] for q in json.loads((ROOT / "models/nano/questions.json").read_text())["train"]]
    questions = questions[:: max(1, len(questions) // ASKED)][:ASKED]
    with tempfile.TemporaryDirectory() as home:
        how = {"env": os.environ | {"TIGER_HOME": home}}
        key = subprocess.run([tiger, "keys", "create", "compare"], capture_output=True, text=True, check=True, **how).stdout.strip()
        port = free_port()
        bases = [part for file in files for part in ("--model-dir", file)]
        command = [tiger, "serve", "--port", str(port), "--memory", "4", "--precision", "f32", "--requests-per-minute", "100000", *bases]
        with Running(port, "/healthz", command, **how) as ours:
            for file in files:
                name, port = pathlib.Path(file).stem, free_port()
                answers = [ours.ask("/openai/v1/chat/completions", name, q, key) for q in questions]
                with Running(port, "/health", [llama_server, "-m", file, "--port", str(port), "-c", "512", "--jinja", "--no-warmup"]) as theirs:
                    others = [theirs.ask("/v1/chat/completions", name, q) for q in questions]
                print(name, sum(a == b for a, b in zip(answers, others)), "of", len(questions), flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
