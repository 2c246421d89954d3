"""Somebody at a pseudo-terminal, who reads the screen and types.

`Person` is pexpect with the words of these tests. The fixture `sit` starts
smtp.py for one, and `at_server` leads it to a scripted server, which hears the
session in the pieces below. `NEEDED` marks the tests that need a terminal.
"""

import io
import os
import pathlib
import re
import shlex
import struct
import sys
import time
from typing import Any, Callable, Dict, Iterator, List, Optional

import conftest
import pytest
import scripted
from sessions import ENVELOPE_ASKED, GREETING, MESSAGE_ASKED, TLS, ehlo

try:
    import pexpect
except ImportError:
    pexpect = None

NEEDED = [
    pytest.mark.skipif(not hasattr(pexpect, 'spawn'),
                       reason='needs pexpect, and a system with terminals'),
    # The server is a thread beside the one that starts the terminals.
    pytest.mark.filterwarnings(
        'ignore:.*multi-threaded.*forkpty:DeprecationWarning')]
PATIENCE = 10  # seconds for smtp.py to do what it has to do next
PASSWORD = 'correct horse battery staple'
USER = 'YWxpY2VAZXhhbXBsZS5jb20='       # alice@example.com

# The session by hand; GREETING, TLS, LOGIN and QUIT are as everywhere.
EHLO, SECOND_EHLO = ehlo('STARTTLS'), ehlo('AUTH LOGIN')
ENVELOPE, MESSAGE = ENVELOPE_ASKED.format(''), MESSAGE_ASKED
OPENING = GREETING + EHLO + TLS + SECOND_EHLO
TYPED_ENVELOPE = ['MAIL FROM:<alice@example.com>',
                  'RCPT TO:<bob@example.org>', 'DATA']
TYPED_MESSAGE = ['Subject: Greetings', '', 'Hello Bob!', '.']


class Person:
    """Somebody at a terminal of 24 lines with smtp.py on it."""

    def __init__(self, command: List[str], environment: Dict[str, str],
                 folder: pathlib.Path, columns: int = 80) -> None:
        """Start the command there."""
        self.screen = io.StringIO()
        self.child = pexpect.spawn(
            command[0], command[1:], env=environment, cwd=str(folder),
            encoding='utf-8', codec_errors='backslashreplace',
            timeout=PATIENCE, dimensions=(24, columns))
        self.child.logfile_read = self.screen
        self.child.delaybeforesend = None   # see types_hidden

    @property
    def seen(self) -> str:
        """All that was on the screen so far."""
        return self.screen.getvalue().replace('\r\n', '\n')

    def sees(self, pattern: str) -> None:
        """Wait until something new on the screen matches."""
        found = self.child.expect(
            [pattern, pexpect.EOF, pexpect.TIMEOUT])
        assert found == 0, f'{pattern} is not on the screen:\n{self.seen}'

    def asked(self, question: str) -> None:
        """Wait for a question, at the start of a line."""
        self.sees(rf'(?:\A|[\r\n]){re.escape(question)}[^\r\n]*: ?')

    def enters(self, line: str) -> None:
        """Type a line at once."""
        self.child.sendline(line)

    def types(self, *lines: str, at: str = r'\nC: ') -> None:
        """Type lines, each when the prompt for it is there."""
        for line in lines:
            self.sees(at)
            self.enters(line)

    def types_hidden(self, text: str, question: str = 'Password') -> None:
        """Answer a question when the terminal has stopped to show it.

        A person does not type before the question is there, when the terminal
        would still show it; a program has to wait for that.
        """
        self.asked(question)
        assert self.child.waitnoecho(PATIENCE), 'it can be read'
        self.enters(text)

    def is_read(self) -> None:
        """Wait until the program has read all, and waits for more.

        That it is on the screen says nothing: the terminal echoes it, and
        throws away at Ctrl-C what nobody has read.
        """
        process = f'/proc/{self.child.pid}'
        if not os.path.exists(f'{process}/stat'):
            pytest.skip('nobody knows what the program does')
        terminal = os.open(os.readlink(f'{process}/fd/0'),
                           os.O_RDWR | os.O_NOCTTY)
        try:
            wait_until(lambda: not unread(terminal) and waits(process))
        finally:
            os.close(terminal)

    def interrupts(self) -> None:
        """Press Ctrl-C; again, if it is lost between prompt and reading."""
        for _ in range(PATIENCE):
            self.child.sendintr()
            if not self.child.expect([pexpect.EOF, pexpect.TIMEOUT],
                                     timeout=1):
                return

    def ends(self) -> Optional[int]:
        """Wait for the end, and return the exit code."""
        found = self.child.expect([pexpect.EOF, pexpect.TIMEOUT])
        assert found == 0, f'it does not end:\n{self.seen[-2000:]}'
        self.child.close()
        status: Optional[int] = self.child.exitstatus
        return status


def waits(process: str) -> bool:
    """Tell whether a process does nothing but wait."""
    with open(f'{process}/stat', encoding='utf-8') as file:
        return file.read().rpartition(')')[2].split()[0] == 'S'


def unread(file: Any) -> int:
    """Return how many octets of a pipe or terminal are not read yet."""
    import fcntl  # Windows has neither of these
    import termios
    answer = fcntl.ioctl(file, termios.FIONREAD, bytes(4))
    return int(struct.unpack('i', answer)[0])


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, 'it never came to that'
        time.sleep(0.005)


Sit = Callable[..., Person]
At = Callable[..., Person]


@pytest.fixture
def sit(clean_environment: Dict[str, str], tmp_path: pathlib.Path
        ) -> Iterator[Sit]:
    """A function that sits somebody at a terminal with smtp.py.

    Its keywords: `pipe`, what a shell does with the output, while it shows
    the exit code on the terminal; `columns`, of the terminal; and variables
    of the environment.
    """
    people: List[Person] = []
    folder = tmp_path / 'folder'
    folder.mkdir()

    def sit(*arguments: str, pipe: str = '', columns: int = 80,
            **environment: str) -> Person:
        command = [sys.executable, str(conftest.PROGRAM), *arguments]
        if pipe:
            command = ['/bin/sh', '-c', f'{{ {shlex.join(command)}; '
                       f'echo "exit code $?" >/dev/tty; }}{pipe}']
        people.append(Person(
            command, {**clean_environment, 'TERM': 'dumb', **environment},
            folder, columns))
        return people[-1]
    yield sit
    for person in people:
        person.child.close(force=True)


@pytest.fixture
def at_server(sit: Sit, ca_file: str) -> At:
    """The same, with the options for a scripted server."""
    def at_server(player: scripted.Player, *arguments: str, **more: str
                  ) -> Person:
        return sit('--server', 'localhost', '-4', '--port', str(player.port),
                   '--ca-file', ca_file, *arguments, **more)
    return at_server


def check_wire(player: scripted.Player, person: Person) -> None:
    """What was said is what the dialogue has."""
    assert not player.mismatch, player.difference() + '\n' + person.seen


def verdicts(seen: str) -> List[str]:
    """Return every verdict on the screen."""
    return re.findall(
        r'(?m)^(?:smtp\.py: )?(Sent to|Not sent:|May have been sent:)', seen)
