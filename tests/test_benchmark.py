"""Tests of the benchmark: that it counts right, never how fast anything is."""

import contextlib
import math
import os
import sys
import types

import pytest

pytest.importorskip('trustme')
if not hasattr(os, 'posix_spawn'):
    pytest.skip('the benchmark needs a Unix system', allow_module_level=True)

import benchmark  # noqa: E402
import benchmark_clients  # noqa: E402
import benchmark_network  # noqa: E402
import trustme  # noqa: E402


def client(name):
    """Returns one of the benchmark's own clients."""
    return next(one for one in benchmark_clients.CLIENTS if one.name == name)


@contextlib.contextmanager
def prepared(folder, clients):
    """Prepares a benchmark over a relay, which needs no permissions."""
    authority = trustme.CA()
    for name, each in (('authority', authority), ('foreign', trustme.CA())):
        each.cert_pem.write_to_path(str(folder / f'{name}.pem'))
    network = benchmark_network.Network(str(folder), authority, 'relay')
    options = types.SimpleNamespace(node_path='', smtp='')
    try:
        yield benchmark.Benchmark(options, str(folder), network, clients)
    finally:
        network.close()


def runs(*walls):
    """Returns runs that took so long."""
    return [benchmark.Run(wall, wall, 1.0) for wall in walls]


def test_turns_count_waiting_only():
    """A turn begins where the client had to wait, nowhere else."""
    turns = benchmark_network.Turns(rtt=0.1, now=0)
    assert turns.count == 2             # SYN, and the ACK
    turns.received(0.1)                 # EHLO after the greeting
    assert turns.count == 3
    turns.received(0.101)               # more of the same flight
    turns.received(0.15)
    assert turns.count == 3
    turns.received(0.25)                # the client waited again
    assert turns.count == 4


def test_ratio_is_taken_within_rounds():
    """A slow moment of the machine touches no ratio."""
    # The machine was slow in the second round.
    assert benchmark.ratio(runs(1, 10, 1), runs(2, 20, 2)) == 0.5
    # One that gave up after two rounds is compared in those two.
    assert benchmark.ratio(runs(1, 3), runs(1, 1, 50)) == 2
    assert benchmark.ratio([], runs(1)) is None


def test_best_peer_is_neither_ours_nor_the_floor():
    """The best peer is one that ran, by its median."""
    found = {'floor': runs(1), 'smtp.py': runs(2), 'curl': runs(4, 4),
             'msmtp': runs(3, 9), 'swaks --pipeline': []}
    assert benchmark.best_peer(found) == 'curl'
    assert benchmark.best_peer({'smtp.py': runs(1)}) is None


def test_growth_leaves_the_start_out():
    """Growth compares what comes on top of starting, if that can be seen."""
    assert benchmark.growth(runs(3), runs(6), runs(2)) == 4
    assert math.isnan(benchmark.growth(runs(2.01), runs(6), runs(2)))


def test_runs_take_turns():
    """Each round runs everyone who has patience and success left."""
    order = []

    def action(name, wall, fails_at=99):
        def run():
            order.append(name)
            if order.count(name) == fails_at:
                raise benchmark.Failed('on purpose')
            return benchmark.Run(wall, 0, 0)
        return run

    found = benchmark.in_turns(
        {'a': action('a', 1), 'slow': action('slow', 100),
         'broken': action('broken', 1, fails_at=2)}, rounds=3, patience=10)
    assert order == ['a', 'slow', 'broken', 'a', 'broken', 'a']
    assert {name: len(each) for name, each in found.items()} == {
        'a': 3, 'slow': 1, 'broken': 1}


def test_launcher_reports_the_child_alone(tmp_path):
    """The memory of whoever measures is not measured."""
    ballast = b'x' * (64 << 20)         # ours, so not to be seen in the child
    lean = benchmark.launch([sys.executable, '-c', 'pass'], str(tmp_path))
    fat = benchmark.launch(
        [sys.executable, '-c', 'bytearray(b"x") * (80 << 20)'], str(tmp_path))
    assert 0 < lean.memory < 60 < 80 < fat.memory
    assert lean.wall > 0 and lean.cpu > 0 and len(ballast)


def test_launcher_tells_a_failure_and_its_words(tmp_path):
    """A failing client is no run, and its words are told."""
    with pytest.raises(benchmark.Failed, match='no such luck'):
        benchmark.launch([sys.executable, '-c', 'exit("no such luck")'],
                         str(tmp_path))


def test_environment_is_clean(tmp_path, monkeypatch):
    """Variables of the caller do not reach the clients."""
    monkeypatch.setenv('PYTHONDONTWRITEBYTECODE', '1')
    benchmark.launch([sys.executable, '-c', (
        'import os; assert "PYTHONDONTWRITEBYTECODE" not in os.environ')],
        str(tmp_path))


def test_tables():
    """Tables come as text and as Markdown."""
    rows = [['', 'a\nb', 'c'], ['x', '10', '2']]
    assert benchmark.show_table(rows, False) == '    a\n    b  c\nx  10  2'
    assert benchmark.show_table(rows, True) == (
        '|  | a b | c |\n| --- | ---: | ---: |\n| x | 10 | 2 |')


def test_clients_do_their_work_and_are_counted(tmp_path):
    """Sink, relay, launcher and two clients work together."""
    clients = [client('floor'), client('smtplib script')]
    with prepared(tmp_path, clients) as bench:
        assert list(bench.clients) == ['floor', 'smtplib script']
        assert bench.notes == ['floor: takes the finished message']
        bench.measure(1, 10, rtt=60)
        bench.measure(1, 10, names=['floor'], rtt=60, recipients=30)
        bench.measure(1, 10, size=1)
    one, many, large = (bench.results[key] for key in (
        (60, 1, 0), (60, 30, 0), (0, 1, 1)))
    # The floor needs ten, however many recipients; smtplib waits for the
    # replies to MAIL, RCPT, DATA and to the message one after the other.
    assert one['floor'][0].turns == many['floor'][0].turns == 10
    assert one['smtplib script'][0].turns >= 13
    assert len(large['floor']) == len(large['smtplib script']) == 1


def test_who_does_not_do_the_work_is_left_out(tmp_path):
    """Only equal work is compared, and trust is told."""
    careless = benchmark_clients.Client(
        'careless', sys.executable, benchmark_clients.script, ['-V'],
        benchmark_clients.SMTPLIB_SCRIPT.replace(
            'send_message(message)',
            'send_message(message, to_addrs=recipients[:1])'))
    trusting = benchmark_clients.Client(
        'trusting', sys.executable, benchmark_clients.script, ['-V'],
        benchmark_clients.SMTPLIB_SCRIPT.replace('context=context', ''))
    with prepared(tmp_path, [careless, trusting]) as bench:
        assert list(bench.clients) == ['trusting']
    assert bench.notes[0].startswith('careless: left out')
    assert bench.notes[1] == 'trusting: does not verify certificates'
