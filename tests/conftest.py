"""Fixtures for every test: certificates, and smtp.py as a process.

Each kind of server lives in a module of its own (`scripted`, `hostile`,
`practice_server`, ...), and most take their certificate from the authority
below, which exists in memory for one run of the tests.
"""

import os
import pathlib
import ssl
import subprocess
import sys
from typing import Any, Callable, Dict, Iterator, Optional, Union

import pytest
import trustme

TESTS = pathlib.Path(__file__).resolve().parent
ROOT = TESTS.parent
PROGRAM = ROOT / 'smtp.py'

# `import smtp` finds the program, `import scripted` the helper beside us,
# from whatever folder pytest was started.
for folder in (TESTS, ROOT):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

import posting  # noqa: E402 (it imports smtp)

# Fixtures that belong to the tests of one topic stand beside its helpers.
pytest_plugins = ['sessions', 'at_terminal', 'calling', 'finishing', 'keeping']


def pytest_configure(config: pytest.Config) -> None:
    """Keep the environment of the person who runs the tests out of them."""
    for name in ('SMTP_PASSWORD', 'SMTP_ACCESS_TOKEN', 'SSLKEYLOGFILE',
                 'SSL_CERT_FILE', 'SSL_CERT_DIR', 'NO_COLOR'):
        os.environ.pop(name, None)


@pytest.fixture(scope='session')
def authority() -> trustme.CA:
    """A certificate authority that nobody trusts but these tests."""
    return trustme.CA()


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
    certificate = authority.issue_cert('localhost', '127.0.0.1', '::1')
    certificate.configure_cert(context)
    return context


@pytest.fixture
def run_main(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> 'Callable[..., subprocess.CompletedProcess[str]]':
    """A function that calls `smtp.main(args)` here and now: much faster.

    Its keyword is `password`, which goes into SMTP_PASSWORD. It runs in an
    empty folder, with an empty standard input.
    """
    def run(*args: str, password: Optional[str] = None,
            ) -> 'subprocess.CompletedProcess[str]':
        import smtp
        folder = tmp_path / 'folder'
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        if password is not None:
            monkeypatch.setenv('SMTP_PASSWORD', password)
        capsys.readouterr()
        with open(os.devnull) as nothing:
            monkeypatch.setattr(sys, 'stdin', nothing)
            code: Union[None, str, int]
            try:
                code = smtp.main(list(args))
            except SystemExit as ended:
                code = ended.code
        outputs = capsys.readouterr()
        return subprocess.CompletedProcess(
            ['smtp.py', *args], code,  # type: ignore[arg-type]
            outputs.out, outputs.err)
    return run


@pytest.fixture
def clean_environment(tmp_path: pathlib.Path) -> Dict[str, str]:
    """The environment that smtp.py is started in: nothing inherited."""
    home = tmp_path / 'home'
    home.mkdir()
    environment = {'PATH': os.environ.get('PATH', os.defpath),
                   'HOME': str(home), 'LC_ALL': 'C.UTF-8'}
    if os.name == 'nt':  # Windows sockets do not open without these
        environment.update(
            {name: os.environ[name]
             for name in ('SYSTEMROOT', 'TEMP', 'USERPROFILE')
             if name in os.environ})
    return environment


@pytest.fixture
def run_smtp(
    tmp_path: pathlib.Path, clean_environment: Dict[str, str],
) -> 'Callable[..., subprocess.CompletedProcess[str]]':
    """A function that runs `smtp.py *args` and returns how it ended.

    Its keywords: `input`, the standard input (str or bytes; an empty one when
    None); `env`, variables to add; `timeout` in seconds; `cwd`, a folder
    (an empty one when None). Both outputs come back as text.
    """
    def run(*args: str, input: Union[None, str, bytes] = None,
            env: Optional[Dict[str, str]] = None, timeout: float = 30,
            cwd: Union[None, str, pathlib.Path] = None,
            ) -> 'subprocess.CompletedProcess[str]':
        if isinstance(input, str):
            input = input.encode('utf-8', 'surrogateescape')
        if cwd is None:
            cwd = tmp_path / 'folder'
            cwd.mkdir(exist_ok=True)
        command = [sys.executable, str(PROGRAM), *args]
        given: Dict[str, Any] = {'input': input} if input is not None else {
            'stdin': subprocess.DEVNULL}
        done = subprocess.run(
            command, env={**clean_environment, **(env or {})},
            timeout=timeout, cwd=str(cwd), capture_output=True, **given)
        return subprocess.CompletedProcess(
            command, done.returncode,
            done.stdout.decode('utf-8', 'backslashreplace'),
            done.stderr.decode('utf-8', 'backslashreplace'))
    return run


@pytest.fixture(scope='module')
def running() -> Iterator[posting.Post]:
    """A practice server for all the tests of a module."""
    with posting.opened() as post:
        yield post


@pytest.fixture
def post(running: posting.Post) -> Iterator[posting.Post]:
    """The server, with nothing in it, and willing."""
    running.accept()
    yield running
    running.accept()
