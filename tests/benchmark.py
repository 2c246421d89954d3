# /// script
# requires-python = ">=3.9"
# dependencies = ["pytz", "tzlocal", "trustme", "rich", "matplotlib",
#                 "aiosmtplib"]
# ///
"""Measures smtp.py side by side with other programs that send mail.

    python tests/benchmark.py --quick         only the goals, one minute
    python tests/benchmark.py --markdown --plot tests/pictures/performance.svg

It needs a Unix system, and measures those of curl, swaks, msmtp, s-nail, and
scripts with smtplib, aiosmtplib and nodemailer ($NODE_PATH) that it finds. All
do the same work: TLS by STARTTLS with the certificate verified, AUTH LOGIN, a
subject in UTF-8, the same attachment; the whole mail must arrive. The floor,
a script for this purpose alone, does only what SMTP asks for.

- A round trip is one time that the client goes on after it had to wait for
  the server: SYN, the ACK that brings the greeting, EHLO and so on to QUIT.
  A relay delays both ways; that of SYN it adds to that of the greeting.
- A time is that from starting the program until its end; CPU is its user and
  system time, and memory its largest resident set (of 8 MiB or more).
- Runs alternate: each round runs every client once. Numbers are medians, and
  a ratio is the median of the ratios within each round.
"""

import argparse
import os
import pathlib
import platform
import ssl
import sys
import tempfile

import rich.box
import rich.console
import rich.table
import trustme

# The folder: Python prefers it to a module of the same name.
from benchmark.clients import PEERS, SMTP, smtp_py
from benchmark.measure import Bench, Case, Run, launch
from benchmark.network import Network

SMALL, NEAR, FAR, MANY = Case(), Case(40), Case(100), Case(40, 100)
DELAYED = [SMALL, *(Case(rtt) for rtt in (10, 20, 40, 100))]
SIZES = [Case(size=size) for size in (1, 5, 25, 100)]
GROWTH = {                              # a quarter, and the whole
    '100 MiB': SIZES[2:],
    'one line of 10 MB': [Case(text=b'xxxxx', times=times)
                          for times in (500_000, 2_000_000)],
    'ten million short lines': [Case(text=b'a\n', times=times)
                                for times in (2_500_000, 10_000_000)],
    '10,000 recipients': [Case(recipients=number)
                          for number in (2_500, 10_000)]}


def measure(bench, smtp, quick):
    """Measure everything; quick leaves out what no goal is about."""
    rounds = 3 if quick else 7
    bench.measure(2 * rounds, [SMALL], bench.clients)
    for cases, peer in (
            ([NEAR, FAR] if quick else DELAYED[1:], 'curl --sasl-ir'),
            ([MANY], 'swaks --pipeline'),
            (SIZES[2:3] if quick else SIZES, 'nodemailer')):
        bench.measure(rounds, cases,
                      [SMTP, 'floor', peer] if quick else bench.clients)
    bench.measure(3 if quick else 5, [
        case for pair in GROWTH.values() for case in pair], [SMTP])
    bench.take_turns(2 * rounds, {
        ('help', name): lambda words=words: launch([sys.executable, *words],
                                                   bench.folder)
        for name, words in ((SMTP, [smtp, '--help']),
                            ('argparse', ['-c', 'import argparse']))})


def goals(bench):
    """Yield what smtp.py must reach: what, measured, limit."""
    yield ('one message, 40 ms: time / curl --sasl-ir',
           bench.ratio(NEAR, 'curl --sasl-ir'), 0.96)
    yield ('one message, 100 ms: time / curl --sasl-ir',
           bench.ratio(FAR, 'curl --sasl-ir'), 0.9)
    yield 'one message: round trips', bench.get(NEAR, field='trips'), 10
    yield ('100 recipients, 40 ms: time / swaks --pipeline',
           bench.ratio(MANY, 'swaks --pipeline'), 0.88)
    yield '100 recipients: round trips', bench.get(MANY, field='trips'), 10
    yield ('one message: CPU / smtplib script',
           bench.ratio(SMALL, 'smtplib script', 'cpu'), 1.6)
    yield ('--help: CPU / python -c "import argparse"',
           bench.ratio('help', 'argparse', 'cpu'), 3.3)
    yield '25 MiB: time / nodemailer', bench.ratio(SIZES[2], 'nodemailer'), 0.5
    yield ('100 MiB: MiB of memory over that of one message',
           bench.get(SIZES[3], field='memory')
           - bench.get(SMALL, field='memory'), 2)
    for what, (quarter, whole) in GROWTH.items():
        yield (f'{what}: CPU / that of a quarter (linear: 4)',
               bench.growth(quarter, whole), 5)


def report(bench, markdown):
    """Print the tables, and what they depend on."""
    box = rich.box.MARKDOWN if markdown else rich.box.SIMPLE
    console = rich.console.Console(width=100, highlight=False)
    numbers = rich.table.Table('', '', 'ms', 'CPU ms', 'MiB', 'trips',
                               'smtp.py / it', box=box)
    reached = rich.table.Table('smtp.py', 'measured', 'goal', '', box=box)
    for case, name in list(bench.results):
        numbers.add_row(str(case), name, *(
            f'{bench.get(case, name, field):.0f}' for field in Run._fields),
            f'{bench.ratio(case, name):.2f}')
    for what, measured, limit in goals(bench):
        reached.add_row(what, f'{measured:.2f}', f'<= {limit}',
                        'met' if measured <= limit else 'not met')
    for each in (numbers, reached, (
            f'- {os.cpu_count()} cores, {platform.system()} '
            f'({platform.machine()}), Python {platform.python_version()}, '
            f'{ssl.OPENSSL_VERSION}, load {os.getloadavg()[0]:.1f}'),
            *(f'- {note}' for note in bench.notes)):
        console.print(each)


def plot(bench, path):
    """Draw time against round-trip time and against attachment size."""
    import matplotlib
    from matplotlib import pyplot
    matplotlib.use('svg')
    matplotlib.rcParams.update({'svg.fonttype': 'none', 'svg.hashsalt': '1'})
    styles = {SMTP: dict(color='black', linewidth=2.5),
              'floor': dict(color='grey', linestyle='--')}
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4.5))
    for panel, cases, field in ((left, DELAYED, 'rtt'),
                                (right, SIZES, 'size')):
        for name in bench.clients:
            panel.plot([getattr(case, field) for case in cases],
                       [bench.get(case, name) for case in cases],
                       marker='.', label=name, **styles.get(name, {}))
        panel.set_ylabel('ms')
        panel.grid(alpha=0.3)
    left.set(xlabel='round-trip time (ms), one message', ylim=(0, None))
    left.legend(frameon=False)
    right.set(xlabel='attachment (MiB), no delay', xscale='log', yscale='log')
    right.set_xticks([case.size for case in SIZES],
                     labels=[str(case.size) for case in SIZES])
    right.minorticks_off()
    right.yaxis.set_major_formatter('{x:g}')
    figure.tight_layout()
    figure.savefig(path, facecolor='white', metadata={'Date': None})


def main():
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--quick', action='store_true',
                        help='only what the goals are about, in a minute')
    parser.add_argument('--markdown', action='store_true',
                        help='print the tables in Markdown')
    parser.add_argument('--plot', metavar='FILE',
                        help='draw the times into this SVG file')
    parser.add_argument('--smtp', metavar='FILE', help='the smtp.py to '
                        'measure', type=os.path.abspath, default=str(
                            pathlib.Path(__file__).parents[1] / 'smtp.py'))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        bench = Bench(folder, Network(folder, trustme.CA()),
                      [smtp_py(options.smtp), *PEERS])
        if SMTP not in bench.clients:
            sys.exit(bench.notes[0])
        measure(bench, options.smtp, options.quick)
        report(bench, options.markdown)
        if options.plot:
            plot(bench, options.plot)


if __name__ == '__main__':
    main()
