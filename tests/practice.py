#!/usr/bin/env python3
"""A mail server to practise with: no account, no network, no questions.

    python tests/practice.py                          send a sample message
    python tests/practice.py --explain --step         ... one step at a time
    python tests/practice.py --refuse wrong-password  ... and see it refused
    python tests/practice.py --list-refusals          what else can go wrong
    python tests/practice.py --serve                  wait for your messages

The server is real (aiosmtpd) and speaks like Office 365 as far as it can: the
same extensions, the same sentences. It listens on this computer only, keeps
what it receives in memory, and its certificate comes from a throw-away
authority (trustme) that lives in a temporary folder until the program ends.

A practice run sends a message that is full of small traps (accents, a line
that is a single dot, an attachment of every octet) and then compares what
arrived with what was meant. Exit code 0: everything was right, or, with a
refusal, smtp.py failed the way it must. 1: something was wrong, and what.

Contents: the refusals; the server; the sample and its judge; showing a
message; running smtp.py; the command line. Tests use the server as well:
`with PracticeServer(refusals=['greylisted']) as server: ...`.
"""

import argparse
import asyncio
import base64
import contextlib
import dataclasses
import email
import email.policy
import json
import logging
import os
import pathlib
import queue
import re
import shlex
import signal
import ssl
import subprocess
import sys
import tempfile
import weakref

import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, TLSSetupException

USER, PASSWORD, TOKEN = 'alice@example.com', 'open-sesame', 'practice-token'
CLIENT = pathlib.Path(__file__).resolve().parent.parent / 'smtp.py'

# ---------------------------------------------------------------- refusals
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


# ---------------------------------------------------------------- the server
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


# ------------------------------------------------- the sample, and its judge
#
# Each part of the sample has gone wrong in some mail program. The judge reads
# what arrived with the standard library's email package, which has nothing in
# common with smtp.py.

SENDER = ('Alice', 'alice@example.com')
RECIPIENT = ('Bób Exämple', 'bob@example.org')
HIDDEN = 'carol@example.org'  # the blind copy
SUBJECT = 'Grüße aus dem Labor: naïve café, α β γ, 你好 ✓'
TEXT = '''Hello Bob,

a line that holds only a dot ends a message in SMTP. So the client
doubles a dot at the start of a line, and the server takes it away:
.
You can read on? Then both have done it.
..This line began with two dots, and still does.

Alice
'''
FILE_NAME = 'jedes Oktett – every octet.bin'
OCTETS = bytes(range(256))


def people(message, field):
    """Return the (name, address) pairs of From or To."""
    return [(one.display_name, one.addr_spec)
            for one in getattr(message[field], 'addresses', ())]


def wrong(received):
    """Return what is wrong with the sample as it arrived, as sentences."""
    message = received.parse()
    text = message.get_body(('plain',))
    text = text and text.get_content().replace('\r\n', '\n')
    files = [(part.get_filename(), part.get_payload(decode=True))
             for part in message.iter_attachments() if part.is_attachment()]
    return [f'{what}: {got!r} arrived, {meant!r} was meant' for
            what, got, meant in [
        ("the envelope's sender", received.sender, SENDER[1]),
        ("the envelope's recipients", received.recipients,
         (RECIPIENT[1], HIDDEN)),
        ('the user who logged in', received.user, USER),
        ('From', people(message, 'from'), [SENDER]),
        ('To', people(message, 'to'), [RECIPIENT]),
        ('Bcc, which must not be sent', message['bcc'], None),
        ('the subject', message['subject'], SUBJECT),
        ('the number of Date fields', len(message.get_all('date', [])), 1),
        ('the text', text and text.rstrip(), TEXT.rstrip()),
        ('the attachments', files, [(FILE_NAME, OCTETS)]),
        ('a header of ASCII only',
         received.content.partition(b'\r\n\r\n')[0].isascii(), True),
        ('CR or LF alone',
         re.findall(b'.?\r(?!\n)|(?<!\r)\n.?', received.content), []),
        ("the parser's objections",
         [defect for part in message.walk() for defect in part.defects], []),
    ] if got != meant]


# -------------------------------------------------------- showing a message


def heading(text):
    """Print a heading."""
    print(f'\n=== {text} {"=" * max(3, 70 - len(text))}\n', flush=True)


def printable(text):
    """Return text that cannot move the cursor or hide anything."""
    return ''.join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def show(received):
    """Print a message twice: as it came, and as a mail reader shows it."""
    heading('As the server received it')
    print(f'Envelope: from <{received.sender}> to '
          + ', '.join(f'<{one}>' for one in received.recipients))
    print(f'Session:  logged in as {printable(received.user)}, '
          f'{received.tls}, {len(received.content)} octets\n')
    lines = received.content.decode('utf-8', 'backslashreplace').split('\r\n')
    for line in lines[:60]:
        print(f'  | {printable(line)}')
    if len(lines) > 60:
        print(f'  ... and {len(lines) - 60} more lines')
    heading('As a mail reader shows it')
    try:
        show_as_read(received.parse())
    except Exception as error:  # whatever the parser trips over: not our fault
        print(f'(It cannot be read: {error!r})')
    sys.stdout.flush()


def show_as_read(message):
    """Print fields and text of a parsed message, and list its attachments."""
    for field in ('From', 'To', 'Cc', 'Subject', 'Date'):
        if field in message:
            print(f'{field + ":":9}{printable(str(message[field]))}')
    body = message.get_body(('plain', 'html'))
    print()
    for line in (body.get_content() if body else '').splitlines():
        print(f'  {printable(line)}')
    for part in message.iter_attachments():
        content = part.get_payload(decode=True) or b''
        print(f'\nAttached: {printable(part.get_filename() or "(no name)")} '
              f'({part.get_content_type()}, {len(content)} octets)')


# --------------------------------------------------------- running smtp.py
#
# The command is a list of lines, and a line is a list of words, so that it
# can be shown as it is run, in the notation of either shell.


def near(path):
    """Return a path as seen from the current folder, if it lies in there."""
    with contextlib.suppress(ValueError):
        return str(pathlib.Path(path).relative_to(pathlib.Path.cwd()))
    return str(path)


def command_lines(server, client, *lines):
    """Return the command for this server, line by line."""
    return [[near(sys.executable), near(client)],
            ['--server', server.host, '-4', '--port', str(server.port)],
            ['--ca-file', server.ca_file], *filter(None, lines)]


def in_posix_shell(lines):
    """Return the command as one types it on Linux and macOS."""
    return f'SMTP_PASSWORD={PASSWORD} ' + ' \\\n    '.join(
        ' '.join(map(shlex.quote, line)) for line in lines)


def in_powershell(lines):
    """Return the command as one types it on Windows."""
    def quote(word):
        return (word if re.fullmatch(r'[\w./:\\-][\w./:\\@-]*', word)
                else "'" + word.replace("'", "''") + "'")
    return f"$env:SMTP_PASSWORD = '{PASSWORD}'\n& " + ' `\n    '.join(
        ' '.join(map(quote, line)) for line in lines)


def run(lines):
    """Run the command; return its exit code and what it printed.

    On a terminal it prints there by itself, in colour, and can wait for Enter;
    then nothing is returned, and the exit code alone must tell.
    """
    command = [word for line in lines for word in line]
    environment = dict(os.environ, SMTP_PASSWORD=PASSWORD)
    if sys.stdout.isatty():
        return subprocess.run(command, env=environment).returncode, None
    printed = []
    with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=dict(environment, PYTHONIOENCODING='utf-8'),
            encoding='utf-8', errors='backslashreplace') as process:
        for line in process.stdout:
            printed.append(line)
            print(line, end='', flush=True)
    return process.returncode, ''.join(printed)


def verdict(code):
    """Return the words that go with an exit code."""
    return {0: 'Sent to', 74: 'May have been sent'}.get(code, 'Not sent')


def judge(server, code, printed):
    """Return what is wrong with this run, as sentences."""
    expected = 74 if server.drop_after_dot else 0
    if server.refusals:  # the first one counts
        step = min(server.refusals,
                   key=lambda step: STEPS.index(step.partition(':')[0]))
        expected = expected_exit(step, server.refusals[step])
    words = verdict(expected)
    arrived = int(expected in (0, 74))
    faults = [fault for one in server.messages for fault in wrong(one)]
    if len(server.messages) != arrived:
        faults.append(
            f'{len(server.messages)} messages arrived, not {arrived}')
    if code != expected:
        faults.append(f'the exit code is {code}, not {expected}')
    if printed is not None:
        if not re.search(rf'^([\w.]+: )?{words}', printed, re.MULTILINE):
            faults.append(f'it did not say "{words} ..."')
        secret = base64.b64encode(PASSWORD.encode()).decode()
        if PASSWORD in printed or secret in printed:
            faults.append('the password was printed')
    return faults


def practise(server, options):
    """Send the sample, show what arrives, and judge it."""
    letter = server.folder / 'letter.txt'
    attachment = server.folder / FILE_NAME
    letter.write_text(TEXT, encoding='utf-8')
    attachment.write_bytes(OCTETS)
    heading('The server')
    print(f'It listens on {server.host}, port {server.port}. Nothing that is '
          'sent to it leaves\nthis computer. Its certificate was made for '
          'this run only.')
    for step, reply in server.refusals.items():
        print(f'\nIt will refuse {step}:\n{printable(reply)}')
    heading('The command')
    switches = [f'--{name}' for name in ('explain', 'step')
                if getattr(options, name)] or ['--verbose']
    lines = command_lines(
        server, options.client,
        ['--from', '{} <{}>'.format(*SENDER)],
        ['--to', '{} <{}>'.format(*RECIPIENT), '--bcc', HIDDEN],
        ['--subject', SUBJECT],
        ['--body', f'@{letter}'], ['--attach', str(attachment)],
        switches, options.more)
    print(in_powershell(lines) if os.name == 'nt' else in_posix_shell(lines))
    heading('The session (C: is the client, S: the server)')
    code, printed = run(lines)
    for received in server.messages:
        show(received)
    heading('The result')
    if options.step and code == 0 and not server.messages:
        print('You ended the session, and nothing arrived, as it must.')
        return 0
    faults = judge(server, code, printed)
    print('\n'.join(f'WRONG: {fault}' for fault in faults) or (
        f'smtp.py said "{verdict(code)}", with exit code {code}, as it must '
        'after this.' if code else 'Everything arrived as it was meant.'))
    return int(bool(faults))


def serve(server, options):
    """Show each message that arrives, until Ctrl-C."""
    heading('The server')
    lines = command_lines(
        server, options.client,
        ['--from', USER, '--to', RECIPIENT[1]],
        ['--subject', 'Hello', '--body', 'It works.', '--verbose'])
    print(f'It listens on {server.host}, port {server.port}. User {USER},\n'
          f'password {PASSWORD}, XOAUTH2 token {TOKEN}.\n\n'
          'From another terminal, in this folder, on Linux and macOS:\n\n'
          f'{in_posix_shell(lines)}\n\nIn PowerShell:\n\n'
          f'{in_powershell(lines)}\n\n'
          'Waiting for messages. Ctrl-C ends it.', flush=True)
    try:
        while True:  # with a timeout, for Ctrl-C on Windows
            with contextlib.suppress(queue.Empty):
                show(server.arrivals.get(timeout=0.5))
    except KeyboardInterrupt:
        print(f'\nStopped. Messages received: {len(server.messages)}.')
    return 0


# --------------------------------------------------------- the command line


def parse_arguments(arguments):
    """Return the options."""
    parser = argparse.ArgumentParser(
        description='Send a message with smtp.py to a server of its own: no '
        'account, no network. Exit code 0: all was right; 1: it was not.')
    add = parser.add_argument
    add('--serve', action='store_true', help='wait for messages, until Ctrl-C')
    add('--explain', action='store_true', help='smtp.py explains each step')
    add('--step', action='store_true', help='smtp.py waits before each step')
    add('--refuse', metavar='NAME|STEP=REPLY', action='append', default=[],
        help='refuse a step; may be repeated. Steps: ' + ', '.join(STEPS))
    add('--list-refusals', action='store_true', help='list the names, and end')
    add('--slow', metavar='SECONDS', type=float, default=0,
        help='wait before each reply')
    add('--drop-after-dot', action='store_true',
        help='close the connection after the final dot, without a reply')
    add('--port', type=int, default=0, help='default: any free port')
    add('--client', metavar='FILE', default=CLIENT,
        help='run this program instead of smtp.py')
    add('more', nargs='*', metavar='-- OPTION', help='options for smtp.py')
    options = parser.parse_args(arguments)
    try:
        list(map(parse_refusal, options.refuse))
    except ValueError as error:
        parser.error(str(error))
    return options


def main(arguments=None):
    """Do what the options say and return the exit code."""
    sys.stdout.reconfigure(errors='backslashreplace')
    options = parse_arguments(arguments)
    if options.list_refusals:
        for name, refusal in REFUSALS.items():
            print(f'{name:22}{refusal}')
        return 0
    try:
        with PracticeServer(options.refuse, options.slow,
                            options.drop_after_dot, options.port) as server:
            return (serve if options.serve else practise)(server, options)
    except KeyboardInterrupt:
        return 130
    except OSError as error:  # the port is in use, the disk is full
        print(f'practice.py: {error}', file=sys.stderr)
        return 1


if __name__ == '__main__':
    for number in (signal.SIGINT, signal.SIGTERM):  # even in the background
        signal.signal(number, signal.default_int_handler)
    sys.exit(main())
