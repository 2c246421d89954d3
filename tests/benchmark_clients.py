"""The programs that the benchmark compares, and how each of them is called.

All do the same work: TLS by STARTTLS with the certificate verified, AUTH
LOGIN, a subject in UTF-8 and the same attachment. Where one cannot, its note
says so.
"""

import base64
import dataclasses
import os
import pathlib
import sys
import urllib.parse

from benchmark_network import PASSWORD, USER

EHLO_NAME = 'client.example.com'
SUBJECT = 'Grüße aus dem Labor'
ENCODED_SUBJECT = '=?utf-8?q?Gr=C3=BC=C3=9Fe_aus_dem_Labor?='


# === The clients ===========================================================
#
# Each function says how one program sends a Mail. The scripts are what a
# person would write after reading the library's manual, no more.

@dataclasses.dataclass
class Mail:
    """One message to send, and where to."""

    host: str
    port: int
    authority: str                       # path of the CA certificate
    recipients: list
    text: str                            # path of the text
    attachment: str                      # path, or '' for none
    finished: str                        # path of the finished message


FLOOR_SCRIPT = """
import socket, ssl, sys
host, port, authority, finished, user, password, *recipients = sys.argv[1:]
sock = socket.create_connection((host, int(port)))
sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

def ask(text, replies=1):
    sock.sendall(text)
    data = b''
    while sum(line[3:4] == b' ' for line in data.split(b'\\n')) < replies:
        data += sock.recv(65536)

ask(b'')
ask(b'EHLO client.example.com\\r\\n')
ask(b'STARTTLS\\r\\n')
context = ssl.create_default_context(cafile=authority)
sock = context.wrap_socket(sock, server_hostname=host)
ask(b'EHLO client.example.com\\r\\n')
ask(b'AUTH LOGIN %s\\r\\n' % user.encode())
ask(b'%s\\r\\n' % password.encode())
envelope = ['MAIL FROM:<alice@example.com>']
envelope += [f'RCPT TO:<{address}>' for address in recipients]
envelope += ['DATA', '']
ask('\\r\\n'.join(envelope).encode(), len(envelope) - 1)
with open(finished, 'rb') as message:
    chunk = message.read(1 << 18)
    while len(chunk) == 1 << 18:
        sock.sendall(chunk)
        chunk = message.read(1 << 18)
ask(chunk + b'.\\r\\nQUIT\\r\\n', 2)
"""

PYTHON_MESSAGE = """
import email.message, os, ssl, sys
host, port, authority, text, attachment, *recipients = sys.argv[1:]
message = email.message.EmailMessage()
message['From'] = 'alice@example.com'
message['To'] = ', '.join(recipients)
message['Subject'] = 'Grüße aus dem Labor'
message.set_content(open(text, encoding='utf-8').read())
if attachment:
    message.add_attachment(open(attachment, 'rb').read(), filename='data.bin',
                           maintype='application', subtype='octet-stream')
context = ssl.create_default_context(cafile=authority)
"""

SMTPLIB_SCRIPT = PYTHON_MESSAGE + """
import smtplib
with smtplib.SMTP(host, int(port), 'client.example.com') as server:
    server.starttls(context=context)
    server.login('alice@example.com', os.environ['SMTP_PASSWORD'])
    server.send_message(message)
"""

AIOSMTPLIB_SCRIPT = PYTHON_MESSAGE + """
import asyncio, aiosmtplib
asyncio.run(aiosmtplib.send(
    message, hostname=host, port=int(port), start_tls=True,
    tls_context=context, local_hostname='client.example.com',
    username='alice@example.com', password=os.environ['SMTP_PASSWORD']))
"""

NODEMAILER_SCRIPT = """
const [host, port, authority, text, attachment, ...to] = process.argv.slice(2)
const fs = require('fs')
require('nodemailer').createTransport({
  host, port, secure: false, requireTLS: true, name: 'client.example.com',
  auth: {user: 'alice@example.com', pass: process.env.SMTP_PASSWORD},
  authMethod: 'LOGIN', tls: {ca: fs.readFileSync(authority)}
}).sendMail({
  from: 'alice@example.com', to, subject: 'Grüße aus dem Labor',
  text: fs.readFileSync(text, 'utf-8'),
  attachments: attachment ? [{path: attachment}] : []
})
"""


def smtp_py(mail):
    """How smtp.py is called; the password is in the environment."""
    to = [','.join(mail.recipients[start:start + 100])
          for start in range(0, len(mail.recipients), 100)]
    return ['--server', mail.host, '--port', str(mail.port),
            '--ca-file', mail.authority, '--from', USER,
            *(f'--to={addresses}' for addresses in to),
            '--subject', SUBJECT, '--body', '@' + mail.text,
            *(['--attach', mail.attachment] if mail.attachment else [])]


def script(mail):
    """How the scripts are called."""
    return [mail.host, str(mail.port), mail.authority, mail.text,
            mail.attachment, *mail.recipients]


def floor(mail):
    """How the floor is called: all that can be ready is ready."""
    secrets = [base64.b64encode(word.encode()).decode()
               for word in (USER, PASSWORD)]
    return [mail.host, str(mail.port), mail.authority, mail.finished,
            *secrets, *mail.recipients]


def swaks(mail):
    """How swaks is called, at its fastest."""
    attachment = ['--attach', '@' + mail.attachment] if mail.attachment else []
    return ['--server', mail.host, '--port', str(mail.port), '--tls',
            '--tls-verify', '--tls-ca-path', mail.authority, '--pipeline',
            '--auth', 'LOGIN', '--auth-user', USER, '--auth-password',
            PASSWORD, '--helo', EHLO_NAME, '--from', USER,
            '--to', ','.join(mail.recipients), '--header',
            'Subject: ' + ENCODED_SUBJECT, '--body', '@' + mail.text,
            *attachment, '--silent', '2']


def curl(mail):
    """How curl is called; its --form builds the message."""
    attachment = ['--form', f'=@{mail.attachment};encoder=base64']
    recipients = [word for address in mail.recipients
                  for word in ('--mail-rcpt', address)]
    return ['--silent', '--show-error', '--ssl-reqd', '--cacert',
            mail.authority, '--url',
            f'smtp://{mail.host}:{mail.port}/{EHLO_NAME}',
            '--user', f'{USER}:{PASSWORD}', '--login-options', 'AUTH=LOGIN',
            '--mail-from', USER, *recipients, '--header', 'From: ' + USER,
            '--header', 'To: ' + ', '.join(mail.recipients),
            '--header', 'Subject: ' + ENCODED_SUBJECT,
            '--form', f'=<{mail.text};type=text/plain',
            *(attachment if mail.attachment else [])]


def curl_ir(mail):
    """How curl is called to send the user name along with AUTH."""
    return ['--sasl-ir', *curl(mail)]


def msmtp(mail):
    """How msmtp is called; the finished message is its standard input."""
    settings = mail.authority + '.msmtprc'
    pathlib.Path(settings).write_text(
        f'account default\nhost {mail.host}\nport {mail.port}\n'
        f'from {USER}\nauth login\nuser {USER}\npassword {PASSWORD}\n'
        f'tls on\ntls_starttls on\ntls_trust_file {mail.authority}\n'
        f'domain {EHLO_NAME}\n')
    os.chmod(settings, 0o600)
    return ['--file', settings, '--', *mail.recipients]


def s_nail(mail):
    """How s-nail is called; the text is its standard input."""
    login = f'{urllib.parse.quote(USER)}:{PASSWORD}'
    settings = [f'mta=smtp://{login}@{mail.host}:{mail.port}',
                'v15-compat', 'smtp-use-starttls', 'smtp-auth=login',
                'tls-verify=strict', 'tls-ca-file=' + mail.authority,
                'tls-ca-no-defaults', 'sendwait', f'from={USER}',
                'hostname=' + EHLO_NAME]
    return ['-:/', *(word for text in settings for word in ('-S', text)),
            '-s', SUBJECT, *(['-a', mail.attachment] * bool(mail.attachment)),
            *mail.recipients]


@dataclasses.dataclass
class Client:
    """A program to measure."""

    name: str
    program: str                         # found by PATH
    arguments: object                    # function of a Mail
    version: list                        # arguments that print its version
    script: str = ''                     # source code, or '' for a program
    stdin: str = ''                      # which file of the Mail to read
    one_by_one: bool = False             # does without PIPELINING
    note: str = ''                       # where its work differs


PYTHON, LEAN = sys.executable, 'takes the finished message'
UNENCODED = 'encodes and folds no header field: gets the subject encoded'
CLIENTS = [
    Client('floor', PYTHON, floor, ['-V'], FLOOR_SCRIPT, note=LEAN),
    Client('curl --sasl-ir', 'curl', curl_ir, ['--version'], one_by_one=True,
           note=UNENCODED),
    Client('curl', 'curl', curl, ['--version'], one_by_one=True,
           note=UNENCODED),
    Client('swaks --pipeline', 'swaks', swaks, ['--version'], note=UNENCODED
           + '; does not compare the host name with the certificate'),
    Client('nodemailer', 'node', script, [
        '-p', 'require("nodemailer/package.json").version'],
           NODEMAILER_SCRIPT),
    Client('smtplib script', PYTHON, script, ['-V'], SMTPLIB_SCRIPT,
           one_by_one=True),
    Client('aiosmtplib script', PYTHON, script, [
        '-c', 'import aiosmtplib; print(aiosmtplib.__version__)'],
           AIOSMTPLIB_SCRIPT, one_by_one=True),
    Client('msmtp', 'msmtp', msmtp, ['--version'], stdin='finished',
           note=LEAN),
    Client('s-nail', 's-nail', s_nail, ['-:/', '-V'], stdin='text',
           one_by_one=True),
]
