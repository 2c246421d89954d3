"""--talk: a person types the session; base64 and TLS are done for them.

Somebody (`at_terminal`) sits at a pseudo-terminal, with a server behind it
that knows what it has to hear (`scripted`), or a real one (`practice_server`).
"""

import base64
import pathlib
import re
import ssl

import at_terminal
import practice_server
import pytest
import scripted
from at_terminal import (
    EHLO,
    ENVELOPE,
    MESSAGE,
    OPENING,
    PASSWORD,
    PATIENCE,
    TYPED_ENVELOPE,
    TYPED_MESSAGE,
    USER,
    At,
    Sit,
    check_wire,
    verdicts,
)
from sessions import GREETING, LOGIN, QUIT

pytestmark = at_terminal.NEEDED


# ------------------------------------------------------------ what is typed


def test_whole_session_by_hand(sit: Sit) -> None:
    """Through STARTTLS and AUTH LOGIN to a message that was delivered."""
    with practice_server.PracticeServer() as server:
        person = sit('--server', server.host, '-4', '--port',
                     str(server.port), '--ca-file', server.ca_file, '--talk')
        person.sees('S: 220 ')
        person.types('EHLO client.example.com', 'STARTTLS')
        person.sees(r'-- TLS begins: TLSv1\.\d')
        person.types('EHLO client.example.com', 'AUTH LOGIN')
        person.types('alice@example.com', at='Username: ?')
        person.types_hidden(practice_server.PASSWORD)
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
    assert practice_server.PASSWORD not in person.seen
    assert base64.b64encode(
        practice_server.PASSWORD.encode()).decode() not in person.seen


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


@pytest.mark.parametrize('command', ['AUTH PLAIN', 'AUTH=PLAIN', 'AUTHPLAIN'])
def test_secret_beside_auth_is_masked(
        command: str, at_server: At, server_context: ssl.SSLContext) -> None:
    """What the person typed there is on the screen, and goes no further.

    Not even where it is no AUTH command, and the server says it back.
    """
    response = base64.b64encode(b'\0alice\0' + PASSWORD.encode()).decode()
    session = OPENING + f'C: {command} {response}\n' \
        f'S: 500-5.5.2 Unknown: {command} {response}\n-- closes\n'
    with scripted.playing(session, server_context) as player:
        person = at_server(player, '--talk', '--diagram', 'session.mmd')
        person.types('EHLO client.example.com', 'STARTTLS',
                     'EHLO client.example.com', f'{command} {response}')
        assert person.ends() == 75
    check_wire(player, person)
    assert person.seen.count(response) == 1
    assert f'S: 500-5.5.2 Unknown: {command} ********' in person.seen
    drawn = pathlib.Path(person.child.cwd, 'session.mmd').read_text('utf-8')
    assert response not in drawn and f'S: {command} ********' in drawn


def test_password_is_hidden_whatever_asks_for_it(
        at_server: At, server_context: ssl.SSLContext) -> None:
    """Challenges are free text: this one has the word "user" in it, too."""
    asks = base64.b64encode(b'Password for user alice:').decode()
    session = OPENING + LOGIN.replace('UGFzc3dvcmQ6', asks) + QUIT
    with scripted.playing(session, server_context) as player:
        person = at_server(player, '--talk')
        person.types('EHLO client.example.com', 'STARTTLS',
                     'EHLO client.example.com', 'AUTH LOGIN alice@example.com')
        person.types_hidden(PASSWORD, 'Password for user alice')
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


# ---------------------------------------- a server that does not play along


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


# ------------------------------------------------- the message, and the end


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


@pytest.mark.parametrize('parameters', ['', ' NOTIFY=NEVER'])
def test_receipt_after_a_refused_mail(
        parameters: str, at_server: At, server_context: ssl.SSLContext
        ) -> None:
    """A nested MAIL changes nothing; nor are parameters part of a name."""
    rcpt = f'RCPT TO:<bob@example.org>{parameters}'
    session = GREETING + ENVELOPE.replace(
        'C: RCPT TO:<bob@example.org>', f'C: {rcpt}').replace(
        'C: DATA', 'C: MAIL FROM:<carol@example.org>\n'
        'S: 503 5.5.1 Nested MAIL\nC: DATA') + MESSAGE + QUIT
    with scripted.playing(session, server_context) as player:
        person = at_server(player, '--talk', '--tls', 'none')
        person.types(TYPED_ENVELOPE[0], rcpt,
                     'MAIL FROM:<carol@example.org>', 'DATA', *TYPED_MESSAGE,
                     'QUIT')
        assert person.ends() == 0
    check_wire(player, person)
    assert re.search(r'(?m)^Sent to bob@example\.org: 250 ', person.seen)


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


def test_interrupted_at_the_prompt(
        at_server: At, server_context: ssl.SSLContext) -> None:
    """The verdict begins a line of its own."""
    with scripted.playing(GREETING, server_context) as player:
        person = at_server(player, '--talk', '--tls', 'none')
        person.sees(r'\nC: ')
        person.interrupts()
        assert person.ends() == 130
    assert verdicts(person.seen) == ['Not sent:']
