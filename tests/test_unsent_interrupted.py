"""Unsent text that is interrupted: what was typed or piped so far is kept."""

import asyncio
import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import threading
from typing import Any, Dict, Iterator, List

import at_terminal
import pytest
from at_terminal import PATIENCE, Person, unread, wait_until
from keeping import FINISHED, PEOPLE, TEXT, assert_sends, kept, mail, text_of
from posting import ALICE, HIDDEN, PASSWORD, PROGRAM, Done, Post

pytestmark = at_terminal.NEEDED


@contextlib.contextmanager
def stalled(post: Post, hook: str) -> Iterator[threading.Event]:
    """Let the server fall silent at one point; tell when it is there."""
    reached = threading.Event()

    async def stall(*_: Any) -> str:
        """Say nothing."""
        reached.set()
        await asyncio.sleep(60)
        return '451 4.3.0 Late'

    setattr(post.server, hook, stall)
    try:
        yield reached
    finally:
        delattr(post.server, hook)


def start(args: List[str], folder: pathlib.Path, environment: Dict[str, str]
          ) -> 'subprocess.Popen[bytes]':
    """Start smtp.py with a pipe for standard input."""
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *args], cwd=folder,
        env={**environment, 'SMTP_PASSWORD': PASSWORD},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize('signals', [
    'SIGINT', 'SIGTERM', 'SIGQUIT', 'SIGHUP SIGTERM',
    'SIGINT SIGTERM SIGHUP SIGINT'])
@pytest.mark.parametrize('hook', ['handle_RCPT', 'handle_DATA'])
def test_interrupted(hook: str, signals: str, post: Post,
                     folder: pathlib.Path,
                     clean_environment: Dict[str, str]) -> None:
    """Before the final dot and after it; the command is right for both.

    Whoever has no patience asks more than once, and the system asks twice.
    """
    with stalled(post, hook) as reached:
        process = start(mail(post), folder, clean_environment)
        try:
            assert process.stdin is not None
            process.stdin.write(TEXT.encode())
            process.stdin.close()
            process.stdin = None
            assert reached.wait(PATIENCE)
            for name in signals.split():
                process.send_signal(getattr(signal, name))
            _, octets = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
            process.wait()
    errors = octets.decode()
    assert 'Traceback' not in errors
    unknown = hook == 'handle_DATA'
    assert process.returncode in ((74,) if unknown else (130, 143, 129)), \
        errors
    assert ('If it has not arrived' in errors) == unknown
    assert_sends(errors, folder, post, PEOPLE)


@pytest.mark.parametrize('name', ['SIGTERM', 'SIGQUIT'])
@pytest.mark.parametrize('finished', [False, True], ids=['text', 'message'])
def test_interrupted_while_it_is_piped(
        finished: bool, name: str, post: Post, folder: pathlib.Path,
        clean_environment: Dict[str, str]) -> None:
    """As much of it as has come is kept."""
    args = [*post.options, '--message', '-'] if finished else mail(post)
    octets = FINISHED if finished else TEXT.encode()
    process = start(args, folder, clean_environment)
    try:
        assert process.stdin is not None
        process.stdin.write(octets)
        process.stdin.flush()
        wait_until(lambda: unread(process.stdin) == 0)
        process.send_signal(getattr(signal, name))
        process.wait(PATIENCE)
        _, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == (143 if name == 'SIGTERM' else 130)
    assert errors.startswith(b'smtp.py: Not sent: interrupted.')
    assert b'Traceback' not in errors
    assert octets[-9:-2] in kept(folder).read_bytes()


class Terminal(Person):
    """smtp.py with a person in front of it, who types."""

    def __init__(self, args: List[str], folder: pathlib.Path,
                 environment: Dict[str, str]) -> None:
        """Start it."""
        super().__init__(
            [sys.executable, str(PROGRAM), *args],
            {**environment, 'SMTP_PASSWORD': PASSWORD, 'TERM': 'dumb'},
            folder, columns=5000)

    def answer(self, **answers: str) -> None:
        """Wait for each question, and answer it."""
        for question, line in answers.items():
            self.types(line, at=question + ': ')
        self.sees('Text, ended by a line with only a dot:\r\n')

    def type(self, *lines: str) -> None:
        """Type lines, and wait until they have been read."""
        for line in lines:
            self.enters(line)
            self.child.expect_exact(f'{line}\r\n')     # the echo
        with contextlib.suppress(OSError):      # it has ended, or no /proc
            terminal = os.open(f'/proc/{self.child.pid}/fd/0',
                               os.O_RDWR | os.O_NOCTTY)
            try:
                wait_until(lambda: unread(terminal) == 0)
            finally:
                os.close(terminal)

    def end(self) -> Done:
        """Wait for its end."""
        code = self.ends()
        return Done(-1 if code is None else code, b'', self.child.before)


@pytest.fixture
def typed(post: Post, folder: pathlib.Path,
          clean_environment: Dict[str, str]) -> Iterator[Terminal]:
    """smtp.py on a terminal, which has asked all, and waits for the text."""
    terminal = Terminal([*post.options, '--bcc', HIDDEN], folder,
                        clean_environment)
    terminal.answer(From=ALICE, Subject='Lunch')
    yield terminal
    terminal.child.close(force=True)


def test_typed_and_refused(post: Post, folder: pathlib.Path,
                           typed: Terminal) -> None:
    """The command works on the terminal where it was printed."""
    post.refuse('mailbox-full')
    typed.type('Hello,', 'lunch?', '.')
    done = typed.end()
    assert done.code == 69
    received = assert_sends(done.errors, folder, post, [HIDDEN])
    assert text_of(received) == 'Hello,\nlunch?\n'


@pytest.mark.parametrize('how', [
    'Ctrl-C', 'Ctrl-C twice', 'SIGTERM', 'SIGQUIT'])
def test_interrupted_while_it_is_typed(
        how: str, post: Post, folder: pathlib.Path, typed: Terminal) -> None:
    """As far as it has come; and all that was asked needs no answer again."""
    typed.type('Hello,', 'lunch?')
    if how.startswith('SIG'):
        typed.child.kill(getattr(signal, how))
    for _ in range({'Ctrl-C': 1, 'Ctrl-C twice': 2}.get(how, 0)):
        typed.child.kill(signal.SIGINT)
    done = typed.end()
    assert done.code == (143 if how == 'SIGTERM' else 130), done.errors
    assert 'smtp.py: Not sent: ' in done.errors
    assert b'lunch?' in kept(folder).read_bytes()
    received = assert_sends(done.errors, folder, post, [HIDDEN])
    assert text_of(received) == 'Hello,\nlunch?\n'
    assert received.parse()['Subject'] == 'Lunch'


def test_terminal_goes_away(folder: pathlib.Path, typed: Terminal) -> None:
    """The window was closed, and nobody reads the errors: kept all the same.

    Some are told twice: by the system, and by the shell.
    """
    typed.type('Hello,', 'lunch?')
    typed.child.close(force=False)
    wait_until(lambda: not typed.child.isalive())
    assert b'lunch?' in kept(folder).read_bytes()
