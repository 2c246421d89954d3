"""Practice runs: `tests/practice.py` must accept what is right, and only that.

A practice run says whether smtp.py works, so the run itself is tested with
clients that do it wrong: a judge that is always content proves nothing.
"""

import dataclasses
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from email.header import Header
from email.mime.application import MIMEApplication
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.utils import formataddr, formatdate, parseaddr

import practice
import practice_server
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
    *practice_server.REFUSALS,
    'ehlo2=421 4.3.2 Service not active',  # the steps without a name
    'data=451 4.3.0 Try again', 'data=554 5.5.1 No valid recipients',
    'auth=535 no enhanced status', 'rcpt=550', 'message=550 5.7.1 Spam',
    'auth=Who are you?', 'message=What?'])  # not SMTP
def test_smtp_py_fails_as_it_must_when_refused(refusal, capsys):
    """Each refusal, by name or by text; the run checks words and exit code."""
    assert practice.main(['--refuse', refusal]) == 0, capsys.readouterr().out
    printed = capsys.readouterr().out
    step, reply = practice_server.parse_refusal(refusal)
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
    return practice_server.Received(
        practice.SENDER[1], (practice.RECIPIENT[1], practice.HIDDEN),
        content, practice_server.USER, 'TLSv1.3', ())


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


# ------------------------------------------------------------------ --serve


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


# ----------------------------------------------------- refusals and options


def test_a_port_that_is_in_use(running, capsys, monkeypatch):
    """One line, no traceback."""
    monkeypatch.setenv('AIOSMTPD_CONTROLLER_TIMEOUT', '0.5')  # its patience
    assert practice.main(['--serve', '--port', str(running.server.port)]) == 1
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
        assert practice_server.parse_refusal(name) \
            == practice_server.parse_refusal(text)


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
    assert practice_server.expected_exit(step, reply) == code


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
