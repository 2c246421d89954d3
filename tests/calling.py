"""smtp.py called with a command line, and what every error of it has to be.

The fixture `call` is `smtp.main` here and now; `start` a process of its own,
for what depends on the surroundings: outputs, locale, time zone.
"""

import base64
import io
import os
import pathlib
import re
import socket
import subprocess
import sys
from typing import Any, Callable, Dict, List, Optional

import conftest
import practice_server
import pytest
import reading
from posting import Done, Post

import smtp

POSIX = pytest.mark.skipif(os.name == 'nt', reason='needs a POSIX shell')
SECRET = practice_server.PASSWORD
BASIC = ['-f', 'alice@example.com', '-t', 'bob@example.org', '-s', 'Lunch']
MAIL = [*BASIC, '--body', 'Hello Bob']
Call = Callable[..., Done]


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


@pytest.fixture
def server(post: Post) -> practice_server.PracticeServer:
    """The practice server, which has no messages yet."""
    return post.server


@pytest.fixture
def session(server: practice_server.PracticeServer) -> List[str]:
    """The options that lead to it."""
    return ['--server', server.host, '-p', str(server.port),
            '--ca-file', server.ca_file]


@pytest.fixture
def closed_port() -> int:
    """A port of this computer that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        return sock.getsockname()[1]


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


def not_sent(done: Done, code: int, *naming: str) -> None:
    """Check an error: its code, its one verdict, its words, and no more."""
    assert done.code == code, done
    assert done.output == b''
    assert len(re.findall(r'(?m)^smtp\.py: Not sent: ', done.errors)) == 1
    assert 'May have been sent' not in done.errors
    for text in naming:
        assert text in done.errors, (text, done.errors)
    no_mishap(done)


def no_mishap(done: Done) -> None:
    """Check that nobody sees the inside of the program, or a secret."""
    outputs = done.output.decode('utf-8', 'replace') + done.errors
    for sign in ('Traceback', 'Exception ignored', 'Error:'):
        assert sign not in outputs, outputs
    for form in (SECRET, base64.b64encode(SECRET.encode()).decode()):
        assert form not in outputs


def text_of(done: Done) -> str:
    """Return the text of the message that a dry run printed."""
    assert (done.code, done.errors) == (0, '')
    reading.lint(done.output)
    return reading.read(done.output).text
