"""What a user of the trainer meets: one line that says what to do; or word that a run was stopped and saved."""

import signal

__all__ = ["StoppedError", "TrainingError"]


class TrainingError(Exception):
    """Something outside the code is not as it has to be; the command ends with exit code 1."""

    def __init__(self, where: object, *, expected: str, found: str, fix: str) -> None:
        super().__init__(f"{where}: expected {expected}, found {found}; {fix}")


class StoppedError(Exception):
    """A signal asked a run to end, and its state was saved."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number
