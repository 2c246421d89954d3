"""Logging in: mechanisms, passwords of every kind, and XOAUTH2."""

import base64

import pytest

from support import checks, dialogue
from support.checks import LOGIN, REFUSED, SETTINGS, USAGE
from support.dialogue import BEGINS, QUIT, USER
from support.post import ALICE, MAIL, PASSWORD, TOKEN

# "User", "user:" and others, as servers write them
USER_ASKED = ('VXNlcg==', 'VXNlcg', 'dXNlcjo=', 'TG9naW4gdXNlcjo=', 'dXNlcg',
              'RW50ZXIgdXNlcg==', 'VXNlciBOYW1lAA==', 'user?', 'Us VXNlcg==',
              'VQBzAGUAcgA=', 'VXP/ZXI=', 'VXNl\nS: 334 cjo=',
              'SGVsbG8=\nS: 334 VXNlcjo=')
EVIL = ''.join(map(chr, [*range(32), *range(127, 160), 0x61c, 0x200b, 0x200e,
                         0x200f, *range(0x2028, 0x202f),
                         *range(0x2066, 0x206a), 0xfeff]))
AUTH = 'C: AUTH XOAUTH2 ********\n'


def xoauth2(token):
    """Return what has to be in the base64 of a client's response."""
    return f'user={ALICE}\1auth=Bearer {token}\1\1'.encode()


def reason(text):
    """Return the 334 with which a server reports why it refuses a token."""
    return 'S: 334 ' + base64.b64encode(
        text.encode('utf-8', 'surrogatepass')).decode() + '\n'


@pytest.fixture
def bear(play):
    """A function that holds a session from AUTH on, with a token."""
    def bear(told, token=TOKEN):
        result, player = play(
            BEGINS['login'] + told, '-v', password=None,
            env={'SMTP_ACCESS_TOKEN': token})
        assert 'bearer' not in player.clear.lower()
        assert set(player.secrets) <= {token.encode()}
        return result
    return bear


@pytest.mark.parametrize('challenge', USER_ASKED)
def test_the_password_is_no_user_name(challenge, play):
    """However the user name is asked for again, it is what goes out."""
    result, _ = play(BEGINS['login'] + (
        f'C: AUTH LOGIN {USER}\nS: 334{"-" * ("S:" in challenge) or " "}'
        f'{challenge}\nC: {USER}\nS: 334 UGFzc3dvcmQ6\nC: ********\n'
        'S: 535 5.7.8 No\n') + QUIT)
    checks.check(result, LOGIN)


@pytest.mark.parametrize('mechanism', ['login', 'plain'])
@pytest.mark.parametrize('password', [
    'a', '2', '250', ' ', '-', ' OK ', '250 ok', 'AUTH', 'LOGIN', 'PLAIN',
    'STARTTLS', 'SIZE', '********', 'C:', '=', '\u2603', '\\', '%s {0}',
    'x' * 3000], ids=lambda text: ascii(text)[:9])
def test_any_password(password, mechanism, play):
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
def test_which_mechanism(offered, options, said, play):
    """Only one that is offered; LOGIN before PLAIN; never a second one."""
    login = '' if not said else 'C: AUTH PLAIN ********\n' \
        if 'PLAIN' in said else f'C: AUTH LOGIN {USER}\n'
    result, _ = play(
        BEGINS['tls'] + dialogue.ehlo(f'AUTH {offered}') + login
        + 'S: 535 5.7.8 No\n' * bool(said) + QUIT, *options)
    checks.check(result, LOGIN if said else REFUSED,
                 *([] if said else [offered.split()[0]]))


@pytest.mark.parametrize('length', [1, 334, 335, 336, 337, 2000, 8000])
def test_tokens_of_any_length(length, bear):
    """A line of 512 octets holds AUTH and token; else they take two lines."""
    token = (TOKEN * 1000)[:length]
    response = base64.b64encode(xoauth2(token)).decode()
    one_line = len(f'AUTH XOAUTH2 {response}\r\n') <= 512
    assert one_line == (length < 336)   # both sides of the limit are tried
    auth = AUTH if one_line else 'C: AUTH XOAUTH2\nS: 334 \nC: ********\n'
    result = bear(auth + dialogue.SESSION.partition(' ********\n')[2], token)
    checks.check(result, 0, secrets=[token] if length > 8 else [])


@pytest.mark.parametrize('reply, word', [
    ('535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is '
     'disabled for the Mailbox.', 'Authenticated SMTP'),
    ('535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is '
     'disabled for the Tenant.', 'administrator'),
    ('535 5.7.3 Authentication unsuccessful', 'token'),
    ('535 5.7.8 Username and Password not accepted', 'token'),
])
@pytest.mark.parametrize('challenge', [True, False])
def test_the_real_reply_is_explained(reply, word, challenge, bear):
    """After a challenge or without one; never advice about a password."""
    first = reason('{"status":"400"}') + 'C: \n' if challenge else ''
    result = bear(f'{AUTH}{first}S: {reply}\n{QUIT}')
    checks.check(result, LOGIN, reply, word)
    assert 'and password' not in result.advice


@pytest.mark.parametrize('challenge', [*map(reason, (
    'not JSON', '', '[]', '"text"', 'null', '{', '[' * 3000, '1' * 5000,
    'NaN', '{"status":"\\ud800"}', '{"status":"\\u001b[2J\\u202e\\n"}',
    '{"status": {"status": []}, "status": 7}', EVIL,
    f'{{"status":"{EVIL}"}}',
    '{"status":"400"}\nSent to bob@example.org: 250 ok',
    '{\r\n"status":"400"}\r\nsmtp.py: May have been sent: \r\n',
    f'{{"status":"400","token":"{TOKEN}"}}',
    '{"status":"' + base64.b64encode(xoauth2(TOKEN)).decode() + '"}',
    'C: ' + TOKEN + '\n' + TOKEN, '\ud800')),
    # and what is not base64
    *map('S: {}\n'.format, (
        '334 %%%', '334', '334 ', '334 e', '334 =', '334 e30',
        '334 \\xff\\xfe', '334 gICA', '334 e30= e30=', '334 ' + 'A' * 8000,
        '334-e30=\nS: 334 e30=', '334 ' + TOKEN))], ids=lambda line: line[3:])
def test_hostile_reasons(challenge, bear):
    """Whatever is in it: shown harmlessly, and answered by an empty line."""
    result = bear(f'{AUTH}{challenge}C: \nS: 535 5.7.3 No\n{QUIT}')
    checks.check(result, LOGIN, '535 5.7.3', secrets=[TOKEN])


@pytest.mark.parametrize('token', [
    'a b', 'a\r\nb', 'a\nMAIL FROM:<evil@example.net>', 'a\1b',
    'a\1host=evil\1', 'tök', '\x1b[2J'], ids=ascii)
def test_what_is_not_a_token(token, post, call):
    """It never becomes a second line, or a second pair of the response."""
    result = call(*post.options, *MAIL, '-v', env={'SMTP_ACCESS_TOKEN': token})
    assert result.code in (LOGIN, SETTINGS), result.err
    checks.ended_well(result)
    assert token not in result.err
    assert 'host=evil' not in result.err
    assert 'C: MAIL' not in result.err


@pytest.mark.parametrize('options, env, said', [
    ([], {'SMTP_PASSWORD': PASSWORD}, 'LOGIN'),
    ([], {'SMTP_ACCESS_TOKEN': TOKEN}, 'XOAUTH2'),
    ([], {'SMTP_PASSWORD': 'hunter-2', 'SMTP_ACCESS_TOKEN': TOKEN}, 'XOAUTH2'),
    ([], {'SMTP_PASSWORD': PASSWORD, 'SMTP_ACCESS_TOKEN': ''}, 'LOGIN'),
    (['--auth', 'xoauth2'], {'SMTP_ACCESS_TOKEN': TOKEN}, 'XOAUTH2'),
    (['--auth', 'login'], {'SMTP_PASSWORD': PASSWORD,
                           'SMTP_ACCESS_TOKEN': 'hunter-2'}, 'LOGIN'),
    # out of a file, or from Windows, a token may have a line end
    *[([], {'SMTP_ACCESS_TOKEN': TOKEN + end}, 'XOAUTH2')
      for end in ('\n', '\r\n', '\r', ' ')],
    # none, and no one to ask; a token is not sent in its place
    ([], {}, ''), (['--auth', 'login'], {'SMTP_ACCESS_TOKEN': TOKEN}, '')])
def test_which_secret_counts(options, env, said, post, call):
    """The token before the password, unless --auth decides."""
    result = call(*post.options, *MAIL, *options, '-v', env=env)
    if said:
        checks.check(result, 0, secrets=[PASSWORD, TOKEN, 'hunter-2'])
        assert f'C: AUTH {said} ' in result.err
    else:
        checks.check(result, USAGE, '$SMTP_PASSWORD', '--password-command')
        assert 'S: ' not in result.err
