"""What is only for terminals: the meter of a long message, and colours."""

from __future__ import annotations

import re
from typing import Any

import pytest

from support import dialogue, hostile
from support.cli import reach
from support.post import BASIC, MAIL, PASSWORD

XTERM = {'TERM': 'xterm-256color'}
STEP = re.compile(r'(\d+) ?%\D+(\d+\.\d) of (\d+\.\d) MB')


@pytest.fixture
def attached(tmp_path: Any) -> Any:
    """An attachment of so many octets."""
    def attached(size: int) -> list[str]:
        (tmp_path / 'large.bin').write_bytes(bytes(size))
        return ['-a', str(tmp_path / 'large.bin')]
    return attached


def test_the_meter(sit: Any, post: Any, attached: Any) -> None:
    """Percent and megabytes, the right ones; wiped before the verdict."""
    result = sit(*MAIL, *post.options, *attached(6_000_000), env=XTERM,
                 password=PASSWORD).ends()
    size = len(post.only().content)
    steps = STEP.findall(result.err)
    for percent, done, total in steps:
        assert total == f'{size / 1e6:.1f}'
        assert abs(int(percent) - float(done) * 1e8 / size) < 2, steps
    numbers = [int(percent) for percent, *_ in steps]
    assert numbers == sorted(numbers) and len(set(numbers)) > 9
    assert numbers[0] < 10 < 90 < numbers[-1] <= 100
    assert '\r\x1b[KSent to bob@example.org: ' in result.err


@pytest.mark.parametrize('size, env, pipe', [
    (3_000_000, {'TERM': 'dumb'}, ''), (3_000_000, XTERM, '2>&1 | cat'),
    (300_000, XTERM, '')], ids=['dumb', 'pipe', 'small'])
def test_no_meter(size: int, env: Any, pipe: str, sit: Any, post: Any,
                  attached: Any) -> None:
    """Not in a pipe, nor where it cannot be wiped, nor for a moment."""
    result = sit(*MAIL, *post.options, *attached(size), env=env, pipe=pipe,
                 password=PASSWORD).ends()
    assert 'Sent to' in result.err and not re.search('%|\x1b', result.err)


@pytest.mark.parametrize('fault', ['closed', '5yz', 'silent'])
def test_a_message_that_is_cut_off(fault: str, sit: Any, attached: Any,
                                   ca_file: str, server_context: Any) -> None:
    """The meter is wiped, and the verdict begins its line."""
    with hostile.serving('body', fault, server_context) as server:
        someone = sit(*reach(server.port, ca_file), *BASIC, '--body=x', '-c',
                      ','.join(hostile.RECIPIENTS), *attached(9_000_000),
                      env=XTERM, password=hostile.PASSWORD)
        if fault == 'silent':
            someone.sees('%')
            someone.child.sendintr()
        result = someone.ends()
    assert re.search(r'\r\x1b\[K\n?smtp\.py: Not sent: ', result.err)


@pytest.mark.parametrize('env, pipe, coloured', [
    (XTERM, '', True), ({**XTERM, 'NO_COLOR': ''}, '', True),
    ({**XTERM, 'NO_COLOR': '1'}, '', False), ({'TERM': 'dumb'}, '', False),
    (XTERM, '2>&1 | cat', False)])
def test_colours(env: dict[str, str], pipe: str, coloured: bool, sit: Any,
                 server_context: Any) -> None:
    """One for each side, dimmed narration, and only where it is welcome."""
    with dialogue.playing(dialogue.GREETING + dialogue.ehlo() + dialogue.QUIT,
                          server_context) as player:
        result = sit(*reach(player.port), '--explain', '--tls=none', '--check',
                     env=env, pipe=pipe).ends()
    starts = re.findall(r'(?m)^((?:\x1b\[[0-9;]*m)*)(C:|S:|--).*?'
                        r'((?:\x1b\[[0-9;]*m)?)$', result.err)
    by_side = {mark: {begin for begin, found, _ in starts if found == mark}
               for mark in ('C:', 'S:', '--')}
    assert {end for _, _, end in starts} == {'\x1b[0m' * coloured}
    assert ('\x1b' in result.err) == coloured
    assert [len(begins) for begins in by_side.values()] == [1, 1, 1]
    assert len(set.union(*by_side.values())) == (3 if coloured else 1)
    assert by_side['--'] == {'\x1b[2m' * coloured}
