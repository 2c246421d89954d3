"""TLS: whom smtp.py believes, and what it says when it does not.

A certificate that does not prove the server's name ends the session with 76,
before anything secret was said, in words that a person can act upon: what is
wrong with the certificate, whose it is, who issued it, and what to do.
"""

import contextlib
import pathlib
import re
import socket
import ssl
import sys
import threading
import time
import warnings
from typing import Any, Callable, Iterator, List, Optional, Tuple

import pytest
import scripted
import trustme
from certificates import DAY, NOW, context_of, handmade, named
from cryptography import x509

Run = Callable[..., Any]

AUTHORITY_NAME = 'Authority of the Tests'
PROTOCOL, LATER = 76, 75

SESSION = """
S: 220 mail.example.com ESMTP
C: EHLO <name>
S: 250-mail.example.com
S: 250 STARTTLS
C: STARTTLS
S: 220 Go ahead
-- TLS begins
"""
LOGIN = """
C: EHLO <name>
S: 250-mail.example.com
S: 250-PIPELINING
S: 250 AUTH PLAIN
C: AUTH PLAIN ********
S: 535 5.7.8 No
C: QUIT
S: 221 Bye
"""
IMPLICIT = """
-- TLS begins
S: 220 mail.example.com ESMTP
""" + LOGIN


@pytest.fixture(scope='module')
def authority() -> trustme.CA:
    """An authority with a name of its own, to be found in messages."""
    return trustme.CA(organization_name=AUTHORITY_NAME)


@pytest.fixture
def run_client(run_main: Run, ca_file: str) -> Run:
    """A function that sends a mail to a port with the authority trusted."""
    def run(port: int, *more: str, server: str = 'localhost',
            timeout: float = 5) -> Any:
        return run_main(
            '--server', server, '-4', '--port', str(port), '--ca-file',
            ca_file, '--timeout', str(timeout), '--verbose', '--from',
            scripted.FROM, '--to', scripted.TO, '--subject', 'Greetings',
            '--body', scripted.TEXT, *more, password=scripted.PASSWORD)
    return run


@pytest.fixture(scope='module')
def ca_file(authority: trustme.CA,
            tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of this module's authority."""
    path = tmp_path_factory.mktemp('authority') / 'ca.pem'
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def make(kind: str, authority: trustme.CA,
         folder: pathlib.Path) -> ssl.SSLContext:
    """Return the server's side of one kind of bad certificate."""
    if kind == 'self-signed':
        return handmade(folder, named('localhost', 'localhost'), 'localhost')
    if kind == 'unknown authority':
        return context_of(trustme.CA(organization_name='Somebody Else')
                          .issue_cert('localhost'))
    if kind == 'expired':
        return context_of(authority.issue_cert(
            'localhost', not_before=NOW - 9 * DAY, not_after=NOW - 2 * DAY))
    if kind == 'not yet valid':
        return context_of(authority.issue_cert(
            'localhost', not_before=NOW + 2 * DAY, not_after=NOW + 9 * DAY))
    if kind == 'name only in the CN':
        return handmade(folder, named('localhost'), authority=authority)
    names = {'wrong host': ['mail.example.org'],
             'part of the name': ['localhost.example.org', 'host', 'localhos'],
             'address without its SAN': ['localhost'],
             'address as a name': ['127.0.0.1.', '*.0.0.1']}[kind]
    return context_of(authority.issue_cert(*names))


@pytest.fixture
def matches() -> Callable[[str, str], Any]:
    """Find one of the alternatives of `wanted`, in any case, over lines."""
    def find(wanted: str, text: str) -> bool:
        plain = ' '.join(text.lower().split())
        return any(one in plain for one in wanted.lower().split('|'))
    return find


STARTTLS_AND_IMPLICIT = pytest.mark.parametrize(
    'more', [(), ('--tls', 'implicit')], ids=['starttls', 'implicit'])
BAD_CERTIFICATES = {  # kind: the server's name, and words to be found
    'self-signed': ('localhost', ['itself|self-signed', '--ca-file']),
    'unknown authority': ('localhost', ['authority', 'Somebody Else',
                                        '--ca-file']),
    'expired': ('localhost', ['expired', AUTHORITY_NAME]),
    'not yet valid': ('localhost', ['not valid yet|not yet valid',
                                    AUTHORITY_NAME]),
    'wrong host': ('localhost', ['name', 'localhost', 'mail.example.org',
                                 AUTHORITY_NAME]),
    'part of the name': ('localhost', ['name', 'localhost.example.org']),
    'name only in the CN': ('localhost', ['name', AUTHORITY_NAME]),
    'address without its SAN': ('127.0.0.1', ['127.0.0.1', 'address']),
    'address as a name': ('127.0.0.1', ['127.0.0.1', 'address']),
}


@STARTTLS_AND_IMPLICIT
@pytest.mark.parametrize('kind', BAD_CERTIFICATES)
def test_certificate_refused(
        kind: str, more: Tuple[str, ...], authority: trustme.CA,
        tmp_path: pathlib.Path, run_client: Run) -> None:
    """Exit 76, and nothing is said under such a certificate."""
    server, _ = BAD_CERTIFICATES[kind]
    context = make(kind, authority, tmp_path)
    session = scripted.parse(IMPLICIT if more else SESSION + LOGIN)
    with scripted.playing(session, context) as player:
        done = run_client(player.port, *more, server=server)
    assert done.returncode == PROTOCOL, done.stderr
    assert player.mismatch and player.mismatch.startswith('-- '), \
        player.difference()
    assert not player.secrets
    assert 'smtp.py: Not sent: ' in done.stderr


@pytest.mark.skipif(sys.version_info < (3, 10),
                    reason='Python shows no refused certificate before 3.10')
@pytest.mark.parametrize('kind', BAD_CERTIFICATES)
def test_certificate_explained(
        kind: str, authority: trustme.CA, tmp_path: pathlib.Path,
        run_client: Run, matches: Callable[[str, str], Any]) -> None:
    """What is wrong, for whom it is, who issued it, and what to do."""
    server, words = BAD_CERTIFICATES[kind]
    context = make(kind, authority, tmp_path)
    with scripted.playing(SESSION + LOGIN, context) as player:
        done = run_client(player.port, server=server)
    said = done.stderr.partition('smtp.py: Not sent: ')[2]
    for wanted in ['certificate', *words]:
        assert matches(wanted, said), f'{wanted!r} is not in: {said}'


def test_a_certificate_for_a_directory_name(
        authority: trustme.CA, tmp_path: pathlib.Path, run_client: Run
        ) -> None:
    """Names of other kinds in a certificate are no reason to fail."""
    context = handmade(tmp_path, named('x'), 'localhost',
                       x509.DirectoryName(named('x')), authority=authority)
    session = SESSION + """
C: EHLO <name>
S: 250-mail.example.com
S: 250 HELP
C: QUIT
S: 221 Bye
"""
    with scripted.playing(session, context) as player:
        done = run_client(player.port)
    assert not player.mismatch, player.difference()
    assert done.returncode == 69, done.stderr       # no AUTH: that far it came
    assert 'certificate for localhost, issued by' in done.stderr


@pytest.mark.parametrize('name, alternative', [
    ('a\x1b[2J\x07\x08', 'b'), ('a\x9b31m', 'b'), ('a\u202egnp', 'b'),
    ('a\u2028smtp.py: b', 'b'), ('a\nSent to bob@example.org: 250 Ok', 'b'),
    ('a\rSent to c', 'b'), ('a\0b', 'b'), (' ', 'b'), ('a', 'b\x1b[1m'),
    ('a', 'b\nSent to c'), ('a', 'b\rSent to c'), ('a', 'b\0c')], ids=ascii)
def test_certificate_of_hostile_words(
        name: str, alternative: str, tmp_path: pathlib.Path,
        run_client: Run) -> None:
    """A certificate is the server's word as well, and shown escaped."""
    context = handmade(tmp_path, named(name, name), 'host', alternative)
    with scripted.playing(SESSION + LOGIN, context) as player:
        done = run_client(player.port)
    assert done.returncode == PROTOCOL, done.stderr
    assert not player.secrets
    for character in done.stdout + done.stderr:
        assert character.isprintable() or character == '\n', done.stderr
    assert not re.search('(?m)^Sent', done.stdout + done.stderr)


@pytest.mark.parametrize('server, names', [
    ('localhost', ['localhost']), ('LocalHost', ['localhost']),
    ('127.0.0.1', ['127.0.0.1']),
    ('localhost', ['other.example', 'localhost']),
])
@pytest.mark.parametrize('version', [ssl.TLSVersion.TLSv1_2,
                                     ssl.TLSVersion.TLSv1_3])
def test_certificate_accepted(server: str, names: List[str],
                              version: ssl.TLSVersion, authority: trustme.CA,
                              run_client: Run) -> None:
    """The counter-test: what is right is taken, and the login goes on."""
    context = context_of(authority.issue_cert(*names))
    context.minimum_version = context.maximum_version = version
    session = scripted.parse(SESSION + LOGIN)
    with scripted.playing(session, context) as player:
        done = run_client(player.port, server=server)
    assert not player.mismatch, player.difference()
    assert done.returncode == 77
    assert player.secrets == [scripted.PASSWORD.encode()]
    assert AUTHORITY_NAME in done.stderr  # the transcript says who issued it


@pytest.mark.parametrize('version', ['TLSv1', 'TLSv1_1'])
def test_old_tls(version: str, authority: trustme.CA, run_client: Run,
                 matches: Callable[[str, str], Any]) -> None:
    """TLS 1.0 and 1.1 are no protection any more (RFC 8996)."""
    context = context_of(authority.issue_cert('localhost'))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DeprecationWarning)
        context.set_ciphers('ALL:@SECLEVEL=0')
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion[version]
    with scripted.playing(SESSION + LOGIN, context) as player:
        done = run_client(player.port)
    assert done.returncode == PROTOCOL, done.stderr
    assert not player.secrets
    said = done.stderr.partition('smtp.py: Not sent: ')[2]
    assert matches('TLS 1.2|version', said), said


@contextlib.contextmanager
def serving(handshake: Callable[[socket.socket], None]) -> Iterator[int]:
    """Serve up to the client's STARTTLS, then let `handshake` go on."""
    listener = socket.create_server(('127.0.0.1', 0))
    listener.settimeout(scripted.PATIENCE)

    def serve() -> None:
        connection, _ = listener.accept()
        connection.settimeout(scripted.PATIENCE)
        with connection, contextlib.suppress(OSError):
            connection.sendall(b'220 mail.example.com ESMTP\r\n')
            connection.recv(4096)
            connection.sendall(b'250-mail.example.com\r\n250 STARTTLS\r\n')
            connection.recv(4096)
            handshake(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        with listener:
            yield listener.getsockname()[1]
    finally:
        thread.join(2 * scripted.PATIENCE)
    assert not thread.is_alive()


def first_flight(connection: socket.socket,
                 context: ssl.SSLContext) -> bytes:
    """Read the client's hello; return what a real server would answer."""
    connection.sendall(b'220 Go ahead\r\n')
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(incoming, outgoing, server_side=True)
    while not outgoing.pending:
        incoming.write(connection.recv(65536))
        with contextlib.suppress(ssl.SSLWantReadError):
            server.do_handshake()
    return outgoing.read()


def wait_for_the_end(connection: socket.socket) -> None:
    """Read until the client hangs up."""
    while connection.recv(65536):
        pass


@pytest.mark.parametrize('how', ['stalls', 'is cut', 'drips'])
def test_handshake_breaks_off(how: str, authority: trustme.CA,
                              run_client: Run) -> None:
    """A real handshake that stops half-way, or takes for ever.

    Each octet of it is right, so only a deadline for all of it helps.
    """
    context = context_of(authority.issue_cert('localhost'))

    def handshake(connection: socket.socket) -> None:
        octets = first_flight(connection, context)
        connection.sendall(octets[:200])
        if how == 'stalls':
            wait_for_the_end(connection)
        elif how == 'drips':
            for octet in octets[200:]:
                connection.sendall(bytes([octet]))
                time.sleep(0.02)

    with serving(handshake) as port:
        begun = time.monotonic()
        done = run_client(port, timeout=0.5)
        took = time.monotonic() - begun
    assert done.returncode in (LATER, PROTOCOL), done.stderr
    assert 'smtp.py: Not sent: ' in done.stderr
    assert 'TLS' in done.stderr
    assert took < 3


@pytest.mark.parametrize('injected', [
    b'250-mail.example.com\r\n250 AUTH LOGIN PLAIN\r\n', b'250 Ok\r\n',
    b'554 5.0.0 No\r\n', b'421 4.0.0 Shutting down\r\n', b'2', b'250 Ok\r',
    b'\0', b'\n', b'\x16\x03\x03\x00\x40',
], ids=repr)
@pytest.mark.parametrize('pause', [False, True],
                         ids=['same segment', 'later segment'])
def test_plaintext_after_the_220(injected: bytes, pause: bool,
                                 run_client: Run) -> None:
    """Whatever follows the 220 in clear is somebody else's word."""
    heard: List[bytes] = []

    def handshake(connection: socket.socket) -> None:
        go_ahead = b'220 2.0.0 Go ahead\r\n'
        if pause:
            connection.sendall(go_ahead)
            heard.append(connection.recv(65536))  # the hello of TLS
            connection.sendall(injected)
            connection.shutdown(socket.SHUT_WR)
        else:
            connection.sendall(go_ahead + injected)
        while connection.recv(65536):
            pass

    with serving(handshake) as port:
        begun = time.monotonic()
        done = run_client(port, timeout=2)
        took = time.monotonic() - begun
    short = pause and len(injected) <= 5   # half a TLS record, then the end
    assert done.returncode in ((PROTOCOL, LATER) if short else (PROTOCOL,)), \
        done.stderr
    assert 'smtp.py: Not sent: ' in done.stderr
    assert took < 1.5   # there is nothing to wait for


def test_key_log_is_not_written(
        tmp_path: pathlib.Path, run_smtp: Run, authority: trustme.CA,
        ca_file: str) -> None:
    """SSLKEYLOGFILE would let whoever set it read the password."""
    log = tmp_path / 'keys.log'
    context = context_of(authority.issue_cert('localhost'))
    with scripted.playing(SESSION + LOGIN, context) as player:
        done = run_smtp(
            '--server', 'localhost', '-4', '--port', str(player.port),
            '--ca-file', ca_file, '--from', scripted.FROM, '--to',
            scripted.TO, '--subject', 'Greetings', '--body', 'Hello!',
            env={'SSLKEYLOGFILE': str(log),
                 'SMTP_PASSWORD': scripted.PASSWORD})
    assert not player.mismatch, player.difference()
    assert done.returncode == 77
    assert not log.exists()


def test_system_authorities_are_the_default(
        run_main: Run, authority: trustme.CA) -> None:
    """Without --ca-file nobody trusts the authority of these tests."""
    context = context_of(authority.issue_cert('localhost'))
    with scripted.playing(SESSION + LOGIN, context) as player:
        done = run_main(
            '--server', 'localhost', '-4', '--port', str(player.port),
            '--timeout', '5', '--from', scripted.FROM, '--to', scripted.TO,
            '--subject', 'Greetings', '--body', 'Hello!',
            password=scripted.PASSWORD)
    assert done.returncode == PROTOCOL, done.stderr
    assert not player.secrets


def no_certificate(path: Optional[pathlib.Path]) -> str:
    """Return the path of a file without a certificate in it."""
    assert path is not None
    path.write_text('this is no certificate\n')
    return str(path)


@pytest.mark.parametrize('there', [True, False], ids=['empty', 'missing'])
def test_ca_file_of_no_use(there: bool, tmp_path: pathlib.Path,
                           run_main: Run) -> None:
    """A --ca-file that cannot be read is said before anything is sent."""
    path = tmp_path / 'ca.pem'
    if there:
        no_certificate(path)
    done = run_main(
        '--server', 'localhost', '-4', '--port', '1', '--ca-file', str(path),
        '--timeout', '5', '--from', scripted.FROM, '--to', scripted.TO,
        '--subject', 'Greetings', '--body', 'Hello!',
        password=scripted.PASSWORD)
    assert done.returncode == 66, done.stderr
    assert str(path) in done.stderr
