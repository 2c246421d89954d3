"""The practice server: it must accept what is right and object to the rest.

A practice run says whether smtp.py works, so the run itself is tested with
clients that do it wrong: a judge that is always content proves nothing.
"""

import base64
import contextlib
import dataclasses
import os
import pathlib
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from email.header import Header
from email.mime.application import MIMEApplication
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.utils import formataddr, formatdate, parseaddr

import practice
import pytest

PRACTICE = pathlib.Path(practice.__file__)

# A client that is not smtp.py: the standard library does its work, with the
# options that a practice run gives. A test puts a fault into it.
STDLIB_CLIENT = """\
import argparse, os, pathlib, smtplib, ssl, sys
from test_practice import compose
parser = argparse.ArgumentParser()
for name in 'server port ca-file from to bcc subject body attach'.split():
    parser.add_argument('--' + name)
parser.add_argument('-4', action='store_true')
parser.add_argument('--verbose', action='store_true')
given = parser.parse_args()
text = pathlib.Path(given.body[1:]).read_text(encoding='utf-8')
message = compose(text, given.attach, From=getattr(given, 'from'),
                  To=given.to, Subject=given.subject)
recipients = ['bob@example.org', given.bcc]
user, password, code = 'alice@example.com', os.environ['SMTP_PASSWORD'], 0
verdict = 'Sent to everybody'
#FAULT#
with smtplib.SMTP('127.0.0.1', int(given.port)) as server:
    context = ssl.create_default_context(cafile=given.ca_file)
    context.check_hostname = False
    server.starttls(context=context)
    server.login(user, password)
    server.sendmail(user, recipients, message)
print(verdict)
sys.exit(code)
"""


def compose(text, path, **fields):
    """Return a message in octets, by the standard library's older classes.

    Its newer ones lose the blank between two encoded-words, up to Python 3.12.
    """
    message = MIMEMultipart()
    for name, value in {'Date': formatdate(), **fields}.items():
        display, address = parseaddr(value)
        message[name] = (formataddr((display, address)) if '@' in address else
                         value if value.isascii() else Header(value, 'utf-8'))
    message.attach(MIMEText(text, _charset='utf-8'))
    part = MIMEApplication(pathlib.Path(path).read_bytes())
    part.add_header('Content-Disposition', 'attachment',
                    filename=('utf-8', '', os.path.basename(path)))
    message.attach(part)
    return re.sub(b'\r?\n', b'\r\n', message.as_bytes())


def run_with_fault(tmp_path, fault, *options):
    """Do a practice run with the standard library's client and this fault."""
    client = tmp_path / 'client.py'
    client.write_text(
        f'import sys; sys.path.insert(0, {str(PRACTICE.parent)!r})\n'
        + STDLIB_CLIENT.replace('#FAULT#', fault), encoding='utf-8')
    return practice.main(['--client', str(client), *options])


# ------------------------------------------------------------ practice runs


def test_a_run_is_all_right_and_says_so():
    """The command as a newcomer gives it, as a process of its own."""
    done = subprocess.run([sys.executable, str(PRACTICE)], timeout=30,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          encoding='utf-8')
    assert (done.returncode, done.stderr) == (0, ''), done.stdout
    for text in ('smtp.py', '--server localhost', 'S: 220 ', 'C: STARTTLS',
                 'S: 235 2.7.0 Authentication successful', '\nC: ..\n',
                 '\nSent to ', 'Subject: ' + practice.SUBJECT,
                 'To:      Bób Exämple <bob@example.org>', '\n  .\n',
                 f'Attached: {practice.FILE_NAME} (application/octet-stream, '
                 '256 octets)', '\nEverything arrived as it was meant.\n'):
        assert text in done.stdout, text
    folder = re.search(r'--ca-file (\S+)/ca.pem', done.stdout).group(1)
    assert not pathlib.Path(folder).exists()


@pytest.mark.parametrize('refusal', [
    *practice.REFUSALS,
    'ehlo2=421 4.3.2 Service not active',  # the steps without a name
    'data=451 4.3.0 Try again', 'data=554 5.5.1 No valid recipients',
    'auth=535 no enhanced status', 'rcpt=550', 'message=550 5.7.1 Spam',
    'auth=Who are you?', 'message=What?'])  # not SMTP
def test_smtp_py_fails_as_it_must_when_refused(refusal, capsys):
    """Each refusal, by name or by text; the run checks words and exit code."""
    assert practice.main(['--refuse', refusal]) == 0, capsys.readouterr().out
    printed = capsys.readouterr().out
    step, reply = practice.parse_refusal(refusal)
    assert 'Everything arrived' not in printed
    session = printed.partition('=== The session')[2]
    for line in reply.split('\r\n'):
        assert line in session


def test_the_first_of_several_refusals_counts(capsys):
    """MAIL comes before RCPT, in whatever order the options come."""
    assert practice.main(['--refuse', 'greylisted',
                          '--refuse', 'too-large']) == 0
    assert 'said "Not sent", with exit code 65' in capsys.readouterr().out


def test_no_reply_to_the_final_dot(capsys):
    """The message has arrived, but smtp.py cannot know it."""
    assert practice.main(['--drop-after-dot']) == 0
    printed = capsys.readouterr().out
    assert 'May have been sent' in printed
    assert 'Subject: ' + practice.SUBJECT in printed


def test_options_for_smtp_py_are_handed_on(capsys):
    """What stands after -- is not for practice.py."""
    practice.main(['--', '--no-such-option'])
    command, session = capsys.readouterr().out.split('=== The session')
    assert command.rstrip().endswith('--no-such-option')
    assert '--no-such-option' in session  # smtp.py has seen it and objects


def test_the_judge_accepts_a_client_that_is_right(tmp_path, capsys):
    """Not only smtp.py can pass."""
    assert run_with_fault(tmp_path, '') == 0, capsys.readouterr().out


@pytest.mark.parametrize('fault, complaint', [
    ("message = message.replace(b'Subject: =?', b'Subject: Re: =?')",
     'the subject'),
    ("message = b'Bcc: carol@example.org\\r\\n' + message", 'Bcc'),
    ("recipients.pop()", "the envelope's recipients"),
    ("user, password = 'bob', 'guess'", 'the exit code is 1, not 0'),
    ("code = 75", 'the exit code is 75, not 0'),
    ("verdict = 'Done'", 'it did not say "Sent to ..."'),
    ("print('C: ' + password)", 'the password was printed'),
    ("print('C: b3Blbi1zZXNhbWU=')", 'the password was printed'),
    ("sys.exit(print(verdict))", '0 messages arrived, not 1'),
])
def test_the_judge_objects_to_a_client_that_is_wrong(fault, complaint,
                                                     tmp_path, capsys):
    """Exit code 1, and the reason in words."""
    assert run_with_fault(tmp_path, fault) == 1
    printed = capsys.readouterr().out
    assert f'\nWRONG: {complaint}' in printed
    assert 'as it was meant' not in printed


@pytest.mark.parametrize('words, code, options, complaint', [
    ('Not sent', 0, ['--refuse', 'greylisted'], 'the exit code is 0, not 75'),
    ('Not sent', 69, ['--refuse', 'wrong-password'],
     'the exit code is 69, not 77'),
    ('Sent to nobody', 75, ['--refuse', 'greylisted'],
     'it did not say "Not sent ..."'),
    ('Not sent', 74, ['--drop-after-dot'],
     'it did not say "May have been sent ..."'),
    ('May have been sent', 75, ['--drop-after-dot'],
     'the exit code is 75, not 74'),
])
def test_the_judge_objects_to_the_wrong_way_to_fail(
        words, code, options, complaint, tmp_path, capsys):
    """Failing is not enough: the words and the exit code must be right."""
    fault = (f'def fail(*_): print({words!r}, flush=True); os._exit({code})\n'
             'sys.excepthook = fail')
    assert run_with_fault(tmp_path, fault, *options) == 1
    assert f'\nWRONG: {complaint}' in capsys.readouterr().out


def sample(text=practice.TEXT, **fields):
    """Return the sample as it must arrive, but for what is given."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, practice.FILE_NAME)
        pathlib.Path(path).write_bytes(practice.OCTETS)
        content = compose(text, path, **{
            'From': '{} <{}>'.format(*practice.SENDER),
            'To': '{} <{}>'.format(*practice.RECIPIENT),
            'Subject': practice.SUBJECT, **fields})
    return practice.Received(
        practice.SENDER[1], (practice.RECIPIENT[1], practice.HIDDEN),
        content, practice.USER, 'TLSv1.3', ())


def test_nothing_is_wrong_with_a_message_that_is_right():
    """The standard library's own message passes its own parser."""
    assert practice.wrong(sample()) == []


def octets(old, new):
    """Return a sample of which some octets were changed on the way."""
    good = sample()
    assert old in good.content
    return dataclasses.replace(good, content=good.content.replace(old, new))


@pytest.mark.parametrize('received, complaint', [
    (sample(Subject='Gruesse'), 'the subject'),
    (sample(To='Bob <bob@example.org>'), 'To'),
    (sample(From='alice@example.com'), 'From'),
    (sample(Bcc='carol@example.org'), 'Bcc'),
    (sample(practice.TEXT.replace('\n.\n', '\n..\n')), 'the text'),
    (sample(practice.TEXT.partition('\n.\n')[0]), 'the text'),
    (sample(practice.TEXT.replace('\n..', '\n.')), 'the text'),
    (octets(b'AAECAwQF', b'AAECAwQG'), 'the attachments'),
    (octets(b'attachment', b'inline'), 'the attachments'),
    (octets(b'Date:', b'Datum:'), 'the number of Date fields'),
    (octets(b'MIME-Version', b'X-\xfc: \xfc\r\nMIME-Version'),
     'a header of ASCII only'),
    (octets(b'\r\nMIME-', b'\nMIME-'), 'CR or LF alone'),
    (octets(b'--\r\n', b'\r\n'), "the parser's objections"),
    (dataclasses.replace(sample(), user='bob'), 'the user'),
    (dataclasses.replace(sample(), sender='bob'), "the envelope's sender"),
])
def test_each_fault_of_a_message_is_found(received, complaint):
    """One thing changed, and that thing is named."""
    assert any(fault.startswith(complaint)
               for fault in practice.wrong(received))


# ---------------------------------------------------------------- --serve


def test_serve_shows_what_arrives_until_ctrl_c():
    """On a terminal: the printed command works; Ctrl-C ends it cleanly."""
    pexpect = pytest.importorskip('pexpect')
    if not hasattr(pexpect, 'spawn'):
        pytest.skip('no pseudo-terminals here')
    terminal = pexpect.spawn(
        sys.executable, [str(PRACTICE), '--serve'], timeout=20, echo=False,
        encoding='utf-8', cwd=str(PRACTICE.parent), dimensions=(24, 250))
    try:
        terminal.expect_exact('Ctrl-C ends it.')
        printed = terminal.before.replace('\r\n', '\n')
        command = re.search(r'^SMTP_PASSWORD=.*?[^\\]$', printed,
                            re.MULTILINE | re.DOTALL).group()
        for _ in range(2):
            done = subprocess.run(
                command, shell=True, timeout=20, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                cwd=str(PRACTICE.parent))
            assert done.returncode == 0, done.stdout.decode()
            terminal.expect_exact('Subject: Hello')
            terminal.expect_exact('  It works.')
        terminal.sendintr()
        terminal.expect(pexpect.EOF)
        assert terminal.before.replace('\r\n', '\n').endswith(
            'Stopped. Messages received: 2.\n')
        terminal.wait()
        assert terminal.exitstatus == 0
    finally:
        terminal.close(force=True)
    folder = re.search(r'--ca-file (\S+)/ca.pem', command).group(1)
    assert not pathlib.Path(folder).exists()


def test_ctrl_c_ends_a_practice_run():
    """Without a traceback, and no process or folder stays behind."""
    pexpect = pytest.importorskip('pexpect')
    if not hasattr(pexpect, 'spawn'):
        pytest.skip('no pseudo-terminals here')
    terminal = pexpect.spawn(
        sys.executable, [str(PRACTICE), '--slow', '60'], timeout=20,
        encoding='utf-8', dimensions=(24, 250))
    try:
        terminal.expect(r'--ca-file (\S+)/ca.pem')
        folder = pathlib.Path(terminal.match.group(1))
        terminal.expect_exact('=== The session')
        terminal.sendintr()
        terminal.expect(pexpect.EOF)
        assert 'practice.py' not in terminal.before
        terminal.wait()
        assert terminal.exitstatus == 130
    finally:
        terminal.close(force=True)
    assert not folder.exists()


def test_serve_survives_a_message_that_no_parser_likes(capsys):
    """What arrives in a class is not always mail."""
    good = sample()
    for content in (b'', b'\r\n', b'\xff\xfe', b'From: \r\n\tx\r\nno field',
                    b'Content-Type: text/plain; charset=no-such\r\n\r\n\xe9',
                    b'Content-Type: multipart/mixed\r\n\r\nx',
                    b'Subject: \x1b[2J\r\n\r\n\x1b[2J\x9b2J\xe2\x80\xae',
                    b'From: =?x?b?=\r\nTo: <\r\nDate: x\r\n\r\nx'):
        practice.show(dataclasses.replace(good, content=content))
    printed = capsys.readouterr().out
    assert '\x1b' not in printed and '\x9b' not in printed
    assert '\u202e' not in printed


# -------------------------------------------------------------- the server


class Client:
    """A client without opinions: it sends lines and reads replies."""

    def __init__(self, server, tls=True, login=True):
        """Connect, and go as far as is asked for."""
        self.socket = socket.create_connection(('127.0.0.1', server.port), 10)
        self.file = self.socket.makefile('rb')
        self.read()
        if tls:
            self.start_tls(server.ca_file)
        if login:
            user = base64.b64encode(practice.USER.encode()).decode()
            assert self.say(f'AUTH LOGIN {user}') == ['334 UGFzc3dvcmQ6']
            assert self.say('b3Blbi1zZXNhbWU=')[0].startswith('235 2.7.0 ')

    def start_tls(self, ca_file):
        """Begin TLS and say EHLO on both sides of it."""
        self.say('EHLO [127.0.0.1]')
        assert self.say('STARTTLS') == ['220 2.0.0 SMTP server ready']
        context = ssl.create_default_context(cafile=ca_file)
        self.socket = context.wrap_socket(self.socket,
                                          server_hostname='localhost')
        self.file = self.socket.makefile('rb')
        self.say('EHLO [127.0.0.1]')

    def read(self):
        """Return the lines of one reply; [''] at the end."""
        lines = []
        while not lines or lines[-1][3:4] == '-':
            lines.append(self.file.readline().decode().rstrip('\r\n'))
        return lines

    def say(self, *lines):
        """Send lines in one write and return the reply to the first."""
        self.socket.sendall(''.join(f'{line}\r\n' for line in lines).encode())
        return self.read()

    def __enter__(self):
        """Return the client itself."""
        return self

    def __exit__(self, *exception):
        """Hang up."""
        self.file.close()
        self.socket.close()


@pytest.fixture(scope='module')
def server():
    """A server that refuses nothing."""
    with practice.PracticeServer() as server:
        yield server


def test_the_offers_on_both_sides_of_tls(server):
    """As Office 365's, in its order, without what aiosmtpd cannot do."""
    with Client(server, tls=False, login=False) as client:
        assert client.say('EHLO [127.0.0.1]') == [
            '250-localhost Hello [127.0.0.1]', '250-SIZE 157286400',
            '250-PIPELINING', '250-ENHANCEDSTATUSCODES', '250-STARTTLS',
            '250-8BITMIME', '250 SMTPUTF8']
        for line in 'AUTH LOGIN', 'MAIL FROM:<alice@example.com>':
            assert client.say(line) == [
                '530 5.7.0 Must issue a STARTTLS command first']
        client.start_tls(server.ca_file)
        assert client.say('EHLO [127.0.0.1]') == [
            '250-localhost Hello [127.0.0.1]', '250-SIZE 157286400',
            '250-PIPELINING', '250-ENHANCEDSTATUSCODES',
            '250-AUTH LOGIN XOAUTH2', '250-8BITMIME', '250 SMTPUTF8']
        assert client.say('MAIL FROM:<alice@example.com>') == [
            '530 5.7.57 Client not authenticated to send mail.']


def test_groups_of_commands_in_one_write(server):
    """It offers PIPELINING, so aiosmtpd had better mean it."""
    with Client(server) as client:
        replies = [client.say(
            'MAIL FROM:<alice@example.com> SIZE=20 BODY=8BITMIME SMTPUTF8',
            *(f'RCPT TO:<u{i}@example.org>' for i in range(98)), 'DATA')]
        replies += [client.read() for _ in range(99)]
        assert replies == [['250 2.1.0 Sender OK'],
                           *[['250 2.1.5 Recipient OK']] * 98,
                           ['354 Start mail input; end with <CRLF>.<CRLF>']]
        reply = client.say('Subject: x', '', '..', '...x', '.', 'QUIT')
        assert re.fullmatch(r'250 2\.0\.0 OK <.+> queued', reply[0])
        assert client.read() == [
            '221 2.0.0 Service closing transmission channel']
        assert client.read() == ['']
    received = server.messages[-1]
    assert received.content == b'Subject: x\r\n\r\n.\r\n..x\r\n'
    assert received.recipients[-1] == 'u97@example.org'
    assert received.mail_options == ('SIZE=20', 'BODY=8BITMIME', 'SMTPUTF8')


def b64(text):
    """Return the base64 of a text."""
    return base64.b64encode(text.encode()).decode()


def bearer(token):
    """Return what XOAUTH2 makes of a token."""
    return b64(f'user={practice.USER}\1auth=Bearer {token}\1\1')


REASON = base64.b64encode(
    b'{"status": "400", "schemes": "Bearer", '
    b'"scope": "https://outlook.office.com/"}').decode()


@pytest.mark.parametrize('lines, replies', [
    (['AUTH LOGIN ' + b64(practice.USER), b64(practice.PASSWORD)],
     ['334 UGFzc3dvcmQ6', '235 2.7.0 ']),
    (['auth login', b64(practice.USER), b64(practice.PASSWORD)],
     ['334 VXNlcm5hbWU6', '334 UGFzc3dvcmQ6', '235 2.7.0 ']),
    (['AUTH LOGIN', b64(practice.USER), b64('guess')],
     ['334 ', '334 ', '535 5.7.3 Authentication unsuccessful']),
    (['AUTH LOGIN', b64('bob@example.com'), b64(practice.PASSWORD)],
     ['334 ', '334 ', '535 5.7.3 ']),
    (['AUTH LOGIN', '*'], ['334 ', '501 5.']),
    (['AUTH LOGIN', '?'], ['334 ', '501 5.']),
    (['AUTH PLAIN AGEAYg=='], ['504 5.7.4 Unrecognized authentication type']),
    (['AUTH XOAUTH2 ' + bearer(practice.TOKEN)], ['235 2.7.0 ']),
    (['AUTH XOAUTH2', bearer(practice.TOKEN)], ['334 ', '235 2.7.0 ']),
    (['AUTH XOAUTH2 ' + bearer('old'), ''], ['334 ' + REASON, '535 5.7.3 ']),
    (['AUTH XOAUTH2', bearer('old' * 2000), ''],
     ['334 ', '334 ' + REASON, '535 5.7.3 ']),
    (['AUTH XOAUTH2 ' + bearer('old' * 2000)], ['500 5.5.0 Command line too']),
    (['AUTH XOAUTH2 ' + bearer('old'), '*'], ['334 ', '501 5.']),
    (['AUTH XOAUTH2 ' + b64('old'), ''], ['334 ' + REASON, '535 5.7.3 ']),
    (['AUTH XOAUTH2 ?'], ['501 5.5.4 Invalid arguments']),
    (['AUTH XOAUTH2', '*'], ['334 ', '501 5.']),
], ids=lambda lines: lines[0][:30])
def test_logins(server, lines, replies):
    """Both mechanisms, with and without an initial response."""
    with Client(server, login=False) as client:
        got = [client.say(line)[0] for line in lines]
        assert all(map(str.startswith, got, replies)), got
        # One reply to each line, no more; and only 235 lets anybody in.
        expected = '250' if replies[-1].startswith('235') else '530 5.7.57'
        assert client.say('MAIL FROM:<alice@example.com>')[0].startswith(
            expected)


def test_every_refusal_of_its_own_has_an_enhanced_status_code(server):
    """It offers ENHANCEDSTATUSCODES, and aiosmtpd has not always one."""
    with Client(server) as client:
        for line in ('RCPT TO:<bob@example.org>', 'DATA', 'FOO', 'MAIL',
                     'MAIL FROM:<alice@example.com> SIZE=999999999', 'NOOP',
                     'MAIL FROM:<alice@example.com>', 'DATA', 'RSET',
                     'MAIL FROM:<alice@example.com> FOO=1', 'MAIL FROM:a b'):
            [reply] = client.say(line)
            assert re.match(r'(?P<class>[245])\d\d (?P=class)\.\d\.\d+ ',
                            reply), (line, reply)


def test_a_line_over_the_limit_is_refused(server):
    """998 octets and CRLF, RFC 5321 section 4.5.3.1.6."""
    before = len(server.messages)
    for length, code in ((998, '250'), (999, '500')):
        with Client(server) as client:
            client.say('MAIL FROM:<alice@example.com>')
            client.say('RCPT TO:<bob@example.org>')
            client.say('DATA')
            assert client.say('x' * length, '.')[0].startswith(code)
    assert len(server.messages) == before + 1


@pytest.mark.parametrize('step', ['mail', 'message'])
def test_421_reaches_the_client_before_the_connection_ends(step):
    """Even though the client has sent more than was read."""
    with practice.PracticeServer([f'{step}=421 4.3.2 Bye']) as server:
        with Client(server) as client:
            crowd = ['RCPT TO:<bob@example.org>'] * 99
            if step == 'mail':
                reply = client.say('MAIL FROM:<alice@example.com>',
                                   *crowd * 100, 'QUIT')
            else:
                client.say('MAIL FROM:<alice@example.com>', *crowd, 'DATA')
                assert [client.read() for _ in range(100)][-1][0][:3] == '354'
                reply = client.say('.', 'QUIT')
            assert reply == ['421 4.3.2 Bye']
            assert client.read() == ['']


def test_slow_delays_each_reply():
    """Five replies, the greeting included, are five times as slow."""
    with practice.PracticeServer(slow=0.05) as server:
        begin = time.monotonic()
        with Client(server, tls=False, login=False) as client:
            for _ in range(4):
                client.say('NOOP')
        assert time.monotonic() - begin >= 0.25


@pytest.mark.skipif(sys.version_info < (3, 10),
                    reason='asyncio says nothing of it before 3.10')
def test_a_client_that_mistrusts_the_certificate_is_one_line(server, capfd):
    """A beginner who forgets --ca-file sees no traceback here."""
    with Client(server, tls=False, login=False) as client:
        client.say('EHLO [127.0.0.1]')
        client.say('STARTTLS')
        with pytest.raises(ssl.SSLCertVerificationError):
            ssl.create_default_context().wrap_socket(
                client.socket, server_hostname='localhost')
    deadline = time.monotonic() + 10
    printed = ''
    while 'handshake' not in printed and time.monotonic() < deadline:
        printed += capfd.readouterr().err
        time.sleep(0.01)
    assert printed.startswith('(The TLS handshake failed.) ')
    assert printed.count('\n') == 1


def test_it_ends_while_a_client_is_connected():
    """Ctrl-C need not wait for anybody."""
    with contextlib.ExitStack() as stack:
        begin = time.monotonic()
        with practice.PracticeServer() as server:
            stack.enter_context(Client(server, login=False))
            stack.enter_context(Client(server, tls=False, login=False))
        assert time.monotonic() - begin < 5
        assert not server.folder.exists()


# ----------------------------------------------------- refusals and options


def test_a_port_that_is_in_use(server, capsys, monkeypatch):
    """One line, no traceback."""
    monkeypatch.setenv('AIOSMTPD_CONTROLLER_TIMEOUT', '0.5')  # how long it tries
    assert practice.main(['--serve', '--port', str(server.port)]) == 1
    assert capsys.readouterr().err.startswith('practice.py: ')


@pytest.mark.parametrize('text', [
    'no-such-name', 'helo=550 No', 'mail', '=550 No', 'mail=250 OK',
    'data=354 Go on'])
def test_what_is_not_a_refusal(text, capsys):
    """It is an error of usage, before any server starts."""
    with pytest.raises(SystemExit) as stop:
        practice.main(['--refuse', text])
    assert stop.value.code == 2
    assert text.partition('=')[2] in capsys.readouterr().err


def test_the_refusals_are_listed(capsys):
    """One on a line: its name, and what --refuse would take instead."""
    assert practice.main(['--list-refusals']) == 0
    for line in capsys.readouterr().out.splitlines():
        name, text = line.split(None, 1)
        assert practice.parse_refusal(name) == practice.parse_refusal(text)


@pytest.mark.parametrize('step, reply, code', [
    ('greeting', '421 4.3.2 Later', 75), ('greeting', '554 No', 69),
    ('auth', '535 5.7.3 No', 77), ('auth', '534-5.7.9 No\r\n534 x', 77),
    ('auth', '454 4.7.0 Later', 75), ('mail', '550 5.7.60 No', 77),
    ('mail', '552 5.3.4 Too much', 65), ('mail', '550 5.1.0 No', 69),
    ('rcpt', '550 5.7.54 No', 77), ('rcpt:bob@example.org', '552 No', 67),
    ('rcpt', '451 4.7.1 Later', 75), ('message', '554 5.2.252 No', 69),
    ('message', 'Huh?', 74), ('mail', 'Huh?', 76), ('mail', '999 x', 76),
])
def test_the_exit_code_that_a_refusal_calls_for(step, reply, code):
    """The table that smtp.py's exit codes are documented with."""
    assert practice.expected_exit(step, reply) == code


def test_the_command_in_both_notations():
    """Words with blanks and quotes survive either shell."""
    lines = [['python', 'smtp.py'], ['--subject', "Bob's naïve café"],
             ['--body', '@C:\\x y.txt', '-a', 'a.txt']]
    assert practice.in_posix_shell(lines) == (
        "SMTP_PASSWORD=open-sesame python smtp.py \\\n"
        "    --subject 'Bob'\"'\"'s naïve café' \\\n"
        "    --body '@C:\\x y.txt' -a a.txt")
    assert practice.in_powershell(lines) == (
        "$env:SMTP_PASSWORD = 'open-sesame'\n& python smtp.py `\n"
        "    --subject 'Bob''s naïve café' `\n"
        "    --body '@C:\\x y.txt' -a a.txt")


@pytest.mark.skipif(os.name == 'nt', reason='a POSIX shell is needed')
def test_the_posix_notation_is_what_a_shell_reads():
    """The shell itself is the judge."""
    words = ['a b', "it's", '$HOME', '"', '\\', '*', 'é', '-4']
    shown = practice.in_posix_shell(
        [[sys.executable, '-c', 'import sys; print(ascii(sys.argv[1:]))'],
         words])
    assert subprocess.run(shown, shell=True, check=True, timeout=20,
                          stdout=subprocess.PIPE).stdout.decode() == (
        ascii(words) + '\n')
