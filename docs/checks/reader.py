"""A reader of one page: a home and a folder of their own, a server of their own, and every block in turn, as the page says. What one
block leaves behind (files, exported variables, the folder it went to, models) the next one finds. Does not know what is skipped, or why."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from pages import Block, Page, Wrong

ADDRESS = "localhost:45678"
BLOCK_TIMEOUT_S = 120
STOP_TIMEOUT_S = 10
# Of the output of a block that fails, the last.
MOST_LINES = 30

# `tiger serve` runs on "in another terminal", on the page's own port. Everything else is the program itself.
TIGER = """#!/usr/bin/env bash
if [ "${1:-}" != serve ]; then exec "$DOCS_TIGER" "$@"; fi
nohup "$DOCS_TIGER" "$@" --port "$DOCS_PORT" --threads 1 >"$DOCS_SERVER.log" 2>&1 </dev/null &
echo $! >"$DOCS_SERVER.pid"
until grep -q 'listening on' "$DOCS_SERVER.log"; do
    if ! kill -0 $! 2>/dev/null; then cat "$DOCS_SERVER.log" >&2; exit 1; fi
    sleep 0.05
done
"""

# What Rust would build is built already: the program and the examples are run, a crate to install must be there.
CARGO = """#!/usr/bin/env bash
set -euo pipefail
case "$*" in
'run --release -- '*) exec tiger "${@:4}" ;;
'run --release --example '*) exec "$(dirname "$DOCS_TIGER")/examples/$4" "${@:6}" ;;
'install --path '*) grep -q '^\\[package\\]' "$3/Cargo.toml" ;;
*) echo "docs/checks/reader.py does not know \\`cargo $*\\`" >&2; exit 1 ;;
esac
"""

# Node 20 runs no TypeScript; the types are checked by `clients/run`.
STRIP = """const { readFileSync, writeFileSync } = require('node:fs');
const ts = require(process.argv[2]);
const compilerOptions = { target: 'es2022', module: 'esnext' };
writeFileSync(process.argv[4], ts.transpileModule(readFileSync(process.argv[3], 'utf8'), { compilerOptions }).outputText);
"""


class Reader:
    def __init__(self, root: Path, work: Path, binary: str, page: Page):
        self.root = root
        self.page = page
        self.home = work / "home"
        self.folder = work / "tigercity"
        self.server = work / "server"
        self.output = ""
        self.count = 0
        bin_folder = work / "bin"
        for folder in (self.home, self.folder, bin_folder):
            folder.mkdir(parents=True)
        self.fill_folder()
        for name, text in (("tiger", TIGER), ("cargo", CARGO)):
            (bin_folder / name).write_text(text)
            (bin_folder / name).chmod(0o755)
        self.scratch = work
        self.port = free_port()
        # A request that is refused is an error, as a reader would see it.
        (self.home / ".curlrc").write_text('silent\nshow-error\nfail-with-body\nnoproxy = "*"\n')
        self.env = self.first_environment(binary, bin_folder)
        # What the page's own blocks do, nothing else has to do before.
        shells = "".join(block.text for block in page.blocks if block.language == "sh" and "skip" not in block.options)
        self.serves = re.search(r"^tiger serve", shells, re.MULTILINE) is not None
        self.makes_key = "tiger keys create" in shells

    def fill_folder(self) -> None:
        """The checkout as the page finds it. What blocks write to is copied, the rest is the real one."""
        for name in sorted(path.name for path in self.root.iterdir() if path.name not in (".git", "target", "clients", "examples")):
            (self.folder / name).symlink_to(self.root / name)
        ignored = shutil.ignore_patterns("node_modules", "dist", "build", "__pycache__")
        for name in ("clients", "examples"):
            shutil.copytree(self.root / name, self.folder / name, ignore=ignored, symlinks=True)

    def first_environment(self, binary: str, bin_folder: Path) -> "dict[str, str]":
        tools = self.root / "target/docs"
        kept = {name: os.environ[name] for name in ("LANG", "TERM", "PATH") if name in os.environ}
        # Nothing that is installed here may come from elsewhere: it lies in the environment already, or in npm's cache.
        installs = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "NPM_CONFIG_OFFLINE": "true"}
        sources = str(self.root / "clients/python/src")
        installs_itself = any("pip install ./clients/python" in block.text for block in self.page.blocks)
        return {
            **kept,
            **installs,
            **({} if installs_itself else {"PYTHONPATH": sources}),
            "PYTHONDONTWRITEBYTECODE": "1",
            "NPM_CONFIG_CACHE": str(tools / "npm"),
            "PATH": f"{bin_folder}:{tools}/venv/bin:{kept['PATH']}",
            "HOME": str(self.home),
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            "TIGER_BASE_URL": f"http://localhost:{self.port}",
            "DOCS_TIGER": str(Path(binary).resolve()),
            "DOCS_PORT": str(self.port),
            "DOCS_SERVER": str(self.server),
        }

    def __enter__(self) -> "Reader":
        if not self.serves:
            self.shell("tiger serve\n", "the page's server")
        if not self.makes_key:
            self.shell("export TIGER_API_KEY=$(tiger keys create docs)\n", "the page's key")
        return self

    def __exit__(self, *_) -> None:
        pid = Path(f"{self.server}.pid")
        if not pid.exists():
            return
        # It is this page's own server, started by its own script.
        os.kill(int(pid.read_text()), signal.SIGTERM)
        until = time.monotonic() + STOP_TIMEOUT_S
        while listens(self.port) and time.monotonic() < until:
            time.sleep(0.02)

    def run(self, block: Block) -> None:
        text = block.text.replace(ADDRESS, f"localhost:{self.port}")
        if "shorter" in block.options:
            text = shortened(text, block.options["shorter"])
        if block.language in ("sh", "bash"):
            self.shell(text, block.place)
        elif block.language == "python":
            self.program(["python", self.write("py", text)], block.place)
        elif block.language in ("js", "ts"):
            self.node(text, block)
        else:
            raise Wrong(f"nothing here runs `{block.language or 'a block without a language'}`")
        for wanted in re.findall(r"(?:#|//) prints (.*)$", block.text, re.MULTILINE):
            if not re.search(pattern(wanted), self.output):
                raise Wrong(f"it says that it prints `{wanted}`, but prints:\n{last_lines(self.output)}")

    def write(self, kind: str, text: str) -> str:
        self.count += 1
        path = self.folder / f"block-{self.count}.{kind}"
        path.write_text(text)
        return str(path)

    def node(self, text: str, block: Block) -> None:
        packages = self.folder / "node_modules"
        packages.mkdir(exist_ok=True)
        openai = packages / "openai"
        if not openai.exists():
            openai.symlink_to(self.root / "clients/openai/node_modules/openai")
        program = self.write("mjs", text)
        if block.language == "ts":
            typescript = str(self.root / "clients/typescript/node_modules/typescript")
            self.program(["node", self.write("cjs", STRIP), typescript, self.write("ts", text), program], block.place)
        self.program(["node", program], block.place)

    def shell(self, text: str, place: str) -> None:
        after = self.scratch / "after"
        after.unlink(missing_ok=True)
        script = self.write("sh", f"{text}\n{{ pwd; env -0; }} >{after}\n")
        self.program(["bash", "-euo", "pipefail", script], place)
        folder, _, variables = after.read_text().partition("\n")
        self.env = dict(pair.split("=", 1) for pair in variables.split("\0") if "=" in pair)
        self.folder_now = folder

    def program(self, words: "list[str]", place: str) -> None:
        written = self.scratch / "output"
        with written.open("wb") as out:
            ran = subprocess.Popen(
                words,
                cwd=getattr(self, "folder_now", self.folder),
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                status = ran.wait(BLOCK_TIMEOUT_S)
            except subprocess.TimeoutExpired as error:
                os.killpg(ran.pid, signal.SIGKILL)
                raise Wrong(f"it does not end within {BLOCK_TIMEOUT_S} s") from error
        self.output = written.read_text("utf-8", "replace")
        if status != 0:
            raise Wrong(f"it fails with exit code {status}:\n{last_lines(self.output)}")

    def check_output(self, block: Block) -> None:
        """What the block before printed is what this one shows; `…` stands for anything."""
        if not re.fullmatch(pattern(block.text.rstrip("\n")), self.output.rstrip("\n")):
            raise Wrong(f"the block before printed something else:\n{last_lines(self.output)}")


def shortened(text: str, changes: str) -> str:
    for change in changes.split("; "):
        long, _, short = change.partition(" -> ")
        if long not in text:
            raise Wrong(f"`shorter` of the info string speaks of `{long}`, which is not in the block")
        text = text.replace(long, short)
    return text


def last_lines(output: str) -> str:
    lines = output.splitlines()
    return "\n".join([f"({len(lines) - MOST_LINES} lines before)", *lines[-MOST_LINES:]] if len(lines) > MOST_LINES else lines)


def pattern(shown: str) -> str:
    return "(?s:.*)".join(re.escape(part) for part in shown.strip().split("…"))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def listens(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0
