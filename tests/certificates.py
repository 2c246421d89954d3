"""Certificates for servers: good ones, and bad ones made by hand."""

import datetime
import pathlib
import ssl
from typing import Optional, Union

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

NOW = datetime.datetime.now(datetime.timezone.utc)
DAY = datetime.timedelta(days=1)


def context_of(certificate: trustme.LeafCert) -> ssl.SSLContext:
    """Return the server's side for a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def named(common_name: str, organization: str = '') -> x509.Name:
    """Return the name of a subject."""
    names = [x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)]
    if organization:
        names.insert(0, x509.NameAttribute(
            x509.NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(names)


def handmade(folder: pathlib.Path, subject: x509.Name,
             *alternatives: Union[str, x509.GeneralName],
             authority: Optional[trustme.CA] = None) -> ssl.SSLContext:
    """Return the server's side for a certificate that trustme would not make.

    Args:
        folder: A folder for the file that OpenSSL wants.
        subject: Whose it is.
        *alternatives: The alternative names; a text is a DNS name.
        authority: Who signs it; None for its own key.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    signer, issuer = key, subject
    if authority:
        signer = serialization.load_pem_private_key(  # type: ignore
            authority.private_key_pem.bytes(), None)
        issuer = x509.load_pem_x509_certificate(
            authority.cert_pem.bytes()).subject
    builder = (x509.CertificateBuilder().subject_name(subject)
               .issuer_name(issuer).public_key(key.public_key())
               .serial_number(x509.random_serial_number())
               .not_valid_before(NOW - DAY).not_valid_after(NOW + DAY))
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(
            [x509.DNSName(name) if isinstance(name, str) else name
             for name in alternatives]), critical=False)
    if authority:
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(
                signer.public_key()), critical=False)
    path = folder / 'server.pem'
    path.write_bytes(
        builder.sign(signer, hashes.SHA256()).public_bytes(
            serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM,
                            serialization.PrivateFormat.PKCS8,
                            serialization.NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(path))
    return context
