r"""Sessions put together from their parts, for the scripted server.

`GREETING`, `EHLO`, `TLS` and so on are pieces of a dialogue as `scripted`
plays it: SESSION is a whole one, EXPLAINED the same with one command at a
time. The fixture `play` lets smtp.py hold such a session. By hand, at a
terminal, the session is a little shorter; those pieces are in at_terminal.py.
"""

import base64
import re
import ssl
from typing import Any, Callable, List, Tuple

import pytest
import scripted

Done = Any
Play = Callable[..., Tuple[Done, scripted.Player]]


def ehlo(*extensions: str) -> str:
    """Return EHLO and a reply that offers these extensions."""
    *lines, last = ['mail.example.com Hello', *extensions]
    return 'C: EHLO client.example.com\n' + ''.join(
        f'S: 250-{line}\n' for line in lines) + f'S: 250 {last}\n'


GREETING = """\
S: 220 mail.example.com ESMTP ready
"""
EHLO = ehlo('SIZE 157286400', 'PIPELINING', 'ENHANCEDSTATUSCODES', 'STARTTLS')
TLS = """\
C: STARTTLS
S: 220 2.0.0 Ready to start TLS
-- TLS begins
"""
SECOND_EHLO = ehlo('SIZE 157286400', 'PIPELINING', 'ENHANCEDSTATUSCODES',
                   'AUTH LOGIN PLAIN XOAUTH2')
LOGIN = """\
C: AUTH LOGIN YWxpY2VAZXhhbXBsZS5jb20=
S: 334 UGFzc3dvcmQ6
C: ********
S: 235 2.7.0 Welcome
"""
ENVELOPE = """\
C: MAIL FROM:<alice@example.com> SIZE=<size>
C: RCPT TO:<bob@example.org>
C: DATA
S: 250 2.1.0 Sender OK
S: 250 2.1.5 Recipient OK
S: 354 Start mail input
"""
MESSAGE = """\
C: <message>
C: .
C: QUIT
S: 250 2.0.0 Queued as 9F1
S: 221 2.0.0 Bye
"""
# Question and answer, one after the other; {} is for parameters of MAIL.
ENVELOPE_ASKED = """\
C: MAIL FROM:<alice@example.com>{}
S: 250 2.1.0 Sender OK
C: RCPT TO:<bob@example.org>
S: 250 2.1.5 Recipient OK
C: DATA
S: 354 Start mail input
"""
MESSAGE_ASKED = """\
C: <message>
C: .
S: 250 2.0.0 Queued as 9F1
"""
ONE_BY_ONE = ENVELOPE_ASKED.format(' SIZE=<size>') + MESSAGE_ASKED
QUIT = """\
C: QUIT
S: 221 2.0.0 Bye
"""
OPENING = GREETING + EHLO + TLS + SECOND_EHLO
SESSION = OPENING + LOGIN + ENVELOPE + MESSAGE
EXPLAINED = OPENING + LOGIN + ONE_BY_ONE + QUIT

LETTER = ['--from', 'alice@example.com', '--to', 'bob@example.org',
          '--subject', 'Greetings', '--body', 'Hello Bob!']
COMMENT = re.compile(r'(?<=\S) {2,}# .*')
NARRATION = re.compile(r'(?m)^-- .*$')


@pytest.fixture
def play(run_main: Callable[..., Done], ca_file: str,
         server_context: ssl.SSLContext,
         monkeypatch: pytest.MonkeyPatch) -> Play:
    """A function that plays a dialogue to smtp.py and returns both sides.

    It fails the test if smtp.py says anything else than the dialogue has, or
    asks for the password; `as_written=False` leaves the first to the test.
    """
    monkeypatch.setattr('getpass.getpass',
                        lambda *_: pytest.fail('it asks for the password'))

    def play(text: str, *arguments: str, password: 'str | None' = None,
             as_written: bool = True) -> Tuple[Done, scripted.Player]:
        with scripted.playing(text, server_context) as player:
            done = run_main(
                '--server', 'localhost', '-4', '--port', str(player.port),
                '--ca-file', ca_file, '--timeout', '5',
                '--ehlo', 'client.example.com', *arguments, password=password)
        if as_written:
            assert not player.mismatch, \
                player.difference() + '\n' + done.stderr
        return done, player
    return play


def lines_of(transcript: str) -> List[str]:
    """Return the lines of both sides, without the comments beside them."""
    return [COMMENT.sub('', line) for line in transcript.split('\n')
            if re.match('[CS]:( |$)', line)]


def on_one_line(text: str) -> str:
    """Return a text as one line with single spaces."""
    return ' '.join(text.split())


def told(transcript: str, after: str = '', until: str = '\nC: ') -> str:
    """Return what the narration says between two places, on one line."""
    part = transcript[transcript.index(after):].partition(until)[0]
    return on_one_line(' '.join(
        line[3:] for line in NARRATION.findall(part)))


def base64_of(text: str) -> str:
    """Return the base64 of a text."""
    return base64.b64encode(text.encode()).decode()
