"""Colour: one for each side, and only on a terminal that wants it."""

import re
import ssl
from typing import Dict, Set

import at_terminal
import pytest
import scripted
from at_terminal import EHLO, At, check_wire
from sessions import GREETING, QUIT

pytestmark = at_terminal.NEEDED


@pytest.mark.parametrize('environment, pipe, coloured', [
    ({'TERM': 'xterm-256color'}, '', True),
    ({'TERM': 'xterm', 'NO_COLOR': ''}, '', True),
    ({'TERM': 'xterm', 'NO_COLOR': '1'}, '', False),
    ({'TERM': 'dumb'}, '', False),
    ({'TERM': 'xterm'}, ' 2>&1 | cat', False)])
def test_colour_by_direction(
        environment: Dict[str, str], pipe: str, coloured: bool,
        at_server: At, server_context: ssl.SSLContext) -> None:
    """One colour for each side, and dimmed narration, where it is welcome."""
    with scripted.playing(GREETING + EHLO + QUIT, server_context) as player:
        person = at_server(player, '--explain', '--tls', 'none', '-q', 'ehlo',
                           '--ehlo', 'client.example.com', pipe=pipe,
                           **environment)
        person.ends()
    check_wire(player, person)
    colours: Dict[str, Set[str]] = {'C:': set(), 'S:': set(), '--': set()}
    for line in person.seen.split('\n'):
        found = re.match(r'((?:\x1b\[[0-9;]*m)*)(C:|S:|--)', line)
        if found:
            colours[found[2]].add(found[1])
            assert line.endswith('\x1b[0m') == bool(found[1])
    if not coloured:
        assert '\x1b' not in person.seen
        return
    assert [len(starts) for starts in colours.values()] == [1, 1, 1]
    client, server, narration = (starts.pop() for starts in colours.values())
    assert client and server and client != server
    assert narration == '\x1b[2m'
