"""Faults that were found by attacking smtp.py, and must not come back.

What can be told as a dialogue is in dialogues/; this is the rest.
"""

import datetime
import pathlib
import socket
import ssl
import threading
from typing import Any, Callable

import scripted
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

Run = Callable[..., Any]
LETTER = ('--from', 'alice@example.com', '--to', 'bob@example.org',
          '--subject', 'Greetings', '--body', 'Hello!')
OPENING = """\
S: 220 mail.example.com ESMTP
C: EHLO <name>
S: 250-mail.example.com
S: 250 STARTTLS
C: STARTTLS
S: 220 Go ahead
-- TLS begins
C: EHLO <name>
S: 250-mail.example.com
"""


def test_a_certificate_for_a_directory_name(
        authority: trustme.CA, tmp_path: pathlib.Path, run_main: Run,
        ca_file: str) -> None:
    """Names of other kinds in a certificate are no reason to fail."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer_key = serialization.load_pem_private_key(
        authority.private_key_pem.bytes(), None)
    issuer = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, 'x')])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder().subject_name(name)
        .issuer_name(issuer.subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(1))
        .not_valid_after(now + datetime.timedelta(1))
        .add_extension(x509.SubjectAlternativeName([
            x509.DNSName('localhost'), x509.DirectoryName(name)]), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(
            issuer_key.public_key()), False)  # type: ignore[arg-type]
        .sign(issuer_key, hashes.SHA256()))  # type: ignore[arg-type]
    path = tmp_path / 'server.pem'
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM,
                            serialization.PrivateFormat.PKCS8,
                            serialization.NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(path))
    session = scripted.parse(OPENING + 'S: 250 HELP\nC: QUIT\nS: 221 Bye\n')
    with scripted.playing(session, context) as player:
        done = run_main('--server', 'localhost', '-4', '--port',
                        str(player.port), '--ca-file', ca_file, '-v', *LETTER,
                        password='hunter-2')
    assert done.returncode == 69, done.stderr       # no AUTH: that far it came
    assert 'certificate for localhost, issued by' in done.stderr


def test_a_refusal_in_the_body_is_heard_though_nobody_reads_on(
        run_main: Run, tmp_path: pathlib.Path) -> None:
    """552 and silence: too large, and not "try again later"."""
    large = tmp_path / 'large.bin'
    large.write_bytes(bytes(20_000_000))
    ended = threading.Event()
    with socket.create_server(('127.0.0.1', 0)) as listener:
        def serve() -> None:
            sock, _ = listener.accept()
            with sock, sock.makefile('rb') as lines:
                sock.sendall(b'220 hello\r\n')
                for reply in b'250 hello', b'250 ok', b'250 ok', b'354 go':
                    lines.readline()
                    sock.sendall(reply + b'\r\n')
                sock.recv(1000)
                sock.sendall(b'552 5.3.4 too big\r\n')
                ended.wait(30)
        server = threading.Thread(target=serve)
        server.start()
        done = run_main(
            '--server', 'localhost', '-4', '--port',
            str(listener.getsockname()[1]), '--tls', 'none', '--timeout', '20',
            *LETTER, '--attach', str(large))
        ended.set()
        server.join()
    assert done.returncode == 65, done.stderr
    assert '552 5.3.4 too big' in done.stderr
