"""practice.py: what it shows, that its verdicts are right, and its server."""

import base64
import contextlib
import pathlib
import re
import smtplib
import ssl
import subprocess
import sys
import types

import practice
import pytest

from support import letters, practice_server, refusals
from support.cli import pexpect

PRACTICE = pathlib.Path(practice.__file__)
ROOT = PRACTICE.parent.parent
TABLE = refusals.named_refusals()


def run(*python):
    """Run practice.py as a newcomer does; return how it ended."""
    return subprocess.run(
        [sys.executable, *python, str(PRACTICE)], timeout=60, cwd=str(ROOT),
        stdin=subprocess.DEVNULL, capture_output=True, encoding='utf-8')


def test_the_demonstration():
    """It is short, shows both sides, and names a command that works."""
    done = run()
    assert (done.returncode, done.stderr) == (0, ''), done.stdout
    assert len(done.stdout.splitlines()) <= 72
    for text in ('S: 220 ', 'C: STARTTLS', 'S: 235 2.7.0 Authentication ',
                 'C: ..like this\n', '\nSent to bob@example.org: 250 ',
                 '\n  To: Bob <bob@example.org>\n', '\n  .like this\n',
                 '\nChecked: everything arrived intact.\n'):
        assert text in done.stdout, text
    follow = re.search('\nNext: .* tests.practice.py (.*)\n$', done.stdout)
    assert practice.parse_arguments(follow.group(1).split()).step


@pytest.mark.parametrize('options, result', [
    ('--explain', 'everything arrived intact.'),
    ('--hard', 'everything arrived intact.'),
    ('--drop-after-dot', 'it arrived, but smtp.py cannot know that.'),
    ('-- --to a@example.org --to b@example.org', 'a message arrived, as'),
    ('-- --auth xoauth2', 'a message arrived, as reported.'),
    ('-- --message tests/messages/finished/mailbox.eml', 'a message arrived'),
    ('-- -n', 'nothing arrived, as reported.'),
    ('-- --check', 'nothing arrived, as reported.'),
    ('-- --no-such-option', 'nothing arrived, as reported.'),
    ('--drop-after-dot -- --check', 'nothing arrived, as reported.'),
    ('--refuse dot-- --check', 'nothing arrived, as reported.'),
    ('--refuse mail=552 --refuse rcpt=451', 'nothing arrived, and exit c'),
    ('--refuse rcpt:zoe@example.org=550', 'everything arrived intact.'),
])
def test_a_run_is_judged(options, result, capsys, monkeypatch):
    """Whatever the options make of it."""
    monkeypatch.chdir(ROOT)
    options = options.replace('dot--', 'dot=554 --').split()
    assert practice.main(options) == 0, capsys.readouterr().out
    assert f'\nChecked: {result}' in capsys.readouterr().out


@pytest.mark.parametrize('refusal', [
    *{one.step: name for name, one in TABLE.items()}.values(),
    'ehlo2=421 4.3.2 Service not active', 'password=535 no code', 'rcpt=550',
    r'data=554-5.5.1 No valid\n554 5.5.1 recipients', 'dot=550 5.7.1 Spam',
    'auth=Who are you?', 'dot=What?'])
def test_a_refusal(refusal, capsys):
    """One of each step by name, and others; exit code and advice count."""
    assert practice.main(['--refuse', refusal]) == 0, capsys.readouterr().out
    session = capsys.readouterr().out
    assert '\nChecked: ' in session and 'intact' not in session
    for line in refusals.parse_refusal(refusal).reply.split('\r\n'):
        assert f'S: {line}' in session


def test_the_refusals_are_listed(capsys):
    """One on a line: name, step, reply."""
    assert practice.main(['--list-refusals']) == 0
    lines = capsys.readouterr().out.partition('\n\n')[0].splitlines()
    assert [line.split()[0] for line in lines] == list(TABLE)
    assert max(map(len, lines)) <= 79


@pytest.mark.parametrize('text', ['no-such-name', 'helo=550 No', 'mail',
                                  '=550 No', 'mail=250 OK', 'data=354 Go on'])
def test_what_is_not_a_refusal(text, capsys):
    """It is an error of usage, before any server starts."""
    with pytest.raises(SystemExit, match='2'):
        practice.main(['--refuse', text])
    assert text.partition('=')[2] in capsys.readouterr().err


def test_without_its_packages():
    """It names the commands to type; -S hides the installed packages."""
    done = run('-S')
    assert (done.returncode, done.stdout) == (69, '')
    assert re.search(r' -m pip install -q -r tests.practice-requirements.txt'
                     r'\n(\S+) tests.practice.py\n$', done.stderr)


@pytest.fixture
def terminal():
    """A function that runs practice.py at a terminal."""
    if not hasattr(pexpect, 'spawn'):
        pytest.skip('no pseudo-terminals here')
    with contextlib.ExitStack() as opened:
        yield lambda *options: opened.enter_context(pexpect.spawn(
            sys.executable, [str(PRACTICE), *options], timeout=20, echo=False,
            encoding='utf-8', cwd=str(ROOT), dimensions=(24, 250)))


def test_serve(terminal):
    """What it prints can be pasted; Ctrl-C ends it, and its certificate."""
    person = terminal('--serve')
    person.expect_exact('--explain --step')
    setting, check, send = re.findall(
        '^(?:export|.* smtp.py) .*', person.before.replace('\r', ''), re.M)[:3]
    done = subprocess.run(
        f'{setting}\n{check}\n{send}', shell=True, timeout=20, cwd=str(ROOT),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, encoding='utf-8')
    assert re.match('Login accepted: alice@example.com.*\n'
                    'Sent to bob@example.org: 250 ', done.stdout)
    person.expect_exact('Subject: Hello')
    person.expect_exact('  It works.')
    person.sendintr()
    person.expect('Stopped. Messages received: 1.\r\n$')
    assert person.wait() == 0
    assert not pathlib.Path(setting.rpartition('CA=')[2]).exists()


@pytest.mark.parametrize('keys, result', [
    ('\r' * 99, 'everything arrived intact.'),
    ('\r\r\3', 'nothing arrived, as reported.'),
    ('q', 'nothing arrived, as reported.')])
def test_step(keys, result, terminal):
    """Enter goes on, q and Ctrl-C end it, and each is judged."""
    person = terminal('--step')
    for key in keys:
        if person.expect_exact(['q: quit) > ', 'Checked: ' + result]):
            break
        person.send(key.replace('q', 'q\r'))
    else:
        person.expect_exact('Checked: ' + result)
    assert person.wait() == 0


def receive(old=b'x' * 99, new=b''):
    """Return a right letter, with one thing changed in it."""
    message = (
        'From: Alice <alice@example.com>\nTo: Bob <bob@example.org>\n'
        'Subject: Dots\nDate: Mon, 23 Nov 2026 12:00:00 +0000\n'
        'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n'
        f'--x\nContent-Type: text/plain\n\n{letters.EASY.text}\n--x--\n')
    return practice_server.Received(
        'alice@example.com', ('bob@example.org',), message.replace(
            '\n', '\r\n').encode().replace(old, new),
        practice_server.USER, ())


GREY = {'messages': [], 'given': TABLE['greylisted']}
DROP, NOTHING = {'drop_after_dot': True}, {'messages': []}


@pytest.mark.parametrize('code, printed, server, complaint', [
    (0, 'Sent to bob@example.org: 250', {}, ''),
    (75, 'Not sent: \nWait: an hour', GREY, ''),
    *((0, 'Sent to', {'messages': [receive(old, new)]}, complaint)
      for old, new, complaint in (
          (b'Bob <', b'<', 'To: '), (b'Alice <', b'Bob <', 'From: '),
          (b'\nTo:', b'\nBcc: carol@example.org\r\nTo:', 'the Bcc field'),
          (b'Dots', b'Re: Dots', 'the subject'),
          (b'\n.like', b'\n..like', 'the text'),
          (b'\n.like', b'\nlike', 'the text'),
          (b'Date:', b'Datum:', 'the number of Date fields'),
          (b'Subject: ', b'Subject: \xfc', 'the header'),
          (b'\r\nMIME-', b'\nMIME-', 'CR or LF alone'),
          (b'--\r\n', b'\r\n', "the parser's objections"))),
    (75, 'Not sent: ', {}, 'the exit code is 75, not 0'),
    (0, 'Done', {}, 'it did not report "Sent to ..."'),
    (0, 'Sent to bob', NOTHING, '0 messages arrived'),
    (0, 'Sent to bob. open-sesame', {}, 'the password was printed'),
    (0, 'Sent to bob. b3Blbi1zZXNhbWU=', {}, 'the password was printed'),
    (0, 'Not sent: \nWait: 1', GREY, 'the exit code is 0, not 75'),
    (75, 'Not sent: \nYou: 1', GREY, 'it did not report "Wait: ..."'),
    (75, 'Sent to bob', GREY, '0 messages arrived'),
    (75, 'May have been sent: ', DROP, 'the exit code is 75, not 74'),
    (74, 'Not sent: ', DROP, 'it did not report "May have been sent: ..."')])
def test_the_judge(code, printed, server, complaint):
    """What was reported, and what happened."""
    server = types.SimpleNamespace(**{
        'messages': [receive()], 'drop_after_dot': False, 'given': None,
        **server})
    faults = practice.judge(server, letters.EASY, code, printed, True)
    assert bool(faults) == bool(complaint)
    assert not faults or any(one.startswith(complaint) for one in faults)


def test_a_client_that_is_wrong(tmp_path, monkeypatch, capsys):
    """It is named, and the exit code is 1."""
    monkeypatch.setattr(practice, 'CLIENT', tmp_path / 'client.py')
    practice.CLIENT.write_text('print("Sent to bob@example.org")')
    assert practice.main([]) == 1
    assert '\nWRONG: 0 messages arrived' in capsys.readouterr().out


@pytest.fixture
def client():
    """The standard library's client, inside TLS at a willing server."""
    with practice_server.PracticeServer() as server, smtplib.SMTP(
            'localhost', server.port, timeout=10) as client:
        client.practice = server
        client.ehlo('[127.0.0.1]')
        client.starttls(context=ssl.create_default_context(
            cafile=server.ca_file))
        client.ehlo('[127.0.0.1]')
        yield client


def bearer(token):
    """Return what XOAUTH2 makes of a token."""
    return base64.b64encode(f'user=alice@example.com\1auth=Bearer {token}\1\1'
                            .encode()).decode()


OFFERED = ('localhost Hello [127.0.0.1]|SIZE 157286400|PIPELINING|'
           'ENHANCEDSTATUSCODES|{}|8BITMIME|SMTPUTF8')
ALICE, SECRET = 'YWxpY2VAZXhhbXBsZS5jb20=', 'b3Blbi1zZXNhbWU='
LOGIN = [f'AUTH LOGIN {ALICE}', '334 UGFzc3dvcmQ6', SECRET, '235 2.7.0 ']


@pytest.mark.parametrize('lines', [
    ['EHLO [127.0.0.1]', '250 ' + OFFERED.format('AUTH LOGIN XOAUTH2')],
    ['auth login', '334 VXNlcm5hbWU6', ALICE, *LOGIN[1:]],
    ['AUTH LOGIN', '334 ', '*', '501 5.', 'AUTH LOGIN', '334 ', '?', '501 5.',
     LOGIN[0], '334 ', 'Z3Vlc3M=', '535 5.7.3 Authentication unsuccessful'],
    ['AUTH PLAIN AGEAYg==', '504 5.7.4 Unrecognized authentication type'],
    ['AUTH XOAUTH2 ' + bearer('practice-token'), '235 2.7.0 '],
    ['AUTH XOAUTH2 ?', '501 5.5.4 ', 'AUTH XOAUTH2', '334 ', '*', '501 5.',
     'AUTH XOAUTH2 ' + bearer('old'), '334 ', '*', '501 5.',
     'AUTH XOAUTH2', '334 ', bearer('old' * 2000), '334 ', '', '535 5.7.3 ',
     'AUTH XOAUTH2', '334 ', bearer('practice-token'), '235 2.7.0 '],
    # What a class may type with --step: never silence, never a traceback.
    ['HELP', '214 2.0.0 Supported commands: AUTH DATA ', 'FOO', '500 5.',
     'NOOP', '250 2.0.0 OK', 'STARTTLS', '503 5.5.1 ', 'DATA', '530 5.7.57 ',
     'MAIL FROM:<alice@example.com>', '530 5.7.57 Client not authenticated',
     *LOGIN, 'VRFY bob@example.org', '252 ', 'DATA', '503 5.',
     'RCPT TO:<bob@example.org>', '503 5.',
     'MAIL FROM:<alice@example.com> SIZE=999999999', '552 5.3.4 ',
     'MAIL FROM:<alice@example.com>', '250 2.1.0 ', 'DATA', '503 5.',
     'RSET', '250 2.0.0 OK', 'QUIT', '221 2.0.0 Service closing'],
], ids=lambda lines: lines[0][:20])
def test_conversations(client, lines):
    """One reply to each line, in Office 365's words."""
    for line, expected in zip(lines[::2], lines[1::2]):
        code, text = client.docmd(line)
        reply = f'{code} {text.decode()}'.replace('\n', '|')
        assert reply.startswith(expected), line


def test_outside_tls_it_offers_no_login(client):
    """STARTTLS has the place of AUTH, and little else is accepted."""
    with smtplib.SMTP('localhost', client.practice.port, timeout=10) as clear:
        offered = clear.docmd('EHLO', '[127.0.0.1]')[1].decode()
        assert offered.replace('\n', '|') == OFFERED.format('STARTTLS')
        for line in 'AUTH LOGIN', 'MAIL FROM:<alice@example.com>', 'HELP':
            assert clear.docmd(line) == (
                530, b'5.7.0 Must issue a STARTTLS command first')


def test_421_reaches_the_client_before_the_connection_ends(client):
    """Even though the client has sent more than was read."""
    client.practice.refuse('mail=421 4.3.2 Bye')
    client.login('alice@example.com', 'open-sesame')
    client.send('MAIL FROM:<alice@example.com>\r\n' + 9999 * 'NOOP\r\n'
                + 'QUIT\r\n')
    assert client.getreply() == (421, b'4.3.2 Bye')
    with pytest.raises(smtplib.SMTPServerDisconnected):
        client.getreply()


def test_it_ends_while_a_client_is_connected(client, capfd):
    """And a certificate that is not trusted is one line, not a traceback."""
    with practice_server.PracticeServer() as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            smtplib.SMTP('localhost', server.port, timeout=10).starttls(
                context=ssl.create_default_context())
        other = smtplib.SMTP('localhost', server.port, timeout=10)
        assert other.noop()[0] == 250
    assert not server.folder.exists()
    with pytest.raises(smtplib.SMTPServerDisconnected):
        other.noop()
    printed = capfd.readouterr().err
    assert printed.startswith('(The server met ') and printed.count('\n') == 1
