"""What is only for terminals: the meter of a long message, and colours."""

import re

import pytest

from support import dialogue, hostile
from support.cli import reach
from support.post import BASIC, MAIL, PASSWORD

XTERM = {'TERM': 'xterm-256color'}
STEP = re.compile(r'(\d+) ?%\D+(\d+\.\d) of (\d+\.\d) MB')


def attached(folder, size):
    """Return the options for an attachment of so many octets."""
    (folder / 'large.bin').write_bytes(bytes(size))
    return ['-a', 'large.bin']


def test_the_meter(sit, post, folder):
    """Percent and megabytes, the right ones; wiped before the verdict."""
    result = sit(*MAIL, *post.options, *attached(folder, 6_000_000), env=XTERM,
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
def test_no_meter(size, env, pipe, sit, post, folder):
    """Not in a pipe, nor where it cannot be wiped, nor for a moment."""
    result = sit(*MAIL, *post.options, *attached(folder, size), env=env,
                 pipe=pipe, password=PASSWORD).ends()
    assert 'Sent to' in result.err and not re.search('%|\x1b', result.err)


@pytest.mark.parametrize('fault', ['closed', '5yz', 'silent'])
def test_a_message_cut_off(fault, sit, folder, ca_file, server_context):
    """The meter is wiped, and the verdict begins its line."""
    with hostile.serving('body', fault, server_context) as server:
        someone = sit(
            *reach(server.port, ca_file), *BASIC, '--body=x', '-c', ','.join(
                hostile.RECIPIENTS), *attached(folder, 9_000_000), env=XTERM,
            password=hostile.PASSWORD)
        if fault == 'silent':
            someone.sees('%')
            someone.child.sendintr()
        result = someone.ends()
    assert re.search(r'\r\x1b\[K\n?smtp\.py: Not sent: ', result.err)


@pytest.mark.parametrize('env, pipe, coloured', [
    (XTERM, '', True), ({**XTERM, 'NO_COLOR': ''}, '', True),
    ({**XTERM, 'NO_COLOR': '1'}, '', False), ({'TERM': 'dumb'}, '', False),
    (XTERM, '2>&1 | cat', False)])
def test_colours(env, pipe, coloured, sit, server_context):
    """One for each side, dimmed narration, and only where it is welcome."""
    with dialogue.playing(dialogue.GREETING + dialogue.ehlo() + dialogue.QUIT,
                          server_context) as player:
        result = sit(*reach(player.port), '--explain', '--tls=none', '--check',
                     env=env, pipe=pipe).ends()
    marked = set(re.findall(r'(?m)^((?:\x1b\[[0-9;]*m)*)(C:|S:|--).*?'
                            r'((?:\x1b\[[0-9;]*m)?)$', result.err))
    colours = {mark: begin for begin, mark, _ in marked}
    assert len(marked) == len(colours) == 3
    assert {end for _, _, end in marked} == {'\x1b[0m' * coloured}
    assert ('\x1b' in result.err) == coloured
    assert len(set(colours.values())) == (3 if coloured else 1)
    assert colours['--'] == '\x1b[2m' * coloured
