"""Measures smtp.py side by side with other programs that send mail.

    python tests/benchmark.py                 everything, ten minutes
    python tests/benchmark.py --quick         the same idea in under a minute
    python tests/benchmark.py --markdown --plot benchmark.svg

It needs a Unix system and trustme, and matplotlib for --plot. It measures
every one of swaks, msmtp, curl, s-nail, a script with smtplib, a script with
aiosmtplib and a script with nodemailer (--node-path says where that is) that
it finds installed. All of them do the same work: TLS by STARTTLS with the
certificate verified, AUTH LOGIN, a subject in UTF-8 and the same attachment.
One more client, the floor, is written by hand for this purpose alone: it
takes a finished message and does nothing that SMTP does not ask for.

How it counts:

- A round trip is one time that the client goes on after it had to wait for
  the server: SYN, the ACK that brings the greeting, EHLO and so on to QUIT
  (also where it waits for a mere ACK, by Nagle's algorithm). The server
  counts them on the TCP level, so those of TLS are counted, too, in the runs
  with delay, where waiting shows. See Turns.
- A time is that from starting the program until its end, its start-up
  included; CPU is its user and system time, and its memory is the largest
  resident set (ru_maxrss), all three by wait4 of a small launcher. The
  launcher has some 8 MiB itself, so nothing below that can be seen.
- Runs alternate: each round runs every client once, in turns. Numbers are
  medians. A ratio is the median of the ratios within each round, so that
  what slows the machine for a while slows both sides of it.

Everything stays on this machine. As root, the benchmark runs in network
namespaces of its own, and the delay lies between them; they end with it.
"""

import argparse
import base64
import contextlib
import dataclasses
import importlib.util
import math
import os
import pathlib
import platform
import re
import shutil
import signal
import ssl
import statistics
import subprocess
import sys
import tempfile

import benchmark_clients
import trustme
from benchmark_clients import PYTHON, Client, Mail
from benchmark_network import DELAYS, PASSWORD, USER, Network

MIB = 1 << 20


# === One run, and runs in turns ============================================

# A child begins with the largest memory of the process that started it, so
# a launcher as small as Python gets starts each client. Its argument is the
# file that gets the numbers; the client has the standard streams.
LAUNCHER = """
import os, sys, time
begin = time.perf_counter()
child = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ)
status, usage = os.wait4(child, 0)[1:]
wall = time.perf_counter() - begin
with open(sys.argv[1], 'w') as numbers:
    print(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss,
          status, file=numbers)
"""


@dataclasses.dataclass
class Run:
    """What one run took: seconds, MiB, and round trips where delayed."""

    wall: float
    cpu: float
    memory: float
    turns: int = 0
    quit: bool = False


class Failed(Exception):
    """A client did not do its work."""


def launch(arguments, folder, stdin=None, node_path='', fine=(0,)):
    """Runs a program to its end in a clean environment.

    Args:
        arguments: the program's path and its arguments.
        folder: for temporary files; also the program's home.
        stdin: path of a file, or None for nothing.
        node_path: where node looks for nodemailer.
        fine: the exit codes that are no failure.

    Returns:
        A Run.

    Raises:
        Failed: it ended otherwise, or took more than five minutes.
    """
    numbers, output = (os.path.join(folder, name)
                       for name in ('numbers', 'output'))
    environment = {'PATH': os.environ['PATH'], 'HOME': folder,
                   'LC_ALL': 'C.UTF-8', 'SMTP_PASSWORD': PASSWORD,
                   'NODE_PATH': node_path}
    with open(stdin or os.devnull, 'rb') as source, \
            open(output, 'wb') as target:
        process = subprocess.Popen(
            [PYTHON, '-I', '-S', '-c', LAUNCHER, numbers, *arguments],
            stdin=source, stdout=target, stderr=target, cwd=folder,
            env=environment, start_new_session=True)
        try:
            process.wait(300)
        except subprocess.TimeoutExpired:
            raise Failed('takes more than five minutes') from None
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if process.returncode:
        raise Failed('could not be started')
    wall, cpu, memory, status = pathlib.Path(numbers).read_text().split()
    if os.WEXITSTATUS(int(status)) not in fine or os.WIFSIGNALED(int(status)):
        words = pathlib.Path(output).read_text(errors='replace').split()
        raise Failed(' '.join(words)[-300:] or f'ended with status {status}')
    unit = MIB if sys.platform == 'darwin' else 1024
    return Run(float(wall), float(cpu), int(memory) / unit)


def in_turns(actions, rounds, patience):
    """Runs each action once a round, until its rounds or patience are used.

    Args:
        actions: functions that return a Run, by name.
        rounds: how often, at most.
        patience: seconds that one action may take in all its rounds; the
            first round takes place anyway.

    Returns:
        Lists of Runs by name; the n-th of each list ran in the n-th round.
        A failure ends its list and is told on standard error.
    """
    runs = {name: [] for name in actions}
    left = dict(actions)
    for _ in range(rounds):
        for name in list(left):
            try:
                runs[name].append(left[name]())
            except Failed as failure:
                print(f'{name} failed: {failure}', file=sys.stderr)
                del left[name]
                continue
            if sum(run.wall for run in runs[name]) > patience:
                del left[name]
    return runs


def median(runs, field='wall'):
    """Returns the median of one field, or None without runs."""
    values = [getattr(run, field) for run in runs]
    return statistics.median(values) if values else None


def ratio(ours, theirs, field='wall'):
    """Returns the median of the ratios within each round, or None."""
    pairs = [getattr(ours[place], field) / getattr(theirs[place], field)
             for place in range(min(len(ours), len(theirs)))]
    return statistics.median(pairs) if pairs else None


# === The measurements ======================================================

def write_message(path, recipients, text, attachment):
    """Writes the finished message for those clients that need one."""
    head = (f'From: {USER}\nTo: ' + ',\n '.join(recipients)
            + f'\nSubject: {benchmark_clients.ENCODED_SUBJECT}\n'
            'MIME-Version: 1.0\n'
            'Content-Type: multipart/mixed; boundary="=-="\n\n--=-=\n\n'
            + pathlib.Path(text).read_text() + '\n--=-=\n'
            'Content-Type: application/octet-stream\n'
            'Content-Disposition: attachment; filename="data.bin"\n'
            'Content-Transfer-Encoding: base64\n\n')
    with open(path, 'wb') as target, \
            open(attachment or os.devnull, 'rb') as source:
        target.write(head.replace('\n', '\r\n').encode())
        while piece := source.read(57 << 14):
            target.write(base64.encodebytes(piece).replace(b'\n', b'\r\n'))
        target.write(b'--=-=--\r\n')


class Benchmark:
    """Measures, and remembers: results[rtt, recipients, MiB][client]."""

    def __init__(self, options, folder, network, clients):
        """Prepares; clients are those of CLIENTS that may be installed."""
        self.options, self.folder, self.network = options, folder, network
        self.results, self.clients, self.versions = {}, {}, {}
        self.notes = []
        self.text = self.file('text', b'Hello Bob,\nthis is a test.\n' * 8)
        for client in clients:
            self.admit(client)

    def file(self, name, data):
        """Writes a file and returns its path."""
        path = pathlib.Path(self.folder, name)
        path.write_bytes(data)
        return str(path)

    def mail(self, rtt=0, recipients=1, size=0, authority='authority.pem'):
        """Prepares a Mail; the files for it are made once."""
        host, port = self.network.place(rtt / 1000)
        to = [f'r{number}@example.com' for number in range(recipients)]
        attachment = os.path.join(self.folder, f'{size}.bin') if size else ''
        if size and not os.path.exists(attachment):
            self.file(f'{size}.bin', os.urandom(int(size * MIB)))
        finished = os.path.join(self.folder, f'{recipients}-{size}.eml')
        if not os.path.exists(finished):
            write_message(finished, to, self.text, attachment)
        return Mail(host, port, os.path.join(self.folder, authority), to,
                    self.text, attachment, finished)

    def send(self, client, mail):
        """Lets a client send a mail and returns the Run, or raises Failed."""
        program = [shutil.which(client.program)]
        if client.script:
            program.append(self.file('script', client.script.encode()))
        stdin = client.stdin and getattr(mail, client.stdin)
        self.network.sessions_seen(0)           # of clients that failed
        run = launch(program + client.arguments(mail), self.folder, stdin,
                     self.options.node_path)
        seen = self.network.sessions_seen()
        size = mail.attachment and os.path.getsize(mail.attachment)
        for one in seen:
            if (one['tls'] and one['login'] and one['octets'] >= (size or 0)
                    * 4 // 3 and one['recipients'] == len(mail.recipients)):
                run.turns, run.quit = one['turns'], one['quit']
                return run
        raise Failed(f'did not do the same work: {seen}')

    def admit(self, client):
        """Takes a client into the benchmark, if it is there and works."""
        path = shutil.which(client.program)
        if not path:
            return self.notes.append(f'{client.name}: not installed')
        version = subprocess.run(
            [path, *client.version], capture_output=True, text=True,
            env={**os.environ, 'NODE_PATH': self.options.node_path})
        if version.returncode:
            return self.notes.append(f'{client.name}: not installed')
        try:
            run = self.send(client, self.mail(recipients=2, size=0.01))
        except Failed as failure:
            return self.notes.append(f'{client.name}: left out: {failure}')
        if client.version != ['-V']:
            name = client.name if client.script else client.program
            self.versions[name] = re.findall(r'\d[\w.]+\w',
                                             version.stdout)[0]
        self.clients[client.name] = client
        if client.note:
            self.notes.append(f'{client.name}: {client.note}')
        if not run.quit:
            self.notes.append(f'{client.name}: hangs up without QUIT, which '
                              'would be one round trip more')
        with contextlib.suppress(Failed):
            self.send(client, self.mail(authority='foreign.pem'))
            self.notes.append(f'{client.name}: does not verify certificates')

    def measure(self, rounds, patience, names=None, **kind):
        """Measures one kind of mail with all clients, or those named."""
        mail = self.mail(**kind)
        key = tuple({**dict(rtt=0, recipients=1, size=0), **kind}.values())
        print('measuring', title(*key), file=sys.stderr)
        self.results[key] = in_turns(
            {name: (lambda client=client: self.send(client, mail))
             for name, client in self.clients.items()
             if names is None or name in names}, rounds, patience)

    def measure_start(self, rounds):
        """Measures what happens before any connection."""
        smtp = [PYTHON, self.options.smtp]
        commands = {
            'python -c pass': [PYTHON, '-c', 'pass'],
            'python -c "import argparse"': [PYTHON, '-c', 'import argparse'],
            'smtp.py --help': smtp + ['--help'],
            'smtp.py, a usage error': smtp + ['--port', 'none'],
            # As a module it is compiled once, and kept.
            'python -m smtp --help': [
                shutil.which('env'),
                f'PYTHONPATH={os.path.dirname(self.options.smtp)}',
                PYTHON, '-m', 'smtp', '--help']}
        self.results['start'] = in_turns(
            {name: (lambda command=command: launch(
                command, self.folder, fine=(0, 64)))
             for name, command in commands.items()}, rounds, 20)

    def measure_growth(self, rounds):
        """Measures whether four times the text takes four times the time."""
        client, mails = self.clients['smtp.py'], {}
        kinds = ('10 MB of text in one line', '10,000,000 short lines',
                 '10,000 recipients in the header')
        for part in (1, 4):
            count = 10 ** 7 * part // 4
            for place, data in enumerate((b'x' * count, b'a\n' * count)):
                mails[kinds[place], part] = dataclasses.replace(
                    self.mail(), text=self.file(f'{place}-{part}', data))
            mails[kinds[2], part] = self.mail(recipients=count // 1000)
        self.results['growth'] = in_turns(
            {key: (lambda mail=mail: self.send(client, mail))
             for key, mail in mails.items()}, rounds, 20)


def measure_all(benchmark, quick, runs):
    """Measures everything; quick leaves out what takes long."""
    fast = [name for name, client in benchmark.clients.items()
            if not client.one_by_one]
    ours = [name for name in benchmark.clients if name in ('smtp.py', 'floor')]
    many = runs * (2 if quick else 4)
    benchmark.measure(many, 20)
    for rtt in (40,) if quick else (20, 40, 100, 200):
        benchmark.measure(runs, 1.3 if quick else 5, rtt=rtt)
    for rtt in (40,) if quick else (40, 100):
        benchmark.measure(runs, 1.3 if quick else 8, rtt=rtt, recipients=100,
                          names=quick and fast or None)
    for size in (25,) if quick else (1, 5, 25, 50):
        benchmark.measure(runs, 1 if quick else 5, size=size)
    benchmark.measure(1 if quick else 3, 5, names=quick and ours or None,
                      size=100)
    if 'smtp.py' in benchmark.clients:
        benchmark.measure_start(many)
        benchmark.measure_growth(1 if quick else runs)


# === The report ============================================================

def title(rtt, recipients, size):
    """Says in words what was measured."""
    what = f'{size} MiB attachment' if size else 'small message'
    to = f', {recipients} recipients' if recipients > 1 else ''
    return what + to + (f', {rtt} ms' if rtt else ', loopback')


COLUMNS = [
    # heading, (rtt, recipients, MiB), field, unit
    ('round\ntrips', (40, 1, 0), 'turns', 1),
    ('40 ms\nRTT, ms', (40, 1, 0), 'wall', 1000),
    ('100 ms\nRTT, ms', (100, 1, 0), 'wall', 1000),
    ('100 rcpts,\ntrips', (40, 100, 0), 'turns', 1),
    ('100 rcpts,\n40 ms, ms', (40, 100, 0), 'wall', 1000),
    ('100 rcpts,\n100 ms, ms', (100, 100, 0), 'wall', 1000),
    ('small,\nms', (0, 1, 0), 'wall', 1000),
    ('small,\nCPU ms', (0, 1, 0), 'cpu', 1000),
    ('small,\npeak MiB', (0, 1, 0), 'memory', 1),
    ('25 MiB,\nms', (0, 1, 25), 'wall', 1000),
    ('25 MiB,\nCPU ms', (0, 1, 25), 'cpu', 1000),
    ('100 MiB,\nms', (0, 1, 100), 'wall', 1000),
    ('100 MiB,\npeak MiB', (0, 1, 100), 'memory', 1),
]


def number(value, unit=1):
    """Writes a number for the table; a dash for none."""
    return '-' if value is None else f'{value * unit:.0f}'


def client_table(benchmark):
    """Returns the rows of the table of all clients, the heading first."""
    columns = [column for column in COLUMNS if column[1] in benchmark.results]
    rows = [['', *(column[0] for column in columns)]]
    for name in benchmark.clients:
        rows.append([name, *(
            number(median(benchmark.results[key].get(name, []), field), unit)
            for _, key, field, unit in columns)])
    return rows


def best_peer(runs, field='wall'):
    """Returns the name of the best client but smtp.py and the floor."""
    return min((name for name in runs
                if runs[name] and name not in ('smtp.py', 'floor')),
               key=lambda name: median(runs[name], field), default=None)


def growth(less, more, nothing, field='cpu'):
    """Returns how many times longer more takes, apart from start-up.

    That is nan if the lesser takes hardly more than nothing at all, so that
    the quotient would only tell how restless the machine was.
    """
    start = median(nothing, field)
    first = median(less, field) - start
    if first < 0.02:
        return math.nan
    return (median(more, field) - start) / first


def session_targets(results):
    """Yields what smtp.py shall reach while it talks."""
    for key, trips, limit in (((40, 1, 0), 10, 0.88), ((100, 1, 0), 10, 0.88),
                              ((40, 100, 0), 11, 0.8),
                              ((100, 100, 0), 11, 0.8), ((0, 1, 25), 0, 0.5)):
        runs = results.get(key, {})
        peer = best_peer(runs)
        if not runs.get('smtp.py') or not peer:
            continue
        if trips:
            yield (f'{title(*key)}: round trips',
                   median(runs['smtp.py'], 'turns'), trips)
        yield (f'{title(*key)}: time over that of {peer}',
               ratio(runs['smtp.py'], runs[peer]), limit)


def size_targets(results):
    """Yields what smtp.py shall reach with large attachments."""
    small, middle, large = (results.get((0, 1, size), {}).get('smtp.py')
                            for size in (0, 25, 100))
    if small and middle and large:
        yield ('100 MiB attachment: time over that of 25 MiB (linear: 4)',
               growth(middle, large, small, 'wall'), 5)
        yield ('100 MiB attachment: MiB of memory above a small message',
               median(large, 'memory') - median(small, 'memory'), 2)


def start_targets(results):
    """Yields what smtp.py shall reach with no network in the way."""
    small, script = (results.get((0, 1, 0), {}).get(name)
                     for name in ('smtp.py', 'smtplib script'))
    if small and script:
        yield ('small message, loopback: CPU over that of the smtplib script',
               ratio(small, script, 'cpu'), 1)
    start = results.get('start', {})
    for name in ('smtp.py --help', 'smtp.py, a usage error'):
        if start.get(name):
            yield (f'{name}: CPU over that of python -c "import argparse"',
                   ratio(start[name], start['python -c "import argparse"'],
                         'cpu'), 1.5)
    grown = results.get('growth', {})
    for kind in dict.fromkeys(kind for kind, _ in grown):
        if small and grown[kind, 1] and grown[kind, 4]:
            yield (f'{kind}: CPU over that of a quarter (linear: 4)', growth(
                grown[kind, 1], grown[kind, 4], small), 5)


def target_table(benchmark):
    """Returns the rows of the table of targets, the heading first."""
    rows = [['smtp.py', 'measured', 'target', '']]
    results = benchmark.results
    for what, measured, limit in (*session_targets(results),
                                  *size_targets(results),
                                  *start_targets(results)):
        told = 'reached' if measured <= limit else 'missed'
        rows.append([what, f'{measured:.2f}', f'<= {limit}',
                     'too short to tell' if math.isnan(measured) else told])
    return rows


def ratio_table(benchmark):
    """Returns the rows of the table of times over those of smtp.py."""
    columns = [(heading.replace(', ms', ''), benchmark.results[key], field)
               for heading, key, field, _ in COLUMNS
               if field in ('wall', 'cpu')
               and benchmark.results.get(key, {}).get('smtp.py')]
    rows = [['times smtp.py', *(heading for heading, _, _ in columns)]]
    for name in benchmark.clients:
        ratios = [ratio(runs.get(name, []), runs['smtp.py'], field)
                  for _, runs, field in columns]
        rows.append([name, *('-' if value is None else f'{value:.2f}'
                             for value in ratios)])
    return rows if columns else []


def size_table(benchmark):
    """Returns the rows of the table of attachment sizes, in ms."""
    keys = [(0, 1, size) for size in (1, 5, 25, 50, 100)
            if (0, 1, size) in benchmark.results]
    rows = [['attachment, ms', *(f'{size} MiB' for _, _, size in keys)]]
    for name in benchmark.clients:
        rows.append([name, *(number(median(
            benchmark.results[key].get(name, [])), 1000) for key in keys)])
    return rows


def start_table(benchmark):
    """Returns the rows of the table of start-up and long texts, in ms."""
    rows = [['', 'ms', 'CPU ms']]
    runs = dict(benchmark.results.get('start', {}))
    for (kind, part), each in benchmark.results.get('growth', {}).items():
        share = '' if part == 4 else 'a quarter of '
        runs[f'smtp.py, {share}{kind}'] = each
    for name, each in runs.items():
        rows.append([name, number(median(each), 1000),
                     number(median(each, 'cpu'), 1000)])
    return rows


def show_table(rows, markdown):
    """Returns a table as text, or in Markdown."""
    if markdown:
        rows = [[cell.replace('\n', ' ') for cell in row] for row in rows]
        rows.insert(1, ['---'] + ['---:'] * (len(rows[0]) - 1))
        return '\n'.join(f'| {" | ".join(row)} |' for row in rows)
    upper = [cell.rpartition('\n')[0] for cell in rows[0]]
    lower = [cell.rpartition('\n')[2] for cell in rows[0]]
    rows = [upper, lower, *rows[1:]] if any(upper) else rows
    widths = [max(len(row[place]) for row in rows)
              for place in range(len(rows[0]))]
    return '\n'.join('  '.join(
        cell.rjust(widths[place]) if place else cell.ljust(widths[0])
        for place, cell in enumerate(row)).rstrip() for row in rows)


def describe_machine(benchmark, kind):
    """Returns what the numbers depend on, as lines."""
    return [
        f'{os.cpu_count()} cores, {platform.system()} {platform.release()} '
        f'({platform.machine()}), load {os.getloadavg()[0]:.1f} at the end; '
        f'Python {platform.python_version()}, {ssl.OPENSSL_VERSION}; '
        + ', '.join(map(' '.join, benchmark.versions.items())),
        'Times are medians of alternating runs, each from the start of a '
        f'program to its end. Delay: {DELAYS[kind]}.',
        *benchmark.notes]


def report(benchmark, kind, markdown):
    """Prints the tables and what they depend on."""
    for rows in (client_table, ratio_table, size_table, start_table,
                 target_table):
        table = rows(benchmark)
        if len(table) > 1:
            print(show_table(table, markdown), end='\n\n')
    for line in describe_machine(benchmark, kind):
        print(('- ' if markdown else '') + line)


def draw_lines(benchmark, panel, place, keys):
    """Draws the wall time of each client against one place of the keys."""
    for name in benchmark.clients:
        points = {key[place]: median(benchmark.results[key][name])
                  for key in sorted(keys) if benchmark.results[key].get(name)}
        ours = name == 'smtp.py'
        panel.plot(points.keys(), points.values(), label=name, marker='.',
                   linewidth=2.5 if ours else 1,
                   color='black' if ours else None,
                   linestyle='--' if name == 'floor' else '-')
    panel.set_ylabel('seconds')
    panel.grid(alpha=0.3)


def plot(benchmark, path):
    """Draws time against attachment size and against round trip time."""
    import matplotlib
    matplotlib.use('Agg')
    matplotlib.rcParams['svg.fonttype'] = 'none'
    from matplotlib import pyplot
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.8))
    keys = [key for key in benchmark.results if isinstance(key, tuple)]
    draw_lines(benchmark, left, 2, [key for key in keys if key[2]])
    left.set(xlabel='attachment (MiB), loopback', xscale='log', yscale='log')
    sizes = sorted({key[2] for key in keys} - {0})
    left.set_xticks(sizes, labels=sizes)
    left.minorticks_off()
    left.yaxis.set_major_formatter('{x:g}')
    draw_lines(benchmark, right, 0, [key for key in keys if key[1:] == (1, 0)])
    right.set(xlabel='round trip time (ms), small message')
    right.set_ylim(bottom=0)
    right.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(path)


# === The command ===========================================================

def read_options(arguments):
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition('\n')[0])
    parser.add_argument('--quick', action='store_true',
                        help='fewer and shorter runs, under a minute')
    parser.add_argument('--runs', type=int, metavar='N',
                        help='runs of each kind (5, with --quick 3)')
    parser.add_argument('--only', metavar='NAMES', help='some clients only, '
                        'for example "smtp.py,curl"')
    parser.add_argument('--delay', choices=list(DELAYS),
                        help='the kind of delay (the best that works)')
    parser.add_argument('--markdown', action='store_true',
                        help='print the tables in Markdown')
    parser.add_argument('--plot', metavar='FILE',
                        help='draw the times into this SVG or PNG file')
    parser.add_argument('--node-path', metavar='FOLDER', help='the '
                        'node_modules that holds nodemailer ($NODE_PATH)',
                        default=os.environ.get('NODE_PATH', ''))
    parser.add_argument('--smtp', metavar='FILE', help='the smtp.py to '
                        'measure', default=str(
                            pathlib.Path(__file__).parents[1] / 'smtp.py'))
    options = parser.parse_args(arguments)
    if options.plot and not importlib.util.find_spec('matplotlib'):
        parser.error('--plot needs matplotlib: pip install matplotlib')
    options.smtp, options.node_path = (
        os.path.abspath(path) if path else ''
        for path in (options.smtp, options.node_path))
    options.runs = options.runs or (3 if options.quick else 5)
    return options


def main(arguments=None):
    """Measures and reports."""
    options = read_options(arguments)
    # A stop by kill cleans up as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    clients = [Client('smtp.py', PYTHON, lambda mail: [
        options.smtp, *benchmark_clients.smtp_py(mail)], ['-V'])]
    clients += benchmark_clients.CLIENTS
    if options.only:
        clients = [client for client in clients
                   if client.name in options.only.split(',')]
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        authority = trustme.CA()
        for name, each in (('authority.pem', authority),
                           ('foreign.pem', trustme.CA())):
            each.cert_pem.write_to_path(os.path.join(folder, name))
        network = Network(folder, authority, options.delay)
        stack.callback(network.close)
        benchmark = Benchmark(options, folder, network, clients)
        measure_all(benchmark, options.quick, options.runs)
        report(benchmark, network.kind, options.markdown)
        if options.plot:
            plot(benchmark, options.plot)


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
