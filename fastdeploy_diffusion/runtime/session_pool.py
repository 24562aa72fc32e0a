"""The one owner of a component's sessions: lends them, keeps a few of them, and closes them all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from fastdeploy_diffusion.errors import DiskFullError, ResourceError
from fastdeploy_diffusion.out_of_memory import tells_of_memory
from fastdeploy_diffusion.runtime.program import Signature
from fastdeploy_diffusion.runtime.session import Session

# Of one component, those in use counted. Small networks are loaded in a moment, but Paddle keeps
# about 0.1 MiB of each load for good; and of large ones, one is all that memory has room for.
KEPT_SESSIONS = 8
KEPT_BYTES = 256 * 2**20

S = TypeVar("S", bound=Session)


@dataclass(eq=False)
class _Loan(Generic[S]):
    """A session in the table: still being made, in use, or idle.

    Args:
        size: Bytes that it takes.
        session: ``None`` until it is made.
        borrowers: How many use it; idle with none.
    """

    signature: Signature
    size: float
    session: S | None = None
    borrowers: int = 1


class SessionPool(Generic[S]):
    """Lends the session of a signature, which is made if there is none.

    Idle ones are closed, the least recently lent first, as soon as there are more than
    `KEPT_SESSIONS`, or all take more than `KEPT_BYTES`; the one lent last stays. So a network that
    takes as much by itself has one session, which is closed before that of another size is made.

    Args:
        measure: Estimates the bytes that it takes; infinite if unknown.
        is_current: Whether a session is of the present placement; others are not lent again.
        announce: Called with a session before it is lent, under ``making``.

    Attributes:
        making: Held while a session is made, and while the way they are made is changed. It may be
            waited for under the lock of a session in use, and so no such session is closed under
            it. The pool's own lock is held for moments, and nothing is waited for under it.
    """

    def __init__(
        self,
        make: Callable[[Signature], S],
        measure: Callable[[Signature], float],
        is_current: Callable[[S], bool],
        announce: Callable[[S], None] = lambda session: None,
    ) -> None:
        self._make, self._measure = make, measure
        self._is_current, self._announce = is_current, announce
        self.making = threading.RLock()
        self._table = threading.Lock()
        self._loans: list[_Loan[S]] = []  # the one lent last at the end
        self._sharing: Sequence[SessionPool[S]] = (self,)

    @property
    def sessions(self) -> list[S]:
        """The open sessions, the one lent last at the end."""
        with self._table:
            return [loan.session for loan in self._loans if loan.session is not None]

    @contextmanager
    def lend(self, signature: Signature, *, keep: bool) -> Generator[S, None, None]:
        """Lend a session until the block ends; raises as ``make``.

        Args:
            keep: Whether it may stay after the last of the blocks that share it.
        """
        with self.making:
            loan = self._find(signature) or self._add(signature)
            assert loan.session is not None
            self._announce(loan.session)
        try:
            yield loan.session
        finally:
            self._give_back(loan, keep)

    def drop_idle(self, but: Signature | None = None) -> bool:
        """Close idle sessions, but for one signature; returns whether there were any."""
        with self._table:
            idle = [each for each in self._loans if not each.borrowers and each.signature != but]
            self._loans = [each for each in self._loans if each not in idle]
        _close(idle)
        return bool(idle)

    def make_room(self) -> bool:
        """Close idle sessions in all pools of the model; returns whether there were any."""
        dropped = [pool.drop_idle() for pool in self._sharing]
        return any(dropped)

    def close(self) -> None:
        """Close every session; those in use fail."""
        with self.making, self._table:
            loans, self._loans = self._loans, []
        _close(loans)  # not under the locks

    def _find(self, signature: Signature) -> _Loan[S] | None:
        with self._table:
            loan = self._search(signature)
            if loan is not None:
                loan.borrowers += 1
                self._loans.remove(loan)
                self._loans.append(loan)
            return loan

    def _search(self, signature: Signature) -> _Loan[S] | None:
        found = [
            each
            for each in self._loans
            if each.signature == signature and each.session and self._is_current(each.session)
        ]
        return found[-1] if found else None

    def _add(self, signature: Signature) -> _Loan[S]:
        loan = _Loan[S](signature, self._measure(signature))
        with self._table:
            self._loans.append(loan)
        self._close_surplus()  # its memory first
        try:
            loan.session = self._make_with_all_memory(signature)
            loan.size = self._measure(signature)  # its precision may have changed
        except BaseException:
            with self._table:
                self._loans.remove(loan)
            raise
        return loan

    def _make_with_all_memory(self, signature: Signature) -> S:
        try:
            return self._make(signature)
        except Exception as error:
            is_memory = isinstance(error, ResourceError) or tells_of_memory(error)
            if isinstance(error, DiskFullError) or not is_memory or not self.make_room():
                raise
        return self._make(signature)

    def _give_back(self, loan: _Loan[S], keep: bool) -> None:
        with self._table:
            loan.borrowers -= 1
            is_over = not loan.borrowers and not (keep and self._search(loan.signature) is loan)
            if is_over:
                self._loans = [each for each in self._loans if each is not loan]
        if is_over:
            _close([loan])
        self._close_surplus()

    def _close_surplus(self) -> None:
        with self._table:
            idle = [each for each in self._loans[:-1] if not each.borrowers]
            surplus = []
            while idle and (
                len(self._loans) > KEPT_SESSIONS
                or sum(each.size for each in self._loans) > KEPT_BYTES
            ):
                surplus.append(idle.pop(0))
                self._loans.remove(surplus[-1])
        _close(surplus)


def share_memory(pools: Iterable[SessionPool[S]]) -> None:
    """Let pools of one model close idle sessions in all of them when one runs out of memory."""
    sharing = tuple(pools)
    for pool in sharing:
        pool._sharing = sharing


def _close(loans: Iterable[_Loan[S]]) -> None:
    for loan in loans:
        if loan.session is not None:
            loan.session.close()
