"""Who works on a scratch database: psqls of the plan's role, or where that is a superuser, the loader's and its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from tasks.errors import RestoreFailed, RestoreRefused
from tasks.restore.hands import Hands, Share, Turn
from tasks.restore.loader_role import Loader
from tasks.restore.owners import with_owner
from tasks.restore.psql_session import PsqlSession
from tasks.restore.sql_errors import SqlError

#: Classes of SQLSTATE that say nothing about the entry: resources, an operator, the system, the server itself.
_OF_THE_SERVER = ("53", "57", "58", "F0", "XX")
#: As pg_dump writes it, with quotation marks where the name needs them.
_TABLESPACE = re.compile(rb'\bSET default_tablespace = ("(?:[^"]|"")+"|[a-z_][a-z0-9_$]*);')
#: A deadlock, and a lock that did not come in time: another session of the restore may have held it.
_OF_OTHERS = ("40P01", "55P03")
_AT_ONCE = 100  # statements in a transaction: few locks are held at a time


class Psqls:
    """The psql that works for a load, and another one after each that an error has ended."""

    def __init__(self, start: Callable[[ExitStack], PsqlSession], settings: bytes) -> None:
        """`start` starts a psql that ends with the stack; `settings` are statements for each of them."""
        self._start, self._settings, self._stack = start, settings, ExitStack()
        self._session: PsqlSession | None = None
        self._state: dict[bytes, bytes] = {}
        self.warnings: list[str] = []

    def session(self) -> PsqlSession:
        """The psql at work, with the settings that the dump has made. Raises RestoreFailed, RestoreRefused."""
        if self._session is None:
            self._session = self._start(self._stack)
            try:
                self._session.prepare(self._settings)
                if self._state:
                    self._session.run_all(self._state.values())
            except BrokenPipeError:
                raise self._session.failure() from None
        return self._session

    def is_connected(self) -> bool:
        """Whether there is a psql at work now; it may be that the server takes no more."""
        try:
            self.session().ask("here", "1")
        except (BrokenPipeError, RestoreFailed, RestoreRefused):
            self.end()
            return False
        return True

    def keep(self, name: bytes, statements: bytes) -> None:
        """Runs settings, now and in each psql to come; of those with one `name` the last counts."""
        self._state[name] = statements
        if self._session is None:
            return
        try:
            self._session.run_all([statements])
        except BrokenPipeError:
            raise self._session.failure() from None

    def run(self, statements: Sequence[bytes]) -> None:
        """Runs statements of the restore's own as one transaction. Raises RestoreFailed, RestoreRefused."""
        try:
            self.session().run_all([b"BEGIN;\n", *statements, b"COMMIT;\n"])
        except BrokenPipeError:
            assert self._session is not None
            raise self._session.failure() from None

    def failure(self) -> SqlError:
        """The server's error that ended psql. Raises what else ended it, such as a broken connection or a full disk."""
        assert self._session is not None
        error, found = self._session.failure(), self._session.server_error()
        self.end()
        if found is None or found.sqlstate.startswith(_OF_THE_SERVER) or not isinstance(error, RestoreRefused):
            raise error
        return found

    def fail_beside_others(self) -> None:
        """Ends the psql that an error has ended while others were at work. Raises as `failure`."""
        assert self._session is not None
        self._session.failure()
        found = self._session.server_error()
        if found is not None and found.sqlstate in _OF_OTHERS:
            self.end()
        else:
            self.failure()

    def finish(self) -> None:
        """The psql at work has had the whole dump."""
        if self._session is not None:
            self._session.close_bracket()

    def end(self) -> None:
        """Ends the psql at work, if there is one."""
        if self._session is not None:
            self._session.end()
            self.warnings += self._session.warnings()
        self._session = None
        self._stack.close()


class Crew:
    """The psql that is sent each entry, and what comes between."""

    def __init__(self, psqls: Sequence[Psqls], owner: bytes = b"") -> None:
        """The first psql does everything; the others help it with what can be done at once. `owner`, if given, is who
        gets all that is made, as SQL writes it."""
        self._psqls, self.loaders, self._owner = psqls[0], psqls, owner

    def _owned(self, text: bytes) -> bytes:
        return with_owner(text, self._owner) if self._owner else text

    @property
    def warnings(self) -> list[str]:
        """Warnings of the server."""
        return [warning for psqls in self.loaders for warning in psqls.warnings]

    def of(self, turn: Turn) -> Psqls:  # noqa: ARG002
        """Who runs an entry."""
        return self._psqls

    def share(self, kind: str, text: bytes) -> Share:  # noqa: ARG002
        """Who runs an entry, when, and what of it."""
        return Share("loader", self._owned(text))

    def ending(self, turn: Turn, text: bytes) -> Share:
        """The same for the end of an entry whose beginning was streamed."""
        return Share(turn, self._owned(text))

    def taken_back(self, text: bytes) -> tuple[bytes, bytes]:  # noqa: ARG002
        """For an entry that is there already: what takes it back for the work, and what gives it to its owner again."""
        return b"", b""

    def settles(self, settle: Callable[[], None]) -> None:
        """`settle` commits what is under way, before the server is asked."""

    def keep(self, name: bytes, statements: bytes) -> None:
        """Settings of the dump for all."""
        for psqls in self.loaders:
            psqls.keep(name, statements)

    def own(self, statements: Sequence[bytes]) -> None:
        """Runs what changes owners."""

    def hand_over(self, owners: Sequence[bytes]) -> None:
        """Everything gets its owner."""

    def finish(self) -> None:
        """Every psql has had the whole dump."""
        for psqls in self.loaders:
            psqls.finish()

    def end(self) -> None:
        """Ends every psql."""
        for psqls in self.loaders:
            psqls.end()


class LoaderCrew(Crew):
    """The loader's psqls, and a superuser's beside them for what that may not do and what runs no code of others."""

    def __init__(
        self,
        loader: Loader,
        psqls: Sequence[Psqls],
        superusers: Psqls,
        lends_superuser: bool = False,
        owner: bytes = b"",
    ) -> None:
        """`psqls` are the loader's; for `lends_superuser` see Hands."""
        super().__init__(psqls, owner)
        self._loader, self._superusers, self._makes_tablespaces = loader, superusers, lends_superuser
        self._hands = Hands(loader.name, loader, lends_superuser)

    @property
    def warnings(self) -> list[str]:
        """Warnings of the server."""
        return [*super().warnings, *self._superusers.warnings]

    def of(self, turn: Turn) -> Psqls:
        """Who runs an entry."""
        return self._psqls if turn == "loader" else self._superusers

    def share(self, kind: str, text: bytes) -> Share:
        """Who runs an entry, when, and what of it."""
        return self._hands.share(kind, self._owned(text))

    def ending(self, turn: Turn, text: bytes) -> Share:
        """The same for the end of an entry whose beginning was streamed."""
        text = self._owned(text)
        return self._hands.without_owner(text) if turn == "loader" else Share(turn, text)

    def taken_back(self, text: bytes) -> tuple[bytes, bytes]:
        """For an entry that is there already: what takes it back for the work, and what gives it to its owner again."""
        return self._hands.taken_back(self._owned(text))

    def settles(self, settle: Callable[[], None]) -> None:
        """`settle` commits what is under way, before the server is asked."""
        self._loader.settle = settle

    def keep(self, name: bytes, statements: bytes) -> None:
        """Settings of the dump for all."""
        if self._makes_tablespaces and (tablespace := _TABLESPACE.search(statements)):
            self._loader.make_tablespace(tablespace[1])
        super().keep(name, statements)
        self._superusers.keep(name, statements)

    def own(self, statements: Sequence[bytes]) -> None:
        """Runs what changes owners: a sequence that belongs to a table follows it, and is then no change."""
        in_order = sorted(statements, key=lambda statement: statement.startswith(b"ALTER SEQUENCE "))
        for first in range(0, len(in_order), _AT_ONCE):
            self._superusers.run(in_order[first : first + _AT_ONCE])

    def hand_over(self, owners: Sequence[bytes]) -> None:
        """Everything gets its owner; the loader has nothing more to do."""
        super().end()
        self._loader.give_public_back()
        self.own(owners)

    def finish(self) -> None:
        """Every psql has had the whole dump."""
        super().finish()
        self._superusers.finish()

    def end(self) -> None:
        """Ends every psql."""
        super().end()
        self._superusers.end()
