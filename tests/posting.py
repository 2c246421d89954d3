"""A practice server that is at hand, and smtp.py called within this process.

`Post` is the server of `practice_server`, emptied for each test, with the
options that lead smtp.py to it. `call` is smtp.py without the start of another
process: a tenth of the time, with any standard input and any environment.
"""

import contextlib
import io
import os
import pathlib
import sys
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional
from unittest import mock

from practice_server import (
    PASSWORD,
    TOKEN,
    USER,
    PracticeServer,
    parse_refusal,
)

import smtp

PROGRAM = pathlib.Path(smtp.__file__).resolve()
ALICE, BOB, CAROL = USER, 'bob@example.org', 'carol@example.org'
HIDDEN = 'hidden@example.net'       # gets blind copies

__all__ = ['ALICE', 'BOB', 'CAROL', 'HIDDEN', 'Done', 'PASSWORD', 'PROGRAM',
           'Post', 'TOKEN', 'call', 'opened']


class Done(NamedTuple):
    """How smtp.py ended, and what it printed."""

    code: int
    output: bytes
    errors: str


class Post:
    """The server, and how to reach it."""

    def __init__(self, server: Any) -> None:
        """Take over a server that runs."""
        self.server = server
        self.options: List[str] = [
            '--server', 'localhost', '-4', '--port', str(server.port),
            '--ca-file', server.ca_file, '--timeout', '10']
        self.session: Dict[str, Any] = {    # the same for smtp.smtp_send
            'server': 'localhost', 'port': server.port, 'timeout': 10,
            'ca_file': server.ca_file}

    @property
    def messages(self) -> List[Any]:
        """What has arrived."""
        found: List[Any] = self.server.messages
        return found

    def only(self) -> Any:
        """Return the one message that has arrived."""
        assert len(self.messages) == 1
        return self.messages[0]

    def refuse(self, *refusals: str) -> None:
        """Refuse from now on what the names or STEP=REPLY texts say."""
        self.server.refusals = dict(map(parse_refusal, refusals))

    def accept(self) -> None:
        """Refuse nothing from now on, and forget what has arrived."""
        self.refuse()
        self.server.drop_after_dot = False
        self.messages.clear()


@contextlib.contextmanager
def opened() -> Iterator[Post]:
    """Run a server for as long as the `with` block lasts."""
    with PracticeServer() as server:
        yield Post(server)


@contextlib.contextmanager
def within(folder: Any) -> Iterator[None]:
    """Make a folder the current one."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def call(*args: str, input: bytes = b'', cwd: Any = None,
         env: Optional[Mapping[str, str]] = None) -> Done:
    """Call `smtp.main(args)`.

    Args:
        *args: The command line.
        input: What stands in the pipe that is its standard input.
        cwd: The current folder, or None for that of the tests.
        env: Variables to add; the right SMTP_PASSWORD, if None.
    """
    output, errors = io.BytesIO(), io.BytesIO()
    streams: Dict[str, Any] = {
        'stdin': io.TextIOWrapper(io.BytesIO(input), 'utf-8'),
        'stdout': io.TextIOWrapper(output, 'utf-8'),
        'stderr': io.TextIOWrapper(errors, 'utf-8', 'backslashreplace')}
    env = {'SMTP_PASSWORD': PASSWORD} if env is None else env
    with within(cwd or os.curdir), mock.patch.dict(os.environ, env), \
            mock.patch.multiple(sys, argv=[str(PROGRAM), *args], **streams):
        code: Any
        try:
            code = smtp.main(list(args))
        except SystemExit as ended:     # --help and the like
            code = ended.code
        for name in ('stdout', 'stderr'):
            streams[name].flush()
    return Done(code, output.getvalue(), errors.getvalue().decode())
