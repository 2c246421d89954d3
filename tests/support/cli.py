r"""The one caller of smtp.py: in this process, as a process, at a terminal.

`call` runs `smtp.main` here and now, in a tenth of the time of a process;
`run` and `start` are real processes without a terminal, for what depends on
the surroundings. Only this file and judges.py may know more of smtp.py than
its command line and its documented library.
"""

import contextlib
import dataclasses
import io
import os
import pathlib
import re
import shlex
import subprocess
import sys
import threading
import time
from unittest import mock

import pytest

import smtp

try:
    import pexpect
except ImportError:
    pexpect = None

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / 'smtp.py'
PATIENCE = 10   # seconds for smtp.py to do what it has to do next
INHERITED = ('PATH', 'SYSTEMROOT', 'TEMP', 'USERPROFILE',
             'COVERAGE_PROCESS_START', 'PYTEST_CURRENT_TEST')
VERDICT = re.compile(r'(?m)^(?:smtp\.py: (?:Not|May have been) sent: |Sent to '
                     r'|(?:Connection|Login) accepted: )')
ADVICE = re.compile(r'(?m)^(You|Your administrator|Wait): ')


@dataclasses.dataclass
class Result:
    """How smtp.py ended, and what it printed."""

    code: int
    out: bytes
    err: str

    @property
    def text(self):
        """Standard output as text."""
        return self.out.decode('utf-8', 'backslashreplace')

    @property
    def said(self):
        """What standard error has from the verdict on; else all of it."""
        found = VERDICT.search(self.err)
        return self.err[found.start():] if found else self.err

    @property
    def advice(self):
        """What to do, on one line, with who can do it in front; or ''."""
        found = ADVICE.search(self.said)
        return on_one_line(self.said[found.start():].partition(
            '\nYour text is kept')[0]) if found else ''

    @property
    def lines(self):
        """The transcript: what both sides said, without comments."""
        transcript = self.err[:len(self.err) - len(self.said)] or self.err
        return [re.sub(r'(?<=\S) {2,}# .*', '', line)
                for line in transcript.split('\n')
                if re.match('[CS]:( |$)', line)]


def on_one_line(text):
    """Return a text as one line with single spaces."""
    return ' '.join(text.split())


def clean(env=(), home=None, password=None):
    """Return an environment with these variables, and hardly any other."""
    variables = {**{name: os.environ.get(name) for name in INHERITED},
                 'LC_ALL': 'C.UTF-8', 'HOME': home, 'SMTP_PASSWORD': password,
                 **dict(env)}
    return {name: str(value) for name, value in variables.items()
            if value is not None}


def reach(port, ca_file='', timeout=10):
    """Return the options that lead to a server of these tests."""
    return ['--server', 'localhost', '--port', str(port), '--timeout',
            str(timeout), *(['--ca-file', ca_file] if ca_file else [])]


def call(*args, stdin=b'', password=None, env=(), cwd=os.curdir):
    """Call `smtp.main(args)`; `stdin` comes through a pipe."""
    out, err = io.BytesIO(), io.BytesIO()
    stdout = io.TextIOWrapper(out, 'utf-8')
    stderr = io.TextIOWrapper(err, 'utf-8', 'backslashreplace')
    env = clean(env, cwd, password)
    with standard_input(stdin) as source, \
            pytest.MonkeyPatch.context() as patched, \
            mock.patch.dict(os.environ, env, clear=True), \
            mock.patch.multiple(sys, argv=[str(PROGRAM), *args], stdin=source,
                                stdout=stdout, stderr=stderr):
        patched.chdir(cwd)
        try:
            code = smtp.main(list(args))
        except SystemExit as ended:     # --help and the like
            code = ended.code
        stdout.flush()
        stderr.flush()
    return Result(code or 0, out.getvalue(), err.getvalue().decode())


@contextlib.contextmanager
def standard_input(octets):
    """Make a pipe with these octets in it."""
    read, write = os.pipe()

    def feed():
        with contextlib.suppress(BrokenPipeError), open(write, 'wb') as pipe:
            pipe.write(octets)
    thread = threading.Thread(target=feed, daemon=True)
    thread.start()
    with open(read, encoding='utf-8') as source:
        yield source
    thread.join(PATIENCE)


def start(*args, stdin=subprocess.DEVNULL, shell='', password=None, env=(),
          cwd=os.curdir, **more):
    """Start smtp.py without a terminal; `ended` returns its Result.

    `shell` has redirections by a shell, such as '>&- 2>/dev/full'.
    """
    command = [sys.executable, str(PROGRAM), *args]
    if shell:
        command = ['/bin/sh', '-c', f'exec "$0" "$@" {shell}', *command]
    return subprocess.Popen(command, **{
        'stdin': stdin, 'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE,
        'cwd': str(cwd), 'env': clean(env, cwd, password),
        'start_new_session': True, **more})


def ended(process, stdin=None, timeout=30):
    """Wait for the end of a process; it never outlives this."""
    try:
        out, err = process.communicate(stdin, timeout)
    finally:
        process.kill()
        process.wait()
    return Result(process.returncode, out or b'',
                  (err or b'').decode('utf-8', 'backslashreplace'))


def run(*args, stdin=None, timeout=30, **more):
    """Run smtp.py as a process; `stdin` goes through a pipe."""
    if stdin is not None:
        more['stdin'] = subprocess.PIPE
    return ended(start(*args, **more), stdin, timeout)


def waits(process):
    """Return whether a process does nothing but wait (on Linux)."""
    with open(f'/proc/{process}/stat', encoding='utf-8') as file:
        return file.read().rpartition(')')[2].split()[0] == 'S'


def wait_until(condition, what='that'):
    """Wait until something is so; fail if it never is."""
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, f'it never came to {what}'
        time.sleep(0.005)


class Person:
    """Someone at a terminal of 24 lines with smtp.py on it.

    `pipe` is what a shell does with the output, while it shows the exit code
    on the terminal; with `shell` the command line stands in place of its {}.
    """

    def __init__(self, *args, cwd=os.curdir, columns=80, env=(), password=None,
                 pipe='', shell=''):
        """Start the program there."""
        command = [sys.executable, str(PROGRAM), *args]
        if pipe:
            shell = '{{ {}; echo "exit code $?" >/dev/tty; }} ' + pipe
        if shell:
            command = ['/bin/sh', '-c', shell.format(shlex.join(command))]
        self.screen = io.StringIO()
        self.child = pexpect.spawn(
            command[0], command[1:], cwd=str(cwd), encoding='utf-8',
            codec_errors='backslashreplace', timeout=PATIENCE,
            dimensions=(24, columns),
            env=clean({'TERM': 'dumb', **dict(env)}, cwd, password))
        self.child.logfile_read = self.screen
        self.child.delaybeforesend = None   # see types_hidden
        self.child.str_last_chars = 2000    # of the screen, in an error

    @property
    def seen(self):
        """All that was on the screen so far."""
        return self.screen.getvalue().replace('\r\n', '\n')

    def sees(self, pattern):
        """Wait until something new on the screen matches."""
        self.child.expect(pattern)

    def asked(self, question):
        """Wait for a question, at the start of a line."""
        self.sees(rf'(?:\A|[\r\n]){re.escape(question)}[^\r\n]*: ?')

    def enters(self, *lines):
        """Type lines at once."""
        for line in lines:
            self.child.sendline(line)

    def answers(self, question, line):
        """Wait for a question, and answer it."""
        self.asked(question)
        self.enters(line)

    def types_hidden(self, text, question='Password'):
        """Answer a question once the terminal has stopped showing it."""
        self.asked(question)
        assert self.child.waitnoecho(PATIENCE), 'it can be read'
        self.enters(text)

    def is_read(self):
        """Wait until the program has read everything, and waits for more."""
        # A key that comes between a prompt and its reading can get lost.
        import fcntl  # Windows has neither of these
        import termios
        process = self.child.pid
        if not os.path.exists(f'/proc/{process}/stat'):
            pytest.skip('no /proc tells what the program does')
        with open(f'/proc/{process}/fd/0', 'rb', opener=lambda path, _:
                  os.open(path, os.O_RDWR | os.O_NOCTTY)) as terminal:
            wait_until(lambda: waits(process) and not any(fcntl.ioctl(
                terminal, termios.FIONREAD, bytes(4))), 'reading all')

    def ends(self):
        """Wait for the end; all that was seen is in `err`."""
        self.child.expect(pexpect.EOF)
        self.child.close()
        code = self.child.exitstatus
        return Result(-1 if code is None else code, b'', self.seen)
