"""Collects all that stands in the way of some work, so that a person is told everything at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tasks.errors import BackupSystemError, PreflightFailed, Transient, Unreachable

_NAMED_AT_MOST = 10


def named(beginning: str, names: Sequence[str], advice: str) -> list[str]:
    """One sentence: the first ten of `names`, how many more there are, what to do. None when there are no names."""
    if not names:
        return []
    more = f" and {len(names) - _NAMED_AT_MOST} more" if len(names) > _NAMED_AT_MOST else ""
    return [f"{beginning}{', '.join(names[:_NAMED_AT_MOST])}{more}: {advice}"]


class Problems:
    """Collects what goes wrong in `with` blocks, so that all of it is told at once."""

    def __init__(self) -> None:
        self._sentences: list[str] = []
        self._may_pass = True

    def add(self, sentences: Iterable[str], may_pass: bool = False) -> None:
        """Notes problems: such as a person has to solve, or such as may pass by themselves."""
        for sentence in sentences:
            self._note(sentence, may_pass)

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, BackupSystemError):
            self._note(str(error), may_pass=isinstance(error, Transient))
            return True
        return False

    def raise_any(self, subject: str) -> None:
        """Raises Unreachable when all that was found may pass, PreflightFailed when anything will not."""
        if self._sentences and self._may_pass:
            raise Unreachable(f"{subject}: {' '.join(self._sentences)}")
        if self._sentences:
            raise PreflightFailed(subject, self._sentences)

    def _note(self, sentence: str, may_pass: bool) -> None:
        if sentence not in self._sentences:
            self._sentences.append(sentence)
            self._may_pass = self._may_pass and may_pass
