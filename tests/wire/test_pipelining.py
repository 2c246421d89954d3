"""Commands in groups (RFC 2920): few round trips, bounded, and no deadlock."""

import select
import socket
import time

import pytest

from support import checks, cli, hostile
from support.checks import RECIPIENT

GROUP = 16 * 1024       # octets that a group may have
QUIET = 0.1             # seconds without an octet that end a group


@pytest.fixture
def send_to(call, server_context):
    """A function that sends to so many recipients of a server with a fault."""
    def send_to(count, fault):
        people = ', '.join(f'r{number}@example.org' for number in range(count))
        with hostile.serving('first RCPT', fault, server_context) as server:
            result = call(
                *cli.reach(server.port), '--tls', 'none', '-f',
                'alice@example.com', '--bcc', people, '-s', 'Greetings',
                '--body', 'Hello!')
        return result, server
    return send_to


def test_a_group_is_bounded_by_octets(send_to):
    """16 KiB at most, and not much less where there is more to say."""
    sizes = []

    def measure(server, wire, right):
        if len(wire.buffer) < 100:      # a group may begin
            while select.select([wire.socket], [], [], QUIET)[0]:
                wire.buffer += wire.receive()
        sizes.append(len(server.lines[-1] + '\r\n') + len(wire.buffer))
        wire.send(right)
    result, server = send_to(1500, measure)
    checks.check(result, 0)
    assert GROUP / 2 < max(sizes) <= GROUP
    recipients = [line for line in server.lines if line.startswith('RCPT')]
    assert len(recipients) == len(set(recipients)) == 1500


@pytest.mark.parametrize('refused, data', [(6, False), (999, True)])
def test_a_refusal(refused, data, send_to):
    """Everyone is asked; DATA is not sent, or it was in the same group."""
    def refuse(server, wire, right):
        wire.send(b'550 5.1.1 No such user\r\n' if server.lines[-1]
                  == f'RCPT TO:<r{refused}@example.org>' else right)
    result, server = send_to(1000, refuse)
    checks.check(result, RECIPIENT, f'r{refused}@example.org',
                 '550 5.1.1 No such user')
    assert sum(line.startswith('RCPT') for line in server.lines) == 1000
    assert ('DATA' in server.lines) == data
    assert not server.complete


@pytest.mark.timeout(30)
def test_ten_thousand_recipients(send_to):
    """Neither a deadlock with a server that answers at length, nor n^2."""
    def at_length(server, wire, right):
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        wire.send(b'250 ' + b'x' * 1500 + b'\r\n')
    took = {}
    for count in (1000, 10_000):
        begun = time.monotonic()
        result, server = send_to(count, at_length)
        took[count] = time.monotonic() - begun
        assert (result.code, server.complete) == (0, True), result.err[-500:]
    assert took[10_000] < 40 * took[1000] + 1
