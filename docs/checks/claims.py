"""What prose claims, held to what there is: links, anchors, files, routes, commands, flags, variables, tables of fields. Runs no block."""

import re
import subprocess
from pathlib import Path
from urllib.parse import unquote

import commands
from contract import METHODS, Contract
from pages import Page, Wrong, code_spans, links

# Flags of other programs that prose speaks of.
FOREIGN_FLAGS = {"--cache-ram": "llama-server", "--jinja": "llama-server"}
# Routes that are no part of the API's description: they serve the page.
ROUTE = re.compile(r"^((?:GET|POST|PUT|PATCH|DELETE)(?:, (?:GET|POST|PUT|PATCH|DELETE))*) (/\S+)$")
# In ARCHITECTURE.md and the like a crate's folder is named without `crates/`.
FOLDERS = ("", "crates", "playground", "playground/src", "docs")


class Checkout:
    """Names of everything in the checkout, and the words of its sources."""

    def __init__(self, root: Path):
        self.root = root
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=root, check=True, capture_output=True, text=True
        )
        self.files = {name for name in listed.stdout.splitlines() if (root / name).exists()}
        self.folders = {str(parent) for name in self.files for parent in Path(name).parents}
        self.tops = {name.split("/")[0] for name in self.files if "/" in name}
        self.crates = {name.split("/")[1] for name in self.files if name.startswith("crates/")}
        self._sources = None

    def has(self, name: str) -> bool:
        name = name.rstrip("/")
        return name in self.files or name in self.folders

    def sources(self) -> str:
        """Text of programs and scripts (no pages, nothing generated)."""
        if self._sources is None:
            kinds = (".rs", ".py", ".sh", ".ts", ".mjs", ".service")
            wanted = [name for name in self.files if name.endswith(kinds) or "." not in Path(name).name]
            wanted = [name for name in wanted if not name.startswith(("docs/", "playground/dist"))]
            self._sources = "\n".join((self.root / name).read_text("utf-8", "replace") for name in wanted)
        return self._sources


def check_page(page: Page, pages: "dict[str, Page]", checkout: Checkout, contract: Contract, binary: str) -> "list[str]":
    """Everything wrong with a page's prose, each with its line."""
    errors = []

    def collect(line: int, check, *arguments) -> None:
        try:
            check(*arguments)
        except Wrong as error:
            errors.append(f"{page.name}:{line}: {error}")

    for line, text in page.prose:
        for target in links(text):
            collect(line, check_link, target, page, pages, checkout)
        for method, address in routes(text):
            collect(line, contract.check_route, method, address)
        for span in code_spans(text):
            collect(line, check_span, span, page, checkout, contract, binary)
    collect_tables(page, contract, collect)
    return errors


def check_link(target: str, page: Page, pages: "dict[str, Page]", checkout: Checkout) -> None:
    if re.match(r"[a-z]+:", target):
        return
    path, _, name = target.partition("#")
    there = (page.path.parent / unquote(path)).resolve() if path else page.path.resolve()
    relative = str(there.relative_to(checkout.root)) if there.is_relative_to(checkout.root) else None
    if relative is None or not checkout.has(relative):
        raise Wrong(f"the link `{target}` leads to no file of the checkout")
    if name and (relative not in pages or unquote(name) not in pages[relative].anchors):
        known = ", ".join(sorted(pages[relative].anchors)) if relative in pages else "none"
        raise Wrong(f"the link `{target}` leads to no heading; `{relative}` has {known}")


def routes(text: str) -> "list[tuple[str, str]]":
    """Methods and addresses that a line names: `GET /x`, `GET`, `POST /x`, `GET` and `DELETE /x`, or a heading `POST /x`."""
    found, waiting = [], []
    heading = re.match(r"#+ ([A-Z]+ /\S+)$", text)
    for span in [heading[1]] if heading else code_spans(text):
        route = ROUTE.match(span)
        if span in METHODS:
            waiting.append(span)
        elif route:
            found += [(method, route[2]) for method in [*waiting, *route[1].split(", ")]]
            waiting = []
        else:
            waiting = []
    return found


def check_span(span: str, page: Page, checkout: Checkout, contract: Contract, binary: str) -> None:
    words = span.split(" ")
    if re.match(r"(?:[A-Z_]+=\S+ )*tiger ", span):
        check_command(span, binary)
    elif len(words) > 1 and words[0] in commands.help_of(binary, ())[0] and words[1].startswith("--"):
        check_command(f"tiger {span}", binary)
    elif span.startswith("--"):
        check_flag(re.match(r"--[\w-]*", span)[0], checkout, binary)
    elif found := re.search(r"localhost:45678(/[^\s'\"`]*)", span):
        contract.check_path(found[1])
    elif re.match(r"/(?:v1|api|openai|healthz|readyz|metrics|openapi)\b[^\s]*$", span):
        contract.check_path(span)
    for name in re.findall(r"\bTIGER_[A-Z_]+", span):
        if not re.search(rf"\b{name}\b", checkout.sources()):
            raise Wrong(f"no program or script reads `{name}`")
    first = words[0]
    if re.fullmatch(r"\.?[\w.-]+(?:/[\w.-]+)+/?", first) or re.fullmatch(r"[\w-]+\.(?:md|py|rs|toml|jsonl|service)", first):
        check_file(first, page, checkout)


def check_command(text: str, binary: str) -> None:
    for words in commands.command_lines(text):
        commands.check_arguments(binary, words, exact=False)


def check_flag(flag: str, checkout: Checkout, binary: str) -> None:
    if flag in commands.every_flag(binary) or flag in FOREIGN_FLAGS:
        return
    if f'"{flag}"' not in checkout.sources() and not re.search(rf"(?<![\w-]){flag}(?![\w-])", checkout.sources()):
        raise Wrong(f"neither `tiger` nor a script has the flag `{flag}`")


def check_file(name: str, page: Page, checkout: Checkout) -> None:
    """A name with a folder of the checkout in front is meant as a file; other words with a slash are not."""
    first = name.split("/")[0]
    if "/" in name and first not in checkout.tops | checkout.crates | {"src"}:
        return
    if name.startswith(("target/", "playground/node_modules")):
        return
    beside = str((page.path.parent / name).resolve().relative_to(checkout.root))
    places = [f"{folder}/{name}".lstrip("/") for folder in FOLDERS]
    crate, _, rest = name.partition("/")
    places += [f"crates/{crate}/src/{rest}", beside]
    if any(checkout.has(place) for place in places):
        return
    if "/" not in name and any(file.endswith(f"/{name}") for file in checkout.files):
        return
    raise Wrong(f"there is no file or folder `{name}` in the checkout")


def collect_tables(page: Page, contract: Contract, collect) -> None:
    """A table headed `field` below a heading that is a route has that request's fields, all of them; `knob` those of a training."""
    route = None
    fields = None
    for line, text in [*page.prose, (0, "")]:
        if fields is not None and not text.startswith("|"):
            collect(fields[0], check_fields, *fields[1:], contract)
            fields = None
        if text.startswith("#"):
            route = next(iter(routes(text)), None)
        elif re.match(r"\| field \|", text) and route:
            fields = (line, route, set(), set())
        elif re.match(r"\| knob \|", text):
            fields = (line, ("POST", "/v1/train"), set(), {"model", "messages", "responses", "batch", "stream"})
        elif fields is not None and text.startswith("|"):
            fields[2].update(re.findall(r"`([a-z_]+)`", text.split("|")[1]))


def check_fields(route: "tuple[str, str]", named: "set[str]", elsewhere: "set[str]", contract: Contract) -> None:
    known = set(contract.request(*route)["properties"]) - elsewhere
    if named - known:
        raise Wrong(f"the table names {sorted(named - known)}, which `{' '.join(route)}` does not take")
    if known - named:
        raise Wrong(f"the table lacks {sorted(known - named)}, which `{' '.join(route)}` takes")
