"""Refusals: replies that a server gives at one step instead of the good one.

data/refusals.ini names real ones, with what smtp.py owes them: its exit code,
and who can act. Any other is written STEP=REPLY.
"""

import re
import typing

from support import tables

STEPS = ('greeting', 'ehlo', 'starttls', 'ehlo2', 'auth', 'password', 'mail',
         'rcpt', 'data', 'dot')  # ehlo2: inside TLS; dot: the final one


class Refusal(typing.NamedTuple):
    """One reply that refuses, and what smtp.py owes it."""

    step: str
    reply: str  # its lines, with CRLF between them
    exit: int
    who: str = ''  # who can act; '' if the table does not say


def named_refusals():
    """Return the table of refusals: a dictionary of name to Refusal."""
    return {name: Refusal(row['step'],
                          row['reply'].strip().replace('\n', '\r\n'),
                          int(row['exit']), row['who'])
            for name, row in tables.read('refusals')}


def parse_refusal(text):
    r"""Return the Refusal of that name, or of 'STEP=REPLY'.

    `\n` in the reply begins its next line. 'rcpt:ADDRESS' is one recipient.
    """
    step, equals, reply = text.partition('=')
    if text in named_refusals():
        return named_refusals()[text]
    if not equals or step.partition(':')[0] not in STEPS:
        raise ValueError(
            f'{text!r} is neither in --list-refusals nor STEP=REPLY with a '
            f'STEP out of: {", ".join(STEPS)}')
    if re.match('[23]', reply):
        raise ValueError(f'{reply!r} accepts: a refusal begins with 4 or 5')
    reply = reply.replace(r'\n', '\r\n')
    return Refusal(step, reply, expected_exit(step, reply))


def expected_exit(step, reply):
    """Return the exit code that smtp.py's documentation promises."""
    if not re.match(r'[45]\d\d( |-|$)', reply):  # that is not SMTP
        return 74 if step == 'dot' else 76
    if reply.startswith('4'):
        return 75  # try again later
    if (step in ('auth', 'password')
            or re.match(r'53[0458]|5..[ -]5\.7\.', reply)):
        return 77  # login or permission
    if step.startswith('rcpt'):
        return 67
    too_large = re.match(r'552(?![ -]5\.2\.2)', reply)
    return 65 if too_large and step in ('mail', 'dot') else 69
