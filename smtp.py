#!/usr/bin/env python3
# /// script
# requires-python = ">=3.9"
# dependencies = ["pytz>=2024.1", "tzlocal>=5.3"]
# ///
"""Send e-mail by speaking SMTP, line by line, over a socket.

Python's smtplib and email packages do all this. Here it is done by hand, so
that it can be seen.

This is a whole session with Office 365, as it looks on the wire. `C:` marks
what we, the client, send; `S:` what the server answers; on the right is the
function, defined below, that does it.

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
                                   (the user name, in base64)
    S: 334 UGFzc3dvcmQ6            ("Password:", in base64)
    C: ********                    (the password, in base64)
    S: 235 2.7.0 Authentication successful
    C: MAIL FROM:<alice@example.com> SIZE=431               send_envelope
    C: RCPT TO:<bob@example.org>
    C: DATA                        (MAIL, RCPT and DATA go out together)
    S: 250 2.1.0 Sender OK
    S: 250 2.1.5 Recipient OK
    S: 354 Start mail input; end with <CRLF>.<CRLF>
    C: From: alice@example.com                              send_message
    C: To: bob@example.org
    C: Subject: Lunch
    C: Date: Mon, 23 Nov 2026 12:00:00 +0100
    C: (the other header fields, an empty line, the text)
    C: .
    C: QUIT                        (the dot and QUIT go out together)
    S: 250 2.0.0 OK, queued                                 this decides: sent
    S: 221 2.0.0 Service closing transmission channel       say_goodbye

The same story as code is the end of deliver(), in section 12: twenty lines
that call the functions on the right. Every name is defined above the place
where it is used, so the story comes after the things that it is made of.
Whoever wants SMTP only reads sections 2 and 5 to 8, and then deliver().

Contents:

     1  Constants          ports, reply codes, limits, exit codes
     2  Replies            what the server says
     3  Verdicts           sent, or an error that says whose turn it is
     4  The transcript     what the user sees of the session
     5  The connection     lines and replies over a socket
     6  Opening            greeting, EHLO, STARTTLS, EHLO again
     7  Who we are         AUTH LOGIN, AUTH PLAIN, AUTH XOAUTH2
     8  One mail           envelope, message, goodbye
     9  Header fields      encoded-words, addresses, folding, dates
    10  Parts              text, attachments
    11  The message        header fields and parts put together
    12  smtp_send          the whole story
    13  The user           questions and answers at a keyboard
    14  The lab            a session that is explained, drawn, typed by hand
    15  Options            the command line
    16  The draft          what was typed is not lost
    17  The program        password, message, verdict, main

Each of these words is used for one thing only: a *command* is a line that the
client sends; a *reply* is the server's answer, and begins with a *reply code*
of three digits; an *extension* is something that the server offers in its
reply to EHLO; the *envelope* (MAIL and RCPT) says where the *message* goes;
the message is *header fields*, an empty line, and a *body* of one or more
*parts*; the *final dot* is the line that ends it; a *mail* is envelope and
message; a *mechanism* is a way to log in, in which the server poses
*challenges* and the client gives *responses*; the *transcript* is what is
shown of a session; an *octet* is eight bits.

To read on: RFC 5321 (SMTP), 5322 (messages), 3207 (STARTTLS), 4954 (AUTH),
2920 (PIPELINING), 1870 (SIZE), 6152 (8BITMIME), 6531 (SMTPUTF8), 3463
(enhanced status codes), 2045 to 2047 (MIME), 2231 (file names).

Course:  CS2911
Lab:     SMTP
Names:   (the members of the team)
"""

# What not every run needs is imported by the function that needs it: each
# import takes time.
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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import (
    Any,
    AnyStr,
    BinaryIO,
    NamedTuple,
    NoReturn,
    Protocol,
    TextIO,
    TypeVar,
    cast,
)

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
MASK = '********'           # shown in place of a secret

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

MAX_GROUP = 100             # commands sent before their replies are read

# Times in seconds
REPLY_TIMEOUT = 60.0            # RFC 5321 says 300; but a person waits here
FINAL_REPLY_TIMEOUT = 600.0     # RFC 5321 4.5.3.2.6: after the final dot
NEXT_ADDRESS_TIMEOUT = 10.0     # for an address while there are others to try
QUIT_TIMEOUT = 5.0
MAX_TIMEOUT = 86400             # a day; the system counts in milliseconds
NOW = 0.0                       # a deadline that has passed: do not wait

EXIT_OK = 0
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
# ---------------------------------------------------------------------------

# Three digits in their ranges, then a hyphen or a space and text, or nothing.
REPLY_LINE = re.compile(r'([2-5][0-5][0-9])(?:([ -])(.*))?', re.DOTALL)
ENHANCED_STATUS = re.compile(r'[245]\.[0-9]{1,3}\.[0-9]{1,3}(?= |$)')


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
        *first, last = self.lines
        return '\n'.join([*(f'{self.code}-{line}'.rstrip() for line in first),
                          f'{self.code} {last}'.rstrip()])


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


# ---------------------------------------------------------------------------
# 3  Verdicts
#
# In the end one of three things is true of a message. It was sent: there is a
# receipt. It was not sent: there is an error, whose class answers the question
# "what can I do now?". Or nobody can know, since the final dot was on its way
# and no valid answer to it came: the server may have taken the mail, and only
# its 250 been lost. That is SMTPDeliveryUnknown, and nothing else is. Where
# smtplib has a name for an error it is used; smtplib says "response" where the
# RFCs, and the rest of this file, say "reply".
#
# What people really meet, refusals of servers and faults of TLS, is explained
# from tables. At a first reading, go from there to section 4.
# ---------------------------------------------------------------------------

MAX_SHOWN_REPLY = 160       # characters; the transcript has the rest
ERROR_LINE = 79
FINAL_DOT = 'the final dot'     # how errors name it: it is not a command


class Receipt(NamedTuple):
    """What there is to say about a message that was sent.

    Attributes:
        reply: The reply to the final dot.
        recipients: Their addresses.
        message_id: Identifies the message in logs; or ''.
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


def reason_of(error: Exception) -> str:
    """Return what the operating system says of an error, in short."""
    return getattr(error, 'strerror', None) or str(error)


def shorten(text: str) -> str:
    """Cut a long diagnosis at the end of a sentence, and say that it was."""
    if len(text) <= MAX_SHOWN_REPLY:
        return text
    sentence = re.match(f'(?s)(.{{20,{MAX_SHOWN_REPLY}}}[.;])(?= |$)', text)
    return (sentence[0] if sentence else text[:MAX_SHOWN_REPLY]) \
        + ' ... (-v shows all)'


class SMTPException(Exception):
    """Base class of all errors here.

    The message was not sent, unless may_have_been_sent is true.

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
    advice = ''

    def __init__(self, problem: str, *, details: Sequence[str] = (),
                 command: str = '', reply: Reply | None = None,
                 advice: str = '', exit_code: int | None = None) -> None:
        """Keep what is known; else advice and exit code are the class's."""
        super().__init__(problem)
        self.problem = problem
        self.details = details
        self.command = command
        self.reply = reply
        self.advice = advice or self.advice
        self.exit_code = exit_code or self.exit_code

    def quote_reply(self) -> Iterator[str]:
        """Yield what the server said, line by line."""
        if self.reply:
            for line in shorten(str(self.reply)).split('\n'):
                yield f'S: {line}'

    def __str__(self) -> str:
        """Return the problem, the server's reply, and the advice."""
        import textwrap
        lines = [self.problem]
        lines += [f'  {line}' for line in (*self.details, *self.quote_reply())]
        for paragraph in self.advice.split('\n'):
            lines += textwrap.wrap(paragraph, ERROR_LINE,
                                   break_on_hyphens=False)
        return '\n'.join(map(escape, lines))


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
    """No connection could be made: check name, port and network."""

    exit_code = EXIT_TRY_LATER


class SMTPServerDisconnected(SMTPException):
    """The connection was lost, or the server fell silent: try again later."""

    exit_code = EXIT_TRY_LATER
    advice = ('The message was not completed, so nobody got it, and it is '
              'safe to try again.')


class SMTPProtocolError(SMTPException):
    """The answer is not SMTP, or not to be trusted: check server and port."""

    exit_code = EXIT_PROTOCOL
    advice = ('Check that server and port are those of a mail server, and '
              'that --tls fits the port.')


class SMTPNotSupportedError(SMTPException):
    """The server does not offer what is needed: use another way or server."""

    exit_code = EXIT_UNAVAILABLE


class SMTPStopped(SMTPException):
    """The user wanted the session to end here; nothing failed."""

    exit_code = EXIT_OK


class SMTPDeliveryUnknown(SMTPException):
    """The message may have been sent: ask before you send it again."""

    exit_code = EXIT_MAY_HAVE_BEEN_SENT
    may_have_been_sent = True
    advice = ('The end of the message was on its way, and no valid answer to '
              'it came. Sending it again may deliver it twice: first look '
              'whether it has arrived.')


# Advice begins with whose turn it is.
YOU, ADMINISTRATOR, WAIT = (
    'Your turn', "Your administrator's turn", 'Wait')

# Replies that people really meet: a pattern, whose turn it is, and one thing
# to do. The first that fits counts. A pattern is looked for in reply and
# command, such as '550 5.1.1 User unknown <- RCPT TO:<bob@example.org>'.
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
     'this server no longer takes passwords: use a token, with --auth '
     'xoauth2.'),
    ('user credentials were incorrect', YOU,
     'check user name (-u) and password. With two-step login an app password '
     'or a token (--auth xoauth2) is needed.'),
    ('^5[^0].*<- AUTH XOAUTH2', YOU,
     'get a new token: tokens expire within hours. It must be for this very '
     'user, and for the scope that sends mail (Office 365: '
     'https://outlook.office.com/SMTP.Send). If it is, authenticated SMTP may '
     'be off for the mailbox.'),
    (r'^535 5\.7\.3\b', YOU,
     'check user name (-u, the whole address) and password. If they are '
     'right, authenticated SMTP may be off for the mailbox.'),
    (r'^504 5\.7\.4\b', YOU,
     'the server does not take this way of logging in: try another --auth.'),
    (r'^5\d\d 5\.(7\.60|2\.252)\b|SendAsDenied|not owned by user', YOU,
     'this login may not send as that sender: use your own address in '
     '--from, or ask for the "Send As" permission.'),
    (r'^432 4\.3\.2\b', WAIT,
     'a mailbox may have three connections at a time. Try again in a minute.'),
    (r'^421 4\.7\.66\b', ADMINISTRATOR,
     'the server wants TLS 1.2 or later. smtp.py has it, so something on the '
     'way, such as a proxy, has less.'),
    (r'^50\d 5\.5\.[24]\b.*<- EHLO|(?i:helo command rejected)', YOU,
     'the server does not like our name: give it one with --ehlo.'),
    (r'SubmissionQuotaExceeded|^5\d\d 5\.1\.90|(?i:daily .*limit)', WAIT,
     'you have sent as much as your provider allows in a day.'),
    (rf'^5\d\d 5\.2\.2\b.*<- {FINAL_DOT}', YOU,
     'your own mailbox is full, where a copy of the message would be kept: '
     'empty it.'),
    # all servers
    (r'^534 5\.7\.9\b|[Aa]pplication-specific password', YOU,
     'this account has two-step login: make an app password in its security '
     'settings, and use that as the password.'),
    ('(?i)sender (address rejected|verif)', YOU,
     'the server does not take this sender: look at --from.'),
    (r'^5\d\d 5\.1\.10?\b|(?i:user unknown|no such user).*<- RCPT', YOU,
     'there is no such address: look for a typing error.'),
    ('(?i)too many recipients', YOU, 'send to fewer people at a time.'),
    (f'(?i)(spamhaus|block ?list|blacklist).*<- {FINAL_DOT}', YOU,
     'something in the text, such as a link, is on a list of spam.'),
    ('(?i:spamhaus|block ?list|blacklist)', ADMINISTRATOR,
     'your network is on a list of senders of spam.'),
    (r'^5\d\d 5\.7\.5[47]\b|^530|(?i:relay(ing)? (access )?(denied|not permi)'
     r'|unable to relay)', YOU,
     'the server passes mail on only for people who log in: leave out --auth '
     'none and --tls none, and use the port for submission, 587. If you did, '
     'it is not the server for this sender.'),
    (r'^\d\d\d [45]\.2\.2\b.*<- RCPT|(?i:over quota|mailbox (is )?full)', WAIT,
     'the mailbox of the recipient is full. Tell them in another way.'),
    (r'^5\d\d 5\.(3\.4|2\.3)\b|^552(?! 5)', YOU,
     'the message is too large: send fewer attachments, or a link.'),
    ('(?i)gr[ae]y-?list|^45.*(try again|come back).*<- RCPT', WAIT,
     'the server greylists: it takes mail only from senders who try again. '
     'Send the same again in a quarter of an hour.'),
    ('^535', YOU,
     'check the user name (-u, else the address of --from) and the password.'),
    ('^334', YOU, 'the server wants more than user name and password: try '
     'another --auth.'),
    ('^4', WAIT, 'the trouble is temporary: try again later.'),
    ('^5', YOU, 'the refusal is final: the same again will not help.'),
)


def advise(command: str, reply: Reply) -> str:
    """Say whose turn it is after a refusal, and what to do."""
    said = f'{reply.code} {reply.text} <- {command}'
    return next((f'{turn}: {action}' for pattern, turn, action in ADVICE
                 if re.search(pattern, said)), '')


def choose_exit_code(reply: Reply, otherwise: int) -> int:
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


class SMTPResponseException(SMTPException):
    """The server understood and refused: its reply says why."""

    exit_code = EXIT_UNAVAILABLE
    reply: Reply

    def __init__(self, problem: str, command: str, reply: Reply,
                 details: Sequence[str] = ()) -> None:
        """Find advice for the reply, and the exit code."""
        super().__init__(
            problem, details=details, command=command, reply=reply,
            advice=advise(command, reply),
            exit_code=choose_exit_code(reply, self.exit_code))


class SMTPAuthenticationError(SMTPResponseException):
    """The login was refused: check user name, password and settings."""

    exit_code = EXIT_NO_PERMISSION


class SMTPRecipientsRefused(SMTPResponseException):
    """A recipient was refused, so the message went to nobody.

    Attributes:
        refused: The Reply to each address that was refused.
    """

    exit_code = EXIT_NO_RECIPIENT

    def __init__(self, refused: Mapping[str, Reply]) -> None:
        """Quote all replies; the gravest decides about advice and exit."""
        gravity = [EXIT_TRY_LATER, EXIT_NO_PERMISSION, EXIT_NO_RECIPIENT]
        gravest = max(refused, key=lambda address: gravity.index(
            choose_exit_code(refused[address], EXIT_NO_RECIPIENT)))
        super().__init__(
            'the server refused these recipients, so the message went to '
            'nobody:', f'RCPT TO:<{gravest}>', refused[gravest],
            details=[f'{address}: {" ".join(str(answer).split())}'
                     for address, answer in refused.items()])
        self.refused = refused

    def quote_reply(self) -> Iterator[str]:
        """Yield nothing, since the details quote each reply."""
        return iter(())


def make_refusal(command: str, reply: Reply) -> SMTPException:
    """Make the error for an unwelcome reply.

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
        else f'the server refused {command} for now.'
    error = SMTPResponseException(problem, command, reply)
    if reply.code == EXCEEDED_STORAGE:
        error.exit_code = EXIT_BAD_MESSAGE
    return error


BAD_CERTIFICATE = {             # by the numbers of OpenSSL's X509_V_ERR_...
    9: 'is not valid yet (or the clock of this computer is wrong)',
    10: 'has expired (or the clock of this computer is wrong)',
    18: 'is self-signed',
    19: 'is vouched for by an authority that this computer does not know',
    20: 'is vouched for by an authority that this computer does not know',
    21: 'comes without the certificates that would prove it',
    62: 'is for another name',
    64: 'is for another address',
}
OLD_TLS = (f'{ADMINISTRATOR}: the server has only old versions of TLS, which '
           'are not safe: it must be updated.')
TLS_ADVICE = {
    'WRONG_VERSION_NUMBER': f'{YOU}: what the server sent is not TLS. Does '
    '--tls fit the port? Usual are --tls starttls on 587, implicit on 465.',
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


def make_tls_error(sock: ssl.SSLSocket, error: ssl.SSLError
                   ) -> SMTPProtocolError:
    """Make the error for a failed handshake or a bad certificate.

    Args:
        sock: Knows the name of the server, and its certificate.
        error: What the ssl module reports.
    """
    host = sock.server_hostname
    if not isinstance(error, ssl.SSLCertVerificationError):
        return SMTPProtocolError(
            f'TLS with {host} failed: {error.reason or error}.',
            command='TLS', advice=TLS_ADVICE.get(error.reason or '', ''))
    # The ssl module shows a certificate only once it is trusted; the object
    # beneath it, from Python 3.10 on, shows any.
    inner = getattr(sock, '_sslobj', None)
    chain: Any = getattr(inner, 'get_unverified_chain', tuple)() or ()
    problem = BAD_CERTIFICATE.get(error.verify_code, 'cannot be trusted')
    return SMTPProtocolError(
        f'the certificate of {host} {problem}.', command='TLS',
        details=[f'It is {describe_certificate(certificate.get_info())}.'
                 for certificate in chain[:1]],
        advice=f'{YOU}: check the name of the server. Somebody may be '
        'listening in, as some antivirus programs do; nothing secret was '
        'sent. An authority of your own goes in with --ca-file.')


# ---------------------------------------------------------------------------
# 4  The transcript
#
# The transcript is the session as the user sees it, in the notation of the
# RFCs: C: before what the client sends, S: before what the server answers.
# The connection reports every line to it, and it puts a mask in the place of
# each secret. What looks like noise, because it is in base64, is shown with
# its meaning beside it: base64 hides nothing.
#
# It is more than paper. It is told before each command, and after each stage,
# and may stop the session there; it can forbid to pipeline, so that people
# see question and answer; and it keeps the verdict, for an interrupt would
# lose a return value. Section 14 has a transcript that makes use of all this.
# ---------------------------------------------------------------------------

Extensions = Mapping[str, str]      # what a server offers: keyword, parameters

COLOURS = {'C:': '\x1b[36m', 'S:': '\x1b[33m', '--': '\x1b[2m'}
NO_COLOUR = '\x1b[0m'


def to_base64(text: str) -> str:
    """Write text as base64 of its UTF-8 octets: 'alice' is 'YWxpY2U='."""
    return binascii.b2a_base64(text.encode(), newline=False).decode('ascii')


def from_base64(text: str) -> str:
    """Read base64 of UTF-8 text; '' if that is not what it is."""
    try:
        return binascii.a2b_base64(text).decode()
    except ValueError:
        return ''


def is_terminal(stream: TextIO | None) -> bool:
    """Tell whether a person sits at the other end of a stream."""
    return stream is not None and not stream.closed and stream.isatty()


def abandon(stream: TextIO | None) -> None:
    """Forget a broken stream: Python would flush it at exit, and complain."""
    for name in ('stdout', 'stderr'):
        if getattr(sys, name) is stream:
            setattr(sys, name, None)


class Transcript:
    """Show a session while it happens, and hide its secrets.

    Attributes:
        stream: Where the lines go, or None.
        quit_after: The stage after which the user wants to stop, or ''.
        verdict: On the latest message whose final dot was sent: its Receipt,
            or the SMTPDeliveryUnknown; None before.
        one_by_one: Whether somebody wants to see question and answer, so that
            nothing is pipelined.
    """

    one_by_one = False
    quit_after = ''

    def __init__(self, stream: TextIO | None = None) -> None:
        """Begin a transcript on the stream."""
        self.stream = stream
        self.verdict: Receipt | SMTPDeliveryUnknown | None = None
        plain = os.environ.get('NO_COLOR') or os.environ.get('TERM') == 'dumb'
        self._colours = COLOURS if is_terminal(stream) and not plain else {}
        self._challenged = False
        self._secrets: list[str] = []
        self._secret = re.compile('(?!)')       # matches nothing yet

    # Hiding

    def protect(self, secret: str) -> None:
        """Hide a secret everywhere, even inside the base64 of a longer text.

        Base64 writes three octets as four letters of six bits. Behind one or
        two other octets the same secret therefore looks different: 'key' is
        'a2V5', but 'xkey' is 'eGtleQ=='. From each of the three forms we take
        the letters that hold no bits of a neighbour.
        """
        if not secret:
            return
        self._secrets += [secret, to_base64(secret)]
        with contextlib.suppress(UnicodeEncodeError):
            # A server may repeat it in Latin-1, which is read as bad UTF-8.
            self._secrets.append(secret.encode('latin-1').decode(
                'utf-8', 'backslashreplace'))
        length = len(secret.encode())
        for before in range(3):
            encoded = to_base64('\0' * before + secret)
            # -(-n // 6) is n / 6, rounded up.
            first, end = -(-before * 8 // 6), (before + length) * 8 // 6
            if end - first > 3:
                self._secrets.append(encoded[first:end])
        self._secrets.sort(key=len, reverse=True)   # the whole before a part
        self._secret = re.compile('|'.join(
            # A short word is a part of too many others.
            rf'\b{text}\b' if re.fullmatch(r'\w{1,3}', text)
            else re.escape(text) for text in self._secrets), re.IGNORECASE)

    def hide(self, text: str) -> str:
        """Put the mask in the place of each secret."""
        return self._secret.sub(MASK, text)

    def hide_reply(self, lines: Sequence[str]) -> list[str]:
        """Mask the lines of a reply, except for their codes.

        All of them are masked if a secret is spread over several.
        """
        masked = [line[:4] + self.hide(line[4:]) for line in lines]
        texts = [line[4:] for line in masked]
        # A status such as 2.0.0 may stand between the parts of a secret.
        bare = [re.sub(f'^{ENHANCED_STATUS.pattern}', '', text).strip()
                for text in texts]
        for joined in ''.join(texts), ' '.join(texts), ''.join(bare), \
                ' '.join(bare):
            if self.hide(joined) != joined:
                return [line[:4] + MASK for line in lines]
        return masked

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
        if self.stream:
            import textwrap
            for line in textwrap.wrap(self.hide(text), HEADER_LINE) or ['']:
                self.write('--', line)

    def show_line(self, line: str) -> None:
        """Show a line that the client is about to send."""
        line = self.hide(line)
        login = re.fullmatch('(AUTH LOGIN )?([A-Za-z0-9+/=]+)', line)
        self.write('C:', line, from_base64(login[2]) if login and (
            login[1] or self._challenged) else '')

    def show_reply(self, lines: Sequence[str], elapsed: float) -> None:
        """Show a reply, as much of it as has arrived.

        Args:
            lines: Its lines, with the reply code, secrets masked.
            elapsed: Seconds that it took.
        """
        for line in lines:
            self._challenged = line.startswith(f'{CHALLENGE} ')
            self.write('S:', line, ', '.join(filter(None, [
                from_base64(line[4:]) if self._challenged else '',
                f'{elapsed * 1000:.0f} ms' if elapsed >= 0.001
                and line[3:4] != '-' else ''])))

    def encrypted(self, how: str, certificate: str) -> None:
        """Show that TLS has begun, and who proved a name."""
        self.note(f'TLS begins: {how}')
        self.note(f'certificate {certificate}')

    # Occasions

    def begin(self, name: str, function: Callable[..., Any]) -> None:
        """Called when a stage begins, with the function that does it."""

    def confirm(self) -> None:
        """Called when lines have been shown, before they are sent.

        Raises:
            SMTPStopped: The user does not want that.
        """

    def sent(self, lines: Iterable[str]) -> None:
        """Called when lines have been sent."""

    def replied(self, command: str, reply: Reply) -> None:
        """Called when a command was answered."""

    def offered(self, extensions: Extensions) -> None:
        """Called when the server has said what it offers."""

    def progress(self, done: int, total: int) -> None:
        """Called when so many octets of the message have gone."""

    def reached(self, name: str) -> None:
        """Called when a stage is over.

        Raises:
            SMTPStopped: The user wants to end there.
        """


# ---------------------------------------------------------------------------
# 5  The connection
#
# TCP carries a stream of octets and knows nothing of lines, so this class
# gives us lines. At the bottom are send_octets and read_line; on these stand
# send_lines and read_reply; and send_command is one of each. With them the
# rest of SMTP can be written down nearly as it stands in the RFCs. Every wait
# has a deadline, and whatever the server sends is held against the grammar
# before anyone believes it. The class knows lines, replies and TLS, and
# nothing about mail.
#
# Whoever talks to a server must expect four errors: SMTPServerDisconnected, it
# is gone or silent; SMTPProtocolError, it does not speak SMTP;
# SMTPResponseException, it refuses; SMTPStopped, the user wants to end here.
# The docstrings name them where they arise, and above that only where there
# is more to say.
#
# A server may also lie, or somebody on the way in its name. Our guards:
#
#     a reply that nobody asked for            refuse_unasked
#     no grammar, no end, no hurry             read_reply
#     a "yes" with another code than expected  make_refusal
#     a name that it cannot prove              encrypt
#     words from before TLS                    encrypt forgets them
#     words together with the last 220         encrypt
#     no STARTTLS: somebody took it out?       start_tls says no more to it
#     control characters, secrets              escape, Transcript.hide
#
# Against a server that says 250 and throws the mail away there is none.
# ---------------------------------------------------------------------------

# These stand in the place of a command where there was none: 'the server
# refused the connection.', 'the server refused to go on.'
GREETING, GOING_ON = 'the connection', 'to go on'


class Connection:
    """A connection to a server: lines and replies over a socket.

    Attributes:
        transcript: Hears of every line.
        extensions: What the server has offered, since TLS began if it did.
        timeout: Seconds for a whole reply to arrive.
        final_timeout: Seconds for the reply to the final dot.
        awaited: What the replies will answer that have not been read yet,
            oldest first: commands, masked, or what an error says instead.
        heard: The lines of the latest reply, unmasked. In a Reply secrets are
            masked; with the password AUTH that would hide an extension.
        last_code: The reply code of the latest reply.
    """

    def __init__(self, sock: socket.socket, transcript: Transcript,
                 timeout: float | None = None) -> None:
        """Take over a connected socket; the server speaks first."""
        self.transcript = transcript
        self.timeout = timeout or REPLY_TIMEOUT
        self.final_timeout = timeout or FINAL_REPLY_TIMEOUT
        self.awaited = collections.deque([GREETING])
        self.extensions: Extensions = {}
        self.heard: list[str] = []
        self.last_code = 0
        self._socket = sock
        self._received = b''

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

    # These methods make errors; the caller raises them, so that one sees
    # there where it ends.

    def _lost(self, what: str) -> SMTPServerDisconnected:
        """Make the error for a connection that can no longer be used."""
        command = self.awaited[0] if self.awaited else ''
        when = {GREETING: ' before its greeting', GOING_ON: '', '': ''}.get(
            command, f' after {command}')
        return SMTPServerDisconnected(f'{what}{when}.', command=command)

    def _broken(self, error: OSError) -> SMTPException:
        """Make the error for what the operating system or TLS reports."""
        if isinstance(error, socket.timeout):
            return self._lost('the server fell silent')
        if isinstance(error, ssl.SSLError) and self.encrypted \
                and not isinstance(error, ssl.SSLEOFError):
            return make_tls_error(cast(ssl.SSLSocket, self._socket), error)
        return self._lost(f'the connection was lost ({reason_of(error)})')

    def _wait_until(self, deadline: float) -> None:
        """Let the next operation of the socket end at a deadline, or NOW.

        Raises:
            socket.timeout: The deadline has passed already.
        """
        left = max(0, deadline - time.monotonic())
        if left == 0 and deadline != NOW:
            raise socket.timeout
        self._socket.settimeout(left)       # 0: not to wait at all

    # Receiving

    def _receive(self, deadline: float) -> bool:
        """Add to the buffer what the server sends next.

        Returns:
            False if NOW is the deadline, and nothing has come yet.
        """
        try:
            self._wait_until(deadline)
            octets = self._socket.recv(MAX_REPLY_LINE)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False        # TLS may have to write before it can read
        except OSError as error:
            raise self._broken(error) from None
        if not octets:
            raise self._lost('the server closed the connection')
        self._received += octets
        return True

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
        if len(octets) > MAX_REPLY_LINE:
            raise SMTPProtocolError('the server sent a line without end.')
        line = octets.decode('utf-8', 'backslashreplace')
        if not re.fullmatch('[^\r]*\r', line):
            raise SMTPProtocolError(
                'the server sent a line that does not end in CRLF: '
                + shorten(self.transcript.hide(line)))
        self._received = rest
        return line[:-1]

    def read_reply(self, *expected: int,
                   seconds: float | None = None) -> Reply:
        """Read a whole reply and check it (RFC 5321 section 4.2).

        S: 250-first line
        S: 250 last line

        Args:
            *expected: The reply codes that are welcome; none: all of them.
            seconds: For the whole reply to arrive; None: self.timeout.

        Returns:
            The reply to what has been awaited longest, secrets masked.

        Raises:
            SMTPServerDisconnected: It did not come, or not in time.
            SMTPProtocolError: It is no reply by the grammar, or a success
                that was not expected.
            SMTPResponseException: It refuses, or is a 421.
        """
        began = time.monotonic()
        lines: list[str] = []
        octets, more = 0, '-'
        try:
            while more == '-':
                line = self.read_line(began + (seconds or self.timeout))
                lines.append(line)
                found = REPLY_LINE.fullmatch(line)
                if not found or line[:3] != lines[0][:3]:
                    raise SMTPProtocolError(
                        'the server does not speak SMTP; it said: '
                        + shorten(self.transcript.hide(line)))
                octets, more = octets + len(line), found[2]
                if len(lines) > MAX_REPLY_LINES or octets > MAX_REPLY:
                    raise SMTPProtocolError('the server sent an endless '
                                            'reply.')
        finally:
            masked = self.transcript.hide_reply(lines)
            self.transcript.show_reply(masked, time.monotonic() - began)
        self.heard = [line[4:] for line in lines]
        reply = Reply(int(line[:3]), tuple(line[4:] for line in masked))
        self.last_code = reply.code
        command = self.awaited.popleft()
        self.transcript.replied(command, reply)
        if reply.code == NOT_AVAILABLE \
                or (expected and reply.code not in expected):
            raise make_refusal(command, reply)
        return reply

    def has_unread(self) -> bool:
        """Tell, without waiting, whether the server has said more.

        Raises:
            SMTPServerDisconnected: It has hung up.
            SMTPProtocolError: TLS was disturbed.
        """
        return bool(self._received) or self._receive(NOW)

    def refuse_unasked(self) -> None:
        """Make sure that the server has nothing to say before we speak.

        A reply that nobody asked for would be taken for the reply to the
        next command. If it is a refusal, it is the reason why the server
        gives up, so it becomes the error.

        Raises:
            SMTPProtocolError: There was something.
            SMTPResponseException: It was a refusal, such as a 421.
            SMTPServerDisconnected: The server has hung up.
        """
        if not self.has_unread():
            return
        self.awaited.append(GOING_ON)
        reply = self.read_reply(seconds=min(QUIT_TIMEOUT, self.timeout))
        if reply.code >= 400:
            raise make_refusal(GOING_ON, reply)
        raise SMTPProtocolError('the server spoke without being asked.',
                                reply=reply)

    # Sending

    def send_octets(self, octets: bytes) -> None:
        """Send octets as they are, with a deadline for each block of them.

        Raises:
            SMTPServerDisconnected: They could not be sent.
            SMTPProtocolError: TLS was disturbed.
            SMTPResponseException: The server refused to read on.
        """
        try:
            for start in range(0, len(octets), BLOCK):
                self._socket.settimeout(self.timeout)
                self._socket.sendall(octets[start:start + BLOCK])
        except OSError as error:
            if not self.awaited:
                self.refuse_unasked()       # its last words may say why
            raise self._broken(error) from None

    def send_lines(self, lines: Sequence[str]) -> None:
        """Send lines together; each of them awaits a reply.

        Args:
            lines: Lines without their CRLF.

        Raises:
            SMTPMessageError: A line would be read as more than one line.
            SMTPStopped: The user does not want them sent.
            SMTPServerDisconnected, SMTPProtocolError, SMTPResponseException:
                As in refuse_unasked and send_octets.
        """
        for line in lines:
            if re.search('[\r\n\0]', line):
                raise SMTPMessageError(
                    f'no line for a server: {self.transcript.hide(line)!r}')
            self.transcript.show_line(line)
        self.transcript.confirm()
        if not self.awaited:
            self.refuse_unasked()
        # Only a typed command can have octets that are not UTF-8; in Python
        # these are surrogates.
        self.send_octets((CRLF.join(lines) + CRLF).encode(
            'utf-8', 'surrogateescape'))
        # So that an error says "after the password", not "after ********".
        names = {MASK: 'the password', '': 'an empty line'}
        for line in map(self.transcript.hide, lines):
            self.awaited.append(names.get(line, line))
        self.transcript.sent(lines)

    def send_line(self, line: str) -> None:
        """Send one line, as send_lines does."""
        self.send_lines([line])

    def send_command(self, line: str, *expected: int) -> Reply:
        """Send a command and read the reply to it (RFC 5321 section 4.1).

        C: command
        S: reply

        Args:
            line: The command without its CRLF.
            *expected: The reply codes that are welcome; none: all of them.

        Returns:
            The reply.

        Raises:
            SMTPResponseException: The server refuses.
            SMTPProtocolError: The reply is no reply to this command.
            SMTPServerDisconnected: There was no reply, or not in time.
            SMTPMessageError, SMTPStopped: As in send_lines.
        """
        self.send_line(line)
        return self.read_reply(*expected)

    # Encrypting

    def encrypt(self, context: ssl.SSLContext, host: str) -> None:
        """Put TLS between us and the server; from here on all is encrypted.

        What the server offered in the clear is forgotten. Anything that came
        behind its 220 to STARTTLS is an attack: somebody on the way could
        have added '250 AUTH PLAIN', which is still in the clear but, read
        after the handshake, would pass for the words of the server.

        Args:
            context: Says which certificates are trusted.
            host: The name that the certificate must carry.

        Raises:
            SMTPProtocolError: There was more than the 220, no TLS came about,
                or the certificate is not that of the host.
            SMTPServerDisconnected: The server hung up, or was silent.
        """
        if not self.awaited and self.has_unread():
            raise SMTPProtocolError(
                'more than its 220 came in answer to STARTTLS, so somebody '
                'may be putting words into the session.', command='STARTTLS')
        self.extensions = {}
        try:
            self._socket = sock = context.wrap_socket(
                self._socket, server_hostname=host.rstrip('.'),
                do_handshake_on_connect=False)
            self._wait_until(time.monotonic() + self.timeout)
            sock.do_handshake()
        except OSError as error:
            raise self._broken(error) from None
        self.transcript.encrypted(
            f'{sock.version()}, {(sock.cipher() or "?")[0]}',
            describe_certificate(sock.getpeercert() or {}))


# ---------------------------------------------------------------------------
# 6  Opening
#
# A session begins in the clear. The server greets, we say EHLO, and its reply
# lists the extensions that it offers. The first one that we use is STARTTLS,
# which turns on encryption. Anybody on the way could have altered what was
# said until then, so it is forgotten, and we say EHLO once more; only this
# second list counts. On port 465 TLS comes before the greeting. TLS covers
# the way to this server and nothing beyond: the server reads every mail, and
# how it passes it on is its affair.
#
# From here on the same few things are handed to many functions. They are
# explained once: `connection` leads to the server; `context` says which
# certificates are trusted, and `host` is the name that the certificate of the
# server must carry.
# ---------------------------------------------------------------------------

# A host name: labels of letters, digits and hyphens, with dots between them
# (RFC 1035 2.3.1 and 2.3.4, RFC 1123 2.1).
LABEL = '[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?'
DOMAIN = re.compile(rf'{LABEL}(?:\.{LABEL})*')

Function = TypeVar('Function', bound=Callable[..., Any])


def stage(name: str) -> Callable[[Function], Function]:
    """Tell the transcript before a function runs, and after it.

    The docstring of such a function, up to its dialogue, is what --explain
    says before it runs: write it to be read aloud.

    Args:
        name: What --quit-after calls it, if it can end there.

    Returns:
        A decorator for functions whose first argument is the connection.
    """
    def mark(function: Function) -> Function:
        """Return the function with that added."""
        @functools.wraps(function)
        def watched(connection: Connection, *arguments: Any) -> Any:
            """Run the function between two notices."""
            connection.transcript.begin(name, function)
            result = function(connection, *arguments)
            connection.transcript.reached(name)
            return result
        return cast(Function, watched)
    return mark


def look_up_host(host: str, port: int, family: int) -> list[tuple[Any, ...]]:
    """Find the addresses of a host, each with its family.

    Raises:
        SMTPConnectError: There is no such host, or the lookup failed.
    """
    try:
        found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
        return [(kind, address) for kind, _, _, _, address in found]
    except (socket.gaierror, UnicodeError) as error:
        if getattr(error, 'errno', None) == socket.EAI_AGAIN:
            raise SMTPConnectError(
                f'the name {host} could not be looked up now.',
                advice=f'{YOU}: is this computer offline? Then try again '
                'later.') from None
        which = ' with an IPv4 address' if family == socket.AF_INET \
            else ' with an IPv6 address' if family == socket.AF_INET6 else ''
        raise SMTPConnectError(
            f'there is no host named {host}{which}.', exit_code=EXIT_NO_HOST,
            advice=f'{YOU}: look for a typing error in --server. If there is '
            'none, is this computer offline?') from None


def connect_to(family: int, address: Any, timeout: float) -> socket.socket:
    """Open a TCP connection to one address.

    Raises:
        OSError: Nobody answers there.
    """
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.connect(address)
        # Without this, EHLO would wait for the server to acknowledge the last
        # octets of the TLS handshake: one round trip more.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock
    except BaseException:
        sock.close()
        raise


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
    patience = timeout or REPLY_TIMEOUT
    addresses = look_up_host(host, port, family)
    failures: list[str] = []
    for number, (kind, address) in enumerate(addresses, 1):
        others = number < len(addresses)
        try:
            return connect_to(
                kind, address, min(patience, NEXT_ADDRESS_TIMEOUT)
                if others else patience)
        except OSError as error:
            failures.append(f'{address[0]}: {reason_of(error)}')
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


def find_own_name(connection: Connection) -> str:
    """Find a name for EHLO that servers accept.

    This is the name of this host if it is fully qualified; else our IP address
    as a literal, such as '[192.0.2.7]' (RFC 5321 section 4.1.4).
    """
    name = SMTP_DOMAINNAME or socket.gethostname()
    # With a dot and a letter behind it: neither 'laptop' nor '192.0.2.7'.
    if DOMAIN.fullmatch(name) and len(name) <= MAX_DOMAIN \
            and re.search('[.].*[a-z]', name, re.IGNORECASE):
        return name
    return connection.local_address()


def parse_extensions(lines: Sequence[str]) -> dict[str, str]:
    """Read what the server offers out of the lines of its reply to EHLO."""
    extensions: dict[str, str] = {}
    # The first line only says hello. Others that are not ASCII are no
    # keywords, but upper() could make one of them: it turns a long s into S.
    for line in filter(str.isascii, lines[1:]):
        # 'AUTH=LOGIN' is how servers wrote it before there was a standard.
        line = re.sub('^AUTH=', 'AUTH ', line.upper())
        keyword, _, parameters = line.partition(' ')
        known = extensions.get(keyword, '')
        extensions[keyword] = f'{known} {parameters}'.strip()
    return extensions


@stage('ehlo')
def say_hello(connection: Connection, name: str | None = None) -> None:
    """Give our name, and learn what the server can do.

    The reply to EHLO lists extensions (RFC 5321 section 4.1.1.1); once TLS has
    begun, only a second list counts (RFC 3207 section 4.2).

    C: EHLO client.example.com
    S: 250-smtp.office365.com Hello [192.0.2.7]
    S: 250-SIZE 157286400
    S: 250 STARTTLS

    Args:
        connection: To the server; it keeps the list.
        name: Our host's name or address literal; None: found out.

    Raises:
        SMTPResponseException: The server does not know EHLO or our name.
    """
    connection.send_command(f'EHLO {name or find_own_name(connection)}',
                            COMPLETED)
    connection.extensions = parse_extensions(connection.heard)
    connection.transcript.offered(connection.extensions)


def make_tls_context(ca_file: str | None = None) -> ssl.SSLContext:
    """Say which servers we trust: TLS 1.2 or later, certificate checked.

    Args:
        ca_file: PEM file of the authorities to trust; None: the system's.

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
            if isinstance(error, ssl.SSLError) else reason_of(error)
        raise SMTPConfigurationError(
            'cannot read the authorities in '
            f'{ca_file or "the store of this computer"}: {reason}.',
            exit_code=EXIT_NO_INPUT) from None
    return context


@stage('tls')
def begin_tls(connection: Connection, context: ssl.SSLContext,
              host: str) -> None:
    """Encrypt before anything is said.

    On port 465 the TLS handshake comes first, and even the greeting is
    encrypted (RFC 8314 section 3.3).
    """
    connection.encrypt(context, host)


@stage('tls')
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
    if 'STARTTLS' not in connection.extensions:
        raise SMTPNotSupportedError(
            f'{host} does not offer encryption (STARTTLS) here, so nothing '
            'secret was sent to it.', command='STARTTLS', advice=(
                f'{YOU}: use the port for submission (587, or 465). If the '
                'server does offer STARTTLS elsewhere, somebody on the way '
                'may be taking it out.'))
    connection.send_command('STARTTLS', SERVICE_READY)
    connection.encrypt(context, host)


# ---------------------------------------------------------------------------
# 7  Who we are
#
# A submission server sends only for people it knows. Its reply to EHLO names
# the mechanisms that it takes, and each of them is a short dialogue in which
# base64 wraps what is said. Base64 is not encryption: anyone can unwrap it.
# What protects the password is TLS alone, so there is no login without it.
#
# A 334 is a question: behind the digits stands a challenge in base64, such as
# "Password:", and the next line that we send is not a command, but the
# response to it.
#
# Each mechanism is a function here, which sends its responses and returns the
# reply to the last of them. It also tells the transcript what must not be
# shown, if that is more than the password.
# ---------------------------------------------------------------------------

# That last reply: logged in, or a further challenge, for which we have no
# response. Any other is an error at once.
LAST_REPLIES = (AUTHENTICATION_SUCCEEDED, CHALLENGE)


def begin_login(connection: Connection, mechanism: str, response: str,
                *expected: int) -> Reply:
    """Begin a mechanism, its first response on the same line if that fits.

    Args:
        connection: To the server, encrypted.
        mechanism: Its name, such as 'LOGIN'.
        response: The first response, in base64.
        *expected: The reply codes that are welcome.

    Returns:
        The reply to the response.
    """
    line = f'AUTH {mechanism} {response}'
    if len(line) + len(CRLF) <= MAX_COMMAND_LINE:
        return connection.send_command(line, *expected)
    connection.send_command(f'AUTH {mechanism}', CHALLENGE)
    return connection.send_command(response, *expected)


def auth_login(connection: Connection, user: str, password: str) -> Reply:
    """Log in by AUTH LOGIN: the user name, then the password.

    Both travel in base64, on lines of their own. No RFC describes this; what
    RFC 4954 says of AUTH holds.

    C: AUTH LOGIN YWxpY2VAZXhhbXBsZS5jb20=
    S: 334 UGFzc3dvcmQ6
    C: ********
    S: 235 2.7.0 Authentication successful
    """
    name = to_base64(user)
    try:
        begin_login(connection, 'LOGIN', name, CHALLENGE)
    except SMTPResponseException as error:
        # Some servers want the user name on a line of its own.
        if error.reply.code not in (SYNTAX_ERROR_IN_PARAMETERS,
                                    PARAMETER_NOT_IMPLEMENTED):
            raise
        connection.send_command('AUTH LOGIN', CHALLENGE)
        connection.send_command(name, CHALLENGE)
    return connection.send_command(to_base64(password), *LAST_REPLIES)


def auth_plain(connection: Connection, user: str, password: str) -> Reply:
    r"""Log in by AUTH PLAIN: user name and password on one line (RFC 4616).

    NULs stand between them, and before them: '\0alice\0secret'.

    C: AUTH PLAIN ********
    S: 235 2.7.0 Authentication successful
    """
    response = to_base64(f'\0{user}\0{password}')
    connection.transcript.protect(response)
    return begin_login(connection, 'PLAIN', response, *LAST_REPLIES)


def auth_xoauth2(connection: Connection, user: str, token: str) -> Reply:
    """Log in by XOAUTH2: a token in place of the password.

    The token comes from the provider's own login page, is valid for an hour
    or so, and allows only what it was issued for. If it is no good, the server
    says why in a challenge, and wants an empty line before it refuses. No RFC
    describes this; Google and Microsoft do.

    C: AUTH XOAUTH2 ********
    S: 235 2.7.0 Authentication successful

    Raises:
        SMTPResponseException: The token was refused; the details say why.
    """
    response = to_base64(f'user={user}\1auth=Bearer {token}\1\1')
    connection.transcript.protect(response)
    reply = begin_login(connection, 'XOAUTH2', response, *LAST_REPLIES)
    if reply.code == AUTHENTICATION_SUCCEEDED:
        return reply
    reason = connection.transcript.hide(
        from_base64(' '.join(connection.heard)))
    try:
        return connection.send_command('', *LAST_REPLIES)
    except SMTPResponseException as error:
        error.details = [f'It says: {shorten(reason)}']
        raise


MECHANISMS: dict[str, Callable[[Connection, str, str], Reply]] = {
    'LOGIN': auth_login,
    'PLAIN': auth_plain,
    'XOAUTH2': auth_xoauth2,
}
AUTOMATIC = ('LOGIN', 'PLAIN')      # what 'auto' tries with a password


def choose_mechanism(connection: Connection, wanted: str) -> str:
    """Choose how to log in, among what the server offers.

    Args:
        connection: To the server.
        wanted: 'auto', or the name of a mechanism.

    Returns:
        A key of MECHANISMS.

    Raises:
        SMTPNotSupportedError: The server does not offer it.
    """
    offered = connection.extensions.get('AUTH', '').split()
    for mechanism in (AUTOMATIC if wanted == 'auto' else [wanted.upper()]):
        if mechanism in offered:
            return mechanism
    what = 'any login by password that smtp.py knows' if wanted == 'auto' \
        else f'login by {wanted.upper()}'
    told = connection.transcript.hide(' '.join(offered))
    raise SMTPNotSupportedError(
        f'the server does not offer {what}.', command='AUTH',
        advice=f'{YOU}: it offers {told or "no login at all"}. '
        'See --auth; a server that wants no login takes --auth none.')


@stage('auth')
def log_in(connection: Connection, user: str, password: str,
           wanted: str = 'auto') -> None:
    """Prove who we are.

    The server's list names the mechanisms that it takes (RFC 4954 section 3);
    one of them is tried, once.

    C: AUTH LOGIN YWxpY2VAZXhhbXBsZS5jb20=
    S: 334 UGFzc3dvcmQ6
    C: ********
    S: 235 2.7.0 Authentication successful

    Args:
        connection: To the server, encrypted.
        user: The user name, mostly the mail address.
        password: The password, or the access token for XOAUTH2.
        wanted: 'auto', or the name of a mechanism.

    Raises:
        SMTPNotSupportedError: The mechanism is not offered.
        SMTPConfigurationError: The password is empty.
        SMTPAuthenticationError: The login was refused.
        SMTPProtocolError: The server does not keep to the dialogue.
    """
    mechanism = choose_mechanism(connection, wanted)
    if not password:
        raise SMTPConfigurationError('the password is empty.')
    details: Sequence[str] = ()
    try:
        reply = MECHANISMS[mechanism](connection, user, password)
    except SMTPResponseException as error:
        reply, details = error.reply, error.details
        if reply.code == NOT_AVAILABLE:     # that is no answer to the login
            raise
    if reply.code != AUTHENTICATION_SUCCEEDED:
        raise SMTPAuthenticationError(
            'the server refused the login of '
            f'{connection.transcript.hide(user)} by {mechanism}.',
            f'AUTH {mechanism}', reply, details)


# ---------------------------------------------------------------------------
# 8  One mail
#
# First the envelope: MAIL says who sends, each RCPT names one who receives,
# and the server answers for each. Then DATA and the message, to which a line
# with nothing but a dot makes the end. Nothing compares envelope and header:
# Bcc is a RCPT for which no header field stands.
#
# With PIPELINING (RFC 2920) the whole envelope and DATA go out at once and
# the replies come back together: one round trip instead of one for each
# command. What changes with an answer has to wait for it: EHLO, STARTTLS and
# AUTH each for the one before, the message for the 354. The price is that
# DATA may get its 354 although a recipient was refused.
#
# SMTP would deliver to those recipients that were accepted. We choose
# otherwise: if one is refused, nobody gets the mail. As long as the final dot
# has not been sent we can hang up, and the server must throw away what it
# has. The reply to that dot is the moment at which the server takes over the
# duty to deliver. What it cannot deliver then comes back later, as a mail.
# ---------------------------------------------------------------------------


def may_pipeline(connection: Connection) -> bool:
    """Tell whether commands may be sent together; not while people watch."""
    return 'PIPELINING' in connection.extensions \
        and not connection.transcript.one_by_one


def dot_stuff(lines: bytes) -> bytes:
    """Double each dot that begins a line (RFC 5321 section 4.5.2).

    Otherwise a line of one dot in a text would end the message. The server
    takes one dot away from every line that begins with one, so '.profile'
    goes as '..profile'.

    Args:
        lines: Whole lines.
    """
    if b'.' not in lines:       # base64: to look for one octet is fast
        return lines
    stuffed = lines.replace(b'\n.', b'\n..')
    return b'.' + stuffed if stuffed.startswith(b'.') else stuffed


def pack(pieces: Iterable[AnyStr], limit: int) -> Iterator[AnyStr]:
    """Join pieces, none of them cut, into as few as the limit allows.

    Args:
        pieces: In their order; one at least.
        limit: In characters, or in octets.
    """
    rest = iter(pieces)
    packed = next(rest)
    for piece in rest:
        if len(packed) + len(piece) > limit:
            yield packed
            packed = piece
        else:
            packed += piece
    yield packed


SHOWN_FIRST, SHOWN_LAST = 20, 3     # lines of a text that a transcript shows


class Piece(Protocol):
    """Some of the lines of a message, in memory or in a file.

    A message is a list of pieces, of three kinds: Lines, below; Attachment, a
    file in base64; StoredBody, a finished message. To be sent, each yields
    chunks, so that a large file takes no memory. A chunk is whole lines, each
    with its CRLF; dot_stuff relies on that.

    Attributes:
        size: Octets on the wire, before dots are doubled.
    """

    size: int

    def chunks(self) -> Iterator[bytes]:
        """Yield the lines, many at a time."""

    def outline(self) -> Iterator[tuple[str, str]]:
        """Yield what a transcript shows of them.

        Yields:
            'C:' and a line, or '--' and what stands there instead.
        """


class Lines:
    """Lines that are in memory.

    Attributes:
        octets: The lines.
    """

    def __init__(self, octets: bytes) -> None:
        """Hold the lines."""
        self.octets = octets
        self.size = len(octets)

    def chunks(self) -> Iterator[bytes]:
        """Yield the lines, many at a time."""
        start = 0
        while start < self.size:
            end = self.octets.find(b'\n', start + BLOCK) + 1 or self.size
            yield self.octets[start:end]
            start = end

    def outline(self) -> Iterator[tuple[str, str]]:
        """Yield the first and the last lines, and how many are between."""
        shown = [('C:', line) for line in dot_stuff(self.octets).decode(
            'utf-8', 'backslashreplace').split(CRLF)[:-1]]
        more = len(shown) - SHOWN_FIRST - SHOWN_LAST
        if more > 0:
            shown[SHOWN_FIRST:-SHOWN_LAST] = [('--', f'({more:,} more lines)')]
        return iter(shown)


class Mail(NamedTuple):
    """A mail: its envelope, and its message.

    Attributes:
        sender: The address for MAIL.
        recipients: The addresses for RCPT, each once.
        message_id: The value of its Message-ID field.
        header: The header fields, each with its CRLF; none if the envelope
            is all that is to be tried.
        body: What follows them.
        needs_8bitmime: Whether the body has octets beyond ASCII.
        own_header: The fields as the author keeps them, Bcc included; only
            for the draft (section 16).
    """

    sender: str
    recipients: list[str]
    message_id: str = ''
    header: Sequence[str] = ()
    body: Sequence[Piece] = ()
    needs_8bitmime: bool = False
    own_header: Sequence[str] = ()

    @property
    def needs_smtputf8(self) -> bool:
        """Whether header or envelope go beyond ASCII (RFC 6531)."""
        return not all(map(str.isascii, (
            *self.header, self.sender, *self.recipients)))

    @property
    def start(self) -> bytes:
        """The header, and the empty line that ends it."""
        return (''.join(self.header) + CRLF).encode()

    @property
    def size(self) -> int:
        """Octets on the wire, before dots are doubled (RFC 1870)."""
        return len(self.start) + sum(piece.size for piece in self.body)

    def chunks(self) -> Iterator[bytes]:
        """Yield the whole message, about a BLOCK of lines at a time."""
        lines = (piece.chunks() for piece in self.body)
        return pack(itertools.chain([self.start], *lines), BLOCK)

    def outline(self) -> Iterator[tuple[str, str]]:
        """Yield what a transcript shows of it: marks and lines."""
        for line in dot_stuff(self.start).decode().split(CRLF)[:-1]:
            yield 'C:', line
        for piece in self.body:
            yield from piece.outline()


def parse_size_limit(parameter: str) -> int:
    """Return the limit that SIZE announces; 0 if there is none (RFC 1870)."""
    return int(parameter) if re.fullmatch('[0-9]{1,18}', parameter) else 0


def check_limits(extensions: Extensions, mail: Mail) -> None:
    """Refuse a message that the server cannot take.

    Raises:
        SMTPMessageError: It is larger than the server takes.
        SMTPNotSupportedError: It needs an extension that is not offered.
    """
    limit = parse_size_limit(extensions.get('SIZE', ''))
    if limit and limit < mail.size:
        # Base64: four octets for three, and a CRLF after each 76, is 37 %.
        raise SMTPMessageError(
            f'the message has {mail.size:,} octets, and the server '
            f'takes no more than {limit:,}.', command='MAIL',
            advice=f'{YOU}: attachments grow by 37 % on their way: send '
            'fewer, or a link.')
    for keyword, needed, what, action in (
            ('SMTPUTF8', mail.needs_smtputf8,
             'an address or a header field has letters',
             'use an address in plain letters; write header fields in '
             'encoded-words.'),
            ('8BITMIME', mail.needs_8bitmime,
             'the body of the message has octets',
             'let your mail program write it in quoted-printable.')):
        if needed and keyword not in extensions:
            raise SMTPNotSupportedError(
                f'{what} beyond ASCII, and the server does not offer '
                f'{keyword}.', command='MAIL', advice=f'{YOU}: {action}')


def format_mail_command(extensions: Extensions, mail: Mail) -> str:
    """Write the MAIL command, with the parameters that the server takes.

    Returns:
        For example 'MAIL FROM:<alice@example.com> SIZE=431'.
    """
    command = f'MAIL FROM:<{mail.sender}>'
    if 'SIZE' in extensions and mail.header:
        command += f' SIZE={mail.size}'                  # RFC 1870
    if '8BITMIME' in extensions and (
            mail.needs_8bitmime or mail.needs_smtputf8):
        command += ' BODY=8BITMIME'                         # RFC 6152
    if mail.needs_smtputf8:
        command += ' SMTPUTF8'                              # RFC 6531
    return command


# What is a yes to a command of the envelope, RFC 5321 section 4.3.2. Not every
# 2yz is one: 252, for example, means "I could not find out".
YES = {'MAIL': (COMPLETED,), 'RCPT': (COMPLETED, WILL_FORWARD),
       'DATA': (START_MAIL_INPUT,)}


def send_groups(connection: Connection, envelope: Sequence[str],
                group_size: int) -> dict[str, Reply]:
    """Send the commands of the envelope in groups, and read their replies.

    Without PIPELINING a group is one command. With it there is a limit all
    the same: if the replies filled all buffers on their way to us while our
    commands filled those to the server, both would wait for ever.

    A refusal of MAIL ends it. A refused recipient does not, since the user
    should hear of all of them; but then a DATA that has not gone out with
    the same group is not sent any more.

    Args:
        connection: To the server.
        envelope: MAIL, each RCPT, DATA.
        group_size: How many to send before their replies are read.

    Returns:
        The replies that were not a yes, by command.
    """
    wrong: dict[str, Reply] = {}
    for start in range(0, len(envelope), group_size):
        group = envelope[start:start + group_size]
        if wrong:
            group = [command for command in group if command != 'DATA']
        if not group or envelope[0] in wrong:
            break
        connection.send_lines(group)
        for command in group:
            reply = connection.read_reply()
            if reply.code not in YES[command[:4]]:
                wrong[command] = reply
    return wrong


@stage('rcpt')
def send_envelope(connection: Connection, mail: Mail) -> None:
    """Say from whom and to whom the mail goes, and that the message follows.

    This is the envelope; the header fields of the message play no part in
    where it goes (RFC 5321 sections 3.3 and 7.2).

    C: MAIL FROM:<alice@example.com> SIZE=431
    C: RCPT TO:<bob@example.org>
    C: DATA
    S: 250 2.1.0 Sender OK
    S: 250 2.1.5 Recipient OK
    S: 354 Start mail input; end with <CRLF>.<CRLF>

    Raises:
        SMTPRecipientsRefused: A recipient was refused.
        SMTPResponseException: The sender or DATA was refused.
        SMTPMessageError: The message is too large for the server.
        SMTPNotSupportedError: It needs an extension that is not offered.
    """
    check_limits(connection.extensions, mail)
    sender = format_mail_command(connection.extensions, mail)
    rcpt = {f'RCPT TO:<{address}>': address for address in mail.recipients}
    envelope = [sender, *rcpt, 'DATA']
    # --quit-after mail sends MAIL alone, --quit-after rcpt all but DATA.
    stop = {'mail': 1, 'rcpt': -1}.get(connection.transcript.quit_after)
    wrong = send_groups(
        connection, envelope[:stop],
        MAX_GROUP if may_pipeline(connection) else 1)
    if wrong and connection.last_code == START_MAIL_INPUT:
        # DATA went out with a RCPT that was refused, and got its 354. Now
        # every line is text, even QUIT, and a dot would send an empty message
        # to the others. Hanging up is the only way out.
        connection.transcript.note('hanging up without the final dot')
        connection.close()
    first = next(iter(wrong), '')
    if first in rcpt and wrong[first].code >= 400:
        raise SMTPRecipientsRefused(
            {rcpt[command]: reply for command, reply in wrong.items()
             if command in rcpt and reply.code >= 400})
    if first:
        raise make_refusal(connection.transcript.hide(first), wrong[first])
    connection.transcript.reached('mail')       # which stopped above


def send_final_dot(connection: Connection, last_lines: Sequence[str],
                   mail: Mail) -> Receipt:
    """End the message, and wait for the reply that decides.

    A 4yz or 5yz is a clear no, 421 too. Everything else that can happen
    leaves it open whether the server has taken the message.

    Args:
        connection: To the server, which has all of the message.
        last_lines: The dot, and perhaps QUIT.
        mail: What is sent.

    Returns:
        The receipt: sent.

    Raises:
        SMTPResponseException: The server refused the message.
        SMTPDeliveryUnknown: No reply came to the dot, or a strange one.
    """
    transcript = connection.transcript
    receipt: Receipt | None = None
    # Not send_lines: nobody is asked any more, and the dot has another name.
    for line in last_lines:
        transcript.show_line(line)
    try:
        connection.send_octets(
            ''.join(line + CRLF for line in last_lines).encode())
        connection.awaited.extend([FINAL_DOT, *last_lines[1:]])
        transcript.sent(['(the message)', *last_lines])
        reply = connection.read_reply(COMPLETED,
                                      seconds=connection.final_timeout)
        transcript.verdict = receipt = Receipt(
            reply, mail.recipients, mail.message_id)
        return receipt
    except SMTPResponseException:
        raise
    except BaseException as error:      # whatever it is: the dot may be out
        if receipt:             # interrupted when all was done
            raise
        transcript.verdict = SMTPDeliveryUnknown(
            getattr(error, 'problem', 'interrupted.'),
            details=[f'The message was complete (Message-ID '
                     f'{mail.message_id or "as typed"}).'],
            command=FINAL_DOT, reply=getattr(error, 'reply', None))
        raise transcript.verdict from error


@stage('message')
def send_message(connection: Connection, mail: Mail) -> Receipt:
    """Send the message, and the dot that ends it.

    Every line goes as it is, save that a dot at its start is doubled; a line
    with one dot is the end (RFC 5321 sections 4.5.2 and 4.1.1.4).

    C: From: alice@example.com
    C: (the other header fields, an empty line, the text)
    C: .
    S: 250 2.0.0 OK, queued

    Returns:
        The receipt: sent.

    Raises:
        SMTPResponseException: The server refused the message.
        SMTPMessageError: A file changed while it was read.
        SMTPDeliveryUnknown: No reply came to the dot, or a strange one.
    """
    transcript = connection.transcript
    if transcript.stream:
        for mark, text in mail.outline():
            transcript.write(mark, text)
    done, size = 0, mail.size
    try:
        transcript.confirm()
        for chunk in mail.chunks():
            connection.refuse_unasked()     # it may have had enough already
            connection.send_octets(dot_stuff(chunk))
            done += len(chunk)
            transcript.progress(done, size)
        connection.refuse_unasked()
    except BaseException:
        connection.close()      # without the final dot nothing is sent
        raise
    finally:
        transcript.progress(size, size)     # wipe the meter
    # Whatever the reply to the dot is, we have nothing more to say. So QUIT
    # need not wait for it: one round trip less.
    last_lines = ['.', 'QUIT'] if may_pipeline(connection) else ['.']
    return send_final_dot(connection, last_lines, mail)


@stage('quit')
def say_goodbye(connection: Connection) -> None:
    """Close the session politely.

    Whatever happens to QUIT, what was sent is sent, and what was refused is
    refused (RFC 5321 section 4.1.1.10).

    C: QUIT
    S: 221 2.0.0 Service closing transmission channel
    """
    seconds = min(QUIT_TIMEOUT, connection.timeout)
    # QUIT may be said only where a command is expected.
    try:
        if GREETING in connection.awaited:          # stopped before it came
            connection.read_reply(seconds=seconds)
        if connection.last_code == CHALLENGE:       # stopped within a login
            connection.send_line('*')       # "I give up", RFC 4954 section 4
            connection.read_reply(seconds=seconds)
        if connection.last_code == START_MAIL_INPUT:
            return              # only hanging up ends a message without a dot
        if not connection.awaited:
            connection.send_line('QUIT')
        if connection.awaited[0] == 'QUIT':         # sent now, or with the dot
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

# A name does not know its field, so it leaves room for the longest.
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


def encode_words(text: str, beside: str = '') -> list[str]:
    """Write text as encoded-words (RFC 2047).

    'Übung 1' becomes ['=?utf-8?q?=C3=9Cbung_1?=']: the character set; q for a
    way in which octets are = and two hex digits, and spaces _; the text. If b
    stands there, the text is in base64, which is shorter for foreign letters.
    Each encoded-word stands for whole characters, and a space between two of
    them is not part of the text.

    Args:
        text: Of any length.
        beside: What stands on the line before the first one.
    """
    room = HEADER_LINE - len(beside)
    if room < ENCODED_WORD // 2:        # then fold() begins a line with it
        room = ENCODED_WORD
    room = min(room, ENCODED_WORD) - len('=?utf-8?q??=')
    characters = [character.encode() for character in text]
    q_forms = [
        '_' if character == ' '
        else character if Q_SAFE.fullmatch(character)
        else ''.join(f'={octet:02X}' for octet in character.encode())
        for character in text]
    base64_length = len(text.encode()) * 4 // 3
    if sum(map(len, q_forms)) <= base64_length + 4:     # people can read q
        return [f'=?utf-8?q?{word}?=' for word in pack(q_forms, room)]
    return [f'=?utf-8?b?{to_base64(word.decode())}?='
            for word in pack(characters, room // 4 * 3)]


def format_unstructured(name: str, text: str) -> list[str]:
    """Write free text, such as a subject, for a header field.

    Args:
        name: Of the field.
        text: Without line ends.

    Returns:
        Words to put a space between: those of the text if all of it is plain
        ASCII, else encoded-words.
    """
    # Split at single spaces; further ones stay with the word after them.
    words = re.split('(?<! ) ', text) if text else []
    # '=?' would be taken for the beginning of an encoded-word. A line has room
    # for 998 octets, so these 60 and 900 surely fit.
    if all(re.fullmatch(' {0,60}[!-~]{1,900}', word) and '=?' not in word
           for word in words):
        return words
    return encode_words(text, f'{name}: ')


def quote(text: str) -> str:
    """Write text as a quoted string (RFC 5322 section 3.2.4)."""
    return '"' + re.sub(r'(["\\])', r'\\\1', text) + '"'


def format_phrase(name: str) -> list[str]:
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
    return encode_words(name, LONGEST_ADDRESS_FIELD)


def encode_domain(domain: str) -> str:
    """Write a domain in ASCII, as DNS has it (RFC 5890).

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
        import unicodedata
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
            raise ValueError('there is more than one way to spell its domain; '
                             'write it as xn--...')
    if not DOMAIN.fullmatch(encoded):
        raise ValueError('that is no name of a host')
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
    """Return the position after a comment (they nest), or -1 if it is open."""
    depth = 0
    for found in re.compile(r'\\.|[()]').finditer(text, start):
        depth += {'(': 1, ')': -1}.get(found[0], 0)
        if depth == 0:
            return found.end()
    return -1


def tokenize(text: str) -> Iterator[Token]:
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


def parse_display_name(tokens: Sequence[Token]) -> str:
    """Read the display name before the < of a mailbox or the : of a group.

    Raises:
        ValueError: It is none.
    """
    tokens = [token for token in tokens if token[0] != 'comment']
    if any(kind not in ('atom', 'quoted') for kind, _ in tokens):
        raise ValueError('a name with special characters needs quotes')
    return ' '.join(re.sub(r'\\(.)', r'\1', text[1:-1]) if kind == 'quoted'
                    else text for kind, text in tokens)


def parse_addr_spec(tokens: Sequence[Token]) -> str:
    """Check an address, and write it as the envelope wants it.

    Returns:
        The address, its domain in ASCII.

    Raises:
        ValueError: It is no address by RFC 5321 section 4.1.2, or too long.
    """
    kinds = [text if kind == 'special' else kind for kind, text in tokens]
    if kinds[1:] not in (['@', 'atom'], ['@', 'literal']):
        raise ValueError("it is not of the form 'user@host'")
    local, domain = parse_display_name(tokens[:1]), tokens[2][1]
    if not local.isprintable() or LIKE_ENCODED_WORD.search(local):
        raise ValueError('the part before @ would be misread')
    if not DOT_ATOM.fullmatch(local):
        if kinds[0] != 'quoted':
            raise ValueError('the part before @ has a dot out of place')
        local = quote(local)
    domain = check_literal(domain) if kinds[2] == 'literal' \
        else encode_domain(domain)
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


def parse_mailbox(tokens: Sequence[Token]) -> AddressList:
    """Read one mailbox: an address, or a name and an address in < and >.

    Raises:
        ValueError: It is none.
    """
    comments = [text[1:-1].strip() for kind, text in tokens
                if kind == 'comment']
    tokens = [token for token in tokens if token[0] != 'comment']
    if LESS not in tokens:
        address = parse_addr_spec(tokens)
        # bob@example.org (Bob): how names were written before 1982
        name = comments[0] if comments else ''
    else:
        angle = tokens.index(LESS)
        if tokens[-1] != GREATER:
            raise ValueError('its < has no > at the end')
        address = parse_addr_spec(tokens[angle + 1:-1])
        name = parse_display_name(tokens[:angle])
    words = [*format_phrase(name), f'<{address}>'] if name else [address]
    return AddressList(words, [address])


def format_group_name(tokens: Sequence[Token]) -> list[str]:
    """Write the name of a group, including its colon.

    Raises:
        ValueError: There is none.
    """
    if not tokens:
        raise ValueError('a group needs a name before its colon')
    words = format_phrase(parse_display_name(tokens))
    if words[-1].startswith('=?'):
        return [*words, ':']            # an encoded-word stands by itself
    return [*words[:-1], f'{words[-1]}:']


def join_with_commas(entries: Iterable[Sequence[str]]) -> list[str]:
    """Write a list: the words of its entries, commas between the entries."""
    words: list[str] = []
    for entry in entries:
        if words and entry:
            words[-1] += ','
        words += entry
    return words


def parse_address_list(tokens: Iterable[Token]) -> AddressList:
    """Read a list of mailboxes and groups (RFC 5322 section 3.4).

    For example 'Bob <bob@example.org>, Friends: carol@example.com;'.

    Raises:
        ValueError: Something in it is no address.
    """
    entries: list[list[str]] = []       # the words of each mailbox or group
    addresses: list[str] = []
    group: list[str] | None = None      # the name of the group that is open
    members: list[list[str]] = []
    mailbox: list[Token] = []
    for token in [*tokens, COMMA]:
        if token == COLON and group is None and LESS not in mailbox:
            group, members, mailbox = format_group_name(mailbox), [], []
        elif token not in (COMMA, SEMICOLON):
            mailbox.append(token)
        else:
            if any(kind != 'comment' for kind, _ in mailbox):
                found = parse_mailbox(mailbox)
                addresses += found.addresses
                (entries if group is None else members).append(found.words)
            mailbox = []
            if token == SEMICOLON:
                if group is None:
                    raise ValueError('a semicolon ends only a group')
                *words, last = [*group, *join_with_commas(members)]
                entries.append([*words, f'{last};'])
                group = None
    if group is not None:
        raise ValueError('a group ends with a semicolon')
    return AddressList(join_with_commas(entries), addresses)


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
    found: list[AddressList] = []
    for text in texts:
        try:
            found.append(parse_address_list(tokenize(check_text(field, text))))
        except ValueError as error:
            raise SMTPMessageError(
                f'{field}: "{text[:100]}" is no address: {error}.',
                advice=f"{YOU}: write 'user@host' or 'Name <user@host>', with "
                'commas between several; a name with a comma needs "quotes".'
            ) from None
    return AddressList(join_with_commas(words for words, _ in found),
                       [one for _, addresses in found for one in addresses])


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
        # Some programs cannot read a first line with only the name.
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
        import tzlocal
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
        SMTPConfigurationError: pytz is not installed.
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
    """Print the names that get_formatted_date knows, one on each line.

    Raises:
        SMTPConfigurationError: pytz is not installed.
    """
    print('\n'.join(import_pytz().all_timezones))


# ---------------------------------------------------------------------------
# 10  Parts
#
# SMTP was made for lines of ASCII, at most 998 octets long. A text of other
# letters, and every file, has to be encoded as such lines: in quoted-
# printable, which leaves ASCII readable (é is =C3=A9), or in base64, which
# writes three octets as four letters. Fields in front of each part say what
# it is and how it is encoded (RFC 2045). Files are read in small pieces while
# they are sent, so that a large one takes no memory.
# ---------------------------------------------------------------------------


LONG_LINE = f'(?m)^[^\r\n]{{{MAX_TEXT_LINE + 1}}}'


class Part(NamedTuple):
    """A part of a message: its own header fields, and its content.

    Attributes:
        fields: The fields, each with its CRLF.
        pieces: The content.
    """

    fields: str
    pieces: list[Piece]


def normalize_line_ends(text: str) -> str:
    """Make each CR, LF or CRLF a CRLF, and end the last line with one."""
    # Each of these is a single pass in C; a regular expression takes longer.
    text = text.replace(CRLF, '\n').replace('\r', '\n').replace('\n', CRLF)
    return text if not text or text.endswith(CRLF) else text + CRLF


def encode_base64(octets: bytes) -> bytes:
    """Write octets as lines of base64 (RFC 2045 section 6.8)."""
    base64 = binascii.b2a_base64(octets, newline=False)
    # One call that cuts all the lines is three times as fast as a loop.
    whole, rest = divmod(len(base64), BASE64_LINE)
    lines = struct.unpack(
        f'{BASE64_LINE}s' * whole + (f'{rest}s' if rest else ''), base64)
    return CRLF.encode().join((*lines, b''))


def make_text_part(text: str, subtype: str = 'plain') -> Part:
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
    text = normalize_line_ends(text)
    try:
        octets = text.encode()
    except UnicodeEncodeError as error:
        raise SMTPMessageError('the text is not UTF-8: broken character at '
                               f'position {error.start + 1}.') from None
    encoding, charset = '7bit', 'us-ascii'
    if not text.isascii() or '\0' in text or re.search(LONG_LINE, text):
        charset = 'utf-8'
        quoted = binascii.b2a_qp(octets)
        base64 = encode_base64(octets)
        encoding, octets = min(('quoted-printable', quoted),
                               ('base64', base64), key=lambda way: len(way[1]))
    return Part(
        fold('Content-Type', [f'text/{subtype};', f'charset={charset}'])
        + fold('Content-Transfer-Encoding', [encoding]), [Lines(octets)])


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
        reason = reason_of(error)
    raise SMTPMessageError(f'cannot read {path}: {reason}.',
                           exit_code=EXIT_NO_INPUT)


def get_state(file: BinaryIO) -> tuple[int, int, int]:
    """Return what tells a version of a file: size, time, and which it is."""
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns, status.st_ino


def check_unchanged(path: str, unchanged: bool) -> None:
    """Refuse to complete a message whose file changed while it was sent.

    Raises:
        SMTPMessageError: The announced size may be wrong now.
    """
    if not unchanged:
        raise SMTPMessageError(
            f'{path} changed while it was sent, so the message was not '
            'completed.', exit_code=EXIT_NO_INPUT,
            advice=f'{YOU}: send it again when nobody writes to the file.')


class Attachment:
    """A file, sent in base64 (RFC 2045 section 6.8).

    Attributes:
        path: Where it is.
        name: Its name, as the recipient sees it.
        size: Octets in base64, with line ends.
    """

    def __init__(self, path: str) -> None:
        """Look at the file, which must be one that can be read.

        Raises:
            SMTPMessageError: It is not, or its name cannot be sent.
        """
        self.path = path
        self.name = check_text('the file name', os.path.basename(path))
        with open_file(path) as file:
            self._state = get_state(file)
        self._octets = self._state[0]
        base64_size = (self._octets + 2) // 3 * 4
        lines = -(-base64_size // BASE64_LINE)
        self.size = base64_size + len(CRLF) * lines

    def outline(self) -> Iterator[tuple[str, str]]:
        """Yield what a transcript shows of the file."""
        yield '--', (f'({self.name}: {self._octets:,} octets, '
                     f'{self.size:,} in base64)')

    def chunks(self) -> Iterator[bytes]:
        """Read the file, and yield lines of base64, many at a time.

        Raises:
            SMTPMessageError: The file has changed since it was looked at.
        """
        block = BASE64_LINES * (BASE64_LINE // 4 * 3)
        left = self._octets
        with open_file(self.path) as file:
            while octets := file.read(min(left, block)):
                left -= len(octets)
                yield encode_base64(octets)
            check_unchanged(self.path, left == 0 and not file.read(1)
                            and get_state(file) == self._state)


def format_parameter(name: str, value: str) -> list[str]:
    """Write a parameter of a field, such as filename (RFC 2231).

    Encoded-words may not stand in parameters (RFC 2047 section 5), so these
    have a form of their own. A star behind the name says that the value is
    encoded: it begins with the character set and two apostrophes (a language
    may stand between them), and an octet that is no plain letter is % and two
    hex digits. A long value is cut, and its pieces are numbered.

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
    pieces = list(pack(["utf-8''", *percent], 50))
    if len(pieces) == 1:
        return [f'{name}*={pieces[0]}']
    words = [f'{name}*{number}*={piece};'
             for number, piece in enumerate(pieces)]
    return [*words[:-1], words[-1].rstrip(';')]


def make_attachment_part(path: str) -> Part:
    """Make a part of a file (RFC 2183).

    Raises:
        SMTPMessageError: It cannot be read, or its name cannot be sent.
    """
    import mimetypes
    attachment = Attachment(path)
    kind, packed = mimetypes.guess_type(f'./{attachment.name}')
    if kind is None or packed or kind.startswith(('message/', 'multipart/')):
        kind = 'application/octet-stream'   # RFC 2045 6.4: these not in base64
    return Part(
        fold('Content-Type', [kind])
        + fold('Content-Transfer-Encoding', ['base64'])
        + fold('Content-Disposition',
               ['attachment;',
                *format_parameter('filename', attachment.name)]),
        [attachment])


def make_multipart(subtype: str, parts: Sequence[Part]) -> Part:
    """Put several parts together (RFC 2046 section 5.1).

    Args:
        subtype: 'mixed' for a text and its attachments, 'alternative' for
            the same text in several forms, the best one last.
        parts: What to put together.

    Returns:
        One part that holds them all, with a boundary between them.
    """
    texts = [piece.octets for part in parts for piece in part.pieces
             if isinstance(piece, Lines)]
    boundary = ''
    while not boundary or any(boundary.encode() in text for text in texts):
        # '=_' occurs neither in base64 nor in quoted-printable.
        boundary = f'=_{os.urandom(12).hex()}'
    content: list[Piece] = []
    for part in parts:
        start = f'--{boundary}{CRLF}{part.fields}{CRLF}'
        content += [Lines(start.encode()), *part.pieces, Lines(CRLF.encode())]
    content.append(Lines(f'--{boundary}--{CRLF}'.encode()))
    return Part(fold('Content-Type', [f'multipart/{subtype};',
                                      f'boundary="{boundary}"']), content)


# ---------------------------------------------------------------------------
# 11  The message
#
# A message is header fields, an empty line, and the body. For SMTP it must
# also be known who sends it and who receives it: for us these are the
# addresses in From, To, Cc and Bcc. From, To and Cc stand in the header too,
# for people to read; Bcc goes into the envelope alone, which is what makes it
# blind. The size is known before the first octet is sent, so that a server
# can refuse at once what it will not take.
#
# There are two ways to a message: build_message makes one of what a user
# says, read_message takes one that another program has finished. Both add
# what must be there (Date, Message-ID) and make every line end a CRLF. What
# neither does is guess: an address that is none, a line that is too long or
# letters that no header can carry are named in an error.
# ---------------------------------------------------------------------------

OWN_FIELDS = ('from', 'to', 'cc', 'bcc', 'subject', 'date', 'message-id',
              'mime-version', 'content-type', 'content-transfer-encoding',
              'content-disposition', 'resent-bcc')
ADDRESS_FIELDS = ('reply-to', 'sender', 'mail-followup-to',
                  'disposition-notification-to')


def format_own_fields(name: str, values: Iterable[str]) -> str:
    """Write the user's own header fields of one name.

    Args:
        name: Such as 'Reply-To' or 'X-Lab'.
        values: One for each field, without line ends.

    Returns:
        The fields, each with its CRLF.

    Raises:
        SMTPMessageError: The name is invalid, or smtp.py writes that field.
    """
    if not FIELD_NAME.fullmatch(name):
        raise SMTPMessageError(f'{name!r} is no name for a header field.')
    if name.lower() in OWN_FIELDS:
        raise SMTPMessageError(
            f'{name} is a header field that smtp.py writes itself.')
    return ''.join(
        fold(name, parse_addresses(name, value).words
             if name.lower() in ADDRESS_FIELDS
             else format_unstructured(name, check_text(name, value)))
        for value in values)


def check_sender(found: AddressList) -> str:
    """Return the address of From.

    Raises:
        SMTPMessageError: There is none, or more than one.
    """
    if len(found.addresses) != 1:
        raise SMTPMessageError('From needs one address, and one only.')
    return found.addresses[0]


def drop_duplicates(addresses: Iterable[str]) -> list[str]:
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


def make_body(text: str, attachments: Sequence[str], html: str | None) -> Part:
    """Make the body: a text, perhaps in two forms, and perhaps files.

    Raises:
        SMTPMessageError: A text is no Unicode text, or a file unreadable.
    """
    body = make_text_part(text)
    if html is not None:
        body = make_multipart('alternative',
                              [body, make_text_part(html, 'html')])
    if attachments:
        body = make_multipart(
            'mixed', [body, *map(make_attachment_part, attachments)])
    return body


def build_message(message_info: Mapping[str, Any], message_text: str,
                  attachments: Sequence[str] = (), html: str | None = None
                  ) -> Mail:
    """Write a message (RFC 5322).

    Args:
        message_info: 'From', 'To' (a string or a list of strings),
            'Subject', and perhaps 'Cc', 'Bcc', 'Date'; any other key is a
            further header field.
        message_text: The text, of any number of lines.
        attachments: Paths of files.
        html: The same text for readers that show HTML, or None.

    Returns:
        The mail: the message, and the envelope that follows from it.

    Raises:
        SMTPMessageError: It cannot be sent as it is given.
    """
    fields = {key.title() if key.lower() in OWN_FIELDS else key:
              [value] if isinstance(value, str) else list(value or ())
              for key, value in message_info.items()}
    if len(fields) < len(message_info):
        raise SMTPMessageError('a header field is given twice.')
    sender, to, cc, bcc = (parse_addresses(name, *fields.pop(name, ()))
                           for name in ('From', 'To', 'Cc', 'Bcc'))
    address = check_sender(sender)
    recipients = drop_duplicates(to.addresses + cc.addresses + bcc.addresses)
    if not recipients:
        raise SMTPMessageError('there is no recipient.')
    if not to.words and not cc.words:
        # An empty group tells people that there is somebody, but not who.
        to = AddressList(['undisclosed-recipients:;'], [])
    subject = check_text('Subject', ''.join(fields.pop('Subject', ())))
    date = ''.join(fields.pop('Date', ())) or get_formatted_date()
    if not re.fullmatch(f'[ -~]{{1,{HEADER_LINE}}}', date):
        raise SMTPMessageError(
            f'Date: {date[:100]!r} is not a short line of ASCII.')
    message_id = make_message_id(address)
    body = make_body(message_text, attachments, html)
    header = [
        fold('From', sender.words),
        *(fold(name, found.words)
          for name, found in (('To', to), ('Cc', cc)) if found.words),
        fold('Subject', format_unstructured('Subject', subject)),
        fold('Date', [date]),
        fold('Message-ID', [message_id]),
        *(format_own_fields(*field) for field in fields.items()),
        fold('MIME-Version', ['1.0']),
        body.fields]
    blind = [fold('Bcc', bcc.words)] if bcc.words else []
    return Mail(address, recipients, message_id, header, body.pieces,
                own_header=[*blind, *header])


def check_lines(lines: bytes) -> None:
    """Refuse lines that no server would take (RFC 5321 section 4.5.3.1.6).

    Raises:
        SMTPMessageError: A line is too long, or has a NUL.
    """
    if re.search(LONG_LINE.encode(), lines):
        raise SMTPMessageError(
            f'the message has a line of more than {MAX_TEXT_LINE} octets.',
            advice=f'{YOU}: let your mail program write it in '
            'quoted-printable or base64.')
    if b'\0' in lines:
        raise SMTPMessageError(
            'the message has a NUL octet, which mail cannot carry.',
            advice=f'{YOU}: let your mail program write it in base64.')


class StoredBody:
    """The body of a finished message, read from its file while it is sent.

    Attributes:
        size: Octets on the wire, before dots are doubled.
        is_ascii: Whether all its octets are.
    """

    def __init__(self, path: str, file: BinaryIO) -> None:
        """Look through the file, which stands at the start of the body.

        Raises:
            SMTPMessageError: A line of it cannot be sent.
        """
        self.size = 0
        self.is_ascii = True
        self._path = path
        self._file = file
        self._start = file.tell()
        self._state = get_state(file)
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
            # In Latin-1 each octet is a letter, so this changes no other.
            yield normalize_line_ends(
                lines[:end].decode('latin-1')).encode('latin-1')
            lines = lines[end:]

    def chunks(self) -> Iterator[bytes]:
        """Yield the lines of the body, many at a time.

        Raises:
            SMTPMessageError: The file has changed since it was looked at.
        """
        left = self.size
        for lines in self._read():
            left -= len(lines)
            yield lines
        check_unchanged(self._path, left == 0
                        and get_state(self._file) == self._state)

    def outline(self) -> Iterator[tuple[str, str]]:
        """Yield what a transcript shows of the body: its first lines."""
        first = Lines(next(self._read(), b''))
        if first.size == self.size:
            yield from first.outline()
        else:
            yield from itertools.islice(first.outline(), SHOWN_FIRST)
            yield '--', f'({self.size:,} octets in all)'


def read_header(file: BinaryIO) -> list[str]:
    """Read the header of a finished message, up to its empty line.

    Returns:
        Its fields, each with its folded lines and its CRLF.

    Raises:
        SMTPMessageError: This is no header, or none that can be sent.
    """
    fields: list[list[str]] = []
    for number, octets in enumerate(
            iter(functools.partial(file.readline, BLOCK), b''), 1):
        octets = octets.rstrip(b'\r\n')
        try:
            # Some editors leave a mark at the beginning of a file.
            line = octets.decode('utf-8-sig' if number == 1 else 'utf-8')
        except UnicodeDecodeError:
            told = octets[:80].decode('utf-8', 'backslashreplace')
            raise SMTPMessageError(
                f'line {number}, in the header, is not UTF-8: {told}',
                advice=f'{YOU}: let your mail program write encoded-words.'
            ) from None
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
        check_lines(octets + CRLF.encode())
    return [''.join(lines) for lines in fields]


def get_name(field: str) -> str:
    """Return the name of a header field, in small letters."""
    return field.partition(':')[0].strip().lower()


def collect_values(fields: Sequence[str]) -> dict[str, list[str]]:
    """Return the values of header fields by their names in small letters.

    Whoever passes a message on as it is, not as an attachment, puts fields
    Resent-From, Resent-To and so on above the others (RFC 5322 section
    3.6.6). If that happened more than once, the uppermost count.
    """
    values: dict[str, list[str]] = {}
    resent_before = False
    for field in fields:
        name = get_name(field)
        if name.startswith('resent-') and (resent_before or name in values):
            resent_before = True
            continue
        values.setdefault(name, []).append(
            re.sub('[\r\n]', '', field.partition(':')[2]).strip())
    return values


def find_addresses(values: Mapping[str, Sequence[str]], *names: str
                   ) -> list[str]:
    """Return the addresses in fields, or in those Resent if there are any.

    Display names play no part here, and many lack the quotes they need, so
    they are left out before a value is parsed: 'Dr. Bob <b@c.org>' becomes
    '<b@c.org>'.

    Args:
        values: From collect_values.
        *names: Of the fields, such as 'To'.

    Raises:
        SMTPMessageError: Something in them is no address.
    """
    resent = 'Resent-' if 'resent-from' in values else ''
    # (?<![^x]) means: at the start, or behind an x.
    return [address for name in names for address in parse_addresses(
        resent + name,
        *(re.sub('(?<![^,;:<>"()])[^,;:<>"()]+<', '<', value)
          for value in values.get(f'{resent}{name}'.lower(), ()))).addresses]


def find_sender(values: Mapping[str, Sequence[str]], path: str) -> str:
    """Find the address for MAIL in the header of a finished message.

    Raises:
        SMTPMessageError: It is not clear which that is.
    """
    found = find_addresses(values, 'From')
    if len(found) > 1:              # several authors: one of them sent it
        found = find_addresses(values, 'Sender')
    if len(found) != 1:
        raise SMTPMessageError(
            f'{path} has no address in From, or several and none in Sender.',
            advice=f'{YOU}: see --from.')
    return found[0]


def read_message(file: BinaryIO, path: str, sender: str | None = None,
                 recipients: Sequence[str] = ()) -> Mail:
    """Take a finished message, as from a mail program, to be sent as it is.

    Bcc is taken out, a missing From, Date or Message-ID is put in, and line
    ends are made CRLF; all else stays as it is.

    Args:
        file: The message, a regular file.
        path: Its name, for errors.
        sender: For the envelope; None: as the header says.
        recipients: For the envelope; none: as the header says.

    Returns:
        The mail: the message, and its envelope.

    Raises:
        SMTPMessageError: It cannot be sent as it is.
    """
    fields = read_header(file)
    values = collect_values(fields)
    sender = sender or find_sender(values, path)
    recipients = drop_duplicates(
        recipients or find_addresses(values, 'To', 'Cc', 'Bcc'))
    if not recipients:
        raise SMTPMessageError(f'{path} names no recipient.',
                               advice=f'{YOU}: see --to.')
    message_id = values.get('message-id', [make_message_id(sender)])[0]
    if 'from' not in values:
        fields.append(fold('From', [sender]))
    if 'date' not in values:
        fields.append(fold('Date', [get_formatted_date()]))
    if 'message-id' not in values:
        fields.append(fold('Message-ID', [message_id]))
    header = [field for field in fields
              if get_name(field) not in ('bcc', 'resent-bcc')]
    body = StoredBody(path, file)
    return Mail(sender, recipients, message_id, header, [body],
                needs_8bitmime=not body.is_ascii, own_header=fields)


# ---------------------------------------------------------------------------
# 12  smtp_send
#
# Here is the whole story. Once the connection is open, each call in deliver()
# is a part of the session in the docstring at the top of this file.
# ---------------------------------------------------------------------------

TLS_WAYS = ('starttls', 'implicit', 'none')
AUTH_WAYS = ('auto', *map(str.lower, MECHANISMS), 'none')


def choose_tls(port: int) -> str:
    """Return how TLS begins on a port, if nobody says."""
    return 'implicit' if port == IMPLICIT_TLS_PORT else 'starttls'


def check_login(user: str, secret: str) -> None:
    """Refuse a user name, password or token that is no text.

    Raises:
        SMTPConfigurationError: One of them is not UTF-8, or has a NUL.
    """
    for what, text in ('user name', user), ('password', secret):
        if re.search('[\0\ud800-\udfff]', text):
            raise SMTPConfigurationError(
                f'the {what} is not UTF-8, or has a NUL.')


def deliver(mail: Mail, password: str, *, server: str = SMTP_SERVER,
            port: int = SMTP_PORT, tls: str | None = None,
            ca_file: str | None = None, ehlo: str | None = None,
            timeout: float | None = None, family: int = 0, user: str = '',
            auth: str = 'auto', transcript: Transcript | None = None
            ) -> Receipt:
    """Send a message that is ready to be sent.

    Args:
        mail: From build_message or read_message.
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
    tls = choose_tls(port) if tls is None else tls
    if tls not in TLS_WAYS:
        raise SMTPUsageError(f'tls is one of {", ".join(TLS_WAYS)}.')
    if auth not in AUTH_WAYS:
        raise SMTPUsageError(f'auth is one of {", ".join(AUTH_WAYS)}.')
    check_login(user, password)
    transcript = transcript or Transcript()
    transcript.protect(password)
    transcript.begin('', open_socket)       # no stage: no connection yet
    context = make_tls_context(ca_file) if tls != 'none' else None
    sock = open_socket(server, port, family, timeout)
    connection = Connection(sock, transcript, timeout)
    with contextlib.closing(connection):
        try:
            if context and tls == 'implicit':
                begin_tls(connection, context, server)
            read_greeting(connection)
            say_hello(connection, ehlo)
            if context and tls == 'starttls':
                start_tls(connection, context, server)
                say_hello(connection, ehlo)
            if connection.encrypted and auth != 'none':
                log_in(connection, user or mail.sender, password, auth)
            send_envelope(connection, mail)
            receipt = send_message(connection, mail)
        except (SMTPResponseException, SMTPNotSupportedError,
                SMTPMessageError, SMTPConfigurationError, SMTPStopped):
            # After all other errors there is nobody left to say goodbye to,
            # or nobody to be trusted.
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
        message_info: The header: see build_message.
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
    mail = build_message(message_info, message_text, attachments, html)
    return deliver(mail, password, **session)


# ---------------------------------------------------------------------------
# 13  The user
#
# From here on there is somebody at a keyboard. Whatever is asked is asked on
# standard error, so that standard output holds the result and nothing else.
# The password is asked on the terminal itself, even if a pipe brings the
# text, and is not shown.
# ---------------------------------------------------------------------------


def say(text: str, *names: str) -> None:
    """Print text, whatever its letters, on the first stream that takes it.

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
    """Ask for a command, which can be edited.

    Raises:
        EOFError: There are no more.
    """
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


# ---------------------------------------------------------------------------
# 14  The lab
#
# SMTP can be watched, and it can be typed; everybody who wants to know it
# should have done both once. A Lesson is a transcript that explains each
# stage before it runs, in the words of the docstring of the function that is
# about to do it; that waits before each command until everybody has
# understood; and that draws the session when it is over.
#
# With telnet a session typed by hand ends at STARTTLS. Here it goes on: the
# user types the commands, and this program does only what no human can do,
# the TLS handshake, base64, and not showing the password. A line that begins
# with an exclamation mark goes as it is, without any help.
# ---------------------------------------------------------------------------

# What the digits of a reply code mean: RFC 5321 section 4.2.1, and RFC 4954.
FIRST_DIGIT = {'2': 'yes', '3': 'yes so far, go on', '4': 'not now', '5': 'no'}
SECOND_DIGIT = {'0': 'syntax', '1': 'information', '2': 'the connection',
                '3': 'the login', '5': 'the mail system'}

# The middle of an enhanced status code: RFC 3463 section 2.
SUBJECT = {'1': 'an address', '2': 'a mailbox', '3': 'the mail system',
           '4': 'the network', '5': 'the protocol',
           '6': 'the message itself', '7': 'security or policy'}

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
# What is known after each stage at which --quit-after may end the session.
REACHED = {'connect': 'the server is there', 'ehlo': 'the server answers',
           'tls': 'the certificate is good', 'auth': 'the login is accepted',
           'mail': 'the sender is accepted',
           'rcpt': 'all recipients are accepted'}

METER_FROM = 1_000_000          # octets; smaller messages need no meter
MERMAID_ENTITIES = {ord(character): f'#{ord(character)};'
                    for character in '#;<>{}"'}
TLS_BACKGROUND = 'rgb(225, 240, 225)'       # a light green


def describe_size(limit: str) -> str:
    """Say what the parameter of SIZE means."""
    octets = parse_size_limit(limit)
    return 'any size' if octets == 0 \
        else f'up to {octets / 2**20:.0f} MB' if octets >= 2**20 \
        else f'up to {octets / 2**10:.0f} kB'


class Lesson(Transcript):
    """A transcript that explains, asks, measures and draws.

    Attributes:
        explain: Whether each stage is explained before it runs.
        ask: Asks the user something, before each command; or None.
        echo: Whether lines of the client are shown; a user who types them
            has them on the screen already.
        meter: Where to show how far a long message has gone, or None.
        events: Pairs of mark and text, for a diagram.
    """

    def __init__(self, stream: TextIO | None = None, *, explain: bool = False,
                 step: bool = False, quit_after: str = '',
                 meter: TextIO | None = None) -> None:
        """Begin; with step the user is asked before each command."""
        super().__init__(stream)
        self.quit_after = quit_after
        self.meter = meter
        self.explain = explain
        self.ask = ask_command if step else None
        self.one_by_one = explain or step
        self.echo = True
        self.events: list[tuple[str, str]] = []
        self._narration: list[str] = []
        self._explained: set[tuple[int, str]] = set()
        self._offered: Extensions = {}
        self._meter_begun = 0.0

    # Explaining

    def begin(self, name: str, function: Callable[..., Any]) -> None:
        """Say what is about to happen: a docstring, up to its dialogue."""
        if name == 'quit':
            self.ask = None             # there is nothing to decide any more
        if self.one_by_one:
            import inspect
            self._narration = re.split(
                r'\n+(?:[CS]: |[A-Z][a-z]+:\n)', inspect.getdoc(function) or ''
            )[0].split('\n\n')
        if self.explain:
            for paragraph in ['', *self._narration]:
                self.note(paragraph)

    def replied(self, command: str, reply: Reply) -> None:
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

    def offered(self, extensions: Extensions) -> None:
        """Say what the server offers, and what has changed since before."""
        before, self._offered = self._offered, extensions
        if not self.explain:
            return
        for keyword, parameters in extensions.items():
            if keyword not in before:
                words = EXTENSION_WORDS.get(keyword, 'not known to smtp.py')
                self.note(f'{keyword} {parameters}'.rstrip() + ': '
                          + words.replace('{size}', describe_size(parameters)))
        gone = [keyword for keyword in before if keyword not in extensions]
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
        """Show how many octets of a long message the socket has taken."""
        now = time.monotonic()
        if self.meter is None or total < METER_FROM:
            return
        self._meter_begun = self._meter_begun or now
        text = ''                       # at the end nothing is left of it
        if done < total:
            rate = done / max(now - self._meter_begun, 0.001)
            left = (total - done) / max(rate, 1)
            text = (f'{done * 100 // total:3} %  {rate / 1e6:6.1f} MB/s  '
                    f'{left:4.0f} s left')
        try:
            print(f'\r{text}\x1b[K', end='', file=self.meter, flush=True)
        except (OSError, ValueError):
            self.meter = None

    def show_line(self, line: str) -> None:
        """Show a line about to be sent, unless the user has just typed it."""
        if self.echo:
            super().show_line(line)

    def sent(self, lines: Iterable[str]) -> None:
        """Keep for the diagram what was shown, now that it is sent."""
        self.events += [('C:', self.hide(line)) for line in lines]

    def show_reply(self, lines: Sequence[str], elapsed: float) -> None:
        """Show what has arrived of a reply, and keep it for the diagram."""
        # A line that is no reply may have a secret in the place of its code.
        self.events += [('S:', self.hide(line)) for line in lines]
        super().show_reply(lines, elapsed)

    def encrypted(self, how: str, certificate: str) -> None:
        """Show that TLS has begun, and keep it for the diagram."""
        self.events.append(('TLS', f'TLS begins: {how}'))
        super().encrypted(how, certificate)

    def draw_diagram(self) -> str:
        """Draw the session as a sequence diagram for Mermaid."""
        drawn = ['sequenceDiagram', '    participant C as Client',
                 '    participant S as Server']
        form = {'C:': '    C->>S: {}', 'S:': '    S-->>C: {}',
                'TLS': f'    rect {TLS_BACKGROUND}\n    note over C,S: {{}}'}
        for mark, text in self.events:
            text = escape(text).translate(MERMAID_ENTITIES)
            drawn.append(form[mark].format(text or ' '))
        end = ['    end'] if 'TLS' in dict(self.events) else []
        return '\n'.join([*drawn, *end, ''])


class Talk:
    """A session whose commands the user types.

    Attributes:
        recipients: Those that the server has taken for the next message.
    """

    def __init__(self, connection: Connection, lesson: Lesson,
                 context: ssl.SSLContext, host: str) -> None:
        """Prepare to talk on a connection, before the greeting."""
        self.recipients: list[str] = []
        self._connection = connection
        self._lesson = lesson
        self._context = context
        self._host = host

    def protect(self, answer: str) -> None:
        """Protect a secret that was typed, in base64 or not, alone or last."""
        plain = from_base64(answer.lstrip('!')).rstrip('\1')
        secret = re.split('[\0\1]', plain)[-1]
        for text in answer.lstrip('!'), secret, secret.split(' ')[-1]:
            self._lesson.protect(text)

    def answer(self, challenge: str) -> str:
        """Let the user answer a challenge, and write the answer in base64.

        What is not the user name is typed unseen.

        Raises:
            EOFError, SMTPUsageError: There is no answer.
            SMTPConfigurationError: The answer is no text.
        """
        if re.match('(?i)(?!.*pass).*user', challenge):
            answer = ask_command(f'{challenge} ')
        else:
            answer = ask_secret(f'{challenge} ')
            check_login('', answer)
            self.protect(answer)
        return answer[1:] if answer.startswith('!') else to_base64(answer)

    def type_login(self, reply: Reply) -> Reply:
        """Let the user answer the challenges of a login.

        Args:
            reply: The first challenge.

        Returns:
            The first reply that is no challenge.
        """
        while reply.code == CHALLENGE:
            line = '*'                  # "I give up", RFC 4954 section 4
            with contextlib.suppress(EOFError, SMTPUsageError):
                line = self.answer(escape(from_base64(reply.text)
                                          or reply.text))
            echo, self._lesson.echo = self._lesson.echo, True
            reply = self._connection.send_command(line)
            self._lesson.echo = echo    # what was typed was not base64
        return reply

    def type_message(self) -> Reply:
        """Let the user type the message, up to the line with only a dot.

        Returns:
            The reply to the dot.

        Raises:
            SMTPStopped: The input has ended before.
        """
        connection = self._connection
        self._lesson.note(
            'Every line goes as you type it: here you must double a dot that '
            'begins a line. A line with only a dot ends the message.')
        try:
            for line in iter(functools.partial(ask_command, 'C: '), '.'):
                if re.search('[\r\n\0]', line):
                    self._lesson.note('Not sent: it has a CR or NUL.')
                    continue
                connection.transcript.show_line(line)
                connection.send_octets((line + CRLF).encode(
                    'utf-8', 'surrogateescape'))
            connection.refuse_unasked()
        except EOFError:        # run_talk hangs up: nothing is sent
            raise SMTPStopped('your input ended before the dot.') from None
        mail = Mail('', self.recipients)
        try:
            return send_final_dot(connection, ['.'], mail).reply
        except SMTPResponseException as error:
            if error.reply.code == NOT_AVAILABLE:
                raise
            return error.reply

    def execute(self, line: str) -> Reply:
        """Send a command, and do what belongs to it.

        Returns:
            The last reply to it.

        Raises:
            SMTPStopped: The input ended within a message.
        """
        connection = self._connection
        user = re.fullmatch(r'(?i:AUTH LOGIN) (\S+)', line)
        # The second one is for slips such as 'AUTHPLAIN secret': the last
        # word, if it does not look like a mechanism.
        secret = re.match(r'(?i)!?\s*AUTH\s+(?!LOGIN\b)\S+\s+(.+)', line) \
            or re.match(r'(?!\s*(?i:MAIL|RCPT)).*(?i:AUTH).*\s'
                        r'(?![A-Z0-9_-]{1,20}$)(\S+)$', line)
        if user:                        # we do the base64
            line = f'AUTH LOGIN {to_base64(user[1])}'
        elif secret:
            self.protect(secret[1])
        line = re.sub('^!', '', line)
        reply = connection.send_command(line)
        verb = line.upper().split(' ')[0]
        if reply.code == CHALLENGE:
            reply = self.type_login(reply)
        elif reply.code == START_MAIL_INPUT:
            reply = self.type_message()
        elif verb == 'EHLO' and reply.code == COMPLETED:
            self._lesson.offered(parse_extensions(connection.heard))
        elif verb == 'STARTTLS' and reply.code == SERVICE_READY:
            connection.encrypt(self._context, self._host)
        elif verb == 'RCPT' and reply.code in YES['RCPT']:
            self.recipients += re.findall(r':\s*<?([^<>\s]*)', line)[:1]
        if verb in ('MAIL', 'RSET', 'EHLO') and reply.code == COMPLETED:
            self.recipients = []
        return reply

    def find_objection(self, line: str) -> str:
        """Say why a command is not sent although it was typed; or ''."""
        login = re.match(r'(?i)(?!\s*(?:MAIL|RCPT)).*\bX?AUTH', line)
        if login and re.search('[\0\ud800-\udfff]', line):
            return 'it is not UTF-8, or has a NUL.'
        if login and not self._connection.encrypted:
            return ('base64 is no encryption, so everybody on the way could '
                    'read it. Say STARTTLS first.')
        if re.match(r'(?i)[!\s]*BDAT\b', line):
            return 'BDAT counts octets, which nobody can type. Say DATA.'
        return ''

    def ask(self) -> str | None:
        """Return the next command that may be sent; None if there is none."""
        while True:
            try:
                line = ask_command('C: ')
            except EOFError:
                return None
            objection = self.find_objection(line)
            if not objection:
                return line
            self._lesson.note(f'Not sent: {objection}')

    def run(self) -> None:
        """Let the user type commands, until QUIT or the end of the input.

        Raises:
            SMTPStopped: The session has ended, and no message was sent.
            SMTPException: The session cannot go on.
        """
        reply = self._connection.read_reply(SERVICE_READY)
        try:
            line: str | None = ''
            while reply.code != SERVICE_CLOSING and line is not None:
                line = self.ask()
                reply = self.execute('QUIT' if line is None else line)
        except SMTPDeliveryUnknown:
            raise
        except SMTPException as error:
            if self._lesson.verdict is None:
                raise
            self._lesson.note(f'{error}')
        if self._lesson.verdict is None:
            raise SMTPStopped('you ended the session, and sent no message.')


# ---------------------------------------------------------------------------
# 15  Options
#
# Whatever the program needs to know can be given as an option, save the
# password: everybody on a computer can read the command lines of all
# programs.
# ---------------------------------------------------------------------------

# The options that go to deliver() under the same names, and those that make
# a message.
SESSION_OPTIONS = ('server', 'port', 'tls', 'ca_file', 'ehlo', 'timeout',
                   'family', 'user', 'auth')
ENVELOPE_OPTIONS = ('sender', 'to', 'cc', 'bcc', 'recipients')
MESSAGE_OPTIONS = ('subject', 'html', 'attach', 'header', 'timezone')
NO_SENDER_YET = ('connect', 'ehlo', 'tls')      # --quit-after before a login


class Parser(argparse.ArgumentParser):
    """An argument parser that raises our errors."""

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


def parse_port(text: str) -> int:
    """Read a port, or raise ArgumentTypeError.

    It does not repeat what it read: to other programs -p is the password.
    """
    if not re.fullmatch('[0-9]{1,5}', text) or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError('a port is a number up to 65535')
    return int(text)


def parse_seconds(text: str) -> float:
    """Read a number of seconds, or raise ArgumentTypeError."""
    if not re.fullmatch(r'\d*\.?\d+', text, re.ASCII) \
            or not 0 < float(text) <= MAX_TIMEOUT:
        raise argparse.ArgumentTypeError(
            f'{text!r} is no number of seconds up to {MAX_TIMEOUT}')
    return float(text)


def parse_host(text: str) -> str:
    """Read the name of a server, or raise ArgumentTypeError."""
    if not re.fullmatch(r'[^\s\x00-\x1f/]+', text) \
            or re.fullmatch('[^:]*:[0-9]+', text):
        raise argparse.ArgumentTypeError(
            f'{text!r} is no name of a host (the port goes to --port)')
    return text.strip('[]')


def parse_ehlo_name(text: str) -> str:
    """Read a host name or address literal, or raise ArgumentTypeError."""
    try:
        return check_literal(text) if text.startswith('[') \
            else encode_domain(text)
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
           default=[], type=parse_header,
           help='a further header field; may be repeated')
    option('--message', metavar='FILE|-', help='send this finished message '
           'to those whom it names; Bcc is taken out')
    option('recipients', nargs='*', metavar='ADDRESS',
           help='with --message: send it to these instead')
    # Callers of sendmail say -i or -oi: taken, and ignored.
    option('-i', action='store_true', help=argparse.SUPPRESS)
    option('-o', help=argparse.SUPPRESS)
    option('--timezone', metavar='NAME', help='zone of the Date field')
    option('--timezones', action='store_true', help='list the names of zones')
    option = parser.add_argument_group('the server').add_argument
    option('--server', metavar='HOST', type=parse_host, default=SMTP_SERVER,
           help='default: %(default)s')
    option('-p', '--port', metavar='N', type=parse_port, default=SMTP_PORT,
           help='default: %(default)s')
    option('--tls', choices=TLS_WAYS,
           help='default: starttls, implicit on port 465; none never logs in')
    option('--ca-file', metavar='FILE',
           help='trust the authorities in this PEM file')
    option('--ehlo', metavar='NAME', type=parse_ehlo_name,
           help='our name for the server')
    option('--timeout', metavar='SECONDS', type=parse_seconds,
           help='for each reply; default: 60, and 600 for the last one')
    option('-4', dest='family', action='store_const', default=0,
           const=socket.AF_INET, help='use IPv4 only')
    option('-6', dest='family', action='store_const',
           const=socket.AF_INET6, help='use IPv6 only')
    option = parser.add_argument_group('the login').add_argument
    option('-u', '--user', metavar='NAME', default='',
           help='default: the address of --from')
    option('--auth', default='auto', type=str.lower, choices=AUTH_WAYS,
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
            (options.talk and (options.dry_run or options.quit_after
                               or finished or options.step),
             '--talk leaves it all to you: it goes without --dry-run, '
             '--quit-after, --message and --step.'),
            (options.step and not is_terminal(sys.stdin),
             '--step needs a terminal to read Enter from.')):
        if wrong:
            raise SMTPUsageError(why)
    return options


# ---------------------------------------------------------------------------
# 16  The draft
#
# Nobody should have to write a text twice. Whatever is typed or piped is in a
# Draft from its first line on, so that no error and no signal can lose it. If
# it was not sent, it is kept in a file that only its author can read, and the
# last line of the error is the command that sends it.
# ---------------------------------------------------------------------------


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
            f'the text is not {error.encoding.upper()}: octet '
            f'{error.object[error.start]:#04x} at offset {error.start}.',
            advice=f'{YOU}: convert it first, for example with iconv.'
        ) from None


def load_text(value: str) -> str:
    """Return the text of an option: itself, or that of a file after @.

    Raises:
        SMTPMessageError: The file cannot be read, or is no text.
    """
    if not value.startswith('@'):
        return value
    with open_file(value[1:]) as file:
        return decode_text(file.read())


class Draft:
    """What the user typed or piped, which must not be lost.

    Attributes:
        ending: What its file will be: 'txt', or 'eml' for a finished message.
        raw: What was typed or piped, as far as it has come; or None.
        mail: The message that was made of it, or None.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self.ending = 'txt'
        self.raw: BinaryIO | None = None
        self.mail: Mail | None = None

    def read_pipe(self, file: BinaryIO) -> BinaryIO:
        """Read standard input to its end.

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
        """Let the user type the text, up to a line that holds only a dot.

        Raises:
            SMTPMessageError: It is no text.
        """
        print('Text, ended by a line with only a dot:', file=sys.stderr,
              flush=True)
        self.raw = typed = io.BytesIO()
        for line in iter(sys.stdin.readline, ''):
            if line.rstrip('\r\n') == '.':
                break
            typed.write(line.encode('utf-8', 'surrogateescape'))
        return decode_text(typed.getvalue())

    def contents(self) -> Iterator[tuple[str, Iterable[bytes]]]:
        """Yield what can be kept, best first: a file's ending, and octets."""
        if self.raw is None or not self.raw.seek(0, os.SEEK_END):
            return
        if self.mail is not None:
            yield 'eml', self.mail._replace(
                header=self.mail.own_header).chunks()
        self.raw.seek(0)
        yield self.ending, iter(functools.partial(self.raw.read, BLOCK), b'')


def format_resend_command(options: argparse.Namespace, path: str) -> str:
    """Write the command that sends what was kept.

    Args:
        options: Of the attempt that failed.
        path: Of the file: a text, or a finished message, whose header says
            by itself what the options said.
    """
    import shlex
    import subprocess
    names = [*SESSION_OPTIONS, 'password_command']
    words = ['--message', path]
    if not path.endswith('eml'):
        names += [*ENVELOPE_OPTIONS, *MESSAGE_OPTIONS]
        words = ['--body', f'@{path}']
    elif options.message:
        names += ENVELOPE_OPTIONS
    usual = make_parser().parse_args([])
    for name in names:
        value = getattr(options, name)
        option = {'sender': '--from', 'recipients': '--to'}.get(
            name, f'--{name.replace("_", "-")}')
        if value == getattr(usual, name):
            continue
        if name == 'family':
            words.append('-6' if value == socket.AF_INET6 else '-4')
            continue
        for one in value if isinstance(value, list) else [value]:
            text = ': '.join(one) if isinstance(one, tuple) else str(one)
            words += [f'{option}={text}'] if text.startswith('-') \
                else [option, text]
    join = subprocess.list2cmdline if os.name == 'nt' else shlex.join
    return join([sys.executable or 'python', sys.argv[0], *words])


def write_private_file(folder: str, name: str, ending: str,
                       chunks: Iterable[bytes]) -> str:
    """Write a new file that nobody else can read, or leave none behind.

    Args:
        folder: Where.
        name: Without its ending; a number is added if there is such a file.
        ending: Without its dot.
        chunks: What to write.

    Returns:
        Its path.

    Raises:
        OSError: That was not possible.
    """
    for number in itertools.count(1):
        path = os.path.normpath(os.path.join(
            folder, f'{name}{f"_{number}" if number > 1 else ""}.{ending}'))
        with contextlib.suppress(FileExistsError):
            # 'x': never over a file, never through a link.
            file = open(path, 'xb', opener=functools.partial(
                os.open, mode=0o600))
            break
    try:
        with file:
            file.writelines(chunks)
    except BaseException:
        os.unlink(path)
        raise
    return path


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
    when = 'If it has not arrived, send' \
        if isinstance(error, SMTPDeliveryUnknown) else 'Send'
    for folder in folders:
        for ending, chunks in draft.contents():
            with contextlib.suppress(OSError, SMTPException):
                path = write_private_file(folder, name, ending, chunks)
                return (f'\nYour text is kept in {path}. {when} it with:\n'
                        + format_resend_command(options, path))
    *_, (_, chunks) = draft.contents()      # the last one is the bare text
    text = b''.join(chunks).decode('utf-8', 'backslashreplace')
    return '\nYour text could not be kept in a file. Here it is:\n' + text


# ---------------------------------------------------------------------------
# 17  The program
#
# What was not given as an option is asked for, in the order in which one
# writes a letter. Options, files and pipes are checked before the password is
# asked for. The last word is the verdict: sent, not sent, or may have been
# sent; the exit code says the same to a script.
# ---------------------------------------------------------------------------


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
        problem = f'exit code {error.returncode}: {said or "without a word."}'
    except UnicodeDecodeError:
        problem = 'what it printed is not UTF-8.'
    except (OSError, ValueError) as error:
        problem = reason_of(error)
    program = command.split()[:1]       # without its arguments: too long
    raise SMTPConfigurationError(
        f'--password-command failed: {"".join(program)}: {problem}',
        advice=f'{YOU}: try the command by itself, until it prints the '
        'password.')


def take_secrets() -> dict[str, str]:
    """Take secrets out of the environment, which other programs inherit."""
    return {name: os.environ.pop(name, '')
            for name in ('SMTP_PASSWORD', 'SMTP_ACCESS_TOKEN')}


def find_secret(options: argparse.Namespace, given: Mapping[str, str]) -> str:
    """Get the password or token from where the user keeps it.

    Args:
        options: From the command line; their auth becomes 'xoauth2' if a
            token was given.
        given: From the environment.

    Returns:
        The secret; '' if there is no login.

    Raises:
        SMTPConfigurationError: The password command failed.
        SMTPUsageError: There is nobody to ask.
    """
    if options.quit_after in NO_SENDER_YET or options.dry_run \
            or 'none' in (options.tls, options.auth):
        return ''
    if options.password_command is not None:
        return run_password_command(options.password_command)
    token = given['SMTP_ACCESS_TOKEN'].strip()
    if token and options.auth in ('auto', 'xoauth2'):
        options.auth = 'xoauth2'
        return token
    return given['SMTP_PASSWORD'] or ask_secret(
        'Access token: ' if options.auth == 'xoauth2' else 'Password: ')


def ask_sender(options: argparse.Namespace) -> None:
    """Ask for the sender, if the session needs one, and check it.

    Raises:
        SMTPUsageError: There is nobody to answer.
        SMTPMessageError: It is not one address.
    """
    if options.quit_after in NO_SENDER_YET \
            or options.quit_after == 'auth' and options.user:
        return
    options.sender = options.sender or ask_line('From', '--from')
    check_sender(parse_addresses('From', options.sender))


def warn_of_login(user: str, sender: str) -> None:
    """Warn of a user name that is the address of somebody else."""
    if '@' in user and sender and user.lower() != sender.lower():
        say(f'smtp.py: note: the login is {user}, but From is {sender}, which '
            'many servers refuse without the permission "Send As".', 'stderr')


def parse_recipients(options: argparse.Namespace) -> list[str]:
    """Return the recipients that the command line names.

    Raises:
        SMTPMessageError: One of them is no address.
    """
    given = {'To': [*options.recipients, *options.to], 'Cc': options.cc,
             'Bcc': options.bcc}
    return [address for field, texts in given.items()
            for address in parse_addresses(field, *texts).addresses]


def ask_recipients(options: argparse.Namespace) -> list[str]:
    """Return the recipients, and ask for them if there are none.

    Raises:
        SMTPUsageError: There is nobody to answer.
        SMTPMessageError: One of them is no address.
    """
    if not (options.recipients or options.to or options.cc or options.bcc):
        options.to = [ask_line('To', '--to')]
    return parse_recipients(options)


def open_message(options: argparse.Namespace, draft: Draft) -> Mail:
    """Open the finished message of --message.

    Args:
        options: From the command line.
        draft: Keeps what comes from a pipe.

    Raises:
        SMTPMessageError: It cannot be read, or cannot be sent.
    """
    piped = options.message == '-'
    if piped:
        import tempfile
        draft.ending = 'eml'
        file = draft.read_pipe(cast(BinaryIO, tempfile.TemporaryFile()))
    else:
        file = open_file(options.message)
    sender = options.sender and check_sender(
        parse_addresses('From', options.sender))
    mail = read_message(
        file, 'standard input' if piped else options.message, sender,
        parse_recipients(options))
    if piped:
        draft.mail = mail
    return mail


def compose_message(options: argparse.Namespace, draft: Draft,
                    piped: str | None) -> Mail:
    """Gather what makes a mail, and ask for the rest.

    Args:
        options: From the command line; answers are put there.
        draft: Keeps what is typed.
        piped: The text that came from a pipe, or None.

    Raises:
        SMTPUsageError: Something is missing, and nobody can be asked; or
            there is no such time zone.
        SMTPConfigurationError: pytz is not installed.
        SMTPMessageError: It cannot be sent as it is.
    """
    ask_recipients(options)
    if options.subject is None:
        options.subject = ask_line('Subject', '--subject')
    info: dict[str, Any] = {
        'From': options.sender, 'To': options.to, 'Cc': options.cc,
        'Bcc': options.bcc, 'Subject': options.subject,
        'Date': get_formatted_date(options.timezone)}
    for name, value in options.header:
        info.setdefault(name, []).append(value)
    html = None if options.html is None else load_text(options.html)
    build = functools.partial(build_message, info,
                              attachments=options.attach, html=html)
    if piped is None and options.body not in (None, '-'):
        return build(load_text(options.body))
    if piped is None:
        build('')                   # what is wrong is said before the typing
        piped = draft.type()
    draft.mail = build(piped)
    return draft.mail


def compose_envelope(options: argparse.Namespace) -> Mail:
    """Gather no more than what --quit-after needs.

    Raises:
        SMTPUsageError: Something is missing, and nobody can be asked.
        SMTPMessageError: An address is none.
    """
    recipients: list[str] = []
    if options.quit_after == 'rcpt':
        recipients = ask_recipients(options)
    senders = parse_addresses('From', options.sender or '').addresses
    return Mail((senders or [''])[0], drop_duplicates(recipients))


def check_files(options: argparse.Namespace) -> None:
    """Make sure that all files can be read, before any question.

    Raises:
        SMTPMessageError: One of them cannot.
    """
    texts = [value[1:] for value in (options.body, options.html)
             if value and value.startswith('@')]
    for path in [*options.attach, *texts]:
        open_file(path).close()


def run_talk(options: argparse.Namespace, transcript: Lesson) -> None:
    """Open a connection for the user to talk on.

    Raises:
        SMTPException: As in Talk.run.
    """
    transcript.echo = not is_terminal(sys.stdin)
    context = make_tls_context(options.ca_file)
    connection = Connection(
        open_socket(options.server, options.port, options.family,
                    options.timeout), transcript, options.timeout)
    with contextlib.closing(connection):
        if (options.tls or choose_tls(options.port)) == 'implicit':
            connection.encrypt(context, options.server)
        Talk(connection, transcript, context, options.server).run()


def run(options: argparse.Namespace, given: Mapping[str, str], draft: Draft,
        transcript: Lesson) -> None:
    """Do what the options ask for; the transcript has the verdict then.

    Args:
        options: From the command line.
        given: Secrets from the environment.
        draft: Keeps what is typed or piped.
        transcript: Shows the session.

    Raises:
        SMTPException: The message was not sent, or may have been.
    """
    if options.timezones:
        try:
            print_all_timezones()
            sys.stdout.flush()
        except BrokenPipeError:         # as with: --timezones | head
            abandon(sys.stdout)
        return
    if options.talk:
        run_talk(options, transcript)
        return
    mail = piped = None
    if options.message is not None:
        mail = open_message(options, draft)
    else:
        if options.body in (None, '-') and not options.quit_after \
                and not is_terminal(sys.stdin):
            piped = decode_text(draft.read_pipe(io.BytesIO()).read())
        check_files(options)
        ask_sender(options)
    secret = find_secret(options, given)
    if mail is None and options.quit_after:
        mail = compose_envelope(options)
    elif mail is None:
        mail = compose_message(options, draft, piped)
    warn_of_login(options.user, mail.sender)
    if options.dry_run:
        for chunk in mail.chunks():
            sys.stdout.buffer.write(chunk)
        sys.stdout.flush()
        return
    session = {name: getattr(options, name) for name in SESSION_OPTIONS}
    deliver(mail, secret, transcript=transcript, **session)


def make_transcript(options: argparse.Namespace) -> Lesson:
    """Make the transcript that the options ask for."""
    shown = options.verbose or options.explain or options.step or options.talk
    return Lesson(
        sys.stderr if shown else None, explain=options.explain,
        step=options.step, quit_after=options.quit_after,
        meter=sys.stderr if is_terminal(sys.stderr) else None)


def write_diagram(path: str, transcript: Lesson) -> None:
    """Write the diagram; a failure does not change the verdict."""
    try:
        with open(path, 'w', encoding='utf-8') as file:
            file.write(transcript.draw_diagram())
    except OSError as error:
        say(f'smtp.py: note: the diagram could not be written to {path}: '
            f'{error.strerror}.', 'stderr')


def describe_failure(error: BaseException) -> tuple[str, int]:
    """Say what an error means for the message, and how to exit."""
    if isinstance(error, SMTPException):
        verdict = 'May have been sent' if error.may_have_been_sent \
            else 'Not sent'
        return f'{verdict}: {error}', error.exit_code
    if isinstance(error, KeyboardInterrupt):
        # interrupt() puts the exit code there.
        return 'Not sent: interrupted.', (error.args or [EXIT_INTERRUPTED])[0]
    if isinstance(error, OSError):
        return f'Not sent: {error}', EXIT_TRY_LATER
    # Not the text of a UnicodeError, which quotes all that it could not read.
    told = type(error).__name__ if isinstance(error, UnicodeError) \
        else repr(error)
    return (f'Not sent: a fault of smtp.py itself, please report it: {told}',
            EXIT_BUG)


def conclude(failure: BaseException | None, options: argparse.Namespace,
             draft: Draft, transcript: Lesson) -> int:
    """Say what became of the message, and keep what was typed or piped.

    Args:
        failure: What ended the program early, or None.
        options: From the command line.
        draft: What there is to keep, if anything.
        transcript: Has the verdict, if the final dot was sent.

    Returns:
        The exit code.
    """
    if isinstance(failure, KeyboardInterrupt) and is_terminal(sys.stderr):
        say('', 'stderr')               # end the line that was interrupted
    # What came after the reply to the dot changes nothing: neither an
    # interrupt nor a bug.
    if transcript.verdict and not isinstance(failure, SMTPException):
        failure = None
    if isinstance(transcript.verdict, SMTPDeliveryUnknown):
        failure = transcript.verdict
    if failure is None:
        if transcript.verdict:
            say(str(transcript.verdict), 'stdout', 'stderr')
        return EXIT_OK
    told, exit_code = describe_failure(failure)
    done = options.dry_run or (
        isinstance(failure, SMTPStopped) and options.quit_after)
    kept = '' if done else keep_draft(options, draft, failure)
    say(f'smtp.py: {told}{kept}', 'stderr')
    if isinstance(failure, OSError):
        abandon(sys.stdout)             # it may be full, or nobody reads it
    return exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        argv: The arguments; None: those of the command line.

    Returns:
        The exit code.
    """
    given = take_secrets()
    if isinstance(sys.stdin, io.TextIOWrapper):     # what is typed may be bad
        sys.stdin.reconfigure(errors='surrogateescape')
    # Enough for conclude(), should the options make no sense.
    options, draft = argparse.Namespace(dry_run=False, diagram=None), Draft()
    transcript = Lesson()
    failure: BaseException | None = None
    try:
        try:
            options = parse_options(argv)
            transcript = make_transcript(options)
            run(options, given, draft, transcript)
        except Exception as error:
            failure = error
    except KeyboardInterrupt as error:      # also one that came with an error
        failure = failure or error
    try:
        exit_code = conclude(failure, options, draft, transcript)
    except KeyboardInterrupt:       # interrupt() ignores further signals
        exit_code = conclude(failure, options, draft, transcript)
    if options.diagram:
        with contextlib.suppress(KeyboardInterrupt):
            write_diagram(options.diagram, transcript)
    return exit_code


SIGNALS = [getattr(signal, name)
           for name in ('SIGINT', 'SIGQUIT', 'SIGTERM', 'SIGHUP')
           if hasattr(signal, name)]            # Windows has two of them


def interrupt(number: int, _: object) -> None:
    """End the program at a signal, but only at the first one.

    What follows, to keep a text and to say what became of it, is not to be
    disturbed.

    Raises:
        KeyboardInterrupt: Always, with the exit code.
    """
    for other in SIGNALS:       # SIG_IGN complains of one that is on its way
        signal.signal(other, lambda *_: None)
    raise KeyboardInterrupt(EXIT_TERMINATED if number == signal.SIGTERM
                            else EXIT_INTERRUPTED)


if __name__ == '__main__':
    for handled in SIGNALS:
        signal.signal(handled, interrupt)
    result = main()
    for handled in SIGNALS:             # on its way out nothing stops it
        signal.signal(handled, signal.SIG_IGN)
    sys.exit(result)
