"""smtp_send from another program: a token, files, HTML, an own transcript.

What it promises there: it sends or raises one documented error; it prints
nothing, asks nothing, keeps nothing, and leaves the program as it was.
"""

import inspect
import io
import logging
import os
import pathlib
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any, Dict, List, Tuple

import practice_server
import pytest
import scripted
from posting import (
    ALICE,
    BOB,
    CAROL,
    HIDDEN,
    PASSWORD,
    PROGRAM,
    TOKEN,
    Post,
    call,
)
from sessions import OPENING, QUIT

import smtp

INFO: Dict[str, Any] = {'From': f'Alice Ünal <{ALICE}>', 'To': [BOB],
                        'Subject': 'Grüße'}
TEXT = 'Grüße,\n\n.\nlunch?\n'
HTML = '<p>Grüße,</p>\n<p>.</p>\n.\n<p><b>lunch</b>?</p>\n'


def text_of(part: Any) -> str:
    """Return the text of a part, with the line ends of Python."""
    return str(part.get_content()).replace('\r\n', '\n')


# ------------------------------------------------------- another program


EXAMPLE = '''
import json, pathlib, sys
import smtp
session = json.loads(sys.argv[1])
before = dict(globals())

shown = open('transcript.txt', 'w', encoding='utf-8')
receipt = smtp.smtp_send(
    pathlib.Path('token').read_text(), {
        'From': 'alice@example.com', 'To': ['bob@example.org'],
        'Bcc': 'hidden@example.net', 'Subject': 'Report'},
    'See the attachment.', html='<p>See the <b>attachment</b>.</p>',
    attachments=['report.pdf'], auth='xoauth2',
    transcript=smtp.Transcript(shown), **session)

shown.close()
pathlib.Path('result.json').write_text(json.dumps([
    receipt.reply.code, receipt.recipients, receipt.message_id]))
'''


def test_program_of_another(post: Post, tmp_path: pathlib.Path) -> None:
    """A token, two texts, a file and a transcript: one call."""
    import json
    (tmp_path / 'report.pdf').write_bytes(bytes(range(256)))
    (tmp_path / 'token').write_text(TOKEN)
    done = subprocess.run(
        [sys.executable, '-c', EXAMPLE, json.dumps(post.session)],
        cwd=tmp_path, capture_output=True, stdin=subprocess.DEVNULL,
        env={**os.environ, 'PYTHONPATH': str(PROGRAM.parent)}, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, b'', b'')
    received = post.only()
    assert received.recipients == (BOB, HIDDEN)
    code, recipients, message_id = json.loads(
        (tmp_path / 'result.json').read_text())
    assert (code, recipients) == (250, [BOB, HIDDEN])
    assert message_id == received.parse()['Message-ID']
    transcript = (tmp_path / 'transcript.txt').read_text(encoding='utf-8')
    for line in ('C: AUTH XOAUTH2 ********', 'C: DATA', 'C: .',
                 'S: 221 2.0.0 Service closing transmission channel'):
        assert f'\n{line}' in transcript
    assert TOKEN not in transcript
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        'report.pdf', 'result.json', 'token', 'transcript.txt']


def test_program_is_left_as_it_was(
        post: Post, capfd: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch) -> None:
    """No output, no signal handler, no variable; sent or not."""
    monkeypatch.setenv('SMTP_PASSWORD', 'hunter-2')
    handlers = [signal.getsignal(number) for number in (
        signal.SIGINT, signal.SIGTERM)]
    before = (os.getcwd(), dict(os.environ), handlers,
              socket.getdefaulttimeout(), threading.active_count())
    info = {**INFO, 'To': [BOB]}
    for refusal in ('', 'mailbox-full'):
        if refusal:
            post.refuse(refusal)
            with pytest.raises(smtp.SMTPException):
                smtp.smtp_send(PASSWORD, info, TEXT, **post.session)
        else:
            smtp.smtp_send(PASSWORD, info, TEXT, **post.session)
        assert before == (
            os.getcwd(), dict(os.environ), [
                signal.getsignal(signal.SIGINT),
                signal.getsignal(signal.SIGTERM)],
            socket.getdefaulttimeout(), threading.active_count())
    assert info == {**INFO, 'To': [BOB]}
    assert capfd.readouterr() == ('', '')


def test_transcript_in_a_log(post: Post, caplog: pytest.LogCaptureFixture
                             ) -> None:
    """Whatever has `write` is a stream for a transcript."""
    class ToLog(io.TextIOBase):
        """A stream that ends up in the log of a program."""

        def write(self, text: str) -> int:
            """Log what is more than a line end."""
            if text.strip():
                logging.getLogger('mail').info('%s', text.strip())
            return len(text)

    with caplog.at_level(logging.INFO, 'mail'):
        smtp.smtp_send(PASSWORD, INFO, TEXT, **post.session,
                       transcript=smtp.Transcript(
                           ToLog()))  # type: ignore[arg-type]
    lines = caplog.messages
    assert any(line.startswith('C: EHLO ') for line in lines)
    assert any(line.startswith('S: 235 ') for line in lines)
    assert not any(PASSWORD in line for line in lines)


def test_one_transcript_for_two_messages(post: Post) -> None:
    """And for two secrets; both stay hidden."""
    shown = io.StringIO()
    transcript = smtp.Transcript(shown)
    for secret, auth in ((PASSWORD, 'login'), (TOKEN, 'xoauth2')):
        smtp.smtp_send(secret, INFO, TEXT, auth=auth, transcript=transcript,
                       **post.session)
    assert shown.getvalue().count('C: AUTH ') == 2
    assert PASSWORD not in shown.getvalue()
    assert TOKEN not in shown.getvalue()


def test_several_threads(post: Post) -> None:
    """Each call has a connection of its own, and nothing in common."""
    receipts: List[Any] = []

    def send(number: int) -> None:
        """Send one message."""
        receipts.append(smtp.smtp_send(
            PASSWORD, {**INFO, 'Subject': str(number)}, TEXT, **post.session))

    threads = [threading.Thread(target=send, args=(number,))
               for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len({receipt.message_id for receipt in receipts}) == 8
    assert sorted(received.parse()['Subject'] for received in post.messages
                  ) == [str(number) for number in range(8)]


# ------------------------------------------------------- what can be caught


ERRORS: List[Tuple[str, Dict[str, Any], type, int]] = [
    ('wrong-password', {}, smtp.SMTPAuthenticationError, 77),
    ('', {'auth': 'xoauth2'}, smtp.SMTPAuthenticationError, 77),
    ('', {'auth': 'plain'}, smtp.SMTPNotSupportedError, 69),
    ('server-down', {}, smtp.SMTPResponseException, 75),
    ('not-your-address', {}, smtp.SMTPResponseException, 77),
    ('relay-denied', {}, smtp.SMTPRecipientsRefused, 77),
    (f'rcpt:{BOB}=550 5.1.1 Nobody', {}, smtp.SMTPRecipientsRefused, 67),
    ('greylisted', {}, smtp.SMTPRecipientsRefused, 75),
    ('mailbox-full', {}, smtp.SMTPResponseException, 69),
    ('', {'attachments': ['/missing']}, smtp.SMTPMessageError, 66),
    ('', {'ca_file': '/missing'}, smtp.SMTPConfigurationError, 66),
    ('', {'ca_file': None}, smtp.SMTPProtocolError, 76),
    ('', {'server': '127.0.0.2'}, smtp.SMTPException, 76),
    ('', {'port': 1}, smtp.SMTPConnectError, 75),
    ('greeting=ready', {}, smtp.SMTPProtocolError, 76),
]


@pytest.mark.parametrize('refusal, extras, kind, code', ERRORS, ids=str)
def test_errors(refusal: str, extras: Dict[str, Any], kind: type, code: int,
                post: Post) -> None:
    """Each has its class, and all are of one class."""
    if refusal:
        post.refuse(refusal)
    if extras.get('server') == '127.0.0.2':
        extras = {**extras, 'server': '127.0.0.1', 'ca_file': None}
    with pytest.raises(kind) as caught:
        smtp.smtp_send(PASSWORD, INFO, TEXT, **{**post.session, **extras})
    assert issubclass(kind, smtp.SMTPException)
    error: Any = caught.value
    assert (error.exit_code, error.may_have_been_sent) == (code, False)
    assert post.messages == []
    assert str(error) and PASSWORD not in str(error)
    step, reply = practice_server.parse_refusal(refusal) \
        if refusal else ('', '')
    if reply[:1] in ('4', '5'):
        assert (error.reply.code, error.reply.text) == (
            int(reply[:3]), reply[4:])
        assert error.command or step == 'greeting'
    if kind is smtp.SMTPRecipientsRefused:
        assert {address: str(refused) for address, refused
                in error.refused.items()} == {BOB: reply}


@pytest.mark.parametrize('info', [
    {}, {'From': ALICE}, {'From': 'alice', 'To': BOB},
    {'From': ALICE, 'To': BOB, 'Subject': 'a\nBcc: evil@example.net'},
    {'From': ALICE, 'To': [BOB, 'x\r\ny@example.org']},
])
def test_message_that_cannot_be(info: Dict[str, Any], post: Post) -> None:
    """Told before there is a connection."""
    with pytest.raises(smtp.SMTPMessageError) as caught:
        smtp.smtp_send(PASSWORD, info, TEXT, **{**post.session, 'port': 1})
    assert caught.value.exit_code == 65


def test_may_have_been_sent(post: Post) -> None:
    """The one error after which one must not simply try again."""
    post.server.drop_after_dot = True
    with pytest.raises(smtp.SMTPDeliveryUnknown) as caught:
        smtp.smtp_send(PASSWORD, INFO, TEXT, **post.session)
    assert caught.value.may_have_been_sent
    assert caught.value.exit_code == 74
    assert post.only().parse()['Message-ID'] in str(caught.value)


def test_no_password(post: Post) -> None:
    """Nobody is asked from within a library."""
    with pytest.raises(smtp.SMTPConfigurationError) as caught:
        smtp.smtp_send('', INFO, TEXT, **post.session)
    assert caught.value.exit_code == 78


def test_unknown_option(post: Post) -> None:
    """A slip of the pen is Python's own error, before anything is sent."""
    with pytest.raises(TypeError):
        smtp.smtp_send(PASSWORD, INFO, TEXT, sever='localhost', **post.session)
    assert post.messages == []


def test_mechanism_that_only_the_server_knows(
        ca_file: str, server_context: ssl.SSLContext) -> None:
    """What the server offers is named; what we do not know is no option."""
    session = OPENING.replace('LOGIN PLAIN XOAUTH2', 'CRAM-MD5') + QUIT
    with scripted.playing(session, server_context) as player:
        with pytest.raises(smtp.SMTPNotSupportedError, match='CRAM-MD5'):
            smtp.deliver(
                smtp.build_message(INFO, TEXT), PASSWORD, server='localhost',
                port=player.port, family=socket.AF_INET, ca_file=ca_file,
                ehlo='client.example.com', timeout=5)
    assert not player.mismatch, player.difference()
    with pytest.raises(smtp.SMTPUsageError, match='auth is one of auto, '):
        smtp.deliver(smtp.build_message(INFO, TEXT), PASSWORD,
                     server='localhost', port=1, auth='cram-md5')


class Eavesdropper(threading.Thread):
    """A server that offers everything in clear, and listens.

    Attributes:
        heard: All that the client has said.
    """

    def __init__(self) -> None:
        """Listen; `start` begins to serve."""
        super().__init__(daemon=True)
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.listener.settimeout(2)
        self.port: int = self.listener.getsockname()[1]
        self.heard = b''

    def run(self) -> None:
        """Serve one connection."""
        try:
            with self.listener:
                connection, _ = self.listener.accept()
        except OSError:
            return
        with connection, connection.makefile('rwb') as wire:
            wire.write(b'220 hello\r\n')
            wire.flush()
            for line in wire:
                self.heard += line
                wire.write(b'250-hello\r\n250 AUTH LOGIN PLAIN XOAUTH2\r\n'
                           if line.startswith(b'EHLO') else
                           b'334 \r\n' if line.startswith(b'AUTH LOGIN') else
                           b'235 ok\r\n')
                wire.flush()


@pytest.mark.parametrize('tls, auth', [
    ('STARTTLS', 'login'), ('tls', 'plain'), ('ssl', 'xoauth2'),
    ('', 'auto'), (None, 'auto'), (True, 'auto'), (False, 'auto'),
    ('implicit ', 'auto'), ('NONE', 'login')])
def test_tls_that_nobody_knows(tls: Any, auth: str) -> None:
    """Whatever was meant by it: no secret goes out in clear."""
    server = Eavesdropper()
    server.start()
    with pytest.raises((smtp.SMTPException, ValueError, TypeError)):
        smtp.smtp_send(PASSWORD, INFO, TEXT, server='127.0.0.1', tls=tls,
                       port=server.port, auth=auth, timeout=1)
    assert b'AUTH' not in server.heard
    assert b'MAIL' not in server.heard


def test_documented(post: Post) -> None:
    """What can be given and what can be raised is in the docstrings."""
    for function in (smtp.smtp_send, smtp.deliver):
        text = inspect.getdoc(function) or ''
        for parameter in inspect.signature(function).parameters:
            assert f'{parameter}: ' in text
    raised = inspect.getdoc(smtp.deliver) or ''
    for _, _, kind, _ in ERRORS:
        assert kind.__name__ in raised or kind is smtp.SMTPException


# --------------------------------------------------------------------- HTML


def assert_alternatives(message: Any) -> None:
    """The text comes first, then the same in HTML, and both are whole."""
    assert not message.defects
    assert message.get_content_type() == 'multipart/alternative'
    parts = list(message.iter_parts())
    assert [part.get_content_type() for part in parts] == [
        'text/plain', 'text/html']
    assert [text_of(part) for part in parts] == [TEXT, HTML]
    assert [part.get_content_charset() for part in parts] == ['utf-8'] * 2
    assert all(not part.defects and part['Content-Disposition'] is None
               for part in parts)


def test_html(post: Post) -> None:
    """A mail in two forms, of which a reader shows the last it can."""
    smtp.smtp_send(PASSWORD, INFO, TEXT, html=HTML, **post.session)
    message = post.only().parse()
    assert_alternatives(message)
    assert text_of(message.get_body()) == HTML
    assert text_of(message.get_body(('plain',))) == TEXT
    assert post.only().content.isascii()


def test_html_and_files(post: Post, tmp_path: pathlib.Path) -> None:
    """The files stand beside the two forms, not among them."""
    path = tmp_path / 'Übersicht.html'
    path.write_bytes(HTML.encode() + bytes(range(256)))
    smtp.smtp_send(PASSWORD, INFO, TEXT, html=HTML,
                   attachments=[str(path), str(path)], **post.session)
    message = post.only().parse()
    assert message.get_content_type() == 'multipart/mixed'
    alternative, *files = message.iter_parts()
    assert_alternatives(alternative)
    for part in files:
        assert part.get_filename() == 'Übersicht.html'
        assert part.get_content_disposition() == 'attachment'
        assert part.get_payload(decode=True) == path.read_bytes()
    assert len(files) == 2


def test_path_objects(post: Post, tmp_path: pathlib.Path) -> None:
    """A pathlib.Path is a path, too, and a tuple is a list."""
    path = tmp_path / 'a.bin'
    path.write_bytes(b'octets')
    session = {**post.session, 'attachments': (path,),
               'ca_file': pathlib.Path(post.session['ca_file'])}
    smtp.smtp_send(PASSWORD, {**INFO, 'To': (BOB, CAROL)}, TEXT, **session)
    attachment, = post.only().parse().iter_attachments()
    assert attachment.get_content() == b'octets'


def test_html_on_the_command_line(post: Post, tmp_path: pathlib.Path) -> None:
    """As text, or out of a file; the text beside it may come from a pipe."""
    path = tmp_path / 'letter.html'
    path.write_bytes(HTML.encode())
    letter = tmp_path / 'letter.txt'
    letter.write_bytes(TEXT.encode())
    mail = ['-f', ALICE, '-t', BOB, '-s', 'Grüße']
    for args, octets in (
            (['--body', TEXT, '--html', HTML], b''),
            (['--body', f'@{letter}', '--html', f'@{path}'], b''),
            (['--body', '-', '--html', f'@{path}'], TEXT.encode())):
        post.accept()
        done = call(*post.options, *mail, *args, input=octets)
        assert (done.code, done.errors) == (0, '')
        assert_alternatives(post.only().parse())


def test_html_without_a_text(post: Post) -> None:
    """A usage error that says why a mail needs both."""
    for octets in (b'', b'text'):
        done = call(*post.options, '-f', ALICE, '-t', BOB, '-s', 'x',
                    '--html', HTML, input=octets)
        assert (done.code, done.output) == (64, b'')
        for word in ('--html', '--body', 'readers', 'spam'):
            assert word in done.errors
        assert post.messages == []


def test_import_is_quick_and_quiet() -> None:
    """A program that imports it is not slowed down, nor changed."""
    code = textwrap.dedent('''
        import signal, socket, sys
        before = signal.getsignal(signal.SIGTERM)
        import smtp
        assert signal.getsignal(signal.SIGTERM) == before
        assert socket.getdefaulttimeout() is None
        for module in ('smtplib', 'email', 'getpass', 'readline', 'tempfile'):
            assert module not in sys.modules, module
    ''')
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True,
        env={**os.environ, 'PYTHONPATH': str(PROGRAM.parent)})
    assert (done.returncode, done.stdout, done.stderr) == (0, b'', b'')
    assert time.monotonic() - begun < 5
