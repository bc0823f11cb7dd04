"""What surrounds a judged program: a bubblewrap command with nothing inside but this Python's standard library.

No network, no processes but its own, no environment, and nothing that can be written: empty files alone would
fill the kernel's memory, which no limit of a process counts. The interpreter, its standard library and the shared
objects they load lie where they lie outside, for a program finds its libraries by path; packages beside the standard
library are hidden.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from analysis360.errors import SandboxError

INSIDE = Path(__file__).with_name("inside")
OWN = "/own"
"""The folder inside from which INSIDE is imported, under its name here."""
_PLACE = f"{OWN}/analysis360/tasks/code/inside"
NOBODY = "1000"
"""User and group inside."""
UNUSED = ("_tkinter", "_test", "_ctypes_test", "_xx")
"""Extension modules of the standard library that no program needs, and whose libraries stay outside."""
INSTALL = "install it with `apt-get install bubblewrap` (version 0.7 or later)"


def command(
    module: str, arguments: Sequence[str], *, files: dict[str, int], seccomp: int, info: int
) -> list[str]:
    """The command that runs `main` of a module of `inside` in a sandbox of its own.

    `files` are descriptors whose content becomes a file of the name inside; `seccomp` is that of a filter; to
    `info` bubblewrap writes what it has started. Raises SandboxError where bubblewrap is not installed.
    """
    given = [part for name, fd in files.items() for part in ("--file", str(fd), name)]
    start = f"from analysis360.tasks.code.inside.{module} import main; main()"
    python = [_interpreter(), "-S", "-s", "-B", "-X", "utf8", "-c", start]
    return [
        *_walls(),
        *given,
        *("--chdir", "/", "--remount-ro", "/"),
        *("--info-fd", str(info), "--seccomp", str(seccomp), "--"),
        *python,
        *arguments,
    ]


@lru_cache(maxsize=1)
def sandbox_version() -> str:
    """`bubblewrap 0.8.0`. Raises SandboxError."""
    told = subprocess.run([_walls()[0], "--version"], capture_output=True, text=True, check=False)
    return told.stdout.strip()


@lru_cache(maxsize=1)
def _walls() -> tuple[str, ...]:
    """Everything that does not depend on the program."""
    found = shutil.which("bwrap")
    if found is None:
        raise SandboxError(f"programs are judged in a sandbox, and bubblewrap is not there: {INSTALL}")
    library = _library()
    hidden = [library / name for name in ("site-packages", "dist-packages")]
    return (
        *(found, "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"),
        *("--uid", NOBODY, "--gid", NOBODY, "--hostname", "sandbox"),
        *("--clearenv", "--setenv", "PYTHONHASHSEED", "0", "--setenv", "HOME", "/"),
        *(part for path in _needed() for part in ("--ro-bind", path, path)),
        *(part for path in hidden if path.is_dir() for part in _emptied(str(path))),
        *("--ro-bind", str(INSIDE), _PLACE, "--setenv", "PYTHONPATH", OWN),
        *("--dev-bind", "/dev/null", "/dev/null"),
    )


def _emptied(folder: str) -> tuple[str, ...]:
    return "--tmpfs", folder, "--remount-ro", folder


def _needed() -> list[str]:
    """The interpreter, its standard library, and every shared object that one of them loads."""
    library = _library()
    modules = [path for path in library.glob("lib-dynload/*.so") if not path.name.startswith(UNUSED)]
    asked = [_interpreter(), *map(str, modules)]
    told = subprocess.run(["ldd", *asked], capture_output=True, text=True, check=False).stdout
    objects = set(re.findall(r"(?:^|\s)(/\S+) \(0x", told))
    if not objects:
        raise SandboxError(
            f"ldd names no shared object of {_interpreter()}; it is asked what the sandbox needs"
        )
    cache = ["/etc/ld.so.cache"] if Path("/etc/ld.so.cache").exists() else []
    return [_interpreter(), str(library), *sorted(objects), *cache]


def _interpreter() -> str:
    """The executable behind this one, whatever virtual environments lie between."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def _library() -> Path:
    """The folder of the standard library."""
    return Path(os.__file__).resolve().parent
