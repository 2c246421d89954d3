"""XOAUTH2: a token in the password's place, and what servers answer to it.

A server says why it refuses a token in base64, as a challenge; the client has
to answer that with an empty line to hear the real reply.
"""

import base64
import json
import ssl
from typing import Callable, Tuple

import pytest
import scripted
from posting import ALICE, TOKEN, Done, Post, call
from secrecy import MAIL, assert_refused, assert_secret, send, xoauth2

EVIL = ''.join(map(chr, [*range(32), *range(127, 160), 0x61c, 0x200b, 0x200e,
                         0x200f, *range(0x2028, 0x202f),
                         *range(0x2066, 0x206a), 0xfeff]))
BEGIN = """
S: 220 mail.example.com
C: EHLO <name>
S: 250-mail.example.com
S: 250 STARTTLS
C: STARTTLS
S: 220 go ahead
-- TLS begins
C: EHLO <name>
S: 250-mail.example.com
S: 250-SIZE
S: 250 AUTH LOGIN PLAIN XOAUTH2
"""
REFUSED = """
C:
S: 535 5.7.3 Authentication unsuccessful
C: QUIT
S: 221 bye
"""
SENT = """
S: 235 2.7.0 Authentication successful
C: MAIL FROM:<alice@example.com> SIZE=<size>
S: 250 ok
C: RCPT TO:<bob@example.org>
S: 250 ok
C: DATA
S: 354 go ahead
C: <message>
C: .
S: 250 ok
C: QUIT
S: 221 bye
"""
Play = Callable[..., Tuple[Done, scripted.Player]]


@pytest.fixture
def play(ca_file: str, server_context: ssl.SSLContext) -> Play:
    """A function that holds a dialogue from AUTH on, with a token."""
    def run(dialogue: str, token: str = TOKEN) -> Tuple[Done, scripted.Player]:
        with scripted.playing(BEGIN.strip() + '\n' + dialogue.strip('\n'),
                              server_context) as player:
            done = call('--server', 'localhost', '-4', '--port',
                        str(player.port), '--ca-file', ca_file, '--timeout',
                        '10', '-v', *MAIL, env={'SMTP_ACCESS_TOKEN': token})
        assert not player.mismatch, player.difference() + '\n' + done.errors
        assert 'bearer' not in player.clear.lower()
        return done, player
    return run


@pytest.mark.parametrize('length', [1, 334, 335, 336, 337, 2000, 8000])
def test_tokens_of_any_length(length: int, play: Play) -> None:
    """A line of 512 octets holds AUTH and token; else they take two lines."""
    token = (TOKEN * 1000)[:length]
    response = base64.b64encode(xoauth2(token)).decode()
    one_line = len(f'AUTH XOAUTH2 {response}\r\n') <= 512
    assert one_line == (length < 336)   # both sides of the limit are tried
    dialogue = 'C: AUTH XOAUTH2 ********' if one_line else (
        'C: AUTH XOAUTH2\nS: 334 \nC: ********')
    done, player = play(dialogue + SENT, token)
    assert done.code == 0, done.errors
    assert player.secrets == [xoauth2(token)]
    if length > 8:
        assert_secret(token, done.errors)


def reason(text: str) -> str:
    """Return the 334 with which a server says why it refuses a token."""
    return 'S: 334 ' + base64.b64encode(text.encode('utf-8', 'surrogatepass')
                                        ).decode()


@pytest.mark.parametrize('status', ['400', '401'])
def test_reason_is_decoded_and_explained(status: str, play: Play) -> None:
    """Its JSON is shown, the real reply is told, and what to look for."""
    text = json.dumps({'status': status, 'schemes': 'bearer',
                       'scope': 'https://outlook.office.com/'})
    done, player = play('C: AUTH XOAUTH2 ********\n' + reason(text) + REFUSED)
    assert_refused(done, 77, '535 5.7.3', status,
                   'https://outlook.office.com/SMTP.Send')
    verdict = done.errors.partition('smtp.py: Not sent: ')[2].lower()
    for word in ('token', 'expire', 'scope', 'mailbox', ALICE):
        assert word in verdict, verdict
    assert 'password' not in verdict
    assert player.secrets == [xoauth2(TOKEN)]
    assert_secret(TOKEN, done.errors)


@pytest.mark.parametrize('reply, word', [
    ('535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is '
     'disabled for the Mailbox.', 'Authenticated SMTP'),
    ('535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is '
     'disabled for the Tenant.', 'administrator'),
    ('535 5.7.139 Authentication unsuccessful, the request did not meet the '
     'criteria to be authenticated successfully.', 'policy'),
    ('535 5.7.3 Authentication unsuccessful', 'token'),
    ('535 5.7.8 Username and Password not accepted', 'token'),
])
@pytest.mark.parametrize('challenge', [True, False])
def test_the_real_reply_is_explained(reply: str, word: str, challenge: bool,
                                     play: Play) -> None:
    """After a challenge or without one; never advice about a password."""
    first = reason('{"status":"400"}') + '\nC:\n' if challenge else ''
    done, _ = play(f'C: AUTH XOAUTH2 ********\n{first}S: {reply}\n'
                   'C: QUIT\nS: 221 bye')
    assert_refused(done, 77, reply[:11], word)
    advice = done.errors.partition('smtp.py: Not sent: ')[2].replace(reply, '')
    assert 'and password' not in advice


def test_later(play: Play) -> None:
    """A temporary refusal is one: 75."""
    done, _ = play('C: AUTH XOAUTH2 ********\n' + reason('{"status":"500"}')
                   + '\nC:\nS: 454 4.7.0 Temporary authentication failure\n'
                   'C: QUIT\nS: 221 bye')
    assert_refused(done, 75, '454 4.7.0')


def test_more_challenges(play: Play) -> None:
    """A server that goes on and on is given up."""
    done, _ = play('C: AUTH XOAUTH2 ********\n' + reason('{}')
                   + '\nC:\nS: 334 \nC: *\nS: 501 5.7.0 cancelled\nC: QUIT\n'
                   'S: 221 bye')
    assert_refused(done, 77)


def test_lost_after_the_reason(play: Play) -> None:
    """Some servers hang up instead of refusing; the reason is told, too."""
    done, _ = play('C: AUTH XOAUTH2 ********\n' + reason('{"status":"401"}')
                   + '\nC:\n-- closes')
    assert_refused(done, 75)
    assert '"status":"401"' in done.errors


@pytest.mark.parametrize('text', [
    'not JSON', '', '[]', '"text"', 'null', '{', '[' * 3000, '1' * 5000,
    'NaN', '{"status":"\\ud800"}', '{"status":"\\u001b[2J\\u202e\\n"}',
    '{"status": {"status": []}, "status": 7}', EVIL,
    f'{{"status":"{EVIL}"}}',
    '{"status":"400"}\nSent to bob@example.org: 250 ok',
    '{\r\n"status":"400"}\r\nsmtp.py: May have been sent: \r\n',
    '{"status":"400\\nSent to bob@example.org: 250 ok"}',
    f'{{"status":"400","token":"{TOKEN}"}}',
    '{"status":"' + base64.b64encode(xoauth2(TOKEN)).decode() + '"}',
    'C: ' + TOKEN + '\n' + TOKEN, '\ud800',
], ids=lambda text: ascii(text)[:24])
def test_hostile_reasons(text: str, play: Play) -> None:
    """Whatever is in it: shown harmlessly, and answered by an empty line."""
    done, _ = play('C: AUTH XOAUTH2 ********\n' + reason(text) + REFUSED)
    assert_refused(done, 77, '535 5.7.3')
    assert_secret(TOKEN, done.errors)


@pytest.mark.parametrize('line', [
    '334 %%%', '334', '334 ', '334 e', '334 =', '334 e30', '334 \\xff\\xfe',
    '334 gICA', '334 e30= e30=', '334 ' + 'A' * 8000,
    '334-e30=\nS: 334 e30=', '334 ' + TOKEN,
], ids=lambda text: text[:16])
def test_reasons_that_are_no_base64(line: str, play: Play) -> None:
    """Nothing to decode: the empty line is sent, the real reply told."""
    done, _ = play(f'C: AUTH XOAUTH2 ********\nS: {line}' + REFUSED)
    assert_refused(done, 77, '535 5.7.3')
    assert_secret(TOKEN, done.errors)


def test_reason_without_end(play: Play) -> None:
    """A line of more than 8 KiB is not SMTP."""
    done, _ = play('C: AUTH XOAUTH2 ********\nS: 334 ' + 'A' * 9000)
    assert_refused(done, 76)
    assert len(done.errors) < 5000


@pytest.mark.parametrize('token', [
    'a b', 'a\r\nb', 'a\nMAIL FROM:<evil@example.net>', 'a\1b',
    'a\1host=evil\1', 'tök', '\x1b[2J'], ids=ascii)
def test_what_is_no_token(token: str, post: Post) -> None:
    """RFC 6750 has letters, digits and -._~+/ for it; the rest is a mistake.

    Either it is said so at once, or it goes to the server as it is, within
    base64; it never becomes a second line or a second pair of the response.
    """
    done = send(post, '-v', SMTP_ACCESS_TOKEN=token)
    assert_refused(done, done.code)
    assert done.code in (77, 78), done.errors
    assert token not in done.errors
    assert 'host=evil' not in done.errors
    assert 'C: MAIL' not in done.errors


def test_token_with_a_line_end(post: Post) -> None:
    """Out of a file, or from Windows, a token may have one; it is cut off."""
    for end in ('\n', '\r\n', '\r', ' '):
        post.accept()
        done = send(post, SMTP_ACCESS_TOKEN=TOKEN + end)
        assert done.code == 0, done.errors
        post.only()
