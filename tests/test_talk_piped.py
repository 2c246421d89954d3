"""--talk through a pipe: the same session, with nobody at a terminal.

These need no pseudo-terminal, so they stand apart from test_talk.py.
"""

import contextlib
import socket
import ssl
import threading
from typing import Any, Callable, Iterator, List, Tuple

import pytest
import scripted
from at_terminal import ENVELOPE, TYPED_ENVELOPE, TYPED_MESSAGE, verdicts
from sessions import GREETING, QUIT

Run = Callable[..., Any]
Talk = Callable[..., Any]


@pytest.fixture
def talk(run_smtp: Run) -> Talk:
    """A function that pipes lines into --talk, in clear, at a port."""
    def talk(port: int, *lines: str, **more: Any) -> Any:
        return run_smtp('--server', 'localhost', '-4', '--port', str(port),
                        '--talk', '--tls', 'none',
                        input=''.join(line + '\n' for line in lines), **more)
    return talk


@contextlib.contextmanager
def answering(*replies: bytes) -> Iterator[Tuple[int, List[bytes]]]:
    """Answer each command with the next of these, whatever it is.

    What the client says after the last of them is in the list, when the `with`
    block has ended.
    """
    heard: List[bytes] = []
    with socket.create_server(('127.0.0.1', 0)) as listener:
        def serve() -> None:
            sock, _ = listener.accept()
            with sock, sock.makefile('rb') as lines:
                sock.sendall(b'220 hello\r\n')
                for reply in replies:
                    lines.readline()
                    sock.sendall(reply + b'\r\n')
                heard.append(lines.read())
        server = threading.Thread(target=serve)
        server.start()
        yield listener.getsockname()[1], heard
        server.join()


def test_talk_from_a_pipe(talk: Talk, server_context: ssl.SSLContext
                          ) -> None:
    """A session in a file: an empty line in the message is one."""
    session = GREETING + ENVELOPE + ''.join(
        f'C: {line}\n' for line in TYPED_MESSAGE) \
        + 'S: 250 2.0.0 Queued as 9F1\n' + QUIT
    with scripted.playing(session, server_context) as player:
        done = talk(player.port, *TYPED_ENVELOPE, *TYPED_MESSAGE, 'QUIT')
    assert not player.mismatch, player.difference() + done.stderr
    assert done.returncode == 0
    assert done.stdout.startswith('Sent to bob@example.org: 250 ')
    assert [line for line in done.stderr.split('\n') if line[:2] == 'C:'] \
        == [line for line in session.split('\n') if line[:2] == 'C:']


def test_pipe_that_ends_within_the_message(
        talk: Talk, server_context: ssl.SSLContext) -> None:
    """Neither is anything sent then, and no line is made up."""
    session = GREETING + ENVELOPE \
        + 'C: Subject: Greetings\n-- says nothing\n'
    with scripted.playing(session, server_context) as player:
        done = talk(player.port, *TYPED_ENVELOPE, 'Subject: Greetings',
                    timeout=3)
    assert not player.dot_received
    assert player.message == b'Subject: Greetings\r\n'
    assert verdicts(done.stderr) == ['Not sent:']


def test_octets_that_are_no_text(run_smtp: Run,
                                 server_context: ssl.SSLContext) -> None:
    """A file may hold anything; what was typed goes as it was typed."""
    session = GREETING + 'C: NOOP \\xe9\nS: 250 ok\n' + QUIT
    with scripted.playing(session, server_context) as player:
        done = run_smtp(
            '--server', 'localhost', '-4', '--port', str(player.port),
            '--talk', '--tls', 'none', input=b'NOOP \xe9\nQUIT\n')
    assert not player.mismatch, player.difference() + '\n' + done.stderr
    assert done.returncode == 0
    assert verdicts(done.stderr) == ['Not sent:']


@pytest.mark.parametrize('typed', [
    ' AUTH PLAIN AGEAaHVudGVyLTI=', 'AUTH  PLAIN AGEAaHVudGVyLTI=',
    '!AUTH\tPLAIN AGEAaHVudGVyLTI=', 'C: AUTH PLAIN AGEAaHVudGVyLTI=',
    'XAUTH PLAIN AGEAaHVudGVyLTI='])
def test_no_login_in_clear_however_it_is_typed(
        typed: str, talk: Talk, server_context: ssl.SSLContext) -> None:
    """White space does not open the way for a password without TLS."""
    with scripted.playing(GREETING + QUIT, server_context) as player:
        done = talk(player.port, typed, 'QUIT')
    assert not player.mismatch, player.difference()
    assert 'AGEAaHVudGVyLTI=' not in done.stderr


def test_a_server_that_does_not_let_go(talk: Talk) -> None:
    """At the end of the input QUIT is said once, whatever the reply is."""
    with answering(b'500 no', b'500 no', b'500 no') as (port, heard):
        done = talk(port, 'NOOP')
    assert done.stderr.count('C: QUIT') == 1
    assert heard == [b'']
    assert verdicts(done.stderr) == ['Not sent:']


def test_bdat_is_not_for_typing(talk: Talk, server_context: ssl.SSLContext
                                ) -> None:
    """A message that is sent in that way would go unnoticed."""
    with scripted.playing(GREETING + QUIT, server_context) as player:
        done = talk(player.port, 'BDAT 0 LAST', 'QUIT')
    assert not player.mismatch, player.difference()
    assert 'BDAT' in done.stderr


def test_a_reply_before_the_typed_dot_is_not_the_verdict(talk: Talk) -> None:
    """A 250 that comes with the 354 says nothing about the message."""
    with answering(b'250 ok', b'250 ok',
                   b'354 go\r\n250 2.0.0 queued as FAKE') as (port, _):
        done = talk(port, *TYPED_ENVELOPE, 'Subject: x', '', 'Hello', '.',
                    'QUIT')
    assert 'Sent to' not in done.stdout
    assert done.returncode == 76


def test_a_refusal_before_the_typed_dot_ends_the_connection(talk: Talk
                                                            ) -> None:
    """A dot that is typed later must not complete what was refused."""
    with answering(b'250 ok', b'250 ok',
                   b'354 go\r\n552 5.3.4 too big') as (port, heard):
        done = talk(port, *TYPED_ENVELOPE, 'Hello', '.', '.', 'QUIT')
    assert heard == [b'Hello\r\n']
    assert 'smtp.py: Not sent: ' in done.stderr
