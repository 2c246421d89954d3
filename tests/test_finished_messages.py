"""--message: messages that other programs have finished, sent as they are.

messages/*.eml are of the shapes that mail programs write, with everything that
the RFCs allow and some things that they do not. Each arrives octet for octet,
but for its line ends and its blind copies, at the people whom it names.
"""

import email
import email.policy
import os
import pathlib
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
import zlib
from typing import Any, Callable, Dict, List, Sequence, Tuple

import practice_server
import pytest
from posting import (
    ALICE,
    BOB,
    CAROL,
    HIDDEN,
    PASSWORD,
    PROGRAM,
    Post,
    call,
)

MESSAGES = pathlib.Path(__file__).parent / 'messages'
DESK = 'desk@example.org'
MEBI = 1024 * 1024

# The envelope that each sample asks for: MAIL, RCPT, parameters of MAIL.
ENVELOPES: Dict[str, Tuple[str, List[str], List[str]]] = {
    'bare': (ALICE, [BOB], []),
    'blind_copies': (ALICE, [BOB, HIDDEN, 'front@example.net',
                             'list@example.net', 'team@example.net'], []),
    'dots': (ALICE, [BOB], []),
    'empty_body': (ALICE, [BOB], []),
    'forwarded': (ALICE, [BOB], ['BODY=8BITMIME']),
    'groups': (ALICE, [BOB, CAROL, DESK], []),
    'header_only': (ALICE, [BOB], []),
    'latin_1': (ALICE, [BOB], ['BODY=8BITMIME']),
    'line_ends': (ALICE, [BOB], []),
    'lower_case': (ALICE, [BOB, CAROL, HIDDEN], []),
    'mailbox': (ALICE, [BOB], []),
    'names': (ALICE, [BOB, CAROL, DESK, '"front desk"@example.org',
                      'list@[192.0.2.7]'], []),
    'no_line_end': (ALICE, [BOB], []),
    'outlook': (ALICE, [BOB, CAROL, DESK, HIDDEN, 'front@example.net'], []),
    'resent': (ALICE, [BOB, CAROL, HIDDEN], []),
    'resent_twice': (ALICE, [BOB], []),
    'spaces': (ALICE, [BOB, CAROL, HIDDEN], []),
    'thunderbird': (ALICE, [BOB, CAROL, HIDDEN], ['BODY=8BITMIME']),
    'two_authors': (DESK, [BOB, CAROL], []),
    'utf8_header': (ALICE, [BOB], ['BODY=8BITMIME', 'SMTPUTF8']),
}
BLIND = re.compile(rb'(?i)(resent-)?bcc[ \t]*:')
HEADER = (b'From: alice@example.com\r\nTo: bob@example.org\r\n'
          b'Date: Mon, 23 Nov 2026 12:00:00 +0100\r\n'
          b'Message-ID: <1@example.com>\r\n')


@pytest.fixture
def finished(tmp_path: pathlib.Path) -> Callable[[bytes], str]:
    """A function that makes a file of a message."""
    def write(octets: bytes) -> str:
        path = tmp_path / 'finished.eml'
        path.write_bytes(octets)
        return str(path)
    return write


def meant(octets: bytes) -> bytes:
    """Return what has to arrive of a message that has Date and Message-ID.

    Unlike smtp.py, this looks at the whole of it at once.
    """
    lines = octets.splitlines()     # of bytes: at CR, LF and CRLF, no more
    if re.match(b'From [^:]', lines[0]):    # as in a mailbox
        del lines[0]
    end = lines.index(b'') if b'' in lines else len(lines)
    header: List[bytes] = []
    hidden = False
    for line in lines[:end]:
        if not line.startswith((b' ', b'\t')):
            hidden = bool(BLIND.match(line))
        if not hidden:
            header.append(line)
    return b'\r\n'.join([*header, *(lines[end:] or [b'']), b''])


def assert_sent(done: Any) -> None:
    """smtp.py says that it was sent, and has nothing but notes to add."""
    errors = re.sub('(?m)^smtp.py: note: .*\n', '', done.errors)
    assert (done.code, errors) == (0, '')
    assert done.output.startswith(b'Sent to ')


def assert_not_sent(done: Any, post: Post, code: int) -> None:
    """smtp.py says in good order that nothing was sent, which is true."""
    assert done.code == code, done.errors
    assert done.errors.startswith('smtp.py: Not sent: ')
    assert done.output == b''
    assert post.messages == []


# ------------------------------------------------------------- the samples


def test_each_sample_has_an_envelope() -> None:
    """No file lies there without being sent."""
    assert sorted(ENVELOPES) == sorted(
        path.stem for path in MESSAGES.glob('*.eml'))


@pytest.mark.parametrize('piped', [False, True], ids=['file', 'pipe'])
@pytest.mark.parametrize('name', sorted(ENVELOPES))
def test_sample(name: str, piped: bool, post: Post) -> None:
    """It arrives octet for octet, at the people whom it names."""
    path = MESSAGES / f'{name}.eml'
    done = call(*post.options, '--user', ALICE,
                '--message', '-' if piped else str(path),
                input=path.read_bytes() if piped else b'')
    assert_sent(done)
    received = post.only()
    sender, recipients, options = ENVELOPES[name]
    assert received.sender == sender
    assert list(received.recipients) == recipients
    assert [option for option in received.mail_options
            if not option.startswith('SIZE=')] == options
    assert f'SIZE={len(received.content)}' in received.mail_options
    content = received.content
    if name == 'bare':
        content = without_added_fields(content)
    wanted = meant(path.read_bytes())
    if name == 'header_only':
        content = content.rstrip(b'\r\n') + b'\r\n\r\n'
    assert content == wanted
    assert HIDDEN.encode() not in content


def without_added_fields(content: bytes) -> bytes:
    """Take away the Date and the Message-ID that smtp.py has added."""
    for field in (rb'Date: \w{3}, \d\d \w{3} \d{4} [\d:]{8} [+-]\d{4}\r\n',
                  rb'Message-ID: <[^<>@\s]+@example\.com>\r\n'):
        header, empty_line, body = content.partition(b'\r\n\r\n')
        header, count = re.subn(b'(?m)^' + field, b'', header + b'\r\n')
        assert count == 1
        content = header[:-2] + empty_line + body
    return content


@pytest.mark.parametrize('name', sorted(ENVELOPES))
def test_dry_run(name: str, post: Post) -> None:
    """It prints what would be sent, and does not connect."""
    path = MESSAGES / f'{name}.eml'
    done = call(*post.options, '--dry-run', '--message', str(path), env={})
    assert (done.code, done.errors) == (0, '')
    assert done.output.startswith(meant(path.read_bytes())[:20])
    call(*post.options, '--user', ALICE, '--message', str(path))
    if name != 'bare':
        assert done.output == post.only().content


@pytest.mark.parametrize('name', sorted(ENVELOPES))
def test_transcript_of_any_message(name: str, post: Post) -> None:
    """-v shows it, whatever octets it has, and nothing a terminal obeys."""
    done = call(*post.options, '--user', ALICE, '-v', '--message',
                str(MESSAGES / f'{name}.eml'))
    assert done.code == 0
    assert 'C: MAIL FROM:' in done.errors
    for line in done.errors.split('\n'):
        assert line.isprintable(), line
    post.only()


def test_standard_parser_agrees(post: Post) -> None:
    """What a mail reader makes of Thunderbird's and Outlook's."""
    for name, subject, text in (
            ('thunderbird', 'Grüße aus dem Labor: eine lange Betreffzeile in '
             'zwei Wörtern', 'das sind Umlaute (äöü)'),
            ('outlook', 'RE: Lunch', 'Grüße,')):
        post.accept()
        call(*post.options, '--message', str(MESSAGES / f'{name}.eml'))
        message = post.only().parse()
        assert message['Subject'] == subject
        assert text in message.get_body(('plain',)).get_content()
        assert message['Bcc'] is None


# -------------------------------------------------------------- the envelope


@pytest.mark.parametrize('options, sender, recipients', [
    (['--to', CAROL], ALICE, [CAROL]),
    ([CAROL], ALICE, [CAROL]),
    ([CAROL, DESK, '--cc', HIDDEN], ALICE, [CAROL, DESK, HIDDEN]),
    (['--bcc', f'Carol <{CAROL}>, {DESK}'], ALICE, [CAROL, DESK]),
    (['--from', DESK], DESK, [BOB, CAROL, HIDDEN]),
    (['-i', '-f', f'Desk <{DESK}>', '--', CAROL], DESK, [CAROL]),
    ([CAROL, f'<{CAROL}>', 'carol@EXAMPLE.org'], ALICE, [CAROL]),
])
def test_envelope_of_the_command_line(
        options: List[str], sender: str, recipients: List[str],
        post: Post) -> None:
    """What is given there counts; the message stays as it is."""
    path = MESSAGES / 'lower_case.eml'
    done = call(*post.options, '--user', ALICE, '--message', str(path),
                *options)
    assert_sent(done)
    received = post.only()
    assert (received.sender, list(received.recipients)) == (sender, recipients)
    assert received.content == meant(path.read_bytes())


def test_fields_that_the_envelope_does_not_need(
        finished: Callable[[bytes], str], post: Post) -> None:
    """Recipients and sender are given, so nobody needs to understand these."""
    message = (b'From: somebody\r\nTo: whoever; it <may concern\r\n'
               b'Cc: @\r\nDate: today\r\nMessage-ID: <1@example.com>\r\n'
               b'\r\nHello.\r\n')
    done = call(*post.options, '--from', ALICE, '--message',
                finished(message), BOB)
    assert_sent(done)
    assert post.only().content == message


@pytest.mark.parametrize('field', [
    b'Bcc: hidden@example.net\r\n',
    b'bcc:hidden@example.net\r\n',
    b'BCC :\r\n\thidden@example.net,\r\n hidden@example.net\r\n',
    b'Resent-Bcc: hidden@example.net\r\n',
    b'RESENT-BCC\t: Hidden\r\n <hidden@example.net>\r\n',
])
def test_blind_copies_are_never_transmitted(
        field: bytes, finished: Callable[[bytes], str], post: Post) -> None:
    """Nor if the envelope comes from the command line."""
    for place in (0, HEADER.index(b'To:'), len(HEADER)):
        post.accept()
        message = HEADER[:place] + field + HEADER[place:] + b'\r\nHello.\r\n'
        done = call(*post.options, '--message', finished(message), CAROL)
        assert_sent(done)
        assert post.only().content == HEADER + b'\r\nHello.\r\n'
        assert list(post.only().recipients) == [CAROL]


def test_address_outside_ascii(finished: Callable[[bytes], str],
                               post: Post) -> None:
    """Such an address in the envelope asks for SMTPUTF8."""
    message = HEADER + b'Bcc: j\xc3\xb6rg@example.org\r\n\r\nHello.\r\n'
    assert_sent(call(*post.options, '--message', finished(message)))
    assert 'SMTPUTF8' in post.only().mail_options
    assert 'jörg@example.org' in post.only().recipients


@pytest.mark.parametrize('message, word', [
    (b'To: bob@example.org\r\n\r\nHello\r\n', 'From'),
    (b'From: alice@example.com\r\n\r\nHello\r\n', 'recipient'),
    (b'From: alice@example.com\r\nTo: Nobody:;\r\n\r\n', 'recipient'),
    (b'From: alice@example.com\r\nTo: bob\r\n\r\n', 'bob'),
    (b'From: alice@example.com\r\nTo: <bob@example.org\r\n\r\n', 'bob'),
    (b'From: alice@example.com\r\nTo: bob@example.org carol@example.org\r\n'
     b'\r\n', 'bob@example.org'),
    (b'From: a@example.com, b@example.com\r\nTo: bob@example.org\r\n\r\n',
     'From'),
    (b'Hello Bob,\r\n\r\nlunch?\r\n', 'Hello Bob'),
    (b'\r\nFrom: alice@example.com\r\nTo: bob@example.org\r\n', 'From'),
    (b'', 'From'),
    (b'From: alice@example.com\r\nHello\r\nTo: bob@example.org\r\n\r\n',
     'line 2'),
    (b'From: alice@example.com\r\nFrom bob Mon\r\nTo: bob@example.org\r\n',
     'line 2'),
    (b'PK\x03\x04\x14\x00\x00\x00\x08\x00', 'line 1'),
])
def test_what_is_no_message(message: bytes, word: str, post: Post,
                            finished: Callable[[bytes], str]) -> None:
    """It is said what is missing."""
    done = call(*post.options, '--message', finished(message))
    assert_not_sent(done, post, 65)
    assert word in done.errors


def test_options_that_would_change_it(post: Post) -> None:
    """Subject, text and files are in the message already."""
    for option in (['--subject', 'x'], ['--body', 'x'], ['--attach', 'x'],
                   ['--html', 'x', '--body', 'x'], ['-H', 'X-Lab: 1']):
        done = call(*post.options, *option, '--message',
                    str(MESSAGES / 'dots.eml'))
        assert_not_sent(done, post, 64)
        assert '--message' in done.errors


def test_addresses_without_a_message(post: Post) -> None:
    """They are for --message; a mail of one's own has --to."""
    done = call(*post.options, '-f', ALICE, '-s', 'x', '--body', 'x', BOB)
    assert_not_sent(done, post, 64)
    assert '--message' in done.errors


@pytest.mark.skipif(os.name == 'nt', reason='Windows has no FIFOs')
def test_files_that_are_none(tmp_path: pathlib.Path, post: Post) -> None:
    """Told at once, with exit code 66."""
    os.mkfifo(tmp_path / 'fifo')
    for name in ('missing', 'fifo', ''):
        path = str(tmp_path / name)
        done = call(*post.options, '--message', path, env={})
        assert_not_sent(done, post, 66)
        assert path in done.errors


def test_closed_standard_input(post: Post, monkeypatch: pytest.MonkeyPatch
                               ) -> None:
    """As with `<&-` in a shell: there is no message."""
    command = [sys.executable, '-c',
               'import sys, smtp; sys.stdin = None; sys.exit(smtp.main())',
               *post.options, '--message', '-']
    done = subprocess.run(
        command, env={**os.environ, 'SMTP_PASSWORD': PASSWORD,
                      'PYTHONPATH': str(PROGRAM.parent)},
        stdin=subprocess.DEVNULL, capture_output=True, encoding='utf-8')
    assert done.returncode in (64, 65, 66), done.stderr
    assert done.stderr.startswith('smtp.py: Not sent: ')
    assert post.messages == []


# ---------------------------------------------------- what cannot go as it is


def test_eight_bits_where_they_are_not_offered(
        monkeypatch: pytest.MonkeyPatch, post: Post) -> None:
    """A server of seven bits is not even asked; there is advice."""
    monkeypatch.setattr(practice_server, 'EXTENSIONS', tuple(
        line for line in practice_server.EXTENSIONS
        if line not in ('8BITMIME', 'SMTPUTF8')))
    for name, words in (('latin_1', ['8BITMIME', 'quoted-printable']),
                        ('thunderbird', ['8BITMIME', 'quoted-printable']),
                        ('utf8_header', ['SMTPUTF8', 'encoded-words'])):
        done = call(*post.options, '-v', '--message',
                    str(MESSAGES / f'{name}.eml'))
        assert (done.code, post.messages) == (69, [])
        assert 'C: MAIL' not in done.errors
        for word in words:
            assert word in done.errors
    assert_sent(call(*post.options, '--message',
                     str(MESSAGES / 'outlook.eml')))
    assert [option for option in post.only().mail_options
            if not option.startswith('SIZE=')] == []


def test_header_that_is_not_utf8(finished: Callable[[bytes], str],
                                 post: Post) -> None:
    """SMTPUTF8 would promise UTF-8 (RFC 6532), so this cannot be sent."""
    message = HEADER + b'Subject: Gr\xfc\xdfe\r\n\r\nHello.\r\n'
    for verbose in ([], ['-v']):
        done = call(*post.options, *verbose, '--message', finished(message))
        assert_not_sent(done, post, 65)
        assert 'Subject' in done.errors
        assert 'UTF-8' in done.errors


@pytest.mark.parametrize('line', [
    b'x' * 998, b'.' + b'x' * 997, b'x' + '\u20ac'.encode() * 332 + b'x'])
@pytest.mark.parametrize('place', ['body', 'header', 'last line', 'far on'])
def test_lines_of_998_octets(line: bytes, place: str, post: Post,
                             finished: Callable[[bytes], str]) -> None:
    """998 octets go through, and 999 do not."""
    for more, code in ((b'', 0), (b'x', 65)):
        if place == 'header':
            message = HEADER + b'X-Long:\n ' + line[:-1] + more + b'\n\nHello'
        else:
            start = b'Hello.\n' * (20000 if place == 'far on' else 1)
            end = b'' if place == 'last line' else b'\nGoodbye.\n'
            message = HEADER + b'\n' + start + line + more + end
        post.accept()
        done = call(*post.options, '--message', finished(message))
        if code == 0:
            assert_sent(done)
            assert post.only().content == meant(message)
        else:
            assert_not_sent(done, post, code)
            assert '998' in done.errors
            assert 'quoted-printable' in done.errors


@pytest.mark.parametrize('message', [
    HEADER + b'\r\nHel\0lo\r\n',
    HEADER + b'Subject: Hel\0lo\r\n\r\nHello\r\n',
    HEADER + b'Subject:\r\n Hel\0lo\r\n\r\nHello\r\n',
    HEADER + b'\r\n' + b'Hello\r\n' * 20000 + b'\0',
], ids=['body', 'header', 'folded', 'far on'])
def test_nul(message: bytes, finished: Callable[[bytes], str], post: Post
             ) -> None:
    """NUL is not for mail (RFC 5322 section 4)."""
    done = call(*post.options, '--message', finished(message))
    assert_not_sent(done, post, 65)
    assert 'NUL' in done.errors
    assert '\0' not in done.errors


@pytest.mark.parametrize('header', [
    b'Subject: x\rBcc: evil@example.net\r\n',
    b'Subject: x\rTo: evil@example.net\r\n',
    b'Subject: x\r\rTo: evil@example.net\r\n',
    b'Subject: x\r\n y\rTo: evil@example.net\r\n',
    b'Subject: x\r\n\ty\r\rFrom: evil@example.net\r\n',
    b'Subject: x\r\n\rTo: evil@example.net\r\n',
    b'Subject: x\n \rTo: evil@example.net\n',
    b'\rTo: evil@example.net\r\n',
    b'Cc:\r\n carol@example.org,\r evil@example.net\r\n',
    b'Cc: carol@exam\rple.org\r\n',
    b'Cc:\r\n carol@exam\rple.org\r\n',
    b'Bcc: hidden@example.net\r\n x\r\r\nTo: evil@example.net\r\n',
    b'Bcc: hidden@example.net\r\n \rTo: evil@example.net\r\n',
    b'X\r-Y: x\r\n',
])
@pytest.mark.parametrize('place', ['before', 'after'])
def test_cr_within_a_header(header: bytes, place: str, post: Post,
                            finished: Callable[[bytes], str]) -> None:
    """A CR alone neither ends a line nor disappears: it is not sent.

    What one program takes for a line end and another does not, smuggles a
    field or a recipient past one of them.
    """
    message = (header + HEADER if place == 'before' else HEADER + header)
    done = call(*post.options, '--message', finished(message + b'\r\nHi\r\n'))
    if done.code == 65:
        assert_not_sent(done, post, 65)
        assert '\r' not in done.errors
        return
    assert_sent(done)
    received = post.only()
    assert not re.search(b'\r(?!\n)|(?<!\r)\n', received.content)
    assert set(received.recipients) <= {BOB, CAROL, HIDDEN}
    head = received.content.partition(b'\r\n\r\n')[0]
    assert not re.search(rb'(?im)^(to|cc|bcc|from)[ \t]*:.*evil@', head)


# --------------------------------------------------- files that change


CHANGES: Dict[str, Callable[[pathlib.Path], Any]] = {
    'longer': lambda path: path.write_bytes(path.read_bytes() + b'More\r\n'),
    'shorter': lambda path: os.truncate(path, os.path.getsize(path) - 8),
    'other octets': lambda path: path.write_bytes(
        path.read_bytes().replace(b'Hello', b'HELLO')),
    'empty': lambda path: os.truncate(path, 0),
    'other header': lambda path: path.write_bytes(
        path.read_bytes().replace(b'To: bob', b'To: evil')),
}


@pytest.mark.parametrize('lines', [10, 50000])
@pytest.mark.parametrize('change', sorted(CHANGES))
def test_a_file_that_changes(change: str, lines: int, post: Post,
                             finished: Callable[[bytes], str],
                             monkeypatch: pytest.MonkeyPatch) -> None:
    """The size was promised, so what is not as it was is not sent."""
    path = pathlib.Path(finished(HEADER + b'\r\n' + b'Hello\r\n' * lines))
    os.utime(path, (1, 1))      # whatever the clock's grain: it will change
    welcome = post.server.handle_RCPT

    async def handle_rcpt(*arguments: Any) -> Any:
        """Change the file between the look at it and its sending."""
        CHANGES[change](path)
        return await welcome(*arguments)

    monkeypatch.setattr(post.server, 'handle_RCPT', handle_rcpt)
    done = call(*post.options, '--message', str(path))
    assert done.code in (65, 66), done.errors
    assert_not_sent(done, post, done.code)
    assert str(path) in done.errors


# ------------------------------------------------------------- large files


class Sink(threading.Thread):
    """A server without TLS that takes one message as fast as it can.

    Attributes:
        port: Where it listens.
        size: Octets of the message, as promised by MAIL.
        received: Octets of the message, as they came.
        checksum: Of the message.
    """

    def __init__(self) -> None:
        """Listen; `start` begins to serve."""
        super().__init__(daemon=True)
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.listener.settimeout(60)
        self.port: int = self.listener.getsockname()[1]
        self.size = self.received = self.checksum = 0

    def run(self) -> None:
        """Serve one connection."""
        with self.listener:
            connection, _ = self.listener.accept()
        with connection, connection.makefile('rwb') as wire:
            wire.write(b'220 sink\r\n')
            wire.flush()
            for line in wire:
                size = re.search(rb'SIZE=(\d+)', line)
                self.size = int(size[1]) if size else self.size
                if line == b'DATA\r\n':
                    wire.write(b'354 go on\r\n')
                    wire.flush()
                    self.swallow(wire)
                wire.write(b'250-sink\r\n250 SIZE\r\n'
                           if line.startswith(b'EHLO') else b'250 ok\r\n')
                wire.flush()

    def swallow(self, wire: Any) -> None:
        """Take a message that has no dots, up to the final one."""
        last = b''
        while not last.endswith(b'\r\n.\r\n'):
            octets = wire.read1(256 * 1024)
            assert octets, 'the client hung up'
            self.received += len(octets)
            self.checksum = zlib.crc32(octets, self.checksum)
            last = last[-5:] + octets[-5:]


# ru_maxrss of a process counts what it was before it became another program,
# too; so smtp.py is not started by pytest, but by a program smaller than it.
STARTER = '''
import os, sys
process = os.fork()
if not process:
    os.execv(sys.argv[1], sys.argv[1:])
_, status, usage = os.wait4(process, 0)
print(os.WEXITSTATUS(status), 'maxrss', usage.ru_maxrss)
'''
needs_wait4 = pytest.mark.skipif(not hasattr(os, 'wait4'),
                                 reason='cannot measure it here')


def peak_of(path: str, *options: str) -> Tuple[int, int, str]:
    """Return exit code, the peak of the memory in KiB, and the errors."""
    with open(path, 'rb') as file:
        done = subprocess.run(
            [sys.executable, '-I', '-S', '-c', STARTER, sys.executable,
             str(PROGRAM), *options],
            stdin=file, capture_output=True, encoding='utf-8', timeout=60)
    code, peak = re.findall(r'(\d+) maxrss (\d+)', done.stdout)[0]
    return (int(code), int(peak) // (1024 if sys.platform == 'darwin' else 1),
            done.stderr)


def send_to_sink(path: str, *options: str) -> Tuple[int, Sink]:
    """Send a message; return the peak of the memory in KiB, and the sink."""
    sink = Sink()
    sink.start()
    code, peak, errors = peak_of(
        path, '--server', '127.0.0.1', '--port', str(sink.port),
        '--tls', 'none', '--ehlo', 'localhost', *options)
    assert code == 0, errors
    sink.join(10)
    return peak, sink


@needs_wait4
@pytest.mark.parametrize('kind', ['file', 'pipe', 'only CR'])
def test_memory_does_not_grow(kind: str, tmp_path: pathlib.Path) -> None:
    """A hundred megabytes take no more of it than a few octets."""
    path = str(tmp_path / 'large.eml')
    options = ['--message', '-' if kind == 'pipe' else path]
    line = b'0123456789abcdef' * 4 + b'\r\n'
    pathlib.Path(path).write_bytes(HEADER + b'\r\n' + line)
    small, sink = send_to_sink(path, *options)
    assert sink.size == len(HEADER + b'\r\n' + line)

    size = (20 if kind == 'only CR' else 100) * MEBI
    block = line * 1000 if kind != 'only CR' else line[:-1] * 1000
    mended = block if kind != 'only CR' else line * 1000
    checksum = zlib.crc32(HEADER + b'\r\n')
    with open(path, 'wb') as file:
        file.write(HEADER + b'\r\n')
        for _ in range(size // len(block)):
            file.write(block)
            checksum = zlib.crc32(mended, checksum)
    large, sink = send_to_sink(path, *options)
    assert sink.received == sink.size + len('.\r\n')
    assert sink.checksum == zlib.crc32(b'.\r\n', checksum)
    assert large <= small + 2048


@needs_wait4
@pytest.mark.parametrize('piped', [False, True], ids=['file', 'pipe'])
@pytest.mark.parametrize('place', ['first line', 'header', 'body'])
def test_memory_for_a_line_without_end(place: str, piped: bool,
                                       tmp_path: pathlib.Path) -> None:
    """What turns out to be no message is not read into memory, either."""
    path = tmp_path / 'large.eml'
    options = ['--dry-run', '--message', '-' if piped else str(path)]
    path.write_bytes(HEADER + b'\r\nHello\r\n')
    small = peak_of(str(path), *options)[1]
    with open(path, 'wb') as file:
        file.write({'first line': b'', 'header': HEADER + b'X-Long: ',
                    'body': HEADER + b'\r\n'}[place])
        for _ in range(20):
            file.write(b'x' * MEBI)
    code, large, errors = peak_of(str(path), *options)
    assert code == 65, errors
    assert 'Not sent: ' in errors
    assert len(errors) < 1000
    assert large <= small + 2048


def test_long_lines_take_no_longer(finished: Callable[[bytes], str]) -> None:
    """The work depends on the octets alone, however they form lines."""
    seconds = []
    for length in (70, 990):
        line = b'x' * length + b'\r\n'
        path = finished(HEADER + b'\r\n' + line * (4 * MEBI // len(line)))
        begun = time.process_time()
        assert call('--dry-run', '--message', path).code == 0
        seconds.append(time.process_time() - begun)
    assert seconds[1] < 3 * seconds[0] + 0.2


# --------------------------------------------------------------------- git


def required(what: str) -> None:
    """Skip the test for what the machine lacks, unless it must be there."""
    if os.environ.get('SMTP_TEST_REAL_SERVERS') == 'required':
        pytest.fail(f'{what} is required, and missing')
    pytest.skip(f'{what} is not installed')


class Repository:
    """A git repository, apart from all settings of this machine."""

    def __init__(self, folder: pathlib.Path) -> None:
        """Make it, with one file in it."""
        self.folder = folder
        folder.mkdir()
        self.environment = {
            'PATH': os.environ.get('PATH', os.defpath), 'HOME': str(folder),
            'GIT_CONFIG_NOSYSTEM': '1', 'GIT_CONFIG_GLOBAL': os.devnull,
            'GIT_AUTHOR_NAME': 'Alice Ünal', 'GIT_AUTHOR_EMAIL': ALICE,
            'GIT_COMMITTER_NAME': 'Alice', 'GIT_COMMITTER_EMAIL': ALICE,
            'LC_ALL': 'C.UTF-8', 'SMTP_PASSWORD': PASSWORD}
        self.git('init', '-q', '-b', 'main')
        self.commit('Begin\n', 'Begin')

    def git(self, *args: str, input: bytes = b'') -> bytes:
        """Run git; it must succeed."""
        done = self.attempt(*args, input=input)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def attempt(self, *args: str, input: bytes = b''
                ) -> 'subprocess.CompletedProcess[bytes]':
        """Run git."""
        return subprocess.run(['git', *args], cwd=self.folder, input=input,
                              env=self.environment, capture_output=True,
                              timeout=60)

    def commit(self, text: str, message: str) -> None:
        """Put a text into the file."""
        (self.folder / 'file.txt').write_bytes(text.encode())
        self.git('add', 'file.txt')
        self.git('commit', '-q', '-m', message)


@pytest.fixture
def repository(tmp_path: pathlib.Path) -> Repository:
    """A repository with two commits to send."""
    if not shutil.which('git'):
        required('git')
    repository = Repository(tmp_path / 'repository')
    repository.git('checkout', '-q', '-b', 'work')
    repository.commit(
        'Begin\n.\nGrüße\n..\nFrom here\n\tthere \nend', 'Grüße: a subject '
        'so long that it has to be folded, and then it goes on\n\nA text.\n.')
    repository.commit('Begin\n.\nend\n', 'Second')
    return repository


def applied(repository: Repository, messages: Sequence[bytes]) -> bytes:
    """Let git apply messages to the first commit; return its tree."""
    repository.git('checkout', '-q', '-B', 'received', 'main')
    for message in messages:
        repository.git('am', '-q', input=message.replace(b'\r\n', b'\n'))
    return repository.git('rev-parse', 'received^{tree}')


def test_git_format_patch(repository: Repository, post: Post) -> None:
    """Patches arrive octet for octet, and git can apply what arrived."""
    repository.git('format-patch', '-q', '--to', f'Bób <{BOB}>', '--cc',
                   CAROL, '--from', '--cover-letter', '--attach', '-o',
                   'out', 'main..work')
    repository.git('format-patch', '-q', '--to', f'Bób <{BOB}>', '--cc',
                   CAROL, '-o', 'out', '--start-number', '5', 'main..work')
    paths = sorted((repository.folder / 'out').glob('*.patch'))
    assert len(paths) == 5
    for path in paths:
        done = call(*post.options, '--message', str(path))
        assert_sent(done)
        received = post.messages[-1]
        octets = path.read_bytes()
        assert (received.content if b'\nMessage-ID:' in octets.split(
            b'\n\n')[0] else without_message_id(received.content)
                ) == meant(octets)
        assert list(received.recipients) == [BOB, CAROL]
        eight = not octets.isascii()
        assert ('BODY=8BITMIME' in received.mail_options) == eight
    tree = repository.git('rev-parse', 'work^{tree}')
    assert applied(repository, [
        received.content for received in post.messages[-2:]]) == tree


def without_message_id(content: bytes) -> bytes:
    """Take away the Message-ID that smtp.py has added."""
    header, empty_line, body = content.partition(b'\r\n\r\n')
    header, count = re.subn(rb'\r\nMessage-ID: <[^<>@\s]+@example\.com>', b'',
                            header)
    assert count == 1
    return header + empty_line + body


@pytest.fixture
def send_email(repository: Repository, post: Post
               ) -> 'Callable[..., subprocess.CompletedProcess[bytes]]':
    """A function that runs git send-email, with smtp.py as its sendmail."""
    if b'send-email' not in repository.git('help', '-a'):
        required('git send-email')
    command = shlex.join([sys.executable, str(PROGRAM), *post.options,
                          '--message', '-'])

    def run(*args: str) -> 'subprocess.CompletedProcess[bytes]':
        done = repository.attempt('send-email', '--sendmail-cmd', command,
                                  '--confirm=never', *args)
        if b"'Mail::Address' module is not here" in done.stderr:
            required("git send-email's Perl module Mail::Address")
        return done
    return run


def test_git_send_email(repository: Repository, post: Post,
                        send_email: Any) -> None:
    """The recipe of the README, with the git of this machine."""
    done = send_email('--to', f'Bób <{BOB}>', '--cc', CAROL, '--bcc', HIDDEN,
                      '--envelope-sender', ALICE, 'main..work')
    assert done.returncode == 0, done.stderr.decode()
    assert len(post.messages) == 2
    for received in post.messages:
        assert received.sender == ALICE
        assert {BOB, CAROL, HIDDEN} <= set(received.recipients)
        assert HIDDEN.encode() not in received.content
        message = email.message_from_bytes(received.content,
                                           policy=email.policy.default)
        assert not message.defects
        assert message['To'].addresses[0].display_name == 'Bób'
        assert message['Message-ID'] and message['Date']
    assert post.messages[1].parse()['In-Reply-To'] == \
        post.messages[0].parse()['Message-ID']
    assert applied(repository, [
        received.content for received in post.messages]) == \
        repository.git('rev-parse', 'work^{tree}')


def test_git_send_email_refused(repository: Repository, post: Post,
                                send_email: Any) -> None:
    """Git hears of the refusal, and says so."""
    post.refuse('no-such-user')
    done = send_email('--to', BOB, '--cc', CAROL, '-1', 'work')
    assert done.returncode != 0
    assert b'Not sent: ' in done.stderr
    assert CAROL.encode() in done.stderr
    assert post.messages == []
