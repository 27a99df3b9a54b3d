"""Puts the program itself into the wheel where TIGER_WHEEL_BIN names it, so that `pip install tigercity` gives `tiger` too.

Without it the wheel is the client alone, for every machine. Does not build the program: `packaging/wheel` does.
"""

from __future__ import annotations

import os
import platform
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ProgramHook(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        binary = os.environ.get("TIGER_WHEEL_BIN")
        if not binary:
            return
        libc, number = platform.libc_ver()
        if libc != "glibc":
            raise RuntimeError("wheels with the program are made on Linux with glibc")
        # The oldest glibc that the program is known to run with: the one that it was linked with (PEP 600).
        build_data["tag"] = f"py3-none-manylinux_{number.replace('.', '_')}_{platform.machine()}"
        build_data["pure_python"] = False
        build_data["shared_scripts"] = {binary: "tiger"}
