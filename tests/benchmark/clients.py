"""The programs that the benchmark compares; the scripts are by the manuals."""

import base64
import dataclasses
import email.message
import email.policy
import functools
import os
import pathlib
import shlex
import shutil
import sys
from typing import List

SMTP, SUBJECT = 'smtp.py', 'Grüße aus dem Labor'
ENCODED = '=?utf-8?q?Gr=C3=BC=C3=9Fe_aus_dem_Labor?='


@functools.lru_cache(maxsize=1)
def encode(path):
    """Return a file in lines of base64; nothing for no path."""
    data = pathlib.Path(path).read_bytes() if path else b''
    return base64.encodebytes(data).replace(b'\n', b'\r\n').rstrip()


@dataclasses.dataclass
class Mail:
    """One message to send, and where to; the files are paths."""

    host: str
    port: int
    authority: str
    recipients: List[str]
    text: str
    attachment: str

    @functools.cached_property
    def finished(self):
        """The path of the message, for clients that do not build one."""
        message = email.message.EmailMessage(email.policy.SMTP)
        message['From'] = 'alice@example.com'
        message['To'] = ', '.join(self.recipients)
        message['Subject'] = SUBJECT
        message.set_content(pathlib.Path(self.text).read_text())
        if self.attachment:
            message.add_attachment(b'@', 'application', 'octet-stream')
        path = pathlib.Path(self.text + '.eml')
        path.write_bytes(message.as_bytes().replace(
            base64.b64encode(b'@'), encode(self.attachment)))
        return path


@dataclasses.dataclass
class Client:
    """A program to measure; its command line names what a Mail has."""

    name: str
    command: str
    attach: str = ''                    # added where there is an attachment
    each: str = '{to}'                  # added for each recipient
    script: str = ''
    stdin: str = os.devnull             # which file to read
    note: str = ''                      # where its work differs

    def arguments(self, mail, script):
        """Return the command line for a mail; script is the script's path."""
        script.write_text(self.script, 'utf-8')
        command = self.command + ' ' + self.attach * bool(mail.attachment)
        words = shlex.split(command.format(
            mail=mail, script=script, to=','.join(mail.recipients)))
        for address in mail.recipients:
            words += self.each.format(to=address).split()
        return [shutil.which(words[0]) or words[0], *words[1:]]


FLOOR_SCRIPT = r"""
import socket, ssl, sys
host, port, authority, finished, *recipients = sys.argv[1:]
sock = socket.create_connection((host, int(port)))
sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

def ask(text, replies=1):
    sock.sendall(text.encode())
    data = b''
    while sum(line[3:4] == b' ' for line in data.split(b'\n')) < replies:
        data += sock.recv(65536)

ask('')
ask('EHLO client.example.com\r\n')
ask('STARTTLS\r\n')
context = ssl.create_default_context(cafile=authority)
sock = context.wrap_socket(sock, server_hostname=host)
ask('EHLO client.example.com\r\n')
ask('AUTH LOGIN YWxpY2VAZXhhbXBsZS5jb20=\r\n')
ask('d29uZGVybGFuZA==\r\n')
envelope = ['MAIL FROM:<alice@example.com>']
envelope += [f'RCPT TO:<{address}>' for address in recipients] + ['DATA', '']
ask('\r\n'.join(envelope), len(envelope) - 1)
with open(finished, 'rb') as message:
    chunk = message.read(1 << 18)
    while len(chunk) == 1 << 18:
        sock.sendall(chunk)
        chunk = message.read(1 << 18)
ask(chunk.decode() + '.\r\nQUIT\r\n', 2)
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

READY = 'gets the finished message'
UNENCODED = 'encodes no header field: gets the subject encoded'
PYTHON = shlex.quote(sys.executable)
SERVER = '{mail.host} {mail.port} {mail.authority} '
SCRIPT = ' {script} ' + SERVER + '{mail.text} "{mail.attachment}"'
PEERS = [
    Client('floor', PYTHON + ' {script} ' + SERVER + '{mail.finished}',
           script=FLOOR_SCRIPT, note=READY),
    Client('curl --sasl-ir', 'curl --silent --show-error --ssl-reqd '
           '--sasl-ir smtp://{mail.host}:{mail.port}/client.example.com '
           '--cacert {mail.authority} --user alice@example.com:wonderland '
           '--mail-from alice@example.com --header "From: alice@example.com" '
           f'--header "To: {{to}}" --header "Subject: {ENCODED}" '
           '--form "=<{mail.text};type=text/plain"',
           '--form "=@{mail.attachment};encoder=base64"', '--mail-rcpt {to}',
           note=UNENCODED),
    Client('swaks --pipeline', 'swaks --silent 2 --pipeline '
           '--server {mail.host} --port {mail.port} --tls --tls-verify '
           '--tls-ca-path {mail.authority} --auth LOGIN '
           '--auth-user alice@example.com --auth-password wonderland '
           '--helo client.example.com --from alice@example.com '
           f'--to {{to}} --header "Subject: {ENCODED}" '
           '--body @{mail.text}', '--attach @{mail.attachment}', '',
           note=UNENCODED + '; does not compare the host name'),
    Client('nodemailer', 'node' + SCRIPT, script=pathlib.Path(
        __file__).with_name('nodemailer.js').read_text('utf-8')),
    Client('smtplib script', PYTHON + SCRIPT, script=SMTPLIB_SCRIPT),
    Client('aiosmtplib script', PYTHON + SCRIPT, script=AIOSMTPLIB_SCRIPT),
    Client('msmtp', 'msmtp --host={mail.host} --port={mail.port} --tls '
           '--tls-trust-file={mail.authority} --auth=login '
           '--user=alice@example.com --passwordeval="echo wonderland" '
           '--domain=client.example.com --from=alice@example.com --',
           stdin='{mail.finished}', note=READY),
    Client('s-nail', 's-nail -:/ -S v15-compat -S smtp-use-starttls '
           '-S mta=smtp://alice%40example.com:wonderland@'
           '{mail.host}:{mail.port} -S smtp-auth=login -S tls-verify=strict '
           '-S tls-ca-file={mail.authority} -S tls-ca-no-defaults '
           '-S sendwait -S from=alice@example.com '
           f'-S hostname=client.example.com -s "{SUBJECT}"',
           '-a {mail.attachment}', stdin='{mail.text}'),
]


def smtp_py(path):
    """Return smtp.py as a client; path says which one."""
    return Client(SMTP, f'{PYTHON} {shlex.quote(path)} '
                  '--server {mail.host} --port {mail.port} '
                  '--ca-file {mail.authority} --from alice@example.com '
                  f'--subject "{SUBJECT}" --body @{{mail.text}}',
                  '--attach {mail.attachment}')
