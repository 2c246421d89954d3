"""The practice server as the tests use it: emptied, and willing again."""

from __future__ import annotations

from typing import Any

from support.cli import reach
from support.practice_server import PASSWORD, TOKEN, USER, PracticeServer
from support.refusals import parse_refusal

ALICE, BOB, CAROL = USER, 'bob@example.org', 'carol@example.org'
HIDDEN = 'hidden@example.net'       # gets blind copies
BASIC = ['-f', ALICE, '-t', BOB, '-s', 'Lunch']
MAIL = [*BASIC, '--body', 'Hello Bob']

__all__ = ['ALICE', 'BASIC', 'BOB', 'CAROL', 'HIDDEN', 'MAIL', 'PASSWORD',
           'TOKEN', 'Post', 'PracticeServer']


class Post:
    """A practice server that runs; `options` and `session` lead to it."""

    def __init__(self, server: Any) -> None:
        """Take over a server that runs."""
        self.server = server
        self.options = reach(server.port, server.ca_file)
        self.session: dict[str, Any] = {
            'server': 'localhost', 'port': server.port, 'timeout': 10,
            'ca_file': server.ca_file}

    @property
    def messages(self) -> list[Any]:
        """What has arrived."""
        found: list[Any] = self.server.messages
        return found

    def only(self) -> Any:
        """Return the one message that has arrived."""
        assert len(self.messages) == 1, self.messages
        return self.messages[0]

    def refuse(self, *refusals: str) -> None:
        """Refuse from now on what the names or STEP=REPLY texts say."""
        given = [parse_refusal(text) for text in refusals]
        self.server.refusals = {one.step: one.reply for one in given}

    def accept(self) -> None:
        """Refuse nothing from now on, and forget what has arrived."""
        self.refuse()
        self.server.drop_after_dot = False
        self.messages.clear()
