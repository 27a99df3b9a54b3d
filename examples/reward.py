"""A reward for `tiger rl` and the loops of this folder: 1 for a right answer in the style of a pirate, else 0.

    tiger rl … --reward 'python3 examples/reward.py'
    python3 examples/reward.py --serve 8765      and then      tiger rl … --reward-url http://127.0.0.1:8765

It is given one JSON object: `response`, and the fields of the prompt's line, here `answer`. As a command it is started for each response; as
an address it stays, which is better where it loads something large. Asking for the right answer as well as for the style matters: a
reward for the style alone soon gets nothing but style.
"""

import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def reward(shown):
    in_style = re.search(r"\bArr\b", shown["response"])
    is_right = re.search(rf"\b{re.escape(shown['answer'])}\b", shown["response"], re.IGNORECASE)
    return 1 if in_style and is_right else 0


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        number = str(reward(json.loads(self.rfile.read(int(self.headers["content-length"])))))
        self.send_response(200)
        self.send_header("content-length", str(len(number)))
        self.end_headers()
        self.wfile.write(number.encode())

    def log_message(self, *_):
        pass


if sys.argv[1:2] == ["--serve"]:
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
else:
    print(reward(json.load(sys.stdin)))
