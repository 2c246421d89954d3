"""A server that holds a correct dialogue, except at one point.

`serving(step, fault, ...)` offers STARTTLS, AUTH LOGIN, PIPELINING and SIZE
and takes one message for three recipients. At `step` (one of STEPS) it does
what `fault` says (a name in FAULTS, or a function of the server, the wire and
the right reply), instead of or besides giving that reply.
"""

import base64
import contextlib
import os
import select
import time
from itertools import chain, cycle, repeat

from support.wire import PATIENCE, Mismatch, Server

STEPS = ('connect', 'greeting', 'EHLO', 'STARTTLS', 'TLS handshake',
         'EHLO again', 'AUTH', 'user name', 'password', 'MAIL', 'first RCPT',
         'middle RCPT', 'last RCPT', 'DATA', 'body', 'final dot', 'QUIT')
RCPTS = STEPS[10:13]
ENVELOPE_ON = STEPS[STEPS.index('MAIL'):]
RECIPIENTS = ('bob@example.org', 'carol@example.org', 'dave@example.org')
BODY_BEFORE = 65536   # octets of the body that arrive before a fault there
USER, PASSWORD = 'alice@example.com', 'Zq7-hunter2!'
DRIP = 0.05           # seconds between two octets of a dripping server

# What follows would colour, overwrite, ring, reverse, hide and forge.
NASTY = ('\x1b[2J\x1b]0;title\x07\x08\x7f \x9b31m \u202egnp.exe\u202c \u2066x'
         '\u200b\ufeff\u2028Sent to bob@example.org: 250 Ok\u0085'
         'Sent to bob@example.org: 250 Ok').encode() + b' \x9b31m\x84\xff'
ECHO = f'{PASSWORD} '.encode() + base64.b64encode(PASSWORD.encode())
HTTP = (b'HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\n\r\n'
        b'<html><body><h1>400 Bad Request</h1></body></html>\r\n')

# A reply code of success that is not the one that the step asks for; at all
# other steps it is 250.
WRONG_SUCCESS = {**dict.fromkeys(['EHLO', 'EHLO again'], 220),
                 **dict.fromkeys(['MAIL', *RCPTS, 'final dot'], 354)}
REFUSED = {**dict.fromkeys(['AUTH', 'user name', 'password'],
                           b'535 5.7.8 Bad credentials'),
           **dict.fromkeys(RCPTS, b'550 5.1.1 No such user')}


class Over(Exception):
    """The server has done its worst."""


def refusal(server):
    """Return the refusal for good that fits the step."""
    return REFUSED.get(server.step, b'554 5.5.0 No')


def close(server, wire, right):
    """Hang up as one should, under TLS with its own goodbye."""
    if wire.secure and server.step != 'body':
        wire.socket.settimeout(2)
        with contextlib.suppress(OSError):
            wire.socket = wire.socket.unwrap()
    raise Over


def cut(server, wire, right):
    """Close the TCP connection, as if the TLS around it did not matter."""
    raise Over


def reset(server, wire, right):
    """Let the client get ECONNRESET."""
    wire.reset()
    raise Over


def hang_up(server, wire, right):
    """Have nothing more to say; the body is reset anyway."""
    if server.step != 'body':
        raise Over


def drip(server, right):
    """Send something all the time, never enough."""
    octets = b'\x16\x03\x03\x3f\xff' if server.step == 'TLS handshake' \
        else right[:3] + b'-'
    for octet in chain(octets, repeat(ord('x'))):
        yield from (bytes([octet]), DRIP)


def wording(text):
    """Make a fault that gives the right reply in these words."""
    return lambda server, right: [
        b'250-' + text + b'\r\n' + right if b'\r\n250' in right  # its keywords
        else right[:4] + text + b'\r\n']


def break_tls(server, wire, right):
    """Send octets past TLS, which are not a record of it."""
    os.write(wire.socket.fileno(), right)
    raise Over


def secret_challenge(server, right):
    """Hide the password and control characters in base64, as a challenge."""
    # base64 looks different at each of three offsets
    text = f'{PASSWORD} {PASSWORD} {PASSWORD}? \x1b[31m\u202e'.encode()
    assert len(PASSWORD) % 3 == 0
    code = b'334 ' if server.step == 'password' else right[:4]
    return [code + base64.b64encode(text) + b'\r\n']


# What the server does one after the other, or a function that returns that: it
# sends octets, waits so many seconds, or calls a function.
SILENT = repeat(1)
FAULTS = {
    'closed': [close],
    'cut': [cut],
    'reset': [reset],
    'silent': SILENT,
    'drip': drip,
    'line by line': lambda server, right: cycle(
        [right[:3] + b'-well\r\n', 4 * DRIP]),
    'half a line': lambda server, right: [right[:len(right) // 2], hang_up],
    '4yz': [b'451 4.3.0 Not now\r\n'],
    '421': [b'421 4.3.2 Shutting down\r\n', hang_up],
    '5yz': lambda server, right: [refusal(server) + b'\r\n'],
    '5yz, then silent': lambda server, right: chain(
        [refusal(server) + b'\r\n'], SILENT),
    'unlisted 5yz': [b'571 5.5.0 No\r\n'],
    'wrong success': lambda server, right: [
        f'{WRONG_SUCCESS.get(server.step, 250)} Ok\r\n'.encode()],
    'HTTP': [HTTP, hang_up],
    'binary': [bytes(range(256)) + b'\r\n', hang_up],
    'codes differ': lambda server, right: [
        (b'250' if right[:3] == b'251' else b'251') + b'-Well\r\n' + right],
    'endless reply': lambda server, right: chain(
        [right[:3] + b'-'], repeat((b'xxxx\r\n%s-' % right[:3]) * 1000)),
    'endless line': lambda server, right: chain(
        [right[:3] + b'-'], repeat((b'xxxx%s' % right[:3]) * 1000)),
    'extra reply': lambda server, right: [right + (
        b'250' if server.step == 'DATA' else right[:3]) + b' By the way\r\n'],
    'extra octets': lambda server, right: [right + b'25'],
    'bare LF': lambda server, right: [right.replace(b'\r\n', b'\n')],
    'bare CR': lambda server, right: [right[:4] + b'\rxx' + right[4:]],
    'control characters': wording(NASTY),
    'refused in control characters': lambda server, right: [
        refusal(server)[:10] + NASTY + b'\r\n'],
    'password echoed': wording(ECHO),
    'refused with the password': lambda server, right: [
        refusal(server)[:10] + ECHO + b'\r\n'],
    'password in base64': secret_challenge,
    'right, then closed': lambda server, right: [right, close],
    'right, then reset': lambda server, right: [right, reset],
    'broken TLS': [break_tls],
    'early refusal': [b'554 5.6.0 Enough\r\n'],
}
ACCEPTING = ('extra reply', 'extra octets', 'control characters',
             'password echoed', 'right, then closed', 'right, then reset')
READING_ON = ('wrong success', 'extra reply', 'early refusal')
REFUSALS = ('4yz', '421', '5yz', 'unlisted 5yz',
            'refused in control characters', 'refused with the password')


class serving(Server):
    """The server, at 127.0.0.1; during a `with` block it serves."""

    def __init__(self, step, fault, context, pipelining=True):
        """Listen."""
        super().__init__(listens=(step, fault) != ('connect', 'closed'))
        self.step, self.fault = step, fault
        self.context, self.pipelining = context, pipelining
        self.lines, self.strange = [], []   # the commands, and unknown ones
        self.clear = b''                # what it heard before TLS
        self.message = b''              # what it heard after 354
        self.complete = False           # ... and with the final dot
        self.accepted = False           # it answered that with a good 250
        self.reached = False            # the dialogue came to the fault
        self.recipients = 0

    def run(self):
        """Serve one connection, if connections are accepted at all."""
        if self.step == 'connect' and self.fault in ('closed', 'silent'):
            self.reached = True
            self.over.wait(PATIENCE)
            self.listener.close()
        else:
            super().run()

    def serve(self, wire):
        """Hold the dialogue."""
        with contextlib.suppress(Over, Mismatch):
            self._answer(wire, 'connect', b'')
            self._answer(wire, 'greeting', b'220 mail.example.com ESMTP\r\n')
            while True:
                self._hear(wire, wire.read_line())
        self._take(wire.close())

    def _hear(self, wire, line):
        """Answer one command."""
        self.lines.append(line)
        if not wire.secure:
            self.clear += line.encode() + b'\r\n'
        verb = line.split(' ')[0].upper()
        if verb == 'EHLO':
            words = ['mail.example.com', 'SIZE 100000000',
                     *['PIPELINING'] * self.pipelining,
                     'AUTH LOGIN PLAIN' if wire.secure else 'STARTTLS']
            self._answer(wire, 'EHLO again' if wire.secure else 'EHLO', (
                '250-' + '\r\n250-'.join(words) + '\r\n250 DSN\r\n').encode())
        elif verb == 'MAIL':
            self._answer(wire, 'MAIL', b'250 2.1.0 Ok\r\n')
        elif verb == 'RCPT':
            self._answer(wire, RCPTS[self.recipients % 3],
                         b'250 2.1.5 Ok\r\n')
            self.recipients += 1
        elif verb in ('STARTTLS', 'AUTH', 'DATA'):
            getattr(self, f'_{verb.lower()}')(wire, line)
        elif verb == 'QUIT':
            self._answer(wire, 'QUIT', b'221 2.0.0 Bye\r\n')
            raise Over
        elif line == '*':
            wire.send(b'501 5.7.0 Cancelled\r\n')
        else:
            self.strange.append(line)
            wire.send(b'500 5.5.2 What?\r\n')

    def _starttls(self, wire, line):
        """Begin TLS."""
        self._answer(wire, 'STARTTLS', b'220 2.0.0 Go ahead\r\n')
        if self.step == 'TLS handshake':
            self._answer(wire, self.step, b'220 2.0.0 Ok\r\n')
            raise Over
        wire.start_tls(self.context)

    def _auth(self, wire, line):
        """Accept any user and any password, the user name in either way."""
        asked = b'334 UGFzc3dvcmQ6\r\n'
        if self.step != 'user name':
            self._answer(wire, 'AUTH', asked)
        elif len(line.split(' ')) > 2:
            wire.send(b'501 5.5.4 No initial response, please\r\n')
            return
        else:
            wire.send(b'334 VXNlcm5hbWU6\r\n')
            self.lines.append(wire.read_line())
            self._answer(wire, 'user name', asked)
        self.lines.append(wire.read_line())
        self._answer(wire, 'password', b'235 2.7.0 Welcome\r\n')

    def _data(self, wire, line):
        """Read the message, and the final dot."""
        self._answer(wire, 'DATA', b'354 Go on\r\n')
        if self.step == 'DATA' and self.fault in REFUSALS + ('wrong success',):
            return
        right = b'250 2.0.0 Ok: queued as 9F1\r\n'
        if self.step == 'body':
            self._read_message(wire, BODY_BEFORE)
            self._answer(wire, 'body', right)
            self._read_message(wire)
            self.accepted = self.fault == 'early refusal'
            wire.send(right if self.accepted else b'554 5.6.0 No, thanks\r\n')
            return
        self._read_message(wire)
        self.accepted = self.step != 'final dot' or self.fault in ACCEPTING
        self._answer(wire, 'final dot', right)

    def _read_message(self, wire, at_least=float('inf')):
        """Read up to the final dot, or only the first octets."""
        self._take(wire.buffer)
        while not self.complete and len(self.message) < at_least:
            more = wire.receive()
            if not more:
                wire.buffer = b''
                raise Over
            self._take(more)
        _, _, wire.buffer = self.message.partition(b'\r\n.\r\n')

    def _take(self, octets):
        """Add octets to the message, if there is one, and look for its end."""
        if self.lines[-1:] == ['DATA']:
            self.message += octets
            self.complete |= b'\r\n.\r\n' in self.message[-len(octets) - 5:]

    def _answer(self, wire, step, right):
        """Give the right reply, or do the worst instead."""
        if step != self.step:
            wire.send(right)
            return
        self.reached = True
        acts, until = FAULTS.get(self.fault), time.monotonic() + PATIENCE
        with contextlib.suppress(OSError):      # the client is gone
            for act in acts(self, right) if callable(acts) else acts or [
                    self.fault]:
                if callable(act):
                    act(self, wire, right)
                elif isinstance(act, bytes):
                    wire.socket.sendall(act)
                elif self._wait_until_gone(wire, act):
                    raise Over
                if time.monotonic() > until or self.over.is_set():
                    raise Over
        if step == 'body' and self.fault not in READING_ON:
            wire.reset()
            raise Over

    def _wait_until_gone(self, wire, seconds):
        """Wait for the client to hang up; what it says is noted."""
        if self.step == 'body':  # does not even listen
            return self.over.wait(seconds)
        if not select.select([wire.socket], [], [], seconds)[0]:
            return False
        octets = wire.receive()
        wire.buffer += octets
        return not octets
