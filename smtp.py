#!/usr/bin/env python3
# /// script
# requires-python = ">=3.9"
# dependencies = ["pytz>=2024.1", "tzlocal>=5.3"]
# ///
"""Send e-mail by speaking SMTP, line by line, over a socket.

Python's smtplib and email packages do all this. Here it is done by hand, so
that it can be seen.

This is a whole session with Office 365, as it looks on the wire. `C:` marks
what we, the client, send; `S:` what the server replies; on the right is the
function, defined below, that does it.

    (TCP connection to smtp.office365.com, port 587)        open_socket
    S: 220 smtp.office365.com Microsoft ESMTP MAIL Service  read_greeting
    C: EHLO [192.0.2.7]                                     say_hello
    S: 250-smtp.office365.com Hello [192.0.2.7]
    S: 250-SIZE 157286400
    S: 250-PIPELINING
    S: 250 STARTTLS
    C: STARTTLS                                             start_tls
    S: 220 2.0.0 SMTP server ready
    (TLS handshake: everything that follows is encrypted)
    C: EHLO [192.0.2.7]                                     say_hello, again
    S: 250-smtp.office365.com Hello [192.0.2.7]
    S: 250-SIZE 157286400
    S: 250-PIPELINING
    S: 250 AUTH LOGIN XOAUTH2
    C: AUTH LOGIN YWxpY2VAZXhhbXBsZS5jb20=                  log_in
                                   (the user name, in base64)
    S: 334 UGFzc3dvcmQ6            ("Password:", in base64)
    C: ********                    (the password, in base64)
    S: 235 2.7.0 Authentication successful
    C: MAIL FROM:<alice@example.com> SIZE=431               send_envelope
    C: RCPT TO:<bob@example.org>
    C: DATA                        (MAIL, RCPT and DATA travel together)
    S: 250 2.1.0 Sender OK
    S: 250 2.1.5 Recipient OK
    S: 354 Start mail input; end with <CRLF>.<CRLF>
    C: From: alice@example.com                              send_message
    C: To: bob@example.org
    C: Subject: Lunch
    C: Date: Mon, 23 Nov 2026 12:00:00 +0100
    C: (the other header fields, an empty line, the text)
    C: .
    C: QUIT                        (the dot and QUIT travel together)
    S: 250 2.0.0 OK, queued                                 this decides: sent
    S: 221 2.0.0 Service closing transmission channel       say_goodbye

The same story as code is deliver(), in section 8. Every name is defined above
the place where it is used, so the story comes after the things that it is
made of. If you only want the protocol, read sections 2 to 8 and stop there.

Contents:

     1  Constants          server, reply codes, limits, exit codes
     2  Replies, errors    what the server says, and what can go wrong
     3  The transcript     what the user sees of the session
     4  The connection     lines and replies over a socket
     5  Opening            connecting, greeting, EHLO, STARTTLS
     6  Logging in         AUTH LOGIN, AUTH PLAIN, AUTH XOAUTH2
     7  One mail           envelope, message, goodbye
     8  The whole session  deliver
     9  Header fields      encoded-words, addresses, folding, dates
    10  Parts              text, attachments, multipart
    11  The message        build_message, read_message, smtp_send
    12  Advice             what an error means, and who can act
    13  The command line   options, questions, the password
    14  The program        text that must not be lost, the verdict

Each of these words means one thing only:

    session       all that happens on one connection
    command       a line that the client sends              EHLO [192.0.2.7]
    reply         the server's answer; begins with a reply code     250 OK
    extension     something that the reply to EHLO offers         PIPELINING
    envelope      the commands MAIL and RCPT: who sends, and to whom
    message       header fields, an empty line, and a body of parts
    mail          envelope and message
    final dot     the line that ends a message                             .
    mechanism     a way to log in                                      LOGIN
    challenge     what the server asks in a login           334 UGFzc3dvcmQ6
    response      what the client answers to a challenge
    transcript    what is shown of a session
    octet         eight bits

To read on: RFC 5321 (SMTP), 5322 (messages), 3207 (STARTTLS), 4954 (AUTH),
2920 (PIPELINING), 1870 (SIZE), 6152 (8BITMIME), 6531 (SMTPUTF8), 3463
(enhanced status codes), 2045 to 2047 (MIME), 2231 (file names).

Course:  CS2911
Lab:     SMTP
Names:   (the members of the team)
"""

# Modules that few runs need are imported where they are used; every import
# costs start-up time.
from __future__ import annotations

import argparse
import binascii
import collections
import contextlib
import datetime
import itertools
import os
import re
import signal
import socket
import ssl
import stat
import struct
import sys
import time

TYPE_CHECKING = False           # True for type checkers: only they need these
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any, BinaryIO, NoReturn, TextIO

    Part = tuple[str, list[Any]]    # header fields, and pieces: section 10
    Token = tuple[str, str]         # its kind, and its text: section 9

# ---------------------------------------------------------------------------
# 1  Constants
#
# SMTP is a protocol of lines. Every number that it fixes has its name here:
# the reply codes that we wait for, the length limits, and how long we wait.
# The exit codes tell a shell script how the attempt ended; their numbers are
# those of sysexits.h, which mail programs have always used.
# ---------------------------------------------------------------------------

__version__ = '2.0'
__all__ = [
    'smtp_send', 'deliver', 'build_message', 'get_formatted_date',
    'print_all_timezones', 'Transcript', 'Receipt', 'Reply', 'SMTPException',
    'SMTPUsageError', 'SMTPMessageError', 'SMTPConnectError',
    'SMTPServerDisconnected', 'SMTPProtocolError', 'SMTPNotSupportedError',
    'SMTPResponseException', 'SMTPAuthenticationError',
    'SMTPRecipientsRefused', 'SMTPDeliveryUnknown']

SMTP_SERVER = 'smtp.office365.com'
SMTP_PORT = 587             # message submission, RFC 6409
IMPLICIT_TLS_PORT = 465     # submission inside TLS from the start, RFC 8314
SMTP_DOMAINNAME = ''        # our name in EHLO; empty: our IP address

CRLF = '\r\n'               # ends every line: carriage return, line feed
MASK = '********'           # shown in place of a secret

# Reply codes, in the words of RFC 5321 section 4.2.3 and RFC 4954
SERVICE_READY = 220
AUTHENTICATION_SUCCEEDED = 235
COMPLETED = 250
WILL_FORWARD = 251          # also a "yes" to RCPT
CHALLENGE = 334             # "go on with the login"
START_MAIL_INPUT = 354      # "go on with the message"
NOT_AVAILABLE = 421         # may come at any time: the server hangs up
SYNTAX_ERROR_IN_PARAMETERS = 501
PARAMETER_NOT_IMPLEMENTED = 504
EXCEEDED_STORAGE = 552
LOGIN_CODES = (530, 534, 535, 538)      # RFC 4954 section 6

# Lengths in octets
MAX_COMMAND_LINE = 512      # RFC 5321 4.5.3.1.4, with its CRLF
MAX_REPLY_LINE = 8 * 1024   # RFC 5321 says 512; real servers exceed it
MAX_REPLY = 64 * 1024
MAX_TEXT_LINE = 998         # RFC 5322 2.1.1, without its CRLF
HEADER_LINE = 76            # RFC 5322 says 78; 76 with encoded-words: RFC 2047
ENCODED_WORD = 75           # RFC 2047 section 2
MAX_DOMAIN = 255            # RFC 5321 4.5.3.1.2
BASE64_LINE = 76            # RFC 2045 6.8: 76 characters carry 57 octets
BLOCK = 64 * 1024           # octets of the message that share one deadline
MAX_GROUP = 16 * 1024       # commands sent before their replies are read

# Times in seconds
REPLY_TIMEOUT = 60.0        # RFC 5321 recommends 300, but a person is waiting
FINAL_REPLY_TIMEOUT = 600.0     # RFC 5321 4.5.3.2.6: after the final dot
NEXT_ADDRESS_TIMEOUT = 10.0     # for an address while there are others to try
QUIT_TIMEOUT = 5.0
MAX_TIMEOUT = 86400             # a day

EXIT_OK = 0
EXIT_USAGE = 64                 # the command line
EXIT_BAD_MESSAGE = 65           # an address, a header field, the size
EXIT_FILE = 66                  # a file that cannot be read, or written
EXIT_NO_RECIPIENT = 67          # a recipient was refused permanently
EXIT_NO_HOST = 68               # no host of that name
EXIT_UNAVAILABLE = 69           # refused permanently, or not offered
EXIT_BUG = 70                   # our fault
EXIT_MAY_HAVE_BEEN_SENT = 74
EXIT_TRY_LATER = 75             # certainly not sent; later it may work
EXIT_PROTOCOL = 76              # not SMTP, or not to be trusted
EXIT_NO_PERMISSION = 77         # login or permission refused
EXIT_CONFIGURATION = 78         # settings, source of the password
EXIT_INTERRUPTED = 130


# ---------------------------------------------------------------------------
# 2  Replies and errors
#
# The server answers every command with a reply of one or more lines, which
# all begin with the same three digits. The first digit is the answer: 2 yes,
# 3 yes so far, go on, 4 not now, 5 no. A hyphen after the digits says that
# more lines follow; the last line has a space there:
#
#     250-smtp.office365.com Hello
#     250 SIZE 157286400
#
# By 4yz we mean any code that begins with a 4. Many servers begin the text
# with an enhanced status code such as 5.7.139 (RFC 3463), which says more
# precisely what is wrong.
#
# In the end one of three things is true of a message. It was sent: there is a
# Receipt. It was not sent: there is an error, whose class says what to do. Or
# nobody can know: the final dot was sent but no valid reply came back, so the
# server may have accepted the mail, and only its 250 was lost. Only this case
# raises SMTPDeliveryUnknown. Errors have the names that smtplib gives them;
# it says "response" where the RFCs, and the rest of this file, say "reply".
# ---------------------------------------------------------------------------

# Three digits, then a hyphen or a space and text, or nothing.
REPLY_LINE = re.compile('[2-5][0-9][0-9](?:[ -].*)?', re.DOTALL)
ENHANCED_STATUS = re.compile(r'[245]\.[0-9]{1,3}\.[0-9]{1,3}(?= |$)')
MAX_SHOWN_REPLY = 600           # characters; the transcript has the rest
MAX_SHOWN_RECIPIENTS = 10

# What errors call the steps that are not commands.
GREETING, BODY, FINAL_DOT = 'the connection', 'the message', 'the final dot'


class Reply(collections.namedtuple('Reply', 'code lines')):
    """A reply of the server (RFC 5321 section 4.2).

    Attributes:
        code: The reply code as a number, such as 250.
        lines: The lines as they came, codes included, secrets masked.
    """

    @property
    def text(self) -> str:
        """The text of all lines, without their codes, as one."""
        return ' '.join(line[4:] for line in self.lines)

    @property
    def status(self) -> str:
        """The enhanced status code, such as '5.7.139', or ''."""
        found = [ENHANCED_STATUS.match(line[4:]) for line in self.lines]
        return next((match[0] for match in reversed(found) if match), '')


def escape(text: str) -> str:
    """Escape control characters, so that untrusted text can be printed.

    They could move the cursor or rename the window, and bidirectional ones
    make a line read backwards; they are shown as Python writes them.
    """
    return ''.join(
        character if character.isprintable()
        else character.encode('unicode_escape').decode('ascii')
        for character in text)


def shorten(text: str, limit: int = MAX_SHOWN_REPLY) -> str:
    """Keep the beginning and the end: the reason often comes last."""
    return text if len(text) <= limit \
        else f'{text[:limit * 2 // 3]} ... {text[-limit // 3:]}'


def first_ten(items: Sequence[str]) -> list[str]:
    """Return the first items, and how many more there are."""
    more = len(items) - MAX_SHOWN_RECIPIENTS
    return [*items[:MAX_SHOWN_RECIPIENTS],
            *([f'and {more} more'] if more > 0 else [])]


class Receipt(collections.namedtuple(
        'Receipt', 'reply recipients message_id')):
    """Proof that the server accepted a message.

    Attributes:
        reply: The Reply to the final dot.
        recipients: Their addresses.
        message_id: Identifies the message in logs.
    """

    def __str__(self) -> str:
        """Return the verdict, on one line."""
        reply = f'{self.reply.code} {shorten(self.reply.text)}'.strip()
        return escape(f'Sent to {", ".join(first_ten(self.recipients))}: '
                      f'{reply} (Message-ID {self.message_id})')


class SMTPException(Exception):
    """Base class of all errors here: the message was not sent.

    Only after SMTPDeliveryUnknown it may have been sent.

    Attributes:
        problem: What went wrong, in one sentence.
        reply: The server's Reply, or None.
        step: The command that failed, or what happened instead of one.
        exit_code: How the program ends.
    """

    exit_code = EXIT_BUG

    def __init__(self, problem: str, reply: Reply | None = None,
                 step: str = '', *, exit_code: int | None = None) -> None:
        """Keep the details; the class knows the exit code for most."""
        super().__init__(problem, reply, step)  # so that it can be pickled
        self.problem, self.reply, self.step = problem, reply, step
        self.exit_code = exit_code or self.exit_code

    def __str__(self) -> str:
        """Return the problem and the server's reply."""
        quoted = shorten('\n'.join(self.reply.lines)) if self.reply else ''
        return '\n'.join(map(escape, [self.problem, *(
            f'  S: {line}' for line in quoted.split('\n') if line)]))


class SMTPUsageError(SMTPException):
    """An argument, option or setting is wrong or missing: change it."""
    exit_code = EXIT_USAGE


class SMTPMessageError(SMTPException):
    """The message, or a file for it, cannot be sent as it is: change it."""
    exit_code = EXIT_BAD_MESSAGE


class SMTPConnectError(SMTPException):
    """No connection could be made: check name, port and network."""
    exit_code = EXIT_TRY_LATER


class SMTPServerDisconnected(SMTPException):
    """The connection was lost, or the server fell silent: try again later."""
    exit_code = EXIT_TRY_LATER


class SMTPProtocolError(SMTPException):
    """The server does not speak SMTP, or cannot be trusted: check it."""
    exit_code = EXIT_PROTOCOL


class SMTPNotSupportedError(SMTPException):
    """The server does not offer what is needed: use another mechanism."""
    exit_code = EXIT_UNAVAILABLE


class SMTPDeliveryUnknown(SMTPException):
    """The message may have been sent: ask before you send it again."""
    exit_code = EXIT_MAY_HAVE_BEEN_SENT


class SMTPResponseException(SMTPException):
    """The server understood and refused: its reply says why."""
    exit_code = EXIT_UNAVAILABLE
    reply: Reply

    def __init__(self, problem: str, reply: Reply, step: str) -> None:
        """Derive the exit code from reply and step."""
        super().__init__(problem, reply, step)
        if 400 <= reply.code < 500:
            self.exit_code = EXIT_TRY_LATER
        elif reply.code in LOGIN_CODES or reply.status.startswith('5.7.'):
            self.exit_code = EXIT_NO_PERMISSION
        elif reply.code == EXCEEDED_STORAGE \
                and not reply.status.endswith('.2.2') \
                and step.startswith(('MAIL', BODY, FINAL_DOT)):
            self.exit_code = EXIT_BAD_MESSAGE


class SMTPAuthenticationError(SMTPResponseException):
    """The login was refused: check user name, password and settings."""
    exit_code = EXIT_NO_PERMISSION


class SMTPRecipientsRefused(SMTPResponseException):
    """A recipient was refused, so the message went to nobody: fix the address.

    Attributes:
        refused: The Reply to each address that was refused.
    """
    exit_code = EXIT_NO_RECIPIENT

    def __init__(self, refused: Mapping[str, Reply]) -> None:
        """Take the exit code from the first permanent refusal."""
        worst = max(refused, key=lambda address: refused[address].code >= 500)
        super().__init__('the server refused these recipients, so the message '
                         'went to nobody:', refused[worst], f'RCPT {worst}')
        self.args, self.refused = (refused,), refused

    def __str__(self) -> str:
        """Return each refused address with its reply, up to ten of them."""
        limit = max(100, MAX_SHOWN_REPLY // len(self.refused))
        return '\n  '.join(map(escape, [self.problem, *first_ten([
            f'{address}: {shorten(" ".join(reply.lines), limit)}'
            for address, reply in self.refused.items()])]))


def make_refusal(step: str, reply: Reply) -> SMTPException:
    """Make the error for an unwelcome reply to a step of the session."""
    if reply.code < 400:
        return SMTPProtocolError(
            f'the server answered {step} with {reply.code}, which is not a '
            'valid reply to it.', reply, step)
    when = '' if reply.code >= 500 else ' for now'
    return SMTPResponseException(f'the server refused {step}{when}.', reply,
                                 step)


# ---------------------------------------------------------------------------
# 3  The transcript
#
# The transcript is the session as the user sees it, in the notation of the
# RFCs: C: before what the client sends, S: before what the server replies.
# The connection reports every line to it, and it masks every secret. Base64
# is shown decoded beside the line: base64 hides nothing.
#
# With `explain` it says before each step what is about to happen, in the
# words of the docstring of the function that does it, and after each reply
# what its digits mean. With `step` it asks the user for the next command
# before it is sent. The tables can be skipped at a first reading.
# ---------------------------------------------------------------------------

COLOURS = {'C:': '\x1b[36m', 'S:': '\x1b[33m', '--': '\x1b[2m'}
NO_COLOUR = '\x1b[0m'
PROMPT = '-- Next command? (Enter: smtp.py sends it, ?: explain, q: quit) > '
RECOGNIZED = 8                  # characters of base64 that reveal a secret
METER_FROM = 1_000_000          # octets; smaller messages need no meter

# What a terminal passes on of a line; longer ones are cut without a word.
TERMINAL_LINE = 1024 if sys.platform == 'darwin' else 4096

# What the digits of a reply code mean: RFC 5321 section 4.2.1, and RFC 4954.
FIRST_DIGIT = {'2': 'success', '3': 'go on', '4': 'not now', '5': 'no'}
SECOND_DIGIT = {'0': 'syntax', '1': 'information', '2': 'the connection',
                '3': 'the login', '5': 'the mail transfer'}
# The middle of an enhanced status code: RFC 3463 section 2.
SUBJECT = {'1': 'an address', '2': 'a mailbox', '3': 'the mail system',
           '4': 'the network', '5': 'the protocol', '6': 'the message itself',
           '7': 'security or policy'}
EXTENSION_WORDS = {
    'SIZE': 'the largest message accepted, in octets (RFC 1870)',
    'PIPELINING': 'commands need not wait for replies (RFC 2920)',
    'STARTTLS': 'the connection can be encrypted (RFC 3207)',
    'AUTH': 'mechanisms to log in with (RFC 4954)',
    '8BITMIME': 'bodies may have octets beyond ASCII (RFC 6152)',
    'SMTPUTF8': 'addresses may have characters beyond ASCII (RFC 6531)',
    'ENHANCEDSTATUSCODES': 'replies carry codes like 2.1.5 (RFC 2034)',
    'DSN': 'delivery reports can be requested (RFC 3461)',
    'CHUNKING': 'messages may come in counted chunks (RFC 3030)'}


def to_base64(text: str) -> str:
    """Write text as base64 of its UTF-8 octets: 'alice' is 'YWxpY2U='."""
    return binascii.b2a_base64(text.encode(), newline=False).decode('ascii')


def from_base64(text: str) -> str:
    """Read base64 of UTF-8 text; '' if it is anything else."""
    try:
        return binascii.a2b_base64(text).decode()
    except ValueError:
        return ''


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a stream is a terminal."""
    return stream is not None and not stream.closed and stream.isatty()


def read_typed_line(prompt: str) -> bytes:
    """Ask for a line on the terminal; b'' is the end of the input (Ctrl-D).

    Raises:
        SMTPUsageError: The terminal may have cut the line.
    """
    print(prompt, end='', file=sys.stderr, flush=True)
    line = sys.stdin.buffer.readline()
    if not line.endswith(b'\n'):        # Ctrl-D leaves the cursor where it is
        print(file=sys.stderr)
    if len(line) >= TERMINAL_LINE and is_terminal(sys.stdin):
        raise SMTPUsageError(
            f'that line has {TERMINAL_LINE - 1:,} octets or more, so the '
            'terminal may have cut it.', step='a long line')
    return line


class Transcript:
    """Show a session while it happens, and hide its secrets.

    Attributes:
        stream: Where the lines go, or None.
        explain: Whether to say what happens, before and after it does.
        step: Whether to ask the user before each command.
        meter: A terminal to show the progress of a long message on, or None.
    """

    def __init__(self, stream: TextIO | None = None, *, explain: bool = False,
                 step: bool = False) -> None:
        """Begin a transcript on a stream, which is never closed."""
        self.stream, self.explain, self.step = stream, explain, step
        self.meter: TextIO | None = None
        self._secrets: list[str] = []
        self._responses: list[str] = []
        self._narration = ''
        self._explained: set[str] = set()
        self._offered: Mapping[str, str] = {}
        self._challenged = False
        plain = os.environ.get('NO_COLOR') or os.environ.get('TERM') == 'dumb'
        self._colours = COLOURS if is_terminal(stream) and not plain else {}

    def protect(self, secret: str, response: str) -> None:
        """Hide a secret, its base64, and the response that carries it."""
        # The longest first: 'open' also begins 'open-sesame'.
        self._secrets = sorted({*self._secrets, secret}, key=len, reverse=True)
        self._responses += [to_base64(secret), response]

    def hide(self, text: str) -> str:
        """Mask the secrets in a text, also base64 that was cut short."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        for response in self._responses:
            while response[:RECOGNIZED] in text:
                before, _, after = text.partition(response[:RECOGNIZED])
                same = os.path.commonprefix([after, response[RECOGNIZED:]])
                text = before + MASK + after[len(same):]
        return text

    def write(self, mark: str, text: str, comment: str = '') -> None:
        """Show one line.

        Args:
            mark: 'C:', 'S:', or '--' for what is not a line on the wire.
            text: The line without its end.
            comment: What to show beside it, or ''.
        """
        if self.stream is None:
            return
        line = escape(self.hide(f'{mark} {text}'
                                + f'   # {comment}' * bool(comment)))
        if mark in self._colours:
            line = f'{self._colours[mark]}{line}{NO_COLOUR}'
        encoding = getattr(self.stream, 'encoding', None) or 'utf-8'
        try:
            print(line.encode(encoding, 'backslashreplace').decode(encoding),
                  file=self.stream, flush=True)
        except (OSError, ValueError):   # nobody reads it: the session goes on
            self.stream = None

    def note(self, text: str) -> None:
        """Show a comment, wrapped."""
        if self.stream:
            import textwrap
            for line in textwrap.wrap(text, HEADER_LINE) or ['']:
                self.write('--', line)

    def show_line(self, line: str) -> None:
        """Show a line that was sent, with its base64 decoded."""
        login = re.fullmatch('(AUTH LOGIN )?([A-Za-z0-9+/=]+)', self.hide(line))
        self.write('C:', line, from_base64(login[2])
                   if login and (login[1] or self._challenged) else '')

    def show_reply(self, lines: Sequence[str], seconds: float) -> None:
        """Show the lines of a reply as far as it came, and its duration."""
        for line in lines:
            self._challenged = line.startswith(f'{CHALLENGE} ')
            comments = [from_base64(line[4:]) if self._challenged else '',
                        f'{seconds * 1000:.0f} ms'
                        if seconds >= 0.001 and line[3:4] != '-' else '']
            self.write('S:', line, ', '.join(filter(None, comments)))

    def progress(self, done: int, total: int) -> None:
        """Show how much of a long message was sent; wipe that at the end."""
        text = '' if done >= total else f'{done * 100 // total} %, ' \
            f'{done / 1e6:.1f} of {total / 1e6:.1f} MB'
        if self.meter and total >= METER_FROM:
            with contextlib.suppress(OSError, ValueError):
                print(f'\r{text}\x1b[K', end='', file=self.meter, flush=True)

    def begin(self, function: Callable[..., Any]) -> None:
        """Take note of the step of the session that comes next."""
        self._narration = function.__doc__ or ''

    def narrate(self) -> None:
        """Explain the step that has begun, once."""
        if self.explain and self._narration:
            self.note('')
            self._read_aloud()
            self._narration = ''

    def _read_aloud(self) -> None:
        """Show the docstring of the step, up to its dialogue."""
        import inspect
        words = re.split('\n+(?:[CS]: |[A-Z][a-z]+:\n)',
                         inspect.cleandoc(self._narration))[0]
        for paragraph in words.split('\n\n'):
            self.note(paragraph)

    def explain_reply(self, step: str, reply: Reply) -> None:
        """Say what the digits of a reply mean, once for each code."""
        first, second, about = f'{reply.code}'[0], f'{reply.code}'[1], {}
        about[f'{reply.code}'] = f'{first} = {FIRST_DIGIT[first]}, {second} ' \
            f'= about {SECOND_DIGIT.get(second, "something else")}'
        if reply.status[2:3] in SUBJECT:
            about[reply.status] = f'about {SUBJECT[reply.status[2:3]]}'
        if step == FINAL_DOT and reply.code == COMPLETED:
            about['250 to the dot'] = ('from now on the server is responsible '
                                       'for the message (RFC 5321 section 6.1)')
        for code in about if self.explain else ():
            if code not in self._explained:
                self._explained.add(code)
                self.note(f'{code}: {about[code]}')

    def explain_offer(self, extensions: Mapping[str, str]) -> None:
        """Say what the server offers, and what has changed since before."""
        before, self._offered = self._offered, extensions
        if not self.explain:
            return
        for word in extensions:
            if word not in before:
                known = EXTENSION_WORDS.get(word, 'smtp.py does not use it')
                self.note(f'{word}: {known}')
        gone = ', '.join(word for word in before if word not in extensions)
        if gone:
            self.note(f'No longer offered: {gone}. What was said before TLS '
                      'is forgotten (RFC 3207 section 4.2).')

    def ask(self, line: str) -> str:
        """Ask which command comes next.

        Args:
            line: The one that smtp.py would send.

        Returns:
            A command that was typed, or '' to send that line.

        Raises:
            KeyboardInterrupt: The user ends the session.
        """
        while True:
            octets = read_typed_line(PROMPT)
            typed = octets.decode('utf-8', 'backslashreplace').strip()
            verb = typed.upper().split(' ')[0]
            if octets and verb in ('', line.split(' ')[0]):
                return ''
            if verb in ('', 'Q', 'QUIT'):
                raise KeyboardInterrupt
            if typed != '?':
                return typed
            self._read_aloud()
            self.note(f'Enter sends: {line}')


# ---------------------------------------------------------------------------
# 4  The connection
#
# TCP carries a stream of octets and knows nothing of lines, so this class
# gives us lines. On send_octets and read_line stand send_lines and read_reply;
# and send_command is one of each. With them the rest of SMTP can be written
# down nearly as it stands in the RFCs. Every wait has a deadline, and
# everything the server sends is checked against the grammar before it is used.
# The class knows lines, replies and TLS, and nothing about mail.
#
# If you talk to a server, expect three errors: SMTPServerDisconnected, it is
# gone or silent; SMTPProtocolError, it does not speak SMTP; and
# SMTPResponseException, it refuses. Docstrings list them in the function that
# raises them; callers repeat them only to add something. In all errors, `step`
# is what went on: the line that was sent, or a name for it.
#
# A server may also lie, or an attacker on the network may speak in its name.
# Our guards:
#
#     a reply to nothing                       refuse_unasked
#     malformed, endless or slow replies       read_line, read_reply
#     a "yes" with another code than expected  make_refusal
#     a name that it cannot prove              encrypt
#     anything said before TLS                 encrypt forgets it
#     more than the 220 to STARTTLS            start_tls
#     no STARTTLS: did an attacker remove it?  start_tls says no more to it
#     control characters, secrets              escape, Transcript.hide
#
# Nothing guards against a server that says 250 and discards the mail.
# ---------------------------------------------------------------------------

NOW = 0.0                       # a deadline that has passed: do not wait

# With --step users may type commands, except those that would change what
# smtp.py knows of the session, or which mail goes to whom.
NEVER_TYPED = ('AUTH', 'STARTTLS', 'BDAT')
NOT_IN_A_MAIL = ('EHLO', 'HELO', 'MAIL', 'RCPT', 'RSET')


class Connection:
    """A connection to a server: lines and replies over a socket.

    Attributes:
        transcript: Shows every line.
        extensions: What the server offers, since TLS began if it did.
        timeout: Seconds for a whole reply to arrive.
        final_timeout: Seconds for the reply to the final dot.
        heard: The lines of the latest reply, secrets included: with the
            password 'AUTH' a mask would hide an extension.
        last_code: The reply code of the latest reply.
        quit_sent: Whether QUIT was sent.
    """

    def __init__(self, sock: socket.socket, transcript: Transcript,
                 timeout: float | None = None) -> None:
        """Take over a connected socket; the server speaks first."""
        self.transcript = transcript
        self.timeout = timeout or REPLY_TIMEOUT
        self.final_timeout = timeout or FINAL_REPLY_TIMEOUT
        self.extensions: Mapping[str, str] = {}
        self.heard: list[str] = []
        self.last_code, self.quit_sent = 0, False
        self._socket, self._received = sock, b''

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    @property
    def encrypted(self) -> bool:
        """Whether TLS protects what is said now."""
        return isinstance(self._socket, ssl.SSLSocket)

    def local_address(self) -> str:
        """Return our end's address as a literal (RFC 5321 section 4.1.3)."""
        address = str(self._socket.getsockname()[0]).split('%')[0]
        return f'[IPv6:{address}]' if ':' in address else f'[{address}]'

    def _name(self, step: str) -> str:
        """Name a step in an error: its line, masked, or what it was."""
        hidden = self.transcript.hide(step)
        return {MASK: 'the password', '': 'an empty line'}.get(hidden, hidden)

    def _make_error(self, error: OSError, step: str) -> SMTPException:
        """Make our error for what the operating system or TLS reports."""
        if isinstance(error, ssl.SSLError) \
                and not isinstance(error, ssl.SSLEOFError):
            bad = getattr(error, 'verify_message', '')
            return SMTPProtocolError(
                f'the certificate of the server was not accepted: {bad}.'
                if bad else f'TLS failed: {error.reason or error}.')
        what = 'timed out' if isinstance(error, socket.timeout) \
            else f'connection lost ({error.strerror or error})'
        name = self._name(step)
        due = 'send its greeting' if step == GREETING else f'reply to {name}'
        return SMTPServerDisconnected(f'{what}: the server did not {due}.',
                                      step=name)

    def _wait_until(self, deadline: float) -> None:
        """Let the next operation end at a deadline, or raise socket.timeout.
        """
        left = max(0.0, deadline - time.monotonic())
        if left == 0 and deadline != NOW:
            raise socket.timeout
        self._socket.settimeout(left)       # 0: do not wait at all

    def _receive(self, deadline: float, step: str) -> bool:
        """Add what comes to the buffer; False if it is to come NOW and did not.

        Raises:
            ConnectionError: Never; it becomes an SMTPServerDisconnected.
        """
        try:
            self._wait_until(deadline)
            octets = self._socket.recv(MAX_REPLY_LINE)
            if not octets:
                raise ConnectionError('the server closed it')
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False        # TLS may have to write before it can read
        except OSError as error:
            raise self._make_error(error, step) from None
        self._received += octets
        return True

    def read_line(self, deadline: float, step: str) -> str:
        """Read one line, and return it without its CRLF.

        Raises:
            SMTPServerDisconnected: It did not come before the deadline.
            SMTPProtocolError: It is too long, or does not end in CRLF.
        """
        while b'\n' not in self._received \
                and len(self._received) <= MAX_REPLY_LINE:
            self._receive(deadline, step)
        octets, _, self._received = self._received.partition(b'\n')
        line = octets.decode('utf-8', 'backslashreplace')
        if len(octets) > MAX_REPLY_LINE or not re.fullmatch('[^\r]*\r', line):
            raise SMTPProtocolError(
                'the server sent a line that is too long, or does not end in '
                f'CRLF: {shorten(self.transcript.hide(line))}', step=step)
        return line[:-1]

    def read_reply(self, step: str, *expected: int,
                   timeout: float | None = None) -> Reply:
        """Read a whole reply and check it (RFC 5321 section 4.2).

        S: 250-first line
        S: 250 last line

        Args:
            step: What it replies to.
            *expected: The reply codes that are welcome; none: all of them.
            timeout: Seconds for the whole reply; None: self.timeout.

        Returns:
            The reply, secrets masked.

        Raises:
            SMTPServerDisconnected: It did not come, or not in time.
            SMTPProtocolError: It is not a reply by the grammar, or a success
                that was not expected.
            SMTPResponseException: It refuses, or is a 421.
        """
        began, size = time.monotonic(), 0
        lines: list[str] = []
        try:
            while not lines or lines[-1][3:4] == '-':
                lines.append(self.read_line(
                    began + (timeout or self.timeout), step))
                size += len(lines[-1])
                if not REPLY_LINE.fullmatch(lines[-1]) or size > MAX_REPLY:
                    raise SMTPProtocolError(
                        'the server does not speak SMTP; it sent: '
                        + shorten(self.transcript.hide(lines[-1])), step=step)
        finally:
            masked = tuple(map(self.transcript.hide, lines))
            self.transcript.show_reply(masked, time.monotonic() - began)
        self.heard, self.last_code = lines, int(lines[-1][:3])
        reply = Reply(self.last_code, masked)
        # If codes differ, the last line counts if it is a no. But in reply to
        # the final dot, any 2yz may mean that the mail was accepted.
        if len({line[:3] for line in lines}) > 1 and (
                reply.code < 400 or step == FINAL_DOT
                and any(line.startswith('2') for line in lines)):
            raise SMTPProtocolError(
                'the server sent different codes in one reply.', reply, step)
        self.transcript.explain_reply(step, reply)
        if reply.code == NOT_AVAILABLE \
                or expected and reply.code not in expected:
            raise make_refusal(self._name(step), reply)
        return reply

    def has_unread(self, step: str) -> bool:
        """Return, without waiting, whether the server has said more."""
        return bool(self._received) or self._receive(NOW, step)

    def refuse_unasked(self, step: str) -> None:
        """Make sure that the server has nothing to say before we speak.

        A reply to nothing would be taken for the reply to the next command.
        If it is a refusal, it is the reason why the server gives up, so it
        becomes the error.

        Raises:
            SMTPProtocolError: There was something.
            SMTPResponseException: It was a refusal, such as a 421.
        """
        if self.has_unread(step):
            reply = self.read_reply(step,
                                    timeout=min(QUIT_TIMEOUT, self.timeout))
            if reply.code >= 400:
                raise make_refusal(self._name(step), reply)
            raise SMTPProtocolError('the server sent a reply to nothing.',
                                    reply, self._name(step))

    def send_octets(self, octets: bytes, step: str) -> None:
        """Send octets as they are, unless the server has said something.

        Args:
            octets: About a BLOCK at most; they have one deadline.
            step: What they are.

        Raises:
            SMTPServerDisconnected: They could not be sent.
            SMTPProtocolError: TLS was disturbed.
        """
        self.refuse_unasked(step)
        deadline, rest = time.monotonic() + self.timeout, memoryview(octets)
        try:
            while rest:
                self._wait_until(deadline)
                rest = rest[self._socket.send(rest):]
        except OSError as error:
            self.refuse_unasked(step)       # its last words may say why
            raise self._make_error(error, step) from None

    def send_lines(self, lines: Sequence[str]) -> None:
        """Send lines together, each with a CRLF; each calls for a reply.

        Raises:
            SMTPMessageError: A line has CR, LF or NUL, or is not Unicode.
        """
        if re.search('[\r\n\0\ud800-\udfff]', ''.join(lines)):
            raise SMTPMessageError('a command must not contain CR, LF or NUL: '
                                   f'{self.transcript.hide(lines[0])!r}')
        self.let_user_type(lines[0])
        self.transcript.narrate()
        self.send_octets((CRLF.join(lines) + CRLF).encode(), lines[0])
        for line in lines:
            self.transcript.show_line(line)

    def send_command(self, line: str, *expected: int) -> Reply:
        """Send a command and read the reply to it (RFC 5321 section 4.1).

        C: command
        S: reply

        Args:
            line: The command without its CRLF.
            *expected: The reply codes that are welcome; none: all of them.

        Returns:
            The reply.
        """
        self.send_lines([line])
        return self.read_reply(line, *expected)

    def let_user_type(self, line: str) -> None:
        """With --step, let the user try other commands before our line."""
        while self.transcript.step:
            typed = self.transcript.ask(self.transcript.hide(line))
            verb = typed.upper().split(' ')[0]
            if not typed:
                return
            if self.last_code in (CHALLENGE, START_MAIL_INPUT):
                self.transcript.note('Not now: no command is expected here.')
            elif verb.startswith(NEVER_TYPED) or verb in NOT_IN_A_MAIL \
                    and line.startswith(('RCPT', 'DATA')):
                self.transcript.note('Not now: smtp.py has to send it itself, '
                                     'in its turn.')
            elif not (typed.isascii() and typed.isprintable()):
                self.transcript.note('Not now: it is not printable ASCII.')
            else:
                self._send_typed(typed)

    def _send_typed(self, line: str) -> None:
        """Send a command that was typed, and undo what it begins.

        Raises:
            SMTPUsageError: The server now expects more than a command.
        """
        self.send_octets((line + CRLF).encode(), line)
        self.transcript.show_line(line)
        reply = self.read_reply(line)
        if 300 <= reply.code < 400:
            self.close()
            raise SMTPUsageError(f'the server wants more after {line}, and '
                                 'only hanging up ends that.', reply, line)
        if line.upper().startswith(('MAIL', 'RCPT')) and reply.code < 300:
            self._send_typed('RSET')

    def encrypt(self, context: ssl.SSLContext, host: str) -> None:
        """Put TLS between us and the server; from here on all is encrypted.

        What the server offered in the clear is forgotten.

        Args:
            context: Knows which certificates are trusted.
            host: The name that the certificate must carry, in ASCII.

        Raises:
            SMTPProtocolError: The handshake failed, or the certificate is
                not the host's.
            SMTPServerDisconnected: The server hung up, or was silent.
        """
        self.extensions = {}
        try:
            # In octets: Python would map a str by rules of its own.
            self._socket = sock = context.wrap_socket(
                self._socket, server_hostname=host.rstrip('.').encode(),
                do_handshake_on_connect=False)
            self._wait_until(time.monotonic() + self.timeout)
            sock.do_handshake()
        except OSError as error:
            raise self._make_error(error, 'the TLS handshake') from None
        certificate: Mapping[str, Any] = sock.getpeercert() or {}
        names = [f'{name}' for _, name in certificate.get('subjectAltName', ())]
        self.transcript.note(f'TLS begins: {sock.version()}, '
                             + (sock.cipher() or ('?',))[0])
        self.transcript.note(f'certificate for {", ".join(names[:3])}')


# ---------------------------------------------------------------------------
# 5  Opening
#
# A session begins in the clear. The server greets, we say EHLO, and its reply
# lists the extensions that it offers. The first one that we use is STARTTLS,
# which turns on encryption. Anyone on the network could have altered what was
# said until then, so it is forgotten, and we say EHLO once more; only this
# second list counts. On port 465 TLS comes before the greeting. TLS covers
# the way to this server and nothing beyond: the server reads every mail, and
# what it does with them next is out of our hands.
#
# From here on the same few things are handed to many functions. They are
# explained once: `connection` leads to the server; `context` knows which
# certificates are trusted; and `host` is the name that the certificate of the
# server must carry.
# ---------------------------------------------------------------------------

# A host name: labels of letters, digits and hyphens, with dots between them
# (RFC 1035 2.3.1 and 2.3.4, RFC 1123 2.1).
LABEL = '[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?'
DOMAIN = re.compile(rf'{LABEL}(?:\.{LABEL})*')


def encode_domain(domain: str) -> str:
    """Write a domain in ASCII, as DNS has it: xn--bcher-kva.example.

    Python's codec follows IDNA 2003, which maps some characters to others. A
    domain for which IDNA 2008 (RFC 5890) has another form, or none, is
    refused: mail for it must not go to the wrong place.

    Raises:
        ValueError: It is not a domain, or its IDNA form is ambiguous.
    """
    encoded = domain
    if not domain.isascii():
        import unicodedata
        letters = all(unicodedata.category(character)[0] in 'LMN'
                      for character in re.sub('[.\u00b7-]', '', domain))
        with contextlib.suppress(UnicodeError):
            encoded = domain.encode('idna').decode('ascii')
        if not letters or unicodedata.normalize('NFKC', domain) != domain \
                or encoded.encode().decode('idna').lower() != domain.lower():
            raise ValueError('there is more than one way to write its domain '
                             'in ASCII; write it as xn--...')
    if len(encoded) > MAX_DOMAIN or not DOMAIN.fullmatch(encoded):
        raise ValueError('the domain is not a valid host name')
    return encoded


def check_literal(literal: str) -> str:
    """Return a literal such as '[192.0.2.7]' (RFC 5321 section 4.1.3).

    Raises:
        ValueError: It does not hold an IP address.
    """
    address = re.sub('^ipv6:', '', literal[1:-1], flags=re.IGNORECASE)
    try:
        socket.inet_pton(socket.AF_INET if address == literal[1:-1]
                         else socket.AF_INET6, address)
    except (OSError, ValueError):
        raise ValueError('the brackets do not hold an IP address') from None
    return literal


def open_socket(host: str, port: int, timeout: float | None = None
                ) -> socket.socket:
    """Open a TCP connection to the server.

    A name may have several addresses; they are tried in order, until one of
    them answers (RFC 5321 section 5.1).

    Args:
        host: A host name in ASCII, or an IP address.
        port: From 1 to 65535.
        timeout: Seconds for each address; None: the default.

    Returns:
        The connected socket.

    Raises:
        SMTPConnectError: There is no such host, or no address answered.
    """
    try:
        # In octets: Python would load tables to encode a str.
        found = socket.getaddrinfo(host.encode(), port,
                                   type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:
        later = getattr(error, 'errno', None) == socket.EAI_AGAIN
        raise SMTPConnectError(
            f'cannot find a host named {host}.', step='the look-up',
            exit_code=EXIT_TRY_LATER if later else EXIT_NO_HOST) from None
    failures: list[str] = []
    for number, (*kind, _, address) in enumerate(found, 1):
        patience = timeout or REPLY_TIMEOUT
        if number < len(found):
            patience = min(patience, NEXT_ADDRESS_TIMEOUT)
        try:
            with contextlib.ExitStack() as stack:
                sock = stack.enter_context(socket.socket(*kind))
                sock.settimeout(patience)
                sock.connect(address)
                # Without this, EHLO would wait for the server to acknowledge
                # the end of the TLS handshake: one round trip more.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                stack.pop_all()         # do not close it
                return sock
        except OSError as error:
            failures.append(f'{address[0]}: {error.strerror or error}')
    raise SMTPConnectError(f'no connection to {host}, port {port} '
                           f'({"; ".join(failures)}).', step='connecting')


def read_greeting(connection: Connection) -> None:
    """Wait for the server's greeting.

    In SMTP the server speaks first: with 220 it says that it is ready (RFC
    5321 section 3.1).

    S: 220 smtp.office365.com Microsoft ESMTP MAIL Service ready

    Raises:
        SMTPResponseException: The server does not want a session.
    """
    connection.transcript.begin(read_greeting)
    connection.transcript.narrate()
    connection.read_reply(GREETING, SERVICE_READY)


def parse_extensions(lines: Sequence[str]) -> dict[str, str]:
    """Return the keywords in a reply to EHLO, with their parameters."""
    extensions: dict[str, str] = {}
    # The first line only says hello. Ignore lines that are not ASCII: upper()
    # could turn them into keywords (a long s becomes S).
    for line in filter(str.isascii, lines[1:]):
        # 'AUTH=LOGIN' is how servers wrote it before there was a standard.
        line = re.sub('^AUTH=', 'AUTH ', line[4:].upper())
        keyword, _, parameters = line.partition(' ')
        known = extensions.get(keyword, '')
        extensions[keyword] = f'{known} {parameters}'.strip()
    return extensions


def say_hello(connection: Connection, name: str | None = None) -> None:
    """Give our name, and learn what the server can do.

    The reply to EHLO lists extensions (RFC 5321 section 4.1.1.1). Once TLS
    has begun, only a second list counts (RFC 3207 section 4.2).

    C: EHLO [192.0.2.7]
    S: 250-smtp.office365.com Hello [192.0.2.7]
    S: 250-SIZE 157286400
    S: 250 STARTTLS

    Args:
        connection: Keeps the list.
        name: Our host name or address literal; None: SMTP_DOMAINNAME, or our
            IP address as a literal (RFC 5321 section 4.1.4).

    Raises:
        SMTPResponseException: The server does not accept EHLO or our name.
    """
    connection.transcript.begin(say_hello)
    name = name or SMTP_DOMAINNAME or connection.local_address()
    connection.send_command(f'EHLO {name}', COMPLETED)
    connection.extensions = parse_extensions(connection.heard)
    connection.transcript.explain_offer(connection.extensions)


def make_tls_context(ca_file: str | None = None) -> ssl.SSLContext:
    """Decide which servers to trust: TLS 1.2 or later, certificate checked.

    Args:
        ca_file: PEM file of the authorities to trust; None: the system's.

    Raises:
        SMTPUsageError: The file is missing or does not hold a certificate.
    """
    # Not ssl.create_default_context: it would write the keys of the session
    # to a file if $SSLKEYLOGFILE names one.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False     # only the SAN counts
    try:
        if ca_file is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(ca_file)
    except (OSError, ValueError) as error:
        reason = 'no certificate in PEM form' \
            if isinstance(error, ssl.SSLError) else error
        raise SMTPUsageError(f'cannot trust {ca_file}: {reason}.',
                             exit_code=EXIT_FILE) from None
    return context


def begin_tls(connection: Connection, context: ssl.SSLContext,
              host: str) -> None:
    """Encrypt before anything is said.

    On port 465 the TLS handshake comes first, and even the greeting is
    encrypted (RFC 8314 section 3.3).
    """
    connection.transcript.begin(begin_tls)
    connection.transcript.narrate()
    connection.encrypt(context, host)


def start_tls(connection: Connection, context: ssl.SSLContext,
              host: str) -> None:
    """Turn on encryption.

    After STARTTLS and its 220 both sides begin a TLS handshake, in which the
    server proves its name with a certificate (RFC 3207 section 4).

    C: STARTTLS
    S: 220 2.0.0 SMTP server ready

    Raises:
        SMTPNotSupportedError: STARTTLS is not offered.
        SMTPProtocolError: More came than the 220, or TLS failed.
    """
    connection.transcript.begin(start_tls)
    if 'STARTTLS' not in connection.extensions:
        raise SMTPNotSupportedError(
            f'{host} does not offer encryption (STARTTLS) here, so nothing '
            'secret was sent to it.', step='STARTTLS')
    connection.send_command('STARTTLS', SERVICE_READY)
    # An attacker on the network could add '250 AUTH PLAIN' to the 220. It is
    # in the clear, but read after the handshake it would pass for the
    # server's own words.
    if connection.has_unread('STARTTLS'):
        raise SMTPProtocolError(
            'more than its 220 came in reply to STARTTLS, so someone may be '
            'injecting data into the session.', step='STARTTLS')
    connection.encrypt(context, host)


# ---------------------------------------------------------------------------
# 6  Logging in
#
# A submission server sends only for people it knows. Its reply to EHLO names
# the mechanisms that it accepts, and each of them is a short dialogue in
# which base64 wraps what is said. Base64 is not encryption: anyone can unwrap
# it. Only TLS protects the password, so there is no login without it.
#
# A 334 is a question: the digits are followed by a challenge in base64, such
# as "Password:", and the next line that we send is not a command, but the
# response to it.
#
# Each mechanism is a function here, which sends its responses and returns the
# reply to the last of them: 235, logged in, or 334, one more challenge, for
# which it has no response. Any other reply is an error at once. To add a
# mechanism, write such a function, and give it a line in MECHANISMS.
# ---------------------------------------------------------------------------

LAST_REPLIES = (AUTHENTICATION_SUCCEEDED, CHALLENGE)


def begin_login(connection: Connection, mechanism: str, response: str,
                *expected: int) -> Reply:
    """Begin a mechanism, its first response on the same line if it fits."""
    line = f'AUTH {mechanism} {response}'
    if len(line) + len(CRLF) <= MAX_COMMAND_LINE:
        return connection.send_command(line, *expected)
    connection.send_command(f'AUTH {mechanism}', CHALLENGE)
    return connection.send_command(response, *expected)


def asks_for_user(connection: Connection) -> bool:
    """Return whether the challenge just heard asks for the user name."""
    text = connection.heard[-1][4:]
    challenge = f'{from_base64(text)} {text}'.lower()
    return 'user' in challenge and 'pass' not in challenge


def auth_login(connection: Connection, user: str, password: str) -> Reply:
    """Log in by AUTH LOGIN: the user name, then the password.

    Each is a line of base64. No RFC describes this; what RFC 4954 says of
    AUTH holds.

    C: AUTH LOGIN YWxpY2VAZXhhbXBsZS5jb20=
    S: 334 UGFzc3dvcmQ6
    C: ********
    S: 235 2.7.0 Authentication successful
    """
    name = to_base64(user)
    try:
        reply = begin_login(connection, 'LOGIN', name, CHALLENGE)
    except SMTPResponseException as error:
        # Some servers want the user name on a line of its own.
        if error.reply.code not in (SYNTAX_ERROR_IN_PARAMETERS,
                                    PARAMETER_NOT_IMPLEMENTED):
            raise
        connection.send_command('AUTH LOGIN', CHALLENGE)
        reply = connection.send_command(name, CHALLENGE)
    # Others ignore it on the AUTH line. Many servers log the user name of a
    # failed login, so the password must never go out in its place.
    if asks_for_user(connection):
        reply = connection.send_command(name, CHALLENGE)
    if asks_for_user(connection):
        return reply
    return connection.send_command(to_base64(password), *LAST_REPLIES)


def auth_plain(connection: Connection, user: str, password: str) -> Reply:
    r"""Log in by AUTH PLAIN: user name and password on one line (RFC 4616).

    A NUL precedes each of them: '\0alice\0secret'.

    C: AUTH PLAIN ********
    S: 235 2.7.0 Authentication successful
    """
    response = to_base64(f'\0{user}\0{password}')
    connection.transcript.protect(password, response)
    return begin_login(connection, 'PLAIN', response, *LAST_REPLIES)


def auth_xoauth2(connection: Connection, user: str, token: str) -> Reply:
    """Log in by XOAUTH2: a token in place of the password.

    The token comes from the provider's own login page, is valid for an hour
    or so, and allows only what it was issued for. If it is no good, the
    server says why in a challenge, and wants an empty line before it refuses.
    No RFC describes this; Google and Microsoft do.

    C: AUTH XOAUTH2 ********
    S: 235 2.7.0 Authentication successful

    Raises:
        SMTPAuthenticationError: The token was refused; the error says why.
    """
    response = to_base64(f'user={user}\1auth=Bearer {token}\1\1')
    connection.transcript.protect(token, response)
    reply = begin_login(connection, 'XOAUTH2', response, *LAST_REPLIES)
    if reply.code == CHALLENGE:
        reason = from_base64(connection.heard[-1][4:]) or reply.text
        reply = connection.send_command('')
    if reply.code != AUTHENTICATION_SUCCEEDED:
        raise SMTPAuthenticationError(
            f'the server refused the token of {user}: '
            + shorten(connection.transcript.hide(reason)), reply,
            'AUTH XOAUTH2')
    return reply


MECHANISMS: dict[str, Callable[[Connection, str, str], Reply]] = {
    'LOGIN': auth_login, 'PLAIN': auth_plain, 'XOAUTH2': auth_xoauth2}
AUTOMATIC = ('LOGIN', 'PLAIN')      # what 'auto' tries with a password


def log_in(connection: Connection, user: str, password: str,
           wanted: str = 'auto') -> None:
    """Prove who we are.

    The server's list names the mechanisms that it accepts (RFC 4954 section
    3). One of them is tried, once.

    C: AUTH LOGIN YWxpY2VAZXhhbXBsZS5jb20=
    S: 334 UGFzc3dvcmQ6
    C: ********
    S: 235 2.7.0 Authentication successful

    Args:
        connection: Encrypted.
        user: The user name, usually the mail address.
        password: The password, or the access token for XOAUTH2.
        wanted: 'auto', or the name of a mechanism.

    Raises:
        SMTPUsageError: User name or password are empty, or not text.
        SMTPNotSupportedError: The mechanism is not offered.
        SMTPAuthenticationError: The login was refused.
        SMTPProtocolError: The server does not keep to the dialogue.
    """
    connection.transcript.begin(log_in)
    if not all(re.fullmatch('[^\0\ud800-\udfff]+', text)
               for text in (user, password)):
        raise SMTPUsageError('the user name or the password is empty, or has '
                             'a NUL or broken UTF-8.',
                             exit_code=EXIT_CONFIGURATION)
    offered = connection.extensions.get('AUTH', '').split()
    names = AUTOMATIC if wanted == 'auto' else (wanted.upper(),)
    mechanism = next((name for name in names if name in offered), '')
    if not mechanism:
        raise SMTPNotSupportedError(
            f'the server does not offer a login by {" or ".join(names)}; it '
            f'offers {" ".join(offered) or "none at all"}.', step='AUTH')
    connection.transcript.protect(password, to_base64(password))
    try:
        reply = MECHANISMS[mechanism](connection, user, password)
        if reply.code == CHALLENGE:
            with contextlib.suppress(SMTPException):
                connection.send_command('*')    # give up, RFC 4954 section 4
    except SMTPResponseException as error:
        reply = error.reply
        if isinstance(error, SMTPAuthenticationError) \
                or reply.code == NOT_AVAILABLE:     # not a reply to the login
            raise
    if reply.code != AUTHENTICATION_SUCCEEDED:
        raise SMTPAuthenticationError(
            f'the server refused the login of {user} by {mechanism}.', reply,
            f'AUTH {mechanism}')


# ---------------------------------------------------------------------------
# 7  One mail
#
# First the envelope: MAIL says who sends, each RCPT names one recipient, and
# the server replies to each. Then DATA and the message, ended by a line with
# a single dot. Nothing compares envelope and header: a Bcc recipient is a
# RCPT without a header field.
#
# With PIPELINING (RFC 2920) the whole envelope and DATA go out at once and
# the replies come back together: one round trip instead of one for each
# command. A command that depends on a reply must wait for it: EHLO, STARTTLS
# and AUTH each for the one before, the message for the 354. The price is that
# DATA may get its 354 although a recipient was refused.
#
# SMTP would deliver to those recipients that were accepted. We choose
# otherwise: if one is refused, no one gets the mail. As long as the final dot
# has not been sent we can hang up, and the server must throw away what it
# has. The reply to that dot is the moment at which the server takes over the
# duty to deliver. What it cannot deliver then comes back later, as a mail.
# ---------------------------------------------------------------------------

# What is a yes to a command of the envelope, RFC 5321 section 4.3.2. Not every
# 2yz is one: 252, for example, means "I could not find out".
YES = {'MAIL': (COMPLETED,), 'RCPT': (COMPLETED, WILL_FORWARD),
       'DATA': (START_MAIL_INPUT,)}
SHOWN_LINES = 20            # of each piece of a message, in a transcript


class Mail:
    """A mail: its envelope, and its message.

    Attributes:
        sender: The address for MAIL.
        recipients: The addresses for RCPT, each once.
        pieces: The message: first its header, then what follows it; none if
            only the envelope is to be tried. A piece is octets, or a file
            (class Attachment) whose length on the wire is known.
        message_id: The value of its Message-ID field.
        outcome: None as long as the mail is not sent; SMTPDeliveryUnknown
            while the final dot has no reply; then the Receipt.
    """

    def __init__(self, sender: str, recipients: Iterable[str],
                 pieces: Sequence[Any] = (), message_id: str = '') -> None:
        """Keep the parts; leave out an address that occurs again."""
        known: dict[str, str] = {}
        for address in recipients:      # case counts only before the @
            local, _, domain = address.rpartition('@')
            known.setdefault(f'{local}@{domain.lower()}', address)
        self.sender, self.recipients = sender, list(known.values())
        self.pieces, self.message_id = pieces, message_id
        self.outcome: Receipt | SMTPDeliveryUnknown | None = None

    @property
    def size(self) -> int:
        """Octets on the wire, before dots are doubled (RFC 1870)."""
        return sum(map(len, self.pieces))

    def chunks(self) -> Iterator[bytes]:
        """Yield the message, a BLOCK or so at a time."""
        for piece in self.pieces:
            yield from piece.chunks() if not isinstance(piece, bytes) else (
                piece[start:start + BLOCK]
                for start in range(0, len(piece), BLOCK))


def double_dots(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Double each dot that begins a line (RFC 5321 section 4.5.2).

    Otherwise a line of one dot in a text would end the message. The server
    takes one dot away from every line that begins with one, so '.profile'
    goes out as '..profile'.
    """
    line_begins = True
    for chunk in chunks:
        doubled = chunk
        if b'.' in chunk:       # fast path: base64 has no dots
            first = b'.' if line_begins and chunk.startswith(b'.') else b''
            doubled = first + chunk.replace(b'\n.', b'\n..')
        yield doubled
        line_begins = chunk.endswith(b'\n')


def show_message(transcript: Transcript, mail: Mail) -> None:
    """Show a message that was sent: long text cut, files by name."""
    for piece in mail.pieces if transcript.stream else ():
        if not isinstance(piece, bytes):
            transcript.write('--', str(piece))
            continue
        *lines, rest = b''.join(double_dots([piece])).split(
            b'\r\n', SHOWN_LINES)
        for line in lines:
            transcript.write('C:', line.decode('utf-8', 'backslashreplace'))
        if rest:
            more = rest.count(b'\r\n')
            transcript.write('--', f'({more:,} more lines)')


def format_mail_command(extensions: Mapping[str, str], mail: Mail) -> str:
    """Write MAIL with its parameters: 'MAIL FROM:<alice@example.com> SIZE=431'.

    Raises:
        SMTPMessageError: The message is larger than the server accepts.
        SMTPNotSupportedError: It needs an extension that is not offered.
    """
    command, size = f'MAIL FROM:<{mail.sender}>', mail.size
    limit = re.fullmatch('[0-9]{1,18}', extensions.get('SIZE', ''))
    if limit and 0 < int(limit[0]) < size:              # 0: no limit
        raise SMTPMessageError(
            f'the message has {size:,} octets, and the server accepts no more '
            f'than {int(limit[0]):,}.', step='MAIL')
    if 'SIZE' in extensions and size:
        command += f' SIZE={size}'                          # RFC 1870
    eight_bit = not all(piece.isascii() for piece in mail.pieces[1:]
                        if isinstance(piece, bytes))
    utf8 = not all(text.isascii() for text in (
        mail.sender, *mail.recipients, *mail.pieces[:1]))
    for keyword, needed, what in (
            ('8BITMIME', eight_bit, 'the body'),
            ('SMTPUTF8', utf8, 'an address or a header field')):
        if needed and keyword not in extensions:
            raise SMTPNotSupportedError(
                f'{what} has characters beyond ASCII, and the server does not '
                f'offer {keyword}.', step='MAIL')
    if '8BITMIME' in extensions and (eight_bit or utf8):
        command += ' BODY=8BITMIME'                         # RFC 6152
    return f'{command} SMTPUTF8' if utf8 else command       # RFC 6531


def may_pipeline(connection: Connection) -> bool:
    """Return whether commands may travel together; not while people watch."""
    transcript = connection.transcript
    return 'PIPELINING' in connection.extensions \
        and not (transcript.explain or transcript.step)


def group(items: Iterable[str], limit: int, end: str = '') -> list[list[str]]:
    """Group items, each with an end, in octets up to a limit; at least one."""
    groups: list[list[str]] = []
    room = 0
    for item in items:
        size = len((item + end).encode())
        if not groups or size > room:
            groups.append([])
            room = limit
        groups[-1].append(item)
        room -= size
    return groups


def send_envelope(connection: Connection, mail: Mail,
                  data: bool = True) -> None:
    """Say from whom and to whom the mail goes, and that the message follows.

    This is the envelope; the header fields of the message play no part in
    where it goes (RFC 5321 sections 3.3 and 7.2).

    C: MAIL FROM:<alice@example.com> SIZE=431
    C: RCPT TO:<bob@example.org>
    C: DATA
    S: 250 2.1.0 Sender OK
    S: 250 2.1.5 Recipient OK
    S: 354 Start mail input; end with <CRLF>.<CRLF>

    Args:
        connection: Logged in, if the server wants that.
        mail: Its envelope is sent.
        data: False to try the envelope only, without DATA.

    Raises:
        SMTPRecipientsRefused: A recipient was refused.
        SMTPResponseException: The sender or DATA was refused.
        SMTPMessageError: The message is too large for the server.
        SMTPNotSupportedError: It needs an extension that is not offered.
    """
    connection.transcript.begin(send_envelope)
    sender = format_mail_command(connection.extensions, mail)
    rcpt = {f'RCPT TO:<{address}>': address for address in mail.recipients}
    failed: dict[str, Reply] = {}
    # A group fits into the buffers of any socket. Were it longer, the server
    # could be stuck with replies that we do not read yet, and we with commands
    # that it does not read any more.
    for commands in group([sender, *rcpt, *['DATA'] * data],
                          MAX_GROUP if may_pipeline(connection) else 0, CRLF):
        # After a refusal every recipient is still asked, since the user
        # should hear of all of them; but a DATA not yet sent is left out.
        commands = [line for line in commands if not failed or line != 'DATA']
        if not commands or sender in failed:
            break
        connection.send_lines(commands)
        for line in commands:
            reply = connection.read_reply(line)
            if reply.code not in YES[line[:4]]:
                failed[line] = reply
    if failed and connection.last_code == START_MAIL_INPUT:
        # DATA went out with a RCPT that was refused, and got its 354. Now
        # every line is text, even QUIT, and a dot would send an empty message
        # to the others. Hanging up is the only way out.
        connection.transcript.note('hanging up without the final dot')
        connection.close()
    refused = {rcpt[line]: reply for line, reply in failed.items()
               if line in rcpt and reply.code >= 400}
    for line, reply in failed.items():
        raise SMTPRecipientsRefused(refused) if rcpt.get(line) in refused \
            else make_refusal(connection.transcript.hide(line), reply)


def send_final_dot(connection: Connection, mail: Mail,
                   last_lines: Sequence[str]) -> Receipt:
    """End the message, and wait for the reply that decides.

    A 4yz or 5yz is a clear no, 421 too. Whatever else happens leaves it open
    whether the server has accepted the message.

    Args:
        connection: The rest of the message has been sent on it.
        mail: Learns its outcome.
        last_lines: The dot, and perhaps QUIT.

    Returns:
        The receipt: sent.

    Raises:
        SMTPResponseException: The server refused the message.
        SMTPDeliveryUnknown: No valid reply came to the dot.
    """
    ended = f'The message was complete (Message-ID {mail.message_id}).'
    mail.outcome = SMTPDeliveryUnknown(f'interrupted. {ended}')
    try:
        connection.send_octets((CRLF.join(last_lines) + CRLF).encode(),
                               FINAL_DOT)
        connection.quit_sent = 'QUIT' in last_lines
        for line in last_lines:
            connection.transcript.show_line(line)
        reply = connection.read_reply(FINAL_DOT, COMPLETED,
                                      timeout=connection.final_timeout)
        mail.outcome = receipt = Receipt(reply, mail.recipients,
                                         mail.message_id)
        return receipt
    except SMTPResponseException:
        mail.outcome = None
        raise
    except SMTPException as error:
        mail.outcome = SMTPDeliveryUnknown(f'{error.problem} {ended}',
                                           error.reply, FINAL_DOT)
        raise mail.outcome from None


def send_message(connection: Connection, mail: Mail) -> Receipt:
    """Send the message, and the final dot.

    Lines are sent unchanged, except that a leading dot is doubled; a line
    with a single dot ends the message (RFC 5321 sections 4.5.2 and 4.1.1.4).

    C: From: alice@example.com
    C: (the other header fields, an empty line, the text)
    C: .
    S: 250 2.0.0 OK, queued

    Args:
        connection: Has sent the envelope.
        mail: Its message is sent.

    Returns:
        The receipt: sent.

    Raises:
        SMTPResponseException: The server refused the message.
        SMTPMessageError: A file changed while it was read.
        SMTPDeliveryUnknown: No valid reply came to the dot.
    """
    transcript, done, total = connection.transcript, 0, mail.size
    transcript.begin(send_message)
    try:
        connection.let_user_type(BODY)
        transcript.narrate()
        for chunk in double_dots(mail.chunks()):
            connection.send_octets(chunk, BODY)
            done += len(chunk)
            transcript.progress(done, total)
        connection.refuse_unasked(BODY)
    except BaseException:
        connection.close()      # without the final dot nothing is sent
        raise
    finally:
        transcript.progress(total, total)
    show_message(transcript, mail)
    # Whatever the reply to the dot is, there is nothing more to say. So QUIT
    # need not wait for it: one round trip less.
    return send_final_dot(connection, mail, ['.', 'QUIT']
                          if may_pipeline(connection) else ['.'])


def say_goodbye(connection: Connection) -> None:
    """Close the session politely.

    Whatever happens to QUIT, what was sent is sent, and what was refused is
    refused (RFC 5321 section 4.1.1.10).

    C: QUIT
    S: 221 2.0.0 Service closing transmission channel
    """
    if connection.last_code in (*range(300, 400), NOT_AVAILABLE):
        return          # no command is expected: only hanging up is left
    connection.transcript.begin(say_goodbye)
    with contextlib.suppress(SMTPException):    # the outcome is known already
        if not connection.quit_sent:
            connection.send_lines(['QUIT'])
        connection.read_reply('QUIT',
                              timeout=min(QUIT_TIMEOUT, connection.timeout))


# ---------------------------------------------------------------------------
# 8  The whole session
#
# Three steps make a delivery: open the session, send the envelope, send the
# message. Here is the whole story; each call is a part of the session in the
# docstring at the top of this file. SMTP ends here: the rest of the file
# writes the message, and talks to the user.
# ---------------------------------------------------------------------------

TLS_WAYS = ('starttls', 'implicit', 'none')
AUTH_WAYS = ('auto', *map(str.lower, MECHANISMS), 'none')


def check_type(name: str, value: object, *types: type) -> None:
    """Raise a TypeError that names an argument of another type."""
    if not isinstance(value, types) or isinstance(value, bool):
        wanted = ' or '.join(kind.__name__ for kind in types)
        raise TypeError(
            f'{name} must be {wanted}, not {type(value).__name__}')


@contextlib.contextmanager
def open_session(password: str, user: str, *, server: str = SMTP_SERVER,
                 port: int = SMTP_PORT, tls: str | None = None,
                 ca_file: str | None = None, ehlo: str | None = None,
                 timeout: float | None = None, auth: str = 'auto',
                 transcript: Transcript | TextIO | None = None
                 ) -> Iterator[Connection]:
    """Open a session, from the connection to the login, and close it again.

    Args:
        password: The password of the user, or the token for XOAUTH2.
        user: The user name.
        server: A host name or an IP address.
        port: From 1 to 65535.
        tls: 'starttls', 'implicit' (TLS from the start), or 'none', which
            never logs in; None: the default for the port.
        ca_file: PEM file of the authorities to trust; None: the system's.
        ehlo: Our host name or address literal; None: our address.
        timeout: Seconds for each reply; None: the default.
        auth: 'auto', 'login', 'plain', 'xoauth2', or 'none'.
        transcript: Where to show the session: a Transcript, or a text
            stream; None: nowhere.

    Yields:
        The connection, logged in.

    Raises:
        TypeError: An argument has the wrong type; the error names it.
        SMTPUsageError: An argument is not valid.
        SMTPException: Whatever its steps raise.
    """
    for name, value, kind in (
            ('password', password, str), ('user', user, str),
            ('server', server, str), ('port', port, int), ('auth', auth, str)):
        check_type(name, value, kind)
    tls = tls or ('implicit' if port == IMPLICIT_TLS_PORT else 'starttls')
    if tls not in TLS_WAYS or auth not in AUTH_WAYS or not 0 < port < 65536:
        raise SMTPUsageError(
            f'tls is one of {", ".join(TLS_WAYS)}, auth one of '
            f'{", ".join(AUTH_WAYS)}, and port a number up to 65535.')
    try:
        host = server.strip('[]')
        host = host if host.isascii() else encode_domain(host)
    except ValueError as error:
        raise SMTPUsageError(f'{server}: {error}.') from None
    if not isinstance(transcript, Transcript):
        transcript = Transcript(transcript)
    context = make_tls_context(ca_file) if tls != 'none' else None
    sock = open_socket(host, port, timeout)
    connection = Connection(sock, transcript, timeout)
    try:
        if context and tls == 'implicit':
            begin_tls(connection, context, host)
        read_greeting(connection)
        say_hello(connection, ehlo)
        if context and tls == 'starttls':
            start_tls(connection, context, host)
            say_hello(connection, ehlo)
        if connection.encrypted and auth != 'none':
            log_in(connection, user, password, auth)
        yield connection
        say_goodbye(connection)
    except (SMTPResponseException, SMTPNotSupportedError, SMTPMessageError,
            SMTPUsageError):
        # After all other errors the connection is gone, or the server is not
        # to be trusted.
        say_goodbye(connection)
        raise
    finally:
        connection.close()


def deliver(mail: Mail, password: str, *, user: str = '', **session: Any
            ) -> Receipt:
    """Send a mail.

    Args:
        mail: From build_message or read_message.
        password: The password of the user, or the token for XOAUTH2.
        user: The user name; '': the address of the sender.
        **session: server, port, and what else open_session takes.

    Returns:
        The receipt.

    Raises:
        SMTPDeliveryUnknown: The message may have been sent. All the others
            mean that it was not.
        SMTPUsageError, SMTPMessageError, SMTPConnectError,
            SMTPServerDisconnected, SMTPProtocolError, SMTPNotSupportedError,
            SMTPAuthenticationError, SMTPRecipientsRefused,
            SMTPResponseException: See section 2.
        KeyboardInterrupt: Interrupted; if the message was sent before, its
            Receipt is in the args.
    """
    mail.outcome = None
    try:
        with open_session(password, user or mail.sender, **session) as opened:
            send_envelope(opened, mail)
            return send_message(opened, mail)
    except BaseException as error:
        if isinstance(mail.outcome, SMTPDeliveryUnknown) \
                and error is not mail.outcome:
            raise mail.outcome from error
        if isinstance(error, KeyboardInterrupt) and mail.outcome:
            error.args = (mail.outcome,)
        raise


# ---------------------------------------------------------------------------
# 9  Header fields
#
# A header field is a name, a colon and a value, all in ASCII. Three things
# have to be done to what people write. Characters beyond ASCII become
# encoded-words: "Übung" is =?utf-8?q?=C3=9Cbung?= (RFC 2047). Long fields are
# folded: a line that begins with a space continues the one before it. And
# addresses are taken apart, since "Dr. Bob" <bob@example.org> is a name for
# people and an address for the envelope.
#
# A line break inside a value would let an attacker inject a header field or a
# command. So it is refused wherever it comes from.
# ---------------------------------------------------------------------------

LIKE_ENCODED_WORD = re.compile(r'=\?[^?]*\?[^?]*\?[^?]*\?=')
# Characters that stand for themselves in an encoded-word, RFC 2047 section 5.
Q_SAFE = re.compile('[A-Za-z0-9!*+/-]')


def check_text(what: str, text: str) -> str:
    """Return text of one line of Unicode, or raise SMTPMessageError."""
    if re.search('[\r\n\0\ud800-\udfff]', text):
        raise SMTPMessageError(f'{what} has a line break, a NUL or broken '
                               f'UTF-8: {text[:100]!r}')
    return text


def encode_words(text: str, field: str) -> list[str]:
    """Write text as encoded-words (RFC 2047) for a header field.

    'Übung 1' becomes ['=?utf-8?q?=C3=9Cbung_1?=']: the character set, the
    encoding, the text. In encoding q an octet is = and two hex digits, and a
    space is _; b is base64, which is shorter for other alphabets. Each
    encoded-word holds whole characters, and a space between two of them is
    not part of the text.
    """
    room = min(HEADER_LINE - len(f'{field}: '), ENCODED_WORD)
    if room < ENCODED_WORD // 2:        # then fold() begins a line with it
        room = ENCODED_WORD
    room -= len('=?utf-8?q??=')
    q_forms = [
        '_' if character == ' '
        else character if Q_SAFE.fullmatch(character)
        else ''.join(f'={octet:02X}' for octet in character.encode())
        for character in text]
    if sum(map(len, q_forms)) <= len(text.encode()) * 4 // 3 + 4:
        return [f'=?utf-8?q?{"".join(word)}?='      # people can read q
                for word in group(q_forms, room)]
    return [f'=?utf-8?b?{to_base64("".join(word))}?='
            for word in group(text, room // 4 * 3)]


def format_text(field: str, text: str) -> list[str]:
    """Write free text, such as a subject, as words to put a space between.

    Words of ASCII stay as they are, so that an address in < and > does not
    vanish in an encoded-word; neighbours beyond ASCII are encoded together.
    """
    # Split at single spaces; further ones stay with the word after them.
    words = re.split('(?<! ) ', check_text(field, text)) if text else []
    if LIKE_ENCODED_WORD.search(text) or '' in words:
        return encode_words(text, field)
    # A line has room for 998 octets, so these 60 and 900 certainly fit.
    if all(re.fullmatch(' {0,60}[!-~]{1,900}', word) for word in words):
        return words
    formatted: list[str] = []
    for plain, run in itertools.groupby(
            words, lambda word: bool(re.fullmatch('[!-~]{1,900}', word))):
        formatted += run if plain else encode_words(' '.join(run), field)
    return formatted


# What an address list is made of, RFC 5322 section 3.2.
TOKEN = re.compile(r'''
    (?P<space>   [ \t]+ )
  | (?P<comment> \( (?: [^()\\] | \\. | \( (?: [^()\\] | \\. )* \) )* \) )
  | (?P<quoted>  " [^"\\]* (?: \\. [^"\\]* )* " )
  | (?P<literal> \[ [^][\\]* \] )
  | (?P<atom>    [^][ \t()<>@,:;"\\]+ )
  | (?P<special> [<>@,:;] )
''', re.VERBOSE)
ATOM = r'[^\x00-\x20\x7f()<>\[\]:;@\\,."]+'     # RFC 5322 3.2.3, RFC 6532
DOT_ATOM = re.compile(rf'{ATOM}(?:\.{ATOM})*')


def tokenize(text: str) -> Iterator[Token]:
    """Yield the tokens of an address list, or raise ValueError."""
    position = 0
    while position < len(text):
        found = TOKEN.match(text, position)
        if not found:
            raise ValueError(f'{text[position:][:20]} is not closed, or out '
                             'of place')
        kind = str(found.lastgroup)
        if kind != 'space':
            yield found[0] if kind == 'special' else kind, found[0]
        position = found.end()


def unquote(kind: str, text: str) -> str:
    """Return what a quoted string, or any other token, stands for."""
    return re.sub(r'\\(.)', r'\1', text[1:-1]) if kind == 'quoted' else text


def quote(text: str) -> str:
    """Write text as a quoted string (RFC 5322 section 3.2.4)."""
    return '"' + re.sub(r'(["\\])', r'\\\1', text) + '"'


def parse_addr_spec(tokens: Sequence[Token]) -> str:
    """Return an address as RFC 5321 4.1.2 has it, or raise ValueError."""
    kinds = [kind for kind, _ in tokens]
    if kinds[1:] not in (['@', 'atom'], ['@', 'literal']) \
            or kinds[0] not in ('atom', 'quoted'):
        raise ValueError("it is not of the form 'user@host'")
    local, domain = unquote(*tokens[0]), tokens[2][1]
    if not DOT_ATOM.fullmatch(local):
        if kinds[0] != 'quoted' or not local.isprintable():
            raise ValueError('the part before @ is not valid')
        local = quote(local)
    return f'{local}@' + (check_literal(domain) if kinds[2] == 'literal'
                          else encode_domain(domain))


def parse_mailbox(tokens: Sequence[Token]) -> tuple[str, str]:
    """Return the name, or '', and the address, or raise ValueError."""
    comments = [text[1:-1] for kind, text in tokens if kind == 'comment']
    tokens = [token for token in tokens if token[0] != 'comment']
    kinds = [kind for kind, _ in tokens]
    if '<' not in kinds:        # bob@example.org (Bob): an old form of a name
        return ''.join(comments[:1]), parse_addr_spec(tokens)
    if kinds[-1] != '>':
        raise ValueError('< and > do not enclose its address')
    name = tokens[:kinds.index('<')]
    # bob@example.org <bob@example.org> is a name; anything more before the <
    # looks like two addresses without the comma.
    return (parse_addr_spec(name) if ('@', '@') in name
            else ' '.join(unquote(*token) for token in name),
            parse_addr_spec(tokens[len(name) + 1:-1]))


def parse_address_list(text: str) -> list[tuple[str, str]]:
    """Return the names and addresses in a list, or raise ValueError.

    It has mailboxes and groups (RFC 5322 section 3.4), for example
    'Bob <bob@example.org>, Friends: carol@example.com;'. Of a group only its
    members count. A semicolon between addresses, as Outlook writes it, is
    taken for a comma.
    """
    found: list[tuple[str, str]] = []
    mailbox: list[Token] = []
    in_group = False
    for token in [*tokenize(text), (',', ',')]:
        if token[0] == ':' and mailbox and not in_group and all(
                kind in ('atom', 'quoted', 'comment') for kind, _ in mailbox):
            in_group, mailbox = True, []
        elif token[0] not in ',;':
            mailbox.append(token)
        else:
            if any(kind != 'comment' for kind, _ in mailbox):
                found.append(parse_mailbox(mailbox))
            mailbox = []
            in_group = in_group and token[0] != ';'
    if in_group:
        raise ValueError('a group ends with a semicolon')
    return found


def parse_addresses(field: str, *texts: str) -> list[tuple[str, str]]:
    """Return names and addresses of a field, or raise SMTPMessageError."""
    found: list[tuple[str, str]] = []
    for text in texts:
        try:
            found += parse_address_list(check_text(field, text))
        except ValueError as error:
            raise SMTPMessageError(
                f'{field}: "{shorten(text, 100)}" is not a valid address: '
                f'{error}.', step='an address') from None
    return found


def format_addresses(field: str, pairs: Iterable[tuple[str, str]]
                     ) -> list[str]:
    """Write an address list, as words to put a space between.

    A name is written as it is, quoted, or encoded (RFC 5322 section 3.2.5).
    """
    words: list[str] = []
    for name, address in pairs:
        if words:
            words[-1] += ','
        if not name:
            words.append(address)
        elif not re.fullmatch('[ -~]{1,74}', name) or '=?' in name:
            words += [*encode_words(name, field), f'<{address}>']
        elif all(re.fullmatch(ATOM, word) for word in name.split(' ')):
            words += [*name.split(' '), f'<{address}>']
        else:
            words += [quote(name), f'<{address}>']
    return words


def fold(name: str, words: Iterable[str]) -> str:
    """Write a header field, on several lines if it is long, with its CRLF."""
    lines = [f'{name}:']
    for word in words:
        full = len(lines[-1]) + 1 + len(word) > HEADER_LINE
        # Some programs cannot read a first line with only the name.
        if full and (lines[-1] != f'{name}:' or word.startswith('=?')):
            lines.append('')
        lines[-1] += f' {word}'
    return CRLF.join(lines) + CRLF


DAYS = 'Mon Tue Wed Thu Fri Sat Sun'.split()
MONTHS = 'Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec'.split()


def to_local_time(moment: datetime.datetime) -> datetime.datetime:
    """Move a moment to the local zone.

    The system's offset from UTC is used if tzlocal is not installed, does not
    know the zone (as with TZ=UTC+3), or disagrees with the system.
    """
    local = moment.astimezone()
    with contextlib.suppress(ImportError, LookupError, ValueError, OSError):
        import tzlocal
        found = moment.astimezone(tzlocal.get_localzone())
        if found.utcoffset() == local.utcoffset():
            return found
    return local


def import_pytz() -> Any:
    """Return the module pytz, or raise SMTPUsageError."""
    try:
        import pytz
        return pytz
    except ImportError:
        raise SMTPUsageError(
            'the package pytz is missing: python -m pip install pytz',
            exit_code=EXIT_CONFIGURATION) from None


def get_formatted_date(zone: str | None = None) -> str:
    """Write the current time for the Date field (RFC 5322 section 3.3).

    Args:
        zone: A name such as 'Europe/Zurich'; None: the local zone.

    Returns:
        For example 'Mon, 23 Nov 2026 12:00:00 +0100'; the names are English
        wherever the program runs.

    Raises:
        SMTPUsageError: There is no zone of that name, or no pytz.
    """
    now = datetime.datetime.now(datetime.timezone.utc)
    if zone is None:
        now = to_local_time(now)
    else:
        pytz = import_pytz()
        try:
            now = now.astimezone(pytz.timezone(zone))
        except (pytz.UnknownTimeZoneError, ValueError):
            raise SMTPUsageError(
                f'there is no time zone named {zone}; print_all_timezones() '
                'lists them.') from None
    return (f'{DAYS[now.weekday()]}, {now.day:02} {MONTHS[now.month - 1]} '
            f'{now.year} {now:%H:%M:%S} {f"{now:%z}"[:5]}')


def print_all_timezones() -> None:
    """Print the names that get_formatted_date knows, one on each line.

    Raises:
        SMTPUsageError: pytz is not installed.
    """
    print('\n'.join(import_pytz().all_timezones))


# ---------------------------------------------------------------------------
# 10  Parts
#
# SMTP was made for lines of ASCII, at most 998 octets long. A text with other
# characters, and every file, has to be encoded as such lines: in quoted-
# printable, which leaves ASCII readable (é is =C3=A9), or in base64, which
# writes three octets as four characters. Header fields of its own say what a
# part is and how it is encoded (RFC 2045). Files are read a little at a time
# while they are sent, so that a large one takes no memory.
#
# A part is a pair: its header fields, and its content as a list of pieces.
# Every piece of octets ends with CRLF. A file in base64 does not: the CRLF
# before a boundary belongs to the boundary (RFC 2046 section 5.1.1).
# ---------------------------------------------------------------------------

TOO_LONG = re.compile(b'[^\r\n]{%d}' % (MAX_TEXT_LINE + 1))
FILE_BLOCK = 840 * 57           # octets of a file that make about a BLOCK


def normalize_line_ends(octets: bytes) -> bytes:
    """Make each CR, LF or CRLF a CRLF, and end the last line with one."""
    # Each of these is a single pass in C; a regular expression takes longer.
    octets = octets.replace(b'\r\n', b'\n').replace(b'\r', b'\n').replace(
        b'\n', b'\r\n')
    return octets + b'\r\n' * (octets[-1:] not in (b'', b'\n'))


def encode_base64(octets: bytes) -> bytes:
    """Write octets as lines of base64, without a CRLF at the end."""
    base64 = binascii.b2a_base64(octets, newline=False)
    # One call that cuts all the lines is three times as fast as a loop.
    whole, rest = divmod(len(base64), BASE64_LINE)
    return b'\r\n'.join(struct.unpack(
        f'{BASE64_LINE}s' * whole + (f'{rest}s' if rest else ''), base64))


def encode_quoted_printable(octets: bytes) -> bytes:
    """Write lines in quoted-printable, each at most 76 characters long."""
    # Python lets a line grow to 77 when it ends in a blank.
    return re.sub(b'(?m)^(.{74})(=20|=09)\r$', b'\\1=\r\n\\2\r',
                  binascii.b2a_qp(octets))


def make_text_part(text: str, subtype: str = 'plain') -> Part:
    """Make a part of text (RFC 2046 section 4.1).

    It goes as it is if it is ASCII, else in quoted-printable or base64,
    whichever is shorter. CR, LF and CRLF all end a line.
    """
    octets = normalize_line_ends(text.encode())
    encoding, charset = '7bit', 'us-ascii'
    if not octets.isascii() or b'\0' in octets or TOO_LONG.search(octets):
        charset = 'utf-8'
        encoding, octets = min(
            ('quoted-printable', encode_quoted_printable(octets)),
            ('base64', encode_base64(octets) + b'\r\n'),
            key=lambda way: len(way[1]))
    return (fold('Content-Type', [f'text/{subtype};', f'charset={charset}'])
            + fold('Content-Transfer-Encoding', [encoding]), [octets])


def open_file(path: str) -> BinaryIO:
    """Open a regular file, which has a size, or raise SMTPMessageError."""
    try:
        # Stat first: opening a FIFO would block.
        if stat.S_ISREG(os.stat(path).st_mode):
            return open(path, 'rb')
        reason = 'it is not a regular file'
    except (OSError, ValueError) as error:
        reason = getattr(error, 'strerror', None) or str(error)
    raise SMTPMessageError(f'cannot read {path}: {reason}.', step='a file',
                           exit_code=EXIT_FILE)


class Attachment:
    """A file, or octets with a name, sent in base64 (RFC 2045 section 6.8).

    Its length is that of the base64, as on the wire.

    Attributes:
        name: Its name, as the recipient sees it.
    """

    def __init__(self, path: str, octets: bytes | None = None) -> None:
        """Look at a file, which must be readable; or name the octets."""
        self.name = check_text('the file name', os.path.basename(path))
        self._path, self._octets = path, octets
        with self._open() as file:
            self._state = self._look_at(file)

    def _open(self) -> BinaryIO:
        """Open what is to be sent."""
        import io
        return open_file(self._path) if self._octets is None \
            else io.BytesIO(self._octets)

    def _look_at(self, file: BinaryIO) -> tuple[int, ...]:
        """Return size, modification time and inode, to detect changes."""
        if self._octets is not None:
            return (len(self._octets),)
        status = os.fstat(file.fileno())
        return status.st_size, status.st_mtime_ns, status.st_ino

    def __len__(self) -> int:
        """Return the length in base64, with a CRLF between its lines."""
        base64 = (self._state[0] + 2) // 3 * 4
        return base64 + len(CRLF) * max(0, (base64 - 1) // BASE64_LINE)

    def __str__(self) -> str:
        """Return what a transcript shows in place of the base64."""
        return f'({self.name}: {self._state[0]:,} octets, ' \
               f'{len(self):,} in base64)'

    def chunks(self) -> Iterator[bytes]:
        """Yield lines of base64, many at a time.

        Raises:
            SMTPMessageError: The file changed, or can no longer be read.
        """
        left, between = self._state[0], b''
        try:
            with self._open() as file:
                while octets := file.read(min(left, FILE_BLOCK)):
                    left -= len(octets)
                    yield between + encode_base64(octets)
                    between = b'\r\n'
                if not left and not file.read(1) \
                        and self._look_at(file) == self._state:
                    return
            problem = 'it changed while it was sent'
        except OSError as error:
            problem = error.strerror or str(error)
        raise SMTPMessageError(f'cannot read {self._path}: {problem}.',
                               step='a changed file', exit_code=EXIT_FILE)


def format_parameter(name: str, value: str) -> str:
    """Write a parameter (RFC 2231): filename="a.pdf", filename*=utf-8''%C3%A9.

    Encoded-words may not be used in parameters (RFC 2047 section 5). A star
    says that the value is encoded: the character set, two apostrophes (a
    language may be between them), then % and two hex digits for an octet.

    Raises:
        SMTPMessageError: It is too long for a line.
    """
    # Quotes and backslashes are legal here, but not all programs read them.
    if re.fullmatch(r'[A-Za-z0-9_+,=@()\[\].-][A-Za-z0-9_+,=@()\[\]. -]{,58}'
                    r'(?<! )', value):
        return f'{name}="{value}"'
    word = f"{name}*=utf-8''" + ''.join(
        character if re.fullmatch('[A-Za-z0-9._-]', character)
        else ''.join(f'%{octet:02X}' for octet in character.encode())
        for character in value)
    if len(word) >= MAX_TEXT_LINE:
        raise SMTPMessageError(f'the file name is too long: {value[:100]}')
    return word


def make_attachment_part(attachment: Attachment) -> Part:
    """Make a part of a file (RFC 2183)."""
    import mimetypes
    kind, packed = mimetypes.guess_type(f'./{attachment.name}')
    if kind is None or packed or kind.startswith(('message/', 'multipart/')):
        kind = 'application/octet-stream'   # RFC 2045 6.4: those not in base64
    return (fold('Content-Type', [kind])
            + fold('Content-Transfer-Encoding', ['base64'])
            + fold('Content-Disposition', [
                'attachment;', format_parameter('filename', attachment.name)]),
            [attachment])


def make_multipart(subtype: str, parts: Iterable[Part]) -> Part:
    """Put parts together, with a boundary between them (RFC 2046 5.1).

    Args:
        subtype: 'mixed' for a text and its attachments, 'alternative' for
            the same text in several forms, the best one last.
        parts: What to put together.
    """
    boundary = f'=_{os.urandom(12).hex()}'      # no one can guess it
    pieces: list[Any] = []
    for fields, content in parts:
        start = f'{CRLF}--{boundary}{CRLF}{fields}{CRLF}'
        pieces += [start.encode(), *content]
    pieces[0] = pieces[0][len(CRLF):]           # the header ends with one
    pieces.append(f'{CRLF}--{boundary}--{CRLF}'.encode())
    return fold('Content-Type', [f'multipart/{subtype};',
                                 f'boundary="{boundary}"']), pieces


# ---------------------------------------------------------------------------
# 11  The message
#
# A message is header fields, an empty line, and the body. SMTP also needs to
# know who sends it and who receives it: for us these are the addresses in
# From, To, Cc and Bcc. From, To and Cc are in the header too, for people to
# read; Bcc goes into the envelope alone, which is what makes it blind. The
# size is known before the first octet is sent, so that a server can refuse at
# once what it does not accept.
#
# There are two ways to make a message: build_message makes one of what a user
# writes, read_message takes one that another program has finished. Both add
# what must be there (Date, Message-ID) and make every line end a CRLF.
# Neither guesses: an invalid address, an overlong line or characters that a
# header cannot carry are errors.
# ---------------------------------------------------------------------------

FIELD_NAME = re.compile('[!-9;-~]{1,76}')       # RFC 5322 2.2: no colon
OWN_FIELDS = ('from', 'to', 'cc', 'bcc', 'subject', 'date', 'message-id',
              'mime-version', 'content-type', 'content-transfer-encoding',
              'content-disposition', 'resent-bcc')
ADDRESS_FIELDS = ('reply-to', 'sender', 'mail-followup-to',
                  'disposition-notification-to')
SINGLE_FIELDS = ('from', 'subject', 'date', 'in-reply-to', 'references',
                 *ADDRESS_FIELDS)               # at most once: RFC 5322 3.6


def format_own_field(name: str, value: str) -> str:
    """Write a field that the user added, or raise SMTPMessageError."""
    if not FIELD_NAME.fullmatch(name) or name.lower() in OWN_FIELDS:
        raise SMTPMessageError(f'{name!r} is not a valid header field name, '
                               'or a field that smtp.py writes itself.')
    return fold(name, format_addresses(name, parse_addresses(name, value))
                if name.lower() in ADDRESS_FIELDS
                else format_text(name, value))


def make_message_id(sender: str) -> str:
    """Make a Message-ID that no other message has (RFC 5322 3.6.4)."""
    return f'<{os.urandom(16).hex()}@{sender.rpartition("@")[2]}>'


def list_attachments(attachments: Any) -> list[Attachment]:
    """Look at a path, or at a list of paths and of pairs (name, bytes).

    Raises:
        TypeError: It is something else.
        SMTPMessageError: A file cannot be read, or its name cannot be sent.
    """
    if isinstance(attachments, (str, os.PathLike)):
        attachments = [attachments]
    check_type('attachments', attachments, list, tuple)
    found = []
    for item in attachments:
        pair = item if isinstance(item, tuple) else (item, None)
        if len(pair) != 2:
            raise TypeError('attachments has a tuple that is not a pair')
        check_type('a path or name in attachments', pair[0], str, os.PathLike)
        if isinstance(item, tuple):
            check_type('the content in attachments', pair[1], bytes)
        found.append(Attachment(os.fspath(pair[0]), pair[1]))
    return found


def sort_fields(message_info: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return message_info as lists of values, own fields in lower case.

    Raises:
        TypeError: A value is neither a string nor a list of strings.
        SMTPMessageError: A field is given twice that may occur once.
    """
    fields: dict[str, list[str]] = {}
    names = set()
    for name, value in message_info.items():
        values = [value] if isinstance(value, str) else value or []
        check_type(f'message_info[{name!r}]', values, list, tuple)
        for text in values:
            check_type(f'message_info[{name!r}]', text, str)
        lower = name.lower()
        if lower in names or lower in SINGLE_FIELDS and len(values) > 1:
            raise SMTPMessageError(f'the header field {name} is given twice.')
        names.add(lower)
        fields[lower if lower in OWN_FIELDS else name] = list(values)
    return fields


def build_message(message_info: Mapping[str, Any], message_text: str,
                  attachments: Any = (), html: str | None = None) -> Mail:
    """Write a message (RFC 5322).

    Args:
        message_info: 'From', 'To' (a string or a list of strings),
            'Subject', and perhaps 'Cc', 'Bcc', 'Date'; any other key is a
            further header field, several if its value is a list.
        message_text: The text, of any number of lines.
        attachments: A path, or a list of paths and of pairs (name, bytes).
        html: The same text for readers that show HTML, or None.

    Returns:
        The mail: the message, and the envelope that follows from it.

    Raises:
        TypeError: An argument has the wrong type; the error names it.
        SMTPMessageError: It cannot be sent as it is given.
    """
    check_type('message_text', message_text, str)
    check_type('html', html, str, type(None))
    fields = sort_fields(message_info)
    sender, to, cc, bcc = (
        parse_addresses(name, *fields.pop(name.lower(), ()))
        for name in ('From', 'To', 'Cc', 'Bcc'))
    if len(sender) != 1:
        raise SMTPMessageError('From must be exactly one address.',
                               step='no sender')
    if not to + cc + bcc:
        raise SMTPMessageError('no recipient was given.', step='no recipient')
    date = ''.join(fields.pop('date', ())) or get_formatted_date()
    if not re.fullmatch(f'[ -~]{{1,{HEADER_LINE}}}', date):
        raise SMTPMessageError(
            f'Date: {date[:100]!r} is not a short line of ASCII.')
    message_id = make_message_id(sender[0][1])
    header = [('From', format_addresses('From', sender)),
              ('To', format_addresses('To', to)),
              ('Cc', format_addresses('Cc', cc))]
    if not to + cc:
        # An empty group tells readers that there are recipients, but not who.
        header[1] = ('To', ['undisclosed-recipients:;'])
    subject = format_text('Subject', ''.join(fields.pop('subject', ())))
    body = make_text_part(message_text)
    if html is not None:
        body = make_multipart('alternative',
                              [body, make_text_part(html, 'html')])
    files = list_attachments(attachments)
    if files:
        body = make_multipart(
            'mixed', [body, *map(make_attachment_part, files)])
    written = [
        *(fold(name, words) for name, words in header if words),
        fold('Subject', subject), fold('Date', [date]),
        fold('Message-ID', [message_id]),
        *(format_own_field(name, value) for name, values in fields.items()
          for value in values),
        fold('MIME-Version', ['1.0']), body[0], CRLF]
    return Mail(sender[0][1], [address for _, address in to + cc + bcc],
                [''.join(written).encode(), *body[1]], message_id)


def split_message(octets: bytes, source: str) -> tuple[list[str], bytes]:
    """Take a finished message apart: its header fields, and its body.

    Raises:
        SMTPMessageError: It is not a message, or more than one.
    """
    if octets.startswith(b'From '):     # as in a mailbox
        others = re.findall(b'\n\r?\nFrom [^\n]*\n[!-9;-~]+[ \t]*:', octets)
        if others:
            raise SMTPMessageError(
                f'{source} is a mailbox: it holds {len(others) + 1} messages.')
        octets = octets.partition(b'\n')[2]
    end = re.search(b'(?m)^\r?\n', octets)
    place = end.start() if end else len(octets)
    body = normalize_line_ends(octets[place:]) or b'\r\n'
    try:
        # Some editors leave a mark at the beginning of a file.
        header = octets[:place].decode('utf-8-sig').replace(CRLF, '\n')
    except UnicodeDecodeError:
        raise SMTPMessageError(f'the header of {source} is not UTF-8.',
                               step='a header line') from None
    fields: list[str] = []
    for number, line in enumerate(header.split('\n'), 1):
        if re.match('[ \t]', line) and fields and '\r' not in line:
            fields[-1] += line + CRLF
        elif re.match('[!-9;-~]+[ \t]*:', line) and '\r' not in line:
            fields.append(line + CRLF)
        elif line or number == 1:
            raise SMTPMessageError(
                f'line {number} of {source} is not a header field: '
                f'{line[:80]}', step='a header line')
    for what, part in ('header', octets[:place]), ('body', body):
        if TOO_LONG.search(part) or b'\0' in part:
            raise SMTPMessageError(
                f'the {what} of {source} has a NUL, or a line of more than '
                f'{MAX_TEXT_LINE} octets.', step=f'a long {what} line')
    return fields, body


def read_message(octets: bytes, source: str = 'the message',
                 sender: str | None = None, recipients: Sequence[str] = ()
                 ) -> Mail:
    """Take a finished message, as from a mail program, to be sent as it is.

    Bcc is removed, a missing From, Date or Message-ID is added, and line ends
    are made CRLF; all else stays as it is.

    Args:
        octets: The message.
        source: Where it comes from, for errors.
        sender: For the envelope; None: as the header says.
        recipients: For the envelope; none: as the header says.

    Returns:
        The mail: the message, and its envelope.

    Raises:
        SMTPMessageError: It cannot be sent as it is.
    """
    if not octets.strip():
        raise SMTPMessageError(f'{source} is empty.')
    fields, body = split_message(octets, source)
    values: dict[str, list[str]] = {}
    for field in fields:
        name, _, value = field.partition(':')
        values.setdefault(name.strip().lower(), []).append(
            re.sub('[\r\n]', '', value).strip())
    # Resent fields may be there several times (RFC 5322 section 3.6.6).
    if 'resent-from' in values and not (sender and recipients):
        raise SMTPMessageError(
            f'{source} was resent before, so its header does not say clearly '
            'who gets it now.', step='an envelope')

    def find(*names: str) -> list[str]:
        """Return the addresses in header fields."""
        return [address for name in names for _, address
                in parse_addresses(name, *values.get(name.lower(), ()))]

    senders = [sender] if sender else find('From')
    if len(senders) != 1:       # several authors: Sender is the one who sends
        senders = find('Sender')
    if len(senders) != 1:
        raise SMTPMessageError(f'{source} has no usable From.',
                               step='no sender')
    recipients = recipients or find('To', 'Cc', 'Bcc')
    if not recipients:
        raise SMTPMessageError(f'{source} names no recipient.',
                               step='no recipient')
    message_id = values.get('message-id', [make_message_id(senders[0])])[0]
    added = {'From': senders[0], 'Message-ID': message_id,
             'Date': '' if 'date' in values else get_formatted_date()}
    header = [field for field in fields if not re.match(
        r'(resent-)?bcc[ \t]*:', field, re.IGNORECASE)]
    header += [fold(name, [value]) for name, value in added.items()
               if name.lower() not in values]
    return Mail(senders[0], recipients, [''.join(header).encode(), body],
                message_id)


def smtp_send(password: str, message_info: Mapping[str, Any],
              message_text: str, *, attachments: Any = (),
              html: str | None = None, **session: Any) -> Receipt:
    """Send an e-mail.

    Args:
        password: The password of the account that sends, or the access token
            if auth is 'xoauth2'.
        message_info: The header: see build_message.
        message_text: The text, of any number of lines.
        attachments: A path, or a list of paths and of pairs (name, bytes).
        html: The same text for readers that show HTML, or None.
        **session: user, and what else deliver and open_session take: server,
            port, tls, ca_file, ehlo, timeout, auth, transcript.

    Returns:
        The receipt, with the server's reply and the Message-ID.

    Raises:
        SMTPDeliveryUnknown: The message may have been sent.
        SMTPException: It was not sent; deliver lists the kinds.
        TypeError: An argument has the wrong type; the error names it.
    """
    mail = build_message(message_info, message_text, attachments, html)
    return deliver(mail, password, **session)


# ---------------------------------------------------------------------------
# 12  Advice
#
# An error says what happened. This section says what it means, and who can
# act: you, your administrator, or no one: wait. Every row of the tables was
# made for a reply, or an error, that people really meet. A pattern is looked
# for in the step and the words of an error, and the first match wins: the
# sentence decides, then the step, then the number.
# ---------------------------------------------------------------------------

# For a refusal, such as 'RCPT: 550 5.1.1 User unknown'.
REFUSALS = (
    ('disabled for the tenant', 'Your administrator: turn on authenticated '
     'SMTP: Set-CASMailbox ADDRESS -SmtpClientAuthenticationDisabled $false'),
    ('disabled for the mailbox', 'Your administrator: turn on "Authenticated '
     'SMTP" for it (admin center: Active users, Mail, Manage email apps).'),
    ('security defaults', 'Your administrator: the security defaults forbid '
     'passwords. Use a token (--auth xoauth2), or ask for an exception.'),
    ('meet the criteria', 'Your administrator: conditional access, or another '
     "policy, forbids this login; the user's sign-in log says which."),
    ('basic authentication is', 'You: this server no longer accepts '
     'passwords. Use a token (--auth xoauth2).'),
    ('application-specific|authorization code|bad auth', 'You: make an app '
     'password in the settings of this account, and use it as the password.'),
    ('web browser|use web', 'You: log in with a web browser, and confirm that '
     'it is you. Then try again.'),
    ('^AUTH XOAUTH2: 5', 'You: get a new token, for this user and the scope '
     'that sends mail (https://outlook.office.com/SMTP.Send). If that does '
     'not help, authenticated SMTP may be off for the mailbox.'),
    ('^AUTH.*: (504|334)', 'You: the server does not accept this way to log '
     'in. Try another --auth.'),
    (r'^AUTH.*5\.7\.3\b', 'You: check user name (-u) and password. If they '
     'are right, authenticated SMTP may be off for the mailbox.'),
    ('^AUTH.*: 5', 'You: check user name (-u; default: the address of --from) '
     'and password. With two-step login, use an app password or a token.'),
    ('submissionquota|daily (user |sending )*limit|send limit|credits',
     'Wait: you have sent as much as your provider allows for now.'),
    ('outboundspam', 'You: your account looks like a source of spam. Change '
     'its password, and ask your administrator to release it.'),
    ('bad outbound|traffic not accepted', 'Your administrator: this account, '
     'or the organization, looks like a source of spam, and must be released.'
     ),
    ('blocked using.*error:', 'Wait: their server cannot query its blocklist. '
     'Try again later, or contact them some other way.'),
    ('security issue', 'You: the server does not accept this kind of '
     'attachment. Send a link.'),
    (r'link \[|\bdbl\.|surbl|^the final dot: 5.*(unsolicited|spm|content '
     'filter|:blocked)', 'You: something in the text looks like spam.'),
    ('blocked using|block ?list|black ?list|blocked - see', 'Your '
     'administrator: your network is on a blocklist of spam senders.'),
    (r'\b(spf|dkim|dmarc)\b', 'You: the domain of --from lets only certain '
     'servers send its mail. Use one of them, or another --from.'),
    ('not logged in|authentication required|smtp auth|not authenticated|'
     'relay(ing)? (access )?(denied|not permitted)|to relay|: 530|not allowed '
     'to this', 'You: the server accepts mail only from users who log in. '
     'Leave out --auth none and --tls none, and use --port 587.'),
    ('send ?as|not owned by|to send from|disallowed as|not verified', 'You: '
     'this login may not send as that sender. Use its own address in --from, '
     'or ask for the permission "Send As".'),
    (r'sender (address rejected|verif)|5\.1\.8\b', 'You: the server does not '
     'accept this sender. Check --from.'),
    ('mailbox full; STOREDRV', 'You: your own mailbox is full. Empty it.'),
    (r'over ?quota|quota exceeded|mailbox (is )?full|^RCPT.*(storage|'
     r'[45]\.2\.2\b)', 'Wait: the mailbox of the recipient is full. Contact '
     'them some other way.'),
    ('too large|size exceeds|^(MAIL|the final dot): 552', 'You: the message '
     'is too large. Send fewer attachments, or a link.'),
    ('too many recipients', 'You: send to fewer recipients at a time.'),
    (r'^EHLO: 5|helo command rejected|\(EHLO\)', 'You: the server does not '
     'accept our name. Give another one with --ehlo.'),
    ('^RCPT.*(domain not found|unknown|no such user|not found|'
     r'5\.[14]\.1\b)', 'You: there is no such address. Check it for a typo.'),
    ('gr[ae]y-?list', 'Wait: the server greylists: it accepts mail only from '
     'senders who try again. Send the same in a quarter of an hour.'),
    (r'TLS 1\.0', 'Your administrator: smtp.py has TLS 1.2, which the server '
     'wants, but something in between, such as a proxy, does not.'),
    ('^[^:]*: 4', 'Wait: the problem is temporary; try again later.'),
    ('^[^:]*: 5', 'You: the refusal is permanent; sending the same again will '
     'not help.'),
)
# For any other error: its class, step and problem.
FAILURES = (
    ('^SMTPDeliveryUnknown', 'You: check whether it has arrived before you '
     'send it again; it might be delivered twice.'),
    ('the look-up', 'You: check the spelling of --server (the port goes to '
     '--port), and that this computer is online.'),
    ('^SMTPConnect.*office365', 'You: this network may block port 587, and '
     'Office 365 has no other. Try another network.'),
    ('^SMTPConnect', 'You: check --server, --port and your network. Many '
     'networks block port 25, some 587 too; then --port 465 may work.'),
    ('^SMTPServerDisconnected: the conn', 'You: a server that says nothing '
     'may wait for TLS (--tls implicit, port 465). Nothing was sent.'),
    ('^SMTPServerDisconnected', 'Wait: the message was not completed, so no '
     'one got it. It is safe to try again.'),
    ('mismatch', 'You: check --server. Someone may be intercepting the '
     'connection; nothing secret was sent.'),
    ('self.signed|issuer', 'You: this computer does not trust the authority '
     'that signed it. Someone may be intercepting the connection (some '
     'antivirus programs do). To trust your own authority, use --ca-file.'),
    ('certificate of', 'Your administrator: it, or one above it, must be '
     'replaced; or the clock of this computer is wrong.'),
    ('WRONG_VERSION|RECORD|PACKET', 'You: what the server sent is not TLS. '
     '--tls starttls goes with port 587, implicit with 465.'),
    ('TLS failed', 'Your administrator: the TLS of the server is outdated or '
     'not safe; it must be updated.'),
    ('^SMTPProtocol', 'You: check that --server and --port are those of a '
     'mail server, and that --tls fits the port.'),
    (': STARTTLS', 'You: use port 587 or 465. If the server does offer '
     'STARTTLS, someone may be removing it on this network.'),
    ('^SMTPNotSupportedError: AUTH', 'You: see --auth; for a server that '
     'wants no login, use --auth none.'),
    ('SMTPUTF8', 'You: use addresses in plain ASCII, and encoded-words.'),
    (': an address', "You: write 'user@host' or 'Name <user@host>', with "
     'commas between several; a name with a comma needs "quotes". With '
     '--message, --from and --to replace the addresses in the header.'),
    (': no sender', 'You: give the sender with --from.'),
    (': no recipient', 'You: name the recipients with --to, --cc or --bcc.'),
    (': an envelope', 'You: give --from and --to.'),
    (': a long header', 'You: let your mail program fold it.'),
    (': a long body|8BITMIME', 'You: let your mail program write it in '
     'quoted-printable or base64.'),
    (': MAIL', 'You: attachments grow by 37 % in transit. Send a link.'),
    (': a header line', 'You: a message begins with its header fields, in '
     'ASCII or UTF-8, and an empty line ends them.'),
    (': a long line', 'You: give it as an option, or the text with --body '
     '@FILE or a pipe.'),
    ('^SMTPUsageError: :', "You: 'smtp.py --help' lists the options."),
)


def advise(error: SMTPException) -> str:
    """Return who can act after an error, and what to do; or ''."""
    table: Iterable[tuple[str, str]] = FAILURES
    words = f'{type(error).__name__}: {error.step}: {error.problem}'
    if isinstance(error, SMTPResponseException):
        table = REFUSALS
        step = re.sub('^([A-Z]+) (?!LOGIN|PLAIN|XOAUTH2).*', r'\1', error.step)
        words = f'{step}: {error.reply.code} {shorten(error.reply.text)}'
    return next((advice for pattern, advice in table
                 if re.search(pattern, words, re.IGNORECASE)), '')


# ---------------------------------------------------------------------------
# 13  The command line
#
# Whatever the program needs to know can be given as an option, except the
# password: other users can read the command line of every process. What is
# missing is asked for on standard error, so that standard output holds the
# result and nothing else; the password is asked on the terminal itself, even
# if a pipe brings the text, and is not shown.
# ---------------------------------------------------------------------------

SESSION_OPTIONS = ('server', 'port', 'tls', 'ca_file', 'ehlo', 'timeout',
                   'auth')
EPILOG = """examples:
  smtp.py -f alice@example.com -t bob@example.org -s Lunch --body 'At noon?'
  smtp.py --check -f alice@example.com            is my login right?
  smtp.py --message mail.eml                      send a complete message

The password comes from --password-command, $SMTP_PASSWORD or a prompt, a
token from $SMTP_ACCESS_TOKEN. $SMTP_SERVER and $SMTP_FROM stand for --server
and --from. Exit code: 0 sent, 74 MAY HAVE BEEN SENT, 75 not sent, try later;
any other: not sent, see README.md."""


def print_result(text: str) -> None:
    """Print the result of a run, or raise OSError."""
    if sys.stdout is None:
        raise OSError('standard output is closed')
    print(text, end='', flush=True)


class Parser(argparse.ArgumentParser):
    """An argument parser that raises our errors."""

    def error(self, message: str) -> NoReturn:
        """Raise SMTPUsageError, which becomes a verdict."""
        raise SMTPUsageError(re.sub(
            '.*--pass(?!word-c).*', 'a password is never an option: see '
            '$SMTP_PASSWORD and --password-command', message) + '.')

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print the help or the version, or say why that is not possible."""
        print_result(message)


def parse_seconds(text: str, most: int = MAX_TIMEOUT) -> float:
    """Read a number above 0, or raise ArgumentTypeError."""
    if not re.fullmatch(r'[0-9]*\.?[0-9]+', text) \
            or not 0 < float(text) <= most:
        # Without the text: to other programs -p is the password.
        raise argparse.ArgumentTypeError(f'not a number from 1 to {most}')
    return float(text)


def parse_port(text: str) -> int:
    """Read a port, or raise ArgumentTypeError."""
    return int(parse_seconds(text.replace('.', '?'), 65535))


def parse_ehlo_name(text: str) -> str:
    """Read a host name or address literal, or raise ArgumentTypeError."""
    try:
        return check_literal(text) if text[:1] == '[' else encode_domain(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f'{text!r}: {error}') from None


def parse_header(text: str) -> tuple[str, str]:
    """Read a header field that has no option, or raise ArgumentTypeError."""
    name, colon, value = text.partition(':')
    if not colon or name.lower() in OWN_FIELDS:
        raise argparse.ArgumentTypeError(
            f'{text!r} has no colon, or is a field that smtp.py writes itself')
    return name, value.strip(' ')


def make_parser() -> Parser:
    """Make the parser of the command line."""
    parser = Parser(
        prog='smtp.py', allow_abbrev=False, epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description='Send an e-mail by SMTP. What is not given is asked for.')
    add = parser.add_argument_group('the message').add_argument
    add('recipients', nargs='*', metavar='ADDRESS', help='the same as --to')
    add('-f', '--from', dest='sender', metavar='ADDRESS',
        default=os.environ.get('SMTP_FROM'),
        help="'user@host' or 'Name <user@host>'")
    for short, name in ('-t', '--to'), ('-c', '--cc'), ('-b', '--bcc'):
        add(short, name, metavar='ADDRESS', action='append', default=[],
            help='separate several by commas, or repeat the option')
    add('-s', '--subject', metavar='TEXT')
    add('--body', metavar='TEXT|@FILE|-',
        help='the text; @FILE reads it from a file, - from standard input')
    add('--html', metavar='TEXT|@FILE', help='the same text in HTML')
    add('-a', '--attach', metavar='FILE', action='append', default=[],
        help='may be repeated')
    add('-H', '--header', metavar="'NAME: VALUE'", action='append', default=[],
        type=parse_header, help='a further header field; may be repeated')
    add('--message', metavar='FILE|-', help='send a complete message (.eml) '
        'to its To, Cc and Bcc, or to ADDRESS; Bcc is removed')
    # Callers of sendmail say -i or -oi: accepted, and ignored.
    add('-i', action='store_true', help=argparse.SUPPRESS)
    add('-o', help=argparse.SUPPRESS)
    add = parser.add_argument_group('the server').add_argument
    add('--server', metavar='HOST', help='default: %(default)s',
        default=os.environ.get('SMTP_SERVER') or SMTP_SERVER)
    add('-p', '--port', metavar='N', type=parse_port, default=SMTP_PORT,
        help='default: %(default)s')
    add('--tls', choices=TLS_WAYS,
        help='default: starttls, implicit on port 465; none never logs in')
    add('--ca-file', metavar='FILE',
        help='trust the authorities in this PEM file')
    add('--ehlo', metavar='NAME', type=parse_ehlo_name,
        help='the name to give in EHLO')
    add('--timeout', metavar='SECONDS', type=parse_seconds,
        help='for each reply; default: 60, and 600 for the last one')
    add = parser.add_argument_group('the login').add_argument
    add('-u', '--user', metavar='NAME', default='',
        help='default: the address of --from')
    add('--auth', default='auto', type=str.lower, choices=AUTH_WAYS,
        help='default: XOAUTH2 with a token, else LOGIN or PLAIN')
    add('--password-command', metavar='COMMAND',
        help='the first line of its output is the password or token')
    add = parser.add_argument_group('what is shown, and how far to go'
                                    ).add_argument
    for names, text in (
            ('-v --verbose', 'the transcript, on standard error'),
            ('--explain', 'the transcript, with each step explained'),
            ('--step', 'the transcript, and you are asked for each command'),
            ('--check', 'log in, try the recipients, send nothing'),
            ('-n --dry-run', 'print the message, send nothing')):
        add(*names.split(), action='store_true', help=text)
    add('--version', action='version', version=f'smtp.py {__version__}')
    return parser


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line, and reject what contradicts itself.

    Raises:
        SMTPUsageError: It makes no sense.
    """
    options = make_parser().parse_intermixed_args(arguments)
    finished = options.message is not None
    for wrong, why in (
            (options.dry_run and (options.check or options.step),
             '--dry-run does not connect: it excludes --check and --step.'),
            (options.tls == 'none' and (options.password_command is not None or
                                        options.auth not in ('auto', 'none')),
             '--tls none never logs in: without encryption anyone on the '
             'network could read the password.'),
            (options.html is not None and options.body is None,
             '--html needs --body: some mail readers and many spam filters '
             'want a plain-text version too.'),
            (finished and (options.attach or options.header or not (
                options.subject is options.body is options.html is None)),
             '--message sends a complete message: subject, text and files '
             'are in it.'),
            (options.step and not is_terminal(sys.stdin),
             '--step needs a terminal to read commands from.')):
        if wrong:
            raise SMTPUsageError(why)
    options.to = [*options.recipients, *options.to]
    return options


def say(text: str) -> None:
    """Print lines for the user on standard error, if that is possible."""
    with contextlib.suppress(OSError, ValueError):
        print('\n'.join(map(escape, text.split('\n'))), file=sys.stderr,
              flush=True)


def note(text: str) -> None:
    """Print a note, which does not belong to the session."""
    say(f'smtp.py: note: {text}')


def describe(error: SMTPException) -> str:
    """Return an error and its advice, as the user sees them."""
    import textwrap
    return f'{error}\n' + textwrap.fill(
        advise(error), 79, break_on_hyphens=False, break_long_words=False)


def decode_text(octets: bytes) -> str:
    """Read octets as UTF-8, or as UTF-16 if they begin with its mark.

    A log may have one odd octet in it: what is not UTF-8 is read as Latin-1.
    """
    if octets.startswith((b'\xff\xfe', b'\xfe\xff')):
        return octets.decode('utf-16', 'replace')
    text = octets.decode('utf-8-sig', 'surrogateescape')
    if not text.isascii() and re.search('[\udc80-\udcff]', text):
        note('what is not UTF-8 in the text was read as Latin-1.')
    return text.translate({0xdc00 + octet: octet for octet in range(256)})


def ask(label: str, option: str, check: Callable[[str], Any]) -> str:
    """Ask for an option until the check accepts it, or raise SMTPUsageError.
    """
    while is_terminal(sys.stdin):
        answer = read_typed_line(f'{label}: ')
        if not answer:
            break
        try:
            text = decode_text(answer).strip('\r\n')
            check(text)
            return text
        except SMTPMessageError as error:
            say(describe(error))
    raise SMTPUsageError(f'{option} is missing, and no one can be asked.')


def run_password_command(command: str) -> str:
    """Return the first line that a command prints; no shell is involved.

    Raises:
        SMTPUsageError: It failed.
    """
    import shlex
    import subprocess
    import tempfile
    with tempfile.TemporaryFile() as out:
        try:
            # A file, not a pipe: a process that the command leaves in the
            # background could hold a pipe open forever.
            code = subprocess.call(shlex.split(command) or [''], stdout=out,
                                   stdin=subprocess.DEVNULL)
            out.seek(0)
            secret = out.readline().decode().rstrip('\r\n')
            if secret and code == 0:
                return secret
            problem = f'exit code {code}, first line printed: ' \
                f'{len(secret)} characters'
        except (OSError, ValueError) as error:
            problem = 'it printed what is not UTF-8' if isinstance(
                error, UnicodeError) else str(error)
    name = ''.join(command.split()[:1])     # its arguments may be long
    raise SMTPUsageError(f'--password-command failed: {name}: {problem}.',
                         step='the command', exit_code=EXIT_CONFIGURATION)


def ask_password(prompt: str) -> str:
    """Ask for the password on the terminal, without showing it.

    Raises:
        SMTPUsageError: There is no terminal, no answer, or a cut one.
    """
    import getpass
    import warnings
    password = ''
    with contextlib.suppress(EOFError, OSError, UnicodeError,
                             getpass.GetPassWarning), \
            warnings.catch_warnings():
        warnings.simplefilter('error', getpass.GetPassWarning)
        while not password:
            password = getpass.getpass(escape(prompt))
        if len(password.encode()) < TERMINAL_LINE - 1:
            return password
    raise SMTPUsageError(
        'there is no terminal to ask for the password on, no answer in UTF-8, '
        'or one that the terminal may have cut: use $SMTP_PASSWORD or '
        '--password-command; or --auth none if the server wants no login.')


# ---------------------------------------------------------------------------
# 14  The program
#
# What is missing is asked for in the order in which a letter is written. Text
# that was typed or piped is never lost: if it was not sent it is kept in a
# file that only its author can read. The last word is the verdict: sent, not
# sent, or may have been sent; the exit code says the same to a script.
#
# A `draft` has what must survive an error: `lines`, the octets that were typed
# or piped, as far as they came; `ending`, of the file to keep them in; and
# `mail`, whose outcome decides about the verdict.
# ---------------------------------------------------------------------------


def read_text(option: str, value: str) -> str:
    """Return the text of an option: itself, or that of a file after @."""
    if value.startswith('@'):
        with open_file(value[1:]) as file:
            return decode_text(file.read())
    if os.path.isfile(value):
        note(f'to send the text of that file, use {option} @{value}.')
    return value


def read_pipe(draft: argparse.Namespace) -> bytes:
    """Read standard input to its end, into the draft."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        # It may be shared with a program that made it non-blocking.
        os.set_blocking(sys.stdin.fileno(), True)
    while sys.stdin and (octets := os.read(sys.stdin.fileno(), BLOCK)):
        draft.lines.append(octets)
    return b''.join(draft.lines)


def type_text(draft: argparse.Namespace) -> str:
    """Let the user type the text, up to a line that holds only a dot."""
    line = read_typed_line('Text, ended by a line with only a dot:\n')
    while line and line.rstrip(b'\r\n') != b'.':
        draft.lines.append(line)
        line = read_typed_line('')
    if not draft.lines:
        note('the text is empty.')
    return decode_text(b''.join(draft.lines))


def find_sender(text: str) -> str:
    """Return the one address in From, or raise SMTPMessageError."""
    found = parse_addresses('From', text)
    if len(found) != 1:
        raise SMTPMessageError('From must be exactly one address.',
                               step='no sender')
    return found[0][1]


def find_recipients(options: argparse.Namespace) -> list[str]:
    """Return the recipients that the command line names."""
    return [address for field in ('To', 'Cc', 'Bcc') for _, address
            in parse_addresses(field, *getattr(options, field.lower()))]


def compose(options: argparse.Namespace, draft: argparse.Namespace) -> Mail:
    """Make a mail of the options, and ask for what is missing.

    Raises:
        SMTPUsageError: Something is missing, and no one can be asked.
        SMTPMessageError: It cannot be sent as it is given.
    """
    text = html = None
    if options.body not in (None, '-'):
        text = read_text('--body', options.body)
    elif not is_terminal(sys.stdin):
        text = decode_text(read_pipe(draft))
        if not text and options.body is None:
            raise SMTPUsageError('standard input is empty: give --body.')
    if options.html is not None:
        html = read_text('--html', options.html)
    list_attachments(options.attach)
    options.sender = options.sender or ask('From', '--from', find_sender)
    find_sender(options.sender)
    if not find_recipients(options):
        options.to = [ask('To', '--to', lambda answer: build_message(
            {'From': options.sender, 'To': answer}, ''))]
    if options.subject is None:
        options.subject = ask('Subject', '--subject', str)
    info: dict[str, Any] = {
        'From': options.sender, 'To': options.to, 'Cc': options.cc,
        'Bcc': options.bcc, 'Subject': options.subject}
    names: dict[str, str] = {}
    for name, value in options.header:
        info.setdefault(names.setdefault(name.lower(), name), []).append(value)
    if text is None:
        build_message(info, '', options.attach, html)   # before the typing
        text = type_text(draft)
    return build_message(info, text, options.attach, html)


def gather(options: argparse.Namespace, draft: argparse.Namespace) -> Mail:
    """Return the mail that the options ask for, or its envelope only.

    Raises:
        SMTPUsageError: Something is missing, and no one can be asked.
        SMTPMessageError: It cannot be sent as it is given.
    """
    if options.message is None and not options.check:
        return compose(options, draft)
    recipients, source = find_recipients(options), options.message
    if source is None and not options.sender and (recipients or not (
            options.user or 'none' in (options.tls, options.auth))):
        options.sender = ask('From', '--from', find_sender)
    sender = find_sender(options.sender) if options.sender else ''
    if source is None:
        return Mail(sender, recipients)
    if source == '-':
        draft.ending, source = '.eml', 'standard input'
        return read_message(read_pipe(draft), source, sender, recipients)
    with open_file(source) as file:
        return read_message(file.read(), source, sender, recipients)


def find_secret(options: argparse.Namespace, account: str
                ) -> tuple[str, bool]:
    """Return the password or token, or '', and whether it was typed.

    With a token, options.auth becomes 'xoauth2'.
    """
    if 'none' in (options.tls, options.auth):
        if options.password:
            note('there is no login, so $SMTP_PASSWORD is not used.')
        return '', False
    if options.password_command is not None:
        return run_password_command(options.password_command), False
    if options.token and options.auth in ('auto', 'xoauth2'):
        options.auth = 'xoauth2'
        return options.token, False
    prompt = f'Password for {account} at {options.server}: '
    return options.password or ask_password(prompt), not options.password


def submit(options: argparse.Namespace, mail: Mail, account: str,
           secret: str) -> str:
    """Send a mail, or check whether that would work; return what to print."""
    shown = options.verbose or options.explain or options.step
    transcript = Transcript(sys.stderr if shown else None,
                            explain=options.explain, step=options.step)
    if is_terminal(sys.stderr) and os.environ.get('TERM') != 'dumb':
        transcript.meter = sys.stderr
    session = {name: getattr(options, name) for name in SESSION_OPTIONS}
    session['transcript'] = transcript
    if not options.check:
        return str(deliver(mail, secret, user=account, **session))
    with open_session(secret, account, **session) as connection:
        done = f'Login accepted: {account} at {options.server}.' \
            if secret else f'Connection accepted: {options.server}.'
        if mail.recipients:
            send_envelope(connection, mail, data=False)
            done += f' Recipients accepted: {len(mail.recipients)}.'
    return escape(f'{done} Nothing was sent.')


def report(result: str) -> None:
    """Print a result where that is possible: it is true all the same."""
    try:
        print_result(f'{result}\n')
    except OSError:
        say(result)


def run(options: argparse.Namespace, draft: argparse.Namespace) -> None:
    """Do what the options ask for, and print the result, or raise OSError."""
    draft.mail = mail = gather(options, draft)
    if options.dry_run:
        print_result('')        # or say why it is not possible
        sys.stdout.buffer.writelines(mail.chunks())
        sys.stdout.flush()
        return
    account = options.user or mail.sender
    if '@' in account and account.lower() != mail.sender.lower() != '':
        note(f'the login is {account}, but From is {mail.sender}; many '
             'servers refuse that without the permission "Send As".')
    for tries_left in 2, 1, 0:
        secret, typed = find_secret(options, account)
        try:
            result = submit(options, mail, account, secret)
            break
        except SMTPAuthenticationError as error:
            if not typed or not tries_left or error.reply.code != 535:
                raise
            say(f'smtp.py: {describe(error)}')
    report(result)


def keep_text(draft: argparse.Namespace) -> str:
    """Keep what was typed or piped in a file, and return what to say of it."""
    text = b''.join(draft.lines)
    if not text:
        return ''
    import tempfile
    option = '--message ' if draft.ending == '.eml' else '--body @'
    for number, folder in itertools.product(
            ('', *map('_{}'.format, range(2, 100))),
            (os.curdir, tempfile.gettempdir())):
        path = os.path.normpath(os.path.join(folder, time.strftime(
            f'unsent-%Y%m%d-%H%M%S{number}{draft.ending}')))
        # O_EXCL: never over a file, never through a link.
        with contextlib.suppress(OSError), open(os.open(
                path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600),
                'wb') as file:
            file.write(text)
            file.flush()
            return f'\nYour text is kept. To send it, use {option}{path}'
    return ('\nYour text could not be kept in a file. Here it is:\n'
            + text.decode('utf-8', 'backslashreplace'))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        argv: The arguments; None: those of the command line.

    Returns:
        The exit code.
    """
    for stream in sys.stdout, sys.stderr:
        if hasattr(stream, 'reconfigure'):
            stream.reconfigure(errors='backslashreplace')
    # Out of the environment, which other programs inherit.
    password = os.environ.pop('SMTP_PASSWORD', '')
    token = os.environ.pop('SMTP_ACCESS_TOKEN', '').strip()
    draft = argparse.Namespace(lines=[], ending='.txt', mail=None)
    try:
        options = parse_options(argv)
        options.password, options.token = password, token
        run(options, draft)
        return EXIT_OK
    except SMTPDeliveryUnknown as error:
        verdict, code = f'May have been sent: {describe(error)}', \
            error.exit_code
    except SMTPException as error:
        verdict, code = f'Not sent: {describe(error)}', error.exit_code
    except KeyboardInterrupt:
        if is_terminal(sys.stderr):
            say('')             # end the line that was interrupted
        verdict, code = 'Not sent: interrupted.', EXIT_INTERRUPTED
    except OSError as error:
        verdict, code = f'Not sent: {error.strerror or error}.', EXIT_FILE
    except Exception as error:
        # Not the text of a UnicodeError, which quotes all it could not read.
        what = type(error).__name__ if isinstance(error, UnicodeError) \
            else repr(error)
        verdict, code = f'Not sent: a fault of smtp.py, please report it: ' \
            f'{what}', EXIT_BUG
    if draft.mail and isinstance(draft.mail.outcome, Receipt):
        report(str(draft.mail.outcome))     # interrupted when all was done
        return EXIT_OK
    say(f'smtp.py: {verdict}{keep_text(draft)}')
    return code


SIGNALS = [getattr(signal, name)
           for name in ('SIGINT', 'SIGQUIT', 'SIGTERM', 'SIGHUP')
           if hasattr(signal, name)]            # Windows has two of them


def interrupt(*_: object) -> None:
    """Raise KeyboardInterrupt at the first signal, and ignore further ones.

    Keeping the text and printing the verdict must not be disturbed.
    """
    for other in SIGNALS:       # SIG_IGN would still report a pending signal
        signal.signal(other, lambda *_: None)
    raise KeyboardInterrupt


if __name__ == '__main__':
    for handled in SIGNALS:
        if signal.getsignal(handled) != signal.SIG_IGN:     # as under nohup
            signal.signal(handled, interrupt)
    exit_code = main()
    # Not sys.exit: Python would try once more to flush a broken stream, and
    # change the exit code.
    os._exit(exit_code)
