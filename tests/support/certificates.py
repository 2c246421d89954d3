"""The server's side of TLS: good certificates, and bad ones made by hand."""

import datetime
import ssl

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

NOW = datetime.datetime.now(datetime.timezone.utc)
DAY = datetime.timedelta(days=1)
PAST, FUTURE = (NOW - 9 * DAY, NOW - 2 * DAY), (NOW + 2 * DAY, NOW + 9 * DAY)


def issued(authority, *names, valid=(None, None)):
    """Return the server's side for a certificate by an authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names, not_before=valid[0], not_after=valid[1]
                         ).configure_cert(context)
    return context


def named(common_name, organization=''):
    """Return the name of a subject."""
    return x509.Name([x509.NameAttribute(kind, value) for kind, value in (
        (x509.NameOID.ORGANIZATION_NAME, organization),
        (x509.NameOID.COMMON_NAME, common_name)) if value])


def self_made(subject, *alternatives, authority=None, key=None, ca=False,
              valid=(NOW - DAY, NOW + DAY)):
    """Return a certificate that trustme would not make, and its key.

    Its authority is one of trustme or such a pair; else it signs itself.
    """
    key = key or ec.generate_private_key(ec.SECP256R1())
    if isinstance(authority, trustme.CA):
        authority = (
            x509.load_pem_x509_certificate(authority.cert_pem.bytes()),
            serialization.load_pem_private_key(
                authority.private_key_pem.bytes(), None))
    issuer, signer = authority or (None, key)
    builder = (x509.CertificateBuilder().subject_name(subject)
               .issuer_name(issuer.subject if issuer else subject)
               .public_key(key.public_key())
               .serial_number(x509.random_serial_number())
               .not_valid_before(valid[0]).not_valid_after(valid[1]))
    if ca:
        builder = builder.add_extension(
            x509.BasicConstraints(True, None), critical=True)
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(
            [x509.DNSName(name) if isinstance(name, str) else name
             for name in alternatives]), critical=False)
    if issuer:
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(
                signer.public_key()), critical=False)
    return builder.sign(signer, hashes.SHA256()), key


def bad(folder, *names, **more):
    """Return the server's side for a certificate made by `self_made`."""
    certificate, key = self_made(*names, **more)
    path = folder / 'server.pem'
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM,
                            serialization.PrivateFormat.PKCS8,
                            serialization.NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers('DEFAULT:@SECLEVEL=0')  # bad ones are to be refused
    context.load_cert_chain(str(path))
    return context
