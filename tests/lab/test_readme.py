"""Every command of the README works; a practice server is the provider."""

import functools
import re
import shlex
import subprocess
import sys

import pytest

import smtp
from support import checks, cli
from support.post import ALICE

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


def test_all_are_known():
    """No line is left out: each is run below, or by CI as it stands."""
    ci = (cli.ROOT / '.ci' / 'run').read_text('utf-8')
    assert len(LINES) > 20 and len(SMTP) > 10 and len(RUN) > 5
    for line in set(LINES) - set(SMTP) - set(RUN):
        assert re.search(r'--step$|--serve$|^keyring', line) or line in ci
    for kind, block in BLOCKS:      # a comment would be an argument in zsh
        assert kind not in ('sh', 'powershell') or ' #' not in block
    assert len(README.split('\n')) <= 221


@pytest.mark.parametrize('line', SMTP)
def test_smtp(line, folder, call, closed_port):
    """smtp.py understands it: it prints the message, or tries to connect."""
    for name in 'menu.pdf', 'letter.txt', 'letter.html', 'mail.eml':
        (folder / name).write_text(
            'From: you@example.com\nTo: bob@example.org\n\nHello')
    env, command = re.fullmatch(
        r'(?:.* \| |((?:\w+=(?:\$\(.*\)|\S+) )*))python3 smtp\.py ?(.*)',
        line).groups()
    options = shlex.split(command)
    connects = not options or '--check' in options
    result = call(*options, *(
        ['-p', str(closed_port), '--server', 'localhost'] if connects
        else ['-n']), password='x', stdin=b'Hello', env=dict(
            re.findall(r'(SMTP_(?:SERVER|FROM))=(\S+)', env or '')))
    if not {'-s', '--subject', '--message', '--check'} & set(options):
        checks.check(result, checks.USAGE, 'is missing')    # it would ask
    elif connects:
        checks.check(result, checks.LATER, 'no connection')
    else:
        assert result.code == 0, result.err
        assert b'\r\n\r\n' in result.out


@pytest.mark.parametrize('line', RUN)
def test_run(line, folder):
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


def test_from_python(folder, post, capsys, monkeypatch):
    """The example sends; the practice server stands for the provider."""
    send = functools.partial(smtp.smtp_send, **post.session, user=ALICE)
    monkeypatch.setattr(smtp, 'smtp_send', lambda password, *args, **more:
                        send('open-sesame', *args, **more))
    monkeypatch.chdir(folder)
    (folder / 'menu.pdf').write_bytes(b'%PDF')
    exec(dict(BLOCKS)['python'], {})
    assert capsys.readouterr().out.startswith('Sent to bob@example.org: 250')
    assert b'hello.txt' in post.only().content
