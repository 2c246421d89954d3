"""Commands in groups (RFC 2920): few round trips, bounded, and no deadlock.

What one group looks like is in dialogues/envelope/. Here are the sizes.
"""

from __future__ import annotations

import re
import select
import socket
import time
from typing import Any

import pytest

from support import checks, cli, dialogue, hostile
from support.checks import RECIPIENT
from support.dialogue import BEGINS

GROUP = 16 * 1024       # octets that a group may have
QUIET = 0.1             # seconds without an octet that end a group
NO = b'550 5.1.1 No such user\r\n'


class Groups:
    """A fault at each first RCPT: look at the group, refuse one recipient.

    Attributes:
        sizes: The octets of the rest of the group, each time.
    """

    def __init__(self, refused: str = '', measure: bool = False) -> None:
        """Refuse this one; measure: wait for the end of the group."""
        self.refused, self.measure = f'RCPT TO:<{refused}>', measure
        self.sizes: list[int] = []

    def __call__(self, server: hostile.Hostile, wire: Any, right: bytes
                 ) -> None:
        """Answer one RCPT."""
        if self.measure and len(wire.buffer) < 100:     # a group may begin
            while select.select([wire.socket], [], [], QUIET)[0]:
                wire.buffer += wire.receive()
        self.sizes.append(len(server.lines[-1] + '\r\n') + len(wire.buffer))
        wire.send(NO if server.lines[-1] == self.refused else right)


def send_to(count: int, groups: Any, call: Any, context: Any
            ) -> tuple[cli.Result, hostile.Hostile]:
    """Send a mail to so many recipients."""
    people = ', '.join(f'r{number}@example.org' for number in range(count))
    with hostile.serving('first RCPT', groups, context) as server:
        result = call(
            *cli.reach(server.port), '--tls', 'none', '-f',
            'alice@example.com', '--bcc', people, '-s', 'Greetings', '--body',
            'Hello!')
    return result, server


def test_a_group_is_bounded_by_octets(call: Any, server_context: Any) -> None:
    """16 KiB at most, and not much less where there is more to say."""
    groups = Groups(measure=True)
    result, server = send_to(1500, groups, call, server_context)
    checks.check(result, 0)
    assert GROUP / 2 < max(groups.sizes) <= GROUP
    recipients = [line for line in server.lines if line.startswith('RCPT')]
    assert len(recipients) == len(set(recipients)) == 1500


@pytest.mark.parametrize('refused, data', [(6, False), (999, True)])
def test_a_refusal(refused: int, data: bool, call: Any, server_context: Any
                   ) -> None:
    """Everyone is asked; DATA is not sent, or it was in the same group."""
    result, server = send_to(1000, Groups(f'r{refused}@example.org'), call,
                             server_context)
    checks.check(result, RECIPIENT, f'r{refused}@example.org',
                 '550 5.1.1 No such user')
    assert sum(line.startswith('RCPT') for line in server.lines) == 1000
    assert ('DATA' in server.lines) == data
    assert not server.complete


def test_ten_round_trips_for_a_hundred_recipients(play: Any) -> None:
    """TCP, greeting, TLS, and seven groups up to the goodbye."""
    people = [f'r{number}@example.org' for number in range(100)]
    told = dialogue.parse(
        BEGINS['envelope'] + 'C: MAIL FROM:<alice@example.com> SIZE=<size>\n'
        + ''.join(f'C: RCPT TO:<{to}>\n' for to in people) + 'C: DATA\n'
        + 'S: 250 Ok\n' * 101 + 'S: 354 Go on\n' + dialogue.DOT
        + 'S: 250 Ok\nS: 221 Bye\n')
    result, player = play(told)
    checks.check(result, 0)
    kinds = ''.join(event.kind[0] for event in told.events)
    assert len(re.findall('CS', kinds)) + len(['TCP', 'greeting', 'TLS']) == 10


@pytest.mark.timeout(30)
def test_ten_thousand_recipients(call: Any, server_context: Any) -> None:
    """Neither a deadlock with a server that answers at length, nor n^2."""
    def at_length(server: hostile.Hostile, wire: Any, right: bytes) -> None:
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        wire.send(b'250 ' + b'x' * 1500 + b'\r\n')
    took = {}
    for count in (1000, 10_000):
        begun = time.monotonic()
        result, server = send_to(count, at_length, call, server_context)
        took[count] = time.monotonic() - begun
        assert (result.code, server.complete) == (0, True), result.err[-500:]
    assert took[10_000] < 40 * took[1000] + 1


def test_with_explain_commands_go_one_by_one(play: Any) -> None:
    """So that people see question and answer."""
    result, _ = play(dialogue.ONE_BY_ONE, '--explain')
    checks.check(result, 0)
