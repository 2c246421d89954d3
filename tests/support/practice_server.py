"""The practice server: aiosmtpd with Office 365's extensions and sentences.

PracticeSMTP is one connection: it rewords the replies and gives the refusals.
PracticeServer is what all share: it decides about logins and keeps messages.
"""

import asyncio
import base64
import contextlib
import email
import email.policy
import logging
import pathlib
import re
import socket
import ssl
import sys
import tempfile
import typing

import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, syntax

from support.refusals import parse_refusal

USER, PASSWORD, TOKEN = 'alice@example.com', 'open-sesame', 'practice-token'

SIZE = 157286400  # octets: 150 MiB
EXTENSIONS = (f'SIZE {SIZE}', 'PIPELINING', 'ENHANCEDSTATUSCODES', 'STARTTLS',
              '8BITMIME', 'SMTPUTF8')
# Office 365 has DSN, BINARYMIME and CHUNKING as well; aiosmtpd does not.

WORDING = {  # aiosmtpd's reply: Office 365's
    '220 Ready to start TLS': '220 2.0.0 SMTP server ready',
    '221 Bye': '221 2.0.0 Service closing transmission channel',
    '250 OK': '250 2.0.0 OK',
    '354 End data with <CR><LF>.<CR><LF>':
        '354 Start mail input; end with <CRLF>.<CRLF>',
    '504 5.5.4 Unrecognized authentication type':
        '504 5.7.4 Unrecognized authentication type',
    '530 Must issue a STARTTLS command first':
        '530 5.7.0 Must issue a STARTTLS command first',
    '530 5.7.0 Authentication required':
        '530 5.7.57 Client not authenticated to send mail.',
    '552 Error: message size exceeds fixed maximum message size':
        '552 5.3.4 Message size exceeds fixed maximum message size',
}
# The reason why a token is refused is a challenge, which is answered by ''.
REASON = ('{"status": "400", "schemes": "Bearer", '
          '"scope": "https://outlook.office.com/"}')


def reword(reply):
    """Return one of aiosmtpd's replies as Office 365 would word it."""
    reply = WORDING.get(reply, reply)
    reply = re.sub('^250 (Syntax|Supported)', r'214 2.0.0 \1', reply)  # HELP
    # RFC 2034: every reply but 220 and 3yz has an enhanced status code.
    return re.sub(r'^([45])(..) (?!\d\.\d)', r'\1\2 \1.5.0 ', reply)


class Received(typing.NamedTuple):
    """One message as the server got it: who, to whom, and its octets."""

    sender: str
    recipients: tuple
    content: bytes
    user: str
    mail_options: tuple

    def parse(self):
        """Return the message as the standard library's parser reads it."""
        return email.message_from_bytes(self.content,
                                        policy=email.policy.default)


class PracticeSMTP(SMTP):
    """One connection: aiosmtpd's SMTP, with Office 365's words."""

    AuthLoginUsernameChallenge = 'Username:'
    AuthLoginPasswordChallenge = 'Password:'
    line_length_limit = 12288  # for a token on a line of its own (RFC 4954 4)
    greeted = False

    async def push(self, status):
        """Send one reply; all of them leave through here."""
        refusal = ''
        if not self.greeted:
            refusal = self.event_handler.refusal('greeting')
            self.greeted, status = True, refusal or status
        elif isinstance(status, str) and status not in (
                one.reply for one in self.event_handler.refusals.values()):
            status = reword(status)
        await super().push(status)
        if refusal or status[:3] in ('421', b'421'):
            # Closing with commands unread would reset the connection, and
            # the reply could get lost: read them, up to QUIT.
            with contextlib.suppress(asyncio.TimeoutError, ValueError):
                line = status
                while line not in (b'', b'QUIT\r\n'):
                    line = await asyncio.wait_for(
                        self._reader.readline(), timeout=1)
            self.transport.close()

    async def refused(self, step):
        """Send the refusal for this step, if there is one."""
        reply = self.event_handler.refusal(step)
        if reply:
            await self.push(reply)
        return bool(reply)

    async def check_auth_needed(self, method):
        """Let HELP be used before the login."""
        return method != 'HELP' and await super().check_auth_needed(method)

    @syntax('STARTTLS')
    async def smtp_STARTTLS(self, arg):
        """STARTTLS, once, unless it is to be refused."""
        if self.session.ssl:
            await self.push('503 5.5.1 TLS is already active')
        elif not await self.refused('starttls'):
            await super().smtp_STARTTLS(arg)

    @syntax('AUTH <mechanism>')
    async def smtp_AUTH(self, arg):
        """AUTH, in upper or lower case, unless it is to be refused."""
        if not (self.session.ssl and await self.refused('auth')):
            mechanism, space, initial = (arg or '').partition(' ')
            await super().smtp_AUTH(mechanism.upper() + space + initial)

    @syntax('DATA')
    async def smtp_DATA(self, arg):
        """DATA, unless it is to be refused."""
        if not (self.envelope.rcpt_tos and await self.refused('data')):
            await super().smtp_DATA(arg)

    async def auth_XOAUTH2(self, _, args):
        """AUTH XOAUTH2: user and token at once, or after an empty 334."""
        if len(args) == 1:
            answer = await self.challenge_auth('')
            if not isinstance(answer, bytes):  # cancelled, and answered
                return AuthResult(success=False)
        else:
            try:
                answer = base64.b64decode(args[1], validate=True)
            except ValueError:
                await self.push('501 5.5.4 Invalid arguments')
                return AuthResult(success=False)
        login = re.fullmatch(b'user=([^\1]*)\1auth=Bearer ([^\1]*)\1\1',
                             answer)
        result = self._authenticate('XOAUTH2', login and login.groups())
        if not result.success and await self.challenge_auth(REASON) != b'':
            return AuthResult(success=False)
        return result


class PracticeServer(Controller):
    """A server on a free port of 127.0.0.1, called localhost; `with` runs it.

    What arrived is in the list `messages`; `given` is the first Refusal that
    was given. With `drop_after_dot` it closes the connection instead of
    answering the final dot; the message has arrived all the same.
    """

    host = 'localhost'

    def __init__(self, refusals=(), drop_after_dot=False):
        """Reserve a free port, and make the certificate."""
        self.socket = socket.create_server(('127.0.0.1', 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.refuse(*refusals)
        self.given = None
        self.drop_after_dot = drop_after_dot
        self.messages, self.connections = [], []
        self._temporary = tempfile.TemporaryDirectory(prefix='smtp-')
        self.folder = pathlib.Path(self._temporary.name)
        self.ca_file = str(self.folder / 'ca.pem')
        authority = trustme.CA(organization_name='Practice authority')
        authority.cert_pem.write_to_path(self.ca_file)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        authority.issue_cert(
            self.host, '127.0.0.1', common_name=self.host,
            organization_name='Practice server').configure_cert(context)
        super().__init__(
            self, hostname='127.0.0.1', port=self.socket.getsockname()[1],
            server_hostname=self.host,
            ident='practice server: nothing leaves this computer',
            tls_context=context, require_starttls=True, auth_required=True,
            auth_exclude_mechanism=['PLAIN'], authenticator=self.authenticate,
            data_size_limit=SIZE, timeout=3600)

    def __enter__(self):
        """Start to listen."""
        # Login data is "deprecated" for aiosmtpd, at each login, on stderr.
        logging.getLogger('mail.log').setLevel(logging.ERROR)
        self.start()
        self.given = None   # aiosmtpd connects once, to see that it runs
        return self

    def __exit__(self, *exception):
        """Close all connections and remove the temporary folder."""
        for connection in self.connections:     # or `stop` would wait for them
            if connection.transport is not None:
                self.loop.call_soon_threadsafe(connection.transport.abort)
        self.stop()
        self._temporary.cleanup()

    def factory(self):
        """Return the object for a new connection."""
        self.connections.append(PracticeSMTP(self, **self.SMTP_kwargs))
        return self.connections[-1]

    def _create_server(self):
        return self.loop.create_server(self._factory_invoker, sock=self.socket)

    def refuse(self, *texts):
        """Refuse from now on what the names or 'STEP=REPLY' texts say."""
        self.refusals = {one.step: one for one in map(parse_refusal, texts)}

    def refusal(self, *steps):
        """Return the reply that refuses the first of these steps, or ''."""
        for step in steps:
            if step in self.refusals:
                self.given = self.given or self.refusals[step]
                return self.refusals[step].reply
        return ''

    def authenticate(self, server, session, envelope, mechanism, login):
        """Accept the one user; aiosmtpd answers 235 then."""
        refusal = self.refusal('password')
        secret = TOKEN if mechanism == 'XOAUTH2' else PASSWORD
        right = login and tuple(login) == (USER.encode(), secret.encode())
        if right and not refusal:
            return AuthResult(success=True, auth_data=login)
        return AuthResult(success=False, handled=False, message=(
            refusal or '535 5.7.3 Authentication unsuccessful'))

    # aiosmtpd calls a hook for each step; what it returns is the reply.

    async def handle_EHLO(self, server, session, envelope, name, replies):
        """EHLO: inside TLS, AUTH takes the place of STARTTLS."""
        refusal = self.refusal('ehlo2' if session.ssl else 'ehlo')
        session.host_name = name
        lines = [f'{self.host} Hello [{session.peer[0]}]', *EXTENSIONS]
        if session.ssl:
            lines[lines.index('STARTTLS')] = 'AUTH LOGIN XOAUTH2'
        return [refusal or '250-' + '\r\n250-'.join(lines[:-1])
                + f'\r\n250 {lines[-1]}']

    async def handle_MAIL(self, server, session, envelope, address, options):
        """MAIL: remember the sender."""
        refusal = self.refusal('mail')
        if not refusal:
            envelope.mail_from = address
            envelope.mail_options.extend(options)
        return refusal or '250 2.1.0 Sender OK'

    async def handle_RCPT(self, server, session, envelope, address, options):
        """RCPT: remember one more recipient."""
        refusal = self.refusal(f'rcpt:{address}', 'rcpt')
        if not refusal:
            envelope.rcpt_tos.append(address)
        return refusal or '250 2.1.5 Recipient OK'

    async def handle_DATA(self, server, session, envelope):
        """Keep the message; a good reply makes it the server's business."""
        if any(len(line) > 998 for line in envelope.content.split(b'\r\n')):
            return '500 5.5.2 Line too long (RFC 5321, 4.5.3.1.6)'
        refusal = self.refusal('dot')
        if refusal.startswith(('4', '5')):
            return refusal
        self.messages.append(Received(
            envelope.mail_from, tuple(envelope.rcpt_tos), envelope.content,
            session.auth_data[0].decode(), tuple(envelope.mail_options)))
        if self.drop_after_dot:
            server.transport.close()
            raise asyncio.CancelledError  # how aiosmtpd ends a connection
        return refusal or (
            f'250 2.0.0 OK <{len(self.messages)}@{self.host}> queued')

    async def handle_exception(self, error):
        """Report in one line what aiosmtpd would report in a traceback."""
        print(f'(The server met {error.__cause__ or error!r})',
              file=sys.stderr)
        return '451 4.3.0 Error in the practice server'
