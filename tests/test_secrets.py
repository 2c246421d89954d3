r"""Where passwords and tokens come from, and where they never go.

They come from --password-command, from $SMTP_PASSWORD or $SMTP_ACCESS_TOKEN,
or from a person at the terminal. They go to the server, inside TLS, and to no
output, no exception, no traceback, no other program and no list of processes.

A promise has its limits: the environment that a process was started with can
be read in /proc/PID/environ by its own user, and by root, as long as it runs.
No program can take that back; --password-command leaves nothing there.
"""

import base64
import contextlib
import io
import json
import os
import pathlib
import re
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import time
import traceback
from typing import Any, Callable, Dict, Iterator, List, Tuple

import pytest
import scripted
from posting import (
    ALICE,
    BOB,
    CAROL,
    PASSWORD,
    PROGRAM,
    TOKEN,
    Done,
    Post,
    call,
)

import smtp

posix = pytest.mark.skipif(os.name == 'nt', reason='needs a POSIX shell')
MAIL = ['--from', ALICE, '--to', BOB, '--subject', 'Hello', '--body', 'Hello']
EVIL = ''.join(map(chr, [*range(32), *range(127, 160), 0x61c, 0x200b, 0x200e,
                         0x200f, *range(0x2028, 0x202f),
                         *range(0x2066, 0x206a), 0xfeff]))


def send(post: Post, *options: str, **env: str) -> Done:
    """Send a mail with no secret but what the test gives."""
    return call(*post.options, *MAIL, *options, env=env)


def forms_of(secret: str) -> Iterator[str]:
    """Yield what any base64 of a text with this secret in it has in common."""
    yield secret
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + secret.encode()).decode()
        # the first and the last four characters depend on what is around
        yield encoded[4 if before else 0:-4]


def assert_secret(secret: str, *outputs: str) -> None:
    """The secret is in no output, in no form."""
    for output in outputs:
        for form in forms_of(secret):
            assert form not in output


def assert_printable(text: str) -> None:
    """Nothing in it that a terminal would obey."""
    for line in text.split('\n'):
        assert line.isprintable(), ascii(line)


def assert_refused(done: Done, code: int, *words: str) -> None:
    """smtp.py has one verdict, and these words to say."""
    assert done.code == code, done.errors
    assert done.output == b''
    verdicts = re.findall(r'(?m)^(Sent to|smtp\.py: (?!note)[\w ]+: )',
                          done.errors)
    assert verdicts == ['smtp.py: Not sent: ']
    for word in words:
        assert word in done.errors, done.errors
    assert_printable(done.errors)


# -------------------------------------------------------- --password-command


def python(code: str) -> str:
    """Return the command that runs this Python program."""
    return shlex.join([sys.executable, '-I', '-S', '-c', code])


@pytest.mark.parametrize('code', [
    "print('open-sesame')",
    "import sys; sys.stdout.write('open-sesame')",
    "print('open-sesame\\nuser: alice\\nurl: example.com')",
    "import os; os.write(1, b'open-sesame\\r\\nuser\\r\\n')",
    "import os; os.write(1, b'open-sesame\\nGr\\xfc\\xdfe\\n')",
    "import os; os.write(2, b'a warning\\n'); print('open-sesame')",
    "print('open-sesame\\n' + 'x' * 300000)",
], ids=['line', 'no line end', 'more lines', 'CRLF', 'Latin 1 below',
        'warning', 'much below'])
def test_first_line_of_the_command(code: str, post: Post) -> None:
    """That is how `pass` and its like store what belongs to a password."""
    done = send(post, '--password-command', python(code))
    assert (done.code, done.errors) == (0, '')
    assert post.only().user == ALICE


@pytest.mark.parametrize('words', [
    ['printf', '%s\n', 'open-sesame'], ['printf', 'open-%s\\n', 'sesame'],
    ['sh', '-c', 'echo open-"$1" | cat', 'sh', 'sesame'],
], ids=str)
@posix
def test_words_of_the_command(words: List[str], post: Post) -> None:
    """Quoted as for a shell; a shell runs only if one is named."""
    assert send(post, '--password-command', shlex.join(words)).code == 0
    post.only()


@posix
def test_never_through_a_shell(post: Post, tmp_path: pathlib.Path) -> None:
    """What a shell would do, is not done."""
    for command in ('printf open-sesame; touch made', 'printf $(touch made)',
                    'printf open-sesame > made', 'printf `touch made`',
                    'printf open-sesame & touch made',
                    'printf open-sesame\ntouch made', 'printf ~ $HOME *'):
        done = call(*post.options, *MAIL, '--password-command', command,
                    env={}, cwd=tmp_path)
        assert done.code in (0, 77, 78)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('code, words', [
    ("import os; os.write(2, b'the store is locked\\n'); os._exit(3)",
     ['the store is locked', '3']),
    ("import os; os.write(1, b'hun' b'ter-two\\n'); os._exit(1)", ['1']),
    ("import os; os.write(2, 'Gr\\xfc\\xdfe\\n\\x1b[2J\\u202e\\nSent to you'"
     ".encode('utf-8')); os._exit(1)", ['Grüße']),
    ("import os; os.write(2, b'\\xff\\xfe'); os._exit(1)", ['1']),
    ('', ['empty']), ("print()", ['empty']),
    ("print('\\nhun' 'ter-two')", ['empty']),
    ("import os; os.write(1, b'hun' b'ter-two\\xff\\n')", ['UTF-8']),
    ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", ['15']),
], ids=['says why', 'silent', 'hostile', 'binary', 'nothing', 'empty line',
        'empty first line', 'no UTF-8', 'killed'])
def test_command_that_fails(code: str, words: List[str], post: Post) -> None:
    """78, with its own words; no connection, no secret."""
    done = send(post, '--password-command', python(code), '-v',
                SMTP_PASSWORD=PASSWORD, SMTP_ACCESS_TOKEN=TOKEN)
    assert_refused(done, 78, '--password-command', *words)
    assert 'S: 220' not in done.errors
    assert 'hunter' not in done.errors
    assert post.messages == []


@pytest.mark.parametrize('command, words', [
    ('no-such-program --get', ['no-such-program']),
    ('./no-such-program', ['no-such-program']),
    ('', ['--password-command']), ('  ', ['--password-command']),
    ("''", ['--password-command']),
    ('printf "open', ['quotation']), ("printf 'open", ['quotation']),
    ('printf open\\', ['escape']),
])
def test_command_that_cannot_run(command: str, words: List[str], post: Post
                                 ) -> None:
    """78; it is said what was to be run, or what is wrong with its words."""
    done = send(post, f'--password-command={command}', SMTP_PASSWORD=PASSWORD)
    assert_refused(done, 78, *words)
    assert 'list index' not in done.errors


def test_folder_as_a_command(post: Post, tmp_path: pathlib.Path) -> None:
    """Neither a program nor allowed."""
    done = send(post, '--password-command', shlex.quote(str(tmp_path)))
    assert_refused(done, 78, str(tmp_path))


def test_command_does_not_swallow_the_text(post: Post) -> None:
    """Standard input holds the text; a program that reads it gets nothing."""
    command = python("import sys; sys.stdin.read(); print('open-sesame')")
    args = [*post.options, '--from', ALICE, '--to', BOB, '--subject', 'x',
            '--password-command', command]
    done = subprocess.run([sys.executable, str(PROGRAM), *args],
                          input=b'The text.\n', capture_output=True)
    assert done.returncode == 0, done.stderr
    assert post.only().parse().get_content().strip() == 'The text.'


def test_command_sees_no_other_secret(
        post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """$SMTP_PASSWORD and $SMTP_ACCESS_TOKEN are not handed on."""
    monkeypatch.delenv('SMTP_TEST_REAL_SERVERS', raising=False)
    command = python("import os, sys; os.write(2, repr({name: value for name, "
                     "value in os.environ.items() if 'SMTP' in name})"
                     ".encode()); sys.exit(1)")
    done = send(post, '--password-command', command, SMTP_PASSWORD='hunter-2',
                SMTP_ACCESS_TOKEN='hunter-3', SMTP_LAB='yes')
    assert_refused(done, 78, "{'SMTP_LAB': 'yes'}")


@posix
def test_interrupted_command(post: Post, clean_environment: Dict[str, str]
                             ) -> None:
    """A command that waits for ever ends with smtp.py."""
    with socket.create_server(('127.0.0.1', 0)) as listener:
        listener.settimeout(10)
        command = python(
            'import socket, time; here = socket.create_connection('
            f'("127.0.0.1", {listener.getsockname()[1]})); time.sleep(60)')
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), *post.options, *MAIL,
             '--password-command', command], env=clean_environment,
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding='utf-8')
        try:
            running, _ = listener.accept()
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=10)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 143
    assert errors.startswith('smtp.py: Not sent: ')
    with running:
        running.settimeout(10)
        assert running.recv(1) == b'', 'the command runs on'


# ---------------------------------------------------------- the environment


def test_variables_are_removed(monkeypatch: pytest.MonkeyPatch, post: Post
                               ) -> None:
    """They are read once, and gone before anything else happens."""
    at_login: List[Any] = []
    log_in = smtp.open_socket

    def spy(*arguments: Any) -> Any:
        """Look at the environment when the session begins."""
        at_login.append([name for name in os.environ if name in (
            'SMTP_PASSWORD', 'SMTP_ACCESS_TOKEN')])
        at_login.append(subprocess.run(
            [sys.executable, '-I', '-S', '-c', 'import os; print(os.environ)'],
            stdout=subprocess.PIPE, check=True).stdout)
        return log_in(*arguments)

    monkeypatch.setattr(smtp, 'open_socket', spy)
    done = send(post, SMTP_PASSWORD='hunter-2', SMTP_ACCESS_TOKEN=TOKEN)
    assert done.code == 0
    assert at_login[0] == []
    assert b'hunter-2' not in at_login[1]
    assert TOKEN.encode() not in at_login[1]


def test_variables_are_removed_whatever_happens(
        monkeypatch: pytest.MonkeyPatch) -> None:
    """By a usage error, too; a program that calls main() is not surprised."""
    monkeypatch.delenv('SMTP_TEST_REAL_SERVERS', raising=False)
    for args in (['--nonsense'], ['--version'], ['-n', '--body', 'x']):
        code = ('import os, sys, smtp\ntry: smtp.main(sys.argv[1:])\n'
                'except SystemExit: pass\nprint([n for n in os.environ if '
                '"SMTP_" in n])')
        done = subprocess.run(
            [sys.executable, '-c', code, *args], stdin=subprocess.DEVNULL,
            env={**os.environ, 'PYTHONPATH': str(PROGRAM.parent),
                 'SMTP_PASSWORD': 'x', 'SMTP_ACCESS_TOKEN': 'x'},
            capture_output=True, encoding='utf-8')
        assert done.stdout.split('\n')[-2] == '[]', done.stderr


@pytest.mark.skipif(not os.path.exists('/proc/self/cmdline'),
                    reason='no /proc here')
def test_list_of_processes(post: Post, tmp_path: pathlib.Path,
                           clean_environment: Dict[str, str]) -> None:
    """While it logs in, its command line and its children tell nothing."""
    post.server.slow = 30
    command = python("print('open-' + 'sesame')")
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), *post.options, *MAIL, '-v',
         '--password-command', command], env=clean_environment,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 10
        while not connected(process.pid):
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.005)
        folder = pathlib.Path(f'/proc/{process.pid}')
        for name in ('cmdline', 'environ', 'comm'):
            assert PASSWORD.encode() not in (folder / name).read_bytes()
    finally:
        post.server.slow = 0
        process.kill()
        process.wait()
        post.server.hang_up()


def connected(process: int) -> bool:
    """Tell whether a process holds a socket."""
    for path in pathlib.Path(f'/proc/{process}/fd').iterdir():
        with contextlib.suppress(OSError):
            if os.readlink(path).startswith('socket:'):
                return True
    return False


@posix
def test_password_that_is_not_utf8(post: Post, clean_environment: Any
                                   ) -> None:
    """Nobody knows what to send then: 78, and not a traceback."""
    for name in ('SMTP_PASSWORD', 'SMTP_ACCESS_TOKEN'):
        done = subprocess.run(
            [sys.executable, str(PROGRAM), *post.options, *MAIL],
            stdin=subprocess.DEVNULL, capture_output=True,
            env={**{key.encode(): value.encode() for key, value
                    in clean_environment.items()},
                 name.encode(): b'hunter\xff2'})
        errors = done.stderr.decode()
        assert_refused(Done(done.returncode, done.stdout, errors), 78, 'UTF-8')
        assert 'hunter' not in errors


@pytest.mark.parametrize('options, env, secret', [
    ([], {'SMTP_PASSWORD': PASSWORD}, 'LOGIN'),
    ([], {'SMTP_ACCESS_TOKEN': TOKEN}, 'XOAUTH2'),
    ([], {'SMTP_PASSWORD': 'hunter-2', 'SMTP_ACCESS_TOKEN': TOKEN}, 'XOAUTH2'),
    ([], {'SMTP_PASSWORD': PASSWORD, 'SMTP_ACCESS_TOKEN': ''}, 'LOGIN'),
    (['--auth', 'xoauth2'], {'SMTP_ACCESS_TOKEN': TOKEN}, 'XOAUTH2'),
    (['--auth', 'login'], {'SMTP_PASSWORD': PASSWORD,
                           'SMTP_ACCESS_TOKEN': 'hunter-2'}, 'LOGIN'),
    (['--password-command', python(f'print({PASSWORD!r})')],
     {'SMTP_PASSWORD': 'hunter-2', 'SMTP_ACCESS_TOKEN': 'hunter-3'}, 'LOGIN'),
    (['--auth', 'xoauth2', '--password-command', python(f'print({TOKEN!r})')],
     {'SMTP_PASSWORD': 'hunter-2', 'SMTP_ACCESS_TOKEN': 'hunter-3'},
     'XOAUTH2'),
])
def test_which_secret_counts(options: List[str], env: Dict[str, str],
                             secret: str, post: Post) -> None:
    """The command before the token, the token before the password."""
    done = send(post, *options, '-v', **env)
    assert done.code == 0, done.errors
    assert f'C: AUTH {secret} ' in done.errors
    assert_secret(PASSWORD, done.errors)
    assert_secret(TOKEN, done.errors)


def test_a_token_is_no_password(post: Post) -> None:
    """--auth login wants a password; the token is not sent in its place."""
    done = send(post, '--auth', 'login', '-v', SMTP_ACCESS_TOKEN=TOKEN)
    assert_refused(done, 64, 'SMTP_PASSWORD')
    assert 'S: ' not in done.errors


def test_no_secret_at_all(post: Post) -> None:
    """Neither given nor anybody to ask: the ways to give it are named."""
    done = send(post)
    assert_refused(done, 64, '$SMTP_PASSWORD', '--password-command')


def test_server_without_xoauth2(post: Post, monkeypatch: pytest.MonkeyPatch
                                ) -> None:
    """The token stays here; what the server offers is named."""
    welcome = post.server.handle_EHLO

    async def handle_ehlo(server: Any, session: Any, envelope: Any, name: Any,
                          replies: Any) -> Any:
        """Offer LOGIN alone."""
        lines = await welcome(server, session, envelope, name, replies)
        return [line.replace('LOGIN XOAUTH2', 'LOGIN') for line in lines]

    monkeypatch.setattr(post.server, 'handle_EHLO', handle_ehlo)
    done = send(post, '-v', SMTP_ACCESS_TOKEN=TOKEN)
    assert_refused(done, 69, 'XOAUTH2', 'LOGIN')
    assert 'C: AUTH' not in done.errors


@posix
def test_prompt_shows_nothing(post: Post, clean_environment: Dict[str, str],
                              tmp_path: pathlib.Path) -> None:
    """It asks on the terminal, without echo, even while the text is piped."""
    pexpect = pytest.importorskip('pexpect')
    command = shlex.join([sys.executable, str(PROGRAM), *post.options,
                          '--from', ALICE, '--to', BOB, '--subject', 'x'])
    child = pexpect.spawn('sh', ['-c', f'echo Piped. | {command}'],
                          env=clean_environment, cwd=str(tmp_path),
                          encoding='utf-8', timeout=10)
    shown = io.StringIO()
    child.logfile_read = shown
    child.expect('Password.*: ?')
    child.sendline(PASSWORD)
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0, shown.getvalue()
    assert PASSWORD not in shown.getvalue()
    assert post.only().parse().get_content().strip() == 'Piped.'


# ------------------------------------------------------------------ XOAUTH2


BEGIN = """
S: 220 mail.example.com
C: EHLO <name>
S: 250-mail.example.com
S: 250 STARTTLS
C: STARTTLS
S: 220 go ahead
-- TLS begins
C: EHLO <name>
S: 250-mail.example.com
S: 250-SIZE
S: 250 AUTH LOGIN PLAIN XOAUTH2
"""
REFUSED = """
C:
S: 535 5.7.3 Authentication unsuccessful
C: QUIT
S: 221 bye
"""
SENT = """
S: 235 2.7.0 Authentication successful
C: MAIL FROM:<alice@example.com> SIZE=<size>
S: 250 ok
C: RCPT TO:<bob@example.org>
S: 250 ok
C: DATA
S: 354 go ahead
C: <message>
C: .
S: 250 ok
C: QUIT
S: 221 bye
"""
Play = Callable[..., Tuple[Done, scripted.Player]]


@pytest.fixture
def play(ca_file: str, server_context: ssl.SSLContext) -> Play:
    """A function that holds a dialogue from AUTH on, with a token."""
    def run(dialogue: str, token: str = TOKEN) -> Tuple[Done, scripted.Player]:
        with scripted.playing(BEGIN.strip() + '\n' + dialogue.strip('\n'),
                              server_context) as player:
            done = call('--server', 'localhost', '-4', '--port',
                        str(player.port), '--ca-file', ca_file, '--timeout',
                        '10', '-v', *MAIL, env={'SMTP_ACCESS_TOKEN': token})
        assert not player.mismatch, player.difference() + '\n' + done.errors
        assert 'bearer' not in player.clear.lower()
        return done, player
    return run


def xoauth2(token: str) -> bytes:
    """Return what has to be behind the base64 of a client's response."""
    return f'user={ALICE}\1auth=Bearer {token}\1\1'.encode()


@pytest.mark.parametrize('length', [1, 334, 335, 336, 337, 2000, 8000])
def test_tokens_of_any_length(length: int, play: Play) -> None:
    """A line of 512 octets holds AUTH and token; else they take two lines."""
    token = (TOKEN * 1000)[:length]
    response = base64.b64encode(xoauth2(token)).decode()
    one_line = len(f'AUTH XOAUTH2 {response}\r\n') <= 512
    assert one_line == (length < 336)   # both sides of the limit are tried
    dialogue = 'C: AUTH XOAUTH2 ********' if one_line else (
        'C: AUTH XOAUTH2\nS: 334 \nC: ********')
    done, player = play(dialogue + SENT, token)
    assert done.code == 0, done.errors
    assert player.secrets == [xoauth2(token)]
    if length > 8:
        assert_secret(token, done.errors)


def reason(text: str) -> str:
    """Return the 334 with which a server says why it refuses a token."""
    return 'S: 334 ' + base64.b64encode(text.encode('utf-8', 'surrogatepass')
                                        ).decode()


@pytest.mark.parametrize('status', ['400', '401'])
def test_reason_is_decoded_and_explained(status: str, play: Play) -> None:
    """Its JSON is shown, the real reply is told, and what to look for."""
    text = json.dumps({'status': status, 'schemes': 'bearer',
                       'scope': 'https://outlook.office.com/'})
    done, player = play('C: AUTH XOAUTH2 ********\n' + reason(text) + REFUSED)
    assert_refused(done, 77, '535 5.7.3', status,
                   'https://outlook.office.com/SMTP.Send')
    verdict = done.errors.partition('smtp.py: Not sent: ')[2].lower()
    for word in ('token', 'expire', 'scope', 'mailbox', ALICE):
        assert word in verdict, verdict
    assert 'password' not in verdict
    assert player.secrets == [xoauth2(TOKEN)]
    assert_secret(TOKEN, done.errors)


@pytest.mark.parametrize('reply, word', [
    ('535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is '
     'disabled for the Mailbox.', 'Authenticated SMTP'),
    ('535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is '
     'disabled for the Tenant.', 'administrator'),
    ('535 5.7.139 Authentication unsuccessful, the request did not meet the '
     'criteria to be authenticated successfully.', 'policy'),
    ('535 5.7.3 Authentication unsuccessful', 'token'),
    ('535 5.7.8 Username and Password not accepted', 'token'),
])
@pytest.mark.parametrize('challenge', [True, False])
def test_the_real_reply_is_explained(reply: str, word: str, challenge: bool,
                                     play: Play) -> None:
    """After a challenge or without one; never advice about a password."""
    first = reason('{"status":"400"}') + '\nC:\n' if challenge else ''
    done, _ = play(f'C: AUTH XOAUTH2 ********\n{first}S: {reply}\n'
                   'C: QUIT\nS: 221 bye')
    assert_refused(done, 77, reply[:11], word)
    advice = done.errors.partition('smtp.py: Not sent: ')[2].replace(reply, '')
    assert 'and password' not in advice


def test_later(play: Play) -> None:
    """A temporary refusal is one: 75."""
    done, _ = play('C: AUTH XOAUTH2 ********\n' + reason('{"status":"500"}')
                   + '\nC:\nS: 454 4.7.0 Temporary authentication failure\n'
                   'C: QUIT\nS: 221 bye')
    assert_refused(done, 75, '454 4.7.0')


def test_more_challenges(play: Play) -> None:
    """A server that goes on and on is given up."""
    done, _ = play('C: AUTH XOAUTH2 ********\n' + reason('{}')
                   + '\nC:\nS: 334 \nC: *\nS: 501 5.7.0 cancelled\nC: QUIT\n'
                   'S: 221 bye')
    assert_refused(done, 77)


def test_lost_after_the_reason(play: Play) -> None:
    """Some servers hang up instead of refusing; the reason is told, too."""
    done, _ = play('C: AUTH XOAUTH2 ********\n' + reason('{"status":"401"}')
                   + '\nC:\n-- closes')
    assert_refused(done, 75)
    assert '"status":"401"' in done.errors


@pytest.mark.parametrize('text', [
    'not JSON', '', '[]', '"text"', 'null', '{', '[' * 3000, '1' * 5000,
    'NaN', '{"status":"\\ud800"}', '{"status":"\\u001b[2J\\u202e\\n"}',
    '{"status": {"status": []}, "status": 7}', EVIL,
    f'{{"status":"{EVIL}"}}',
    '{"status":"400"}\nSent to bob@example.org: 250 ok',
    '{\r\n"status":"400"}\r\nsmtp.py: May have been sent: \r\n',
    '{"status":"400\\nSent to bob@example.org: 250 ok"}',
    f'{{"status":"400","token":"{TOKEN}"}}',
    '{"status":"' + base64.b64encode(xoauth2(TOKEN)).decode() + '"}',
    'C: ' + TOKEN + '\n' + TOKEN, '\ud800',
], ids=lambda text: ascii(text)[:24])
def test_hostile_reasons(text: str, play: Play) -> None:
    """Whatever is in it: shown harmlessly, and answered by an empty line."""
    done, _ = play('C: AUTH XOAUTH2 ********\n' + reason(text) + REFUSED)
    assert_refused(done, 77, '535 5.7.3')
    assert_secret(TOKEN, done.errors)


@pytest.mark.parametrize('line', [
    '334 %%%', '334', '334 ', '334 e', '334 =', '334 e30', '334 \\xff\\xfe',
    '334 gICA', '334 e30= e30=', '334 ' + 'A' * 8000,
    '334-e30=\nS: 334 e30=', '334 ' + TOKEN,
], ids=lambda text: text[:16])
def test_reasons_that_are_no_base64(line: str, play: Play) -> None:
    """Nothing to decode: the empty line is sent, the real reply told."""
    done, _ = play(f'C: AUTH XOAUTH2 ********\nS: {line}' + REFUSED)
    assert_refused(done, 77, '535 5.7.3')
    assert_secret(TOKEN, done.errors)


def test_reason_without_end(play: Play) -> None:
    """A line of more than 8 KiB is not SMTP."""
    done, _ = play('C: AUTH XOAUTH2 ********\nS: 334 ' + 'A' * 9000)
    assert_refused(done, 76)
    assert len(done.errors) < 5000


@pytest.mark.parametrize('token', [
    'a b', 'a\r\nb', 'a\nMAIL FROM:<evil@example.net>', 'a\1b',
    'a\1host=evil\1', 'tök', '\x1b[2J'], ids=ascii)
def test_what_is_no_token(token: str, post: Post) -> None:
    """RFC 6750 has letters, digits and -._~+/ for it; the rest is a mistake.

    Either it is said so at once, or it goes to the server as it is, within
    base64; it never becomes a second line or a second pair of the response.
    """
    done = send(post, '-v', SMTP_ACCESS_TOKEN=token)
    assert_refused(done, done.code)
    assert done.code in (77, 78), done.errors
    assert token not in done.errors
    assert 'host=evil' not in done.errors
    assert 'C: MAIL' not in done.errors


def test_token_with_a_line_end(post: Post) -> None:
    """Out of a file, or from Windows, a token may have one; it is cut off."""
    for end in ('\n', '\r\n', '\r', ' '):
        post.accept()
        done = send(post, SMTP_ACCESS_TOKEN=TOKEN + end)
        assert done.code == 0, done.errors
        post.only()


# ------------------------------------------------ errors and tracebacks


FAILURES: List[Tuple[str, Dict[str, Any]]] = [
    ('auth=535 5.7.3 {echo}', {}), ('auth=535 5.7.3 {echo}',
                                    {'auth': 'xoauth2'}),
    ('mail=550 5.7.60 {echo}', {}), ('rcpt=550 5.1.1 {echo}', {}),
    ('message=554 5.2.0 {echo}', {}), ('data=451 4.3.0 {echo}', {}),
    ('', {'port': 1}), ('', {'ca_file': '/missing'}), ('', {'auth': 'plain'}),
    ('', {'server': '127.0.0.1', 'ca_file': None}),
]


def everything(error: BaseException) -> Iterator[str]:
    """Yield all that a logger might print of an error, and of its causes."""
    yield ''.join(traceback.format_exception(type(error), error,
                                             error.__traceback__))
    seen: List[BaseException] = []
    following: Any = error
    while following and following not in seen:
        seen.append(following)
        yield repr(following)
        yield str(following)
        yield repr(following.args)
        yield repr(vars(following))
        if isinstance(following, UnicodeError):
            yield repr(getattr(following, 'object', ''))
        following = following.__cause__ or following.__context__


@pytest.mark.parametrize('refusal, extras', FAILURES, ids=str)
def test_nothing_in_an_error(refusal: str, extras: Dict[str, Any], post: Post
                             ) -> None:
    """However it fails, neither the error nor its causes know the secret."""
    secret = TOKEN if extras.get('auth') == 'xoauth2' else PASSWORD
    echo = ' '.join([secret, base64.b64encode(secret.encode()).decode(),
                     base64.b64encode(xoauth2(secret)).decode()])
    if refusal:
        post.refuse(refusal.format(echo=echo))
    shown = io.StringIO()
    session = {**post.session, 'transcript': smtp.Transcript(shown), **extras}
    with pytest.raises(smtp.SMTPException) as caught:
        smtp.smtp_send(secret, {'From': ALICE, 'To': [BOB, CAROL],
                                'Subject': 'x'}, 'x', **session)
    assert_secret(secret, shown.getvalue(), *everything(caught.value))


@pytest.mark.parametrize('secret', ['hunter-\udcff2', '\ud83d', '\udcff'],
                         ids=ascii)
@pytest.mark.parametrize('auth', ['auto', 'xoauth2'])
def test_secret_that_is_no_text(secret: str, auth: str, post: Post) -> None:
    """A documented error, which does not know it either."""
    with pytest.raises(smtp.SMTPException) as caught:
        smtp.smtp_send(secret, {'From': ALICE, 'To': BOB, 'Subject': 'x'},
                       'x', auth=auth, **post.session)
    assert caught.value.exit_code == 78
    for text in everything(caught.value):
        assert ascii(secret)[1:-1] not in text
        assert 'hunter' not in text
