"""What was typed or piped and not sent is kept, and one command sends it.

The command is the last line that smtp.py prints. Here a shell runs it, as it
stands there, and then it counts who has got the message: the same people, once.
"""

import asyncio
import contextlib
import datetime
import email
import email.policy
import os
import pathlib
import re
import shlex
import signal
import stat
import struct
import subprocess
import sys
import threading
import time
from typing import Any, Callable, Dict, Iterator, List

import pytest
from posting import (
    ALICE,
    BOB,
    CAROL,
    HIDDEN,
    PASSWORD,
    PROGRAM,
    TOKEN,
    Done,
    Post,
    call,
)

fcntl = pytest.importorskip('fcntl')        # Windows has none of these
termios = pytest.importorskip('termios')
pexpect = pytest.importorskip('pexpect')

PATIENCE = 10       # seconds for a process to come to a point, or to its end
TEXT = 'Hello Bob,\n\n.\nlunch?\n'
FINISHED = (
    b'From: Alice <alice@example.com>\r\nTo: bob@example.org\r\n'
    b'Cc: carol@example.org\r\nBcc: hidden@example.net,\r\n "D." '
    b'<desk@example.net>\r\nSubject: Lunch\r\n'
    b'Date: Mon, 23 Nov 2026 12:00:00 +0100\r\nMessage-ID: <1@example.com>\r\n'
    b'\r\nGr\xfc\xdfe,\r\n.\r\nthe last line\r\n')
PEOPLE = [BOB, CAROL, HIDDEN, 'desk@example.net']


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """The current folder of smtp.py, empty."""
    path = tmp_path / 'folder'
    path.mkdir()
    return path


def mail(post: Post, *options: str) -> List[str]:
    """Return the options for a mail to four people."""
    return [*post.options, '--from', f'Alice Ünal <{ALICE}>', '--to',
            f'"Bob, B." <{BOB}>', '--cc', CAROL, '--bcc',
            f'{HIDDEN}, Desk <desk@example.net>', '--subject', 'Grüße', *options]


def kept(folder: pathlib.Path) -> pathlib.Path:
    """Return the one file that was kept in a folder."""
    path, = folder.iterdir()
    assert path.name.startswith('unsent-')
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.is_file() and not path.is_symlink()
    return path


def command_of(errors: str, folder: pathlib.Path) -> str:
    """Return the last line, which has to be the command for the kept file."""
    command = errors.rstrip('\n').replace('\r', '').split('\n')[-1]
    assert kept(folder).name in command
    return command


def run_in_shell(command: str, folder: pathlib.Path,
                 **env: str) -> 'subprocess.CompletedProcess[str]':
    """Run a command as a person would who copies it."""
    return subprocess.run(
        ['sh', '-c', command], cwd=folder, stdin=subprocess.DEVNULL,
        env={'PATH': os.environ.get('PATH', os.defpath), 'LC_ALL': 'C.UTF-8',
             **(env or {'SMTP_PASSWORD': PASSWORD})},
        capture_output=True, encoding='utf-8', timeout=PATIENCE)


def assert_sends(errors: str, folder: pathlib.Path, post: Post,
                 people: List[str], **env: str) -> Any:
    """The command sends what was kept to these people, once; return it."""
    command = command_of(errors, folder)
    content = kept(folder).read_bytes()
    post.accept()
    done = run_in_shell(command, folder, **env)
    errors = re.sub('(?m)^smtp.py: note: .*\n', '', done.stderr)
    assert (done.returncode, errors) == (0, '')
    received = post.only()
    assert sorted(received.recipients) == sorted(people)
    assert not re.search(rb'(?im)^(resent-)?bcc', received.content)
    assert kept(folder).read_bytes() == content
    return received


def text_of(received: Any) -> str:
    """Return the text of a message, with its line ends as typed."""
    body = received.parse().get_body(('plain',))
    return str(body.get_content()).replace('\r\n', '\n')


# ------------------------------------------------------ piped, and not sent


@pytest.mark.parametrize('refusal, code', [
    ('server-down', 75), ('wrong-password', 77), ('not-your-address', 77),
    (f'rcpt:{CAROL}=550 5.1.1 Nobody here', 67), ('mailbox-full', 69),
    ('too-many-connections', 75),
])
def test_refused(refusal: str, code: int, post: Post,
                 folder: pathlib.Path) -> None:
    """Whatever was refused, the text is there, and goes to the same people."""
    post.refuse(refusal)
    done = call(*mail(post), input=TEXT.encode(), cwd=folder)
    assert (done.code, done.output, post.messages) == (code, b'', [])
    received = assert_sends(done.errors, folder, post, PEOPLE)
    message = received.parse()
    assert text_of(received) == TEXT
    assert message['Subject'] == 'Grüße'
    assert message['To'].addresses[0].display_name == 'Bob, B.'
    assert received.sender == ALICE


def test_file_is_the_message_with_its_blind_copies(
        post: Post, folder: pathlib.Path) -> None:
    """What the file holds and what arrives differ by Bcc alone."""
    post.refuse('mailbox-full')
    done = call(*mail(post, '-H', 'X-Lab: 1'), input=TEXT.encode(),
                cwd=folder)
    octets = kept(folder).read_bytes()
    message = email.message_from_bytes(octets, policy=email.policy.default)
    assert not message.defects
    assert [address.addr_spec for address in message['Bcc'].addresses] == [
        HIDDEN, 'desk@example.net']
    assert message['X-Lab'] == '1'
    del message['Bcc']
    received = assert_sends(done.errors, folder, post, PEOPLE)
    assert re.sub(rb'(?m)^Bcc: .*\r\n(?:[ \t].*\r\n)*', b'', octets) == \
        received.content


def test_only_blind_copies(post: Post, folder: pathlib.Path) -> None:
    """`To: undisclosed-recipients:;` names nobody, and Bcc all of them."""
    post.refuse('mailbox-full')
    many = [f'person{number}@example.net' for number in range(60)]
    done = call(*post.options, '-f', ALICE, '-s', 'x', '--bcc',
                ', '.join(many), input=b'Hello\n', cwd=folder)
    assert_sends(done.errors, folder, post, many)


def test_attachment_and_html(post: Post, folder: pathlib.Path,
                             tmp_path: pathlib.Path) -> None:
    """They are in the file, so that the command needs nothing else."""
    path = tmp_path / 'all octets.bin'
    path.write_bytes(bytes(range(256)) * 100)
    post.refuse('mailbox-full')
    done = call(*mail(post, '--attach', str(path), '--html', '<p>Hello</p>',
                      '--body', '-'), input=TEXT.encode(), cwd=folder)
    path.unlink()
    message = assert_sends(done.errors, folder, post, PEOPLE).parse()
    attachment, = message.iter_attachments()
    assert attachment.get_content() == bytes(range(256)) * 100
    assert message.get_body(('html',)).get_content().strip() == '<p>Hello</p>'


def test_nobody_listens(post: Post, folder: pathlib.Path) -> None:
    """No connection: kept, for when there is one."""
    port = next(port for port in range(1, 1024)
                if port not in (25, 465, 587) and refuses(port))
    done = call(*mail(post, '--port', str(port)), input=TEXT.encode(),
                cwd=folder)
    assert done.code == 75
    assert f'--port {port}' in command_of(done.errors, folder)


def refuses(port: int) -> bool:
    """Tell whether nobody listens at a port."""
    import socket
    with socket.socket() as sock:
        return sock.connect_ex(('127.0.0.1', port)) != 0


def test_may_have_been_sent(post: Post, folder: pathlib.Path) -> None:
    """It did arrive: the words warn, and both have the same Message-ID."""
    post.server.drop_after_dot = True
    done = call(*mail(post), input=TEXT.encode(), cwd=folder)
    assert done.code == 74
    assert done.errors.startswith('smtp.py: May have been sent: ')
    lines = done.errors.rstrip('\n').split('\n')
    assert re.search('(?i)if it has not arrived', lines[-2])
    first = post.only().parse()['Message-ID']
    assert first in done.errors
    received = assert_sends(done.errors, folder, post, PEOPLE)
    assert received.parse()['Message-ID'] == first


# ---------------------------------------------------- finished, and not sent


@pytest.mark.parametrize('options, people', [
    ([], PEOPLE),
    (['--to', 'front@example.org'], ['front@example.org']),
    (['-f', ALICE, 'front@example.org', 'list@example.org'],
     ['front@example.org', 'list@example.org']),
    (['--to=-f@example.org', '--', 'list@example.org'],
     ['-f@example.org', 'list@example.org']),
    (["\"it's $HOME\"@example.org"], ["\"it's $HOME\"@example.org"]),
])
def test_finished_message(options: List[str], people: List[str], post: Post,
                          folder: pathlib.Path) -> None:
    """Kept with Bcc; who was named on the command line is named again."""
    post.refuse('mailbox-full')
    done = call(*post.options, '--message', '-', *options, input=FINISHED,
                cwd=folder)
    assert (done.code, post.messages) == (69, [])
    content = kept(folder).read_bytes()
    for address in PEOPLE:
        assert address.encode() in content
    received = assert_sends(done.errors, folder, post, people)
    assert received.content == re.sub(b'(?s)Bcc: .*?(?=Subject:)', b'',
                                      FINISHED)


def test_sender_of_the_envelope(post: Post, folder: pathlib.Path) -> None:
    """--from counts for the second attempt, too."""
    post.refuse('mailbox-full')
    done = call(*post.options, '--message', '-', '--from',
                'List <list@example.com>', '-u', ALICE, input=FINISHED,
                cwd=folder)
    received = assert_sends(done.errors, folder, post, PEOPLE)
    assert received.sender == 'list@example.com'


def test_passed_on(post: Post, folder: pathlib.Path) -> None:
    """Resent-Bcc is kept as well as Bcc is."""
    post.refuse('mailbox-full')
    message = (b'Resent-From: alice@example.com\r\n'
               b'Resent-To: front@example.org\r\n'
               b'Resent-Bcc: list@example.net\r\n' + FINISHED.replace(
                   b'alice@', b'team@'))
    done = call(*post.options, '--message', '-', input=message, cwd=folder)
    assert_sends(done.errors, folder, post,
                 ['front@example.org', 'list@example.net'])


def test_finished_message_without_date(post: Post, folder: pathlib.Path
                                       ) -> None:
    """The Message-ID that the server saw is that of the second attempt."""
    post.server.drop_after_dot = True
    done = call(*post.options, '--message', '-', cwd=folder, input=(
        b'From - Mon Nov 23 12:00:00 2026\n'
        b'From: alice@example.com\nTo: bob@example.org\n\nHello\n'))
    assert done.code == 74
    content = post.only().content
    received = assert_sends(done.errors, folder, post, [BOB])
    assert received.content == content


# -------------------------------------------------------- never over a file


def test_never_over_a_file_nor_through_a_link(
        post: Post, folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Somebody who guesses the name gains nothing, and nothing is lost."""
    post.refuse('mailbox-full')
    call(*mail(post), input=TEXT.encode(), cwd=folder)
    name = kept(folder).name
    kept(folder).unlink()
    when = re.search(r'\d{8}-\d{6}', name)
    assert when, 'this test guesses names by the time in them'
    victim = tmp_path / 'victim'
    for kind in ('file', 'link', 'dangling link'):
        for path in folder.iterdir():
            path.unlink()
        planted = []
        for second in range(-1, 20):
            guess = datetime.datetime.now() + datetime.timedelta(0, second)
            path = folder / name.replace(
                when[0], guess.strftime('%Y%m%d-%H%M%S'))
            if kind == 'file':
                path.write_text('precious')
            else:
                path.symlink_to(victim)
            planted.append(path)
        if kind == 'link':
            victim.write_text('precious')
        done = call(*mail(post), input=TEXT.encode(), cwd=folder)
        assert done.code == 69
        for path in planted:
            if kind == 'dangling link':
                assert not victim.exists()
            else:
                assert path.read_text() == 'precious'
        assert b'lunch?' in what_is_left(done.errors, folder)
        if victim.exists():
            victim.unlink()


def test_mode_whatever_the_umask(post: Post, folder: pathlib.Path) -> None:
    """Nobody else may read it, though files are for all here."""
    post.refuse('mailbox-full')
    before = os.umask(0)
    try:
        call(*mail(post), input=TEXT.encode(), cwd=folder)
    finally:
        os.umask(before)
    kept(folder)


def what_is_left(errors: str, folder: pathlib.Path) -> bytes:
    """Return the kept file that is named in the errors, else the errors."""
    for name in re.findall(r'[^\s\'"]*unsent-[\w.-]+\w', errors):
        path = folder / name
        if path.is_file() and not path.is_symlink() and path.stat().st_size:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            return path.read_bytes()
    return errors.encode()


@pytest.mark.parametrize('finished', [False, True], ids=['text', 'message'])
@pytest.mark.parametrize('how', ['gone', 'read-only'])
def test_folder_that_takes_no_file(
        how: str, finished: bool, post: Post, folder: pathlib.Path,
        run_smtp: Callable[..., Any], tmp_path: pathlib.Path) -> None:
    """Then it is kept elsewhere, or printed; but it is not lost."""
    if how == 'read-only' and os.geteuid() == 0:
        pytest.skip('root may write everywhere')
    post.refuse('mailbox-full')
    args = [*post.options, '--message', '-'] if finished else mail(post)
    prepare = {'gone': 'rmdir "$PWD"', 'read-only': 'chmod a-w .'}[how]
    done = subprocess.run(
        ['sh', '-c', f'{prepare}; exec "$@"', '-', sys.executable,
         str(PROGRAM), *args], input=FINISHED if finished else TEXT.encode(),
        env={'PATH': os.environ.get('PATH', os.defpath), 'LC_ALL': 'C.UTF-8',
             'HOME': str(tmp_path), 'TMPDIR': str(tmp_path),
             'SMTP_PASSWORD': PASSWORD},
        cwd=folder, capture_output=True, timeout=PATIENCE)
    errors = done.stderr.decode()
    assert done.returncode == 69
    assert 'Traceback' not in errors
    left = what_is_left(errors, tmp_path)
    if finished:
        assert left.endswith(FINISHED[-20:]) \
            or b'the last line' in left and b'hidden@example.net' in left
    else:
        assert b'Hello Bob' in left and b'lunch?' in left


def test_attachment_that_vanishes(post: Post, folder: pathlib.Path,
                                  tmp_path: pathlib.Path,
                                  monkeypatch: pytest.MonkeyPatch) -> None:
    """The text is kept without it, and no half of a message is left."""
    path = tmp_path / 'large.bin'
    path.write_bytes(bytes(500_000))
    welcome = post.server.handle_RCPT

    async def handle_rcpt(*arguments: Any) -> Any:
        """Remove it between the look at it and its sending."""
        path.unlink(missing_ok=True)
        return await welcome(*arguments)

    monkeypatch.setattr(post.server, 'handle_RCPT', handle_rcpt)
    done = call(*mail(post, '--attach', str(path), '--body', '-'),
                input=TEXT.encode(), cwd=folder)
    assert (done.code, post.messages) == (66, [])
    assert b'lunch?' in what_is_left(done.errors, folder)
    for left in folder.glob('*.eml'):
        message = email.message_from_bytes(left.read_bytes(),
                                           policy=email.policy.default)
        assert not message.defects


# ---------------------------------- what could not even become a message


@pytest.mark.parametrize('options', [
    ['--to', 'bob@'], ['--to', BOB, '--from', 'nobody'],
    ['--to', BOB, '--subject', 'a\rb'], ['--to', BOB, '-H', 'X-Lab: a\nb'],
    ['--to', BOB, '--attach', 'missing.pdf'],
    ['--to', BOB, '--html', '@missing.html', '--body', '-'],
    ['--to', BOB, '--password-command', 'false'],
], ids=' '.join)
def test_text_of_a_mail_that_cannot_be(options: List[str], post: Post,
                                       folder: pathlib.Path) -> None:
    """A mistake beside it does not cost the text that was piped."""
    done = call(*post.options, '-f', ALICE, '-s', 'x', *options,
                input=TEXT.encode(), cwd=folder)
    assert done.code in (65, 66, 78), done.errors
    assert post.messages == []
    assert TEXT.encode() in kept(folder).read_bytes().replace(b'\r\n', b'\n')


def test_text_that_is_no_utf8(post: Post, folder: pathlib.Path) -> None:
    """Octet for octet, so that iconv can convert what was kept."""
    text = 'Grüße\n'.encode('latin-1')
    done = call(*mail(post), input=text, cwd=folder)
    assert (done.code, post.messages) == (65, [])
    assert kept(folder).read_bytes() == text


@pytest.mark.parametrize('message', [
    b'nonsense', b'Gr\xfc\xdfe,\r\rno header\n', FINISHED.replace(b'To:', b'-:')
    .replace(b'Cc:', b'-C:').replace(b'Bcc:', b'-B:'),
    FINISHED.replace(b'bob@example.org', b'bob@'),
    FINISHED + b'x' * 999, FINISHED + b'\0\r',
], ids=['nonsense', 'text', 'nobody', 'address', 'line', 'NUL'])
def test_message_that_is_none(message: bytes, post: Post,
                              folder: pathlib.Path) -> None:
    """It cannot be sent as it is, so it is kept as it is."""
    done = call(*post.options, '--message', '-', input=message, cwd=folder)
    assert (done.code, post.messages) == (65, [])
    assert kept(folder).read_bytes() == message


# ------------------------------------------------------------ interrupted


@contextlib.contextmanager
def stalled(post: Post, hook: str) -> Iterator[threading.Event]:
    """Let the server fall silent at one point; tell when it is there."""
    reached = threading.Event()

    async def stall(*_: Any) -> str:
        """Say nothing."""
        reached.set()
        await asyncio.sleep(60)
        return '451 4.3.0 Late'

    setattr(post.server, hook, stall)
    try:
        yield reached
    finally:
        delattr(post.server, hook)


def start(args: List[str], folder: pathlib.Path, environment: Dict[str, str]
          ) -> 'subprocess.Popen[bytes]':
    """Start smtp.py with a pipe for standard input."""
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *args], cwd=folder,
        env={**environment, 'SMTP_PASSWORD': PASSWORD},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize('signals', [
    'SIGINT', 'SIGTERM', 'SIGHUP SIGTERM', 'SIGINT SIGTERM SIGHUP SIGINT'])
@pytest.mark.parametrize('hook', ['handle_RCPT', 'handle_DATA'])
def test_interrupted(hook: str, signals: str, post: Post,
                     folder: pathlib.Path,
                     clean_environment: Dict[str, str]) -> None:
    """Before the final dot and after it; the command is right for both.

    Whoever has no patience asks more than once, and the system asks twice.
    """
    with stalled(post, hook) as reached:
        process = start(mail(post), folder, clean_environment)
        try:
            assert process.stdin is not None
            process.stdin.write(TEXT.encode())
            process.stdin.close()
            process.stdin = None
            assert reached.wait(PATIENCE)
            for name in signals.split():
                process.send_signal(getattr(signal, name))
            _, octets = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
            process.wait()
    errors = octets.decode()
    unknown = hook == 'handle_DATA'
    assert process.returncode in ((74,) if unknown else (130, 143, 129)), \
        errors
    assert ('If it has not arrived' in errors) == unknown
    assert_sends(errors, folder, post, PEOPLE)


@pytest.mark.parametrize('finished', [False, True], ids=['text', 'message'])
def test_interrupted_while_it_is_piped(
        finished: bool, post: Post, folder: pathlib.Path,
        clean_environment: Dict[str, str]) -> None:
    """As much of it as has come is kept."""
    args = [*post.options, '--message', '-'] if finished else mail(post)
    octets = FINISHED if finished else TEXT.encode()
    process = start(args, folder, clean_environment)
    try:
        assert process.stdin is not None
        process.stdin.write(octets)
        process.stdin.flush()
        wait_until(lambda: unread(process.stdin) == 0)
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
        _, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 143
    assert b'Traceback' not in errors
    assert octets[-9:-2] in kept(folder).read_bytes()


def unread(pipe: Any) -> int:
    """Return how many octets of a pipe have not been read yet."""
    answer = fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))
    return int(struct.unpack('i', answer)[0])


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, 'it never came to that'
        time.sleep(0.005)


class Terminal:
    """smtp.py with a person in front of it, who types."""

    def __init__(self, args: List[str], folder: pathlib.Path,
                 environment: Dict[str, str]) -> None:
        """Start it."""
        self.child = pexpect.spawn(
            sys.executable, [str(PROGRAM), *args], cwd=str(folder),
            env={**environment, 'SMTP_PASSWORD': PASSWORD, 'TERM': 'dumb'},
            encoding='utf-8', timeout=PATIENCE, dimensions=(50, 5000))

    def answer(self, **answers: str) -> None:
        """Wait for each question, and answer it."""
        for question, line in answers.items():
            self.child.expect(question + ': ')
            self.child.sendline(line)
        self.child.expect('Text, ended by a line with only a dot:\r\n')

    def type(self, *lines: str) -> None:
        """Type lines, and wait until they have been read."""
        for line in lines:
            self.child.sendline(line)
            self.child.expect_exact(f'{line}\r\n')     # the echo
        with contextlib.suppress(OSError):      # it has ended, or no /proc
            terminal = os.open(f'/proc/{self.child.pid}/fd/0',
                               os.O_RDWR | os.O_NOCTTY)
            try:
                wait_until(lambda: unread(terminal) == 0)
            finally:
                os.close(terminal)

    def end(self) -> Done:
        """Wait for its end."""
        self.child.expect(pexpect.EOF)
        self.child.close()
        code = self.child.exitstatus
        return Done(-1 if code is None else code, b'', self.child.before)


@pytest.fixture
def typed(post: Post, folder: pathlib.Path,
          clean_environment: Dict[str, str]) -> Iterator[Terminal]:
    """smtp.py on a terminal, which has asked all, and waits for the text."""
    terminal = Terminal([*post.options, '--bcc', HIDDEN], folder,
                        clean_environment)
    terminal.answer(From=ALICE, Subject='Lunch')
    yield terminal
    terminal.child.close(force=True)


def test_typed_and_refused(post: Post, folder: pathlib.Path,
                           typed: Terminal) -> None:
    """The command works on the terminal where it was printed."""
    post.refuse('mailbox-full')
    typed.type('Hello,', 'lunch?', '.')
    done = typed.end()
    assert done.code == 69
    received = assert_sends(done.errors, folder, post, [HIDDEN])
    assert text_of(received) == 'Hello,\nlunch?\n'


@pytest.mark.parametrize('how', ['Ctrl-C', 'Ctrl-C twice', 'SIGTERM'])
def test_interrupted_while_it_is_typed(
        how: str, post: Post, folder: pathlib.Path, typed: Terminal) -> None:
    """As far as it has come; and all that was asked needs no answer again."""
    typed.type('Hello,', 'lunch?')
    if how == 'SIGTERM':
        typed.child.kill(signal.SIGTERM)
    for _ in range({'Ctrl-C': 1, 'Ctrl-C twice': 2}.get(how, 0)):
        typed.child.kill(signal.SIGINT)
    done = typed.end()
    assert done.code == (143 if how == 'SIGTERM' else 130), done.errors
    assert b'lunch?' in kept(folder).read_bytes()
    received = assert_sends(done.errors, folder, post, [HIDDEN])
    assert text_of(received) == 'Hello,\nlunch?\n'
    assert received.parse()['Subject'] == 'Lunch'


def test_terminal_goes_away(folder: pathlib.Path, typed: Terminal) -> None:
    """The window was closed, and nobody reads the errors: kept all the same.

    Some are told twice: by the system, and by the shell.
    """
    typed.type('Hello,', 'lunch?')
    typed.child.close(force=False)
    wait_until(lambda: not typed.child.isalive())
    assert b'lunch?' in kept(folder).read_bytes()


# ------------------------------------------------------------- the command


def test_options_in_the_command(post: Post, folder: pathlib.Path,
                                tmp_path: pathlib.Path) -> None:
    """Whatever leads to the server and into it is there, quoted for a shell."""
    post.refuse('mailbox-full')
    odd = tmp_path / "it's $HOME & \"more\""
    odd.mkdir()
    ca_file = odd / 'ca file.pem'
    ca_file.write_bytes(pathlib.Path(post.server.ca_file).read_bytes())
    secret = "sh -c 'echo \"open-$(printf sesame)\"'"
    done = call(*mail(post, '--ca-file', str(ca_file), '--user', ALICE,
                      '--auth', 'login', '--ehlo', 'client.example.com',
                      '--password-command', secret),
                input=TEXT.encode(), cwd=folder, env={})
    words = shlex.split(command_of(done.errors, folder))
    for option, value in (
            ('--server', 'localhost'), ('--port', str(post.server.port)),
            ('--ca-file', str(ca_file)), ('--user', ALICE),
            ('--auth', 'login'), ('--ehlo', 'client.example.com'),
            ('--password-command', secret)):
        assert value in (words[words.index(option) + 1:] or [''])[0], option
    assert float(words[words.index('--timeout') + 1]) == 10
    assert '-4' in words
    assert_sends(done.errors, folder, post, PEOPLE, LAB='1')


def test_token_in_the_environment(post: Post, folder: pathlib.Path) -> None:
    """The command takes the token from where it was; it is not in there."""
    post.refuse('mailbox-full')
    done = call(*mail(post), input=TEXT.encode(), cwd=folder,
                env={'SMTP_ACCESS_TOKEN': TOKEN})
    assert TOKEN not in done.errors
    assert TOKEN.encode() not in kept(folder).read_bytes()
    assert_sends(done.errors, folder, post, PEOPLE, SMTP_ACCESS_TOKEN=TOKEN)


def test_no_secret_is_kept(post: Post, folder: pathlib.Path) -> None:
    """Neither in the file nor in the command."""
    post.refuse('wrong-password')
    done = call(*mail(post, '-v'), input=TEXT.encode(), cwd=folder)
    assert PASSWORD not in done.errors
    assert PASSWORD.encode() not in kept(folder).read_bytes()


# --------------------------------------------- when there is nothing to keep


def test_nothing_to_keep(post: Post, folder: pathlib.Path,
                         tmp_path: pathlib.Path) -> None:
    """What was sent, or stands somewhere else, leaves no file behind."""
    path = tmp_path / 'finished.eml'
    path.write_bytes(FINISHED)
    text = [*mail(post)]
    cases: List[Any] = [
        (0, text, TEXT, ''), (0, [*post.options, '--message', '-'], FINISHED,
                              ''),
        (0, [*text, '--dry-run'], TEXT, ''),
        (0, [*text, '--quit-after', 'auth', '--body', 'x'], '', ''),
        (69, [*text, '--body', 'x'], '', 'mailbox-full'),
        (69, [*text, '--body', f'@{path}.txt'], '', 'mailbox-full'),
        (69, [*post.options, '--message', str(path)], '', 'mailbox-full'),
        (64, [*text, '--nonsense'], TEXT, ''),
    ]
    (tmp_path / 'finished.eml.txt').write_text('Hello')
    for code, args, text_in, refusal in cases:
        post.accept()
        if refusal:
            post.refuse(refusal)
        octets = text_in.encode() if isinstance(text_in, str) else text_in
        done = call(*args, input=octets, cwd=folder)
        assert (done.code, list(folder.iterdir())) == (code, []), args


