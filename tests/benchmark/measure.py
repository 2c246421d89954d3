"""How the benchmark measures: one run, runs in turns, and their ratios."""

import collections
import email
import email.policy
import math
import os
import pathlib
import queue
import statistics
import subprocess
import sys
from typing import NamedTuple

from .clients import SMTP, SUBJECT, Mail, encode
from .network import PASSWORD

# A child's peak memory begins with that of the process that started it, so a
# launcher as small as Python gets starts each client.
LAUNCHER = """
import os, sys, time
begin = time.perf_counter()
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
status, usage = os.wait4(child, 0)[1:]
print('', time.perf_counter() - begin, usage.ru_utime + usage.ru_stime,
      usage.ru_maxrss, status, sep='\\n')
"""
UNITS_PER_MIB = 1 << 20 if sys.platform == 'darwin' else 1 << 10


class Case(NamedTuple):
    """What is sent, and how far: ms, number of recipients, MiB, text."""

    rtt: int = 0
    recipients: int = 1
    size: float = 0
    text: bytes = b'Hello Bob,\nthis is a test.\n'
    times: int = 8

    def __str__(self):
        """Return what differs from a small message without delay."""
        return ', '.join(f'{name} {value}' for name, value
                         in self._asdict().items()
                         if value != self._field_defaults[name]) or 'small'


class Run(NamedTuple):
    """What one run took: ms, ms, MiB, and round trips where delayed."""

    wall: float
    cpu: float
    memory: float
    trips: int = 0


class Failed(Exception):
    """A client did not do its work."""


def launch(arguments, folder, stdin=os.devnull):
    """Run a program in a clean environment; return a Run or raise Failed."""
    environment = {'PATH': os.environ['PATH'], 'HOME': str(folder),
                   'NODE_PATH': os.environ.get('NODE_PATH', ''),
                   'LC_ALL': 'C.UTF-8', 'SMTP_PASSWORD': 'wonderland'}
    with open(stdin, 'rb') as source:
        done = subprocess.run(
            [sys.executable, '-I', '-S', '-c', LAUNCHER, *arguments],
            stdin=source, capture_output=True, cwd=folder, env=environment,
            timeout=600)
    if done.returncode:
        raise Failed('not installed')
    wall, cpu, memory, status = map(float, done.stdout.split()[-4:])
    if status:
        raise Failed(done.stderr.decode(errors='replace').strip()[-200:])
    return Run(1000 * wall, 1000 * cpu, memory / UNITS_PER_MIB)


def check(mail, seen, message):
    """Raise Failed unless the whole mail arrived, after TLS and login."""
    if not seen[b'STARTTLS'] or not seen[PASSWORD] or (
            seen[b'RCPT'] != len(mail.recipients)):
        raise Failed(f'did not do the same work: {seen}')
    encoded = encode(mail.attachment)
    start = message.find(encoded[:76])
    if message[start:start + len(encoded)] != encoded:
        raise Failed('the attachment did not arrive')
    del message[start:start + len(encoded)]
    parsed = email.message_from_bytes(message, policy=email.policy.default)
    text = parsed.get_body().get_content().replace('\r\n', '\n')
    if parsed['Subject'] != SUBJECT or (
            text.rstrip() != pathlib.Path(mail.text).read_text().rstrip()):
        raise Failed('subject and text did not arrive')


class Bench:
    """Measures, and remembers: results[case, client] is a list of Runs."""

    def __init__(self, folder, network, clients):
        """Prepare, and leave out the clients that do not work here."""
        self.folder, self.network = folder, network
        self.results = collections.defaultdict(list)
        self.mails, self.notes = {}, []
        self.clients = {each.name: each for each in clients
                        if self.works(each)}

    def mail(self, case):
        """Return the Mail for a case; it is prepared once."""
        if case not in self.mails:
            text = self.folder / f'text{len(self.mails)}'
            text.write_bytes(case.text * case.times)
            data = pathlib.Path(f'{text}.bin')
            data.write_bytes(os.urandom(int(case.size * (1 << 20))))
            self.mails[case] = Mail(
                *(self.network.far if case.rtt else self.network.near),
                str(self.folder / 'authority.pem'),
                [f'r{n}@example.com' for n in range(case.recipients)],
                str(text), str(data) if case.size else '')
        return self.mails[case]

    def send(self, client, mail, rtt=0):
        """Let a client send a mail; return the Run and what was seen."""
        arguments = client.arguments(mail, self.folder / 'script')
        self.network.rtt = rtt / 1000
        run = launch(arguments, self.folder, client.stdin.format(mail=mail))
        try:
            seen, message = self.network.session()
        except queue.Empty:
            raise Failed('sent nothing') from None
        check(mail, seen, message)
        return run._replace(trips=self.network.trips if rtt else 0), seen

    def works(self, client):
        """Return whether a client is here and works; note what is odd."""
        mail = self.mail(Case(recipients=2, size=0.01))
        try:
            seen = self.send(client, mail)[1]
        except Failed as failure:
            self.notes.append(f'{client.name}: left out: {failure}')
            return False
        notes = [client.note, '' if seen[b'QUIT'] else 'hangs up without QUIT']
        self.notes += [f'{client.name}: {note}' for note in notes if note]
        return True

    def measure(self, rounds, cases, names):
        """Send each case with each client named that works, in turns."""
        self.take_turns(rounds, {
            (case, name): lambda case=case, name=name: self.send(
                self.clients[name], self.mail(case), case.rtt)[0]
            for case in cases for name in names if name in self.clients})

    def take_turns(self, rounds, actions):
        """Run each action once a round; after 10 s in all it has no more."""
        for _ in range(rounds):
            for key in list(actions):
                try:
                    self.results[key].append(actions[key]())
                except Failed as failure:
                    self.notes.append(f'{key} failed: {failure}')
                    del actions[key]
                    continue
                if sum(run.wall for run in self.results[key]) > 10_000:
                    del actions[key]

    def get(self, case, name=SMTP, field='wall', middle=statistics.median):
        """Return the median of what was measured, or nan."""
        values = [getattr(run, field) for run in self.results[case, name]]
        return middle(values) if values else math.nan

    def ratio(self, case, peer, field='wall'):
        """Return the median of smtp.py's ratios to a peer, or nan."""
        ratios = [getattr(ours, field) / getattr(theirs, field)
                  for ours, theirs in zip(self.results[case, SMTP],
                                          self.results[case, peer])]
        return statistics.median(ratios) if ratios else math.nan

    def growth(self, less, more):
        """Return how many times more CPU time more takes, start-up aside."""
        start, first, second = (self.get(case, field='cpu', middle=min)
                                for case in (Case(), less, more))
        return (second - start) / max(first - start, 1)
