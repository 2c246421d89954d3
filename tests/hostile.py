"""A server that holds a correct dialogue, except at one point.

`Hostile(step, fault, ...)` offers STARTTLS, AUTH LOGIN, PIPELINING and SIZE
and takes one message for three recipients. When the dialogue comes to `step`
(one of STEPS) it does what `fault` (a key of FAULTS) says instead of, or
besides, giving the right reply. Afterwards it tells what it knows: whether it
holds a complete message, whether it took it, and what the client said before
TLS began.
"""

import base64
import contextlib
import os
import select
import socket
import ssl
import threading
import time
from typing import Callable, Dict, Iterator, List, Optional

import scripted

STEPS = ('connect', 'greeting', 'EHLO', 'STARTTLS', 'TLS handshake',
         'EHLO again', 'AUTH', 'user name', 'password', 'MAIL', 'first RCPT',
         'middle RCPT', 'last RCPT', 'DATA', 'body', 'final dot', 'QUIT')
ENVELOPE_ON = STEPS[STEPS.index('MAIL'):]
USER = 'alice@example.com'
PASSWORD = 'Zq7-hunter2!'
RECIPIENTS = ('bob@example.org', 'carol@example.org', 'dave@example.org')

DRIP = 0.05           # seconds between two octets of a dripping server
BODY_BEFORE = 65536   # octets of the body that arrive before a fault there

# What follows would colour, overwrite, ring, reverse, hide and forge.
NASTY = ('\x1b[2J\x1b]0;title\x07\x08\x7f \x9b31m \u202egnp.exe\u202c \u2066x'
         '\u200b\ufeff\u2028Sent to bob@example.org: 250 Ok\u0085'
         'Sent to bob@example.org: 250 Ok').encode() + b' \x9b31m\x84\xff'
ECHO = ' '.join((
    PASSWORD, base64.b64encode(PASSWORD.encode()).decode(),
    base64.b64encode(f'\0{USER}\0{PASSWORD}'.encode()).decode())).encode()
HTTP = (b'HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\n\r\n'
        b'<html><body><h1>400 Bad Request</h1></body></html>\r\n')
BINARY = bytes(range(256)) + b'\r\n'

# A reply code of success that is not the one that the step asks for.
WRONG_SUCCESS = {'EHLO': 220, 'EHLO again': 220, 'MAIL': 354,
                 'first RCPT': 354, 'middle RCPT': 354, 'last RCPT': 354,
                 'final dot': 354}  # and 250 at all others


class Over(Exception):
    """The server has done its worst."""


class Hostile(threading.Thread):
    """The server: it listens at `port`, and serves one connection.

    Attributes:
        port: Where it listens (at 127.0.0.1).
        lines: The commands that it heard.
        strange: Those of them that are none.
        clear: The octets that it heard before TLS.
        complete: Whether the whole message came, with its final dot.
        replied: Whether the reply to the final dot was a good 250.
        message: What it heard after 354.
        reached: Whether the dialogue came to the step of the fault.
    """

    def __init__(self, step: str, fault: str, context: ssl.SSLContext,
                 pipelining: bool = True) -> None:
        """Listen; `start` begins to serve."""
        super().__init__(daemon=True, name=f'{step}, {fault}')
        self.step, self.fault = step, fault
        self.context, self.pipelining = context, pipelining
        self.lines: List[str] = []
        self.strange: List[str] = []
        self.clear = self.message = b''
        self.complete = self.replied = self.reached = False
        self.recipients = 0
        self.over = threading.Event()
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self.listener.bind(('127.0.0.1', 0))
        self.port: int = self.listener.getsockname()[1]
        if (step, fault) != ('connect', 'closed'):
            self.listener.listen()
        self.listener.settimeout(DRIP)

    def run(self) -> None:
        """Serve one connection."""
        with self.listener:
            connection = self._accept()
        if connection is None:
            return
        wire = scripted.Wire(connection)
        try:
            self._meet(wire)
            while True:
                self._hear(wire, wire.read_line())
        except (Over, scripted.Mismatch):
            pass
        finally:
            rest = wire.buffer
            if not wire.ended:
                with contextlib.suppress(OSError):
                    wire.socket.shutdown(socket.SHUT_WR)
                rest, _ = wire.drain()
            wire.reset()
            self._take(rest)

    def _accept(self) -> Optional[socket.socket]:
        """Return the connection; None when the client ends without one."""
        if self.step == 'connect' and self.fault in ('closed', 'silent'):
            self.reached = True  # nobody listens, or nobody ever accepts
            self.over.wait(scripted.PATIENCE)
            return None
        while not self.over.is_set():
            with contextlib.suppress(OSError):
                return self.listener.accept()[0]
        return None

    @property
    def accepted(self) -> bool:
        """Whether the server took a whole message, and said so with 250."""
        return self.complete and self.replied

    # What a correct server does

    def _meet(self, wire: scripted.Wire) -> None:
        """Greet."""
        if self.step == 'connect':
            self._do_worst(wire, b'')
        self._answer(wire, 'greeting', b'220 mail.example.com ESMTP\r\n')

    def _hear(self, wire: scripted.Wire, line: str) -> None:
        """Answer one command."""
        self.lines.append(line)
        if not wire.secure:
            self.clear += line.encode() + b'\r\n'
        verb = line.split(' ')[0].upper()
        answer: Dict[str, Callable[[scripted.Wire, str], None]] = {
            'EHLO': self._ehlo, 'STARTTLS': self._starttls,
            'AUTH': self._auth, 'MAIL': self._mail, 'RCPT': self._rcpt,
            'DATA': self._data, 'QUIT': self._quit}
        if verb in answer:
            answer[verb](wire, line)
        elif line == '*':
            wire.send(b'501 5.7.0 Cancelled\r\n')
        else:
            self.strange.append(line)
            wire.send(b'500 5.5.2 What?\r\n')

    def _ehlo(self, wire: scripted.Wire, line: str) -> None:
        """List the extensions."""
        offered = ['mail.example.com', 'SIZE 100000000']
        offered += ['PIPELINING'] * self.pipelining
        offered += ['AUTH LOGIN PLAIN' if wire.secure else 'STARTTLS', 'DSN']
        reply = ''.join(f'250-{words}\r\n' for words in offered[:-1])
        self._answer(wire, 'EHLO again' if wire.secure else 'EHLO',
                     f'{reply}250 {offered[-1]}\r\n'.encode())

    def _starttls(self, wire: scripted.Wire, line: str) -> None:
        """Begin TLS."""
        self._answer(wire, 'STARTTLS', b'220 2.0.0 Go ahead\r\n')
        if self.step == 'TLS handshake':
            self._do_worst(wire, b'220 2.0.0 Ok\r\n')
            raise Over
        wire.start_tls(self.context)

    def _auth(self, wire: scripted.Wire, line: str) -> None:
        """Take any user and any password, the user name in either way."""
        if self.step == 'user name':
            if len(line.split(' ')) > 2:
                wire.send(b'501 5.5.4 No initial response, please\r\n')
                return
            wire.send(b'334 VXNlcm5hbWU6\r\n')
            self.lines.append(wire.read_line())
            self._answer(wire, 'user name', b'334 UGFzc3dvcmQ6\r\n')
        else:
            self._answer(wire, 'AUTH', b'334 UGFzc3dvcmQ6\r\n')
        self.lines.append(wire.read_line())
        self._answer(wire, 'password', b'235 2.7.0 Welcome\r\n')

    def _mail(self, wire: scripted.Wire, line: str) -> None:
        """Take any sender."""
        self._answer(wire, 'MAIL', b'250 2.1.0 Ok\r\n')

    def _rcpt(self, wire: scripted.Wire, line: str) -> None:
        """Take the three recipients."""
        step = ('first RCPT', 'middle RCPT', 'last RCPT')[self.recipients % 3]
        self.recipients += 1
        self._answer(wire, step, b'250 2.1.5 Ok\r\n')

    def _data(self, wire: scripted.Wire, line: str) -> None:
        """Take the message, and the final dot."""
        self._answer(wire, 'DATA', b'354 Go on\r\n')
        if self.step == 'DATA' and self.fault in REFUSALS + ('wrong success',):
            return
        right = b'250 2.0.0 Ok: queued as 9F1\r\n'
        if self.step == 'body':
            self._read_message(wire, BODY_BEFORE)
            self._do_worst(wire, right)
            self._read_message(wire)
            self.replied = self.fault == 'early refusal'
            wire.send(right if self.replied else b'554 5.6.0 No, thanks\r\n')
            return
        self._read_message(wire)
        self._answer(wire, 'final dot', right)
        self.replied = self.step != 'final dot' or self.fault in (
            'extra reply', 'extra octets', 'control characters',
            'password echoed')

    def _read_message(self, wire: scripted.Wire,
                      at_least: Optional[int] = None) -> None:
        """Read up to the final dot, or only the first octets."""
        self._take(wire.buffer)
        while not self.complete and (
                at_least is None or len(self.message) < at_least):
            more = wire.receive()
            if not more:
                wire.buffer = b''
                raise Over
            self._take(more)
        _, _, wire.buffer = self.message.partition(b'\r\n.\r\n')

    def _take(self, octets: bytes) -> None:
        """Add octets to the message, if there is one, and look for its end."""
        if self.lines[-1:] == ['DATA']:
            self.message += octets
            new = len(octets) + 5
            self.complete |= b'\r\n.\r\n' in self.message[-new:]

    def _quit(self, wire: scripted.Wire, line: str) -> None:
        """Say goodbye."""
        self._answer(wire, 'QUIT', b'221 2.0.0 Bye\r\n')
        raise Over

    # What this one does

    def _answer(self, wire: scripted.Wire, step: str, right: bytes) -> None:
        """Give the right reply, or do the worst instead."""
        if step == self.step:
            self._do_worst(wire, right)
        else:
            wire.send(right)

    def _do_worst(self, wire: scripted.Wire, right: bytes) -> None:
        """Do what the fault says."""
        self.reached = True
        FAULTS[self.fault](self, wire, right)
        if self.step == 'body' and self.fault not in READING_ON:
            wire.reset()
            raise Over

    def wait_until_gone(self, wire: scripted.Wire, seconds: float) -> bool:
        """Wait for the client to hang up; what it says is noted."""
        if self.step == 'body':  # does not even listen
            return self.over.wait(seconds)
        if not select.select([wire.socket], [], [], seconds)[0]:
            return False
        octets = wire.receive()
        wire.buffer += octets
        return not octets


def closed(server: Hostile, wire: scripted.Wire, right: bytes) -> None:
    """Hang up as one should, under TLS with its own goodbye."""
    if isinstance(wire.socket, ssl.SSLSocket) and server.step != 'body':
        wire.socket.settimeout(2)
        with contextlib.suppress(OSError):
            wire.socket = wire.socket.unwrap()
    raise Over


def cut(server: Hostile, wire: scripted.Wire, right: bytes) -> None:
    """Close the TCP connection, as if the TLS around it did not matter."""
    raise Over


def reset(server: Hostile, wire: scripted.Wire, right: bytes) -> None:
    """Let the client get ECONNRESET."""
    wire.reset()
    raise Over


def silent(server: Hostile, wire: scripted.Wire, right: bytes) -> None:
    """Say nothing until the client gives up."""
    until = time.monotonic() + scripted.PATIENCE
    while time.monotonic() < until:
        if server.wait_until_gone(wire, 1):
            break
    raise Over


def drip(server: Hostile, wire: scripted.Wire, right: bytes) -> None:
    """Send one octet at a time for ever, always something, never enough."""
    until = time.monotonic() + scripted.PATIENCE
    octets = b'\x16\x03\x03\x3f\xff' if server.step == 'TLS handshake' \
        else right[:3] + b'-'
    while time.monotonic() < until:
        octet, octets = octets[:1], octets[1:] or b'x'
        wire.send(octet)
        if server.wait_until_gone(wire, DRIP):
            break
    raise Over


def line_by_line(server: Hostile, wire: scripted.Wire, right: bytes) -> None:
    """Send the lines of a reply that never ends, slowly."""
    until = time.monotonic() + scripted.PATIENCE
    while time.monotonic() < until:
        wire.send(right[:3] + b'-well\r\n')
        if server.wait_until_gone(wire, 4 * DRIP):
            break
    raise Over


def half_a_line(server: Hostile, wire: scripted.Wire, right: bytes) -> None:
    """Hang up in the middle of the reply."""
    wire.send(right[:len(right) // 2])
    raise Over


def saying(octets: bytes, then_over: bool = True,
           ) -> Callable[[Hostile, scripted.Wire, bytes], None]:
    """Make a fault that says something else."""
    def say(server: Hostile, wire: scripted.Wire, right: bytes) -> None:
        wire.send(octets)
        if then_over and server.step != 'body':
            raise Over
    return say


def refusal_now(server: Hostile, wire: scripted.Wire, right: bytes) -> None:
    """Refuse with 4yz."""
    wire.send(b'451 4.3.0 Not now\r\n')


def refusal_for_good(server: Hostile, wire: scripted.Wire,
                     right: bytes) -> None:
    """Refuse with 5yz, as the step does."""
    wire.send(REFUSED.get(server.step, b'554 5.5.0 No') + b'\r\n')


REFUSED = {'AUTH': b'535 5.7.8 Bad credentials',
           'user name': b'535 5.7.8 Bad credentials',
           'password': b'535 5.7.8 Bad credentials',
           'first RCPT': b'550 5.1.1 No such user',
           'middle RCPT': b'550 5.1.1 No such user',
           'last RCPT': b'550 5.1.1 No such user'}


def wrong_success(server: Hostile, wire: scripted.Wire, right: bytes) -> None:
    """Say yes to something else."""
    wire.send(f'{WRONG_SUCCESS.get(server.step, 250)} Ok\r\n'.encode())


def codes_differ(server: Hostile, wire: scripted.Wire, right: bytes) -> None:
    """Give the right reply in lines of two codes."""
    other = b'251' if right[:3] != b'251' else b'250'
    wire.send(other + b'-Well\r\n' + right)


def endless(line: bytes) -> Callable[[Hostile, scripted.Wire, bytes], None]:
    """Make a fault that begins the right reply, and does not end it."""
    def go_on(server: Hostile, wire: scripted.Wire, right: bytes) -> None:
        wire.send(right[:3] + b'-')
        until = time.monotonic() + scripted.PATIENCE
        block = (line % right[:3]) * 1000
        with contextlib.suppress(OSError):
            while time.monotonic() < until and not server.over.is_set():
                wire.socket.sendall(block)
        raise Over
    return go_on


def extra_reply(server: Hostile, wire: scripted.Wire, right: bytes) -> None:
    """Add a reply that nobody asked for, in the same segment."""
    code = b'250' if server.step == 'DATA' else right[:3]
    wire.send(right + code + b' By the way\r\n')


def extra_octets(server: Hostile, wire: scripted.Wire, right: bytes) -> None:
    """Add the beginning of something."""
    wire.send(right + b'25')


def bare_lf(server: Hostile, wire: scripted.Wire, right: bytes) -> None:
    """End lines in LF."""
    wire.send(right.replace(b'\r\n', b'\n'))


def bare_cr(server: Hostile, wire: scripted.Wire, right: bytes) -> None:
    """Put a CR into a line."""
    wire.send(right[:4] + b'\rxx' + right[4:])


def wording(text: bytes, code: bytes = b'',
            ) -> Callable[[Hostile, scripted.Wire, bytes], None]:
    """Make a fault that gives the right reply, or a refusal, in these words."""
    def say(server: Hostile, wire: scripted.Wire, right: bytes) -> None:
        refused = REFUSED.get(server.step, b'554 5.5.0')[:9]
        if code:
            wire.send(refused + b' ' + text + b'\r\n')
        elif b'\r\n250' in right:  # the keywords stay
            wire.send(b'250-' + text + b'\r\n' + right)
        else:
            wire.send(right[:4] + text + b'\r\n')
    return say


def refusal_then_silence(server: Hostile, wire: scripted.Wire,
                         right: bytes) -> None:
    """Refuse, and do not even answer QUIT."""
    refusal_for_good(server, wire, right)
    silent(server, wire, right)


def right_then(what: Callable[['Hostile', scripted.Wire, bytes], None],
               ) -> Callable[[Hostile, scripted.Wire, bytes], None]:
    """Make a fault that comes right after the right reply."""
    def fault(server: Hostile, wire: scripted.Wire, right: bytes) -> None:
        wire.send(right)
        server.replied = True
        what(server, wire, right)
    return fault


def broken_tls(server: Hostile, wire: scripted.Wire, right: bytes) -> None:
    """Send octets past TLS, which are none of its records."""
    with contextlib.suppress(OSError):
        os.write(wire.socket.fileno(), right)
    raise Over


def early_refusal(server: Hostile, wire: scripted.Wire,
                  right: bytes) -> None:
    """Refuse in the middle of the message, and take it nevertheless."""
    wire.send(b'554 5.6.0 Enough\r\n')


def secret_challenge(server: Hostile, wire: scripted.Wire,
                     right: bytes) -> None:
    """Hide the password and control characters in base64, as a challenge."""
    # base64 looks different at each of three offsets
    text = f'{PASSWORD} {PASSWORD} {PASSWORD}? \x1b[31m\u202e'.encode()
    assert len(PASSWORD) % 3 == 0
    code = b'334 ' if server.step == 'password' else right[:4]
    wire.send(code + base64.b64encode(text) + b'\r\n')


FAULTS: Dict[str, Callable[[Hostile, scripted.Wire, bytes], None]] = {
    'closed': closed,
    'cut': cut,
    'reset': reset,
    'silent': silent,
    'drip': drip,
    'line by line': line_by_line,
    'half a line': half_a_line,
    '4yz': refusal_now,
    '421': saying(b'421 4.3.2 Shutting down\r\n'),
    '5yz': refusal_for_good,
    '5yz, then silent': refusal_then_silence,
    'wrong success': wrong_success,
    'HTTP': saying(HTTP),
    'binary': saying(BINARY),
    'codes differ': codes_differ,
    'endless reply': endless(b'xxxx\r\n%s-'),
    'endless line': endless(b'xxxx%s'),
    'extra reply': extra_reply,
    'extra octets': extra_octets,
    'bare LF': bare_lf,
    'bare CR': bare_cr,
    'control characters': wording(NASTY),
    'refused in control characters': wording(NASTY, b'5yz'),
    'password echoed': wording(ECHO),
    'refused with the password': wording(ECHO, b'5yz'),
    'password in base64': secret_challenge,
    'right, then closed': right_then(closed),
    'right, then reset': right_then(reset),
    'broken TLS': broken_tls,
    'early refusal': early_refusal,
}
READING_ON = ('wrong success', 'extra reply', 'early refusal')
REFUSALS = ('4yz', '421', '5yz', 'refused in control characters',
            'refused with the password')


@contextlib.contextmanager
def serving(step: str, fault: str, context: ssl.SSLContext,
            pipelining: bool = True) -> Iterator[Hostile]:
    """Serve during the `with` block, and end after it."""
    server = Hostile(step, fault, context, pipelining)
    server.start()
    try:
        yield server
    finally:
        server.over.set()
        server.join(2 * scripted.PATIENCE)
    assert not server.is_alive(), 'the hostile server did not end'
