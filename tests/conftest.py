"""Fixtures for every test: callers of smtp.py, servers, certificates."""

import contextlib
import functools
import os
import signal
import socket

import pytest
import trustme
from hypothesis import HealthCheck, settings

from support import certificates, cli, dialogue
from support.post import Post

for name, count in ('default', 100), ('thorough', 5000):
    settings.register_profile(name, max_examples=count, deadline=None,
                              suppress_health_check=list(HealthCheck))
settings.load_profile('default')


def pytest_configure(config):
    """Keep the environment of whoever runs the tests out of them."""
    for name in list(os.environ):
        if (name.startswith(('SMTP_', 'SSL', 'NO_COLOR'))
                and name != 'SMTP_TEST_REAL_SERVERS'):
            del os.environ[name]
    if hasattr(signal, 'SIGHUP'):       # as if not started by nohup
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def folder(tmp_path):
    """An empty folder: the current one of smtp.py."""
    path = tmp_path / 'folder'
    path.mkdir()
    return path


@pytest.fixture
def call(folder):
    """A function that calls `smtp.main` here: see cli.call."""
    return functools.partial(cli.call, cwd=folder)


@pytest.fixture
def run(folder):
    """A function that runs smtp.py as a process: see cli.run."""
    return functools.partial(cli.run, cwd=folder)


@pytest.fixture
def start(folder):
    """A function that starts smtp.py as a process: see cli.start."""
    with contextlib.ExitStack() as ends:
        def start(*args, **more):
            process = cli.start(*args, cwd=folder, **more)
            ends.callback(process.communicate)
            ends.callback(process.kill)
            return process
        yield start


@pytest.fixture
def sit(folder):
    """A function that sits someone at a terminal: see cli.Person."""
    if not hasattr(cli.pexpect, 'spawn'):
        pytest.skip('needs pexpect, and a system with terminals')
    with contextlib.ExitStack() as ends:
        def sit(*args, **more):
            person = cli.Person(*args, cwd=folder, **more)
            ends.callback(person.child.close, force=True)
            return person
        yield sit


@pytest.fixture(scope='session')
def authority():
    """A certificate authority that only these tests trust."""
    return trustme.CA(organization_name='Authority of the Tests')


@pytest.fixture(scope='session')
def ca_file(authority, tmp_path_factory):
    """The path of the authority's certificate, for `--ca-file`."""
    path = tmp_path_factory.mktemp('authority') / 'ca.pem'
    authority.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture(scope='session')
def server_context(authority):
    """The TLS side of a server called localhost, 127.0.0.1 and ::1."""
    return certificates.issued(authority, 'localhost', '127.0.0.1', '::1')


@pytest.fixture
def play(call, ca_file, server_context):
    """A function that lets smtp.py hold a dialogue; it returns both sides.

    `as_written=False` lets smtp.py say something else; without `password` that
    of the dialogue is in $SMTP_PASSWORD.
    """
    def play(told, *args, as_written=True, context=server_context, **more):
        if isinstance(told, str):
            told = dialogue.parse(told)
        token = told.setting('token', None)
        more = {'password': told.setting(
            'password', dialogue.PASSWORD if token is None else ''), **more,
                'env': {'SMTP_ACCESS_TOKEN': token, **more.get('env', {})}}
        with dialogue.playing(told, context) as player:
            result = call(*cli.reach(player.port, ca_file),
                          *told.arguments(), *args, **more)
        if as_written:
            assert not player.mismatch, \
                player.difference() + '\n' + result.err
        return result, player
    return play


@pytest.fixture(scope='module')
def practice():
    """A practice server for all the tests of a module."""
    with Post() as server:
        yield server


@pytest.fixture
def post(practice):
    """The practice server, with nothing in it, and willing."""
    practice.accept()
    return practice


@pytest.fixture
def closed_port():
    """A port of this computer that refuses connections."""
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))     # and does not listen
        yield sock.getsockname()[1]


@pytest.fixture
def lookup(monkeypatch):
    """A function: look-ups raise this, or find these; it lists the names."""
    def decide(outcome):
        asked = []

        def getaddrinfo(host, *args, **kwargs):
            asked.append(host.decode() if isinstance(host, bytes) else host)
            if isinstance(outcome, BaseException):
                raise outcome
            return [(socket.AF_INET6 if ':' in host else socket.AF_INET,
                     socket.SOCK_STREAM, 6, '', (host, port))
                    for host, port in outcome]
        monkeypatch.setattr(socket, 'getaddrinfo', getaddrinfo)
        return asked
    return decide
