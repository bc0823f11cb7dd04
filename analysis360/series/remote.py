"""The part of a series that lives on a Hub: branches resolved to commits once, checkpoints found among them."""

from __future__ import annotations

from collections.abc import Sequence

from analysis360.errors import HubError, MissingError, SeriesError, UnreachableError
from analysis360.hub.client import Hub, Kind
from analysis360.hub.folder import HubFolder
from analysis360.hub.options import HubOptions
from analysis360.places import Place
from analysis360.series.checkpoint import Checkpoint
from analysis360.series.discovery import Listing, discover
from analysis360.series.records import Revisions

REFS = "refs.json"


class Remote:
    """What one opening of a series asks of a Hub, and the commits it was told."""

    def __init__(self, options: HubOptions | None = None) -> None:
        self.hub = Hub(options)
        self.notes: list[str] = []
        self.listing: Listing | None = None
        self._pinned: dict[tuple[str, Kind], dict[str, str]] = {}
        self._used: list[HubFolder] = []

    def branches(self, repository: str, kind: Kind) -> dict[str, str]:
        """Branch -> commit, asked once; without a connection, as last seen. Raises HubError."""
        if (repository, kind) not in self._pinned:
            kept = self.hub.shelf.folder(kind, repository) / REFS
            try:
                found = self.hub.branches(repository, kind)
                self.hub.shelf.remember(kept, found)
            except UnreachableError as error:
                found = self.hub.shelf.recall(kept)
                if found is None:
                    raise error from None
                self.notes.append(f"{repository}: out of reach; commits are those of the last connection")
            self._pinned[repository, kind] = found
        return self._pinned[repository, kind]

    def folder(self, repository: str, kind: Kind, branch: str = "main", prefix: str = "") -> Place:
        """A branch of a repository, pinned. Raises HubError, SeriesError."""
        branches = self.branches(repository, kind)
        if branch not in branches:
            raise SeriesError(
                f"{repository}: no branch {branch!r}; it has {len(branches)}: {_some(branches)}"
            )
        folder = HubFolder(self.hub, repository, kind, branches[branch], branch, prefix)
        self._used.append(folder)
        return folder

    def checkpoints(self, rule: Revisions) -> tuple[Checkpoint, ...]:
        """The checkpoints among the branches of a repository, in the order of the rule."""
        repository = self.called((rule.repository, *rule.aliases), "model")
        branches = self.branches(repository, "model")
        listing = discover(branches, rule)
        if not listing.found:
            raise SeriesError(
                f"{repository}: none of {len(branches)} branches is a checkpoint by the pattern "
                f"{rule.revision!r}: {_some(branches)}; give another --pattern"
            )
        self.listing = listing
        self.notes += [f"{repository}: {note}" for note in listing.notes()]
        trusted = self.hub.options.trust_remote_code
        return tuple(
            Checkpoint(
                found.name,
                i,
                self.folder(repository, "model", found.branch, rule.subfolder or ""),
                found.labels,
                trusted,
            )
            for i, found in enumerate(listing.found)
        )

    def moved(self) -> list[str]:
        """A line for each branch in use that is at another commit now; nothing where the Hub is out of reach."""
        lines: dict[str, None] = {}
        fresh: dict[tuple[str, Kind], dict[str, str]] = {}
        for folder in self._used:
            of = (folder.repository, folder.kind)
            try:
                if of not in fresh:
                    fresh[of] = self.hub.branches(*of)
            except UnreachableError:
                fresh[of] = self._pinned[of]
            except HubError as error:
                fresh[of] = self._pinned[of]
                lines[f"whether branches moved could not be asked: {error}"] = None
            now = fresh[of].get(folder.branch)
            if now != folder.commit:
                to = f"moved to {now[:8]}" if now else "was deleted"
                which = f"{folder.repository}: branch {folder.branch}"
                lines[f"{which} {to} since the run began; scores are of {folder.commit[:8]}"] = None
        return list(lines)

    def called(self, names: Sequence[str], kind: Kind) -> str:
        """The first of a repository's names under which it answers. Raises HubError."""
        first: HubError | None = None
        for name in names:
            try:
                self.branches(name, kind)
                return name
            except (MissingError, UnreachableError) as error:
                first = first or error
        assert first is not None
        raise first


def _some(names: dict[str, str], most: int = 5) -> str:
    listed = sorted(names)
    return ", ".join(listed[:most]) + (", ..." if len(listed) > most else "")
