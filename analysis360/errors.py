"""One exception tree. Every message is one line: what was expected, what was found, where, what to do next.

Analysis360Error
├── SelectionError      an argument selects nothing or nothing that exists (exit code 2)
├── SeriesError         a series or its manifest cannot be read
├── DataError           a chunk of data is malformed
├── CheckpointError     a checkpoint is incomplete, or does not fit its series
├── HubError            the Hub refuses, is out of reach, or serves something else than it said
│   ├── MissingError    a repository, branch or file is not there, or may not be read
│   └── UnreachableError   no connection, or offline, and it is not in the cache
├── EngineError         an engine is missing, or did not do what it was told
├── SandboxError        programs cannot be judged, because their sandbox is missing or does not work here
└── StoreError          results cannot be written or read
    └── NotStoredError     nothing of these settings has been computed yet
"""


class Analysis360Error(Exception):
    """Base of every error this package raises on purpose; the command line prints it as one line."""

    exit_code = 1


class SelectionError(Analysis360Error):
    """An argument selects nothing, or something that does not exist."""

    exit_code = 2


class SeriesError(Analysis360Error):
    """A series or its manifest cannot be read."""


class DataError(Analysis360Error):
    """A chunk of data is malformed; the message names file and line."""


class CheckpointError(Analysis360Error):
    """A checkpoint is incomplete, holds non-finite weights, or does not fit its series."""


class HubError(Analysis360Error):
    """The Hub refuses, is out of reach, or serves something else than it said."""


class MissingError(HubError):
    """A repository, branch or file is not there, or may not be read with this token."""


class UnreachableError(HubError):
    """There is no connection, or offline mode is on, and what is asked for is not in the cache."""


class EngineError(Analysis360Error):
    """An engine is not installed, or did not do what it was told."""


class SandboxError(Analysis360Error):
    """Programs cannot be judged: their sandbox is missing, or does not work here. There is no way around it."""


class StoreError(Analysis360Error):
    """Results cannot be written or read."""


class NotStoredError(StoreError):
    """Nothing of these settings has been computed yet."""
