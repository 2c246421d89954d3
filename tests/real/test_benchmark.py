"""The benchmark measures what it says; never how fast anything is."""

import dataclasses
import subprocess
import sys
from unittest import mock

import pytest

if sys.platform == 'win32':
    pytest.skip('needs a Unix system', allow_module_level=True)

from benchmark import clients, measure, network

from support import cli

Case, Run = measure.Case, measure.Run


@pytest.fixture
def bench(tmp_path, authority):
    """A function that prepares a benchmark for some clients."""
    net = network.Network(tmp_path, authority)
    return lambda *each: measure.Bench(tmp_path, net, each)


def named(name, old='', new=''):
    """Return a client, with one thing changed in its script."""
    client = next(each for each in clients.PEERS if each.name == name)
    return dataclasses.replace(client, script=client.script.replace(old, new))


def test_work_and_round_trips_are_measured(bench):
    """Ten round trips, however many recipients; the whole message arrives."""
    ready = bench(clients.smtp_py(str(cli.PROGRAM)), named('floor'))
    assert list(ready.clients) == ['smtp.py', 'floor'], ready.notes
    cases = [Case(rtt=60), Case(rtt=60, recipients=30), Case(size=1)]
    ready.measure(1, cases, ready.clients)
    for name in ready.clients:
        assert [ready.get(case, name, 'trips') for case in cases[:2]] \
            == [10, 10]
        run, = ready.results[cases[2], name]
        assert 0 < run.cpu < 2 * run.wall and run.memory > 8


@pytest.mark.parametrize('change, reason', [
    (("'rb').read()", "'rb').read()[:-1]"), 'attachment'),
    (('.read())', '.read()[:-9])'), 'text'),
    (('(message)', '(message, to_addrs=recipients[0])'), 'the same work'),
    (('send_message(message)', 'noop()'), 'sent nothing'),
    (('import smtplib', 'exit("no such luck")'), 'no such luck')])
def test_who_does_not_do_the_work_is_left_out(bench, change, reason):
    """Only equal work is compared."""
    ready = bench(named('smtplib script', *change))
    assert not ready.clients
    assert ready.notes[0].startswith('smtplib script: left out: ')
    assert reason in ready.notes[0]


def test_ratios_are_taken_within_rounds(bench):
    """A slow moment of the machine changes no ratio."""
    ready = bench()
    for name, walls in (('smtp.py', (1, 10, 1)), ('peer', (2, 20, 2, 50))):
        ready.results['case', name] = [Run(wall, 0, 0) for wall in walls]
    assert ready.ratio('case', 'peer') == 0.5
    assert ready.ratio('case', 'another') != ready.ratio('case', 'another')


def test_runs_take_turns(bench):
    """Each round runs all that have neither failed nor taken too long."""
    once, slow = Run(1000, 0, 0), Run(11_000, 0, 0)
    turns = mock.Mock(**{'a.return_value': once, 'b.return_value': slow,
                         'c.side_effect': [once, measure.Failed('oh no')]})
    ready = bench()
    ready.take_turns(3, {name: getattr(turns, name) for name in 'abc'})
    assert ''.join(call[0] for call in turns.mock_calls) == 'abcaca'
    assert ready.notes == ['c failed: oh no']


def test_the_memory_is_that_of_the_client_alone(tmp_path):
    """The memory of the benchmark itself is not measured."""
    ballast = b'x' * (64 << 20)
    lean, fat = (measure.launch([sys.executable, '-c', code], tmp_path)
                 for code in ('pass', 'bytearray(b"x") * (80 << 20)'))
    assert 0 < lean.memory < 60 < 80 < fat.memory and ballast


def test_the_command_starts():
    """The script and the folder beside it have the same name."""
    done = subprocess.run(
        [sys.executable, str(cli.ROOT / 'tests' / 'benchmark.py'), '-h'],
        capture_output=True, text=True)
    assert done.returncode == 0 and '--quick' in done.stdout, done.stderr
