"""Collects everything that stands in the way of some work, for one error that names all of it."""

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
    """Collects the errors of several `with` blocks, for one error that names all of them."""

    def __init__(self) -> None:
        self._sentences: list[str] = []
        self._may_pass = True

    def add(self, sentences: Iterable[str], may_pass: bool = False) -> None:
        """Notes problems that a person must solve or, with `may_pass`, that may end by themselves."""
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
        """Raises PreflightFailed if there is a problem that does not pass, Unreachable if all of them may pass."""
        if self._sentences and self._may_pass:
            raise Unreachable(f"{subject}: {' '.join(self._sentences)}")
        if self._sentences:
            raise PreflightFailed(subject, self._sentences)

    def _note(self, sentence: str, may_pass: bool) -> None:
        if sentence not in self._sentences:
            self._sentences.append(sentence)
            self._may_pass = self._may_pass and may_pass
