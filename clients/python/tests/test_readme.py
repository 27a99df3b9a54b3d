"""The examples of the README, run as they stand and in their order, against the real program."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from pathlib import Path

from tigercity import NotFoundError, TigerCity

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
EXAMPLES = re.findall(r"^## (.+?)\n\n```python\n(.*?)```", README, re.MULTILINE | re.DOTALL)

WANTED = {
    "Chat": r"[\s\S]*Paris[\s\S]*Madrid[\s\S]* \d+\n",
    "Stream": r"[\s\S]*[Gg]reen[\s\S]*\nend_turn\n",
    "Train by rewards": r"1 0\.\d+ \[.*\]\n",
    "Roll back": r"1 train_\d+ True\n0 None True\n2\n",
    "Adapters": r"pirate-again 0\n",
    "Async": r"[\s\S]*Lima[\s\S]*Lima[\s\S]*",
    "Errors": r"there is no model `nobody`.* model_not_found req_\w+\n",
}


def test_every_example_runs(tmp_path: Path) -> None:
    assert [name for name, _ in EXAMPLES] == list(WANTED)
    # The other package's examples may have left theirs.
    with contextlib.suppress(NotFoundError):
        TigerCity().models.delete("pirate")
    for name, code in EXAMPLES:
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path)
        assert ran.returncode == 0, f"{name}:\n{ran.stderr}"
        assert re.fullmatch(WANTED[name], ran.stdout), f"{name} printed:\n{ran.stdout}"


def test_every_example_is_typed(tmp_path: Path) -> None:
    for number, (_, code) in enumerate(EXAMPLES):
        (tmp_path / f"example_{number}.py").write_text(code, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path}/cache", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_typescript_readme_has_the_same_examples() -> None:
    other = (Path(__file__).parents[2] / "typescript/README.md").read_text("utf-8")
    headings = re.findall(r"^## (.+?)\n\n```ts\n", other, re.MULTILINE)
    assert headings == [name for name, _ in EXAMPLES if name != "Async"]
