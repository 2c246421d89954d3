"""Every command of the README works as it is written there.

What needs an account goes to the practice server, or prints the message; the
set-up of a virtual environment is run by CI, in a fresh clone.
"""

from __future__ import annotations

import pathlib
import re
import shlex
import subprocess
import sys
from typing import Any, Callable

import pytest

import smtp
from support import checks, cli

README = (cli.ROOT / 'README.md').read_text('utf-8')
BLOCKS = re.findall(r'(?ms)^ *```(\w+)\n(.*?)\n *```$', README)
LINES = [line.strip() for kind, block in BLOCKS if kind == 'sh'
         for line in block.split('\n')]
PYTHON = '.venv/bin/python '
# Run by CI, or by other tests: -m venv, pip, pytest; a terminal, a server.
ELSEWHERE = r' -m (pip|pytest) |venv \.venv$|--step$|--serve$|^keyring set '
SMTP = [line for line in LINES if 'smtp.py ' in line + ' '
        and not line.startswith('git')]
RUN = [line for line in LINES if line not in SMTP
       and not re.search(ELSEWHERE, line)]


def test_all_are_known() -> None:
    """No line is left out: each is run below, or by CI as it stands."""
    ci = (cli.ROOT / '.ci' / 'run').read_text('utf-8')
    assert len(LINES) > 20 and len(SMTP) > 10 and len(RUN) > 5
    for line in set(LINES) - set(SMTP) - set(RUN):
        assert re.search(r'--step$|--serve$|^keyring', line) or line in ci
    for kind, block in BLOCKS:      # a comment would be an argument in zsh
        assert kind not in ('sh', 'powershell') or ' #' not in block
    assert len(README.split('\n')) <= 221


@pytest.mark.parametrize('line', SMTP)
def test_smtp(line: str, folder: pathlib.Path, call: Any, closed_port: int
              ) -> None:
    """smtp.py understands it: the message is printed, or it tries to connect.

    The closed port stands for the provider.
    """
    for name in ('menu.pdf', 'letter.txt', 'letter.html'):
        (folder / name).write_text('Hello')
    (folder / 'mail.eml').write_text('From: you@example.com\n'
                                     'To: bob@example.org\n\nHello')
    env, command = re.fullmatch(
        r'(?:.* \| |((?:\w+=(?:\$\(.*\)|\S+) )*))python3 smtp\.py ?(.*)',
        line).groups()      # type: ignore[union-attr]
    options = shlex.split(command)
    settings = dict(re.findall(r'(SMTP_(?:SERVER|FROM))=(\S+)', env or ''))
    result = call('-n', *options, stdin=b'Hello', env=settings) \
        if '--check' not in options and command else call(
            *options, '-p', str(closed_port), '--server', 'localhost',
            password='x', stdin=b'Hello', env=settings)
    if not command or '-s' not in options and '--subject' not in options \
            and '--message' not in options and '--check' not in options:
        checks.check(result, checks.USAGE, 'is missing')    # it would ask
    elif '--check' in options:
        checks.check(result, checks.LATER, 'no connection')
    else:
        assert result.code == 0, result.err
        assert b'\r\n\r\n' in result.out


@pytest.mark.parametrize('line', RUN)
def test_run(line: str, folder: pathlib.Path) -> None:
    """It does what it says, in a folder that looks like the repository."""
    for name in ('smtp.py', 'tests'):
        (folder / name).symlink_to(cli.ROOT / name)
    if 'session.txt' in line and '>' not in line:
        (folder / 'session.txt').write_text('S: 220 hello\nC: QUIT\n')
    if line.startswith('git '):
        subprocess.run(['git', 'init', '-q'], cwd=folder, check=True)
    python = shlex.quote(sys.executable) + ' '
    done = subprocess.run(
        re.sub(f'^({re.escape(PYTHON)}|python3 )', lambda _: python, line),
        shell=True, cwd=folder, stdin=subprocess.DEVNULL, timeout=50,
        capture_output=True, env=cli.clean(), encoding='utf-8')
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout or '>' in line or line.startswith('git ')


def test_from_python(folder: pathlib.Path, post: Any, capsys: Any,
                     monkeypatch: pytest.MonkeyPatch) -> None:
    """The example sends; the practice server stands for the provider."""
    send: Callable[..., Any] = smtp.smtp_send
    monkeypatch.setattr(smtp, 'smtp_send', lambda password, *args, **more:
                        send('open-sesame', *args, **more, **post.session,
                             user='alice@example.com'))
    monkeypatch.chdir(folder)
    (folder / 'menu.pdf').write_bytes(b'%PDF')
    exec(dict(BLOCKS)['python'], {})
    assert capsys.readouterr().out.startswith('Sent to bob@example.org: 250')
    assert b'hello.txt' in post.only().content
