"""Fixtures for every test: callers of smtp.py, servers, certificates."""

from __future__ import annotations

import os
import pathlib
import socket
import ssl
from typing import Any, Callable, Iterator

import pytest
import trustme
from hypothesis import HealthCheck, settings

from support import cli, dialogue
from support import post as posts
from support.cli import Result

QUIET = list(HealthCheck)
settings.register_profile(
    'default', max_examples=100, deadline=None, suppress_health_check=QUIET)
settings.register_profile(
    'thorough', max_examples=5000, deadline=None, suppress_health_check=QUIET)
settings.load_profile('default')

Call = Callable[..., Result]


def pytest_configure(config: pytest.Config) -> None:
    """Keep the environment of whoever runs the tests out of them."""
    for name in list(os.environ):
        if name.startswith(('SMTP_', 'SSL')) or name == 'NO_COLOR':
            if name != 'SMTP_TEST_REAL_SERVERS':
                del os.environ[name]


# ------------------------------------------------------------------- callers


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """An empty folder: the current one of smtp.py."""
    path = tmp_path / 'folder'
    path.mkdir()
    return path


@pytest.fixture
def call(folder: pathlib.Path) -> Call:
    """A function that calls `smtp.main` here: see cli.call."""
    return lambda *args, **more: cli.call(*args, **{'cwd': folder, **more})


@pytest.fixture
def run(folder: pathlib.Path) -> Call:
    """A function that runs smtp.py as a process: see cli.run."""
    return lambda *args, **more: cli.run(*args, **{'cwd': folder, **more})


@pytest.fixture
def start(folder: pathlib.Path) -> Iterator[Callable[..., Any]]:
    """A function that starts smtp.py as a process: see cli.start."""
    processes: list[Any] = []

    def start(*args: str, **more: Any) -> Any:
        processes.append(cli.start(*args, **{'cwd': folder, **more}))
        return processes[-1]
    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def sit(folder: pathlib.Path) -> Iterator[Callable[..., cli.Person]]:
    """A function that sits someone at a terminal: see cli.Person."""
    if not hasattr(cli.pexpect, 'spawn'):
        pytest.skip('needs pexpect, and a system with terminals')
    people: list[cli.Person] = []

    def sit(*args: str, **more: Any) -> cli.Person:
        people.append(cli.Person(*args, **{'cwd': folder, **more}))
        return people[-1]
    yield sit
    for person in people:
        person.leaves()


# ------------------------------------------------------------------- servers


@pytest.fixture(scope='session')
def authority() -> trustme.CA:
    """A certificate authority that only these tests trust."""
    return trustme.CA(organization_name='Authority of the Tests')


@pytest.fixture(scope='session')
def ca_file(authority: trustme.CA,
            tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of the authority's certificate, for `--ca-file`."""
    path = tmp_path_factory.mktemp('authority') / 'ca.pem'
    authority.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture(scope='session')
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    """The TLS side of a server called localhost, 127.0.0.1 and ::1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert('localhost', '127.0.0.1', '::1').configure_cert(
        context)
    return context


@pytest.fixture
def play(call: Call, ca_file: str, server_context: ssl.SSLContext
         ) -> Callable[..., tuple[Result, dialogue.Player]]:
    """A function that lets smtp.py hold a dialogue; it returns both sides.

    Its keywords: `as_written=False` lets smtp.py say something else; `context`
    is the server's side of TLS; the others are those of cli.call. Without
    `password` that of the dialogue is in $SMTP_PASSWORD.
    """
    def play(told: dialogue.Dialogue | str, *args: str,
             as_written: bool = True, context: Any = server_context,
             **more: Any) -> tuple[Result, dialogue.Player]:
        if isinstance(told, str):
            told = dialogue.parse(told)
        more.setdefault('password', told.setting(
            'password', '' if 'token' in told.settings else dialogue.PASSWORD))
        if 'token' in told.settings:
            more['env'] = {'SMTP_ACCESS_TOKEN': told.setting('token'),
                           **more.get('env', {})}
        with dialogue.playing(told, context) as player:
            result = call(*cli.reach(player.port, ca_file),
                          *told.arguments(), *args, **more)
        if as_written:
            assert not player.mismatch, \
                player.difference() + '\n' + result.err
        return result, player
    return play


@pytest.fixture(scope='module')
def practice() -> Iterator[posts.Post]:
    """A practice server for all the tests of a module."""
    with posts.PracticeServer() as server:
        yield posts.Post(server)


@pytest.fixture
def post(practice: posts.Post) -> Iterator[posts.Post]:
    """The practice server, with nothing in it, and willing."""
    practice.accept()
    yield practice
    practice.accept()


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of this computer that refuses connections."""
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))     # and does not listen
        yield sock.getsockname()[1]


@pytest.fixture
def lookup(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], list[Any]]:
    """A function that decides how host names are looked up.

    It takes an error to raise, or (host, port) pairs to return; it returns
    the list of the names that are looked up.
    """
    def decide(outcome: Any) -> list[Any]:
        asked: list[Any] = []

        def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
            asked.append(host.decode() if isinstance(host, bytes) else host)
            if isinstance(outcome, BaseException):
                raise outcome
            return [(socket.AF_INET6, socket.SOCK_STREAM, 6, '',
                     (host, port, 0, 0)) if ':' in host else
                    (socket.AF_INET, socket.SOCK_STREAM, 6, '', (host, port))
                    for host, port in outcome]
        monkeypatch.setattr(socket, 'getaddrinfo', getaddrinfo)
        return asked
    return decide
