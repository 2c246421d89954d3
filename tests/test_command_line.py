"""The command line: options, exit codes, verdicts, and odd surroundings.

Most tests call `smtp.main` here and now; those about the surroundings (closed
outputs, locale, time zone) start a process. No test needs a network: where a
server answers, it is the practice server of this folder.
"""

import ast
import base64
import errno
import io
import os
import pathlib
import re
import shlex
import socket
import stat
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional

import conftest
import practice
import pytest
import reading

import smtp

POSIX = pytest.mark.skipif(os.name == 'nt', reason='needs a POSIX shell')
SECRET = practice.PASSWORD
BASIC = ['-f', 'alice@example.com', '-t', 'bob@example.org', '-s', 'Lunch']
MAIL = [*BASIC, '--body', 'Hello Bob']


class Done(NamedTuple):
    """How a run of the program ended."""

    code: int
    out: bytes
    err: str


Call = Callable[..., Done]


def not_sent(done: Done, code: int, *naming: str) -> None:
    """Check an error: its code, its one verdict, its words, and no more."""
    assert done.code == code, done
    assert done.out == b''
    assert len(re.findall(r'(?m)^smtp\.py: Not sent: ', done.err)) == 1
    assert 'May have been sent' not in done.err
    for text in naming:
        assert text in done.err, (text, done.err)
    no_mishap(done)


def no_mishap(done: Done) -> None:
    """Check that nobody sees the inside of the program, or a secret."""
    outputs = done.out.decode('utf-8', 'replace') + done.err
    for sign in ('Traceback', 'Exception ignored', 'Error:'):
        assert sign not in outputs, outputs
    for form in (SECRET, base64.b64encode(SECRET.encode()).decode()):
        assert form not in outputs


@pytest.fixture
def call(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch,
         capsysbinary: Any) -> Call:
    """A function that calls `smtp.main(args)` in an empty folder.

    Its keywords: `input`, the octets of standard input, which is a pipe;
    `password`, for SMTP_PASSWORD.
    """
    folder = tmp_path / 'folder'
    folder.mkdir()
    monkeypatch.chdir(folder)

    def run(*args: str, input: bytes = b'', password: str = '') -> Done:
        monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(
            io.BytesIO(input), encoding='utf-8'))
        monkeypatch.delenv('SMTP_PASSWORD', raising=False)
        if password:
            monkeypatch.setenv('SMTP_PASSWORD', password)
        capsysbinary.readouterr()
        try:
            code = smtp.main(list(args))
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0
        out, err = capsysbinary.readouterr()
        return Done(code, out, err.decode('utf-8', 'backslashreplace'))
    return run


@pytest.fixture
def start(tmp_path: pathlib.Path, clean_environment: Dict[str, str]) -> Call:
    """A function that starts smtp.py as a process without a terminal.

    Its keywords: `shell`, redirections; `env`, variables to add, or to take
    away where the value is None; `input`, octets on a pipe.
    """
    def run(*args: str, shell: str = '', input: Optional[bytes] = None,
            env: Optional[Dict[str, Optional[str]]] = None) -> Done:
        command = [sys.executable, str(conftest.PROGRAM), *args]
        if shell:
            command = ['/bin/sh', '-c', f'exec "$0" "$@" {shell}', *command]
        variables = {**clean_environment, **(env or {})}
        done = subprocess.run(
            command, capture_output=True, timeout=30, cwd=str(tmp_path),
            input=input, start_new_session=True,
            env={name: value for name, value in variables.items()
                 if value is not None},
            **({'stdin': subprocess.DEVNULL} if input is None else {}))
        return Done(done.returncode, done.stdout,
                    done.stderr.decode('utf-8', 'backslashreplace'))
    return run


@pytest.fixture(scope='module')
def server() -> Iterator[practice.PracticeServer]:
    """A server for all tests of this file."""
    with practice.PracticeServer() as running:
        yield running


@pytest.fixture
def session(server: practice.PracticeServer) -> Iterator[List[str]]:
    """The options that lead to the server, which has no messages yet."""
    server.messages.clear()
    server.refusals.clear()
    yield ['--server', server.host, '-p', str(server.port),
           '--ca-file', server.ca_file]
    server.refusals.clear()


@pytest.fixture
def closed_port() -> int:
    """A port of this computer that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        return sock.getsockname()[1]


# -------------------------------------------------------------- the options


def test_the_message_from_options(call: Call, tmp_path: pathlib.Path) -> None:
    """Each option finds its place in the message."""
    path = tmp_path / 'menu.txt'
    path.write_bytes(b'Soup\n')
    done = call(
        '-n', '-f', 'Alice <alice@example.com>', '-t', 'bob@example.org',
        '--to', 'Carol <carol@example.org>, "D, E" <d@example.org>',
        '-c', 'e@example.org', '--bcc', 'f@example.org', '--subject', 'Grüße',
        '--body', 'Hällo', '--html', '<p>Hällo', '-a', str(path),
        '--attach', str(path), '-H', 'X-Lab: 3', '--header', 'X-Lab:4',
        '-H', 'Reply-To: Ö <o@example.com>', '--timezone', 'Asia/Kolkata')
    assert (done.code, done.err) == (0, '')
    reading.lint(done.out)
    mail = reading.read(done.out)
    assert mail.sender == [('Alice', 'alice@example.com')]
    assert mail.to == [('', 'bob@example.org'), ('Carol', 'carol@example.org'),
                       ('D, E', 'd@example.org')]
    assert mail.cc == [('', 'e@example.org')]
    assert (mail.subject, mail.text) == ('Grüße', 'Hällo\r\n')
    assert mail.html == '<p>Hällo\r\n'
    assert mail.files == [('menu.txt', 'text/plain', b'Soup\n')] * 2
    assert b'f@example.org' not in done.out
    assert reading.fields(done.out, 'X-Lab') == ['3', '4']
    assert reading.fields(done.out, 'Date')[0].endswith(' +0530')


def test_dry_run_is_what_is_sent(
        call: Call, session: List[str], tmp_path: pathlib.Path,
        server: practice.PracticeServer, monkeypatch: pytest.MonkeyPatch
        ) -> None:
    """Octet for octet, when chance and clock stand still."""
    monkeypatch.setattr(os, 'urandom', lambda size: b'\7' * size)
    monkeypatch.setattr(smtp, 'get_formatted_date',
                        lambda *_: reading.DATE)
    path = tmp_path / 'a.bin'
    path.write_bytes(bytes(range(256)) * 300)
    mail = [*BASIC, '--body', '.\n..\n.x\nHällo\r\r\n.', '-a', str(path),
            '-b', 'carol@example.org']
    printed = call('-n', *mail)
    assert (printed.code, printed.err) == (0, '')
    sent = call(*mail, *session, '-u', practice.USER, password=SECRET)
    assert sent.code == 0, sent.err
    message, = server.messages
    assert message.content == printed.out
    assert message.recipients == ('bob@example.org', 'carol@example.org')


def test_the_verdict_of_success(call: Call, session: List[str],
                                server: practice.PracticeServer) -> None:
    """One line on standard output, and nothing else anywhere."""
    done = call(*MAIL, *session, password=SECRET)
    assert (done.code, done.err) == (0, '')
    content = server.messages[0].content
    message_id, = reading.fields(content, 'Message-ID')
    assert re.fullmatch(
        r'Sent to bob@example\.org: 250 2\.0\.0 OK .* queued '
        rf'\(Message-ID {re.escape(message_id)}\)\r?\n', done.out.decode())


def test_the_password_leaves_the_environment(call: Call, session: List[str]
                                             ) -> None:
    """Whatever happens next: a program started by us must not see it."""
    for args in ([*MAIL, *session], ['--no-such-option'], [*MAIL, '-n'],
                 ['-t', 'nobody', *BASIC], ['--timezones'], ['--version']):
        done = call(*args, password=SECRET)
        assert 'SMTP_PASSWORD' not in os.environ
        no_mishap(done)


@pytest.mark.parametrize('option', ['--version', '--help', '-h'])
def test_version_and_help(call: Call, option: str) -> None:
    """They go to standard output, and all is well."""
    done = call(option)
    assert (done.code, done.err) == (0, '')
    assert b'smtp.py' in done.out
    if option == '--version':
        assert re.fullmatch(rb'smtp\.py [0-9.]+\r?\n', done.out)


def test_help_knows_every_option_and_exit_code(call: Call) -> None:
    """Also what a script has to know."""
    text = call('--help').out.decode()
    for option in (
            '-f --from -t --to -c --cc -b --bcc -s --subject --body --html -a '
            '--attach -H --header --message --timezone --timezones --server '
            '-p --port --tls --ca-file --ehlo --timeout -4 -6 -u --user --auth '
            '--password-command -v --verbose --explain --step -q --quit-after '
            '-n --dry-run --talk --version -h --help').split():
        assert re.search(rf'(?<![\w-]){option}(?![\w-])', text), option
    for code in (64, 65, 66, 67, 68, 69, 74, 75, 76, 77, 78, 130):
        assert str(code) in text
    assert 'SMTP_PASSWORD' in text


def test_timezones(call: Call) -> None:
    """The names that --timezone takes, a line each."""
    done = call('--timezones')
    assert (done.code, done.err) == (0, '')
    names = done.out.decode().split()
    assert {'UTC', 'Europe/Zurich', 'America/Chicago'} <= set(names)
    assert len(names) > 400


@pytest.mark.parametrize('name', ['Europe/Nowhere', '', '../etc/passwd', 'é',
                                  '\udcff', 'utc\0', 'UTC+3'])
def test_a_zone_that_is_none(call: Call, name: str) -> None:
    """It is a slip of the command line."""
    not_sent(call('-n', *MAIL, '--timezone', name), 64, 'zone')


# -------------------------------------------------------------- exit codes


@pytest.mark.parametrize('args, naming', [
    (['--no-such-option'], '--no-such-option'), (['stray'], ''),
    (['--sub', 'x'], '--sub'), (['-f'], '--from'), (['--to'], '--to'),
    (['-p', '0'], '--port'), (['-p', '70000'], '--port'),
    (['-p', '65536'], '--port'), (['-p', '-1'], '--port'),
    (['-p', 'smtp'], '--port'), (['-p', ''], '--port'),
    (['-p', '9' * 5000], '--port'),
    (['--timeout', '0'], '--timeout'), (['--timeout', '-1'], '--timeout'),
    (['--timeout', 'nan'], '--timeout'), (['--timeout', 'inf'], '--timeout'),
    (['--timeout', 'soon'], '--timeout'), (['--tls', 'maybe'], '--tls'),
    (['--auth', 'ntlm'], '--auth'), (['--server', ''], '--server'),
    (['--tls', 'none', '--auth', 'login'], '--tls'),
    (['--ehlo', ''], '--ehlo'), (['--ehlo', 'two words'], '--ehlo'),
    (['--ehlo', 'a_b.example'], '--ehlo'), (['--ehlo', '[192.0.2]'], '--ehlo'),
    (['--ehlo', 'a\r\nQUIT'], '--ehlo'), (['--ehlo', '192.0.2.7]'], '--ehlo'),
    (['-H', 'no colon'], '--header'), (['-H', 'Bcc: e@example.org'], 'Bcc'),
    (['-H', 'To: e@example.org'], 'To'), (['-H', 'subject: x'], 'subject'),
    (['-H', ''], '--header'), (['-q', 'never'], '--quit-after')],
    ids=lambda value: str(value)[:30])
def test_usage_errors(call: Call, args: List[str], naming: str) -> None:
    """64, the option is named, and a way on is shown."""
    not_sent(call('-n', *MAIL, *args), 64, naming, '--help')


@pytest.mark.parametrize('missing, option', [
    ('-f', '--from'), ('-t', '--to'), ('-s', '--subject')])
def test_a_missing_value_without_a_terminal(call: Call, missing: str,
                                            option: str) -> None:
    """Nobody can be asked, so the option is named."""
    place = BASIC.index(missing)
    args = BASIC[:place] + BASIC[place + 2:]
    not_sent(call('-n', *args, '--body', 'x'), 64, option)
    not_sent(call('-n', *args, input=b'text'), 64, option)


@POSIX
def test_a_missing_password_without_a_terminal(start: Call) -> None:
    """Where to put it is said, and nothing is connected."""
    done = start(*MAIL, '--server', 'nowhere.invalid')
    not_sent(done, 64, 'SMTP_PASSWORD')


def test_two_values_are_missing(call: Call) -> None:
    """The first of the questions is the one that is named."""
    not_sent(call('-n'), 64, '--from')


@pytest.mark.parametrize('args, naming', [
    (['-t', 'nobody'], 'nobody'), (['-f', 'x@y@z'], 'x@y'),
    (['-f', 'a@example.org, b@example.org'], 'From'), (['-t', ''], 'recipient'),
    (['-c', 'Bob <bob>'], 'Cc'), (['-b', 'bob@example..org'], 'Bcc'),
    (['-s', 'a\r\nBcc: eve@example.org'], 'Subject'),
    (['-s', 'a\udcffb'], 'Subject'), (['-t', 'b\udcff@example.org'], 'To'),
    (['--body', 'a\udcff'], 'UTF-8'), (['-H', 'X-A: a\nb'], 'X-A'),
    (['-H', 'Bad Name: x'], 'Bad Name'), (['-H', ': x'], ''),
    (['-H', 'Content-Type: text/html'], 'Content-Type'),
    (['-H', 'MIME-Version: 2'], ''), (['-H', 'Message-Id: <x@y>'], ''),
    (['-H', 'Reply-To: nobody'], 'Reply-To')], ids=lambda value: ascii(value))
def test_messages_that_cannot_be_sent(call: Call, args: List[str], naming: str
                                      ) -> None:
    """65, and what is wrong is named; before any question or connection."""
    rest = list(BASIC)
    if args[0] in rest:
        place = rest.index(args[0])
        del rest[place:place + 2]
    done = call('-n', '--body', 'x', *rest, *args)
    if done.code == 64 and args[0] == '-H':     # told apart by the parser
        done = done._replace(code=65)
    not_sent(done, 65, naming)


@pytest.mark.parametrize('args', [
    ['-a', 'missing.txt'], ['--attach', '.'], ['--body', '@missing.txt'],
    ['--body', '@.'], ['--body', '@'], ['--body', 'x', '--html', '@missing'],
    ['--body', '@/dev/null'], ['--body', '@\udcff'], ['-a', 'a\0b'],
    ['--body', '@a\0b']], ids=lambda args: ascii(args[-1]))
def test_files_that_cannot_be_read(call: Call, args: List[str]) -> None:
    """66, before the password is asked for: nobody types it in vain."""
    not_sent(call(*BASIC, *args, '--server', 'nowhere.invalid'), 66)


def test_a_finished_message_that_is_missing(call: Call) -> None:
    """The same for --message."""
    not_sent(call('--message', 'missing.eml'), 66, 'missing.eml')


@pytest.fixture
def lookup(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], List[Any]]:
    """A function that decides how all host names are looked up."""
    def decide(outcome: Any) -> List[Any]:
        asked: List[Any] = []

        def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
            asked.append(host)
            if isinstance(host, str) and not host.isascii():
                host.encode('idna')             # as the real one does
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome
        monkeypatch.setattr(socket, 'getaddrinfo', getaddrinfo)
        return asked
    return decide


@pytest.mark.parametrize('number, code', [
    (socket.EAI_NONAME, 68), (getattr(socket, 'EAI_NODATA', None), 68),
    (socket.EAI_AGAIN, 75)])
def test_a_host_name_that_does_not_exist(call: Call, lookup: Any,
                                         number: int, code: int) -> None:
    """68 if that is sure; 75 if the name server is silent."""
    lookup(socket.gaierror(number, 'no'))
    done = call(*MAIL, '--server', 'mail.nowhere.invalid', password=SECRET)
    not_sent(done, code, 'mail.nowhere.invalid')


@pytest.mark.parametrize('host', [
    'two words', 'a..b', '.', 'x' * 300, 'ä' * 100, 'ß\u200d', '\udcff', '-x',
    'a\r\nb', 'exa\tmple', 'a@b', '[::1]', '%', 'a:b:c', '\x1b[31m'],
    ids=ascii)
def test_a_host_name_that_cannot_be_one(call: Call, lookup: Any, host: str
                                        ) -> None:
    """A verdict, and not one control character."""
    lookup(socket.gaierror(socket.EAI_NONAME, 'no'))
    done = call(*MAIL, f'--server={host}', password=SECRET)
    assert done.code in (64, 68)
    not_sent(done, done.code)
    assert re.fullmatch('[ -~\n\xa1-\u1fff]*', done.err)


def test_a_host_name_with_nul() -> None:
    """It can come by the Python interface only."""
    with pytest.raises(smtp.SMTPException):
        smtp.smtp_send(SECRET, reading.INFO, 'x', server='local\0host')


def test_nobody_listens(call: Call, closed_port: int) -> None:
    """75, with each address and its reason."""
    done = call(*MAIL, '--server', '127.0.0.1', '-p', str(closed_port),
                password=SECRET)
    not_sent(done, 75, '127.0.0.1', str(closed_port), 'refused')


def addresses(*pairs: Any) -> List[Any]:
    """Return what getaddrinfo returns for pairs of IP address and port."""
    return [(socket.AF_INET6, socket.SOCK_STREAM, 6, '', (host, port, 0, 0))
            if ':' in host else
            (socket.AF_INET, socket.SOCK_STREAM, 6, '', (host, port))
            for host, port in pairs]


def test_all_addresses_are_tried(call: Call, lookup: Any, closed_port: int,
                                 server: practice.PracticeServer) -> None:
    """IPv6 first and dead; then IPv4."""
    lookup(addresses(('::1', closed_port), ('127.0.0.1', closed_port),
                     ('127.0.0.1', server.port)))
    done = call('-q', 'connect', '--server', 'localhost')
    assert done.code == 0, done.err
    lookup(addresses(('::1', closed_port), ('127.0.0.1', closed_port)))
    done = call(*MAIL, password=SECRET)
    not_sent(done, 75, '::1', '127.0.0.1')


def test_a_computer_without_ipv6(
        call: Call, lookup: Any, closed_port: int,
        server: practice.PracticeServer, monkeypatch: pytest.MonkeyPatch
        ) -> None:
    """It cannot even make such a socket, and goes on to the next address."""
    real = socket.socket

    class Without(real):        # type: ignore[valid-type, misc]
        def __init__(self, family: int = -1, *args: Any, **kwargs: Any
                     ) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, 'no such family')
            super().__init__(family, *args, **kwargs)
    lookup(addresses(('::1', closed_port), ('127.0.0.1', server.port)))
    monkeypatch.setattr(socket, 'socket', Without)
    done = call('-q', 'connect', '--server', 'localhost')
    assert done.code == 0, done.err
    lookup(addresses(('::1', closed_port)))
    not_sent(call(*MAIL, password=SECRET), 75, '::1')


@pytest.mark.parametrize('option, family', [
    ('-4', socket.AF_INET), ('-6', socket.AF_INET6), (None, 0)])
def test_families(call: Call, monkeypatch: pytest.MonkeyPatch, option: str,
                  family: int) -> None:
    """-4 and -6 reach the look-up."""
    asked: List[Any] = []

    def getaddrinfo(host: str, port: int, family: int = 0, *args: Any,
                    **kwargs: Any) -> Any:
        asked.append((host, port, family))
        raise socket.gaierror(socket.EAI_NONAME, 'no')
    monkeypatch.setattr(socket, 'getaddrinfo', getaddrinfo)
    call(*MAIL, *[option] * bool(option), password=SECRET)
    assert asked == [('smtp.office365.com', 587, family)]


def test_interrupted(call: Call, lookup: Any) -> None:
    """130 for Ctrl-C."""
    lookup(KeyboardInterrupt())
    not_sent(call(*MAIL, password=SECRET), 130, 'interrupted')


def test_a_bug_of_ours(call: Call, lookup: Any) -> None:
    """70, with a verdict all the same."""
    lookup(RuntimeError('the lookup is broken'))
    done = call(*MAIL, password=SECRET)
    assert done.code == 70
    assert 'smtp.py: Not sent: ' in done.err


@pytest.mark.parametrize('content', [None, b'', b'no certificate', b'\xff'])
def test_settings_that_are_at_fault(
        call: Call, content: Optional[bytes], tmp_path: pathlib.Path,
        session: List[str], server: practice.PracticeServer) -> None:
    """A CA file that is missing or none: a file, or a setting, at fault."""
    path = tmp_path / 'ca.pem'
    if content is not None:
        path.write_bytes(content)
    done = call(*MAIL, *session, '--ca-file', str(path), password=SECRET)
    assert done.code in (66, 78)
    not_sent(done, done.code, 'ca.pem')
    assert not server.messages


@POSIX
@pytest.mark.parametrize('command', [
    'false', 'no-such-command-at-all', 'true', '', '"', "printf '\\377'",
    "sh -c 'echo oops >&2; exit 3'"])
def test_a_password_command_that_fails(call: Call, command: str) -> None:
    """78, with what it said; nothing is connected."""
    done = call(*MAIL, '--password-command', command,
                '--server', 'nowhere.invalid')
    if command == '' and done.code == 64:
        done = done._replace(code=78)
    not_sent(done, 78)
    assert ('oops' in done.err) == ('oops' in command)


@POSIX
def test_a_password_command(call: Call, session: List[str]) -> None:
    """The first line of its output is the password."""
    command = f"printf '%s\\n' '{SECRET}' 'user: alice'"
    done = call(*MAIL, *session, '-v', '--password-command', command)
    assert done.code == 0, done.err
    no_mishap(done)


# ---------------------------------------------------------------- the text


def text_of(done: Done) -> str:
    """Return the text of the message that a dry run printed."""
    assert (done.code, done.err) == (0, '')
    reading.lint(done.out)
    return reading.read(done.out).text


TEXTS = [
    (b'Hello\nBob', 'Hello\r\nBob\r\n'), (b'', ''),
    ('Grüße\r\n'.encode(), 'Grüße\r\n'), (b'.\n..\n', '.\r\n..\r\n'),
    (b'\xef\xbb\xbfbom', 'bom\r\n'), ('a\u2028b\x0b'.encode(), 'a\u2028b\v\r\n'),
    ('\ufeffgrün\n'.encode('utf-16-le'), 'grün\r\n'),
    ('\ufeffgrün\n'.encode('utf-16-be'), 'grün\r\n'), (b'a\0b', 'a\0b\r\n')]


@pytest.mark.parametrize('octets, text', TEXTS)
def test_text_from_a_pipe_or_a_file(call: Call, octets: bytes, text: str,
                                    tmp_path: pathlib.Path) -> None:
    """UTF-8 with or without a mark, or UTF-16 with one; it is all the same."""
    assert text_of(call('-n', *BASIC, input=octets)) == text
    assert text_of(call('-n', *BASIC, '--body', '-', input=octets)) == text
    path = tmp_path / 'text file.txt'
    path.write_bytes(octets)
    assert text_of(call('-n', *BASIC, '--body', f'@{path}',
                        input=b'not this')) == text


@pytest.mark.parametrize('text', ['', ' ', '-x', '---', 'a@b', 'a\nb', '"'])
def test_text_from_the_option(call: Call, text: str) -> None:
    """Only a leading @ and a lone hyphen mean something else."""
    done = call('-n', *BASIC, f'--body={text}', input=b'not this')
    assert text_of(done) == reading.normal(text)


@pytest.mark.parametrize('octets, offset', [
    (b'\xff', 0), (b'Gr\xfc\xdfe', 2), (b'x' * 100_000 + b'\xe9', 100_000),
    ('é'.encode() + b'\xed\xa0\x80', 2), (b'abc\xe2\x82', 3),
    (b'\xff\xfeab\x00\xd8', 4)])
def test_text_that_is_not_utf_8(call: Call, octets: bytes, offset: int,
                                tmp_path: pathlib.Path) -> None:
    """65, with the offset of the first octet that is wrong."""
    path = tmp_path / 'latin.txt'
    path.write_bytes(octets)
    for done in (call('-n', *BASIC, input=octets),
                 call('-n', *BASIC, '--body', f'@{path}')):
        not_sent(done, 65, 'UTF', f'offset {offset}')


def test_no_standard_input_at_all(call: Call,
                                  monkeypatch: pytest.MonkeyPatch) -> None:
    """As under some schedulers: the text is empty."""
    class Gone:
        def TextIOWrapper(self, *_: Any, **__: Any) -> None:
            return None
        BytesIO = io.BytesIO
    monkeypatch.setattr(sys.modules[__name__], 'io', Gone())
    assert text_of(call('-n', *BASIC)) == ''


# ------------------------------------------------------- text is never lost


def command_of(done: Done) -> List[str]:
    """Return the arguments of the command that an error ends with."""
    words = shlex.split(done.err.rstrip('\n').split('\n')[-1])
    return words[2:]        # without Python and smtp.py


def kept(done: Done) -> pathlib.Path:
    """Return the file that was kept, which is ours alone."""
    found = re.search('--message[ =](.*?)(?: --|$)',
                      ' '.join(command_of(done)))
    assert found, done.err
    path = pathlib.Path(found[1]).absolute()
    assert re.fullmatch(r'unsent-[\w-]+\.eml', path.name)
    assert not path.is_symlink()
    if os.name != 'nt':
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return path


def test_piped_text_is_kept_and_can_be_sent(
        call: Call, session: List[str], server: practice.PracticeServer
        ) -> None:
    """The last line of the error is the command that sends it."""
    server.refusals['rcpt'] = '451 4.7.1 Greylisting in action'
    args = ['-f', 'Alice <alice@example.com>', '-t', 'bob@example.org',
            '-c', 'Ö <o@example.org>', '-b', 'carol@example.org', '-s', 'Grüße']
    done = call(*args, *session, input='.\nHällo\n'.encode(), password=SECRET)
    not_sent(done, 75, '451 4.7.1')
    path = kept(done)
    assert path.parent == pathlib.Path.cwd()
    assert SECRET.encode() not in path.read_bytes()
    server.refusals.clear()
    again = call(*command_of(done), password=SECRET)
    assert again.code == 0, again.err
    message, = server.messages
    assert message.recipients == (
        'bob@example.org', 'o@example.org', 'carol@example.org')
    assert message.sender == 'alice@example.com'
    mail = reading.read(message.content)
    assert (mail.subject, mail.text) == ('Grüße', '.\r\nHällo\r\n')
    reading.lint(message.content)       # no Bcc in it
    assert len(list(pathlib.Path.cwd().glob('unsent-*'))) == 1


def test_nothing_is_kept_without_need(call: Call, session: List[str],
                                      closed_port: int) -> None:
    """Neither what was sent, nor what stands on the command line or a file."""
    assert call(*BASIC, *session, input=b'x', password=SECRET).code == 0
    assert call(*MAIL, '--server', '127.0.0.1', '-p', str(closed_port),
                password=SECRET).code == 75
    assert call('-n', *BASIC, input=b'x').code == 0
    done = call(*BASIC, '--server', '127.0.0.1', '-p', str(closed_port),
                input=b'', password=SECRET)
    not_sent(done, 75)
    assert not list(pathlib.Path.cwd().iterdir())


def test_text_is_kept_if_the_message_cannot_be_made(call: Call) -> None:
    """It is the text that was work, whatever else was wrong."""
    done = call(*BASIC, '-H', 'X: a\udcff', '--server', 'nowhere.invalid',
                input=b'precious words', password=SECRET)
    not_sent(done, 65, 'X')
    files = list(pathlib.Path.cwd().glob('unsent-*'))
    assert (not files and 'precious words' in done.err) \
        or b'precious words' in files[0].read_bytes()


@POSIX
@pytest.mark.parametrize('link', [True, False])
def test_keeping_never_writes_over_anything(
        call: Call, closed_port: int, monkeypatch: pytest.MonkeyPatch,
        tmp_path: pathlib.Path, link: bool) -> None:
    """Not over a file of that name, nor through a link."""
    moment, form = time.localtime(0), time.strftime
    monkeypatch.setattr(time, 'strftime', lambda text, *_: form(text, moment))
    (tmp_path / 'temporary').mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'temporary'))
    args = [*BASIC, '--server', '127.0.0.1', '-p', str(closed_port)]
    path = kept(call(*args, input=b'first', password=SECRET))
    victim = tmp_path / 'victim'
    victim.write_bytes(b'mine')
    path.unlink()
    if link:
        path.symlink_to(victim)
    else:
        victim.rename(path)
        victim = path
    done = call(*args, input=b'second words', password=SECRET)
    not_sent(done, 75)
    assert victim.read_bytes() == b'mine'
    assert 'second words' in done.err \
        or b'second words' in kept(done).read_bytes()


@POSIX
def test_no_folder_takes_files(call: Call, closed_port: int,
                               monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the text is in the error, as the last resort."""
    pathlib.Path.cwd().rmdir()
    monkeypatch.setattr(tempfile, 'tempdir', '/nonexistent')
    done = call(*BASIC, '--server', '127.0.0.1', '-p', str(closed_port),
                input='precious wörds'.encode(), password=SECRET)
    not_sent(done, 75, 'precious wörds')


# ---------------------------------------------------------- surroundings


@POSIX
@pytest.mark.parametrize('shell', ['>&-', '> /dev/full'])
def test_sent_without_standard_output(start: Call, session: List[str],
                                      server: practice.PracticeServer,
                                      shell: str) -> None:
    """It is sent, and where the verdict cannot go, standard error takes it."""
    if 'full' in shell and not os.path.exists('/dev/full'):
        pytest.skip('this system has no /dev/full')
    done = start(*MAIL, *session, shell=shell, env={'SMTP_PASSWORD': SECRET})
    assert done.code == 0, done.err
    assert re.match('Sent to bob@example.org: 250 ', done.err)
    no_mishap(done)
    assert len(server.messages) == 1


@POSIX
@pytest.mark.parametrize('args', [
    ['-n', *MAIL], ['--timezones'], ['--version'], ['--help']],
    ids=lambda args: args[0])
@pytest.mark.parametrize('shell', ['>&-', '> /dev/full'])
def test_printed_to_nowhere(start: Call, args: List[str], shell: str) -> None:
    """No traceback, and for the message itself: no success either."""
    if 'full' in shell and not os.path.exists('/dev/full'):
        pytest.skip('this system has no /dev/full')
    done = start(*args, shell=shell)
    no_mishap(done)
    if args[0] == '-n':
        assert done.code not in (0, 1, 120), done


@POSIX
def test_a_reader_that_has_gone(tmp_path: pathlib.Path,
                                clean_environment: Dict[str, str]) -> None:
    """As in `smtp.py -n ... | head -1`."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, str(conftest.PROGRAM), '-n', *MAIL],
        stdin=subprocess.DEVNULL, stdout=write_end, stderr=subprocess.PIPE,
        env=clean_environment, cwd=str(tmp_path), timeout=30)
    os.close(write_end)
    no_mishap(Done(done.returncode, b'', done.stderr.decode()))
    assert done.returncode not in (1, 120)


@POSIX
@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no /dev/full')
def test_a_dry_run_keeps_nothing(start: Call, tmp_path: pathlib.Path) -> None:
    """It sends nothing, so nothing is unsent."""
    done = start('-n', *BASIC, input=b'Hello', shell='> /dev/full')
    not_sent(done, done.code)
    assert not list(tmp_path.glob('unsent-*'))


@POSIX
@pytest.mark.parametrize('last', [
    None, 'S: 220', 'C: MAIL', 'C: DATA', 'S: 354', 'C: .', 'C: QUIT'])
def test_nobody_reads_the_transcript(
        last: Optional[str], session: List[str], tmp_path: pathlib.Path,
        server: practice.PracticeServer, clean_environment: Dict[str, str]
        ) -> None:
    """As in `smtp.py -v ... 2>&1 | head`: the exit code is true all the same.

    The reader goes away after this line; where the program is by then is a
    matter of chance.
    """
    process = subprocess.Popen(
        [sys.executable, str(conftest.PROGRAM), *MAIL, *session, '-v'],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, cwd=str(tmp_path),
        env={**clean_environment, 'SMTP_PASSWORD': SECRET})
    assert process.stderr
    with process.stderr:
        for line in process.stderr if last else ():
            if line.decode().startswith(last or ''):
                break
    try:
        code = process.wait(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert code in ((0, 74) if server.messages else (69, 74, 75))


@POSIX
@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no /dev/full')
def test_no_room_for_the_transcript(start: Call, session: List[str],
                                    server: practice.PracticeServer) -> None:
    """The same when it goes to a disk that is full."""
    done = start(*MAIL, *session, '-v', shell='2> /dev/full',
                 env={'SMTP_PASSWORD': SECRET})
    assert done.code in ((0, 74) if server.messages else (69, 74, 75))


@POSIX
@pytest.mark.parametrize('args, code', [
    (['-n', *MAIL], 0), (['-n', *MAIL, '-t', 'nobody'], 65),
    (['--no-such-option'], 64)], ids=['fine', 'address', 'usage'])
@pytest.mark.parametrize('shell', ['2>&-', '2> /dev/full'])
def test_nowhere_for_errors(start: Call, args: List[str], code: int,
                            shell: str) -> None:
    """The exit code is still right."""
    if 'full' in shell and not os.path.exists('/dev/full'):
        pytest.skip('this system has no /dev/full')
    assert start(*args, shell=shell).code == code


@POSIX
def test_standard_input_closed(start: Call) -> None:
    """The text is empty; nobody can be asked."""
    assert text_of(start('-n', *BASIC, shell='<&-')) == ''
    not_sent(start('-n', shell='<&-'), 64, '--from')
    done = start('-n', '--message', '-', shell='<&-')
    assert done.code in (64, 65, 66)
    not_sent(done, done.code)


@pytest.mark.parametrize('env', [
    {'LC_ALL': 'C'}, {'LC_ALL': 'POSIX', 'HOME': None},
    {'LC_ALL': None, 'HOME': '/nonexistent', 'TERM': None},
    {'LC_ALL': 'xx_XX.NOT-A-CHARSET'}], ids=lambda env: str(env['LC_ALL']))
def test_locales(start: Call, env: Dict[str, Optional[str]]) -> None:
    """UTF-8 it is, whatever the locale says."""
    done = start('-n', '-f', 'Älice <alice@example.com>', '-t',
                 'bob@example.org', '-s', 'Grüße', env=env,
                 input='Hällo'.encode())
    assert text_of(done) == 'Hällo\r\n'
    mail = reading.read(done.out)
    assert mail.sender == [('Älice', 'alice@example.com')]
    assert mail.subject == 'Grüße'


@POSIX
def test_an_error_in_a_locale_that_lacks_its_letters(start: Call) -> None:
    """Letters that cannot be printed are escaped."""
    done = start('-n', *MAIL, '-c', 'bób@', env={
        'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'})
    not_sent(done, 65, 'Cc')
    done = start('-n', *MAIL, '-c', 'bób@', env={'PYTHONIOENCODING': 'ascii'})
    not_sent(done, 65, r'b\xf3b@')


@POSIX
@pytest.mark.parametrize('zone, offset', [
    (None, '[+-][0-9]{4}'), ('', '[+]0000'), ('UTC', '[+]0000'),
    ('UTC+3', '-0300'), ('<+0530>-5:30', '[+]0530'), ('bogus', '[+]0000'),
    ('No/Such_Zone', '[+]0000'), ('../../etc/passwd', '[+]0000'),
    ('EST5EDT,M3.2.0,M11.1.0', '-0[45]00'), ('AAA-1:02:03', '[+]0102'),
    ('AAA0:00:30', '-0000|[+]0000'), ('Asia/Kolkata', '[+]0530'),
    (':Asia/Kolkata', '[+]0530'), ('/usr/share/zoneinfo/Asia/Kolkata',
                                   '[+]0530')])
def test_time_zones_of_the_environment(start: Call, zone: Optional[str],
                                       offset: str) -> None:
    """The date is that of the C library, and always by the grammar."""
    if 'Kolkata' in str(zone) and not os.path.exists(
            '/usr/share/zoneinfo/Asia/Kolkata'):
        pytest.skip('this system has no time zones')
    done = start('-n', *MAIL, env={'TZ': zone})
    assert (done.code, done.err) == (0, '')
    date, = reading.fields(done.out, 'Date')
    assert reading.DATE_FORM.fullmatch(date)
    assert re.fullmatch(offset, date.rpartition(' ')[2])


@POSIX
def test_dates_are_english(tmp_path: pathlib.Path,
                           clean_environment: Dict[str, str]) -> None:
    """Also where the days are called Montag, Dienstag and so on."""
    try:
        subprocess.run(
            ['localedef', '-i', 'de_DE', '-f', 'UTF-8',
             str(tmp_path / 'de_DE.UTF-8')], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip('no German locale can be made here')
    program = ('import locale, time; locale.setlocale(locale.LC_ALL, ""); '
               'print(time.strftime("%A", time.gmtime(0))); import smtp; '
               'print(smtp.get_formatted_date("Europe/Zurich"))')
    done = subprocess.run(
        [sys.executable, '-c', program], capture_output=True, text=True,
        cwd=str(conftest.ROOT), check=True, env={
            **clean_environment, 'LC_ALL': 'de_DE.UTF-8',
            'LOCPATH': str(tmp_path)})
    day, date = done.stdout.split('\n')[:2]
    assert day == 'Donnerstag'
    assert reading.DATE_FORM.fullmatch(date)


@pytest.mark.parametrize('name, said', [
    ('host.example.com', 'host.example.com'), ('my_host.example.com', None),
    ('host', None), ('localhost', None), ('', None), ('a..b', None),
    ('host.example.com.', None), ('-a.example.com', None),
    ('büro.example.com', None), ('a b.example.com', None),
    ('x' * 64 + '.example.com', None), ('192.0.2.7', None),
    ('a.example.com\r\nQUIT', None), ('.'.join(['x' * 60] * 5), None)],
    ids=lambda name: ascii(name)[:24])
def test_what_we_are_called(call: Call, session: List[str], name: str,
                            said: Optional[str],
                            monkeypatch: pytest.MonkeyPatch) -> None:
    """A host name that servers refuse gives way to the IP address."""
    monkeypatch.setattr(socket, 'gethostname', lambda: name)
    monkeypatch.setattr(socket, 'getfqdn', lambda *_: name)
    done = call('-v', '-q', 'ehlo', *session)
    assert done.code == 0, done.err
    assert re.findall(r'(?m)^C: EHLO (.*)$', done.err) == [
        said or '[127.0.0.1]']


def test_a_diagram_that_cannot_be_written(call: Call, session: List[str],
                                          server: practice.PracticeServer
                                          ) -> None:
    """The verdict is true all the same."""
    done = call(*MAIL, *session, '--diagram', 'no-such-folder/x',
                password=SECRET)
    no_mishap(done)
    assert (done.code == 0) == bool(server.messages)
    assert ('Sent to' in done.out.decode()) == bool(server.messages)


# -------------------------------------------------------------- the source


def test_metadata_are_the_requirements() -> None:
    """`uv run smtp.py` installs what requirements.txt says."""
    source = conftest.PROGRAM.read_text(encoding='utf-8')
    block = re.search('(?m)^# /// script\n((?:#.*\n)+?)# ///$', source)
    assert block
    content = re.sub('(?m)^# ?', '', block[1])
    listed = re.search(r'dependencies\s*=\s*(\[[^]]*\])', content)
    assert listed
    wanted = [line.strip() for line in (
        conftest.ROOT / 'requirements.txt').read_text().split('\n')
        if line.strip() and not line.startswith('#')]
    assert sorted(ast.literal_eval(listed[1])) == sorted(wanted)
    assert {re.split('[<>=]', name)[0] for name in wanted} == {
        'pytz', 'tzlocal'}


def imports_of(source: str) -> List[str]:
    """Return the top-level name of everything that is imported anywhere."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level and node.module
            names.append(node.module)
    return [name.partition('.')[0] for name in names]


def test_what_is_imported() -> None:
    """SMTP and messages are spoken here by ourselves."""
    source = conftest.PROGRAM.read_text(encoding='utf-8')
    names = set(imports_of(source))
    assert not names & {'smtplib', 'email', 'asyncore', 'asynchat', 'smtpd',
                        'quopri', 'importlib', 'ctypes'}
    assert '__import__' not in source
    if sys.version_info >= (3, 10):
        assert names - sys.stdlib_module_names == {'pytz', 'tzlocal'}
    at_the_top = imports_of('\n'.join(
        ast.unparse(node) for node in ast.parse(source).body
        if isinstance(node, (ast.Import, ast.ImportFrom))))
    assert not set(at_the_top) & {'fcntl', 'termios', 'tty', 'pty', 'pwd',
                                  'grp', 'resource', 'readline', 'msvcrt'}
    assert 'os.EX_' not in source


def test_nothing_runs_at_import(tmp_path: pathlib.Path,
                                clean_environment: Dict[str, str]) -> None:
    """No output, no socket, no process, no thread, no signal handler."""
    program = '''
import signal, sys, threading
before = [signal.getsignal(each) for each in signal.valid_signals()]
seen = []
sys.addaudithook(lambda event, args: seen.append((event, args)))
sys.argv = ['x', '--no-such-option']
import smtp
events = [event for event, args in seen if event.startswith(('socket.',
    'subprocess.', 'os.putenv', 'os.unsetenv', 'os.system', 'signal.'))
    and event != 'socket.__new__' or event == 'open' and
    isinstance(args[1], str) and set(args[1]) & set('wax+')
    and '__pycache__' not in str(args[0])]
assert not events, events
assert threading.active_count() == 1
assert before == [signal.getsignal(each) for each in signal.valid_signals()]
'''
    done = subprocess.run(
        [sys.executable, '-B', '-c', program], capture_output=True, text=True,
        cwd=str(conftest.ROOT), env=clean_environment, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')


def test_the_interface_of_the_lab() -> None:
    """The names that the assignment prescribes."""
    assert smtp.SMTP_SERVER == 'smtp.office365.com'
    assert smtp.SMTP_PORT == 587
    assert isinstance(smtp.SMTP_DOMAINNAME, str)
    assert reading.DATE_FORM.fullmatch(smtp.get_formatted_date())
    assert smtp.get_formatted_date('UTC').endswith(' +0000')
    with pytest.raises(smtp.SMTPException):
        smtp.get_formatted_date('Europe/Nowhere')
    for error in (value for value in vars(smtp).values()
                  if isinstance(value, type)
                  and issubclass(value, smtp.SMTPException)):
        assert error.__doc__
        assert error.exit_code in (0, *range(64, 71), *range(74, 79))
        assert error.may_have_been_sent == (error.exit_code == 74)
