"""The server of practice.py: aiosmtpd worded as Office 365, and refusals.

`with PracticeServer(refusals=['greylisted']) as server: ...` runs it on a free
port of this computer, for a practice run and for the tests.
"""

import asyncio
import base64
import contextlib
import dataclasses
import email
import email.policy
import json
import logging
import pathlib
import queue
import re
import ssl
import sys
import tempfile
import weakref

import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, TLSSetupException

USER, PASSWORD, TOKEN = 'alice@example.com', 'open-sesame', 'practice-token'


# ----------------------------------------------------------------- refusals
#
# A refusal is a reply that the server gives at one step instead of the good
# one, written STEP=REPLY. These have a name. The sentences are Office 365's;
# the last three are those of Gmail and of a common greylisting filter.

STEPS = ('greeting', 'ehlo', 'starttls', 'ehlo2', 'auth', 'mail', 'rcpt',
         'data', 'message')  # ehlo2: inside TLS; message: after the final dot

REFUSALS = dict(re.findall(r'^([\w-]+) +(.+(?:\n +.+)*)', r'''
server-down           greeting=421 4.3.2 Service not available
bad-ehlo-name         ehlo=501 5.5.4 Invalid domain name
tls-busy              starttls=454 4.7.0 Cannot accept TLS as maximum TLS rate
                      exceeded for server
old-tls               auth=421 4.7.66 TLS 1.0 and 1.1 are not supported. Please
                      upgrade/update your client to support TLS 1.2. Visit
                      https://aka.ms/smtp_auth_tls.
tenant-disabled       auth=535 5.7.139 Authentication unsuccessful,
                      SmtpClientAuthentication is disabled for the Tenant. Visit
                      https://aka.ms/smtp_auth_disabled for more information.
mailbox-disabled      auth=535 5.7.139 Authentication unsuccessful,
                      SmtpClientAuthentication is disabled for the Mailbox. Visit
                      https://aka.ms/smtp_auth_disabled for more information.
security-defaults     auth=535 5.7.139 Authentication unsuccessful, user is
                      locked by your organization's security defaults policy.
                      Contact your administrator.
conditional-access    auth=535 5.7.139 Authentication unsuccessful, the request
                      did not meet the criteria to be authenticated successfully.
                      Contact your administrator.
wrong-password        auth=535 5.7.139 Authentication unsuccessful, the user
                      credentials were incorrect.
basic-disabled        auth=535 5.7.139 Authentication unsuccessful, basic
                      authentication is disabled.
basic-retired         auth=550 5.7.30 Basic authentication is not supported for
                      Client Submission.
login-failed          auth=535 5.7.3 Authentication unsuccessful
no-mechanism          auth=504 5.7.4 Unrecognized authentication type
not-logged-in         mail=530 5.7.57 Client not authenticated to send mail.
not-your-address      mail=550 5.7.60 SMTP; Client does not have permissions to
                      send as this sender
too-large             mail=552 5.3.4 Message size exceeds fixed maximum message
                      size
relay-denied          rcpt=550 5.7.54 SMTP; Unable to relay recipient in
                      non-accepted domain
no-such-user          rcpt:carol@example.org=550 5.1.10
                      RESOLVER.ADR.RecipientNotFound; Recipient
                      carol@example.org not found by SMTP address lookup
send-as-denied        message=554 5.2.252 SendAsDenied; alice@example.com not
                      allowed to send as bob@example.com;
                      STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied;
                      Failed to process message due to a permanent exception with
                      message [BeginDiagnosticData]Cannot submit message.
                      0.35250:1F009983, 1.36674:0A000000 [EndDiagnosticData]
mailbox-full          message=554 5.2.2 mailbox full;
                      STOREDRV.Submission.Exception:QuotaExceededException.MapiExceptionShutoffQuotaExceeded
daily-limit           message=554 5.2.0
                      STOREDRV.Submission.Exception:SubmissionQuotaExceededException
too-many-connections  message=432 4.3.2 Concurrent connections limit exceeded.
                      Visit https://aka.ms/concurrent_sending for more
                      information.
app-password          auth=534-5.7.9 Application-specific password required. For
                      more information, go to\n534 5.7.9
                      https://support.google.com/mail/?p=InvalidSecondFactor
recipient-full        rcpt=552 5.2.2 The email account that you tried to reach
                      is over quota.
greylisted            rcpt=451 4.7.1 Greylisting in action, please come back later
''', re.MULTILINE))  # noqa: E501
REFUSALS = {name: ' '.join(text.split()) for name, text in REFUSALS.items()}


def parse_refusal(text):
    r"""Return (step, reply) of a refusal's name or of 'STEP=REPLY'.

    `\n` in the reply begins its next line. 'rcpt:ADDRESS' is one recipient.
    """
    step, equals, reply = REFUSALS.get(text, text).partition('=')
    if not equals or step.partition(':')[0] not in STEPS:
        raise ValueError(
            f'{text!r} is neither the name of a refusal (--list-refusals) nor '
            f'STEP=REPLY with a STEP out of: {", ".join(STEPS)}')
    if re.match('[23]', reply):
        raise ValueError(f'{reply!r} accepts: a refusal begins with 4 or 5')
    return step, reply.replace(r'\n', '\r\n')


def expected_exit(step, reply):
    """Return the exit code that smtp.py owes a refusal at this step."""
    if not re.match(r'[45][0-5][0-9]( |-|$)', reply):  # that is not SMTP
        return 74 if step == 'message' else 76
    if reply.startswith('4'):
        return 75  # try again later
    if re.match(r'53[0458]|5..[ -]5\.7\.', reply):
        return 77  # login or permission
    if step.startswith('rcpt'):
        return 67
    return 65 if reply.startswith('552') else 69  # 65: it is too large


# --------------------------------------------------------------- the server
#
# aiosmtpd speaks SMTP; two classes adapt it. PracticeSMTP is one connection:
# it rewords the replies and plays the refusals. PracticeServer is what all
# connections share: it decides about logins and keeps the messages.

SIZE = 157286400  # octets: 150 MiB
EXTENSIONS = (f'SIZE {SIZE}', 'PIPELINING', 'ENHANCEDSTATUSCODES', 'STARTTLS',
              '8BITMIME', 'SMTPUTF8')
# Office 365 has DSN, BINARYMIME and CHUNKING as well; aiosmtpd does not.

WORDING = {  # what aiosmtpd says: what Office 365 says
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


@dataclasses.dataclass(frozen=True)
class Received:
    """One message as the server got it: who, to whom, and its octets."""

    sender: str
    recipients: tuple
    content: bytes
    user: str
    tls: str
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
        practice = self.event_handler
        closing = False
        if not self.greeted:
            self.greeted = True
            closing = 'greeting' in practice.refusals
            status = practice.refusals.get('greeting', status)
        elif isinstance(status, str) and (
                status not in practice.refusals.values()):
            status = WORDING.get(status, status)
            # RFC 2034: every refusal has an enhanced status code as well.
            status = re.sub(r'^([45])(..) (?!\d\.\d)', r'\1\2 \1.5.0 ', status)
        await asyncio.sleep(practice.slow)
        await super().push(status)
        if closing or status[:3] in ('421', b'421'):
            # Unread commands would turn the close into a reset, and the reply
            # could get lost on its way: read them, up to QUIT.
            with contextlib.suppress(asyncio.TimeoutError, ValueError):
                await asyncio.wait_for(self.skip_commands(), timeout=1)
            self.transport.close()

    async def skip_commands(self):
        """Read up to QUIT or the end, and answer nothing."""
        while (await self._reader.readline()).strip() not in (b'', b'QUIT'):
            pass

    async def refused(self, step):
        """Send the refusal for this step, if there is one."""
        reply = self.event_handler.refusals.get(step)
        if reply:
            await self.push(reply)
        return bool(reply)

    async def smtp_STARTTLS(self, arg):
        """STARTTLS, unless it is to be refused."""
        if not await self.refused('starttls'):
            await super().smtp_STARTTLS(arg)

    async def smtp_AUTH(self, arg):
        """AUTH: a mechanism is refused at once, a login (53z) at its end."""
        refusal = self.event_handler.refusals.get('auth', '53')
        if self.session.ssl and not refusal.startswith(('53', '55')):
            await self.push(refusal)
            return
        mechanism, space, initial = (arg or '').partition(' ')
        await super().smtp_AUTH(mechanism.upper() + space + initial)

    async def smtp_DATA(self, arg):
        """DATA, unless it is to be refused."""
        if not (self.envelope.rcpt_tos and await self.refused('data')):
            await super().smtp_DATA(arg)

    async def auth_XOAUTH2(self, _, args):
        """AUTH XOAUTH2: user and token at once, or after an empty 334."""
        if len(args) == 1:
            answer = await self.challenge_auth('')
            if not isinstance(answer, bytes):  # cancelled, and that was said
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
        if not result.success:  # why: a challenge; the client's answer: empty
            reason = json.dumps({'status': '400', 'schemes': 'Bearer',
                                 'scope': 'https://outlook.office.com/'})
            if await self.challenge_auth(reason) != b'':
                return AuthResult(success=False)
        return result


class PracticeServer(Controller):
    """A server on a free port of 127.0.0.1, called localhost; `with` runs it.

    Args:
        refusals: names and 'STEP=REPLY' texts, see `parse_refusal`.
        slow: seconds that the server waits before each reply.
        drop_after_dot: close the connection instead of answering the final
            dot. The message has arrived all the same.
        port: 0 is any free one.

    A client needs `host`, `port` and `ca_file`. What arrived is in the list
    `messages` and in the queue `arrivals`; `folder` is temporary.
    """

    host = 'localhost'

    def __init__(self, refusals=(), slow=0, drop_after_dot=False, port=0):
        """Make the certificate; nothing listens yet."""
        self.refusals = dict(map(parse_refusal, refusals))
        self.slow, self.drop_after_dot = slow, drop_after_dot
        self.messages, self.arrivals = [], queue.Queue()
        self.connections = weakref.WeakSet()
        self._temporary = tempfile.TemporaryDirectory(prefix='smtp-practice-')
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
            self, hostname='127.0.0.1', port=port, server_hostname=self.host,
            ident='practice server: nothing leaves this computer',
            tls_context=context, require_starttls=True, auth_required=True,
            auth_exclude_mechanism=['PLAIN'], authenticator=self.authenticate,
            data_size_limit=SIZE, timeout=3600)

    def __enter__(self):
        """Start to listen."""
        # Login data is "deprecated" for aiosmtpd, at each login, on stderr.
        logging.getLogger('mail.log').setLevel(logging.ERROR)
        self.start()
        return self

    def __exit__(self, *exception):
        """Close all connections and remove the temporary folder."""
        self.loop.call_soon_threadsafe(self.hang_up)
        self.stop()
        self._temporary.cleanup()

    def hang_up(self):
        """Close what is still open; `stop` would wait for the clients."""
        for connection in self.connections:
            if connection.transport is not None:
                connection.transport.abort()

    def factory(self):
        """Return the object for a new connection."""
        connection = PracticeSMTP(self, **self.SMTP_kwargs)
        self.connections.add(connection)
        return connection

    def _trigger_server(self):
        # Port 0 was "any": from here on it is the one that we were given.
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()

    def authenticate(self, server, session, envelope, mechanism, login):
        """Accept the one user there is; aiosmtpd says 235 then."""
        secret = TOKEN if mechanism == 'XOAUTH2' else PASSWORD
        refusal = self.refusals.get('auth')
        if not refusal and login and tuple(login) == (USER.encode(),
                                                      secret.encode()):
            return AuthResult(success=True, auth_data=login)
        return AuthResult(success=False, handled=False, message=(
            refusal or '535 5.7.3 Authentication unsuccessful'))

    # aiosmtpd calls the hooks below, one for each step: a step is done by
    # changing the session or the envelope, and what is returned is the reply.

    async def handle_EHLO(self, server, session, envelope, name, replies):
        """EHLO: inside TLS, AUTH takes the place of STARTTLS."""
        refusal = self.refusals.get('ehlo2' if session.ssl else 'ehlo')
        if refusal:
            return [refusal]
        session.host_name = name
        lines = [f'{self.host} Hello [{session.peer[0]}]', *EXTENSIONS]
        if session.ssl:
            lines[lines.index('STARTTLS')] = 'AUTH LOGIN XOAUTH2'
        return ['250-' + '\r\n250-'.join(lines[:-1]) + f'\r\n250 {lines[-1]}']

    async def handle_MAIL(self, server, session, envelope, address, options):
        """MAIL: remember the sender."""
        if 'mail' in self.refusals:
            return self.refusals['mail']
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return '250 2.1.0 Sender OK'

    async def handle_RCPT(self, server, session, envelope, address, options):
        """RCPT: remember one more recipient."""
        for step in (f'rcpt:{address}', 'rcpt'):
            if step in self.refusals:
                return self.refusals[step]
        envelope.rcpt_tos.append(address)
        return '250 2.1.5 Recipient OK'

    async def handle_DATA(self, server, session, envelope):
        """Keep the message; a good reply makes it the server's business."""
        if any(len(line) > 998 for line in envelope.content.split(b'\r\n')):
            return '500 5.5.2 Line too long (RFC 5321, 4.5.3.1.6)'
        refusal = self.refusals.get('message', '')
        if refusal.startswith(('4', '5')):
            return refusal
        self.messages.append(Received(
            envelope.mail_from, tuple(envelope.rcpt_tos), envelope.content,
            session.auth_data[0].decode(), session.ssl['ssl_object'].version(),
            tuple(envelope.mail_options)))
        self.arrivals.put(self.messages[-1])
        if self.drop_after_dot:
            server.transport.close()
            raise asyncio.CancelledError  # how aiosmtpd ends a connection
        return refusal or (
            f'250 2.0.0 OK <{len(self.messages)}@{self.host}> queued')

    async def handle_exception(self, error):
        """Say in one line what aiosmtpd would say in a traceback."""
        if isinstance(error, TLSSetupException):
            print('(The TLS handshake failed.)', error.__cause__,
                  file=sys.stderr)
        else:
            print(f'(A fault of the server: {error!r})', file=sys.stderr)
        return '451 4.3.0 Error in the practice server'
