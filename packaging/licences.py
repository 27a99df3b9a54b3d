"""Writes the licence texts of every Rust crate that the program is linked with, and of what its web page bundles.

    python3 packaging/licences.py > THIRD-PARTY-LICENCES.txt

Reads cargo's own metadata and the sources that cargo fetched. Fails where a crate has neither a text nor a known licence: that needs a person.
Does not judge licences: `deny.toml` does.
"""

import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
TEXT = re.compile(r"(licen[cs]e|copying|notice|unlicense)", re.IGNORECASE)
# Crates that name their licence and carry no text; the text of these licences is elsewhere in the list.
KNOWN = {"MIT", "Apache-2.0", "MIT OR Apache-2.0", "MIT/Apache-2.0", "Apache-2.0 OR MIT", "Zlib", "ISC", "Unlicense OR MIT", "BSD-3-Clause"}


def linked():
    """Packages that the binary needs on this machine, without those for building and testing."""
    command = ["cargo", "tree", "--locked", "-p", "tiger-cli", "-e", "normal", "--prefix", "none", "--format", "{p}"]
    names = set()
    for line in subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines():
        name, version = line.split()[:2]
        names.add((name, version.lstrip("v")))
    return names


def main():
    command = ["cargo", "metadata", "--locked", "--format-version", "1"]
    metadata = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    wanted, texts, without = linked(), {}, []
    for package in metadata["packages"]:
        if package["source"] is None or (package["name"], package["version"]) not in wanted:
            continue
        folder = pathlib.Path(package["manifest_path"]).parent
        title = f"{package['name']} {package['version']} ({package['license'] or 'see its text'})"
        found = sorted(path for path in folder.iterdir() if path.is_file() and TEXT.search(path.name))
        if not found and package["license"] not in KNOWN:
            without.append(title)
        for path in found:
            texts.setdefault(path.read_text(errors="replace").strip(), []).append(f"{title}, {path.name}")
        if not found:
            texts.setdefault("", []).append(title)
    if without:
        sys.exit("no licence text and no known licence: " + ", ".join(without))
    for text, titles in sorted(texts.items(), key=lambda pair: pair[1][0]):
        print("=" * 100)
        print("\n".join(titles))
        print("-" * 100)
        print(text or "These crates carry no file with their licence; the licence named is as printed for others in this file.")
    print("=" * 100)
    print((ROOT / "playground/dist/assets/licenses.txt").read_text())


main()
