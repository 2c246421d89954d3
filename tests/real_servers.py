"""A real mail server for the tests: Postfix, with Dovecot for the logins.

The scripted servers of the other tests answer what we believe that a server
answers. This one is what much of the Internet runs, and it judges smtp.py by
its own reading of the RFCs, as strictly as its settings allow. It is private:
configuration, queue, mailboxes, sockets, keys and logs live in one temporary
folder, it listens on free ports of 127.0.0.1 only, and it never sends mail
to another machine. A server that the system itself runs is not touched.

    smtp.py --> Postfix smtpd --> cleanup --> queue --> virtual --> Maildir
                     |
                     +-- Unix socket --> Dovecot auth: passwords and tokens

Postfix gives its services away to several users (`postfix`, `nobody`), so it
must be started by root, as it can be in a container.
"""

import contextlib
import os
import pathlib
import re
import secrets
import shutil
import socket
import string
import subprocess
import tempfile
import time
from base64 import b64encode
from typing import Dict, Iterator, List, Optional

import jwt
import trustme

#: Where Debian keeps servers; an ordinary user's PATH often lacks it.
SEARCH = os.pathsep.join([os.environ.get('PATH', os.defpath), '/usr/sbin'])

#: Who can log in, with which password.
PASSWORDS = {
    'alice@example.com': 'correct horse: battery "staple"',
    'carol@example.com': 'pässwörd–密码☃',
    'zoë@example.com': 'plain',
}

#: Who has a mailbox, and in which folder; nobody else is known here. A
#: hundred and fifty people of one list share a folder: each copy of a message
#: says in its Delivered-To whose it is.
LIST = [f'member{number}@example.com' for number in range(150)]
MAILBOXES = {
    'alice@example.com': 'alice', 'bob@example.com': 'bob',
    'carol@example.com': 'carol', 'jörg@example.com': 'joerg',
    'later@example.com': 'later', **dict.fromkeys(LIST, 'list'),
}

#: Who may log in as whom to send From which address.
SENDERS = {**{user: user for user in PASSWORDS},
           'zoe@example.com': 'zoë@example.com'}

#: The largest message that the server takes; it says so by SIZE.
SIZE_LIMIT = 1_000_000

#: Who makes the tokens.
ISSUER = 'https://login.example.com/'

#: The user whom the mailboxes belong to, by number.
NOBODY = 65534

SERVICES = ('submission', 'implicit', 'sparse', 'relay')

# The four ports. `sparse` offers little more than STARTTLS and AUTH, so each
# command waits for its reply. `relay` is what a local queue offers to the
# programs on its machine: neither TLS nor logins.
MASTER_CF = """\
127.0.0.1:$submission inet n - n - - smtpd
  -o syslog_name=postfix/submission
127.0.0.1:$implicit inet n - n - - smtpd
  -o syslog_name=postfix/implicit -o smtpd_tls_wrappermode=yes
127.0.0.1:$sparse inet n - n - - smtpd
  -o syslog_name=postfix/sparse
  -o smtpd_discard_ehlo_keywords=pipelining,size,8bitmime,smtputf8
127.0.0.1:$relay inet n - n - - smtpd
  -o syslog_name=postfix/relay -o smtpd_tls_security_level=none
  -o smtpd_sasl_auth_enable=no -o smtpd_sender_restrictions=
  -o smtpd_relay_restrictions=permit_mynetworks,reject
cleanup unix n - n - 0 cleanup
qmgr    unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce  unix - - n - 0 bounce
defer   unix - - n - 0 bounce
trace   unix - - n - 0 bounce
error   unix - - n - - error
retry   unix - - n - - error
virtual unix - n n - 4 virtual
anvil   unix - - n - 1 anvil
tlsmgr  unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
"""

MAIN_CF = """\
compatibility_level = 3.6
queue_directory = $folder/queue
data_directory = $folder/data
maillog_file = $folder/postfix.log
maillog_file_prefixes = $folder
myhostname = mail.example.com
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtputf8_enable = yes

# Mail for the people below is delivered here, and no other mail anywhere.
mydestination =
alias_maps =
alias_database =
local_recipient_maps =
local_transport = error:there is no local mail here
default_transport = error:mail does not leave this machine
disable_dns_lookups = yes
smtpd_peername_lookup = no
virtual_mailbox_domains = example.com
virtual_mailbox_base = $folder/mail
virtual_mailbox_maps = texthash:$folder/mailboxes
virtual_mailbox_limit = 0
virtual_uid_maps = static:$nobody
virtual_gid_maps = static:$nobody
message_size_limit = $size_limit

# Logins: only inside TLS, and each only for its own addresses.
smtpd_tls_chain_files = $folder/server.pem
smtpd_tls_security_level = encrypt
smtpd_tls_auth_only = yes
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = $folder/auth
smtpd_sender_login_maps = texthash:$folder/senders
smtpd_sender_restrictions = reject_sender_login_mismatch
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_recipient_restrictions =
    check_recipient_access inline:{{later@example.com=450 4.2.0 Try later}}

# As strict as Postfix can be, and at once.
smtpd_helo_required = yes
smtpd_helo_restrictions =
    reject_invalid_helo_hostname, reject_non_fqdn_helo_hostname
strict_rfc821_envelopes = yes
smtpd_forbid_bare_newline = yes
smtpd_forbid_bare_newline_exclusions =
smtpd_forbid_unauth_pipelining = yes
smtpd_data_restrictions = reject_unauth_pipelining
smtpd_delay_reject = no
smtpd_error_sleep_time = 0
in_flow_delay = 0
notify_classes =
"""

DOVECOT_CONF = """\
base_dir = $folder/dovecot
state_dir = $folder/dovecot
log_path = $folder/dovecot.log
protocols =
ssl = no
auth_mechanisms = plain login xoauth2 oauthbearer
auth_username_chars =
auth_failure_delay = 0
passdb {
  driver = passwd-file
  mechanisms = plain login
  args = $folder/passwords
}
passdb {
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = $folder/oauth2.conf
}
service auth {
  unix_listener $folder/auth {
    mode = 0600
    user = postfix
  }
}
# No penalty of seconds for the wrong passwords of the tests.
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
"""

# A token counts when the key below signed it for sending mail here and it has
# not expired; nobody else is asked.
OAUTH2_CONF = """\
introspection_mode = local
local_validation_key_dict = fs:posix:prefix=$folder/keys/
username_attribute = email
issuers = $issuer
scope = SMTP.Send
"""


class CannotRun(Exception):
    """Real servers cannot run on this machine; the text says why."""


class RealServers:
    """Postfix and Dovecot while they run; `running` below makes one.

    Attributes:
        host: the name in the servers' certificate.
        ports: the port of each of SERVICES.
        folder: where everything of theirs is.
    """

    host = 'localhost'

    def __init__(self, folder: pathlib.Path, authority: trustme.CA) -> None:
        """Write the configuration; nothing runs yet.

        Args:
            folder: an empty folder that every user can enter, and whose path
                is short, because the path of a Unix socket must be.
            authority: who signs the servers' certificate.
        """
        self.folder = folder
        self.ports: Dict[str, int] = {}
        self._dovecot: Optional[subprocess.Popen[bytes]] = None
        self._signing_key = secrets.token_bytes(32)
        for name in ('config', 'queue', 'data', 'mail', 'keys',
                     'keys/default', 'keys/default/HS256'):
            (folder / name).mkdir()
            (folder / name).chmod(0o755)  # whatever the umask is
        shutil.chown(folder / 'data', 'postfix')
        shutil.chown(folder / 'mail', NOBODY)
        self._write('config/main.cf', self._fill_in(MAIN_CF))
        self._write('dovecot.conf', self._fill_in(DOVECOT_CONF))
        self._write('oauth2.conf', self._fill_in(OAUTH2_CONF))
        self._write('mailboxes', ''.join(
            f'{address} {name}/\n' for address, name in MAILBOXES.items()))
        self._write('senders', ''.join(
            f'{address} {user}\n' for address, user in SENDERS.items()))
        self._write('passwords', ''.join(
            f'{user}:{{PLAIN.b64}}{b64encode(password.encode()).decode()}\n'
            for user, password in PASSWORDS.items()), secret_of='dovecot')
        certificate = authority.issue_cert(self.host)
        self._write('server.pem', certificate.private_key_and_cert_chain_pem
                    .bytes().decode(), secret_of='root')
        # Where Dovecot looks for the key of a token that names neither its
        # client nor its key.
        self._write('keys/default/HS256/default',
                    b64encode(self._signing_key).decode(),
                    secret_of='dovecot')

    def _fill_in(self, template: str) -> str:
        return string.Template(template).substitute(
            self.ports, folder=self.folder, nobody=NOBODY,
            size_limit=SIZE_LIMIT, issuer=ISSUER)

    def _write(self, name: str, text: str, secret_of: str = '') -> None:
        path = self.folder / name
        path.write_text(text, encoding='utf-8')
        path.chmod(0o600 if secret_of else 0o644)
        # Postfix waits two seconds for a file that has changed just now.
        os.utime(path, (0, 0))
        if secret_of:
            shutil.chown(path, secret_of)

    # -- Running ---------------------------------------------------------

    def start(self) -> None:
        """Start both servers; return when they answer."""
        self._start_dovecot()
        # Between finding a free port and Postfix's taking it, somebody else
        # may have taken it: that is worth another try.
        for _ in range(3):
            self.ports = free_ports()
            self._write('config/master.cf', self._fill_in(MASTER_CF))
            if self._postfix('start') == 0:
                return
        raise RuntimeError('Postfix does not start:\n' + self.log())

    def stop(self) -> None:
        """Stop whatever of them runs, and wait until it has ended."""
        if self._dovecot is not None:
            self._dovecot.terminate()
        if (self.folder / 'queue/pid/master.pid').exists():
            self._postfix('stop')
        if self._dovecot is not None:
            try:
                self._dovecot.wait(10)
            except subprocess.TimeoutExpired:
                self._dovecot.kill()
                self._dovecot.wait()

    def _start_dovecot(self) -> None:
        with open(self.folder / 'dovecot.out', 'ab') as output:
            self._dovecot = subprocess.Popen(
                [program('dovecot'), '-F', '-c',
                 str(self.folder / 'dovecot.conf')],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        for _ in until_deadline('Dovecot does not start', 10):
            with contextlib.closing(socket.socket(socket.AF_UNIX)) as probe:
                if probe.connect_ex(str(self.folder / 'auth')) == 0:
                    return
            if self._dovecot.poll() is not None:
                raise RuntimeError('Dovecot does not start:\n' + self.log())

    def _postfix(self, action: str) -> int:
        # Into a file: a pipe would stay open as long as the daemon runs.
        with open(self.folder / 'postfix.out', 'ab') as output:
            return subprocess.run(
                [program('postfix'), '-c', str(self.folder / 'config'),
                 action], stdin=subprocess.DEVNULL, stdout=output,
                stderr=output, timeout=30).returncode

    def log(self) -> str:
        """What both servers have logged up to now."""
        return ''.join(
            path.read_text('utf-8', 'replace') for path in
            [self.folder / name for name in (
                'dovecot.out', 'dovecot.log', 'postfix.out', 'postfix.log')]
            if path.exists())

    # -- Mail and tokens --------------------------------------------------

    def delivered(self) -> Dict[str, List[bytes]]:
        """Wait until nothing is on its way; return who has got what.

        Postfix answers a message's final dot after it is in the queue. So
        whatever was said to be sent before this call is here, and when
        nothing is here, nothing was sent: it cannot just be late.

        Returns:
            For each address its messages in the order of their arrival, with
            the fields that Postfix adds; as in every Maildir, lines end in
            LF.
        """
        self._wait_until_delivered()
        messages: Dict[str, List[bytes]] = {}
        for path in sorted((self.folder / 'mail').glob('*/new/*'),
                           key=lambda path: path.stat().st_mtime_ns):
            message = path.read_bytes()
            found = re.search(b'^Delivered-To: (.*)$', message, re.MULTILINE)
            assert found, 'Postfix writes this field into every message'
            messages.setdefault(found[1].decode(), []).append(message)
        return messages

    def mail(self, address: str) -> List[bytes]:
        """The messages that `delivered` has for one address."""
        return self.delivered().get(address, [])

    def clear(self) -> None:
        """Wait until nothing is on its way; empty all mailboxes."""
        self._wait_until_delivered()
        for path in (self.folder / 'mail').glob('*/*/*'):
            path.unlink()

    def _wait_until_delivered(self) -> None:
        # A message moves from left to right until it is delivered, so that
        # one look in this order cannot miss it.
        queues = [self.folder / 'queue' / name
                  for name in ('incoming', 'active', 'deferred')]
        for _ in until_deadline('Postfix does not deliver', 20):
            if not any(names for queue in queues
                       for _, _, names in os.walk(queue)):
                return

    def token(self, user: str, expires_in: int = 3600,
              scope: str = 'SMTP.Send', padding: int = 0) -> str:
        """Make a token as an identity provider would.

        Args:
            user: the address of the account that it is for.
            expires_in: seconds from now; negative for an expired one.
            scope: what it allows; Dovecot asks for `SMTP.Send`.
            padding: how many octets to add, as real ones carry some thousand.
        """
        claims = {'iss': ISSUER, 'sub': user, 'email': user, 'scope': scope,
                  'exp': int(time.time()) + expires_in}
        if padding:
            claims['padding'] = 'x' * padding
        return jwt.encode(claims, self._signing_key, 'HS256')


def until_deadline(complaint: str, seconds: float) -> Iterator[None]:
    """Yield now and then; raise when the time is up."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
        time.sleep(0.01)
    raise TimeoutError(f'{complaint} within {seconds} seconds')


def free_ports() -> Dict[str, int]:
    """Find a free port of 127.0.0.1 for each of SERVICES."""
    with contextlib.ExitStack() as stack:
        ports = {}
        for service in SERVICES:
            found = stack.enter_context(socket.socket())
            found.bind(('127.0.0.1', 0))
            ports[service] = found.getsockname()[1]
        return ports


def program(name: str) -> str:
    """Return the path of an installed program, or raise CannotRun."""
    path = shutil.which(name, path=SEARCH)
    if path is None:
        raise CannotRun(f'{name} is not installed')
    return path


def check_machine() -> None:
    """Raise CannotRun when this machine cannot run the servers."""
    if os.name != 'posix' or os.geteuid() != 0:
        raise CannotRun('only root can start Postfix')
    program('postfix')
    version = subprocess.run([program('dovecot'), '--version'],
                             capture_output=True, text=True).stdout
    if not version.startswith('2.3.'):
        raise CannotRun('the configuration is one for Dovecot 2.3, not '
                        + (version.strip() or 'an unknown version'))


@contextlib.contextmanager
def running(authority: trustme.CA) -> Iterator[RealServers]:
    """Run the servers for the length of a `with` block.

    Raises:
        CannotRun: they are not installed, or we are not root.
    """
    check_machine()
    with tempfile.TemporaryDirectory(prefix='mail-') as folder:
        os.chmod(folder, 0o755)
        servers = RealServers(pathlib.Path(folder), authority)
        try:
            servers.start()
            yield servers
        finally:
            servers.stop()
