"""Advice: an error says whose turn it is, and one thing to do.

The sentences are those of Office 365, Gmail, Postfix and others, as people
really meet them.
"""

import pathlib
import re
import socket
import ssl
import sys
from typing import Any, Callable, Set, Tuple

import practice_server
import pytest
import scripted
import trustme
from sessions import (
    EHLO,
    ENVELOPE,
    GREETING,
    LETTER,
    LOGIN,
    MESSAGE,
    OPENING,
    QUIT,
    SESSION,
    TLS,
    Done,
    Play,
    base64_of,
    lines_of,
    on_one_line,
)

YOU, ADMINISTRATOR, WAIT = \
    'Your turn', "Your administrator's turn", 'Wait'
TURN = re.compile(f'{YOU}|{ADMINISTRATOR}|{WAIT}(?=[:,.])')


def check_advice(said: str, turns: Set[str], action: str) -> None:
    """One party's turn, the right one, and what to do."""
    found = TURN.findall(said)
    assert len(found) == 1, f'whose turn is it? {said}'
    assert found[0] in turns, said
    lines = said[said.index(found[0]):].split('\n')
    advice = on_one_line(' '.join(lines))
    assert re.search(action, advice), f'{action} is not in: {advice}'
    assert [line for line in lines if len(line) > 80] == []


REFUSALS = {**practice_server.REFUSALS, **{
    'gmail-login': r'auth=535-5.7.8 Username and Password not accepted. For '
    r'more information, go to\n535 5.7.8  https://support.google.com/mail/?p='
    'BadCredentials',
    'gmail-too-often': 'auth=454 4.7.0 Too many login attempts, please try '
    'again later.',
    'postfix-relay': 'rcpt=554 5.7.1 <bob@example.org>: Relay access denied',
    'exim-relay': 'rcpt=550 relay not permitted',
    'postgrey': 'rcpt=450 4.2.0 <bob@example.org>: Recipient address rejected:'
    ' Greylisted, see http://postgrey.schweikert.ch/help/example.org.html',
    'dovecot-full': 'rcpt=552 5.2.2 <bob@example.org> Quota exceeded (mailbox '
    'for user is full)',
    'postfix-full': 'rcpt=452 4.2.2 <bob@example.org>: Mailbox full',
    'postfix-too-large': 'mail=552 5.3.4 Message size exceeds fixed limit',
    'exchange-too-large': 'message=550 5.2.3 RESOLVER.RST.RecipSizeLimit; '
    'message too large for this recipient',
    'postfix-no-user': 'rcpt=550 5.1.1 <bob@example.org>: Recipient address '
    'rejected: User unknown in local recipient table',
    'user-at-relay': 'rcpt=550 5.1.1 <bob@relay.example.org>: Recipient '
    'address rejected: User unknown in local recipient table',
    'blocklist': 'rcpt=554 5.7.1 Service unavailable; Client host [192.0.2.1] '
    'blocked using zen.spamhaus.org',
    'blocklist-numbers': 'rcpt=554 5.7.1 Service unavailable; Client host '
    '[95.2.2.17] blocked using zen.spamhaus.org',
    'postfix-no-sender': 'rcpt=550 5.1.1 <alice@example.com>: Sender address '
    'rejected: User unknown in local recipient table',
    'postfix-no-name': 'rcpt=504 5.5.2 <client>: Helo command rejected: need '
    'fully-qualified hostname',
    'too-many-people': 'rcpt=452 4.5.3 Too many recipients',
    'no-such-login': 'auth=535 5.7.8 Error: authentication failed: no such '
    'user',
    'daily-people': "mail=550 5.1.90 Your message can't be sent because "
    "you've reached your daily limit for message recipients",
    'link-in-the-text': 'message=554 5.7.1 Service unavailable; Unverified '
    'link [example.net] blocked using dbl.spamhaus.org',
    'gmail-content': 'message=552-5.7.0 This message was blocked because its '
    r'content presents a potential\n552 5.7.0 security issue.',
}}


@pytest.mark.parametrize('name, turns, action', [
    ('server-down', {WAIT}, '(?i)again'),
    ('bad-ehlo-name', {YOU}, '--ehlo'),
    ('tls-busy', {WAIT}, '(?i)again'),
    ('old-tls', {YOU, ADMINISTRATOR}, r'TLS 1\.2'),
    ('tenant-disabled', {ADMINISTRATOR}, 'SmtpClientAuthenticationDisabled'),
    ('mailbox-disabled', {ADMINISTRATOR}, 'Authenticated SMTP'),
    ('security-defaults', {ADMINISTRATOR}, 'security defaults'),
    ('conditional-access', {ADMINISTRATOR}, '(?i)conditional access'),
    ('wrong-password', {YOU}, 'password'),
    ('basic-disabled', {YOU}, 'xoauth2'),
    ('basic-retired', {YOU}, 'xoauth2'),
    ('login-failed', {YOU}, '(?i)password.*mailbox'),
    ('no-mechanism', {YOU}, '--auth'),
    ('not-logged-in', {YOU}, '(?i)log in'),
    ('not-your-address', {YOU}, '(?i)from.*Send As'),
    ('send-as-denied', {YOU}, '(?i)from.*Send As'),
    ('too-large', {YOU}, 'attachment|link'),
    ('relay-denied', {YOU}, '(?i)log in|587'),
    ('no-such-user', {YOU}, '(?i)typ(o|ing)|spell'),
    ('daily-limit', {WAIT}, 'day|24 hours'),
    ('too-many-connections', {WAIT}, 'three'),
    ('app-password', {YOU}, '(?i)app(lication)? password'),
    ('recipient-full', {WAIT}, 'recipient'),
    ('greylisted', {WAIT}, 'again'),
    ('gmail-login', {YOU}, 'password'),
    ('gmail-too-often', {WAIT}, 'again|later'),
    ('postfix-relay', {YOU}, '(?i)log in|587'),
    ('exim-relay', {YOU}, '(?i)log in|587'),
    ('postgrey', {WAIT}, 'again'),
    ('dovecot-full', {WAIT}, 'recipient'),
    ('postfix-full', {WAIT}, 'recipient'),
    ('postfix-too-large', {YOU}, 'attachment|link'),
    ('exchange-too-large', {YOU}, 'attachment|link'),
    ('postfix-no-user', {YOU}, '(?i)typ(o|ing)|spell'),
    ('user-at-relay', {YOU}, '(?i)typ(o|ing)|spell'),
    ('blocklist', {ADMINISTRATOR}, 'list'),
    ('blocklist-numbers', {ADMINISTRATOR}, 'list'),
    ('postfix-no-sender', {YOU}, '--from'),
    ('postfix-no-name', {YOU}, '--ehlo'),
    ('too-many-people', {YOU}, 'fewer people'),
    ('no-such-login', {YOU}, '-u.*password'),
    ('daily-people', {WAIT}, 'day'),
    ('link-in-the-text', {YOU}, 'something in the text'),
    # Office 365 keeps a copy of what is sent: it is one's own mailbox that
    # is full, says Microsoft of this sentence.
    ('mailbox-full', {YOU}, '(?i)your (own )?mailbox|sent items'),
])
def test_advice(name: str, turns: Set[str], action: str, play: Play) -> None:
    """Whose turn it is after a refusal that people really meet."""
    done, reply = refuse(name, play)
    check_advice(done.stderr, turns, action)
    sentence = re.split(r'[.;]( |$)', reply[4:])[0]
    assert on_one_line(sentence) in on_one_line(done.stderr)


@pytest.mark.parametrize('name, nonsense', [
    ('gmail-too-often', 'spam'), ('gmail-content', 'too large|attachments'),
    ('mailbox-full', 'of the recipient'), ('user-at-relay', '587'),
    ('postfix-no-sender', 'typing'), ('no-such-login', 'typing'),
    ('link-in-the-text', 'network')])
def test_advice_that_would_mislead(name: str, nonsense: str, play: Play
                                   ) -> None:
    """A sentence that only looks like another one gets no wrong advice."""
    done, _ = refuse(name, play)
    found = TURN.search(done.stderr)
    advice = done.stderr[found.start():] if found else ''
    assert not re.search(nonsense, advice), advice


def refuse(name: str, play: Play) -> Tuple[Done, str]:
    """Play a session up to a refusal; return how it ended, and the reply."""
    step, reply = practice_server.parse_refusal(REFUSALS[name])
    up_to = {
        'greeting': '', 'ehlo': GREETING + 'C: EHLO client.example.com\n',
        'starttls': GREETING + EHLO + 'C: STARTTLS\n',
        'auth': OPENING + 'C: AUTH LOGIN YWxpY2VAZXhhbXBsZS5jb20=\n',
        'mail': OPENING + LOGIN + ENVELOPE.partition('S: 250')[0],
        'rcpt': OPENING + LOGIN + ENVELOPE.partition('S: 250 2.1.5')[0],
        'message': OPENING + LOGIN + ENVELOPE + MESSAGE.partition('S:')[0]}
    begins = up_to[step.partition(':')[0]]
    if step == 'auth' and reply.startswith('53'):
        begins += 'S: 334 UGFzc3dvcmQ6\nC: ********\n'
    elif step == 'auth' and reply.startswith('504'):
        # then the older form is tried
        begins += f'S: {reply}\nC: AUTH LOGIN\n'
    said = ''.join(f'S: {line}\n' for line in reply.split('\r\n'))
    if step == 'mail':
        said += 'S: 503 5.5.1 No sender\n' * 2
    elif step.startswith('rcpt'):
        said += 'S: 503 5.5.1 No recipient\n'
    done, _ = play(begins + said + '-- closes\n', *LETTER,
                   password='open sesame')
    assert done.returncode not in (0, 70, 74), done.stderr
    return done, reply


def test_sentences_of_the_practice_server_have_advice() -> None:
    """No refusal that the practice server plays by name is left out above."""
    marks = test_advice.pytestmark  # type: ignore[attr-defined]
    tested = {row[0] for mark in marks for row in mark.args[1]}
    assert set(practice_server.REFUSALS) - tested == set()


def test_login_that_wants_more(play: Play) -> None:
    """A 334 where the login should end: one that smtp.py does not know."""
    more = LOGIN.replace('S: 235 2.7.0 Welcome', 'S: 334 Y29kZTo=\nC: *\n'
                         'S: 501 5.7.0 Given up')
    done, _ = play(OPENING + more + QUIT, *LETTER, password='open sesame')
    assert done.returncode == 77
    check_advice(done.stderr, {YOU}, 'another --auth')


def test_long_diagnostics_are_folded(play: Play) -> None:
    """One sentence is enough for an error; -v shows the whole reply."""
    _, reply = practice_server.parse_refusal('send-as-denied')
    session = OPENING + LOGIN + ENVELOPE \
        + MESSAGE.partition('S:')[0] + f'S: {reply}\n-- closes\n'
    done, _ = play(session, *LETTER, password='open sesame')
    assert 'SendAsDenied' in done.stderr
    assert 'BeginDiagnosticData' not in done.stderr
    done, _ = play(session, '-v', *LETTER, password='open sesame')
    assert f'S: {reply}' in lines_of(done.stderr)


def test_tls_where_the_server_speaks_in_clear(play: Play) -> None:
    """--tls implicit on the port of STARTTLS: "wrong version number"."""
    done, _ = play(GREETING, *LETTER, '--tls', 'implicit',
                   password='open sesame', as_written=False)
    assert done.returncode == 76
    check_advice(done.stderr, {YOU}, '--tls starttls')


def test_starttls_where_the_server_wants_tls(
        run_main: Callable[..., Done], ca_file: str) -> None:
    """STARTTLS on port 465: both sides wait for each other in silence."""
    with socket.create_server(('127.0.0.1', 0)) as listener:
        done = run_main('--server', 'localhost', '-4', '--port',
                        str(listener.getsockname()[1]), '--ca-file', ca_file,
                        '--timeout', '0.2', *LETTER, password='open sesame')
    assert done.returncode == 75
    check_advice(done.stderr, {YOU}, '--tls implicit')


def test_port_is_closed(run_main: Callable[..., Done], ca_file: str) -> None:
    """Nobody listens there."""
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))     # and does not listen
        done = run_main('--server', 'localhost', '-4', '--port',
                        str(sock.getsockname()[1]), '--ca-file', ca_file,
                        *LETTER, password='open sesame')
    assert done.returncode == 75
    check_advice(done.stderr, {YOU}, '(?i)port')


@pytest.mark.parametrize('error', [
    socket.timeout('timed out'), OSError(113, 'No route to host'),
    OSError(101, 'Network is unreachable')], ids=str)
def test_port_is_blocked(error: OSError, run_main: Callable[..., Done],
                         monkeypatch: pytest.MonkeyPatch) -> None:
    """Many networks let nobody out on port 25 or 587."""
    def connect(*_: Any) -> None:
        raise error
    monkeypatch.setattr(socket.socket, 'connect', connect)
    done = run_main('--server', '127.0.0.1', *LETTER, password='open sesame')
    assert done.returncode == 75
    assert str(error.strerror or error) in done.stderr
    check_advice(done.stderr, {YOU, ADMINISTRATOR}, '(?i)block')


@pytest.mark.parametrize('number, code, turns, action', [
    (socket.EAI_NONAME, 68, {YOU}, '(?i)name|spell|typ'),
    (socket.EAI_AGAIN, 75, {YOU, WAIT}, '(?i)network|offline|again')])
def test_name_is_not_found(number: int, code: int, turns: Set[str],
                           action: str, run_main: Callable[..., Done],
                           monkeypatch: pytest.MonkeyPatch) -> None:
    """A typing error in the name of the server, or no network at all."""
    def look_up(*_: Any, **__: Any) -> None:
        raise socket.gaierror(number, 'as if')
    monkeypatch.setattr(socket, 'getaddrinfo', look_up)
    done = run_main('--server', 'smtp.exmaple.com', *LETTER,
                    password='open sesame')
    assert done.returncode == code
    assert 'smtp.exmaple.com' in done.stderr
    check_advice(done.stderr, turns, action)


def test_certificate_of_an_antivirus(
        run_main: Callable[..., Done], ca_file: str) -> None:
    """Its own authority vouches for everybody: who it is must be seen."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA(organization_name='Example Antivirus Mail Shield').issue_cert(
        'localhost').configure_cert(context)
    with scripted.playing(GREETING + EHLO + TLS, context) as player:
        done = run_main('--server', 'localhost', '-4', '--port',
                        str(player.port), '--ca-file', ca_file,
                        '--ehlo', 'client.example.com', *LETTER,
                        password='open sesame')
    assert done.returncode == 76
    check_advice(done.stderr, {YOU, ADMINISTRATOR}, '(?i)antivirus')
    assert 'None' not in done.stderr
    if sys.version_info >= (3, 10):     # before, nobody shows it to us
        assert 'Example Antivirus Mail Shield' in done.stderr


@pytest.mark.parametrize('user, warned', [
    ('carol@example.com', True), ('alice@example.com', False),
    ('', False)])
@pytest.mark.parametrize('how', ['--from', '--message'])
def test_warning_when_from_is_not_the_login(
        how: str, user: str, warned: bool, play: Play,
        tmp_path: pathlib.Path) -> None:
    """It comes before anything is sent, and stops nothing."""
    path = tmp_path / 'letter.eml'
    path.write_bytes(b'From: alice@example.com\r\nTo: bob@example.org\r\n'
                     b'\r\nHello Bob!\r\n')
    arguments = LETTER if how == '--from' else ['--message', str(path)]
    session = SESSION.replace(base64_of('alice@example.com'),
                              base64_of(user or 'alice@example.com'))
    done, _ = play(session, '-v', '-u', user, *arguments,
                   password='open sesame')
    assert done.returncode == 0
    before = done.stderr.partition('S: 220')[0]
    assert bool(re.search('(?i)From.*Send As|Send As.*From',
                          on_one_line(before))) == warned, done.stderr
