"""What `tiger --help` knows: whether the subcommands and flags of a command line exist. Runs nothing but `--help`."""

import functools
import os
import re
import shlex
import subprocess

from pages import Wrong

# Words after which a program's own arguments begin, as a reader starts it.
STARTS = re.compile(r"cargo\s+run\s+(?:--release\s+)?(?:--\s+)|docker\s+run\s+[^\n]*?\s(?:--rm|-v\s+\S+)\s+tigercity\b(?!:)")

# Words of these end a command; what comes behind them begins one.
ENDS = set("();<>|&{")


@functools.lru_cache(maxsize=None)
def help_of(binary: str, subcommand: "tuple[str, ...]") -> "tuple[set[str], set[str], set[str]]":
    """Subcommands and flags that the help of a subcommand lists, and those of the flags that take a value."""
    shown = subprocess.run([binary, *subcommand, "--help"], capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})
    listed = re.search(r"^Commands:\n((?:  .*\n)+)", shown.stdout, re.MULTILINE)
    commands = set(re.findall(r"^  ([a-z]+)", listed[1], re.MULTILINE)) if listed else set()
    flags, valued = set(), set()
    for short, long, value in re.findall(r"^\s+(?:(-\w), )?(--[a-z-]+)( <)?", shown.stdout, re.MULTILINE):
        flags |= {short, long} - {""}
        valued |= {long} if value else set()
    return commands, flags | set(re.findall(r"\[alias: (--[a-z-]+)\]", shown.stdout)), valued


def every_flag(binary: str) -> "set[str]":
    found = set()
    waiting = [()]
    while waiting:
        subcommand = waiting.pop()
        commands, flags, _ = help_of(binary, subcommand)
        found |= flags
        if subcommand[:1] != ("help",):
            waiting += [(*subcommand, command) for command in commands if command != "help"]
    return found


def check_arguments(binary: str, words: "list[str]", exact: bool) -> None:
    """`exact`: the values are meant as they stand, so the program's own parser reads them too; else they may be placeholders."""
    subcommand: "tuple[str, ...]" = ()
    value_of = None
    for word in words:
        commands, flags, valued = help_of(binary, subcommand)
        name = word.split("=")[0]
        if word == "--":
            break
        if value_of:
            value_of = None
        elif re.match(r"--?[a-zA-Z]", word):
            if name not in flags:
                shown = " ".join(("tiger", *subcommand))
                raise Wrong(f"`{shown}` has no `{name}`; `{shown} --help` lists what it has")
            value_of = name if name in valued and name == word else None
        elif word in commands:
            subcommand = (*subcommand, word)
        elif commands and word != "…":
            raise Wrong(f"there is no `{' '.join(('tiger', *subcommand, word))}`; `--help` lists what there is")
    if exact:
        asked = subprocess.run([binary, *words, "--help"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if asked.returncode != 0:
            raise Wrong(f"`tiger {' '.join(words)}` is refused: {asked.stderr.strip()}")


def command_lines(text: str) -> "list[list[str]]":
    """The arguments of every `tiger` in a piece of shell; pipes, lists and substitutions end one."""
    text = STARTS.sub("tiger ", text.replace("\\\n", " "))
    found = []
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
        lexer.whitespace_split = True
        lexer.commenters = "#"
        try:
            words = list(lexer)
        except ValueError:
            # A quotation over several lines, such as the body of a request.
            words = line.split()
        for at, word in enumerate(words):
            if word == "tiger" and (at == 0 or set(words[at - 1]) <= ENDS or "=" in words[at - 1]):
                rest = words[at + 1 :]
                found.append(rest[: next((i for i, word in enumerate(rest) if set(word) <= ENDS), len(rest))])
    return found
