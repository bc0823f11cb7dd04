"""The one error a user of the trainer meets: a single line that says what to do."""

__all__ = ["TrainingError"]


class TrainingError(Exception):
    """Something outside the code is not as it has to be; the command ends with exit code 1."""

    def __init__(self, where: object, *, expected: str, found: str, fix: str) -> None:
        super().__init__(f"{where}: expected {expected}, found {found}; {fix}")
