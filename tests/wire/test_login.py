"""Logging in: mechanisms, passwords of every kind, and XOAUTH2.

A server reports why it refuses a token in base64, as a challenge; the client
has to answer that with an empty line to hear the real reply.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from support import checks, dialogue
from support.checks import (
    LATER,
    LOGIN,
    PROTOCOL,
    REFUSED,
    SETTINGS,
    USAGE,
)
from support.dialogue import BEGINS, QUIT, USER
from support.post import ALICE, MAIL, PASSWORD, TOKEN

EVIL = ''.join(map(chr, [*range(32), *range(127, 160), 0x61c, 0x200b, 0x200e,
                         0x200f, *range(0x2028, 0x202f),
                         *range(0x2066, 0x206a), 0xfeff]))
REFUSED_TOKEN = 'C: \nS: 535 5.7.3 Authentication unsuccessful\n' + QUIT
WELCOME = 'S: 235 2.7.0 Welcome\n'
SENT = WELCOME + dialogue.ENVELOPE + dialogue.DOT + (
    'S: 250 2.0.0 Ok\nS: 221 2.0.0 Bye\n')
AUTH = 'C: AUTH XOAUTH2 ********\n'


def xoauth2(token: str) -> bytes:
    """Return what has to be in the base64 of a client's response."""
    return f'user={ALICE}\1auth=Bearer {token}\1\1'.encode()


def reason(text: str) -> str:
    """Return the 334 with which a server reports why it refuses a token."""
    return 'S: 334 ' + base64.b64encode(
        text.encode('utf-8', 'surrogatepass')).decode() + '\n'


@pytest.fixture
def bear(play: Any) -> Any:
    """A function that holds a session from AUTH on, with a token."""
    def bear(told: str, token: str = TOKEN) -> Any:
        result, player = play(
            BEGINS['login'] + told, '-v', password=None,
            env={'SMTP_ACCESS_TOKEN': token})
        assert 'bearer' not in player.clear.lower()
        assert set(player.secrets) <= {token.encode()}
        return result
    return bear


# ------------------------------------------------------------------ passwords


@pytest.mark.parametrize('mechanism', ['login', 'plain'])
@pytest.mark.parametrize('password', [
    'a', '2', '250', ' ', '-', ' OK ', '250 ok', 'AUTH', 'LOGIN', 'PLAIN',
    'STARTTLS', 'SIZE', '********', 'C:', '=', '\u2603', '\\', '%s {0}',
    'x' * 3000], ids=lambda text: ascii(text)[:9])
def test_any_password(password: str, mechanism: str, play: Any) -> None:
    """However short or odd, it arrives; masking it disturbs no reply."""
    echo = password.replace('\\', '\\\\')
    begin = f'C: AUTH LOGIN {USER}\nS: 334 \nC: ********\n'
    if mechanism == 'plain':
        begin = 'C: AUTH PLAIN ********\n' if len(password) < 300 else \
            'C: AUTH PLAIN\nS: 334 \nC: ********\n'
    told = dialogue.parse(
        'S: 220 250 a\n' + dialogue.ehlo('2 a', 'STARTTLS') + dialogue.TLS
        + dialogue.ehlo('SIZE 0', 'AUTH LOGIN PLAIN') + begin
        + 'S: 235 ok 250\nC: MAIL FROM:<alice@example.com> SIZE=<size>\n'
        'S: 250-a\nS: 250 ok\nC: RCPT TO:<bob@example.org>\nS: 250 a\n'
        f'C: DATA\nS: 354 a\nC: <message>\nC: .\nS: 554 ok {echo} a\n' + QUIT)
    result, player = play(told, '-v', '--auth', mechanism, password=password)
    assert player.secrets == [password.encode()]
    checks.check(result, REFUSED,
                 secrets=[password] if len(password) > 9 else [])


@pytest.mark.parametrize('offered, options, said', [
    ('LOGIN PLAIN XOAUTH2', [], 'AUTH LOGIN'),
    ('XOAUTH2 PLAIN', [], 'AUTH PLAIN'),
    ('PLAIN LOGIN', ['--auth', 'plain'], 'AUTH PLAIN'),
    ('PLAIN LOGIN', ['--auth', 'LOGIN'], 'AUTH LOGIN'),
    ('PLAIN', ['--auth', 'login'], ''), ('LOGIN', ['--auth', 'plain'], ''),
    ('CRAM-MD5', [], ''), ('XLOGIN LOGINX', [], ''), ('XOAUTH2', [], '')])
def test_which_mechanism(offered: str, options: list[str], said: str,
                         play: Any) -> None:
    """Only one that is offered; LOGIN before PLAIN; never a second one."""
    login = '' if not said else 'C: AUTH PLAIN ********\n' \
        if 'PLAIN' in said else f'C: AUTH LOGIN {USER}\n'
    result, _ = play(
        BEGINS['tls'] + dialogue.ehlo(f'AUTH {offered}') + login
        + 'S: 535 5.7.8 No\n' * bool(said) + QUIT, *options)
    checks.check(result, LOGIN if said else REFUSED,
                 *([] if said else [offered.split()[0]]))


def test_no_login(play: Any) -> None:
    """--auth none goes from EHLO to MAIL, with a password at hand."""
    result, player = play(BEGINS['login'] + dialogue.ENVELOPE + dialogue.DOT
                          + 'S: 250 Ok\nS: 221 Bye\n', '--auth', 'none')
    checks.check(result, 0)
    assert player.dot_received


@pytest.mark.parametrize('code', ['500', '502', '503', '535'])
def test_a_refused_name_is_not_tried_in_another_way(code: str, play: Any
                                                    ) -> None:
    """Only 501 and 504 mean that the name is not wanted on that line."""
    result, _ = play(BEGINS['login'] + f'C: AUTH LOGIN {USER}\n'
                     f'S: {code} 5.5.0 No\n' + QUIT)
    checks.check(result, LOGIN, f'{code} 5.5.0 No')


# -------------------------------------------------------------------- XOAUTH2


@pytest.mark.parametrize('length', [1, 334, 335, 336, 337, 2000, 8000])
def test_tokens_of_any_length(length: int, bear: Any) -> None:
    """A line of 512 octets holds AUTH and token; else they take two lines."""
    token = (TOKEN * 1000)[:length]
    response = base64.b64encode(xoauth2(token)).decode()
    one_line = len(f'AUTH XOAUTH2 {response}\r\n') <= 512
    assert one_line == (length < 336)   # both sides of the limit are tried
    result = bear((AUTH if one_line else
                   'C: AUTH XOAUTH2\nS: 334 \nC: ********\n') + SENT, token)
    checks.check(result, 0, secrets=[token] if length > 8 else [])


@pytest.mark.parametrize('status', ['400', '401'])
def test_the_reason_is_decoded_and_explained(status: str, bear: Any) -> None:
    """Its JSON is shown, the real reply is quoted, and what to look for."""
    text = json.dumps({'status': status, 'schemes': 'bearer',
                       'scope': 'https://outlook.office.com/'})
    result = bear(AUTH + reason(text) + REFUSED_TOKEN)
    checks.check(result, LOGIN, '535 5.7.3', status, who='You',
                 absent='password')
    for word in ('token', 'scope', 'smtp.send'):
        assert word in result.advice.lower(), result.err


@pytest.mark.parametrize('reply, word', [
    ('535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is '
     'disabled for the Mailbox.', 'Authenticated SMTP'),
    ('535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is '
     'disabled for the Tenant.', 'administrator'),
    ('535 5.7.3 Authentication unsuccessful', 'token'),
    ('535 5.7.8 Username and Password not accepted', 'token'),
])
@pytest.mark.parametrize('challenge', [True, False])
def test_the_real_reply_is_explained(reply: str, word: str, challenge: bool,
                                     bear: Any) -> None:
    """After a challenge or without one; never advice about a password."""
    first = reason('{"status":"400"}') + 'C: \n' if challenge else ''
    result = bear(f'{AUTH}{first}S: {reply}\n{QUIT}')
    checks.check(result, LOGIN, reply, word)
    assert 'and password' not in result.advice


@pytest.mark.parametrize('answer, code', [
    ('S: 454 4.7.0 Temporary authentication failure\n' + QUIT, LATER),
    ('S: 334 \n-- closes\n', LOGIN),
    ('-- closes\n', LATER)], ids=['4yz', 'more challenges', 'closed'])
def test_the_end_after_a_reason(answer: str, code: int, bear: Any) -> None:
    """Whatever it is, the reason is shown."""
    result = bear(AUTH + reason('{"status":"401"}') + 'C: \n' + answer)
    checks.check(result, code)
    assert '"status":"401"' in result.err


@pytest.mark.parametrize('text', [
    'not JSON', '', '[]', '"text"', 'null', '{', '[' * 3000, '1' * 5000,
    'NaN', '{"status":"\\ud800"}', '{"status":"\\u001b[2J\\u202e\\n"}',
    '{"status": {"status": []}, "status": 7}', EVIL,
    f'{{"status":"{EVIL}"}}',
    '{"status":"400"}\nSent to bob@example.org: 250 ok',
    '{\r\n"status":"400"}\r\nsmtp.py: May have been sent: \r\n',
    f'{{"status":"400","token":"{TOKEN}"}}',
    '{"status":"' + base64.b64encode(xoauth2(TOKEN)).decode() + '"}',
    'C: ' + TOKEN + '\n' + TOKEN, '\ud800',
], ids=lambda text: ascii(text)[:24])
def test_hostile_reasons(text: str, bear: Any) -> None:
    """Whatever is in it: shown harmlessly, and answered by an empty line."""
    result = bear(AUTH + reason(text) + REFUSED_TOKEN)
    checks.check(result, LOGIN, '535 5.7.3', secrets=[TOKEN])


@pytest.mark.parametrize('line', [
    '334 %%%', '334', '334 ', '334 e', '334 =', '334 e30', '334 \\xff\\xfe',
    '334 gICA', '334 e30= e30=', '334 ' + 'A' * 8000,
    '334-e30=\nS: 334 e30=', '334 ' + TOKEN,
], ids=lambda text: text[:16])
def test_reasons_that_are_not_base64(line: str, bear: Any) -> None:
    """Nothing to decode: the empty line is sent, the real reply quoted."""
    result = bear(f'{AUTH}S: {line}\n{REFUSED_TOKEN}')
    checks.check(result, LOGIN, '535 5.7.3', secrets=[TOKEN])


def test_a_reason_without_end(bear: Any) -> None:
    """A line of more than 8 KiB is not SMTP."""
    result = bear(f'{AUTH}S: 334 ' + 'A' * 9000)
    checks.check(result, PROTOCOL)
    assert len(result.err) < 5000


@pytest.mark.parametrize('token', [
    'a b', 'a\r\nb', 'a\nMAIL FROM:<evil@example.net>', 'a\1b',
    'a\1host=evil\1', 'tök', '\x1b[2J'], ids=ascii)
def test_what_is_not_a_token(token: str, post: Any, call: Any) -> None:
    """RFC 6750 has letters, digits and -._~+/ for it; the rest is a mistake.

    Either that is an error at once, or it goes to the server as it is, within
    base64; it never becomes a second line or a second pair of the response.
    """
    result = call(*post.options, *MAIL, '-v', env={'SMTP_ACCESS_TOKEN': token})
    assert result.code in (LOGIN, SETTINGS), result.err
    checks.ended_well(result)
    assert token not in result.err
    assert 'host=evil' not in result.err
    assert 'C: MAIL' not in result.err


@pytest.mark.parametrize('end', ['\n', '\r\n', '\r', ' '], ids=ascii)
def test_a_token_with_a_line_end(end: str, post: Any, call: Any) -> None:
    """Out of a file, or from Windows, a token may have one; it is cut off."""
    result = call(*post.options, *MAIL,
                  env={'SMTP_ACCESS_TOKEN': TOKEN + end})
    checks.check(result, 0)
    post.only()


# ------------------------------------------------------------ which one counts


@pytest.mark.parametrize('options, env, said', [
    ([], {'SMTP_PASSWORD': PASSWORD}, 'LOGIN'),
    ([], {'SMTP_ACCESS_TOKEN': TOKEN}, 'XOAUTH2'),
    ([], {'SMTP_PASSWORD': 'hunter-2', 'SMTP_ACCESS_TOKEN': TOKEN}, 'XOAUTH2'),
    ([], {'SMTP_PASSWORD': PASSWORD, 'SMTP_ACCESS_TOKEN': ''}, 'LOGIN'),
    (['--auth', 'xoauth2'], {'SMTP_ACCESS_TOKEN': TOKEN}, 'XOAUTH2'),
    (['--auth', 'login'], {'SMTP_PASSWORD': PASSWORD,
                           'SMTP_ACCESS_TOKEN': 'hunter-2'}, 'LOGIN'),
])
def test_which_secret_counts(options: list[str], env: dict[str, str],
                             said: str, post: Any, call: Any) -> None:
    """The token before the password, unless --auth decides."""
    result = call(*post.options, *MAIL, *options, '-v', env=env)
    checks.check(result, 0, secrets=[PASSWORD, TOKEN, 'hunter-2'])
    assert f'C: AUTH {said} ' in result.err


def test_a_token_is_not_a_password(post: Any, call: Any) -> None:
    """--auth login wants a password; the token is not sent in its place."""
    result = call(*post.options, *MAIL, '--auth', 'login', '-v',
                  env={'SMTP_ACCESS_TOKEN': TOKEN})
    checks.check(result, USAGE, 'SMTP_PASSWORD')
    assert 'S: ' not in result.err


def test_no_secret_at_all(post: Any, call: Any) -> None:
    """Neither given nor anyone to ask: the ways to give it are named."""
    checks.check(call(*post.options, *MAIL), USAGE, '$SMTP_PASSWORD',
                 '--password-command')


def test_a_server_without_xoauth2(play: Any) -> None:
    """The token stays here; what the server offers is named."""
    result, _ = play(BEGINS['tls'] + dialogue.ehlo('AUTH LOGIN') + QUIT,
                     password=None, env={'SMTP_ACCESS_TOKEN': TOKEN})
    checks.check(result, REFUSED, 'XOAUTH2', 'LOGIN')
