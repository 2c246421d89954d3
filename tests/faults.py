"""What can go wrong at a step of a session: the faults of the hostile server.

Each is a function of the server, its wire and the right reply, which it calls
when the dialogue has come to the step; FAULTS has their names.
"""

from __future__ import annotations

import base64
import contextlib
import os
import ssl
import time
from typing import TYPE_CHECKING, Callable, Dict

from wire import PATIENCE, Wire

if TYPE_CHECKING:
    from hostile import Hostile

USER = 'alice@example.com'
PASSWORD = 'Zq7-hunter2!'

DRIP = 0.05           # seconds between two octets of a dripping server

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


def closed(server: Hostile, wire: Wire, right: bytes) -> None:
    """Hang up as one should, under TLS with its own goodbye."""
    if isinstance(wire.socket, ssl.SSLSocket) and server.step != 'body':
        wire.socket.settimeout(2)
        with contextlib.suppress(OSError):
            wire.socket = wire.socket.unwrap()
    raise Over


def cut(server: Hostile, wire: Wire, right: bytes) -> None:
    """Close the TCP connection, as if the TLS around it did not matter."""
    raise Over


def reset(server: Hostile, wire: Wire, right: bytes) -> None:
    """Let the client get ECONNRESET."""
    wire.reset()
    raise Over


def silent(server: Hostile, wire: Wire, right: bytes) -> None:
    """Say nothing until the client gives up."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if server.wait_until_gone(wire, 1):
            break
    raise Over


def drip(server: Hostile, wire: Wire, right: bytes) -> None:
    """Send one octet at a time for ever, always something, never enough."""
    until = time.monotonic() + PATIENCE
    octets = b'\x16\x03\x03\x3f\xff' if server.step == 'TLS handshake' \
        else right[:3] + b'-'
    while time.monotonic() < until:
        octet, octets = octets[:1], octets[1:] or b'x'
        wire.send(octet)
        if server.wait_until_gone(wire, DRIP):
            break
    raise Over


def line_by_line(server: Hostile, wire: Wire, right: bytes) -> None:
    """Send the lines of a reply that never ends, slowly."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        wire.send(right[:3] + b'-well\r\n')
        if server.wait_until_gone(wire, 4 * DRIP):
            break
    raise Over


def half_a_line(server: Hostile, wire: Wire, right: bytes) -> None:
    """Hang up in the middle of the reply."""
    wire.send(right[:len(right) // 2])
    raise Over


def saying(octets: bytes, then_over: bool = True,
           ) -> Callable[[Hostile, Wire, bytes], None]:
    """Make a fault that says something else."""
    def say(server: Hostile, wire: Wire, right: bytes) -> None:
        wire.send(octets)
        if then_over and server.step != 'body':
            raise Over
    return say


def refusal_now(server: Hostile, wire: Wire, right: bytes) -> None:
    """Refuse with 4yz."""
    wire.send(b'451 4.3.0 Not now\r\n')


def refusal_for_good(server: Hostile, wire: Wire,
                     right: bytes) -> None:
    """Refuse with 5yz, as the step does."""
    wire.send(REFUSED.get(server.step, b'554 5.5.0 No') + b'\r\n')


REFUSED = {'AUTH': b'535 5.7.8 Bad credentials',
           'user name': b'535 5.7.8 Bad credentials',
           'password': b'535 5.7.8 Bad credentials',
           'first RCPT': b'550 5.1.1 No such user',
           'middle RCPT': b'550 5.1.1 No such user',
           'last RCPT': b'550 5.1.1 No such user'}


def wrong_success(server: Hostile, wire: Wire, right: bytes) -> None:
    """Say yes to something else."""
    wire.send(f'{WRONG_SUCCESS.get(server.step, 250)} Ok\r\n'.encode())


def codes_differ(server: Hostile, wire: Wire, right: bytes) -> None:
    """Give the right reply in lines of two codes."""
    other = b'251' if right[:3] != b'251' else b'250'
    wire.send(other + b'-Well\r\n' + right)


def endless(line: bytes) -> Callable[[Hostile, Wire, bytes], None]:
    """Make a fault that begins the right reply, and does not end it."""
    def go_on(server: Hostile, wire: Wire, right: bytes) -> None:
        wire.send(right[:3] + b'-')
        until = time.monotonic() + PATIENCE
        block = (line % right[:3]) * 1000
        with contextlib.suppress(OSError):
            while time.monotonic() < until and not server.over.is_set():
                wire.socket.sendall(block)
        raise Over
    return go_on


def extra_reply(server: Hostile, wire: Wire, right: bytes) -> None:
    """Add a reply that nobody asked for, in the same segment."""
    code = b'250' if server.step == 'DATA' else right[:3]
    wire.send(right + code + b' By the way\r\n')


def extra_octets(server: Hostile, wire: Wire, right: bytes) -> None:
    """Add the beginning of something."""
    wire.send(right + b'25')


def bare_lf(server: Hostile, wire: Wire, right: bytes) -> None:
    """End lines in LF."""
    wire.send(right.replace(b'\r\n', b'\n'))


def bare_cr(server: Hostile, wire: Wire, right: bytes) -> None:
    """Put a CR into a line."""
    wire.send(right[:4] + b'\rxx' + right[4:])


def wording(text: bytes, code: bytes = b'',
            ) -> Callable[[Hostile, Wire, bytes], None]:
    """Make a fault that gives the right reply or a refusal in these words."""
    def say(server: Hostile, wire: Wire, right: bytes) -> None:
        refused = REFUSED.get(server.step, b'554 5.5.0')[:9]
        if code:
            wire.send(refused + b' ' + text + b'\r\n')
        elif b'\r\n250' in right:  # the keywords stay
            wire.send(b'250-' + text + b'\r\n' + right)
        else:
            wire.send(right[:4] + text + b'\r\n')
    return say


def refusal_then_silence(server: Hostile, wire: Wire,
                         right: bytes) -> None:
    """Refuse, and do not even answer QUIT."""
    refusal_for_good(server, wire, right)
    silent(server, wire, right)


def right_then(what: Callable[[Hostile, Wire, bytes], None],
               ) -> Callable[[Hostile, Wire, bytes], None]:
    """Make a fault that comes right after the right reply."""
    def fault(server: Hostile, wire: Wire, right: bytes) -> None:
        wire.send(right)
        server.replied = True
        what(server, wire, right)
    return fault


def broken_tls(server: Hostile, wire: Wire, right: bytes) -> None:
    """Send octets past TLS, which are none of its records."""
    with contextlib.suppress(OSError):
        os.write(wire.socket.fileno(), right)
    raise Over


def early_refusal(server: Hostile, wire: Wire,
                  right: bytes) -> None:
    """Refuse in the middle of the message, and take it nevertheless."""
    wire.send(b'554 5.6.0 Enough\r\n')


def secret_challenge(server: Hostile, wire: Wire,
                     right: bytes) -> None:
    """Hide the password and control characters in base64, as a challenge."""
    # base64 looks different at each of three offsets
    text = f'{PASSWORD} {PASSWORD} {PASSWORD}? \x1b[31m\u202e'.encode()
    assert len(PASSWORD) % 3 == 0
    code = b'334 ' if server.step == 'password' else right[:4]
    wire.send(code + base64.b64encode(text) + b'\r\n')


FAULTS: Dict[str, Callable[[Hostile, Wire, bytes], None]] = {
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
