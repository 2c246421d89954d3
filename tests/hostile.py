"""A server that holds a correct dialogue, except at one point.

`Hostile(step, fault, ...)` offers STARTTLS, AUTH LOGIN, PIPELINING and SIZE
and takes one message for three recipients. When the dialogue comes to `step`
(one of STEPS) it does what `fault` (a name in `faults`) says instead of, or
besides, giving the right reply. Afterwards it tells what it knows: whether it
holds a complete message, whether it took it, and what the client said before
TLS began.
"""

import contextlib
import select
import socket
import ssl
import threading
from typing import Callable, Dict, Iterator, List, Optional

from faults import DRIP, FAULTS, READING_ON, REFUSALS, Over
from wire import PATIENCE, Mismatch, Wire

STEPS = ('connect', 'greeting', 'EHLO', 'STARTTLS', 'TLS handshake',
         'EHLO again', 'AUTH', 'user name', 'password', 'MAIL', 'first RCPT',
         'middle RCPT', 'last RCPT', 'DATA', 'body', 'final dot', 'QUIT')
ENVELOPE_ON = STEPS[STEPS.index('MAIL'):]
RECIPIENTS = ('bob@example.org', 'carol@example.org', 'dave@example.org')
BODY_BEFORE = 65536   # octets of the body that arrive before a fault there


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
        wire = Wire(connection)
        try:
            self._meet(wire)
            while True:
                self._hear(wire, wire.read_line())
        except (Over, Mismatch):
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
            self.over.wait(PATIENCE)
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

    def _meet(self, wire: Wire) -> None:
        """Greet."""
        if self.step == 'connect':
            self._do_worst(wire, b'')
        self._answer(wire, 'greeting', b'220 mail.example.com ESMTP\r\n')

    def _hear(self, wire: Wire, line: str) -> None:
        """Answer one command."""
        self.lines.append(line)
        if not wire.secure:
            self.clear += line.encode() + b'\r\n'
        verb = line.split(' ')[0].upper()
        answer: Dict[str, Callable[[Wire, str], None]] = {
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

    def _ehlo(self, wire: Wire, line: str) -> None:
        """List the extensions."""
        offered = ['mail.example.com', 'SIZE 100000000']
        offered += ['PIPELINING'] * self.pipelining
        offered += ['AUTH LOGIN PLAIN' if wire.secure else 'STARTTLS', 'DSN']
        reply = ''.join(f'250-{words}\r\n' for words in offered[:-1])
        self._answer(wire, 'EHLO again' if wire.secure else 'EHLO',
                     f'{reply}250 {offered[-1]}\r\n'.encode())

    def _starttls(self, wire: Wire, line: str) -> None:
        """Begin TLS."""
        self._answer(wire, 'STARTTLS', b'220 2.0.0 Go ahead\r\n')
        if self.step == 'TLS handshake':
            self._do_worst(wire, b'220 2.0.0 Ok\r\n')
            raise Over
        wire.start_tls(self.context)

    def _auth(self, wire: Wire, line: str) -> None:
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

    def _mail(self, wire: Wire, line: str) -> None:
        """Take any sender."""
        self._answer(wire, 'MAIL', b'250 2.1.0 Ok\r\n')

    def _rcpt(self, wire: Wire, line: str) -> None:
        """Take the three recipients."""
        step = ('first RCPT', 'middle RCPT', 'last RCPT')[self.recipients % 3]
        self.recipients += 1
        self._answer(wire, step, b'250 2.1.5 Ok\r\n')

    def _data(self, wire: Wire, line: str) -> None:
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

    def _read_message(self, wire: Wire,
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

    def _quit(self, wire: Wire, line: str) -> None:
        """Say goodbye."""
        self._answer(wire, 'QUIT', b'221 2.0.0 Bye\r\n')
        raise Over

    # What this one does

    def _answer(self, wire: Wire, step: str, right: bytes) -> None:
        """Give the right reply, or do the worst instead."""
        if step == self.step:
            self._do_worst(wire, right)
        else:
            wire.send(right)

    def _do_worst(self, wire: Wire, right: bytes) -> None:
        """Do what the fault says."""
        self.reached = True
        FAULTS[self.fault](self, wire, right)
        if self.step == 'body' and self.fault not in READING_ON:
            wire.reset()
            raise Over

    def wait_until_gone(self, wire: Wire, seconds: float) -> bool:
        """Wait for the client to hang up; what it says is noted."""
        if self.step == 'body':  # does not even listen
            return self.over.wait(seconds)
        if not select.select([wire.socket], [], [], seconds)[0]:
            return False
        octets = wire.receive()
        wire.buffer += octets
        return not octets


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
        server.join(2 * PATIENCE)
    assert not server.is_alive(), 'the hostile server did not end'
