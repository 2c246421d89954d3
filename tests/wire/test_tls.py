"""TLS: whom smtp.py believes, and what it says when it does not."""

import contextlib
import socket
import ssl
import time
import warnings

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from support import checks, cli, dialogue, hostile, tables
from support.certificates import FUTURE, PAST, bad, issued, named, self_made
from support.checks import FILE, LATER, LOGIN, PROTOCOL
from support.post import MAIL

REFUSED_LOGIN = ('C: EHLO <name>\nS: 250-mail.example.com\n'
                 'S: 250 AUTH PLAIN\nC: AUTH PLAIN ********\n'
                 'S: 535 5.7.8 No\n' + dialogue.QUIT)
SESSION = dialogue.BEGINS['tls'] + REFUSED_LOGIN
IMPLICIT = '-- TLS begins\n' + dialogue.GREETING + REFUSED_LOGIN


def issued_for(*names, valid=(None, None)):
    """Return a function that makes a certificate by the right authority."""
    return lambda folder, authority: issued(authority, *names, valid=valid)


OTHER_NAME = r'not valid for .?(localhost|127.0.0.1)'
# What is wrong; how to make it, whose turn it is, words
BAD = {
    'self-signed': (
        lambda folder, _: bad(
            folder, named('localhost', 'localhost'), 'localhost'),
        '', 'self.signed', '--ca-file'),
    'unknown authority': (
        lambda *_: issued(trustme.CA(), 'localhost'),
        '', 'issuer|authority', '--ca-file', 'intercept'),
    'expired': (issued_for('localhost', valid=PAST), '', 'expired'),
    'not yet valid': (issued_for('localhost', valid=FUTURE), '',
                      'not yet valid', 'clock|date'),
    'wrong host': (
        issued_for('mail.example.org'), 'You', OTHER_NAME, '--server'),
    'part of the name': (
        issued_for('localhost.example.org', 'host', 'localhos'), 'You',
        OTHER_NAME),
    'name only in the CN': (
        lambda folder, authority: bad(
            folder, named('localhost'), authority=authority),
        'You', OTHER_NAME),
    'address without its SAN': (issued_for('localhost'), 'You', OTHER_NAME),
    'address as a name': (
        issued_for('127.0.0.1.', '*.0.0.1'), 'You', OTHER_NAME),
    'weak key': (
        lambda folder, authority: bad(
            folder, named('localhost'), 'localhost', authority=authority,
            key=rsa.generate_private_key(65537, 1024)),
        'Your administrator', 'key too weak|too small')}


@pytest.fixture
def refused(play):
    """A function that checks that a server is not trusted; 76, no secret."""
    def refused(context, *words, options=(), told=SESSION, **more):
        result, player = play(told, '-v', *options, context=context,
                              as_written=False)
        checks.check(result, PROTOCOL, *words, **more)
        assert player.mismatch.startswith('-- '), player.difference()
        assert not player.secrets
    return refused


@pytest.mark.parametrize('told', [SESSION, IMPLICIT],
                         ids=['starttls', 'implicit'])
@pytest.mark.parametrize('kind', BAD)
def test_certificate_refused(kind, told, authority, tmp_path, refused):
    """Nothing is sent under it, and the reason is explained."""
    make, who, *words = BAD[kind]
    server = '127.0.0.1' if 'address' in kind else 'localhost'
    refused(make(tmp_path, authority), 'certificate', *words, who=who,
            options=['--server', server], told=told)


def test_an_expired_authority(tmp_path, refused):
    """The certificate is valid; what has expired is the authority's."""
    authority = self_made(named('Old authority'), ca=True,
                          valid=PAST)
    ca_file = tmp_path / 'ca.pem'
    ca_file.write_bytes(authority[0].public_bytes(serialization.Encoding.PEM))
    refused(bad(tmp_path, named('localhost'), 'localhost',
                authority=authority), 'expired',
            absent='certificate of localhost has expired',
            options=['--ca-file', str(ca_file)])


def test_a_certificate_for_a_directory_name(authority, tmp_path, play):
    """Names of other kinds in a certificate are not a reason to fail."""
    result, _ = play(SESSION, context=bad(
        tmp_path, named('x'), 'localhost', x509.DirectoryName(named('x')),
        authority=authority))
    checks.check(result, LOGIN)


@pytest.mark.parametrize('name, alternative', [
    ('a\x1b[2J\x07\x08', 'b'), ('a\u202egnp', 'b'),
    ('a\nSent to bob@example.org: 250 Ok', 'b'), ('a\0b', 'b'),
    ('a', 'b\x1b[1m'), ('a', 'b\nSent to c'), ('a', 'b\0c')], ids=ascii)
def test_certificate_of_hostile_words(name, alternative, tmp_path, refused):
    """A certificate is the server's word as well, and shown escaped."""
    refused(bad(tmp_path, named(name, name), 'host', alternative))


@pytest.mark.parametrize('server, names', [
    ('localhost', ['localhost']), ('LocalHost', ['localhost']),
    ('127.0.0.1', ['127.0.0.1']),
    ('localhost', ['other.example', 'localhost']),
])
@pytest.mark.parametrize('version', [ssl.TLSVersion.TLSv1_2,
                                     ssl.TLSVersion.TLSv1_3])
def test_certificate_accepted(server, names, version, authority, play):
    """The counter-test: what is right is accepted, and the login goes on."""
    context = issued(authority, *names)
    context.minimum_version = context.maximum_version = version
    result, player = play(SESSION, '--server', server, context=context)
    checks.check(result, LOGIN)
    assert player.secrets == [dialogue.PASSWORD.encode()]


@pytest.mark.parametrize('version', ['TLSv1', 'TLSv1_1'])
def test_old_tls(version, authority, refused):
    """TLS 1.0 and 1.1 protect nothing any more (RFC 8996)."""
    context = issued(authority, 'localhost')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DeprecationWarning)
        context.set_ciphers('ALL:@SECLEVEL=0')
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion[version]
    refused(context, 'TLS 1.2|(?i:version)')


def test_a_small_group(authority, refused, tmp_path):
    """Diffie-Hellman with 1024 bits: refused, for OpenSSL's own reason."""
    context = bad(tmp_path, named('localhost'), 'localhost',
                  authority=authority,
                  key=rsa.generate_private_key(65537, 2048))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers('DHE-RSA-AES128-GCM-SHA256:@SECLEVEL=0')
    context.load_dh_params(str(tables.DATA / 'small_group.pem'))
    refused(context, '(?i:dh.key.too.small)', who='Your administrator')


def test_tls_where_the_server_speaks_in_clear(play):
    """--tls implicit on the port of STARTTLS: "wrong version number"."""
    result, _ = play(dialogue.GREETING, '--tls', 'implicit', as_written=False)
    checks.check(result, PROTOCOL, '--tls starttls', who='You')


def test_starttls_where_the_server_wants_tls(call):
    """STARTTLS on port 465: both sides wait for each other in silence."""
    with socket.create_server(('127.0.0.1', 0)) as listener:
        result = call(*cli.reach(listener.getsockname()[1], timeout=0.2),
                      *MAIL, password=dialogue.PASSWORD)
    checks.check(result, LATER, '--tls implicit', who='You')


@pytest.fixture
def meet(call, ca_file, server_context):
    """A function that lets smtp.py meet this answer to its STARTTLS."""
    def meet(handshake, timeout):
        def fault(server, wire, right):
            with contextlib.suppress(OSError):
                handshake(wire.socket)
            raise hostile.Over
        with hostile.serving('STARTTLS', fault, server_context) as server:
            begun = time.monotonic()
            result = call(*cli.reach(server.port, ca_file, timeout), *MAIL,
                          password=dialogue.PASSWORD)
            return result, time.monotonic() - begun
    return meet


@pytest.mark.parametrize('how', ['stalls', 'is cut', 'drips'])
def test_handshake_breaks_off(how, meet, server_context):
    """A real handshake that stops half-way, or goes on forever."""
    def handshake(connection):
        connection.sendall(b'220 Go ahead\r\n')
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = server_context.wrap_bio(incoming, outgoing, server_side=True)
        while not outgoing.pending:
            incoming.write(connection.recv(65536))
            with contextlib.suppress(ssl.SSLWantReadError):
                server.do_handshake()
        octets = outgoing.read()
        connection.sendall(octets[:200])
        if how == 'stalls':
            connection.recv(65536)
        for octet in octets[200:] if how == 'drips' else b'':
            connection.sendall(bytes([octet]))
            time.sleep(0.02)
    result, took = meet(handshake, timeout=0.5)
    assert result.code in (LATER, PROTOCOL)
    checks.check(result, result.code, 'TLS')
    assert took < 3


@pytest.mark.parametrize('injected', [
    b'250-mail.example.com\r\n250 AUTH LOGIN PLAIN\r\n', b'250 Ok\r\n',
    b'554 5.0.0 No\r\n', b'421 4.0.0 Shutting down\r\n', b'2', b'250 Ok\r',
    b'\0', b'\n', b'\x16\x03\x03\x00\x40',
], ids=repr)
@pytest.mark.parametrize('pause', [False, True],
                         ids=['same segment', 'later segment'])
def test_plaintext_after_the_220(injected, pause, meet):
    """Whatever follows the 220 in clear may be an attacker's word."""
    def handshake(connection):
        go_ahead = b'220 2.0.0 Go ahead\r\n'
        if pause:
            connection.sendall(go_ahead)
            connection.recv(65536)  # the hello of TLS
            go_ahead = b''
        connection.sendall(go_ahead + injected)
    result, took = meet(handshake, timeout=2)
    short = pause and len(injected) <= 5   # half a TLS record, then the end
    assert result.code in ((PROTOCOL, LATER) if short else (PROTOCOL,))
    checks.ended_well(result)
    assert took < 1.5   # there is nothing to wait for


def test_key_log_is_not_written(tmp_path, play):
    """SSLKEYLOGFILE would let whoever set it read the password."""
    log = tmp_path / 'keys.log'
    result, _ = play(SESSION, env={'SSLKEYLOGFILE': str(log)})
    checks.check(result, LOGIN)
    assert not log.exists()


@pytest.mark.parametrize('content', [None, b'', b'no certificate', b'\xff'])
def test_ca_file_of_no_use(content, folder, call):
    """A --ca-file that cannot be read is named before anything is sent."""
    if content is not None:
        (folder / 'ca.pem').write_bytes(content)
    result = call(*cli.reach(1, 'ca.pem'), *MAIL, password=dialogue.PASSWORD)
    checks.check(result, FILE, 'ca.pem')
