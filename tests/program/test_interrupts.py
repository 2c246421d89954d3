"""Ctrl-C and signals at each moment: the verdict is true, the text is kept."""

import os
import select
import signal
import time

import pytest

from support import checks, cli, dialogue, hostile
from support.post import ALICE, BASIC, BOB, MAIL, PASSWORD

pytestmark = pytest.mark.skipif(not hasattr(signal, 'SIGHUP'),
                                reason='needs signals')
LARGE = b'Precious words.\n' * 400_000      # no socket can swallow it
FINISHED = f'From: {ALICE}\nTo: {BOB}\n\nPrecious words'.encode()
TOLD = (f'S: 220 a\n{dialogue.ehlo()}C: MAIL FROM:<{ALICE}>\nS: 250 ok\n'
        'C: RCPT TO:<bob@example.org>\n')
DOT = 'S: 250 ok\nC: DATA\nS: 354 go\nC: <message>\nC: .\n'


def ends(process, names):
    """Send signals to a process that waits; return its result."""
    cli.wait_until(lambda: cli.waits(process.pid), 'waiting')
    begun = time.monotonic()
    for name in names.split():
        process.send_signal(getattr(signal, name))
    result = cli.ended(process)
    assert time.monotonic() - begun < 3
    return result


@pytest.mark.parametrize('names, step', [
    *(('SIGINT', step) for step in hostile.STEPS[1:]),
    *((names, step) for names in (
        'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGINT SIGTERM SIGHUP SIGINT')
      for step in ('password', 'body', 'final dot', 'QUIT'))])
def test_a_server_that_says_nothing(names, step, start, ca_file, folder,
                                    server_context):
    """At every step; the text is kept unless it was sent."""
    text = LARGE if step == 'body' else FINISHED
    (folder.parent / 'text').write_bytes(text)
    with hostile.serving(step, 'silent', server_context) as server, \
            open(folder.parent / 'text', 'rb') as pipe:
        process = start(*cli.reach(server.port, ca_file, 30), *BASIC, '-c',
                        ','.join(hostile.RECIPIENTS), stdin=pipe,
                        password=hostile.PASSWORD)
        cli.wait_until(lambda: server.reached, step)
        result = ends(process, names)
    code = {'QUIT': 0, 'final dot': 74}.get(step, 130)
    checks.check(result, code, *['interrupted'] * (code == 130))
    assert server.complete == (code != 130)
    assert [path.read_bytes() for path in folder.glob('unsent-*')] == (
        [text] * (code != 0))


@pytest.mark.parametrize('told, codes, words', [
    ('S: 550 5.1.1 Nobody here\n', (67, 130), '550 5.1.1 Nobody here'),
    (DOT + 'S: 554 5.6.0 Not wanted\n', (69, 130), '554 5.6.0 Not wanted'),
    (DOT + 'S: 250 2.0.0 Queued\n', (0,), '250 2.0.0 Queued')])
def test_during_the_goodbye(told, codes, words, start, server_context):
    """What the server said before is not forgotten."""
    with dialogue.playing(f'{TOLD}{told}C: QUIT\n-- says nothing\n',
                          server_context) as player:
        process = start(*cli.reach(player.port), '--tls=none', *BASIC, '-v',
                        '--body=x')
        assert 'C: QUIT\n' in iter(lambda: process.stderr.readline().decode(),
                                   '')
        result = ends(process, 'SIGINT')
    assert not player.mismatch and result.code in codes
    checks.check(result, result.code, words)


@pytest.mark.parametrize('name', ['SIGTERM', 'SIGQUIT', 'SIGINT'])
@pytest.mark.parametrize('args', [BASIC, ['--message=-']], ids=' '.join)
def test_while_it_is_piped(args, name, start, folder):
    """As much of it as has come is kept."""
    read, write = os.pipe()
    process = start(*args, stdin=read, password=PASSWORD)
    os.write(write, FINISHED)
    cli.wait_until(lambda: not select.select([read], [], [], 0)[0], 'reading')
    checks.check(ends(process, name), 130, 'interrupted')
    os.close(write)
    os.close(read)
    path, = folder.iterdir()
    assert path.read_bytes() == FINISHED


@pytest.mark.parametrize('how', ['SIGINT SIGINT', 'SIGTERM SIGHUP', 'SIGQUIT',
                                 'closed'])
@pytest.mark.parametrize('typed', [['Hello,', 'precious'], []], ids=str)
def test_while_it_is_typed(typed, how, sit, folder):
    """As far as it has come; nothing, if nothing has come."""
    someone = sit(*BASIC, password=PASSWORD)
    someone.asked('Text')
    someone.enters(*typed)
    someone.sees(''.join(typed[-1:]))   # it has come to the terminal
    someone.is_read()
    if how == 'closed':     # the window; nobody reads the errors
        someone.child.close(force=False)
        cli.wait_until(lambda: not someone.child.isalive(), 'the end')
    else:
        for name in how.split():
            someone.child.kill(getattr(signal, name))
        assert someone.ends().code == 130
        assert 'smtp.py: Not sent: interrupted' in someone.seen
    assert 'Traceback' not in someone.seen
    assert [path.read_bytes() for path in folder.iterdir()] == (
        [b'Hello,\nprecious\n'] * bool(typed))


def test_an_ignored_signal_stays_ignored(start, ca_file, server_context):
    """As under nohup."""
    with hostile.serving('greeting', 'silent', server_context) as server:
        process = start(*cli.reach(server.port, ca_file, 1), *BASIC,
                        '--body=x', password='x', preexec_fn=lambda: (
                            signal.signal(signal.SIGHUP, signal.SIG_IGN)))
        cli.wait_until(lambda: server.reached, 'the greeting')
        checks.check(ends(process, 'SIGHUP'), 75, 'greeting')


def test_while_options_are_read(call, monkeypatch):
    """The parser may hide an interrupt behind an error of its own."""
    def parse(*_):
        try:
            raise KeyboardInterrupt
        finally:
            raise AttributeError('save_nargs')
    monkeypatch.setattr('argparse.ArgumentParser.parse_intermixed_args', parse)
    checks.check(call(*MAIL), 130, 'interrupted')
