#!/usr/bin/env python3
# /// script
# requires-python = ">=3.9"
# dependencies = ["pytz>=2024.1", "tzlocal>=5.3"]
# ///
"""Send e-mail by speaking SMTP, line by line, over a socket.

This is a whole session with Office 365, as it looks on the wire. `C:` marks
what we, the client, send; `S:` what the server answers; on the right stands
the function below that does it.

    (TCP connection to smtp.office365.com, port 587)        open_socket
    S: 220 smtp.office365.com Microsoft ESMTP MAIL Service  read_greeting
    C: EHLO client.example.com                              say_hello
    S: 250-smtp.office365.com Hello [192.0.2.7]
    S: 250-SIZE 157286400
    S: 250-PIPELINING
    S: 250 STARTTLS
    C: STARTTLS                                             start_tls
    S: 220 2.0.0 SMTP server ready
    (TLS handshake: all that follows is encrypted)
    C: EHLO client.example.com                              say_hello, again
    S: 250-smtp.office365.com Hello [192.0.2.7]
    S: 250-SIZE 157286400
    S: 250-PIPELINING
    S: 250 AUTH LOGIN XOAUTH2
    C: AUTH LOGIN YWxpY2VAZXhhbXBsZS5jb20=                  log_in
    S: 334 UGFzc3dvcmQ6
    C: ********                    (the password, in base64)
    S: 235 2.7.0 Authentication successful
    C: MAIL FROM:<alice@example.com> SIZE=431               send_envelope
    C: RCPT TO:<bob@example.org>
    C: DATA
    S: 250 2.1.0 Sender OK
    S: 250 2.1.5 Recipient OK
    S: 354 Start mail input; end with <CRLF>.<CRLF>
    C: From: alice@example.com                              send_message
    C: To: bob@example.org
    C: Subject: Lunch
    C: Date: Mon, 23 Nov 2026 12:00:00 +0100
    C: (the other header fields, an empty line, the text)
    C: .
    C: QUIT
    S: 250 2.0.0 OK, queued                                 this decides: sent
    S: 221 2.0.0 Service closing transmission channel       say_goodbye

Contents; every name is defined above the place where it is used:

     1  Constants          ports, reply codes, limits, exit codes
     2  Replies            what the server says
     3  Errors             what can go wrong, and whose turn it is then
     4  The transcript     what the user sees of the session
     5  The connection     lines and replies over a socket, TLS
     6  Opening            greeting, EHLO, STARTTLS, EHLO again
     7  Who we are         AUTH LOGIN, AUTH PLAIN, AUTH XOAUTH2
     8  One mail           envelope, message, goodbye
     9  Header fields      encoded-words, addresses, folding, dates
    10  Parts              text, attachments
    11  The message        header fields and parts put together
    12  smtp_send          the whole story
    13  Typing by hand     a session whose commands come from the keyboard
    14  The command line   prompts, options, verdict, main

The words used here, each for one thing only: a *command* is a line that the
client sends; a *reply* is the server's answer, and begins with a *reply code*
of three digits; an *extension* is something that the server offers in its
reply to EHLO; the *envelope* (MAIL and RCPT) says where the *message* goes;
the message is *header fields*, an empty line, and a *body* of one or more
*parts*; a *mechanism* is a way to log in; the *transcript* is what is shown of
a session.

To read on: RFC 5321 (SMTP), 5322 (messages), 3207 (STARTTLS), 4954 (AUTH),
2920 (PIPELINING), 1870 (SIZE), 6152 (8BITMIME), 6531 (SMTPUTF8), 3463
(enhanced status codes), 2045 to 2047 (MIME), 2231 (file names).

Course:  CS2911
Lab:     SMTP
Names:   (the members of the team)
"""

from __future__ import annotations

import argparse
import binascii
import collections
import contextlib
import datetime
import functools
import io
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
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple, NoReturn, TextIO, TypeVar, cast

# ---------------------------------------------------------------------------
# 1  Constants
#
# SMTP is a protocol of lines. Every number that it fixes has its name here:
# the reply codes that we wait for, the lengths that nobody may exceed, and
# how long we wait. The exit codes tell a shell script how the attempt ended;
# their numbers are those of sysexits.h, which mail programs have always used.
# ---------------------------------------------------------------------------

__version__ = '1.0'

SMTP_SERVER = 'smtp.office365.com'
SMTP_PORT = 587             # message submission, RFC 6409
IMPLICIT_TLS_PORT = 465     # submission inside TLS from the start, RFC 8314
SMTP_DOMAINNAME = ''        # our name in EHLO; empty: the name of this host

CRLF = '\r\n'               # ends every line: carriage return, line feed
MASK = '********'           # is shown where a secret was
GREETING = 'the connection'     # what the server's first reply answers
FINAL_DOT = 'the final dot'     # what the one that decides answers

# Reply codes, in the words of RFC 5321 section 4.2.3 and RFC 4954
SERVICE_READY = 220
SERVICE_CLOSING = 221
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
MAX_REPLY_LINE = 8 * 1024   # RFC 5321 says 512; real servers go beyond
MAX_REPLY = 64 * 1024
MAX_REPLY_LINES = 1000
MAX_TEXT_LINE = 998         # RFC 5322 2.1.1, without its CRLF
HEADER_LINE = 76            # RFC 5322 says 78; 76 with encoded-words: RFC 2047
ENCODED_WORD = 75           # RFC 2047 section 2
MAX_LOCAL_PART = 64         # RFC 5321 4.5.3.1.1
MAX_DOMAIN = 255            # RFC 5321 4.5.3.1.2
MAX_ADDRESS = 254           # RFC 5321 4.5.3.1.3, without < and >
BASE64_LINE = 76            # RFC 2045 6.8: 76 characters carry 57 octets
BASE64_LINES = 840          # lines of an attachment sent at once: a BLOCK
BLOCK = 64 * 1024           # octets of the message that share one deadline

# Commands sent before their replies are read. RFC 2920 sets no limit, but if
# the replies filled all buffers on their way to us while our commands filled
# those to the server, both sides would wait for each other for ever.
MAX_GROUP = 100

# Times in seconds
REPLY_TIMEOUT = 60.0            # RFC 5321 says 300; but a person waits here
FINAL_REPLY_TIMEOUT = 600.0     # RFC 5321 4.5.3.2.6
NEXT_ADDRESS_TIMEOUT = 10.0     # for an address while there are others to try
QUIT_TIMEOUT = 5.0
MAX_TIMEOUT = 86400             # a day; the system counts in milliseconds
NOW = 0.0                       # a deadline that has passed: do not wait

EXIT_SENT = 0
EXIT_USAGE = 64                 # the command line
EXIT_BAD_MESSAGE = 65           # an address, a header field, the size
EXIT_NO_INPUT = 66              # a file that cannot be read
EXIT_NO_RECIPIENT = 67          # a recipient refused for good
EXIT_NO_HOST = 68               # no host of that name
EXIT_UNAVAILABLE = 69           # refused for good, or not offered
EXIT_BUG = 70                   # our fault
EXIT_MAY_HAVE_BEEN_SENT = 74
EXIT_TRY_LATER = 75             # surely not sent; later it may work
EXIT_PROTOCOL = 76              # not SMTP, or not to be trusted
EXIT_NO_PERMISSION = 77         # login or permission refused
EXIT_CONFIGURATION = 78         # settings, source of the password
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


# ---------------------------------------------------------------------------
# 2  Replies
#
# The server answers every command with a reply of one or more lines, which
# all begin with the same three digits. The first digit is the verdict: 2 yes,
# 3 yes so far, go on, 4 not now, 5 no. The lines are joined by a hyphen after
# the digits, and the last one has a space there:
#
#     250-smtp.office365.com Hello
#     250 SIZE 157286400
#
# Many servers begin the text with an enhanced status code such as 5.7.139
# (RFC 3463), which says more exactly what the matter is.
# ---------------------------------------------------------------------------

# Three digits in their ranges, then a hyphen or a space and text, or nothing.
REPLY_LINE = re.compile(r'([2-5][0-5][0-9])(?:([ -])(.*))?', re.DOTALL)
ENHANCED_STATUS = re.compile(r'[245]\.[0-9]{1,3}\.[0-9]{1,3}(?![^ ])')


class Reply(NamedTuple):
    """A reply of the server (RFC 5321 section 4.2).

    Attributes:
        code: The three digits as a number, such as 250.
        lines: The text of each line, without the code.
    """

    code: int
    lines: tuple[str, ...]

    @property
    def status(self) -> str:
        """The enhanced status code, such as '5.7.139', or ''."""
        found = ENHANCED_STATUS.match(self.lines[0])
        return found[0] if found else ''

    @property
    def text(self) -> str:
        """The text of all lines, as one."""
        return ' '.join(self.lines)

    def __str__(self) -> str:
        """Return the reply in the form in which it came, line by line."""
        last = len(self.lines) - 1
        return '\n'.join(
            f'{self.code}{" " if number == last else "-"}{line}'.rstrip()
            for number, line in enumerate(self.lines))


def escape(text: str) -> str:
    """Make text safe to print, whoever wrote it.

    Control characters could move the cursor or rename the window, and
    bidirectional ones make a line read backwards; they are shown as Python
    writes them.
    """
    return ''.join(
        character if character.isprintable()
        else character.encode('unicode_escape').decode('ascii')
        for character in text)


class Receipt(NamedTuple):
    """What there is to say about a message that was sent.

    Attributes:
        reply: The reply to the final dot.
        recipients: Their addresses.
        message_id: By which the message can be found again; or ''.
    """

    reply: Reply
    recipients: Sequence[str]
    message_id: str

    def __str__(self) -> str:
        """Return the verdict, on one line."""
        names = ', '.join(self.recipients[:5])
        if self.recipients[5:]:
            names += f' and {len(self.recipients) - 5} more'
        verdict = f'Sent to {names}: {self.reply.code} {self.reply.text}'
        if self.message_id:
            verdict += f' (Message-ID {self.message_id})'
        return escape(verdict)


# ---------------------------------------------------------------------------
# 3  Errors
#
# Whoever sends a mail asks two things of an error: was it sent, and what can
# I do now? So there is one class for each answer to the second question, and
# exactly one of them, SMTPDeliveryUnknown, means that nobody can answer the
# first: the final dot was on its way, and no valid answer to it came. With all
# others the message was surely not sent. A refusal is explained from a table
# of replies that people really meet.
# ---------------------------------------------------------------------------

MAX_SHOWN_REPLY = 160       # characters; the transcript has the rest
ERROR_LINE = 79


def first_sentence(text: str) -> str:
    """Cut a long diagnosis at the end of a sentence, and say that it was."""
    if len(text) <= MAX_SHOWN_REPLY:
        return text
    sentence = re.match(f'(?s)(.{{20,{MAX_SHOWN_REPLY}}}[.;])(?= |$)', text)
    return (sentence[0] if sentence else text[:MAX_SHOWN_REPLY]) \
        + ' ... (-v shows all)'


class SMTPException(Exception):
    """The message was not sent; base class of all errors here.

    Attributes:
        problem: What went wrong, in one sentence.
        details: Lines that say more about it.
        command: The command that failed, masked; '' if there was none.
        reply: The server's Reply, or None.
        advice: What it means, and what to do.
        exit_code: How the program ends.
        may_have_been_sent: True only if nobody can know.
    """

    exit_code = EXIT_BUG
    may_have_been_sent = False
    quotes_reply = True
    advice = ''

    def __init__(self, problem: str, *, details: Sequence[str] = (),
                 command: str = '', reply: Reply | None = None,
                 advice: str = '', exit_code: int | None = None) -> None:
        """Keep what is known; advice and exit code are those of the class."""
        super().__init__(problem)
        self.problem = problem
        self.details = details
        self.command = command
        self.reply = reply
        self.advice = advice or self.advice
        if exit_code is not None:
            self.exit_code = exit_code

    def __str__(self) -> str:
        """Return the problem, the server's reply, and the advice."""
        import textwrap
        said = str(self.reply or '') if self.quotes_reply else ''
        lines = [self.problem, *(f'  {line}' for line in self.details),
                 *(f'  S: {line}' for line in first_sentence(said).split('\n')
                   if line)]
        for paragraph in self.advice.split('\n'):
            lines += textwrap.wrap(paragraph, ERROR_LINE,
                                   break_on_hyphens=False)
        return '\n'.join(escape(line) for line in lines)


class SMTPUsageError(SMTPException):
    """The program was called in a way that makes no sense: call it again."""

    exit_code = EXIT_USAGE
    advice = "'smtp.py --help' lists the options."


class SMTPMessageError(SMTPException):
    """The message cannot be sent as it is: change it."""

    exit_code = EXIT_BAD_MESSAGE


class SMTPConfigurationError(SMTPException):
    """A setting, or the source of the password, is at fault: mend it."""

    exit_code = EXIT_CONFIGURATION


class SMTPConnectError(SMTPException):
    """No connection came about: check name, port and network."""

    exit_code = EXIT_TRY_LATER


class SMTPServerDisconnected(SMTPException):
    """The connection was lost, or the server fell silent: try again later."""

    exit_code = EXIT_TRY_LATER
    advice = ('The message was not completed, so nobody got it, and it is safe '
              'to try again.')


class SMTPProtocolError(SMTPException):
    """What came is not SMTP, or not to be trusted: check server and port."""

    exit_code = EXIT_PROTOCOL
    advice = ('Check that server and port are those of a mail server, and '
              'that --tls fits the port.')


class SMTPNotSupportedError(SMTPException):
    """The server does not offer what is needed: use another way or server."""

    exit_code = EXIT_UNAVAILABLE


class SMTPResponseException(SMTPException):
    """The server understood and refused: its reply says why."""

    exit_code = EXIT_UNAVAILABLE


class SMTPAuthenticationError(SMTPResponseException):
    """The login was refused: check user name, password and settings."""

    exit_code = EXIT_NO_PERMISSION


class SMTPRecipientsRefused(SMTPResponseException):
    """A recipient was refused, so the message went to nobody.

    Attributes:
        refused: The Reply to each address that was refused.
    """

    exit_code = EXIT_NO_RECIPIENT
    quotes_reply = False        # its details quote them all
    refused: Mapping[str, Reply] = {}


class SMTPStopped(SMTPException):
    """The user wanted the session to end here; nothing failed."""

    exit_code = EXIT_SENT


class SMTPDeliveryUnknown(SMTPException):
    """The message may have been sent: ask before you send it again."""

    exit_code = EXIT_MAY_HAVE_BEEN_SENT
    may_have_been_sent = True
    advice = ('The end of the message was on its way, and no valid answer to '
              'it came. Sending it again may deliver it twice: first look '
              'whether it has arrived.')


YOU, ADMINISTRATOR, WAIT = (
    'Your turn', "Your administrator's turn", 'Wait')

# Replies that people really meet: a pattern for "code text <- command", whose
# turn it is, and one thing to do. The first that fits counts.
ADVICE = (
    # Office 365
    ('SmtpClientAuthentication is disabled for the Tenant', ADMINISTRATOR,
     'turn on authenticated SMTP for this mailbox:\nSet-CASMailbox -Identity '
     'ADDRESS -SmtpClientAuthenticationDisabled $false'),
    ('SmtpClientAuthentication is disabled for the Mailbox', ADMINISTRATOR,
     'turn on "Authenticated SMTP" for this mailbox (Microsoft 365 admin '
     'center: Active users, Mail, Manage email apps).'),
    ('security defaults policy', ADMINISTRATOR,
     'the security defaults of the organization forbid passwords here. Use a '
     'token (--auth xoauth2), or have an exception made.'),
    ('did not meet the criteria to be authenticated', ADMINISTRATOR,
     'a policy forbids this login (conditional access, or authentication '
     "policy); the user's sign-in log says which."),
    (r'basic authentication is disabled|^5\d\d 5\.7\.30\b', YOU,
     'this server takes no passwords any more: use a token, with --auth '
     'xoauth2.'),
    ('user credentials were incorrect', YOU,
     'check user name (-u) and password. With two-step login an app password '
     'or a token (--auth xoauth2) is needed.'),
    ('^5[^0].*<- AUTH XOAUTH2', YOU,
     'get a new token, for they expire within hours. It must be for this very '
     'user, and for the scope that sends mail (Office 365: '
     'https://outlook.office.com/SMTP.Send). If it is, authenticated SMTP may '
     'be off for the mailbox.'),
    (r'^535 5\.7\.3\b', YOU,
     'check user name (-u, the whole address) and password. If they are '
     'right, authenticated SMTP may be off for the mailbox.'),
    (r'^504 5\.7\.4\b', YOU,
     'the server does not take this way of logging in: try another --auth.'),
    (r'^5\d\d 5\.(7\.60|2\.252)\b|SendAsDenied', YOU,
     'this login may not send as that sender: put your own address into '
     '--from, or ask for the right "Send As".'),
    (r'^432 4\.3\.2\b', WAIT,
     'a mailbox may have three connections at a time. Try again in a minute.'),
    (r'^421 4\.7\.66\b', ADMINISTRATOR,
     'the server wants TLS 1.2 or later. smtp.py has it, so something on the '
     'way, such as a proxy, has less.'),
    (r'^50\d 5\.5\.[24]\b.*<- EHLO', YOU,
     'the server does not like our name: give it one with --ehlo.'),
    ('SubmissionQuotaExceeded', WAIT,
     'you have sent as much as your provider allows in a day.'),
    (rf'^5\d\d 5\.2\.2\b.*<- {FINAL_DOT}', YOU,
     'your own mailbox is full, where a copy of the message would be kept: '
     'empty it.'),
    # all servers
    (r'^534 5\.7\.9\b|[Aa]pplication-specific password', YOU,
     'this account has two-step login: make an app password in its security '
     'settings, and use that as the password.'),
    (r'^5\d\d 5\.1\.10?\b|(?i:user unknown|no such user)', YOU,
     'there is no such address: look for a typing error.'),
    ('(?i:spamhaus|block ?list|blacklist)', ADMINISTRATOR,
     'your network is on a list of senders of spam.'),
    (r'^5\d\d 5\.7\.5[47]\b|^530|(?i:relay(ing)? (access )?(denied|not permi)'
     r'|unable to relay)', YOU,
     'the server passes mail on only for people who log in: leave out --auth '
     'none and --tls none, and use the port for submission, 587.'),
    (r'^\d\d\d [45]\.2\.2\b.*<- RCPT|(?i:over quota|mailbox (is )?full)', WAIT,
     'the mailbox of the recipient is full. Tell them in another way.'),
    (r'^5\d\d 5\.(3\.4|2\.3)\b|^552(?! 5)', YOU,
     'the message is too large: send fewer attachments, or a link.'),
    ('(?i)gr[ae]y-?list|^45.*(try again|come back).*<- RCPT', WAIT,
     'the server looks whether you come back, as most spammers do not. Send '
     'the same again in a quarter of an hour.'),
    ('^535', YOU,
     'check the user name (-u, else the address of --from) and the password.'),
    ('^4', WAIT, 'the trouble is temporary: try again later.'),
    ('^5', YOU, 'the refusal is final: the same again will not help.'),
)


def advise(command: str, reply: Reply) -> str:
    """Say whose turn it is after a refusal, and what to do."""
    said = f'{reply.code} {reply.text} <- {command}'
    return next((f'{turn}: {action}' for pattern, turn, action in ADVICE
                 if re.search(pattern, said)), '')


def exit_code_of(reply: Reply, otherwise: int = EXIT_UNAVAILABLE) -> int:
    """Choose the exit code that says what a refusal means for the sender.

    Args:
        reply: The reply that ended the attempt.
        otherwise: The exit code if the reply tells nothing special.
    """
    if 400 <= reply.code < 500:
        return EXIT_TRY_LATER
    if reply.code in LOGIN_CODES or reply.status.startswith('5.7.'):
        return EXIT_NO_PERMISSION
    return otherwise


def refusal(command: str, reply: Reply) -> SMTPException:
    """Make the error for a reply that was not hoped for.

    Args:
        command: The command that was answered, masked.
        reply: The reply to it.

    Returns:
        SMTPResponseException if the server refused; SMTPProtocolError if it
        said yes to something else.
    """
    if reply.code < 400:
        return SMTPProtocolError(
            f'the server answered {command} with {reply.code}, which is no '
            'answer to it.', command=command, reply=reply)
    problem = f'the server refused {command}.' if reply.code >= 500 \
        else f'the server cannot do {command} now.'
    too_large = reply.code == EXCEEDED_STORAGE
    return SMTPResponseException(
        problem, command=command, reply=reply,
        advice=advise(command, reply),
        exit_code=exit_code_of(
            reply, EXIT_BAD_MESSAGE if too_large else EXIT_UNAVAILABLE))


# ---------------------------------------------------------------------------
# 4  The transcript
#
# The transcript is the session as the user sees it, in the notation of the
# RFCs: C: before what the client sends, S: before what the server answers.
# The connection reports every line to it, with a mask in the place of each
# secret. What looks like noise, because it is in base64, is shown with its
# meaning beside it: base64 hides nothing. In a lab the transcript also explains
# each stage, in the words of the docstring of the function that is about to do
# it, and waits before each command until everybody has understood.
# ---------------------------------------------------------------------------

# What the digits of a reply code mean: RFC 5321 section 4.2.1, and RFC 4954.
FIRST_DIGIT = {'2': 'yes', '3': 'yes so far, go on', '4': 'not now', '5': 'no'}
SECOND_DIGIT = {'0': 'syntax', '1': 'information', '2': 'the connection',
                '3': 'the login', '5': 'the mail system'}

# The middle of an enhanced status code: RFC 3463 section 3.
SUBJECT = {'1': 'an address', '2': 'a mailbox', '3': 'the mail system',
           '4': 'the network', '5': 'the protocol',
           '6': 'the message itself', '7': 'security or policy'}

# What an extension means. What the server lists: keywords and parameters.
EXTENSION_WORDS = {
    'SIZE': 'messages of {size} (RFC 1870)',
    'PIPELINING': 'several commands may come before their replies (RFC 2920)',
    'STARTTLS': 'the connection can be encrypted (RFC 3207)',
    'AUTH': 'ways to log in (RFC 4954)',
    '8BITMIME': 'bodies may have octets beyond ASCII (RFC 6152)',
    'SMTPUTF8': 'addresses may have letters beyond ASCII (RFC 6531)',
    'ENHANCEDSTATUSCODES': 'replies carry codes like 2.1.5 (RFC 2034)',
    'DSN': 'a note of delivery can be asked for (RFC 3461)',
    'CHUNKING': 'messages may come in counted pieces, BDAT (RFC 3030)',
    'BINARYMIME': 'bodies may be any octets at all (RFC 3030)',
    'HELP': 'the command HELP is known (RFC 5321)',
    'VRFY': 'the command VRFY asks whether an address exists (RFC 5321)',
    'ETRN': 'the command ETRN asks for mail that waits (RFC 1985)',
}
Extensions = Mapping[str, str]

# What is known after each stage at which --quit-after may end the session.
REACHED = {'connect': 'the server is there', 'ehlo': 'the server answers',
           'tls': 'the certificate is good', 'auth': 'the login is accepted',
           'mail': 'the sender is accepted',
           'rcpt': 'all recipients are accepted'}

COLOURS = {'C:': '\x1b[36m', 'S:': '\x1b[33m', '--': '\x1b[2m'}
NO_COLOUR = '\x1b[0m'
MERMAID_ENTITIES = {ord(character): f'#{ord(character)};'
                    for character in '#;<>{}"'}
METER_FROM = 1_000_000          # octets; smaller messages need no meter
METER_INTERVAL = 0.1            # seconds


def to_base64(text: str) -> str:
    """Write text as base64 of its UTF-8 octets: 'alice' is 'YWxpY2U='."""
    return binascii.b2a_base64(text.encode(), newline=False).decode('ascii')


def from_base64(text: str) -> str:
    """Read base64 of UTF-8 text; '' if that is not what it is."""
    try:
        return binascii.a2b_base64(text).decode()
    except ValueError:
        return ''


def size_in_words(limit: str) -> str:
    """Say what the parameter of SIZE means."""
    if not re.fullmatch('[0-9]{1,18}', limit) or int(limit) == 0:
        return 'any size'
    octets = int(limit)
    return f'up to {octets / 2**20:.0f} MB' if octets >= 2**20 \
        else f'up to {octets / 2**10:.0f} kB'


def is_terminal(stream: TextIO | None) -> bool:
    """Tell whether a person sits at the other end of a stream."""
    return stream is not None and not stream.closed and stream.isatty()


def abandon(stream: TextIO | None) -> None:
    """Write no more to a stream that takes nothing; nor may Python, later."""
    for name in ('stdout', 'stderr'):
        if getattr(sys, name) is stream:
            setattr(sys, name, None)


class Transcript:
    """Show a session while it happens; the user may also stop it here.

    Attributes:
        stream: Where the lines go, or None.
        explain: Whether each stage is explained before it runs.
        ask: Asks the user something, before each command; or None.
        quit_after: The stage after which to stop, or ''.
        meter: Where to show how far the message has gone, or None.
        echo: Whether lines of the client are shown; a user who types them
            has them on the screen already.
        secrets: Texts that are shown nowhere, even if the server repeats them.
        events: Pairs of mark and text, for a diagram.
        receipt: Of the latest message that was sent, or None.
    """

    def __init__(self, stream: TextIO | None = None, *, explain: bool = False,
                 ask: Callable[[str], str] | None = None,
                 quit_after: str = '', meter: TextIO | None = None) -> None:
        """Begin a transcript on the stream."""
        self.stream = stream
        self.explain = explain
        self.ask = ask
        self.quit_after = quit_after
        self.meter = meter
        self.echo = True
        self.secrets: list[str] = []
        self.events: list[tuple[str, str]] = []
        self.receipt: Receipt | None = None
        plain = os.environ.get('NO_COLOR') or os.environ.get('TERM') == 'dumb'
        self._colours = COLOURS if is_terminal(stream) and not plain else {}
        self._narration: list[str] = []
        self._explained: set[tuple[int, str]] = set()
        self._challenged = False
        self._meter_begun = self._meter_due = 0.0

    @property
    def one_by_one(self) -> bool:
        """Whether somebody watches who wants to see question and answer."""
        return self.explain or self.ask is not None

    # Hiding

    def protect(self, secret: str) -> None:
        """Show a secret nowhere, nor its base64 within that of more text."""
        length = len(secret.encode())
        self.secrets += filter(None, [secret, to_base64(secret)])
        # Base64 writes three octets as four letters of six bits, so a secret
        # within a longer text looks different after one or two more octets.
        # Letters that hold bits of its neighbours as well are left out.
        for shift in range(3):
            encoded = to_base64('\0' * shift + secret)
            inner = encoded[(shift * 8 + 5) // 6:(shift + length) * 8 // 6]
            if len(inner) > 3:
                self.secrets.append(inner)

    def hide(self, text: str) -> str:
        """Put the mask in the place of each secret."""
        for secret in self.secrets:
            text = re.sub(re.escape(secret), MASK, text, flags=re.IGNORECASE)
        return text

    # Showing

    def write(self, mark: str, text: str, comment: str = '') -> None:
        """Show one line.

        Args:
            mark: 'C:', 'S:', or '--' for what is no line on the wire.
            text: The line without its end.
            comment: What to say beside it, or ''.
        """
        if self.stream is None:
            return
        beside = f'   # {comment}' if comment else ''
        line = escape(self.hide(f'{mark} {text}{beside}'))
        if mark in self._colours:
            line = f'{self._colours[mark]}{line}{NO_COLOUR}'
        try:
            print(line, file=self.stream, flush=True)
        except (OSError, ValueError):   # nobody reads it: the session goes on
            abandon(self.stream)
            self.stream = None

    def note(self, text: str) -> None:
        """Show what happens beside the lines of the wire, in short lines."""
        text = self.hide(text)
        self.events.append(('--', text))
        if self.stream:
            import textwrap
            for line in textwrap.wrap(text, HEADER_LINE) or ['']:
                self.write('--', line)

    def client(self, line: str) -> None:
        """Show a line that the client sends, secrets masked."""
        login = re.fullmatch('(AUTH LOGIN )?([A-Za-z0-9+/=]+)', line)
        meaning = from_base64(login[2]) if login and (
            login[1] or self._challenged) else ''
        if self.echo:
            self.write('C:', line, meaning)

    def sent(self, lines: Iterable[str]) -> None:
        """Keep for the diagram what was shown, now that it is sent."""
        self.events += [('C:', line) for line in lines]

    def message(self, outline: Iterable[tuple[str, str]]) -> None:
        """Show the message; its outline is made only if somebody looks."""
        for mark, text in outline if self.stream else ():
            self.write(mark, text)

    def server(self, line: str, elapsed: float = 0) -> None:
        """Show a line that the server sent.

        Args:
            line: The line, secrets masked.
            elapsed: Seconds that the reply took, with its last line.
        """
        self.events.append(('S:', line))
        self._challenged = line.startswith(f'{CHALLENGE} ')
        self.write('S:', line, ', '.join(filter(None, [
            from_base64(line[4:]) if self._challenged else '',
            f'{elapsed * 1000:.0f} ms' if elapsed >= 0.001 else ''])))

    # Explaining

    def begin(self, function: Callable[..., Any]) -> None:
        """Say what is about to happen: a docstring, up to its dialogue."""
        if self.one_by_one:
            import inspect
            self._narration = re.split(
                r'\n+(?:[CS]: |Args:)', inspect.getdoc(function) or '')[0].split(
                    '\n\n')
        if self.explain:
            for paragraph in ['', *self._narration]:
                self.note(paragraph)

    def explain_reply(self, command: str, reply: Reply) -> None:
        """Say what the digits of a reply mean, once for each code."""
        if not self.explain:
            return
        if command == FINAL_DOT and reply.code == COMPLETED:
            self.note('From now on the server answers for the message (RFC '
                      '5321 section 6.1).')
        if (reply.code, reply.status) in self._explained:
            return
        self._explained.add((reply.code, reply.status))
        first, second = list(str(reply.code))[:2]
        told = (f'{reply.code}: {FIRST_DIGIT[first]}; it is about '
                f'{SECOND_DIGIT.get(second, "something else")} (RFC 5321 '
                'section 4.2.1).')
        subject = SUBJECT.get(f'{reply.status}.'.split('.')[1])
        if subject:
            told += f' {reply.status}: about {subject} (RFC 3463).'
        if reply.code == CHALLENGE:
            told += ' It is in base64, which is no encryption.'
        self.note(told)

    def explain_extensions(self, new: Extensions, old: Extensions) -> None:
        """Say what the server offers, and what has changed since before."""
        if not self.explain:
            return
        for keyword in [keyword for keyword in new if keyword not in old]:
            words = EXTENSION_WORDS.get(keyword, 'not known to smtp.py')
            size = size_in_words(new[keyword])
            self.note(f'{keyword} {new[keyword]}'.rstrip()
                      + f': {words.replace("{size}", size)}')
        gone = [keyword for keyword in old if keyword not in new]
        if gone:
            self.note(f'No longer offered: {", ".join(gone)}. What was said '
                      'before TLS is forgotten (RFC 3207 section 4.2).')

    # Stopping

    def confirm(self) -> None:
        """Let the user decide whether the command just shown is sent.

        Raises:
            SMTPStopped: The user wants to end here.
        """
        while self.ask is not None:
            try:
                answer = self.ask('-- Enter: send it; ?: explain; q: quit ')
            except EOFError:
                answer = 'q'
            if not answer:
                return
            if answer == '?':
                for paragraph in self._narration:
                    self.note(paragraph)
            elif answer.lower() in ('q', 'quit'):
                self.ask = None
                raise SMTPStopped('you ended the session before this command.')

    def reached(self, name: str) -> None:
        """Stop after a stage, if that was the user's wish.

        Raises:
            SMTPStopped: It was.
        """
        if name == self.quit_after:
            raise SMTPStopped(f'{REACHED[name]}. The session went well up to '
                              f'{name}, and ended there as you wished.')

    # Measuring and drawing

    def progress(self, done: int, total: int) -> None:
        """Show how many octets of a long message the server has taken."""
        now = time.monotonic()
        if self.meter is None or total < METER_FROM:
            return
        self._meter_begun = self._meter_begun or now
        if done >= total:
            print('\r\x1b[K', end='', file=self.meter, flush=True)
        elif now >= self._meter_due:
            self._meter_due = now + METER_INTERVAL
            rate = done / max(now - self._meter_begun, 0.001)
            left = (total - done) / max(rate, 1)
            print(f'\r{done * 100 // total:3} %  {rate / 1e6:6.1f} MB/s  '
                  f'{left:4.0f} s left\x1b[K', end='', file=self.meter,
                  flush=True)

    def diagram(self) -> str:
        """Draw the session as a sequence diagram for Mermaid."""
        drawn = ['sequenceDiagram', '    participant C as Client',
                 '    participant S as Server']
        encrypted = False
        for mark, text in self.events:
            text = escape(text).translate(MERMAID_ENTITIES)
            if mark == '--' and text.startswith('TLS begins'):
                encrypted = True
                drawn += ['    rect rgb(225, 240, 225)',
                          f'    note over C,S: {text}']
            elif mark != '--':
                arrow = 'C->>S' if mark == 'C:' else 'S-->>C'
                drawn.append(f'    {arrow}: {text or " "}')
        return '\n'.join([*drawn, *(['    end'] if encrypted else []), ''])


# ---------------------------------------------------------------------------
# 5  The connection
#
# TCP carries a stream of octets and knows nothing of lines, so this class
# gives us lines: send_line and read_line. Above these two stand send_command
# and read_reply, and with those four the rest of SMTP can be written down
# nearly as it stands in the RFCs. Every wait has a deadline, and whatever the
# server sends is held against the grammar before anyone believes it. The
# class knows lines, replies and TLS, and nothing about mail.
#
# Whoever talks to a server must reckon with three errors:
# SMTPServerDisconnected, it is gone or silent; SMTPProtocolError, it does not
# speak SMTP; SMTPResponseException, it refuses. From section 6 on the
# docstrings name them only where there is more to say.
#
# A server may also lie, or somebody on the way in its name. So a reply counts
# only if it was asked for (refuse_unasked), fits the grammar and comes to an
# end in time (read_reply); what came before TLS is forgotten, and what came
# with the last words before it is an attack (section 6, secure); what is
# shown of it is made harmless (escape) and free of secrets (Transcript.hide);
# and a "yes" counts only where its very code was expected (refusal).
# ---------------------------------------------------------------------------

TLS_PROBLEMS = {                # by the numbers of OpenSSL's X509_V_ERR_...
    9: 'is not valid yet (or the clock of this computer is wrong)',
    10: 'has expired (or the clock of this computer is wrong)',
    18: 'is signed by nobody but itself',
    19: 'is vouched for by an authority that this computer does not know',
    20: 'is vouched for by an authority that this computer does not know',
    21: 'comes without the certificates that would prove it',
    62: 'is for another name',
    64: 'is for another address',
}
OLD_TLS = (f'{ADMINISTRATOR}: the server has only old versions of TLS, which '
           'are not safe: it must be updated.')
TLS_ADVICE = {
    'WRONG_VERSION_NUMBER': f'{YOU}: the server does not begin with TLS on '
    'this port: use --tls starttls (usual on port 587), or port 465.',
    'TLSV1_ALERT_PROTOCOL_VERSION': OLD_TLS,
    'UNSUPPORTED_PROTOCOL': OLD_TLS,
}


def describe_certificate(certificate: Mapping[str, Any]) -> str:
    """Say for whom a certificate is, who issued it, and until when it holds.

    Args:
        certificate: As from ssl.SSLSocket.getpeercert().
    """
    subject, issuer = (
        dict(pair for pairs in certificate.get(field, ()) for pair in pairs)
        for field in ('subject', 'issuer'))
    names = [name for kind, name in certificate.get('subjectAltName', ())
             if kind in ('DNS', 'IP Address')]
    authority = [issuer[key] for key in ('organizationName', 'commonName')
                 if key in issuer]
    return (f'for {", ".join(names[:3]) or subject.get("commonName")}, issued '
            f'by {", ".join(authority) or "nobody"}, valid until '
            f'{certificate.get("notAfter")}')


def untrusted_certificate(sock: ssl.SSLSocket) -> Mapping[str, Any]:
    """Return the certificate that has just been refused, to speak of it.

    The ssl module shows a certificate only once it is trusted; the object
    beneath it, from Python 3.10 on, shows any.
    """
    inner = getattr(sock, '_sslobj', None)
    chain: Any = getattr(inner, 'get_unverified_chain', tuple)()
    return chain[0].get_info() if chain else {}


class Connection:
    """A connection to a server: lines and replies over a socket.

    Attributes:
        transcript: Hears of every line.
        timeout: Seconds for a whole reply to arrive, save the last one.
        final_timeout: Seconds for the reply to the final dot.
        awaited: The commands, masked, whose replies have not been read yet;
            oldest first.
        heard: The lines of the latest reply as they came; those of a Reply
            are masked.
        last_code: The reply code of the latest reply.
    """

    def __init__(self, sock: socket.socket, transcript: Transcript,
                 timeout: float | None = None) -> None:
        """Take over a connected socket; the server speaks first."""
        self.transcript = transcript
        self.timeout = timeout or REPLY_TIMEOUT
        self.final_timeout = timeout or FINAL_REPLY_TIMEOUT
        self.awaited = collections.deque([GREETING])
        self.heard: list[str] = []
        self.last_code = 0
        self._socket = sock
        self._received = b''

    def __enter__(self) -> Connection:
        """Return itself, to be closed at the end of a with statement."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection, whatever happened."""
        self.close()

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

    # When it breaks

    # A method that raises these errors says `raise self._broken(error)`, so that
    # the reader sees at that place that the method ends there.

    def _lost(self, what: str) -> SMTPServerDisconnected:
        """Make the error for a connection that is of no use any more."""
        command = self.awaited[0] if self.awaited else ''
        return SMTPServerDisconnected(
            f'{what} after {command}.' if command else f'{what}.',
            command=command)

    def _broken(self, error: OSError) -> SMTPException:
        """Make the error for what the operating system or TLS reports."""
        if isinstance(error, socket.timeout):
            return self._lost('the server fell silent')
        if isinstance(error, ssl.SSLError) \
                and not isinstance(error, ssl.SSLEOFError):
            return SMTPProtocolError(
                f'the encryption was disturbed: {error.reason or error}.')
        return self._lost(f'the connection was lost ({error.strerror})')

    def _wait_until(self, deadline: float) -> None:
        """Let the next operation of the socket end at a deadline, or NOW."""
        self._socket.settimeout(
            0 if deadline == NOW else max(0.001, deadline - time.monotonic()))

    # Receiving

    def _receive(self, deadline: float) -> None:
        """Add to the buffer what the server sends next.

        Raises:
            BlockingIOError: NOW is the deadline, and nothing has come yet;
                SSLWantReadError means the same.
        """
        try:
            self._wait_until(deadline)
            octets = self._socket.recv(MAX_REPLY_LINE)
        except (BlockingIOError, ssl.SSLWantReadError):
            raise
        except OSError as error:
            raise self._broken(error) from None
        if not octets:
            raise self._lost('the server closed the connection')
        self._received += octets

    def read_line(self, deadline: float) -> str:
        """Read one line, up to its CRLF, and take it out of the buffer.

        Args:
            deadline: When to give up, in seconds of time.monotonic().

        Returns:
            The line without its CRLF.

        Raises:
            SMTPServerDisconnected: It did not come, or not in time.
            SMTPProtocolError: It is too long, or does not end in CRLF.
        """
        while b'\n' not in self._received \
                and len(self._received) <= MAX_REPLY_LINE:
            self._receive(deadline)
        octets, _, rest = self._received.partition(b'\n')
        line = octets.decode('utf-8', 'backslashreplace')
        if len(octets) > MAX_REPLY_LINE:
            raise SMTPProtocolError('the server sent a line without end.')
        if not re.fullmatch('[^\r]*\r', line):
            raise SMTPProtocolError('the server sent a line that does not end '
                                    f'in CRLF: {self._beginning(line)}')
        self._received = rest
        return line[:-1]

    def _beginning(self, line: str) -> str:
        """Return so much of what a server said as fits into an error."""
        return self.transcript.hide(line)[:200]

    def read_reply(self, *expected: int,
                   seconds: float | None = None) -> Reply:
        """Read a whole reply and check it (RFC 5321 section 4.2).

        S: 250-first line
        S: 250 last line

        Args:
            *expected: The reply codes that are welcome; none: all of them.
            seconds: For the whole reply to arrive; None: self.timeout.

        Returns:
            The reply to the oldest awaited command, secrets masked.

        Raises:
            SMTPServerDisconnected: It did not come, or not in time.
            SMTPProtocolError: It is no reply by the grammar, or a success
                that was not expected.
            SMTPResponseException: It refuses, or is a 421.
        """
        began = time.monotonic()
        codes: set[str] = set()
        masked: list[str] = []
        self.heard = []
        octets, more = 0, '-'
        while more == '-':
            line = self.read_line(began + (seconds or self.timeout))
            found = REPLY_LINE.fullmatch(line)
            codes.add(line[:3])
            octets += len(line)
            if not found or len(codes) > 1:
                self.transcript.server(self.transcript.hide(line))
                raise SMTPProtocolError('the server does not speak SMTP; it '
                                        f'said: {self._beginning(line)}')
            if len(masked) == MAX_REPLY_LINES or octets > MAX_REPLY:
                raise SMTPProtocolError('the server sent an endless reply.')
            text, more = found[3] or '', found[2]
            self.heard.append(text)
            masked.append(self.transcript.hide(text))
            self.transcript.server(
                line[:4] + masked[-1],
                time.monotonic() - began if more != '-' else 0)
        for glue in '', ' ':            # a secret may be spread over lines
            if self.transcript.hide(glue.join(masked)) != glue.join(masked):
                masked = [MASK] * len(masked)
        self.last_code = int(line[:3])
        reply = Reply(self.last_code, tuple(masked))
        command = self.awaited.popleft()
        self.transcript.explain_reply(command, reply)
        if reply.code == NOT_AVAILABLE \
                or expected and reply.code not in expected:
            raise refusal(command, reply)
        return reply

    def has_unread(self) -> bool:
        """Tell, without waiting, whether the server has said more."""
        if not self._received:
            try:
                self._receive(NOW)
            except (BlockingIOError, ssl.SSLWantReadError):
                return False
        return True

    def refuse_unasked(self) -> None:
        """Make sure that the server has nothing to say before we speak.

        A reply that nobody asked for would be taken for the reply to the
        next command.

        Raises:
            SMTPProtocolError: There was something.
            SMTPResponseException: It was a refusal, such as a 421.
            SMTPServerDisconnected: The server has hung up.
        """
        if not self.has_unread():
            return
        self.awaited.append('to go on')
        reply = self.read_reply(seconds=min(QUIT_TIMEOUT, self.timeout))
        if reply.code >= 400:
            raise refusal('to go on', reply)
        raise SMTPProtocolError('the server spoke without being asked.',
                                reply=reply)

    # Sending

    def send_octets(self, octets: bytes) -> None:
        """Send octets as they are, with a deadline for each block of them.

        Raises:
            SMTPServerDisconnected: They could not be sent.
            SMTPResponseException: The server refused to read on.
        """
        rest = memoryview(octets)
        try:
            while rest:
                block, rest = rest[:BLOCK], rest[BLOCK:]
                deadline = time.monotonic() + self.timeout
                while block:
                    self._wait_until(deadline)
                    block = block[self._socket.send(block):]
        except OSError as error:
            if not self.awaited:
                self.refuse_unasked()       # its last words may say why
            raise self._broken(error) from None

    def send_lines(self, lines: Sequence[str], shown: str = '') -> None:
        """Send lines together; each of them awaits a reply.

        Args:
            lines: Lines without their CRLF.
            shown: What to show in place of a line that holds a secret.

        Raises:
            SMTPMessageError: A line would be read as more than one line.
            SMTPStopped: The user does not want them sent.
        """
        for line in lines:
            if re.search('[\r\n\0]', line):
                raise SMTPMessageError(f'no line for a server: {line!r}')
            self.transcript.client(shown or line)
        self.transcript.confirm()
        if not self.awaited:
            self.refuse_unasked()
        self.send_octets((CRLF.join(lines) + CRLF).encode(
            'utf-8', 'surrogateescape'))
        names = {MASK: 'the password', '': 'an empty line'}
        for line in lines:
            self.awaited.append(names.get(shown or line, shown or line))
        self.transcript.sent(shown or line for line in lines)

    def send_line(self, line: str, shown: str = '') -> None:
        """Send one line, as send_lines does."""
        self.send_lines([line], shown)

    def send_command(self, line: str, *expected: int,
                     shown: str = '') -> Reply:
        """Send a command and read the reply to it (RFC 5321 section 4.1).

        C: command
        S: reply

        Args:
            line: The command without its CRLF.
            *expected: The reply codes that are welcome; none: all of them.
            shown: What to show in place of a line that holds a secret.

        Returns:
            The reply.

        Raises:
            SMTPResponseException: The server refuses.
            SMTPProtocolError: The reply is no reply to this command.
            SMTPServerDisconnected: There was no reply, or not in time.
        """
        self.send_line(line, shown)
        return self.read_reply(*expected)

    # Encrypting

    def encrypt(self, context: ssl.SSLContext, host: str) -> None:
        """Put TLS between us and the server; from here on all is encrypted.

        Args:
            context: Says which certificates are trusted.
            host: The name that the certificate must carry.

        Raises:
            SMTPProtocolError: No TLS came about, or the certificate is not
                that of the host.
            SMTPServerDisconnected: The server hung up, or was silent.
        """
        sock = context.wrap_socket(
            self._socket, server_hostname=host.rstrip('.'),
            do_handshake_on_connect=False)
        self._socket = sock
        try:
            self._wait_until(time.monotonic() + self.timeout)
            sock.do_handshake()
        except ssl.SSLCertVerificationError as error:
            problem = TLS_PROBLEMS.get(error.verify_code, 'cannot be trusted')
            shown = untrusted_certificate(sock)
            raise SMTPProtocolError(
                f'the certificate of {host} {problem}.', command='TLS',
                details=[f'It is {describe_certificate(shown)}.'] * bool(shown),
                advice=(
                    f'{YOU}: check the name of the server. Somebody may be '
                    'listening in, as some antivirus programs do; nothing '
                    'secret was sent. An authority of your own goes in with '
                    '--ca-file.')) from None
        except OSError as error:
            if not isinstance(error, ssl.SSLError) \
                    or isinstance(error, ssl.SSLEOFError):
                raise self._broken(error) from None
            raise SMTPProtocolError(
                f'no TLS came about with {host}: {error.reason or error}.',
                command='TLS',
                advice=TLS_ADVICE.get(error.reason or '', '')) from None
        cipher = sock.cipher()
        self.transcript.note(
            f'TLS begins: {sock.version()}, {cipher[0] if cipher else "?"}')
        self.transcript.note('certificate '
                             + describe_certificate(sock.getpeercert() or {}))


# ---------------------------------------------------------------------------
# 6  Opening
#
# A session begins in the clear. The server greets, we say EHLO, and its reply
# lists the extensions that it offers. The first one that we use is STARTTLS,
# which turns on encryption. Anybody on the way could have altered what was
# said until then, so it is forgotten, and we say EHLO once more; only this
# second list counts.
# ---------------------------------------------------------------------------

# A host name: labels of letters, digits and hyphens, with dots between them
# (RFC 1035 2.3.1 and 2.3.4).
LABEL = '[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?'
DOMAIN = re.compile(rf'{LABEL}(?:\.{LABEL})*')

Function = TypeVar('Function', bound=Callable[..., Any])


def stage(name: str) -> Callable[[Function], Function]:
    """Mark a function as a stage of the session, for the user to watch.

    Args:
        name: What --quit-after calls it, if it can end there.

    Returns:
        A decorator for functions whose first argument is the connection.
    """
    def mark(function: Function) -> Function:
        """Return the function, with its beginning and end made known."""
        @functools.wraps(function)
        def watched(connection: Connection, *arguments: Any) -> Any:
            """Run the function."""
            connection.transcript.begin(function)
            result = function(connection, *arguments)
            connection.transcript.reached(name)
            return result
        return cast(Function, watched)
    return mark


def open_socket(host: str, port: int, family: int = 0,
                timeout: float | None = None) -> socket.socket:
    """Open a TCP connection to the server.

    A name may have several addresses; they are tried in order, until one of
    them answers (RFC 5321 section 5.1).

    Args:
        host: A host name or an IP address.
        port: From 1 to 65535.
        family: socket.AF_INET, socket.AF_INET6, or 0 for both.
        timeout: Seconds for each address; None: as long as is usual.

    Returns:
        The connected socket.

    Raises:
        SMTPConnectError: There is no such host, or no address answered.
    """
    timeout = timeout or REPLY_TIMEOUT
    try:
        addresses = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        later = getattr(error, 'errno', None) == socket.EAI_AGAIN
        raise SMTPConnectError(
            f'the name {host} could not be looked up now.' if later
            else f'there is no host named {host}.',
            advice=f'{YOU}: is this computer offline? Then try again later.' if later
            else f'{YOU}: look for a typing error in --server. If there is none, '
            'is this computer offline?',
            exit_code=EXIT_TRY_LATER if later else EXIT_NO_HOST) from None
    failures: list[str] = []
    for kind, _, _, _, address in addresses:
        last = len(failures) + 1 == len(addresses)
        patience = timeout if last else min(timeout, NEXT_ADDRESS_TIMEOUT)
        with contextlib.ExitStack() as on_failure:
            try:
                sock = socket.socket(kind, socket.SOCK_STREAM)
                on_failure.callback(sock.close)
                sock.settimeout(patience)
                sock.connect(address)
                # Without this, EHLO would wait for the server to acknowledge
                # the last octets of the TLS handshake: one round trip more.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                on_failure.pop_all()
                return sock
            except OSError as error:
                failures.append(f'{address[0]}: {error.strerror or error}')
    raise SMTPConnectError(
        f'no connection to {host}, port {port}.', details=failures,
        advice=f'{YOU}: check server and port, and your network. Many '
        'networks block port 25, some 587 too; then --port 465 may work.')


@stage('connect')
def read_greeting(connection: Connection) -> None:
    """Wait for the server's greeting.

    In SMTP the server speaks first: with 220 it says that it is ready (RFC
    5321 section 3.1).

    S: 220 smtp.office365.com Microsoft ESMTP MAIL Service ready

    Raises:
        SMTPResponseException: The server wants no session.
    """
    try:
        connection.read_reply(SERVICE_READY)
    except SMTPServerDisconnected as error:
        error.advice = (f'{YOU}: a server that says nothing may wait for TLS '
                        f'(--tls implicit, port 465). {error.advice}')
        raise


def own_name(connection: Connection) -> str:
    """Find a name for EHLO that every server must accept.

    This is the name of this host if it is a full one; else our IP address as
    a literal, such as '[192.0.2.7]' (RFC 5321 section 4.1.4).
    """
    name = SMTP_DOMAINNAME or socket.gethostname()
    if DOMAIN.fullmatch(name) and len(name) <= MAX_DOMAIN \
            and re.search('[.].*[a-z]', name, re.IGNORECASE):
        return name
    return connection.local_address()


def read_extensions(lines: Sequence[str]) -> dict[str, str]:
    """Read what the server offers out of the lines of its reply to EHLO."""
    extensions: dict[str, str] = {}
    for line in filter(str.isascii, lines[1:]):     # [0] only says hello
        # 'AUTH=LOGIN' is how servers wrote it before there was a standard.
        line = re.sub('^AUTH=', 'AUTH ', line.upper())
        keyword, _, parameters = line.partition(' ')
        known = extensions.get(keyword, '')
        extensions[keyword] = f'{known} {parameters}'.strip()
    return extensions


@stage('ehlo')
def say_hello(connection: Connection, name: str | None = None,
              before: Extensions | None = None) -> Extensions:
    """Give our name, and learn what the server can do.

    The reply to EHLO lists extensions (RFC 5321 section 4.1.1.1); once TLS has
    begun, only a second list counts (RFC 3207 section 4.2).

    C: EHLO client.example.com
    S: 250-smtp.office365.com Hello [192.0.2.7]
    S: 250-SIZE 157286400
    S: 250 STARTTLS

    Args:
        connection: To the server.
        name: Our host's name or address literal; None: found out.
        before: What the server offered before TLS began.

    Returns:
        The parameters of each extension that is offered.

    Raises:
        SMTPResponseException: The server does not know EHLO or our name.
    """
    connection.send_command(f'EHLO {name or own_name(connection)}', COMPLETED)
    extensions = read_extensions(connection.heard)
    connection.transcript.explain_extensions(extensions, before or {})
    return extensions


def tls_context(ca_file: str | None = None) -> ssl.SSLContext:
    """Say which servers we trust: TLS 1.2 or later, certificate checked.

    Args:
        ca_file: PEM file of the authorities to trust; None: the system's.

    Returns:
        The context for Connection.encrypt.

    Raises:
        SMTPConfigurationError: The file is missing or holds no certificate.
    """
    # Not ssl.create_default_context: it would write the keys of the session
    # into a file if $SSLKEYLOGFILE names one.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    try:
        if ca_file is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(ca_file)
    except (OSError, ValueError) as error:
        reason = 'it holds no certificate in PEM form' \
            if isinstance(error, ssl.SSLError) \
            else getattr(error, 'strerror', None) or error
        raise SMTPConfigurationError(
            f'cannot read the authorities in {ca_file}: {reason}.',
            exit_code=EXIT_NO_INPUT) from None
    return context


def secure(connection: Connection, context: ssl.SSLContext, host: str) -> None:
    """Begin TLS after the 220 to STARTTLS, if nothing else came with it.

    Raises:
        SMTPProtocolError: Once TLS has begun, what came would pass for words
            of the server.
    """
    if connection.has_unread():
        raise SMTPProtocolError(
            'more than its 220 came in answer to STARTTLS, so somebody may '
            'be putting words into the session.', command='STARTTLS')
    connection.encrypt(context, host)


@stage('tls')
def begin_tls(connection: Connection, context: ssl.SSLContext,
              host: str) -> None:
    """Begin with encryption at once.

    On port 465 the TLS handshake comes first, and even the greeting is
    encrypted (RFC 8314 section 3.3).

    Args:
        connection: To the server.
        context: Says which certificates are trusted.
        host: The name that the certificate must carry.
    """
    connection.encrypt(context, host)


@stage('tls')
def start_tls(connection: Connection, extensions: Extensions,
              context: ssl.SSLContext, host: str) -> None:
    """Turn on encryption.

    After STARTTLS and its 220 both sides begin a TLS handshake, in which the
    server proves its name with a certificate (RFC 3207 section 4).

    C: STARTTLS
    S: 220 2.0.0 SMTP server ready

    Args:
        connection: To the server.
        extensions: What the server offers.
        context: Says which certificates are trusted.
        host: The name that the certificate must carry.

    Raises:
        SMTPNotSupportedError: STARTTLS is not offered.
        SMTPProtocolError: More came than the 220, or TLS failed.
    """
    if 'STARTTLS' not in extensions:
        raise SMTPNotSupportedError(
            f'{host} does not offer encryption (STARTTLS) here, so nothing '
            'secret was sent to it.', command='STARTTLS', advice=(
                f'{YOU}: use the port for submission (587, or 465). If the '
                'server does offer STARTTLS elsewhere, somebody on the way '
                'may be taking it out.'))
    connection.send_command('STARTTLS', SERVICE_READY)
    secure(connection, context, host)


# ---------------------------------------------------------------------------
# 7  Who we are
#
# A submission server sends only for people it knows. Its reply to EHLO names
# the mechanisms that it takes, and each of them is a short dialogue in which
# base64 wraps what is said. Base64 is not encryption: anyone can unwrap it.
# What protects the password is TLS alone, so there is no login without it.
# ---------------------------------------------------------------------------


def begin_login(connection: Connection, mechanism: str, response: str,
                *expected: int, shown: str = '') -> Reply:
    """Begin a mechanism, its first response on the same line if that fits.

    Args:
        connection: To the server, encrypted.
        mechanism: Its name, such as 'LOGIN'.
        response: The first response, in base64.
        *expected: The reply codes that are welcome; none: all of them.
        shown: What to show in place of a response that holds a secret.

    Returns:
        The reply to the response.
    """
    command = f'AUTH {mechanism}'
    line = f'{command} {response}'
    if len(line) + len(CRLF) <= MAX_COMMAND_LINE:
        return connection.send_command(
            line, *expected, shown=shown and f'{command} {shown}')
    connection.send_command(command, CHALLENGE)
    return connection.send_command(response, *expected, shown=shown)


def auth_login(connection: Connection, user: str, password: str) -> Reply:
    """Log in by AUTH LOGIN: the user name, then the password.

    Both travel in base64, on lines of their own. No RFC describes this; what
    RFC 4954 says of AUTH holds.

    C: AUTH LOGIN YWxpY2VAZXhhbXBsZS5jb20=
    S: 334 UGFzc3dvcmQ6
    C: ********
    S: 235 2.7.0 Authentication successful

    Returns:
        The reply to the password.
    """
    name = to_base64(user)
    try:
        begin_login(connection, 'LOGIN', name, CHALLENGE)
    except SMTPResponseException as error:
        # Some servers want the user name on a line of its own.
        if error.reply is None or error.reply.code not in (
                SYNTAX_ERROR_IN_PARAMETERS, PARAMETER_NOT_IMPLEMENTED):
            raise
        connection.send_command('AUTH LOGIN', CHALLENGE)
        connection.send_command(name, CHALLENGE)
    return connection.send_command(to_base64(password), shown=MASK)


def auth_plain(connection: Connection, user: str, password: str) -> Reply:
    """Log in by AUTH PLAIN: user name and password on one line (RFC 4616).

    C: AUTH PLAIN ********
    S: 235 2.7.0 Authentication successful

    Returns:
        The reply to both.
    """
    return begin_login(connection, 'PLAIN',
                       to_base64(f'\0{user}\0{password}'), shown=MASK)


def auth_xoauth2(connection: Connection, user: str, token: str) -> Reply:
    """Log in by XOAUTH2: a token in place of the password.

    The token comes from the provider's own login page, holds for an hour or
    so, and allows only what it was issued for. If it is no good, the server
    says why in a challenge, and wants an empty line before it refuses. No RFC
    describes this; Google and Microsoft do.

    C: AUTH XOAUTH2 ********
    S: 235 2.7.0 Authentication successful

    Returns:
        The reply to the token.

    Raises:
        SMTPAuthenticationError: The token was refused, and why.
    """
    response = to_base64(f'user={user}\1auth=Bearer {token}\1\1')
    reply = begin_login(connection, 'XOAUTH2', response, shown=MASK)
    if reply.code != CHALLENGE:
        return reply
    reason = connection.transcript.hide(from_base64(reply.text))
    reply = connection.send_command('')
    if reply.code < 500:
        return reply
    raise SMTPAuthenticationError(
        f'the server refused the access token of {user}.', reply=reply,
        details=[f'It says: {first_sentence(reason)}'],
        command='AUTH XOAUTH2', advice=advise('AUTH XOAUTH2', reply))


MECHANISMS: dict[str, Callable[[Connection, str, str], Reply]] = {
    'LOGIN': auth_login,
    'PLAIN': auth_plain,
    'XOAUTH2': auth_xoauth2,
}
AUTOMATIC = ('LOGIN', 'PLAIN')      # what 'auto' tries with a password


def choose_mechanism(extensions: Extensions, wanted: str) -> str:
    """Choose how to log in, among what the server offers.

    Args:
        extensions: What the server offers.
        wanted: 'auto', or the name of a mechanism.

    Returns:
        A key of MECHANISMS.

    Raises:
        SMTPNotSupportedError: The server does not offer it.
    """
    offered = extensions.get('AUTH', '').split()
    for mechanism in (AUTOMATIC if wanted == 'auto' else [wanted.upper()]):
        if mechanism in offered:
            return mechanism
    what = 'any login by password that smtp.py knows' if wanted == 'auto' \
        else f'login by {wanted.upper()}'
    raise SMTPNotSupportedError(
        f'the server does not offer {what}.', command='AUTH',
        advice=f'{YOU}: it offers {" ".join(offered) or "no login at all"}. '
        'See --auth; a server that wants no login takes --auth none.')


@stage('auth')
def log_in(connection: Connection, extensions: Extensions, user: str,
           password: str, wanted: str = 'auto') -> None:
    """Prove who we are.

    The server's list names the mechanisms that it takes (RFC 4954 section 3);
    one of them is tried, once.

    C: AUTH LOGIN YWxpY2VAZXhhbXBsZS5jb20=
    S: 334 UGFzc3dvcmQ6
    C: ********
    S: 235 2.7.0 Authentication successful

    Args:
        connection: To the server, encrypted.
        extensions: What the server offers.
        user: The user name, mostly the mail address.
        password: The password, or the access token for XOAUTH2.
        wanted: 'auto', or the name of a mechanism.

    Raises:
        SMTPNotSupportedError: The mechanism is not offered.
        SMTPConfigurationError: The password is empty.
        SMTPAuthenticationError: The login was refused.
        SMTPProtocolError: The server does not keep to the dialogue.
    """
    mechanism = choose_mechanism(extensions, wanted)
    if not password:
        raise SMTPConfigurationError('the password is empty.')
    try:
        reply = MECHANISMS[mechanism](connection, user, password)
    except SMTPAuthenticationError:
        raise
    except SMTPResponseException as error:
        assert error.reply is not None
        reply = error.reply
    if reply.code == AUTHENTICATION_SUCCEEDED:
        return
    if reply.code < 400 and reply.code != CHALLENGE:
        raise refusal(f'AUTH {mechanism}', reply)
    raise SMTPAuthenticationError(
        f'the server refused the login of {user} by {mechanism}.',
        command=f'AUTH {mechanism}', reply=reply,
        exit_code=exit_code_of(reply, EXIT_NO_PERMISSION),
        advice=advise(f'AUTH {mechanism}', reply))


# ---------------------------------------------------------------------------
# 8  One mail
#
# First the envelope: MAIL says who sends, each RCPT names one who receives,
# and the server answers for each. Then DATA and the message, to which a line
# with nothing but a dot makes the end. With PIPELINING (RFC 2920) the whole
# envelope and DATA go out at once and the replies come back together: one
# round trip instead of one for each command. Pipelining ends where an answer
# changes what we do: the message itself waits for the 354.
#
# A mail is for all or for nobody. As long as the final dot has not been sent,
# the server must throw away what it has; the reply to that dot is the moment
# at which the server takes over the duty to deliver.
# ---------------------------------------------------------------------------


def may_pipeline(connection: Connection, extensions: Extensions) -> bool:
    """Tell whether commands may be sent together; not while people watch."""
    return 'PIPELINING' in extensions and not connection.transcript.one_by_one


def dot_stuff(lines: bytes) -> bytes:
    """Double each dot that begins a line (RFC 5321 section 4.5.2).

    Otherwise a line of one dot in a text would end the message. The server
    takes the second dot away again.
    """
    if b'.' not in lines:       # so it is with base64: look no further
        return lines
    stuffed = lines.replace(b'\n.', b'\n..')
    return b'.' + stuffed if stuffed.startswith(b'.') else stuffed


class Piece:
    """Whole lines of a message that are in memory.

    Attributes:
        size: Octets on the wire, before dots are doubled.
    """

    def __init__(self, octets: bytes) -> None:
        """Hold the lines."""
        self.octets = octets
        self.size = len(octets)

    def chunks(self) -> Iterator[bytes]:
        """Yield whole lines, not too many at a time."""
        start = 0
        while start < self.size:
            end = self.octets.find(b'\n', start + BLOCK) + 1 or self.size
            yield self.octets[start:end]
            start = end

    def outline(self, head: int = 20, tail: int = 3
                ) -> Iterator[tuple[str, str]]:
        """Yield what a transcript shows: the first and the last lines.

        Args:
            head: How many at the start, after the header fields.
            tail: How many at the end.

        Yields:
            'C:' and a line, or '--' and what stands there instead.
        """
        lines = dot_stuff(self.octets).decode(
            'utf-8', 'backslashreplace').split(CRLF)[:-1]
        start = head + (lines.index('') if '' in lines else 0)
        end = len(lines) - tail
        for line in lines[:max(start, 0)]:
            yield 'C:', line
        if end > start:
            yield '--', f'({end - start:,} more lines)'
        for line in lines[max(start, end):]:
            yield 'C:', line


class Message(NamedTuple):
    """A mail: its envelope, and the message.

    Attributes:
        sender: The address for MAIL.
        recipients: The addresses for RCPT, each once.
        message_id: The value of its Message-ID field.
        pieces: Header and body.
        needs_smtputf8: Whether header or envelope go beyond ASCII.
        needs_8bitmime: Whether its body has octets beyond ASCII.
        bcc_fields: The fields Bcc, which are part of the message as its author
            has it, but not sent.
    """

    sender: str
    recipients: list[str]
    message_id: str
    pieces: Sequence[Piece]
    needs_smtputf8: bool = False
    needs_8bitmime: bool = False
    bcc_fields: str = ''

    @property
    def size(self) -> int:
        """Octets on the wire, before dots are doubled (RFC 1870)."""
        return sum(piece.size for piece in self.pieces)

    def chunks(self) -> Iterator[bytes]:
        """Yield the whole message, lines by lines."""
        for piece in self.pieces:
            yield from piece.chunks()

    def outline(self) -> Iterator[tuple[str, str]]:
        """Yield what a transcript shows of it: marks and lines."""
        for piece in self.pieces:
            yield from piece.outline()


def mail_command(extensions: Extensions, message: Message) -> str:
    """Write the MAIL command, with the parameters that the server takes.

    Returns:
        For example 'MAIL FROM:<alice@example.com> SIZE=431'.

    Raises:
        SMTPMessageError: The message is larger than the server takes.
        SMTPNotSupportedError: It needs an extension that is not offered.
    """
    command = f'MAIL FROM:<{message.sender}>'
    if 'SIZE' in extensions and message.pieces:
        command += f' SIZE={message.size}'                  # RFC 1870
        limit = extensions['SIZE']
        if re.fullmatch('[0-9]{1,18}', limit) and 0 < int(limit) < message.size:
            # Base64: four octets for three, and a CRLF after each 76, is 37 %.
            raise SMTPMessageError(
                f'the message has {message.size:,} octets, and the server '
                f'takes no more than {int(limit):,}.', command='MAIL',
                advice=f'{YOU}: attachments grow by 37 % on their way: send '
                'fewer, or a link.')
    if message.needs_smtputf8 and 'SMTPUTF8' not in extensions:
        raise SMTPNotSupportedError(
            'an address or a header field has letters beyond ASCII, and the '
            'server does not offer SMTPUTF8.', command='MAIL',
            advice=f'{YOU}: use an address in plain letters; write header '
            'fields in encoded-words.')
    if message.needs_8bitmime and '8BITMIME' not in extensions:
        raise SMTPNotSupportedError(
            'the message has octets beyond ASCII in its body, and the server '
            'does not offer 8BITMIME.', command='MAIL', advice=f'{YOU}: let '
            'your mail program write it in quoted-printable.')
    if '8BITMIME' in extensions and (
            message.needs_8bitmime or message.needs_smtputf8):
        command += ' BODY=8BITMIME'                         # RFC 6152
    if message.needs_smtputf8:
        command += ' SMTPUTF8'                              # RFC 6531
    return command


def recipients_refused(refused: Mapping[str, Reply]) -> SMTPException:
    """Make the error for recipients that the server does not take.

    Args:
        refused: The reply to each address that was refused.
    """
    codes = [exit_code_of(reply, EXIT_NO_RECIPIENT)
             for reply in refused.values()]
    weight = [EXIT_TRY_LATER, EXIT_NO_PERMISSION, EXIT_NO_RECIPIENT]
    first, reply = next(iter(refused.items()))
    error = SMTPRecipientsRefused(
        'the server refused these recipients, so the message went to nobody:',
        command=f'RCPT TO:<{first}>', reply=reply,
        advice=advise('RCPT', reply),
        exit_code=max(codes, key=weight.index),
        details=[f'{address}: {" ".join(str(answer).split())}'
                 for address, answer in refused.items()])
    error.refused = refused
    return error


# The reply codes that are a yes, RFC 5321 section 4.3.2. Not every 2yz is one:
# 252, for example, means "I could not find out".
WELCOME = {
    'MAIL': (COMPLETED,),
    'RCPT': (COMPLETED, WILL_FORWARD),
    'DATA': (START_MAIL_INPUT,),
}


def wrong_among(replies: Mapping[str, Reply]) -> dict[str, Reply]:
    """Return those replies to the envelope that are not the ones hoped for."""
    return {command: reply for command, reply in replies.items()
            if reply.code not in WELCOME[command[:4]]}


def send_groups(connection: Connection, commands: Sequence[str], size: int
                ) -> dict[str, Reply]:
    """Send the commands of the envelope in groups, and read their replies.

    A refusal of MAIL ends it. A refused recipient does not, since the user
    should hear of all of them; but DATA is not sent any more then.

    Args:
        connection: To the server.
        commands: MAIL, each RCPT, DATA.
        size: How many to send before their replies are read (RFC 2920; if
            there were no limit, both sides might wait for each other to read).

    Returns:
        The reply to each command that was sent.
    """
    replies: dict[str, Reply] = {}
    for start in range(0, len(commands), size):
        group = list(commands[start:start + size])
        wrong = wrong_among(replies)
        if wrong and group[-1] == 'DATA':
            group.pop()
        if not group or commands[0] in wrong:
            break
        connection.send_lines(group)
        for command in group:
            replies[command] = connection.read_reply()
    return replies


@stage('rcpt')
def send_envelope(connection: Connection, extensions: Extensions,
                  message: Message) -> None:
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
        connection: To the server, after the login.
        extensions: What the server offers.
        message: To be sent.

    Raises:
        SMTPRecipientsRefused: A recipient was refused.
        SMTPResponseException: The sender or DATA was refused.
        SMTPMessageError: The message is too large for the server.
        SMTPNotSupportedError: It needs an extension that is not offered.
    """
    commands = [mail_command(extensions, message),
                *(f'RCPT TO:<{address}>' for address in message.recipients),
                'DATA']
    # --quit-after mail sends MAIL alone, --quit-after rcpt all but DATA.
    stop = {'mail': 1, 'rcpt': -1}.get(connection.transcript.quit_after)
    replies = send_groups(
        connection, commands[:stop],
        MAX_GROUP if may_pipeline(connection, extensions) else 1)
    wrong = wrong_among(replies)
    if not wrong:
        connection.transcript.reached('mail')
        return
    if 'DATA' in replies and 'DATA' not in wrong:
        # "Go on", but not for all: without a dot the server forgets it.
        connection.transcript.note('hanging up without the final dot')
        connection.close()
    first = next(iter(wrong))
    if not first.startswith('RCPT') or wrong[first].code < 400:
        raise refusal(first, wrong[first])
    raise recipients_refused({
        command[len('RCPT TO:<'):-1]: reply
        for command, reply in wrong.items()
        if command.startswith('RCPT') and reply.code >= 400})


def send_final_dot(connection: Connection, ending: Sequence[str],
                   recipients: Sequence[str], message_id: str) -> Receipt:
    """End the message, and wait for the reply that decides.

    Args:
        connection: To the server, which has all of the message.
        ending: The dot, and perhaps QUIT.
        recipients: To whom it goes.
        message_id: By which the message can be found again; or ''.

    Returns:
        The receipt, which the transcript has too: sent.

    Raises:
        SMTPResponseException: The server refused the message.
        SMTPDeliveryUnknown: No reply came to the dot, or a strange one.
    """
    transcript = connection.transcript
    for line in ending:
        transcript.client(line)
    try:
        transcript.sent(['(the message)', *ending])
        connection.send_octets(
            ''.join(line + CRLF for line in ending).encode())
        connection.awaited.extend([FINAL_DOT, *ending[1:]])
        reply = connection.read_reply(COMPLETED,
                                      seconds=connection.final_timeout)
        receipt = Receipt(reply, recipients, message_id)
        transcript.receipt = receipt    # from here on nothing can undo it
        return receipt
    except SMTPResponseException:
        raise
    except BaseException as error:
        problem = getattr(error, 'problem', 'interrupted.')
        raise SMTPDeliveryUnknown(
            problem, details=[f'The message was complete (Message-ID '
                              f'{message_id or "as typed"}).'],
            command=FINAL_DOT,
            reply=getattr(error, 'reply', None)) from error


@stage('message')
def send_message(connection: Connection, extensions: Extensions,
                 message: Message) -> Receipt:
    """Send the message, and the dot that ends it.

    Every line goes as it is, save that a dot at its start is doubled; a line
    with one dot is the end (RFC 5321 sections 4.5.2 and 4.1.1.4).

    C: From: alice@example.com
    C: (the other header fields, an empty line, the text)
    C: .
    S: 250 2.0.0 OK, queued

    Args:
        connection: To the server, which has just said 354.
        extensions: What the server offers.
        message: To be sent.

    Returns:
        The receipt: sent.

    Raises:
        SMTPResponseException: The server refused the message.
        SMTPMessageError: A file changed while it was read.
        SMTPDeliveryUnknown: No reply came to the dot, or a strange one.
    """
    transcript = connection.transcript
    transcript.message(message.outline())
    done = 0
    try:
        transcript.confirm()
        for chunk in message.chunks():
            connection.refuse_unasked()     # it may have had enough already
            connection.send_octets(dot_stuff(chunk))
            done += len(chunk)
            transcript.progress(done, message.size)
        connection.refuse_unasked()
    except BaseException:
        connection.close()      # without the final dot nothing is sent
        raise
    finally:
        transcript.progress(message.size, message.size)
    # Whatever the reply to the dot is, QUIT comes next: one round trip less.
    ending = ['.', 'QUIT'] if may_pipeline(connection, extensions) else ['.']
    return send_final_dot(connection, ending, message.recipients,
                          message.message_id)


@stage('quit')
def say_goodbye(connection: Connection) -> None:
    """Close the session politely.

    Whatever happens to QUIT, what was sent is sent, and what was refused is
    refused (RFC 5321 section 4.1.1.10).

    C: QUIT
    S: 221 2.0.0 Service closing transmission channel
    """
    connection.transcript.ask = None
    seconds = min(QUIT_TIMEOUT, connection.timeout)
    try:
        if GREETING in connection.awaited:
            connection.read_reply(seconds=seconds)
        if connection.last_code == CHALLENGE:
            connection.send_line('*')       # "I give up", RFC 4954 section 4
            connection.read_reply(seconds=seconds)
        if connection.last_code == START_MAIL_INPUT:
            return              # only hanging up ends a message without a dot
        if not connection.awaited:
            connection.send_line('QUIT')
        if connection.awaited[0] == 'QUIT':
            connection.read_reply(seconds=seconds)
    except (Exception, KeyboardInterrupt):
        pass                    # the verdict on the message stands already


# ---------------------------------------------------------------------------
# 9  Header fields
#
# A header field is a name, a colon and a value, all in ASCII. Three things
# have to be done to what people write. Letters beyond ASCII become
# encoded-words: "Übung" is =?utf-8?q?=C3=9Cbung?= (RFC 2047). Long fields are
# folded: a line that begins with a space continues the one before it. And
# addresses are taken apart, since "Dr. Bob" <bob@example.org> is a name for
# people and an address for the envelope.
#
# A line end inside a value would begin a field, or an envelope command, of a
# stranger's choice. So it is refused wherever it comes from.
# ---------------------------------------------------------------------------

FIELD_NAME = re.compile('[!-9;-~]{1,76}')       # RFC 5322 2.2: no colon
ATOM = r'[^\x00-\x20\x7f()<>\[\]:;@\\,."]+'     # RFC 5322 3.2.3, RFC 6532
DOT_ATOM = re.compile(rf'{ATOM}(?:\.{ATOM})*')

LONGEST_ADDRESS_FIELD = 'Disposition-Notification-To: '
LIKE_ENCODED_WORD = re.compile(r'=\?[^?]*\?[^?]*\?[^?]*\?=')

# Letters that RFC 5892 section 2.6 leaves out; hyphens at the end of a label.
NOT_IN_DOMAINS = re.compile(
    r'[\u0640\u07fa\u302e\u302f\u3031-\u3035\u303b]|(?:^|\.)-|-(?:\.|$)')

# Characters that stand for themselves in an encoded-word, RFC 2047 section 5.
Q_SAFE = re.compile('[A-Za-z0-9!*+/-]')


def check_text(what: str, text: str) -> str:
    """Refuse what would break out of the line that it stands on.

    Args:
        what: Its name, for the error.
        text: A header field's value, an address, a file name.

    Returns:
        The text as it is.

    Raises:
        SMTPMessageError: It has a CR, LF or NUL, or is no Unicode text.
    """
    found = re.search('[\r\n\0\ud800-\udfff]', text)
    if found:
        raise SMTPMessageError(
            f'{what} has a character that cannot be sent at position '
            f'{found.start() + 1}: {text[:100]!r}',
            advice=f'{YOU}: take it out. Line ends, NUL and broken UTF-8 are '
            'not sent, since they could add header fields or recipients.')
    return text


def pack(pieces: Iterable[str], limit: int) -> list[str]:
    """Join short strings, none of them cut, into as few as the limit allows.

    Args:
        pieces: In their order.
        limit: In characters.
    """
    packed = ['']
    for piece in pieces:
        if len(packed[-1]) + len(piece) > limit:
            packed.append('')
        packed[-1] += piece
    return packed


def encoded_words(text: str, beside: str = '') -> list[str]:
    """Write text as encoded-words (RFC 2047).

    Each stands for whole characters; a space between two of them is not part
    of the text. 'Übung' becomes ['=?utf-8?q?=C3=9Cbung?=']; text with few
    ASCII letters is shorter in base64, and has b in the place of q.

    Args:
        text: Of any length.
        beside: What stands on the line before the first one.
    """
    room = HEADER_LINE - len(beside)
    if room < ENCODED_WORD // 2:        # then it begins a line of its own
        room = ENCODED_WORD
    room = min(room, ENCODED_WORD) - len('=?utf-8?q??=')
    q_forms = [
        '_' if character == ' '
        else character if Q_SAFE.fullmatch(character)
        else ''.join(f'={octet:02X}' for octet in character.encode())
        for character in text]
    if sum(map(len, q_forms)) <= 4 * len(text.encode()) // 3 + 4:
        return [f'=?utf-8?q?{word}?=' for word in pack(q_forms, room)]
    # With a character for each octet, pack() counts octets of UTF-8.
    octets = (character.encode().decode('latin-1') for character in text)
    return [f'=?utf-8?b?{to_base64(word.encode("latin-1").decode())}?='
            for word in pack(octets, room // 4 * 3)]


def unstructured(name: str, text: str) -> list[str]:
    """Write free text, such as a subject, for a header field.

    Args:
        name: Of the field.
        text: Without line ends.

    Returns:
        Words to put a space between. From the first word that needs it to
        the last, they are encoded-words: of 'Re: Übung 1, Übung 2 folgt' the
        words 'Re:' and 'folgt' stay as they are.
    """
    if not text:
        return []
    # Split at single spaces; further ones stay with the word behind them.
    words = re.split('(?<! ) ', text)
    # A line has room for 998 octets, so these 60 and 900 surely fit; '=?' would
    # be taken for the beginning of an encoded-word.
    foreign = [number for number, word in enumerate(words)
               if not re.fullmatch(' {0,60}[!-~]{1,900}', word)
               or '=?' in word]
    if not foreign:
        return words
    first, last = foreign[0], foreign[-1] + 1
    if not words[first].strip(' ') or words[first].startswith(' '):
        first = max(0, first - 1)       # its spaces go with a neighbour
    if not words[last - 1].strip(' '):
        last += 1
    return [*words[:first],
            *encoded_words(' '.join(words[first:last]), f'{name}: '),
            *words[last:]]


def quote(text: str) -> str:
    """Write text as a quoted string (RFC 5322 section 3.2.4)."""
    return '"' + re.sub(r'(["\\])', r'\\\1', text) + '"'


def phrase(name: str) -> list[str]:
    """Write a display name: as it is, quoted, or encoded (RFC 5322 3.2.5).

    Returns:
        Words to put a space between.
    """
    words = name.split(' ')
    plain = name.isascii() and '=?' not in name
    if plain and all(re.fullmatch(ATOM, word) and len(word) < ENCODED_WORD
                     for word in words):
        return words
    if plain and name.isprintable() and len(name) < ENCODED_WORD:
        return [quote(name)]
    return encoded_words(name, LONGEST_ADDRESS_FIELD)


def ascii_domain(domain: str) -> str:
    """Write a domain in the letters that DNS knows (RFC 5890).

    Returns:
        For 'bücher.example', 'xn--bcher-kva.example'.

    Raises:
        ValueError: It is no domain, or one that not all programs would
            write in the same way.
    """
    encoded = domain
    if len(domain) > MAX_DOMAIN:
        raise ValueError('it is too long')
    if not domain.isascii():
        # The codec follows the standard of 2003, which maps some letters to
        # others; the one of 2008 does not, and has no symbols either.
        letters = all(unicodedata.category(character)[0] in 'LMN'
                      for character in re.sub('[.\u00b7-]', '', domain))
        try:
            encoded = domain.encode('idna').decode('ascii')
            same = encoded.encode().decode('idna').lower() == domain.lower()
        except UnicodeError:
            same = False
        if not letters or not same or NOT_IN_DOMAINS.search(domain) \
                or unicodedata.normalize('NFKC', domain) != domain:
            raise ValueError('there is more than one way to spell its domain')
    if not DOMAIN.fullmatch(encoded):
        raise ValueError('what stands behind @ is no name of a host')
    return encoded


def check_literal(literal: str) -> str:
    """Return an address literal such as '[192.0.2.7]' (RFC 5321 4.1.3).

    Raises:
        ValueError: It holds no IP address.
    """
    inside = literal[1:-1]
    try:
        if inside[:5].lower() == 'ipv6:':
            socket.inet_pton(socket.AF_INET6, inside[5:])
        else:
            socket.inet_pton(socket.AF_INET, inside)
    except OSError:
        raise ValueError('it holds no IP address') from None
    return literal


# What an address list is made of, RFC 5322 section 3.2.
TOKEN = re.compile(r'''
    (?P<space>   [ \t]+ )
  | (?P<comment> \( )
  | (?P<quoted>  "(?:[^"\\]|\\.)*" )
  | (?P<literal> \[[^][\\]*\] )
  | (?P<atom>    [^][ \t()<>@,:;"\\]+ )
  | (?P<special> [<>@,:;] )
''', re.VERBOSE)

Token = tuple[str, str]         # kind and text
LESS, GREATER = ('special', '<'), ('special', '>')
COMMA, COLON, SEMICOLON = (('special', mark) for mark in ',:;')


def skip_comment(text: str, start: int) -> int:
    """Find the position behind a comment, which may hold comments; or -1."""
    depth = 0
    for found in re.compile(r'\\.|[()]').finditer(text, start):
        depth += {'(': 1, ')': -1}.get(found[0], 0)
        if depth == 0:
            return found.end()
    return -1


def tokens_of(text: str) -> Iterator[Token]:
    """Take an address list apart; spaces are left out.

    Raises:
        ValueError: A quote, a parenthesis or a bracket is not closed.
    """
    position = 0
    while position < len(text):
        found = TOKEN.match(text, position)
        kind = found.lastgroup if found else None
        end = found.end() if found else -1
        if kind == 'comment':
            end = skip_comment(text, position)
        if kind is None or end < 0:
            raise ValueError(f'{text[position]} at position {position + 1} '
                             'has no counterpart, or is out of place')
        if kind != 'space':
            yield kind, text[position:end]
        position = end


def name_of(tokens: Sequence[Token]) -> str:
    """Read the display name before the < of a mailbox or the : of a group.

    Raises:
        ValueError: It is none.
    """
    tokens = [token for token in tokens if token[0] != 'comment']
    if any(kind not in ('atom', 'quoted') for kind, _ in tokens):
        raise ValueError('a name with special characters needs quotes')
    return ' '.join(re.sub(r'\\(.)', r'\1', text[1:-1]) if kind == 'quoted'
                    else text for kind, text in tokens)


def address_of(tokens: Sequence[Token]) -> str:
    """Check an address, and write it as the envelope wants it.

    Returns:
        The address, its domain in ASCII.

    Raises:
        ValueError: It is no address by RFC 5321 section 4.1.2, or too long.
    """
    kinds = [text if kind == 'special' else kind for kind, text in tokens]
    if kinds[1:] not in (['@', 'atom'], ['@', 'literal']):
        raise ValueError("it is not of the form 'user@host'")
    local, domain = name_of(tokens[:1]), tokens[2][1]
    if not local.isprintable() or LIKE_ENCODED_WORD.search(local):
        raise ValueError('the part before @ would be misread')
    if not DOT_ATOM.fullmatch(local):
        if kinds[0] != 'quoted':
            raise ValueError('the part before @ has a dot out of place')
        local = quote(local)
    domain = check_literal(domain) if kinds[2] == 'literal' \
        else ascii_domain(domain)
    address = f'{local}@{domain}'
    if len(local.encode()) > MAX_LOCAL_PART \
            or len(address.encode()) > MAX_ADDRESS:
        raise ValueError('it is too long')
    return address


class AddressList(NamedTuple):
    """The value of a field such as To.

    Attributes:
        words: The value, as words to put a space between.
        addresses: The addresses in it, as for the envelope.
    """

    words: list[str]
    addresses: list[str]


def read_mailbox(tokens: Sequence[Token]) -> AddressList:
    """Read one mailbox: an address, or a name and an address in < and >.

    Raises:
        ValueError: It is none.
    """
    comments = [text[1:-1].strip() for kind, text in tokens
                if kind == 'comment']
    tokens = [token for token in tokens if token[0] != 'comment']
    if LESS not in tokens:
        address = address_of(tokens)
        # bob@example.org (Bob): how names were written before 1982
        name = comments[0] if comments else ''
    else:
        angle = tokens.index(LESS)
        if tokens[-1] != GREATER:
            raise ValueError('its < has no > at the end')
        address = address_of(tokens[angle + 1:-1])
        name = name_of(tokens[:angle])
    words = [*phrase(name), f'<{address}>'] if name else [address]
    return AddressList(words, [address])


def group_name(tokens: Sequence[Token]) -> list[str]:
    """Write the name of a group, up to its colon.

    Raises:
        ValueError: There is none.
    """
    if not tokens:
        raise ValueError('a group needs a name before its colon')
    words = phrase(name_of(tokens))
    if words[-1].startswith('=?'):
        return [*words, ':']            # an encoded-word stands by itself
    return [*words[:-1], f'{words[-1]}:']


def read_addresses(tokens: Iterable[Token]) -> AddressList:
    """Read a list of mailboxes and groups (RFC 5322 section 3.4).

    Raises:
        ValueError: Something in it is no address.
    """
    words: list[str] = []
    addresses: list[str] = []
    mailbox: list[Token] = []
    in_group = False
    for token in [*tokens, COMMA]:
        if token == COLON and not in_group and LESS not in mailbox:
            words += group_name(mailbox)
            mailbox, in_group = [], True
        elif token not in (COMMA, SEMICOLON):
            mailbox.append(token)
        else:
            if any(kind != 'comment' for kind, _ in mailbox):
                found = read_mailbox(mailbox)
                words += found.words
                words[-1] += ','
                addresses += found.addresses
            mailbox = []
            if token == SEMICOLON:
                if not in_group:
                    raise ValueError('a semicolon ends only a group')
                words[-1] = words[-1].rstrip(',') + ';,'
                in_group = False
    if in_group:
        raise ValueError('a group ends with a semicolon')
    if words:
        words[-1] = words[-1].rstrip(',')
    return AddressList(words, addresses)


def parse_addresses(field: str, *texts: str) -> AddressList:
    """Read the addresses that a user wrote.

    Args:
        field: Where, for errors: 'To' or the like.
        *texts: Addresses with commas between them, with or without names and
            groups: 'Bob <bob@example.org>, Friends: carol@example.com;'.

    Returns:
        One list of them all.

    Raises:
        SMTPMessageError: Something in it is no address.
    """
    words: list[str] = []
    addresses: list[str] = []
    for text in texts:
        try:
            found = read_addresses(tokens_of(check_text(field, text)))
        except ValueError as error:
            raise SMTPMessageError(
                f'{field}: "{text[:100]}" is no address: {error}.',
                advice=f"{YOU}: write 'user@host' or 'Name <user@host>', with "
                'commas between several; a name with a comma needs "quotes".'
            ) from None
        if words and found.words:
            words[-1] += ','
        words += found.words
        addresses += found.addresses
    return AddressList(words, addresses)


def fold(name: str, words: Iterable[str]) -> str:
    """Write a header field, on several lines if it is long.

    Args:
        name: Such as 'Subject'.
        words: Its value; a line may end between two words.

    Returns:
        The field with its CRLF.
    """
    lines = [f'{name}:']
    for word in words:
        full = len(lines[-1]) + 1 + len(word) > HEADER_LINE
        # Some programs want to see something beside the name.
        if full and (lines[-1] != f'{name}:' or word.startswith('=?')):
            lines.append('')
        lines[-1] += f' {word}'
    return CRLF.join(lines) + CRLF


DAYS = 'Mon Tue Wed Thu Fri Sat Sun'.split()
MONTHS = 'Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec'.split()


def to_local_time(moment: datetime.datetime) -> datetime.datetime:
    """Move a moment to the local zone.

    If tzlocal is not there, or does not know the zone, as with TZ=UTC+3, the
    system's offset from UTC serves as well.
    """
    import warnings
    try:
        import tzlocal  # reads files: not without need
        with warnings.catch_warnings():
            warnings.simplefilter('error')      # tzlocal warns, then guesses
            return moment.astimezone(tzlocal.get_localzone())
    except (ImportError, LookupError, ValueError, OSError, Warning):
        return moment.astimezone()


def import_pytz() -> Any:
    """Return the module pytz.

    Raises:
        SMTPConfigurationError: It is not installed.
    """
    try:
        import pytz
    except ImportError:
        raise SMTPConfigurationError(
            'the package pytz is missing.', advice=f'{YOU}: use the Python of '
            'the virtual environment, or run\npython -m pip install -r '
            'requirements.txt') from None
    return pytz


def get_formatted_date(zone: str | None = None) -> str:
    """Write the current time for the Date field (RFC 5322 section 3.3).

    Args:
        zone: A name such as 'Europe/Zurich'; None: the local zone.

    Returns:
        For example 'Mon, 23 Nov 2026 12:00:00 +0100'; the names are English
        wherever the program runs.

    Raises:
        SMTPUsageError: There is no zone of that name.
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
                f'there is no time zone named {zone}.',
                advice="'smtp.py --timezones' lists the names.") from None
    offset = f'{now:%z}'[:5]        # old zones have seconds, as in +003408
    return (f'{DAYS[now.weekday()]}, {now.day:02} {MONTHS[now.month - 1]} '
            f'{now.year} {now:%H:%M:%S} {offset}')


def print_all_timezones() -> None:
    """Print the names that get_formatted_date knows, one on each line."""
    print('\n'.join(import_pytz().all_timezones))


# ---------------------------------------------------------------------------
# 10  Parts
#
# SMTP was made for lines of ASCII, at most 998 octets long. A text of other
# letters, and every file, has to be dressed up as such lines: in quoted-
# printable, which leaves ASCII readable (é is =C3=A9), or in base64, which
# writes three octets as four letters. Fields in front of each part say what
# it is and how it is dressed (RFC 2045). Files are read in small pieces while
# they are sent, so that a large one takes no memory.
# ---------------------------------------------------------------------------


class Part(NamedTuple):
    """A part of a message: its own header fields, and its content.

    Attributes:
        fields: The fields, each with its CRLF.
        pieces: The content.
    """

    fields: str
    pieces: list[Piece]


def mend_line_ends(text: str) -> str:
    """Make each CR, LF or CRLF a CRLF, and end the last line with one."""
    # Each of these is a single pass in C; a regular expression takes longer.
    text = text.replace(CRLF, '\n').replace('\r', '\n').replace('\n', CRLF)
    return text if not text or text.endswith(CRLF) else text + CRLF


def cut_base64(base64: bytes) -> bytes:
    """Cut base64 into lines (RFC 2045 section 6.8)."""
    # One call that cuts all the lines is twice as fast as a loop.
    whole, rest = divmod(len(base64), BASE64_LINE)
    lines = struct.unpack(
        f'{BASE64_LINE}s' * whole + (f'{rest}s' if rest else ''), base64)
    return CRLF.encode().join((*lines, b''))


def text_part(text: str, subtype: str = 'plain') -> Part:
    """Make a part of text (RFC 2046 section 4.1).

    Args:
        text: Lines that end in CR, LF or CRLF, which all mean the same.
        subtype: 'plain' or 'html'.

    Returns:
        The part: as it is if it is ASCII, else in quoted-printable or
        base64, whichever is shorter.

    Raises:
        SMTPMessageError: The text is no Unicode text.
    """
    text = mend_line_ends(text)
    try:
        octets = text.encode()
    except UnicodeEncodeError as error:
        raise SMTPMessageError('the text is not UTF-8: broken character at '
                               f'position {error.start + 1}.') from None
    encoding, charset = '7bit', 'us-ascii'
    if not text.isascii() or '\0' in text \
            or re.search(f'(?m)^.{{{MAX_TEXT_LINE + len(CRLF)}}}', text):
        charset = 'utf-8'
        quoted = binascii.b2a_qp(octets)
        base64 = cut_base64(binascii.b2a_base64(octets, newline=False))
        encoding, octets = min(('quoted-printable', quoted),
                               ('base64', base64), key=lambda way: len(way[1]))
    return Part(
        fold('Content-Type', [f'text/{subtype};', f'charset={charset}'])
        + fold('Content-Transfer-Encoding', [encoding]), [Piece(octets)])


def open_file(path: str) -> BinaryIO:
    """Open a regular file: its size is known, and it can be read twice.

    Raises:
        SMTPMessageError: It is missing, unreadable, or something else.
    """
    try:
        # Looked at before it is opened: a FIFO would wait for a writer.
        if stat.S_ISREG(os.stat(path).st_mode):
            return open(path, 'rb')
        reason = 'it is not a regular file'
    except (OSError, ValueError) as error:
        reason = getattr(error, 'strerror', None) or str(error)
    raise SMTPMessageError(f'cannot read {path}: {reason}.',
                           exit_code=EXIT_NO_INPUT)


def state_of(file: BinaryIO) -> tuple[int, int, int]:
    """Return what changes with a file: its size, its time, and which it is."""
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns, status.st_ino


def file_changed(path: str) -> SMTPMessageError:
    """Make the error for a file that was written to while it was sent."""
    return SMTPMessageError(
        f'{path} changed while it was sent, so the message was not completed.',
        exit_code=EXIT_NO_INPUT,
        advice=f'{YOU}: send it again when nobody writes to the file.')


class Attachment(Piece):
    """A file, sent in base64 (RFC 2045 section 6.8).

    Attributes:
        path: Where it is.
        name: Its name, as the recipient sees it.
        size: Octets in base64, with line ends.
    """

    def __init__(self, path: str) -> None:
        """Look at the file, which must be one that can be read."""
        super().__init__(b'')
        self.path = path
        self.name = check_text('the file name', os.path.basename(path))
        with open_file(path) as file:
            self._state = state_of(file)
        base64_size = (self._state[0] + 2) // 3 * 4
        lines = -(-base64_size // BASE64_LINE)
        self.size = base64_size + len(CRLF) * lines

    def outline(self, head: int = 0, tail: int = 0
                ) -> Iterator[tuple[str, str]]:
        """Yield what a transcript shows of the file."""
        yield '--', (f'({self.name}: {self._state[0]:,} octets, '
                     f'{self.size:,} in base64)')

    def chunks(self) -> Iterator[bytes]:
        """Read the file, and yield lines of base64, many at a time.

        Raises:
            SMTPMessageError: The file has changed since it was looked at;
                see file_changed.
        """
        octets_per_line = BASE64_LINE // 4 * 3
        left = self._state[0]
        with open_file(self.path) as file:
            while left > 0:
                octets = file.read(min(left, octets_per_line * BASE64_LINES))
                if not octets:
                    break
                left -= len(octets)
                yield cut_base64(binascii.b2a_base64(octets, newline=False))
            if left or file.read(1) or state_of(file) != self._state:
                raise file_changed(self.path)


def parameter(name: str, value: str) -> list[str]:
    """Write a parameter of a field, such as filename (RFC 2231).

    Args:
        name: The parameter's name.
        value: Any text without line ends.

    Returns:
        For example ['filename="a.pdf"'] or ["filename*=utf-8''%C3%A9.pdf"];
        several words, numbered, if it is long.
    """
    # 60 characters fit on a line with the name, and 50 with its number too.
    # Quotes and backslashes are legal here, but not all programs read them.
    if re.fullmatch(r'[A-Za-z0-9_+,=@()\[\]. -]{1,60}', value) \
            and value == value.strip():
        return [f'{name}="{value}"']
    percent = (
        character if re.fullmatch('[A-Za-z0-9._-]', character)
        else ''.join(f'%{octet:02X}' for octet in character.encode())
        for character in value)
    pieces = pack(["utf-8''", *percent], 50)
    if len(pieces) == 1:
        return [f'{name}*={pieces[0]}']
    words = [f'{name}*{number}*={piece};'
             for number, piece in enumerate(pieces)]
    return [*words[:-1], words[-1].rstrip(';')]


def attachment_part(path: str) -> Part:
    """Make a part of a file (RFC 2183)."""
    import mimetypes  # reads files of its own: not without need
    attachment = Attachment(path)
    kind, packed = mimetypes.guess_type(f'./{attachment.name}')
    if kind is None or packed or kind.startswith(('message/', 'multipart/')):
        kind = 'application/octet-stream'   # base64 is for this: RFC 2046 5.2
    return Part(
        fold('Content-Type', [kind])
        + fold('Content-Transfer-Encoding', ['base64'])
        + fold('Content-Disposition',
               ['attachment;', *parameter('filename', attachment.name)]),
        [attachment])


def multipart(subtype: str, parts: Sequence[Part]) -> Part:
    """Put several parts together (RFC 2046 section 5.1).

    Args:
        subtype: 'mixed' for a text and its attachments, 'alternative' for
            the same text in several forms, the best one last.
        parts: What to put together.

    Returns:
        One part that holds them all, with a boundary between them.
    """
    pieces = [piece for part in parts for piece in part.pieces]
    boundary = ''
    while not boundary or any(
            boundary.encode() in piece.octets for piece in pieces):
        # '=_' occurs neither in base64 nor in quoted-printable.
        boundary = f'=_{os.urandom(12).hex()}'
    content: list[Piece] = []
    for part in parts:
        start = f'--{boundary}{CRLF}{part.fields}{CRLF}'
        content += [Piece(start.encode()), *part.pieces, Piece(CRLF.encode())]
    content.append(Piece(f'--{boundary}--{CRLF}'.encode()))
    return Part(fold('Content-Type', [f'multipart/{subtype};',
                                      f'boundary="{boundary}"']), content)


# ---------------------------------------------------------------------------
# 11  The message
#
# A message is header fields, an empty line, and the body. For SMTP it must
# also be known who sends it and who receives it: for us these are the
# addresses in From, To, Cc and Bcc. From, To and Cc stand in the header too,
# for people to read; Bcc lives in the envelope alone, which is what makes it
# blind. The size is known before the first octet is sent, so that a server
# can refuse at once what it will not take.
#
# There are two ways to a message: build_message makes one of what a user
# says, read_message takes one that another program has finished. What neither
# may do is repair in silence: an address that is none, a line that is too long
# or a letter that no header can carry is named, and the user decides.
# ---------------------------------------------------------------------------

OWN_FIELDS = ('from', 'to', 'cc', 'bcc', 'subject', 'date', 'message-id',
              'mime-version', 'resent-bcc')
ADDRESS_FIELDS = ('reply-to', 'sender', 'mail-followup-to',
                  'disposition-notification-to')


def further_fields(name: str, values: str | Sequence[str]) -> str:
    """Write header fields of the user's own.

    Args:
        name: Such as 'Reply-To' or 'X-Lab'.
        values: Any text without line ends; or several, for several fields.

    Returns:
        The fields, each with its CRLF.

    Raises:
        SMTPMessageError: There can be no such field, or smtp.py writes it.
    """
    if not FIELD_NAME.fullmatch(name):
        raise SMTPMessageError(f'{name!r} is no name for a header field.')
    if name.lower() in OWN_FIELDS or name.lower().startswith('content-'):
        raise SMTPMessageError(
            f'{name} is a header field that smtp.py writes itself.')
    return ''.join(
        fold(name, parse_addresses(name, value).words
             if name.lower() in ADDRESS_FIELDS
             else unstructured(name, check_text(name, value)))
        for value in ([values] if isinstance(values, str) else values))


def take_addresses(fields: dict[str, Any], name: str) -> AddressList:
    """Read a field of addresses, and take it out of the fields.

    Args:
        fields: The fields that remain to be written.
        name: Such as 'To'.

    Returns:
        Its addresses; none if it is not there.
    """
    value = fields.pop(name, '')
    return parse_addresses(name, *([value] if isinstance(value, str)
                                   else value))


def each_once(addresses: Iterable[str]) -> list[str]:
    """Leave out addresses that occur again; case counts only before the @."""
    known: dict[tuple[str, str], str] = {}
    for address in addresses:
        local, _, domain = address.rpartition('@')
        known.setdefault((local, domain.lower()), address)
    return list(known.values())


def make_message_id(sender: str) -> str:
    """Make a Message-ID that no other message has (RFC 5322 section 3.6.4).

    Args:
        sender: An address, whose domain vouches for it.
    """
    return f'<{os.urandom(16).hex()}@{sender.rpartition("@")[2]}>'


def join_pieces(pieces: Iterable[Piece]) -> list[Piece]:
    """Join pieces in memory that follow each other, to be sent at once."""
    joined: list[Piece] = []
    for piece in pieces:
        if joined and type(piece) is type(joined[-1]) is Piece:
            joined[-1] = Piece(joined[-1].octets + piece.octets)
        else:
            joined.append(piece)
    return joined


def build_message(message_info: Mapping[str, Any], message_text: str,
                  attachments: Sequence[str] = (), html: str | None = None
                  ) -> Message:
    """Write a message (RFC 5322).

    Args:
        message_info: 'From', 'To' (a string or a list of strings),
            'Subject', and perhaps 'Cc', 'Bcc', 'Date'; any other key is a
            further header field.
        message_text: The text, of any number of lines.
        attachments: Paths of files.
        html: The same text for readers that show HTML, or None.

    Returns:
        The message.

    Raises:
        SMTPMessageError: It cannot be sent as it is given.
    """
    fields = {key.title() if key.lower() in OWN_FIELDS else key: value
              for key, value in message_info.items()}
    if len(fields) < len(message_info):
        raise SMTPMessageError('a header field is given twice.')
    sender, to, cc, bcc = (take_addresses(fields, name)
                           for name in ('From', 'To', 'Cc', 'Bcc'))
    if len(sender.addresses) != 1:
        raise SMTPMessageError('From needs one address, and one only.')
    recipients = each_once(to.addresses + cc.addresses + bcc.addresses)
    if not recipients:
        raise SMTPMessageError('there is no recipient.')
    if not to.words and not cc.words:
        # An empty group: it says to people that there is somebody, not who.
        to = AddressList(['undisclosed-recipients:;'], [])
    message_id = make_message_id(sender.addresses[0])
    subject = check_text('Subject', fields.pop('Subject', ''))
    date = fields.pop('Date', '') or get_formatted_date()
    if not re.fullmatch(f'[ -~]{{1,{HEADER_LINE}}}', date):
        raise SMTPMessageError(
            f'Date: {date[:100]!r} is not a short line of ASCII.')
    header = ''.join([
        fold('From', sender.words),
        fold('To', to.words) if to.words else '',
        fold('Cc', cc.words) if cc.words else '',
        fold('Subject', unstructured('Subject', subject)),
        fold('Date', [date]),
        fold('Message-ID', [message_id]),
        *(further_fields(*field) for field in fields.items()),
        fold('MIME-Version', ['1.0'])])
    body = text_part(message_text)
    if html is not None:
        body = multipart('alternative', [body, text_part(html, 'html')])
    if attachments:
        body = multipart('mixed', [
            body, *(attachment_part(path) for path in attachments)])
    start = Piece(f'{header}{body.fields}{CRLF}'.encode())
    return Message(sender.addresses[0], recipients, message_id,
                   join_pieces([start, *body.pieces]),
                   needs_smtputf8=not f'{header}{recipients}'.isascii(),
                   bcc_fields=fold('Bcc', bcc.words) if bcc.words else '')


def check_lines(lines: bytes) -> None:
    """Refuse lines that no server would take (RFC 5321 section 4.5.3.1.6).

    Raises:
        SMTPMessageError: A line is too long, or has a NUL.
    """
    if re.search(b'(?m)^.{%d}' % (MAX_TEXT_LINE + len(CRLF)), lines):
        raise SMTPMessageError(
            f'the message has a line of more than {MAX_TEXT_LINE} octets.',
            advice=f'{YOU}: let your mail program write it in '
            'quoted-printable or base64.')
    if b'\0' in lines:
        raise SMTPMessageError(
            'the message has a NUL octet, which mail cannot carry.',
            advice=f'{YOU}: let your mail program write it in base64.')


class StoredBody(Piece):
    """The body of a finished message, read from its file while it is sent.

    Attributes:
        is_ascii: Whether all its octets are.
    """

    def __init__(self, path: str, file: BinaryIO) -> None:
        """Look through the file, which stands at the start of the body."""
        super().__init__(b'')
        self.is_ascii = True
        self._path = path
        self._file = file
        self._start = file.tell()
        self._state = state_of(file)
        for lines in self._read():
            self.size += len(lines)
            self.is_ascii = self.is_ascii and lines.isascii()
            check_lines(lines)

    def _read(self) -> Iterator[bytes]:
        """Yield the lines of the file, many at a time, their ends mended."""
        self._file.seek(self._start)
        lines, more = b'', True
        while more:
            octets = self._file.read(BLOCK)
            lines, more = lines + octets, bool(octets)
            # A CR at the very end may be the first half of a CRLF.
            end = len(lines) if not more else 1 + max(
                lines.rfind(b'\n'), lines.rfind(b'\r', 0, -1))
            check_lines(lines[end:])
            yield mend_line_ends(lines[:end].decode('latin-1')).encode(
                'latin-1')
            lines = lines[end:]

    def chunks(self) -> Iterator[bytes]:
        """Yield the lines of the body, many at a time.

        Raises:
            SMTPMessageError: The file has changed since it was looked at;
                see file_changed.
        """
        left = self.size
        for lines in self._read():
            left -= len(lines)
            yield lines
        if left or state_of(self._file) != self._state:
            raise file_changed(self._path)

    def outline(self, head: int = 20, tail: int = 0
                ) -> Iterator[tuple[str, str]]:
        """Yield what a transcript shows of the body: its first lines."""
        first = next(self._read(), b'')
        yield from Piece(first).outline(head, 1)
        if len(first) < self.size:
            yield '--', f'({self.size:,} octets in all)'


def read_header(file: BinaryIO) -> list[str]:
    """Read the header of a finished message, up to its empty line.

    Returns:
        Its fields, each with its folded lines and its CRLF; octets that are
        not UTF-8 as surrogates.

    Raises:
        SMTPMessageError: This is no header.
    """
    fields: list[list[str]] = []
    for number, octets in enumerate(
            iter(functools.partial(file.readline, BLOCK), b''), 1):
        line = octets.rstrip(b'\r\n').decode('utf-8', 'surrogateescape')
        line = line.lstrip('\ufeff')    # a mark that some editors leave
        if not line:
            break
        if line.startswith((' ', '\t')) and fields and '\r' not in line:
            fields[-1].append(line + CRLF)
        elif re.match('[!-9;-~]+[ \t]*:', line) and '\r' not in line:
            fields.append([line + CRLF])
        elif number > 1 or not line.startswith('From '):    # as in a mailbox
            raise SMTPMessageError(
                f'line {number} is no header field: {line[:80]}',
                advice=f'{YOU}: a finished message begins with its header '
                'fields, and an empty line ends them.')
        check_lines(octets.rstrip(b'\r\n') + CRLF.encode())
    return [''.join(lines) for lines in fields]


def values_of(fields: Sequence[str]) -> dict[str, list[str]]:
    """Return the values of header fields by their names in small letters."""
    values: dict[str, list[str]] = {}
    passed_on_before = False
    for field in fields:
        name, _, value = field.partition(':')
        name = name.strip().lower()
        # One who passes a message on puts fields of his own above the others.
        if name.startswith('resent-') and (passed_on_before or name in values):
            passed_on_before = True
            continue
        values.setdefault(name, []).append(
            re.sub('[\r\n\ud800-\udfff]', '', value).strip())
    return values


def read_message(file: BinaryIO, path: str, sender: str | None = None,
                 recipients: Sequence[str] = ()) -> Message:
    """Take a finished message, as from a mail program, to be sent as it is.

    Bcc is taken out, a missing Date or Message-ID is put in, and the line
    ends of the body are mended; all else stays as it is.

    Args:
        file: The message, a regular file.
        path: Its name, for errors.
        sender: For the envelope; None: as the header says.
        recipients: For the envelope; none: as the header says.

    Returns:
        The message.

    Raises:
        SMTPMessageError: It cannot be sent as it is.
    """
    fields = read_header(file)
    values = values_of(fields)

    def addresses(*names: str) -> list[str]:
        """Return the addresses in the fields of these names."""
        # Display names play no part here, and many lack the quotes they need.
        return [address for name in names for address in parse_addresses(
            name, *(re.sub('(?<![^,;:<>"()])[^,;:<>"()]+<', '<', value)
                    for value in values.get(name.lower(), []))).addresses]

    resent = 'Resent-' if 'resent-from' in values else ''
    senders = [sender] if sender else addresses(f'{resent}From')
    if len(senders) > 1:
        senders = addresses(f'{resent}Sender')
    if len(senders) != 1:
        raise SMTPMessageError(f'{path} has no address in From.',
                               advice=f'{YOU}: see --from.')
    to = each_once(recipients or addresses(
        f'{resent}To', f'{resent}Cc', f'{resent}Bcc'))
    if not to:
        raise SMTPMessageError(f'{path} names no recipient.',
                               advice=f'{YOU}: see --to.')
    bcc = re.compile('(?i)(resent-)?bcc[ \t]*:')
    bcc_fields = [field for field in fields if bcc.match(field)]
    header = ''.join(field for field in fields if not bcc.match(field))
    if 'date' not in values:
        header += fold('Date', [get_formatted_date()])
    message_id = values.get('message-id', [make_message_id(senders[0])])[0]
    if 'message-id' not in values:
        header += fold('Message-ID', [message_id])
    for field in fields:
        if re.search('[\ud800-\udfff]', field):
            raise SMTPMessageError(
                f'the header field {field.partition(":")[0]} is not UTF-8.',
                advice=f'{YOU}: let your mail program write encoded-words.')
    octets = (header + CRLF).encode()
    body = StoredBody(path, file)
    return Message(
        senders[0], to, message_id, [Piece(octets), body],
        needs_smtputf8=not f'{header}{senders}{to}'.isascii(),
        needs_8bitmime=not body.is_ascii, bcc_fields=''.join(bcc_fields))


# ---------------------------------------------------------------------------
# 12  smtp_send
#
# Here is the whole story. Once the connection is open, each call in deliver()
# is a part of the session in the docstring at the top of this file.
# ---------------------------------------------------------------------------


TLS_WAYS = ('starttls', 'implicit', 'none')


def usual_tls(port: int) -> str:
    """Return how TLS begins on a port, if nobody says."""
    return 'implicit' if port == IMPLICIT_TLS_PORT else 'starttls'


def check_login(user: str, secret: str) -> None:
    """Refuse a user name, password or token that is no text.

    Raises:
        SMTPConfigurationError: One of them is not UTF-8.
    """
    for what, text in ('user name', user), ('password', secret):
        if re.search('[\ud800-\udfff]', text):
            raise SMTPConfigurationError(f'the {what} is not UTF-8.')


def deliver(message: Message, password: str, *, server: str = SMTP_SERVER,
            port: int = SMTP_PORT, tls: str | None = None,
            ca_file: str | None = None, ehlo: str | None = None,
            timeout: float | None = None, family: int = 0, user: str = '',
            auth: str = 'auto', transcript: Transcript | None = None
            ) -> Receipt:
    """Send a message that is ready to be sent.

    Args:
        message: From build_message or read_message.
        password: The password of the user, or the token for XOAUTH2.
        server: A host name or an IP address.
        port: From 1 to 65535.
        tls: 'starttls', 'implicit' (TLS from the start), or 'none', which
            never logs in; None: as is usual on the port.
        ca_file: PEM file of the authorities to trust; None: the system's.
        ehlo: Our host's name or address literal; None: found out.
        timeout: Seconds for each reply; None: as long as is usual.
        family: socket.AF_INET, socket.AF_INET6, or 0 for both.
        user: The user name; '': the address of the sender.
        auth: 'auto', 'login', 'plain', 'xoauth2', or 'none'.
        transcript: Where to show the session; None: nowhere.

    Returns:
        The receipt.

    Raises:
        SMTPDeliveryUnknown: The message may have been sent. All the others
            mean that it was not.
        SMTPException: One of SMTPUsageError, SMTPMessageError,
            SMTPConfigurationError, SMTPConnectError, SMTPServerDisconnected,
            SMTPProtocolError, SMTPNotSupportedError, SMTPAuthenticationError,
            SMTPRecipientsRefused, SMTPResponseException, SMTPStopped: see
            section 3.
    """
    tls = usual_tls(port) if tls is None else tls
    if tls not in TLS_WAYS:
        raise SMTPUsageError(f'tls is one of {", ".join(TLS_WAYS)}.')
    transcript = transcript or Transcript()
    check_login(user, password)
    transcript.protect(password)
    transcript.begin(open_socket)
    context = tls_context(ca_file) if tls != 'none' else None
    sock = open_socket(server, port, family, timeout)
    with Connection(sock, transcript, timeout) as connection:
        try:
            # Nothing that is said in the clear is believed later, and nothing
            # secret is said; the login decides which mail may be sent; the
            # reply to the message decides whether it was.
            if context and tls == 'implicit':
                begin_tls(connection, context, server)
            read_greeting(connection)
            extensions = say_hello(connection, ehlo)
            if context and tls == 'starttls':
                start_tls(connection, extensions, context, server)
                extensions = say_hello(connection, ehlo, extensions)
            if context and auth != 'none':
                log_in(connection, extensions, user or message.sender,
                       password, auth)
            send_envelope(connection, extensions, message)
            receipt = send_message(connection, extensions, message)
        except (SMTPResponseException, SMTPNotSupportedError,
                SMTPMessageError, SMTPConfigurationError, SMTPStopped):
            say_goodbye(connection)
            raise
        say_goodbye(connection)
    return receipt


def smtp_send(password: str, message_info: Mapping[str, Any],
              message_text: str, *, attachments: Sequence[str] = (),
              html: str | None = None, **session: Any) -> Receipt:
    """Send an e-mail.

    Args:
        password: The password of the account that sends, or the access token
            if auth is 'xoauth2'.
        message_info: 'From', 'To' (a string or a list of strings),
            'Subject', and perhaps 'Cc', 'Bcc', 'Date'; any other key is a
            further header field.
        message_text: The text, of any number of lines.
        attachments: Paths of files.
        html: The same text for readers that show HTML, or None.
        **session: server, port, and what else deliver() takes.

    Returns:
        The receipt, with the server's reply and the Message-ID.

    Raises:
        SMTPException: The message was not sent, or, if the error's
            may_have_been_sent is true, nobody can know; deliver() lists
            the kinds.
    """
    message = build_message(message_info, message_text, attachments, html)
    return deliver(message, password, **session)


# ---------------------------------------------------------------------------
# 13  Typing by hand
#
# SMTP can be typed, and everybody who wants to know it should have done it
# once. With telnet the game ends at STARTTLS. Here the user types the
# commands, and this program does only what no human can do: the TLS
# handshake, base64, and not showing the password. A line that begins with an
# exclamation mark goes as it is, without any help. Where lines come from is
# the business of section 14, which hands over two functions that read them.
# ---------------------------------------------------------------------------

Prompt = Callable[[str], str]       # shows a text, and returns a line


def as_typed(line: str) -> str:
    """Turn what the user typed into a command: base64 is done for them."""
    user = re.fullmatch('(?i:AUTH LOGIN) (.+)', line)
    if user:
        return f'AUTH LOGIN {to_base64(user[1])}'
    return re.sub('^!', '', line)


def protect_typed(transcript: Transcript, answer: str) -> None:
    """Protect a secret that was typed, in base64 or not, by itself or last."""
    secret = re.split('[\0\1]', from_base64(answer.lstrip('!')).rstrip('\1'))[-1]
    for text in answer.lstrip('!'), secret, secret.split(' ')[-1]:
        transcript.protect(text)


def type_login(connection: Connection, reply: Reply, read_line: Prompt,
               read_secret: Prompt) -> Reply:
    """Let the user answer the challenges of a login.

    Args:
        connection: To the server, encrypted.
        reply: The first challenge.
        read_line: Reads a line.
        read_secret: Reads a line without showing it.

    Returns:
        The first reply that is no challenge.
    """
    transcript = connection.transcript
    echo = transcript.echo
    while reply.code == CHALLENGE:
        challenge = escape(from_base64(reply.text) or reply.text)
        answer, shown = '!*', ''        # "I give up", RFC 4954 section 4
        with contextlib.suppress(EOFError, SMTPUsageError):
            if re.match('(?i)(?!.*pass).*user', challenge):
                answer = read_line(f'{challenge} ')
            else:
                answer, shown = read_secret(f'{challenge} '), MASK
                check_login('', answer)
                protect_typed(transcript, answer)
        line = answer[1:] if answer.startswith('!') else to_base64(answer)
        transcript.echo = True          # what was typed was no base64
        reply = connection.send_command(line, shown=shown)
        transcript.echo = echo
    return reply


def type_message(connection: Connection, read_line: Prompt,
                 recipients: Sequence[str]) -> Receipt:
    """Let the user type the message, up to the line with only a dot.

    Args:
        connection: To the server, which has just said 354.
        read_line: Reads a line.
        recipients: To whom it goes.

    Returns:
        The receipt.

    Raises:
        SMTPStopped: The input has ended before.
    """
    connection.transcript.note(
        'Every line goes as you type it: to double a dot that begins a line '
        'is your part here. A line with only a dot ends the message.')
    try:
        for line in iter(functools.partial(read_line, 'C: '), '.'):
            if re.search('[\r\n\0]', line):
                connection.transcript.note('Not sent: it has a CR or NUL.')
                continue
            connection.transcript.client(line)
            connection.send_octets((line + CRLF).encode(
                'utf-8', 'surrogateescape'))
        connection.refuse_unasked()
    except EOFError:
        connection.close()      # without the final dot nothing is sent
        raise SMTPStopped('your input ended before the dot.') from None
    except SMTPException:
        connection.close()
        raise
    return send_final_dot(connection, ['.'], recipients, '')


def why_not(connection: Connection, line: str) -> str:
    """Say why a command is not sent although it was typed; '' if it is."""
    if re.match(r'(?i)[!\s]*AUTH\b', line) and not connection.encrypted:
        return ('base64 is no encryption, so everybody on the way could read '
                'it. Say STARTTLS first.')
    if re.match(r'(?i)[!\s]*BDAT\b', line):
        return 'BDAT counts octets, which nobody can type. Say DATA.'
    return ''


def type_command(connection: Connection, read_line: Prompt,
                 read_secret: Prompt, recipients: Sequence[str]
                 ) -> tuple[str, Reply]:
    """Let the user type one command, and what belongs to it.

    Args:
        connection: To the server.
        read_line: Reads a line.
        read_secret: Reads a line without showing it.
        recipients: Those that the server has taken so far.

    Returns:
        The command, and the last reply to it.
    """
    while True:
        try:
            line = read_line('C: ')
        except EOFError:
            line = 'QUIT'
        refused = why_not(connection, line)
        if not refused:
            break
        connection.transcript.note(f'Not sent: {refused}')
    line = as_typed(line)
    secret = re.match(r'(?i)(\s*AUTH\s+(?!LOGIN\b)\S+\s+)(.+)', line)
    if secret:
        protect_typed(connection.transcript, secret[2])
    reply = connection.send_command(
        line, shown=f'{secret[1]}{MASK}' if secret else '')
    if reply.code == CHALLENGE:
        reply = type_login(connection, reply, read_line, read_secret)
    elif reply.code == START_MAIL_INPUT:
        try:
            reply = type_message(connection, read_line, recipients).reply
        except SMTPResponseException as error:
            assert error.reply is not None
            if error.reply.code == NOT_AVAILABLE:
                raise
            reply = error.reply
    return line, reply


def follow_envelope(recipients: list[str], line: str, reply: Reply
                    ) -> list[str]:
    """Return the recipients that the server has taken, after a command."""
    if re.match('(?i)MAIL|RSET|EHLO', line):
        return []
    if re.match('(?i)RCPT', line) and reply.code in WELCOME['RCPT']:
        return [*recipients, line.partition(':')[2].strip('<> ')]
    return recipients


def talk(connection: Connection, context: ssl.SSLContext, host: str,
         read_line: Prompt, read_secret: Prompt) -> Receipt:
    """Let the user type the commands of a session.

    Args:
        connection: To the server, before its greeting.
        context: Says which certificates are trusted.
        host: The name that the certificate must carry.
        read_line: Reads a line.
        read_secret: Reads a line without showing it.

    Returns:
        The receipt of the last message that was sent.

    Raises:
        SMTPStopped: The session has ended, and no message was sent.
        SMTPException: The session cannot go on.
    """
    transcript = connection.transcript
    extensions: Extensions = {}
    recipients: list[str] = []
    reply = connection.read_reply(SERVICE_READY)
    try:
        while reply.code != SERVICE_CLOSING:
            line, reply = type_command(connection, read_line, read_secret,
                                       recipients)
            verb = line.upper().split(' ')[0]
            if verb == 'EHLO' and reply.code == COMPLETED:
                offered = read_extensions(connection.heard)
                transcript.explain_extensions(offered, extensions)
                extensions = offered
            elif verb == 'STARTTLS' and reply.code == SERVICE_READY:
                secure(connection, context, host)
            recipients = follow_envelope(recipients, line, reply)
    except SMTPDeliveryUnknown:
        raise
    except SMTPException as error:
        if transcript.receipt is None:
            raise
        transcript.note(f'{error}')
    if transcript.receipt is None:
        raise SMTPStopped('you ended the session, and sent no message.')
    return transcript.receipt


# ---------------------------------------------------------------------------
# 14  The command line
#
# What was not given as an option is asked for, in the order in which one
# writes a letter. The password is never an option, since everybody on a
# computer can read the command lines of all programs. The last word is the
# verdict: sent, not sent, or may have been sent. The exit code says the same
# to a script. A text that was typed and could not be sent is kept in a file.
#
# The order matters: what can be found wrong without the user (options, files,
# the text from a pipe) is found before the first question, and whatever was
# typed or piped is in a Draft from its first line on, so that no error and no
# signal can lose it.
# ---------------------------------------------------------------------------


# The options that go to deliver() under the same names.
SESSION_OPTIONS = ('server', 'port', 'tls', 'ca_file', 'ehlo', 'timeout',
                   'family', 'user', 'auth')


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are ours."""

    def error(self, message: str) -> NoReturn:
        """Raise SMTPUsageError, which becomes a verdict."""
        raise SMTPUsageError(re.sub(
            '(--pass[a-z]*)[= ].*', r'\1: a password is never an option, but '
            'see $SMTP_PASSWORD and --password-command', f'{message}.'))

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """End after --help or --version, even if nobody can read it."""
        try:
            print(end=message or '', flush=True)
        except OSError:
            abandon(sys.stdout)
        sys.exit(status)


def port_number(text: str) -> int:
    """Read a port, or raise ValueError."""
    if not re.fullmatch('[0-9]{1,5}', text) or not 0 < int(text) < 65536:
        raise ValueError
    return int(text)


def time_limit(text: str) -> float:
    """Read a number of seconds, or raise ArgumentTypeError."""
    if not re.fullmatch(r'\d*\.?\d+', text, re.ASCII) \
            or not 0 < float(text) <= MAX_TIMEOUT:
        raise argparse.ArgumentTypeError(
            f'{text!r} is no number of seconds up to {MAX_TIMEOUT}')
    return float(text)


def host_name(text: str) -> str:
    """Read the name of a server, or raise ArgumentTypeError."""
    if not re.fullmatch(r'[^\s\x00-\x1f/]+', text) \
            or re.fullmatch('[^:]*:[0-9]+', text):
        raise argparse.ArgumentTypeError(
            f'{text!r} is no name of a host (the port goes to --port)')
    return text.strip('[]')


def ehlo_name(text: str) -> str:
    """Read a host name or address literal, or raise ValueError."""
    return check_literal(text) if text.startswith('[') else ascii_domain(text)


def header_field(text: str) -> tuple[str, str]:
    """Read a header field that has no option, or raise ArgumentTypeError."""
    name, colon, value = text.partition(':')
    if not colon or name.lower() in OWN_FIELDS:
        raise argparse.ArgumentTypeError(
            f'{text!r} has no colon, or is a field that smtp.py writes itself')
    return name, value.strip(' ')


def make_parser() -> Parser:
    """Write down the options."""
    parser = Parser(
        prog='smtp.py', allow_abbrev=False,
        description='Send an e-mail by SMTP. What is not given is asked for.',
        epilog='The password comes from $SMTP_PASSWORD or a prompt, a token '
        'from $SMTP_ACCESS_TOKEN. Exit codes: 0 sent; 64 usage; 65 message '
        'or address; 66 file; 67 recipient refused; 68 no such host; 69 '
        'refused or not offered; 74 MAY HAVE BEEN SENT; 75 not sent, try '
        'later; 76 protocol or TLS; 77 login or permission; 78 settings; 130 '
        'interrupted.')
    option = parser.add_argument_group('the message').add_argument
    option('-f', '--from', dest='sender', metavar='ADDRESS',
           help="'user@host' or 'Name <user@host>'")
    for short, name in ('-t', '--to'), ('-c', '--cc'), ('-b', '--bcc'):
        option(short, name, metavar='ADDRESS', action='append', default=[],
               help='several with commas between, or the option repeated')
    option('-s', '--subject', metavar='TEXT')
    option('--body', metavar='TEXT|@FILE|-',
           help="the text, or where it stands; '-' is standard input")
    option('--html', metavar='TEXT|@FILE', help='the same text in HTML')
    option('-a', '--attach', metavar='FILE', action='append', default=[],
           help='may be repeated')
    option('-H', '--header', metavar="'NAME: VALUE'", action='append',
           default=[], type=header_field,
           help='a further header field; may be repeated')
    option('--message', metavar='FILE|-', help='send this finished message '
           'to those whom it names; Bcc is taken out')
    option('recipients', nargs='*', metavar='ADDRESS',
           help='with --message: send it to these instead')
    option('-i', action='store_true', help=argparse.SUPPRESS)   # what callers
    option('-o', help=argparse.SUPPRESS)            # of sendmail say: -i, -oi
    option('--timezone', metavar='NAME', help='zone of the Date field')
    option('--timezones', action='store_true', help='list the names of zones')
    option = parser.add_argument_group('the server').add_argument
    option('--server', metavar='HOST', type=host_name, default=SMTP_SERVER,
           help='default: %(default)s')
    option('-p', '--port', metavar='N', type=port_number, default=SMTP_PORT,
           help='default: %(default)s')
    option('--tls', choices=TLS_WAYS,
           help='default: starttls, implicit on port 465; none never logs in')
    option('--ca-file', metavar='FILE',
           help='trust the authorities in this PEM file')
    option('--ehlo', metavar='NAME', type=ehlo_name,
           help='our name for the server')
    option('--timeout', metavar='SECONDS', type=time_limit,
           help='for each reply; default: 60, and 600 for the last one')
    option('-4', dest='family', action='store_const', default=0,
           const=socket.AF_INET, help='use IPv4 only')
    option('-6', dest='family', action='store_const',
           const=socket.AF_INET6, help='use IPv6 only')
    option = parser.add_argument_group('the login').add_argument
    option('-u', '--user', metavar='NAME', default='',
           help='default: the address of --from')
    option('--auth', default='auto', type=str.lower, choices=(
        'auto', *(name.lower() for name in MECHANISMS), 'none'),
           help='default: XOAUTH2 with a token, else LOGIN or PLAIN')
    option('--password-command', metavar='COMMAND',
           help='the first line of its output is the password or token')
    option = parser.add_argument_group('what is shown').add_argument
    option('-v', '--verbose', action='store_true',
           help='the transcript, on standard error')
    option('--explain', action='store_true',
           help='the transcript, with each stage explained')
    option('--step', action='store_true',
           help='wait for Enter before each command')
    option('-q', '--quit-after', choices=REACHED, default='', metavar='STAGE',
           help='end the session there: ' + ', '.join(REACHED))
    option('-n', '--dry-run', action='store_true',
           help='print the message, and send nothing')
    option('--talk', action='store_true', help='type the commands by hand')
    option('--diagram', metavar='FILE',
           help='draw the session, as a Mermaid sequence diagram')
    option('--version', action='version', version=f'smtp.py {__version__}')
    return parser


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line, and fill in what follows from it.

    Raises:
        SMTPUsageError: It makes no sense.
    """
    options = make_parser().parse_args(arguments)
    options.tls = options.tls or usual_tls(options.port)
    finished = options.message is not None
    for wrong, why in (
            (options.tls == 'none' and (
                options.auth not in ('auto', 'none')
                or options.quit_after in ('tls', 'auth')),
             '--tls none never logs in: without encryption everybody on the '
             'way could read the password.'),
            (options.auth == 'none' and options.quit_after == 'auth',
             '--auth none does not log in.'),
            (options.html is not None and options.body is None,
             '--html needs --body: some readers, and many filters against '
             'spam, want the text in plain letters too.'),
            (finished and (options.attach or options.header or not (
                options.subject is options.body is options.html is None)),
             '--message sends a message that is finished: subject, text and '
             'files are in it.'),
            (options.recipients and not finished,
             'addresses without --to go with --message only.'),
            (options.step and not is_terminal(sys.stdin),
             '--step needs a terminal for your Enter.')):
        if wrong:
            raise SMTPUsageError(why)
    return options


# What the user is asked


def say(text: str, *names: str) -> None:
    """Print a line of text, whatever its letters, where it can be read.

    Args:
        text: Anything; it is made safe to print.
        *names: 'stdout' or 'stderr'; the first one that takes it is used.
    """
    for name in names:
        stream = getattr(sys, name)
        try:
            encoding = stream.encoding or 'utf-8'
            for line in text.split('\n'):
                print(escape(line).encode(encoding, 'backslashreplace')
                      .decode(encoding), file=stream)
            stream.flush()
            return
        except (OSError, ValueError, AttributeError):
            abandon(stream)


def ask_line(label: str, option: str) -> str:
    """Ask for one line.

    Args:
        label: What to ask for.
        option: The option that would have given it.

    Raises:
        SMTPUsageError: There is nobody to answer.
    """
    if not is_terminal(sys.stdin):
        raise SMTPUsageError(
            f'{option} is missing, and there is no terminal to ask on.')
    print(f'{label}: ', end='', file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not answer:
        print(file=sys.stderr)
        raise SMTPUsageError(f'{option} is missing.')
    return answer.rstrip('\r\n')


def ask_secret(prompt: str) -> str:
    """Ask for the password on the terminal, without showing it.

    Raises:
        SMTPUsageError: There is no terminal, or no answer.
        SMTPConfigurationError: The answer is not UTF-8.
    """
    import getpass
    import warnings
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('error', getpass.GetPassWarning)
            return getpass.getpass(prompt)
    except EOFError:
        print(file=sys.stderr)
        raise SMTPUsageError('no password was given.') from None
    except UnicodeDecodeError:
        raise SMTPConfigurationError('the password is not UTF-8.') from None
    except (getpass.GetPassWarning, OSError):
        raise SMTPUsageError(
            'there is no terminal to ask for the password on.',
            advice='Put it in $SMTP_PASSWORD, or use --password-command; or '
            '--auth none if the server wants no login.') from None


def ask_command(prompt: str) -> str:
    """Ask for a command, which can be edited; EOFError at the end."""
    if is_terminal(sys.stdin) and is_terminal(sys.stdout):
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 (input() then uses it)
        try:
            return input(prompt)
        except EOFError:
            print(file=sys.stderr)      # the verdict begins a line
            raise
    if is_terminal(sys.stdin):
        print(prompt, end='', file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip('\r\n')


def ask_sender(options: argparse.Namespace) -> None:
    """Ask for the sender, if the session needs one, and look at it.

    Raises:
        SMTPMessageError: It is not one address.
    """
    if options.message or options.quit_after in ('connect', 'ehlo', 'tls') \
            or options.quit_after == 'auth' and options.user:
        return
    options.sender = options.sender or ask_line('From', '--from')
    if len(parse_addresses('From', options.sender).addresses) != 1:
        raise SMTPMessageError('From needs one address, and one only.')


def warn_of_login(user: str, sender: str) -> None:
    """Warn of a user name that is the address of somebody else."""
    if '@' in user and sender and user.lower() != sender.lower():
        say(f'smtp.py: note: the login is {user}, but From is {sender}, which '
            'many servers refuse without the right "Send As".', 'stderr')


def run_password_command(command: str) -> str:
    """Run the command that knows the password; no shell is involved.

    Args:
        command: A program and its arguments, quoted as for a shell.

    Returns:
        The first line of its output.

    Raises:
        SMTPConfigurationError: It failed.
    """
    import shlex
    import subprocess
    problem = 'the first line that it printed is empty.'
    try:
        done = subprocess.run(shlex.split(command) or [''], check=True,
                              capture_output=True, stdin=subprocess.DEVNULL)
        secret = done.stdout.split(b'\n')[0].decode().rstrip('\r')
        if secret:
            return secret
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode('utf-8', 'backslashreplace').strip()
        problem = f'exit code {error.returncode}: {said}'
    except UnicodeDecodeError:
        problem = 'what it printed is not UTF-8.'
    except (OSError, ValueError) as error:
        problem = getattr(error, 'strerror', None) or str(error)
    program = command.split()[:1]       # without its arguments: too long
    raise SMTPConfigurationError(
        f'--password-command failed: {"".join(program)}: {problem}',
        advice=f'{YOU}: try the command by itself, until it prints the '
        'password.')


def find_secret(options: argparse.Namespace, password: str, token: str) -> str:
    """Get the password or token from where the user keeps it.

    Args:
        options: From the command line; their auth becomes 'xoauth2' if a
            token was given.
        password: From the environment, or ''.
        token: From the environment, or ''.

    Returns:
        The secret; '' if there is no login.
    """
    early = options.quit_after in ('connect', 'ehlo', 'tls')
    if early or options.dry_run or 'none' in (options.tls, options.auth):
        return ''
    if options.password_command is not None:
        return run_password_command(options.password_command)
    if token and options.auth in ('auto', 'xoauth2'):
        options.auth = 'xoauth2'
        return token
    return password or ask_secret('Password: ')


# The message


def decode_text(octets: bytes) -> str:
    """Read octets as UTF-8, or as UTF-16 if they begin with its mark.

    Raises:
        SMTPMessageError: They are neither.
    """
    marked = octets.startswith((b'\xff\xfe', b'\xfe\xff'))
    try:
        return octets.decode('utf-16' if marked else 'utf-8-sig')
    except UnicodeDecodeError as error:
        raise SMTPMessageError(
            f'the text is not UTF-8: octet {error.object[error.start]:#04x} '
            f'at offset {error.start}.',
            advice=f'{YOU}: convert it first, for example with iconv.'
        ) from None


def text_of(value: str) -> str:
    """Return the text of an option: itself, or that of a file after @."""
    if not value.startswith('@'):
        return value
    with open_file(value[1:]) as file:
        return decode_text(file.read())


class Draft:
    """What the user typed or piped, which must not be lost.

    Attributes:
        ending: What its file will be: 'txt', or 'eml' for a finished message.
        raw: What was typed or piped, as far as it has come; or None.
        message: The message that was made of it, or None.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self.ending = 'txt'
        self.raw: BinaryIO | None = None
        self.message: Message | None = None

    def read(self, file: BinaryIO) -> BinaryIO:
        """Read a pipe to its end.

        Args:
            file: Where to put what comes.

        Returns:
            The same file, from its start.
        """
        self.raw = file
        if sys.stdin:
            pipe = cast(io.BufferedReader, sys.stdin.buffer)
            for octets in iter(functools.partial(pipe.read1, BLOCK), b''):
                file.write(octets)
        file.seek(0)
        return file

    def type(self) -> str:
        """Let the user type the text, up to a line that holds only a dot."""
        print('Text, ended by a line with only a dot:', file=sys.stderr,
              flush=True)
        self.raw = typed = io.BytesIO()
        for line in iter(sys.stdin.readline, ''):
            if line.rstrip('\r\n') == '.':
                break
            typed.write(line.encode('utf-8', 'surrogateescape'))
        return decode_text(typed.getvalue())

    def contents(self) -> Iterator[tuple[str, Iterable[bytes]]]:
        """Yield what can be kept, best first: the file's ending, the octets."""
        if self.raw is None or not self.raw.seek(0, os.SEEK_END):
            return
        if self.message is not None:
            yield 'eml', itertools.chain([self.message.bcc_fields.encode()],
                                         self.message.chunks())
        self.raw.seek(0)
        yield self.ending, iter(functools.partial(self.raw.read, BLOCK), b'')


def create_file(folder: str, name: str, ending: str) -> tuple[int, str]:
    """Create a file that nobody else can read.

    Returns:
        Its descriptor and its path; a number is added to a name in use.

    Raises:
        OSError: That was not possible.
    """
    number = 2
    while True:
        path = os.path.normpath(os.path.join(folder, f'{name}.{ending}'))
        try:
            # O_EXCL: never over a file, never through a link.
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL
                           | getattr(os, 'O_BINARY', 0), 0o600), path
        except FileExistsError:
            name, number = f'{name.partition("_")[0]}_{number}', number + 1


def write_file(descriptor: int, path: str, chunks: Iterable[bytes]) -> None:
    """Write a file, or leave none behind."""
    try:
        with open(descriptor, 'wb') as file:
            file.writelines(chunks)
    except BaseException:
        os.unlink(path)
        raise


def envelope_of(options: argparse.Namespace) -> list[str]:
    """Return the recipients that the command line names."""
    return parse_addresses('the command line', *options.recipients,
                           *options.to, *options.cc, *options.bcc).addresses


def open_message(options: argparse.Namespace, draft: Draft) -> Message:
    """Open the finished message of --message.

    Args:
        options: From the command line.
        draft: Keeps what comes from a pipe.
    """
    sender = parse_addresses('--from', options.sender).addresses[0] \
        if options.sender else None
    if options.message == '-':
        import tempfile
        draft.ending = 'eml'
        spool = cast(BinaryIO, tempfile.TemporaryFile())
        file, path = draft.read(spool), 'standard input'
    else:
        file, path = open_file(options.message), options.message
    message = read_message(file, path, sender, envelope_of(options))
    if options.message == '-':
        draft.message = message
    return message


def write_message(options: argparse.Namespace, draft: Draft,
                  piped: str | None) -> Message:
    """Gather what makes a mail, and ask for the rest.

    Args:
        options: From the command line; answers are put there.
        draft: Keeps what is typed.
        piped: The text that came from a pipe, or None.
    """
    info: dict[str, Any] = {'From': options.sender}
    if not (options.to or options.cc or options.bcc):
        options.to = [ask_line('To', '--to')]
    for field, values in (('To', options.to), ('Cc', options.cc),
                          ('Bcc', options.bcc)):
        take_addresses({field: values}, field)      # complains at once
        if values:
            info[field] = values
    for name, value in options.header:
        info.setdefault(name, []).append(value)
    if options.subject is None:
        options.subject = ask_line('Subject', '--subject')
    info['Subject'] = options.subject
    info['Date'] = get_formatted_date(options.timezone)
    html = None if options.html is None else text_of(options.html)
    if piped is None and options.body not in (None, '-'):
        return build_message(info, text_of(options.body), options.attach, html)
    if piped is None:
        build_message(info, '', options.attach, html)   # before the typing
        piped = draft.type()
    draft.message = build_message(info, piped, options.attach, html)
    return draft.message


def write_envelope(options: argparse.Namespace) -> Message:
    """Gather no more than what --quit-after needs."""
    recipients = []
    if options.quit_after == 'rcpt':
        recipients = envelope_of(options) or parse_addresses(
            'To', ask_line('To', '--to')).addresses
    senders = parse_addresses('From', options.sender or '').addresses
    return Message((senders or [''])[0], each_once(recipients), '', [])


def check_files(options: argparse.Namespace) -> None:
    """Make sure that all files can be read, before any question."""
    texts = [value[1:] for value in (options.body, options.html)
             if value and value.startswith('@')]
    message = [] if options.message in (None, '-') else [options.message]
    for path in [*options.attach, *texts, *message]:
        open_file(path).close()


# The verdict


def resend_command(options: argparse.Namespace, path: str) -> str:
    """Write the command that sends what was kept.

    Args:
        options: Of the attempt that failed.
        path: Of the file, which takes the place of some of them.
    """
    import shlex
    finished = path.endswith('eml')
    left_out = {'message', 'body', 'verbose', 'explain', 'step', 'diagram',
                'quit_after', 'talk', 'timezones', 'i', 'o'}
    if finished:
        left_out |= {'subject', 'html', 'attach', 'header', 'timezone'}
    if finished and not options.message:
        left_out |= {'sender', 'to', 'cc', 'bcc'}
    usual = make_parser().parse_args([])
    usual.tls = usual_tls(options.port)
    words = ['--message', path] if finished else ['--body', f'@{path}']
    for name, value in vars(options).items():
        if name in left_out or value == getattr(usual, name):
            continue
        option = {'sender': '--from', 'recipients': '--to'}.get(
            name, f'--{name.replace("_", "-")}')
        if name == 'family':
            words.append('-6' if value == socket.AF_INET6 else '-4')
            continue
        for one in value if isinstance(value, list) else [value]:
            text = ': '.join(one) if isinstance(one, tuple) else str(one)
            words += [option, text] if not text.startswith('-') \
                else [f'{option}={text}']
    return shlex.join([sys.executable or 'python', sys.argv[0], *words])


def keep_draft(options: argparse.Namespace, draft: Draft,
               error: BaseException) -> str:
    """Keep what was typed or piped, and say how to send it.

    Args:
        options: From the command line.
        draft: What there is to keep, if anything.
        error: Why it was not sent.

    Returns:
        Lines for the user; '' if there was nothing to keep.
    """
    if not any(draft.contents()):
        return ''
    import tempfile
    name = time.strftime('unsent-%Y%m%d-%H%M%S')
    folders = [os.curdir]
    with contextlib.suppress(OSError):
        folders.append(tempfile.gettempdir())
    for folder in folders:
        for ending, chunks in draft.contents():
            try:
                descriptor, path = create_file(folder, name, ending)
                write_file(descriptor, path, chunks)
            except (OSError, SMTPException):
                continue
            when = 'If it has not arrived, send' \
                if isinstance(error, SMTPDeliveryUnknown) else 'Send'
            return (f'\nYour text is kept in {path}. {when} it with:\n'
                    + resend_command(options, path))
    *_, (_, chunks) = draft.contents()
    text = b''.join(chunks).decode('utf-8', 'backslashreplace')
    return ('\nYour text could not be kept in a file. Here it is:\n' + text)


def run_talk(options: argparse.Namespace, transcript: Transcript) -> None:
    """Open a connection for the user to talk on."""
    transcript.echo = not is_terminal(sys.stdin)
    context = tls_context(options.ca_file)
    sock = open_socket(options.server, options.port, options.family,
                       options.timeout)
    with Connection(sock, transcript, options.timeout) as connection:
        if options.tls == 'implicit':
            connection.encrypt(context, options.server)
        talk(connection, context, options.server, ask_command, ask_secret)


def run(options: argparse.Namespace, draft: Draft, transcript: Transcript,
        password: str, token: str) -> None:
    """Do what the options ask for; the transcript has the receipt then.

    Args:
        options: From the command line.
        draft: Keeps what is typed or piped.
        transcript: Shows the session.
        password: From the environment, or ''.
        token: From the environment, or ''.
    """
    if options.timezones:
        print_all_timezones()
        return
    if options.talk:
        run_talk(options, transcript)
        return
    piped = None
    if options.message == '-':
        message = open_message(options, draft)
    elif options.body in (None, '-') and options.message is None \
            and not options.quit_after and not is_terminal(sys.stdin):
        piped = decode_text(draft.read(io.BytesIO()).read())
    check_files(options)
    ask_sender(options)
    secret = find_secret(options, password, token)
    if options.message not in (None, '-'):
        message = open_message(options, draft)
    elif options.message is None and options.quit_after:
        message = write_envelope(options)
    elif options.message is None:
        message = write_message(options, draft, piped)
    warn_of_login(options.user, message.sender)
    if options.dry_run:
        for chunk in message.chunks():
            sys.stdout.buffer.write(chunk)
        sys.stdout.flush()
        return
    session = {name: getattr(options, name) for name in SESSION_OPTIONS}
    deliver(message, secret, transcript=transcript, **session)


def make_transcript(options: argparse.Namespace) -> Transcript:
    """Make the transcript that the options ask for."""
    shown = options.verbose or options.explain or options.step or options.talk
    return Transcript(
        sys.stderr if shown else None, explain=options.explain,
        ask=ask_command if options.step else None,
        quit_after=options.quit_after,
        meter=sys.stderr if is_terminal(sys.stderr) else None)


def write_diagram(path: str, transcript: Transcript) -> None:
    """Write the diagram; whatever comes of it, the mail is not affected."""
    try:
        with open(path, 'w', encoding='utf-8') as file:
            file.write(transcript.diagram())
    except OSError as error:
        say(f'smtp.py: note: the diagram could not be written to {path}: '
            f'{error.strerror}.', 'stderr')


def verdict_on(error: BaseException) -> tuple[str, int]:
    """Say what an error means for the message, and how to exit."""
    if isinstance(error, SMTPException):
        verdict = 'May have been sent' if error.may_have_been_sent \
            else 'Not sent'
        return f'{verdict}: {error}', error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return 'Not sent: interrupted.', (error.args or [EXIT_INTERRUPTED])[0]
    if isinstance(error, OSError):
        return f'Not sent: {error}', EXIT_TRY_LATER
    # Not the text of a UnicodeError, which quotes all that it could not read.
    told = type(error).__name__ if isinstance(error, UnicodeError) \
        else repr(error)
    return (f'Not sent: a fault of smtp.py itself, please report it: {told}',
            EXIT_BUG)


def report(error: BaseException, options: argparse.Namespace,
           draft: Draft) -> int:
    """Say what became of the message, and keep what was typed or piped.

    Returns:
        The exit code.
    """
    verdict, exit_code = verdict_on(error)
    kept = '' if options.dry_run else keep_draft(options, draft, error)
    say(f'smtp.py: {verdict}{kept}', 'stderr')
    if isinstance(error, OSError):
        abandon(sys.stdout)             # it may be full, or nobody reads it
    return exit_code


def unknown_behind(error: BaseException | None) -> SMTPDeliveryUnknown | None:
    """Find the error that an interrupt came on top of, if it is that one."""
    while error and not isinstance(error, SMTPDeliveryUnknown):
        error = error.__context__
    return cast('SMTPDeliveryUnknown | None', error)


Result = TypeVar('Result')


def undisturbed(action: Callable[[], Result]) -> Result:
    """Do something, and again if it is interrupted: see interrupt_once."""
    try:
        return action()
    except KeyboardInterrupt:
        return action()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        argv: The arguments; None: those of the command line.

    Returns:
        The exit code.
    """
    password = os.environ.pop('SMTP_PASSWORD', '')
    token = os.environ.pop('SMTP_ACCESS_TOKEN', '').strip()
    options, draft = argparse.Namespace(dry_run=False, diagram=None), Draft()
    transcript = Transcript()
    failure: BaseException | None = None
    try:
        try:
            options = parse_options(argv)
            transcript = make_transcript(options)
            run(options, draft, transcript, password, token)
        except Exception as error:
            failure = error
            time.sleep(0)       # a signal that came with it is raised here
    except KeyboardInterrupt as error:
        failure = failure or unknown_behind(error) or error
    if options.diagram:
        write_diagram(options.diagram, transcript)
    if isinstance(failure, KeyboardInterrupt) and is_terminal(sys.stderr):
        say('', 'stderr')               # end the line that was interrupted
    # An interrupt changes nothing about what was sent before it.
    if failure and (isinstance(failure, SMTPException)
                    or transcript.receipt is None):
        return undisturbed(functools.partial(report, failure, options, draft))
    if transcript.receipt:
        undisturbed(functools.partial(
            say, str(transcript.receipt), 'stdout', 'stderr'))
    return EXIT_SENT


SIGNALS = [getattr(signal, name) for name in ('SIGINT', 'SIGTERM', 'SIGHUP')
           if hasattr(signal, name)]            # Windows has no SIGHUP


def interrupt_once() -> Callable[[int, object], None]:
    """Make a handler of signals that raises KeyboardInterrupt, but once only.

    What follows the first one, to keep a text and to say what became of it,
    is not to be disturbed.
    """
    first = iter([True])

    def handle(number: int, _: object) -> None:
        """Raise KeyboardInterrupt with the exit code, the first time."""
        if next(first, False):
            for other in SIGNALS:
                signal.signal(other, signal.SIG_IGN)
            raise KeyboardInterrupt(
                EXIT_INTERRUPTED if number == signal.SIGINT
                else EXIT_TERMINATED)
    return handle


if __name__ == '__main__':
    handler = interrupt_once()
    for handled in SIGNALS:
        signal.signal(handled, handler)
    sys.exit(main())
