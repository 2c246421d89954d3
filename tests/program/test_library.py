"""The library: it sends or raises, and leaves the program as it was."""

import copy
import datetime
import email.utils
import inspect
import io
import json
import logging
import os
import pickle
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ProcessPoolExecutor

import pytest

import smtp
from support import checks, cli, dialogue
from support.post import ALICE, BOB, CAROL, HIDDEN, MAIL, PASSWORD, TOKEN
from support.refusals import parse_refusal

INFO = {'From': f'Alice Ünal <{ALICE}>', 'To': [BOB], 'Subject': 'Grüße'}
EXAMPLE = '''
import json, sys
import smtp
assert not {'smtplib', 'email', 'getpass', 'tempfile'} & set(sys.modules)
receipt = smtp.smtp_send(
    'practice-token', {
        'From': 'alice@example.com', 'To': ['bob@example.org'],
        'Bcc': 'hidden@example.net', 'Subject': 'Report'},
    'See the attachment.', html='<p>See the <b>attachment</b>.</p>',
    attachments='report.pdf', auth='xoauth2',
    transcript=open('transcript.txt', 'w'), **json.loads(sys.argv[1]))
json.dump([receipt.reply.code, receipt.recipients, receipt.message_id],
          open('result.json', 'w'))
'''


def send(post, **more):
    """Send a mail to the practice server."""
    secret = TOKEN if more.get('auth') == 'xoauth2' else PASSWORD
    return smtp.smtp_send(**{
        'password': secret, 'message_info': INFO, 'message_text': 'Hello\n',
        **post.session, **more})


def test_a_program(post, folder):
    """A token, two texts, a file and a transcript: one call."""
    (folder / 'report.pdf').write_bytes(bytes(range(256)))
    done = subprocess.run(
        [sys.executable, '-W', 'error::UserWarning', '-c', EXAMPLE,
         json.dumps(post.session)], cwd=folder, capture_output=True,
        env=cli.clean({'PYTHONPATH': str(cli.ROOT)}), timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, b'', b'')
    assert json.loads((folder / 'result.json').read_text()) == [
        250, [BOB, HIDDEN], post.only().parse()['Message-ID']]
    transcript = (folder / 'transcript.txt').read_text()
    for line in ('C: AUTH XOAUTH2 ********', 'C: .', 'S: 221 2.0.0 Service'):
        assert f'\n{line}' in transcript
    assert TOKEN not in transcript and len(list(folder.iterdir())) == 3


def test_nothing_global_changes(post, capfd, monkeypatch):
    """No output, handler, variable, filter or thread; sent or not."""
    def state():
        return (os.getcwd(), dict(os.environ), list(warnings.filters),
                [signal.getsignal(each) for each in signal.valid_signals()],
                socket.getdefaulttimeout(), threading.active_count(),
                sys.excepthook, sys.stdout, sys.stderr, sys.stdin,
                list(logging.root.handlers), os.umask(os.umask(0o22)))
    monkeypatch.setenv('SMTP_PASSWORD', 'hunter-2')
    before, info = state(), copy.deepcopy(INFO)
    send(post)
    post.refuse('mailbox-full')
    with pytest.raises(smtp.SMTPException):
        send(post)
    assert state() == before and info == INFO
    assert capfd.readouterr() == ('', '')


def test_all_is_documented():
    """What can be imported, given and raised."""
    names = {}
    exec('from smtp import *; del __builtins__', names)
    errors = {name for name, value in vars(smtp).items() if isinstance(
        value, type) and issubclass(value, smtp.SMTPException)}
    assert set(smtp.__all__) == set(names) == errors | {
        'smtp_send', 'deliver', 'build_message', 'get_formatted_date',
        'print_all_timezones', 'Transcript', 'Receipt', 'Reply'}
    assert all(map(inspect.getdoc, names.values()))
    assert all(name in smtp.deliver.__doc__
               for name in errors - {'SMTPException'})
    for function in smtp.smtp_send, smtp.build_message, smtp.open_session:
        for name in set(inspect.signature(function).parameters) - {'session'}:
            assert f'{name}: ' in function.__doc__


@pytest.mark.parametrize('refusal, extras, kind, code', [
    ('wrong-password', {}, 'SMTPAuthenticationError', 77),
    ('', {'auth': 'xoauth2', 'password': 'x'}, 'SMTPAuthenticationError', 77),
    ('', {'auth': 'plain'}, 'SMTPNotSupportedError', 69),
    ('server-down', {}, 'SMTPResponseException', 75),
    ('not-your-address', {}, 'SMTPResponseException', 77),
    ('relay-denied', {}, 'SMTPRecipientsRefused', 77),
    ('rcpt=550 5.1.1 Nobody', {}, 'SMTPRecipientsRefused', 67),
    ('greylisted', {}, 'SMTPRecipientsRefused', 75),
    ('mailbox-full', {}, 'SMTPResponseException', 69),
    ('greeting=ready', {}, 'SMTPProtocolError', 76),
    ('', {'attachments': ['/missing']}, 'SMTPMessageError', 66),
    ('', {'message_info': {'From': ALICE}, 'port': 1}, 'SMTPMessageError', 65),
    ('', {'ca_file': '/missing'}, 'SMTPUsageError', 66),
    ('', {'ca_file': None}, 'SMTPProtocolError', 76),
    ('', {'port': 1}, 'SMTPConnectError', 75),
    ('', {'port': 65536}, 'SMTPUsageError', 64),
    ('', {'server': 'mail.straße.example'}, 'SMTPUsageError', 64),
    ('', {'password': ''}, 'SMTPUsageError', 78),
    ('', {'auth': 'cram-md5'}, 'SMTPUsageError', 64),
    *(('', {'tls': tls}, 'SMTPUsageError', 64)
      for tls in ('STARTTLS', 'ssl', 'implicit ', 'NONE', True)),
    ('drop', {}, 'SMTPDeliveryUnknown', 74)], ids=str)
def test_errors(refusal, extras, kind, code, post):
    """Each has its class and code, names no option, pickles and copies."""
    post.drop_after_dot = refusal == 'drop'
    post.refuse(*[refusal] * (refusal not in ('', 'drop')))
    with pytest.raises(smtp.SMTPException) as caught:
        send(post, **extras)
    error = caught.value
    assert (type(error).__name__, error.exit_code) == (kind, code)
    assert len(post.messages) == (refusal == 'drop')
    assert not re.search('(?<!xn)--', str(error))
    checks.hidden(checks.all_of(error), PASSWORD, TOKEN)
    if post.refusals and kind != 'SMTPProtocolError':
        assert '\r\n'.join(error.reply.lines) == parse_refusal(refusal).reply
        assert error.reply.lines[-1] in str(error)
    with ProcessPoolExecutor(1) as pool:
        doubles = [copy.copy(error), copy.deepcopy(error), pickle.loads(
            pickle.dumps(error)), pool.submit(copy.copy, error).result()]
    for double in doubles:
        assert type(double) is type(error) and str(double) == str(error)
        assert vars(double) == vars(error)
    if kind == 'SMTPRecipientsRefused':
        assert error.refused == {BOB: error.reply}


def failing(line, error):
    """Return a stream on which an error is raised at a certain line."""
    def write(text):
        if text.startswith(line):
            raise error
    stream = io.StringIO()
    stream.write = write
    return stream


@pytest.mark.parametrize('line, kind, arrived', [
    ('S: 235', KeyboardInterrupt, 0), ('S: 354', KeyboardInterrupt, 0),
    ('C: .', smtp.SMTPDeliveryUnknown, 1), ('S: 221', KeyboardInterrupt, 1)])
def test_an_interrupt(line, kind, arrived, post):
    """It is raised, with the Receipt if the message was sent."""
    with pytest.raises(kind) as caught:
        send(post, transcript=failing(line, KeyboardInterrupt))
    cli.wait_until(lambda: len(post.messages) == arrived, 'the end')
    assert (line == 'S: 221') == any(
        isinstance(each, smtp.Receipt) for each in caught.value.args)


def test_an_interrupt_of_a_doubt(post, call, monkeypatch):
    """While another error is on its way: it may have been sent, too."""
    close, made = socket.socket.close, []

    def interrupted(sock):
        close(sock)
        if isinstance(sock, ssl.SSLSocket) \
                and threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt

    def interrupted_once(error, *arguments, **more):
        made.append(error)
        if len(made) == 1:
            raise KeyboardInterrupt
        smtp.SMTPException.__init__(error, *arguments, **more)
    post.drop_after_dot = True
    with monkeypatch.context() as patch:
        patch.setattr('socket.socket.close', interrupted)
        with pytest.raises(smtp.SMTPDeliveryUnknown):
            send(post)
    monkeypatch.setattr(smtp.SMTPDeliveryUnknown, '__init__', interrupted_once)
    checks.check(call(*MAIL, *post.options, password=PASSWORD), 74)


@pytest.mark.parametrize('name, values', [
    ('password', [None, b'x', 5]), ('user', [b'x', 5]), ('server', [None, 5]),
    ('sever', ['an unknown one']),
    ('port', ['465', 465.0, True, None]), ('auth', [None]), ('ehlo', [b'x']),
    ('message_text', [None, b'x', 5, ['x']]), ('html', [b'x', 5]),
    ('message_info', [None, 'x', [INFO], {**INFO, 5: 'x'}, {**INFO, b'X': ''}
                      ]), ('timeout', ['5', b'5']),
    ('To', [{BOB: 1}, 5, [5], b'x']), ('X-A', [5, [None]]), ('ca_?file', [5]),
    ('attachments', [b'x', 5, [5], [('n', 'text')], [('n', b'x', 1)], {'a': 1},
                     [(5, b'x')], [['n', b'x']], [None], None, True, [b'a'],
                     [('n',)], [('n', None)]]),
    ('transcript', ['path', 5, True])])
def test_a_wrong_type(name, values, post):
    """A TypeError that names the argument, and nothing is sent."""
    for value in values:
        given = {'message_info': {**INFO, name: value}} \
            if name in ('To', 'X-A') else {name.replace('?', ''): value}
        with pytest.raises(TypeError, match=name):
            send(post, **given)
    assert not post.messages


@pytest.mark.parametrize('wrap', [smtp.Transcript, lambda stream: stream])
@pytest.mark.parametrize('encoding, shown', [
    ('cp1252', r'ào m\u1ef9'), ('ascii', r'\xe0o m\u1ef9'),
    ('utf-8', 'ào mỹ'), ('utf-16', 'ào mỹ')])
def test_an_encoding(wrap, encoding, shown, ca_file, server_context):
    """What a transcript's lacks is escaped; the stream is never closed."""
    octets = io.BytesIO()
    stream = io.TextIOWrapper(octets, encoding, newline='\n')
    session = dialogue.SESSION.replace('Welcome', 'Chào mỹ')
    with dialogue.playing(session, server_context) as player:
        smtp.smtp_send(dialogue.PASSWORD, INFO, 'Hello', server='localhost',
                       port=player.port, ca_file=ca_file, timeout=5,
                       transcript=wrap(stream))
    print('S: ok', file=stream, flush=True)
    assert octets.getvalue().decode(encoding).endswith('Bye\nS: ok\n')
    assert f'\nS: 235 2.7.0 Ch{shown}' in octets.getvalue().decode(encoding)


def test_constants(post, monkeypatch):
    """Office 365 is the default; SMTP_DOMAINNAME is the name in EHLO."""
    assert (smtp.SMTP_SERVER, smtp.SMTP_PORT) == ('smtp.office365.com', 587)
    assert smtp.SMTP_DOMAINNAME == ''
    monkeypatch.setattr(smtp, 'SMTP_DOMAINNAME', 'lab.example')
    shown = io.StringIO()
    receipt = send(post, message_info={**INFO, 'Cc': (CAROL,)},
                   transcript=smtp.Transcript(shown))
    assert (receipt.reply.code, receipt.recipients) == (250, [BOB, CAROL])
    assert shown.getvalue().count('\nC: EHLO lab.example\n') == 2


@pytest.mark.parametrize('zone, offset', [
    ('UTC', '[+]0000'), ('Asia/Kathmandu', '[+]0545'),
    ('America/St_Johns', '-0[23]30'), (None, '[+-][0-9]{4}')])
def test_dates(zone, offset):
    """It is now, in that zone, in the words of RFC 5322."""
    date = smtp.get_formatted_date(zone)
    moment = email.utils.parsedate_to_datetime(date)
    now = datetime.datetime.now(datetime.timezone.utc)
    assert datetime.timedelta(0) <= now - moment < datetime.timedelta(0, 5)
    assert re.fullmatch(f'{moment:%a, %d %b %Y %H:%M:%S} {offset}', date)


def test_zones(capsys):
    """Each one that is printed is known, and no others."""
    smtp.print_all_timezones()
    zones = capsys.readouterr().out.split('\n')[:-1]
    assert {'UTC', 'Europe/Zurich'} < set(zones) and len(zones) > 400
    for zone in 'Europe/Nowhere', 'ü', '':
        with pytest.raises(smtp.SMTPUsageError, match='not a time zone'):
            smtp.get_formatted_date(zone)


@pytest.mark.parametrize('error', [BrokenPipeError, ValueError, OSError])
def test_a_transcript_that_fails(error, post):
    """It changes nothing."""
    assert send(post, transcript=failing('', error)).reply.code == 250


def test_another_error_after_the_receipt(post):
    """It keeps its own words; only an interrupt carries the Receipt."""
    with pytest.raises(RuntimeError, match='^full$'):
        send(post, transcript=failing('S: 221', RuntimeError('full')))
    post.only()
