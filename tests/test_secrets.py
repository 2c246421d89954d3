"""Where passwords and tokens come from, and where they never go.

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
import os
import pathlib
import shlex
import subprocess
import sys
import time
from typing import Any, Dict, List, Tuple

import pytest
from calling import BASIC, POSIX, SECRET, Call, no_mishap
from posting import ALICE, BOB, CAROL, PASSWORD, PROGRAM, TOKEN, Done, Post
from secrecy import (
    MAIL,
    assert_refused,
    assert_secret,
    everything,
    python,
    send,
    xoauth2,
)

import smtp

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


@POSIX
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


@POSIX
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


def test_the_password_leaves_the_environment(call: Call, session: List[str]
                                             ) -> None:
    """Whatever happens next: a program started by us must not see it."""
    for args in ([*MAIL, *session], ['--no-such-option'], [*MAIL, '-n'],
                 ['-t', 'nobody', *BASIC], ['--timezones'], ['--version']):
        done = call(*args, password=SECRET)
        assert 'SMTP_PASSWORD' not in os.environ
        no_mishap(done)


# ---------------------------------------------------- errors and tracebacks

FAILURES: List[Tuple[str, Dict[str, Any]]] = [
    ('auth=535 5.7.3 {echo}', {}), ('auth=535 5.7.3 {echo}',
                                    {'auth': 'xoauth2'}),
    ('mail=550 5.7.60 {echo}', {}), ('rcpt=550 5.1.1 {echo}', {}),
    ('message=554 5.2.0 {echo}', {}), ('data=451 4.3.0 {echo}', {}),
    ('', {'port': 1}), ('', {'ca_file': '/missing'}), ('', {'auth': 'plain'}),
    ('', {'server': '127.0.0.1', 'ca_file': None}),
]


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


@pytest.mark.parametrize('auth', ['login', 'plain', 'xoauth2'])
def test_a_user_name_that_is_no_text_tells_no_password(auth: str) -> None:
    """The error quoted all that it could not write, the password too."""
    with pytest.raises(smtp.SMTPConfigurationError) as caught:
        smtp.smtp_send('hunter-2', {'From': 'a@example.com',
                                    'To': 'b@example.org'}, 'Hello!',
                       server='127.0.0.1', port=1, auth=auth,
                       user=os.fsdecode(b'al\xffice'))
    assert 'hunter' not in str(caught.value)


def test_a_fault_in_reading_letters_is_not_quoted() -> None:
    """Whatever could not be read may be a secret."""
    error = UnicodeDecodeError('utf-8', b'hunter-2\xff', 8, 9, 'bad')
    verdict, code = smtp.describe_failure(error)
    assert code == 70
    assert 'hunter' not in verdict
