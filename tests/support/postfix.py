"""A real mail server for the tests: Postfix, with Dovecot for the logins.

It is as strict as its settings in data/postfix/ allow, and private: all of it
is in one temporary folder, on free ports of 127.0.0.1. The shell that runs it
reads from a pipe of ours: however the tests end, the pipe closes; then it
stops the servers and removes the folder.
"""

import contextlib
import hashlib
import hmac
import json
import os
import pathlib
import re
import shutil
import socket
import string
import subprocess
import tempfile
import time
from base64 import b64encode, urlsafe_b64encode

import pytest

from support import cli, tables

SERVICES = ('submission', 'implicit', 'sparse', 'relay')
SIZE_LIMIT = 1_000_000      # announced by SIZE
ALICE, BOB, CAROL = 'alice@example.com', 'bob@example.com', 'carol@example.com'
ZOE, JOERG, LATER = 'zoë@example.com', 'jörg@example.com', 'later@example.com'
LIST = [f'member{number}@example.com' for number in range(150)]
PASSWORDS = {ALICE: 'correct horse: battery "staple"',
             CAROL: 'pässwörd–密码☃', ZOE: 'plain'}
KEY = os.urandom(32)        # signs the tokens
FILES = {   # those with a secret are for one user to read
    'mailboxes': ''.join(f'{address} inbox/\n' for address in (
        ALICE, BOB, CAROL, JOERG, LATER, *LIST)),
    'senders': ''.join(f'{user.replace("ë", "e")} {user}\n'
                       for user in PASSWORDS),
    'passwords': ''.join(
        f'{user}:{{PLAIN.b64}}{b64encode(password.encode()).decode()}\n'
        for user, password in PASSWORDS.items()),
    'keys/default/HS256/default': b64encode(KEY).decode()}
SCRIPT = '''
trap '' INT HUP TERM
dovecot -F -c "$0/dovecot.conf" >"$0/dovecot.out" 2>&1 &
postfix -c "$0/config" start >"$0/postfix.out" 2>&1
echo "exit code $?" >>"$0/postfix.out"
read line
kill $!
postfix -c "$0/config" stop >/dev/null 2>&1
wait
rm -rf "$0"
'''


class RealServers:
    """Postfix and Dovecot while they run; `ports` has one for each service."""

    def __init__(self, folder, authority):
        """Write the configuration; nothing runs yet."""
        self.folder = folder
        with contextlib.ExitStack() as stack:
            self.ports = {service: stack.enter_context(socket.create_server(
                ('127.0.0.1', 0))).getsockname()[1] for service in SERVICES}
        for name in 'config', 'queue', 'data', 'mail', 'keys/default/HS256':
            (folder / name).mkdir(mode=0o755, parents=True)
        shutil.chown(folder / 'data', 'postfix')
        shutil.chown(folder / 'mail', 65534)
        for source in (tables.DATA / 'postfix').iterdir():
            self._write('config/' * (source.suffix == '.cf') + source.name,
                        string.Template(source.read_text()).substitute(
                            self.ports, folder=folder, size_limit=SIZE_LIMIT))
        for name, text in FILES.items():
            self._write(name, text, 'dovecot' * (name[0] in 'pk'))
        self._write('server.pem', authority.issue_cert(
            'localhost').private_key_and_cert_chain_pem.bytes().decode(),
            'root')

    def _write(self, name, text, reader=''):
        path = self.folder / name
        path.write_text(text, encoding='utf-8')
        path.chmod(0o600 if reader else 0o644)
        os.utime(path, (0, 0))      # Postfix waits for a file that is new
        if reader:
            shutil.chown(path, reader)

    def log(self):
        """What both servers have logged up to now."""
        return ''.join(
            path.read_text('utf-8', 'replace')
            for name in ('dovecot.out', 'postfix.out', 'postfix.log')
            for path in self.folder.glob(name))

    def runs(self):
        """Return whether both servers do."""
        assert not re.search('exit code [1-9]', self.log()), self.log()
        with socket.socket(socket.AF_UNIX) as probe:
            return 'exit code 0' in self.log() and not probe.connect_ex(
                str(self.folder / 'auth'))

    def delivered(self, last=False):
        """Wait for the delivery; return, and `last` remove, what came."""
        cli.wait_until(lambda: not any(     # from one to the next it moves
            names for queue in ('incoming', 'active', 'deferred')
            for _, _, names in os.walk(self.folder / 'queue' / queue)),
            'the delivery')
        messages = {}
        for path in (self.folder / 'mail').glob('*/new/*'):
            message = path.read_bytes().replace(b'\n', b'\r\n')
            to, = re.findall('(?m)^Delivered-To: (.*)\r$', message.decode())
            messages.setdefault(to, []).append(message)
            if last:
                path.unlink()
        return messages


def token(user, expires_in=3600, scope='SMTP.Send', padding=0):
    """Make a token (RFC 7519) as an identity provider would."""
    parts = b'.'.join(urlsafe_b64encode(json.dumps(part).encode()).rstrip(b'=')
                      for part in ({'alg': 'HS256', 'typ': 'JWT'}, {
                          'iss': 'https://login.example.com/', 'sub': user,
                          'email': user, 'scope': scope, 'x': 'x' * padding,
                          'exp': int(time.time()) + expires_in}))
    signature = urlsafe_b64encode(hmac.digest(KEY, parts, hashlib.sha256))
    return f'{parts.decode()}.{signature.decode().rstrip("=")}'


def cannot_run(reason):
    """Skip a test that needs other programs, or fail if that is asked for."""
    if os.environ.get('SMTP_TEST_REAL_SERVERS') == 'required':
        pytest.fail(f'required, but: {reason}')
    pytest.skip(reason)


@contextlib.contextmanager
def running(authority):
    """Run the servers for the length of a `with` block."""
    env = {'PATH': f'{os.environ.get("PATH", os.defpath)}:/usr/sbin'}
    if os.name != 'posix' or os.geteuid():
        cannot_run('only root can start Postfix')
    for command, version in ('postconf -d mail_version', b''), (
            'dovecot --version', b'2.3.'):
        done = subprocess.run(command, shell=True, capture_output=True,
                              env=env)
        if done.returncode or not done.stdout.startswith(version):
            cannot_run(f'{command}: {(done.stdout or done.stderr)!r}')
    folder = pathlib.Path(tempfile.mkdtemp(prefix='mail-'))
    folder.chmod(0o755)
    servers = RealServers(folder, authority)
    with subprocess.Popen(['/bin/sh', '-c', SCRIPT, str(folder)], env=env,
                          stdin=subprocess.PIPE, start_new_session=True):
        cli.wait_until(servers.runs, 'the start of the servers')
        yield servers
