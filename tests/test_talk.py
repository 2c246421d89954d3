"""smtp.py on a terminal: --talk, --step, and colour.

Each test sits somebody (pexpect) at a pseudo-terminal, with a server behind
it that knows what it has to hear (`scripted`), or a real one (`practice`).
"""

import base64
import io
import pathlib
import re
import shlex
import ssl
import sys
import time
from typing import Any, Callable, Dict, Iterator, List, Optional, Set

import conftest
import practice
import pytest
import scripted

pexpect = pytest.importorskip('pexpect')
pytestmark = pytest.mark.skipif(
    not hasattr(pexpect, 'spawn'), reason='Windows has no pseudo-terminals')

PATIENCE = 10  # seconds for smtp.py to do what it has to do next
PASSWORD = 'correct horse battery staple'
USER = base64.b64encode(b'alice@example.com').decode()

GREETING = """\
S: 220 mail.example.com ESMTP ready
"""
EHLO = """\
C: EHLO client.example.com
S: 250-mail.example.com Hello
S: 250 STARTTLS
"""
TLS = """\
C: STARTTLS
S: 220 2.0.0 Ready to start TLS
-- TLS begins
"""
SECOND_EHLO = """\
C: EHLO client.example.com
S: 250-mail.example.com Hello
S: 250 AUTH LOGIN
"""
LOGIN = f"""\
C: AUTH LOGIN {USER}
S: 334 UGFzc3dvcmQ6
C: ********
S: 235 2.7.0 Welcome
"""
ENVELOPE = """\
C: MAIL FROM:<alice@example.com>
S: 250 2.1.0 Sender OK
C: RCPT TO:<bob@example.org>
S: 250 2.1.5 Recipient OK
C: DATA
S: 354 Start mail input
"""
MESSAGE = """\
C: <message>
C: .
S: 250 2.0.0 Queued as 9F1
"""
QUIT = """\
C: QUIT
S: 221 2.0.0 Bye
"""
OPENING = GREETING + EHLO + TLS + SECOND_EHLO
TYPED_ENVELOPE = ['MAIL FROM:<alice@example.com>',
                  'RCPT TO:<bob@example.org>', 'DATA']
TYPED_MESSAGE = ['Subject: Greetings', '', 'Hello Bob!', '.']
LETTER = ['--from', 'alice@example.com', '--to', 'bob@example.org',
          '--subject', 'Greetings', '--body', 'Hello Bob!']


class Person:
    """Somebody at a terminal of 24 lines with smtp.py on it."""

    def __init__(self, command: List[str], environment: Dict[str, str],
                 folder: pathlib.Path) -> None:
        """Start the command there."""
        self.screen = io.StringIO()
        self.child = pexpect.spawn(
            command[0], command[1:], env=environment, cwd=str(folder),
            encoding='utf-8', codec_errors='backslashreplace',
            timeout=PATIENCE, dimensions=(24, 80))
        self.child.logfile_read = self.screen
        self.child.delaybeforesend = None

    @property
    def seen(self) -> str:
        """All that was on the screen so far."""
        return self.screen.getvalue().replace('\r\n', '\n')

    def sees(self, pattern: str) -> None:
        """Wait until something new on the screen matches."""
        found = self.child.expect(
            [pattern, pexpect.EOF, pexpect.TIMEOUT])
        assert found == 0, f'{pattern} is not on the screen:\n{self.seen}'

    def types(self, *lines: str, at: str = r'\nC: ') -> None:
        """Type lines, each when the prompt for it is there."""
        for line in lines:
            self.sees(at)
            self.child.sendline(line)

    def types_hidden(self, text: str, at: str = 'Password: ?') -> None:
        """Type something when the terminal has stopped to show it."""
        self.sees(at)
        assert self.child.waitnoecho(PATIENCE), 'it can be read'
        self.child.sendline(text)

    def interrupts(self) -> None:
        """Press Ctrl-C; again, should it be lost between prompt and reading."""
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


Sit = Callable[..., Person]


@pytest.fixture
def sit(clean_environment: Dict[str, str], tmp_path: pathlib.Path
        ) -> Iterator[Sit]:
    """A function that sits somebody at a terminal with smtp.py."""
    people: List[Person] = []
    folder = tmp_path / 'folder'
    folder.mkdir()

    def sit(*arguments: str, pipe: str = '', **environment: str) -> Person:
        command = [sys.executable, str(conftest.PROGRAM), *arguments]
        if pipe:
            command = ['/bin/sh', '-c', shlex.join(command) + pipe]
        people.append(Person(
            command, {**clean_environment, 'TERM': 'dumb', **environment},
            folder))
        return people[-1]
    yield sit
    for person in people:
        person.child.close(force=True)


@pytest.fixture
def at_server(sit: Sit, ca_file: str) -> Callable[..., Person]:
    """The same, with the options for a scripted server."""
    def at_server(player: scripted.Player, *arguments: str, **more: str
                  ) -> Person:
        return sit('--server', 'localhost', '-4', '--port', str(player.port),
                   '--ca-file', ca_file, *arguments, **more)
    return at_server


At = Callable[..., Person]


def check_wire(player: scripted.Player, person: Person) -> None:
    """What was said is what the dialogue has."""
    assert not player.mismatch, player.difference() + '\n' + person.seen


def verdicts(seen: str) -> List[str]:
    """Return every verdict on the screen."""
    return re.findall(
        r'(?m)^(?:smtp\.py: )?(Sent to|Not sent:|May have been sent:)', seen)


# --------------------------------------------------------------------- talk


def test_whole_session_by_hand(sit: Sit) -> None:
    """Through STARTTLS and AUTH LOGIN to a message that was delivered."""
    practice_server: Any = practice.PracticeServer  # has no annotations
    with practice_server() as server:
        person = sit('--server', server.host, '-4', '--port',
                     str(server.port), '--ca-file', server.ca_file, '--talk')
        person.sees('S: 220 ')
        person.types('EHLO client.example.com', 'STARTTLS')
        person.sees(r'-- TLS begins: TLSv1\.\d')
        person.types('EHLO client.example.com', 'AUTH LOGIN')
        person.types('alice@example.com', at='Username: ?')
        person.types_hidden(practice.PASSWORD)
        person.sees('S: 235 ')
        person.types(*TYPED_ENVELOPE)
        person.sees(r'S: 354 [^\n]*\n-- [^\n]*dot')   # the hint
        person.types('Subject: Greetings', '', 'Hello Bob!', '..', '...x',
                     'a . b', '!NOOP', 'AUTH LOGIN', '.')
        person.sees('S: 250 ')
        person.types('QUIT')
        person.sees('S: 221 ')
        assert person.ends() == 0
    [received] = server.messages
    assert received.sender == 'alice@example.com'
    assert received.recipients == ('bob@example.org',)
    assert received.content == (
        b'Subject: Greetings\r\n\r\nHello Bob!\r\n.\r\n..x\r\na . b\r\n'
        b'!NOOP\r\nAUTH LOGIN\r\n')
    assert re.search(r'(?m)^Sent to bob@example\.org: 250 ', person.seen)
    assert verdicts(person.seen) == ['Sent to']
    assert practice.PASSWORD not in person.seen
    assert base64.b64encode(
        practice.PASSWORD.encode()).decode() not in person.seen


@pytest.mark.parametrize('typed, user', [
    ('AUTH LOGIN', 'alice@example.com'), ('auth login', f'!{USER}'),
    ('AUTH LOGIN alice@example.com', ''), (f'!AUTH LOGIN {USER}', '')])
def test_base64_is_done_for_the_person(
        typed: str, user: str, at_server: At,
        server_context: ssl.SSLContext) -> None:
    """Except where a line begins with an exclamation mark."""
    command = typed.lstrip('!').replace('alice@example.com', USER)
    session = OPENING + f'C: {command}\n'
    if user:
        session += f'S: 334 VXNlcm5hbWU6\nC: {USER}\n'
    session += LOGIN.partition('\n')[2] + QUIT
    with scripted.playing(session, server_context) as player:
        person = at_server(player, '--talk')
        person.types('EHLO client.example.com', 'STARTTLS',
                     'EHLO client.example.com', typed)
        if user:
            person.types(user, at='Username: ?')
        person.types_hidden(PASSWORD)
        person.types('QUIT')
        assert person.ends() == 0
    check_wire(player, person)
    assert player.secrets == [PASSWORD.encode()]
    assert PASSWORD not in person.seen
    assert verdicts(person.seen) == ['Not sent:']


@pytest.mark.parametrize('typed', [
    'AUTH LOGIN', 'auth plain AGFsaWNlAG9wZW4=', 'AUTH',
    'AUTH LOGIN alice@example.com', '!AUTH LOGIN'])
def test_auth_in_clear_is_refused(typed: str, at_server: At,
                                  server_context: ssl.SSLContext) -> None:
    """Everybody on the way could read the password: this is said."""
    with scripted.playing(GREETING + EHLO + QUIT, server_context) as player:
        person = at_server(player, '--talk')
        person.types('EHLO client.example.com', typed)
        person.sees('(?i)--.*(encrypt|base64|read)')
        person.types('QUIT')
        assert person.ends() == 0
    check_wire(player, person)
    assert 'STARTTLS' in person.seen.partition(typed)[2]


def test_secret_beside_auth_is_masked(
        at_server: At, server_context: ssl.SSLContext) -> None:
    """What the person typed there is on the screen, and goes no further."""
    response = base64.b64encode(b'\0alice\0' + PASSWORD.encode()).decode()
    session = OPENING + f'C: AUTH PLAIN {response}\nS: 250-\n-- closes\n'
    with scripted.playing(session, server_context) as player:
        person = at_server(player, '--talk', '--diagram', 'session.mmd')
        person.types('EHLO client.example.com', 'STARTTLS',
                     'EHLO client.example.com', f'AUTH PLAIN {response}')
        assert person.ends() == 75
    check_wire(player, person)
    assert person.seen.count(response) == 1
    drawn = pathlib.Path(person.child.cwd, 'session.mmd').read_text('utf-8')
    assert response not in drawn and 'AUTH PLAIN ********' in drawn


def test_password_is_hidden_whatever_asks_for_it(
        at_server: At, server_context: ssl.SSLContext) -> None:
    """Challenges are free text: this one has the word "user" in it, too."""
    asks = base64.b64encode(b'Password for user alice:').decode()
    session = OPENING + LOGIN.replace('UGFzc3dvcmQ6', asks) + QUIT
    with scripted.playing(session, server_context) as player:
        person = at_server(player, '--talk')
        person.types('EHLO client.example.com', 'STARTTLS',
                     'EHLO client.example.com', 'AUTH LOGIN alice@example.com')
        person.types_hidden(PASSWORD, at='user alice: ?')
        person.types('QUIT')
        assert person.ends() == 0
    check_wire(player, person)
    assert PASSWORD not in person.seen


@pytest.mark.parametrize('typed', ['DATA', 'data', '!DATA', '!data'])
def test_message_is_sent_however_data_is_typed(
        typed: str, at_server: At, server_context: ssl.SSLContext) -> None:
    """The verdict follows the server's replies."""
    session = GREETING + ENVELOPE.replace(
        'C: DATA', f'C: {typed.lstrip("!")}') + MESSAGE + QUIT
    with scripted.playing(session, server_context) as player:
        person = at_server(player, '--talk', '--tls', 'none')
        person.types(*TYPED_ENVELOPE[:2], typed, *TYPED_MESSAGE, 'QUIT')
        assert person.ends() == 0
    check_wire(player, person)
    assert verdicts(person.seen) == ['Sent to']


@pytest.mark.parametrize('typed', ['starttls', '!STARTTLS'])
def test_handshake_follows_however_starttls_is_typed(
        typed: str, at_server: At, server_context: ssl.SSLContext) -> None:
    """After its 220 there is nothing else to be done."""
    session = (OPENING + QUIT).replace('C: STARTTLS',
                                       f'C: {typed.lstrip("!")}')
    with scripted.playing(session, server_context) as player:
        person = at_server(player, '--talk', '--timeout', '2')
        person.types('EHLO client.example.com', typed,
                     'EHLO client.example.com', 'QUIT')
        assert person.ends() == 0, person.seen
    check_wire(player, person)


@pytest.mark.parametrize('asked', ['Username', 'Password'])
def test_end_of_input_within_the_login(
        asked: str, at_server: At, server_context: ssl.SSLContext) -> None:
    """Ctrl-D gives up: no password is made up, and nothing goes wrong."""
    session = OPENING + 'C: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\n'
    if asked == 'Password':
        session += f'C: {USER}\nS: 334 UGFzc3dvcmQ6\n'
    session += 'C: *\nS: 501 5.7.0 Given up\n' + QUIT
    with scripted.playing(session, server_context) as player:
        person = at_server(player, '--talk')
        person.types('EHLO client.example.com', 'STARTTLS',
                     'EHLO client.example.com', 'AUTH LOGIN')
        if asked == 'Password':
            person.types('alice@example.com', at='Username: ?')
            person.sees('Password: ?')
            assert person.child.waitnoecho(PATIENCE)
        else:       # the prompt, not the meaning that stands beside the 334
            person.sees(r'\nUsername: ?')
        person.child.sendeof()
        person.sees('S: 501|smtp.py: ')
        if 'smtp.py: ' not in person.seen:
            person.types('QUIT')
        person.ends()
    check_wire(player, person)
    assert person.child.exitstatus == 0
    assert verdicts(person.seen) == ['Not sent:']


def test_octets_that_are_no_text(run_smtp: Callable[..., Any],
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


def test_lines_go_as_typed(at_server: At,
                           server_context: ssl.SSLContext) -> None:
    """The first exclamation mark is ours; all the rest is the person's."""
    lines = ['NOOP  two  spaces', 'noop !', '!NOOP', '!!NOOP', 'x é']
    session = GREETING + ''.join(
        f'C: {re.sub("^!", "", line)}\nS: 250 ok\n' for line in lines) + QUIT
    with scripted.playing(session, server_context) as player:
        person = at_server(player, '--talk', '--tls', 'none')
        person.types(*lines, 'QUIT')
        assert person.ends() == 0
    check_wire(player, person)


@pytest.mark.parametrize('what, code, wanted', [
    ('-- closes', 75, '(?i)closed'),
    ('S: 421 4.4.2 Idle for too long\n-- closes', 75, 'Idle for too long'),
    ('S: 250 2.0.0 By the way', 76, '(?i)without being asked|unasked'),
    ('C: NOOP\nS: 250-and\n-- says nothing', 75, '(?i)in time|silent'),
    ('C: NOOP\nS: 25 ok', 76, '(?i)not speak SMTP'),
    ('C: NOOP\nS: 421 4.3.2 Shutting down\n-- closes', 75, 'Shutting down')])
def test_server_that_does_not_play_along(
        what: str, code: int, wanted: str, at_server: At,
        server_context: ssl.SSLContext) -> None:
    """It closes, talks unasked, times out: this is reported."""
    with scripted.playing(f'{GREETING}{EHLO}{what}\n',
                          server_context) as player:
        person = at_server(player, '--talk', '--timeout', '0.5')
        person.types('EHLO client.example.com', 'NOOP')
        assert person.ends() == code, person.seen
    assert re.search(wanted, person.seen)
    assert verdicts(person.seen) == ['Not sent:']
    assert 'Traceback' not in person.seen


def test_words_put_in_before_tls(at_server: At,
                                 server_context: ssl.SSLContext) -> None:
    """What follows the 220 in clear would pass for words of the server."""
    session = GREETING + EHLO + 'C: STARTTLS\nS: 220 go\nS: 250 AUTH LOGIN\n'
    with scripted.playing(session, server_context) as player:
        person = at_server(player, '--talk', '--timeout', '1')
        person.types('EHLO client.example.com', 'STARTTLS')
        assert person.ends() == 76
    assert 'EHLO' not in person.seen.partition('STARTTLS\n')[2]


def test_starttls_refused(at_server: At,
                          server_context: ssl.SSLContext) -> None:
    """No handshake then; the session goes on."""
    session = GREETING + EHLO + 'C: STARTTLS\nS: 454 4.7.0 No TLS now\n' + QUIT
    with scripted.playing(session, server_context) as player:
        person = at_server(player, '--talk')
        person.types('EHLO client.example.com', 'STARTTLS', 'AUTH LOGIN')
        person.sees('(?i)--.*(encrypt|base64|read)')
        person.types('QUIT')
        assert person.ends() == 0
    check_wire(player, person)


@pytest.mark.parametrize('sent_before', [False, True])
def test_message_refused(sent_before: bool, at_server: At,
                         server_context: ssl.SSLContext) -> None:
    """A refusal ends nothing: the person may try something else."""
    session = GREETING + (ENVELOPE + MESSAGE) * sent_before + ENVELOPE \
        + 'C: <message>\nC: .\nS: 554 5.6.0 I do not like it\n' \
        + 'C: NOOP\nS: 250 ok\n' + QUIT
    # One dialogue has one `<message>`: the second is written out.
    session = session.replace(
        'C: <message>\nC: .\nS: 554',
        ''.join(f'C: {line}\n' for line in TYPED_MESSAGE) + 'S: 554')
    with scripted.playing(session, server_context) as player:
        person = at_server(player, '--talk', '--tls', 'none')
        if sent_before:
            person.types(*TYPED_ENVELOPE, *TYPED_MESSAGE)
        person.types(*TYPED_ENVELOPE, *TYPED_MESSAGE, 'NOOP', 'QUIT')
        assert person.ends() == 0, person.seen
    check_wire(player, person)
    assert verdicts(person.seen) == ['Sent to' if sent_before else 'Not sent:']


@pytest.mark.parametrize('what', ['closes', 'interrupt', '421'])
def test_what_was_sent_is_sent(what: str, at_server: At,
                               server_context: ssl.SSLContext) -> None:
    """However the session ends afterwards, the verdict says so."""
    session = GREETING + ENVELOPE + MESSAGE
    session += {'closes': '-- closes\n', 'interrupt': '',
                '421': 'C: NOOP\nS: 421 4.3.2 Going down\n-- closes\n'}[what]
    with scripted.playing(session, server_context) as player:
        person = at_server(player, '--talk', '--tls', 'none')
        person.types(*TYPED_ENVELOPE, *TYPED_MESSAGE)
        if what == 'interrupt':
            person.sees('S: 250 2.0.0 Queued.*\n.*C: ')
            person.interrupts()
        else:
            person.types('NOOP')
        person.ends()
    assert verdicts(person.seen) == ['Sent to'], person.seen


def test_receipt_names_who_got_it(at_server: At,
                                  server_context: ssl.SSLContext) -> None:
    """RSET forgets recipients, and so does a refusal."""
    session = GREETING + ENVELOPE.partition('C: DATA')[0].replace(
        'bob', 'carol') + 'C: RSET\nS: 250 2.0.0 Forgotten\n' \
        + ENVELOPE.replace('C: DATA', 'C: RCPT TO:<dave@example.org>\n'
                           'S: 550 5.1.1 Unknown\nC: DATA') + MESSAGE + QUIT
    with scripted.playing(session, server_context) as player:
        person = at_server(player, '--talk', '--tls', 'none')
        person.types('MAIL FROM:<alice@example.com>',
                     'RCPT TO:<carol@example.org>', 'RSET',
                     *TYPED_ENVELOPE[:2], 'RCPT TO:<dave@example.org>',
                     'DATA', *TYPED_MESSAGE, 'QUIT')
        assert person.ends() == 0
    check_wire(player, person)
    [verdict] = re.findall(r'(?m)^Sent to .*$', person.seen)
    assert verdict.startswith('Sent to bob@example.org: 250 ')
    assert 'as typed' not in verdict and '()' not in verdict


def test_end_of_input_says_quit(at_server: At,
                                server_context: ssl.SSLContext) -> None:
    """Ctrl-D at a prompt is a polite goodbye."""
    with scripted.playing(GREETING + EHLO + QUIT, server_context) as player:
        person = at_server(player, '--talk')
        person.types('EHLO client.example.com')
        person.sees(r'\nC: ')
        person.child.sendeof()
        assert person.ends() == 0
    check_wire(player, person)
    assert verdicts(person.seen) == ['Not sent:']


def test_end_of_input_within_the_message(
        at_server: At, server_context: ssl.SSLContext) -> None:
    """Without the final dot nothing is sent, and nothing more is said."""
    session = GREETING + ENVELOPE \
        + 'C: Subject: Greetings\n-- says nothing\n'
    with scripted.playing(session, server_context) as player:
        person = at_server(player, '--talk', '--tls', 'none')
        person.types(*TYPED_ENVELOPE, 'Subject: Greetings')
        person.sees(r'\nC: ')
        person.child.sendeof()
        person.child.timeout = 2
        try:
            person.ends()
        finally:
            person.child.close(force=True)
    assert not player.dot_received
    assert player.message == b'Subject: Greetings\r\n'
    assert verdicts(person.seen) == ['Not sent:']


def test_pipe_that_ends_within_the_message(
        run_smtp: Callable[..., Any], ca_file: str,
        server_context: ssl.SSLContext) -> None:
    """Neither is anything sent then, and no line is made up."""
    session = GREETING + ENVELOPE \
        + 'C: Subject: Greetings\n-- says nothing\n'
    with scripted.playing(session, server_context) as player:
        done = run_smtp(
            '--server', 'localhost', '-4', '--port', str(player.port),
            '--talk', '--tls', 'none', timeout=3,
            input='\n'.join([*TYPED_ENVELOPE, 'Subject: Greetings', '']))
    assert not player.dot_received
    assert player.message == b'Subject: Greetings\r\n'
    assert verdicts(done.stderr) == ['Not sent:']


def test_interrupted_at_the_prompt(
        at_server: At, server_context: ssl.SSLContext) -> None:
    """The verdict begins a line of its own."""
    with scripted.playing(GREETING, server_context) as player:
        person = at_server(player, '--talk', '--tls', 'none')
        person.sees(r'\nC: ')
        person.interrupts()
        assert person.ends() == 130
    assert verdicts(person.seen) == ['Not sent:']


def test_typing_is_edited_and_remembered(
        at_server: At, server_context: ssl.SSLContext) -> None:
    """The arrow keys work, where there is readline; no password comes back."""
    pytest.importorskip('readline')
    session = OPENING + LOGIN.replace(f' {USER}', (
        f'\nS: 334 VXNlcm5hbWU6\nC: {USER}')) \
        + 'C: NOOP 1\nS: 250 ok\nC: NOOP 1\nS: 250 ok\n' + QUIT
    with scripted.playing(session, server_context) as player:
        person = at_server(player, '--talk', TERM='xterm')
        prompt = r'\nC: |\x1b\[\?2004hC: '
        person.types('EHLO client.example.com', 'STARTTLS', at=prompt)
        person.types('\x1b[A\x1b[A', at=prompt)         # up, up: EHLO
        person.types('AUTH LOGIN', at=prompt)
        person.types('alice@example.com', at='Username: ?')
        person.types_hidden(PASSWORD)
        person.types('NOOP 2\x08' + '1', '\x1b[A', 'QUIT', at=prompt)
        assert person.ends() == 0
    check_wire(player, person)
    assert PASSWORD not in person.seen


def test_talk_explained(at_server: At,
                        server_context: ssl.SSLContext) -> None:
    """--explain tells what the replies mean."""
    session = OPENING + 'C: NOOP\nS: 250 2.0.0 ok\n' + QUIT
    with scripted.playing(session, server_context) as player:
        person = at_server(player, '--talk', '--explain')
        person.types('EHLO client.example.com', 'STARTTLS',
                     'EHLO client.example.com', 'NOOP', 'QUIT')
        assert person.ends() == 0
    check_wire(player, person)
    for wanted in ('-- 220: yes', '-- STARTTLS: .*RFC 3207',
                   r'-- AUTH\b.*log in', '(?i)No longer offered: STARTTLS',
                   '-- 250: yes'):
        assert re.search(wanted, person.seen), wanted
    for line in re.findall(r'(?m)^-- .*$', person.seen):
        assert len(line) <= 80, line


def test_talk_from_a_pipe(run_smtp: Callable[..., Any], ca_file: str,
                          server_context: ssl.SSLContext) -> None:
    """A session in a file: an empty line in the message is one."""
    session = GREETING + ENVELOPE + ''.join(
        f'C: {line}\n' for line in TYPED_MESSAGE) \
        + 'S: 250 2.0.0 Queued as 9F1\n' + QUIT
    with scripted.playing(session, server_context) as player:
        done = run_smtp(
            '--server', 'localhost', '-4', '--port', str(player.port),
            '--talk', '--tls', 'none', input='\n'.join(
                [*TYPED_ENVELOPE, *TYPED_MESSAGE, 'QUIT', '']))
    assert not player.mismatch, player.difference() + done.stderr
    assert done.returncode == 0
    assert done.stdout.startswith('Sent to bob@example.org: 250 ')
    assert [line for line in done.stderr.split('\n') if line[:2] == 'C:'] \
        == [line for line in session.split('\n') if line[:2] == 'C:']


# --------------------------------------------------------------------- step

WAITS = r'--[^\n]*Enter[^\n]*q[^\n]*'


def test_step_sends_nothing_before_enter(
        at_server: At, server_context: ssl.SSLContext) -> None:
    """Each command is shown, and waits; then the mail is sent."""
    session = re.sub('S: 250 (STARTTLS|AUTH)', r'S: 250-PIPELINING\nS: 250 \1',
                     OPENING + LOGIN + ENVELOPE + MESSAGE + QUIT)
    with scripted.playing(session, server_context) as player:
        person = at_server(player, '--step', '--ehlo', 'client.example.com',
                           *LETTER, SMTP_PASSWORD=PASSWORD)
        person.sees(WAITS)
        assert 'EHLO client.example.com' in person.seen
        until = time.monotonic() + 0.2
        while time.monotonic() < until:     # nothing happens by itself
            assert player.played == [GREETING.strip()]
            time.sleep(0.02)
        for command in ('STARTTLS', 'EHLO', 'AUTH LOGIN', r'\*{8}', 'MAIL',
                        'RCPT', 'DATA', 'Hello Bob!'):
            person.child.sendline('')
            person.sees(f'(?s){command}.*?\n{WAITS}')
        person.child.sendline('')
        assert person.ends() == 0
    check_wire(player, person)
    assert verdicts(person.seen) == ['Sent to']
    assert PASSWORD not in person.seen


STOPS = {   # how often Enter is pressed, and what the server has to hear then
    'EHLO': (0, GREETING + QUIT), 'STARTTLS': (1, GREETING + EHLO + QUIT),
    'AUTH': (3, OPENING + QUIT), 'MAIL': (5, OPENING + LOGIN + QUIT),
    # RFC 4954 section 4: a login is given up with an asterisk; anything else
    # would be taken for the password.
    'password': (4, OPENING + LOGIN.partition('C: *')[0]
                 + 'C: *\nS: 501 5.7.0 Given up\n' + QUIT),
    # After 354 everything is message: to hang up is all that is left.
    'message': (8, OPENING + LOGIN + ENVELOPE)}


@pytest.mark.parametrize('stop, option', [
    *((stop, '--step') for stop in STOPS),
    ('EHLO', '--explain'), ('MAIL', '--explain')])
def test_step_quits_politely(
        stop: str, option: str, at_server: At,
        server_context: ssl.SSLContext) -> None:
    """After `q` comes QUIT, then exit 0 and "Not sent"."""
    number, session = STOPS[stop]
    with scripted.playing(session, server_context) as player:
        person = at_server(player, '--step', '--ehlo', 'client.example.com',
                           option, *LETTER, SMTP_PASSWORD=PASSWORD)
        for _ in range(number):
            person.types('', at=WAITS)
        person.types('q', at=WAITS)
        assert person.ends() == 0
    check_wire(player, person)
    assert verdicts(person.seen) == ['Not sent:']
    if stop == 'message':
        assert 'C: QUIT' not in person.seen     # nobody hears it any more


def test_step_draws_what_was_sent(at_server: At,
                                  server_context: ssl.SSLContext) -> None:
    """A command that was shown but not sent is not in the picture."""
    with scripted.playing(GREETING + EHLO + QUIT, server_context) as player:
        person = at_server(player, '--step', '--diagram', 'session.mmd',
                           '--ehlo', 'client.example.com', *LETTER,
                           SMTP_PASSWORD=PASSWORD)
        person.types('', 'q', at=WAITS)
        assert person.ends() == 0
    check_wire(player, person)
    drawn = pathlib.Path(person.child.cwd, 'session.mmd').read_text('utf-8')
    assert re.findall(r'C->>S: (\w+)', drawn) == ['EHLO', 'QUIT']


@pytest.mark.parametrize('explain', [[], ['--explain']],
                         ids=['step', 'explain'])
def test_step_explains_when_asked(
        explain: List[str], at_server: At,
        server_context: ssl.SSLContext) -> None:
    """? explains the command that waits; then it waits again."""
    import smtp
    with scripted.playing(GREETING + EHLO + QUIT, server_context) as player:
        person = at_server(player, '--step', '--ehlo', 'client.example.com',
                           *explain, *LETTER, SMTP_PASSWORD=PASSWORD)
        for step in (smtp.say_hello, smtp.start_tls):
            person.types('?', at=WAITS)
            summary = (step.__doc__ or '').split('\n')[0]
            person.sees(re.escape(f'-- {summary}'))
            person.sees('RFC ')
            person.types('' if step is smtp.say_hello else 'q', at=WAITS)
        assert person.ends() == 0
    check_wire(player, person)
    if not explain:
        assert 'it is about' not in person.seen


def test_deadlines_pause_while_a_person_thinks(
        at_server: At, server_context: ssl.SSLContext) -> None:
    """Only the server's time is limited."""
    session = GREETING + EHLO.replace('STARTTLS', 'HELP') + ENVELOPE \
        + MESSAGE + QUIT
    with scripted.playing(session, server_context) as player:
        person = at_server(player, '--step', '--tls', 'none', '--ehlo',
                           'client.example.com', '--timeout', '0.3', *LETTER)
        for number in range(5):
            person.sees(WAITS)
            if number in (1, 4):
                time.sleep(0.4)     # the person thinks
            person.child.sendline('')
        assert person.ends() == 0, person.seen
    check_wire(player, person)


@pytest.mark.parametrize('what, wanted', [
    ('-- closes', '(?i)closed'),
    ('S: 421 4.4.2 Idle for too long\n-- closes', 'Idle for too long')])
def test_server_hangs_up_while_a_person_thinks(
        what: str, wanted: str, at_server: At,
        server_context: ssl.SSLContext) -> None:
    """It is said, at the latest when the person goes on."""
    with scripted.playing(f'{GREETING}{EHLO}{what}\n',
                          server_context) as player:
        person = at_server(player, '--step', '--ehlo', 'client.example.com',
                           *LETTER, SMTP_PASSWORD=PASSWORD)
        person.types('', at=WAITS)
        person.types('', at='STARTTLS[^.]*' + WAITS)
        assert person.ends() == 75
    assert re.search(wanted, person.seen)
    assert verdicts(person.seen) == ['Not sent:']


def test_step_with_the_result_in_a_pipe(
        at_server: At, server_context: ssl.SSLContext) -> None:
    """The terminal to ask on is standard input, not standard output."""
    session = GREETING + EHLO + QUIT
    with scripted.playing(session, server_context) as player:
        person = at_server(player, '--step', '--tls', 'none', '-q', 'ehlo',
                           '--ehlo', 'client.example.com', pipe=' | cat')
        person.types('', at=WAITS)
        person.sees('Not sent')
        person.ends()
    check_wire(player, person)


def test_step_needs_a_terminal(run_smtp: Callable[..., Any]) -> None:
    """Nobody is there to press Enter."""
    done = run_smtp('--step', *LETTER, input='\n' * 20)
    assert done.returncode == 64
    assert '--step' in done.stderr and 'terminal' in done.stderr


# ------------------------------------------------------------------- colour


@pytest.mark.parametrize('environment, pipe, coloured', [
    ({'TERM': 'xterm-256color'}, '', True),
    ({'TERM': 'xterm', 'NO_COLOR': ''}, '', True),
    ({'TERM': 'xterm', 'NO_COLOR': '1'}, '', False),
    ({'TERM': 'dumb'}, '', False),
    ({'TERM': 'xterm'}, ' 2>&1 | cat', False)])
def test_colour_by_direction(
        environment: Dict[str, str], pipe: str, coloured: bool,
        at_server: At, server_context: ssl.SSLContext) -> None:
    """One colour for each side, and dimmed narration, where it is welcome."""
    with scripted.playing(GREETING + EHLO + QUIT, server_context) as player:
        person = at_server(player, '--explain', '--tls', 'none', '-q', 'ehlo',
                           '--ehlo', 'client.example.com', pipe=pipe,
                           **environment)
        person.ends()
    check_wire(player, person)
    colours: Dict[str, Set[str]] = {'C:': set(), 'S:': set(), '--': set()}
    for line in person.seen.split('\n'):
        found = re.match(r'((?:\x1b\[[0-9;]*m)*)(C:|S:|--)', line)
        if found:
            colours[found[2]].add(found[1])
            assert line.endswith('\x1b[0m') == bool(found[1])
    if not coloured:
        assert '\x1b' not in person.seen
        return
    assert [len(starts) for starts in colours.values()] == [1, 1, 1]
    client, server, narration = (starts.pop() for starts in colours.values())
    assert client and server and client != server
    assert narration == '\x1b[2m'
