"""Unsent text: what is sent in vain here, and what has to be left of it.

The last line that smtp.py prints is a command. Here a shell runs it, as it
stands there, and then it counts who has got the message: the same people,
once.
"""

import os
import pathlib
import re
import stat
import subprocess
from typing import Any, List

import pytest
from at_terminal import PATIENCE
from posting import ALICE, BOB, CAROL, HIDDEN, PASSWORD, Post

TEXT = 'Hello Bob,\n\n.\nlunch?\n'
FINISHED = (
    b'From: Alice <alice@example.com>\r\nTo: bob@example.org\r\n'
    b'Cc: carol@example.org\r\nBcc: hidden@example.net,\r\n "D." '
    b'<desk@example.net>\r\nSubject: Lunch\r\n'
    b'Date: Mon, 23 Nov 2026 12:00:00 +0100\r\nMessage-ID: <1@example.com>\r\n'
    b'\r\nGr\xfc\xdfe,\r\n.\r\nthe last line\r\n')
PEOPLE = [BOB, CAROL, HIDDEN, 'desk@example.net']


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """The current folder of smtp.py, empty."""
    path = tmp_path / 'folder'
    path.mkdir()
    return path


def mail(post: Post, *options: str) -> List[str]:
    """Return the options for a mail to four people."""
    return [*post.options, '--from', f'Alice Ünal <{ALICE}>', '--to',
            f'"Bob, B." <{BOB}>', '--cc', CAROL, '--bcc',
            f'{HIDDEN}, Desk <desk@example.net>', '--subject', 'Grüße',
            *options]


def kept(folder: pathlib.Path) -> pathlib.Path:
    """Return the one file that was kept in a folder."""
    path, = folder.iterdir()
    assert path.name.startswith('unsent-')
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.is_file() and not path.is_symlink()
    return path


def command_of(errors: str, folder: pathlib.Path) -> str:
    """Return the last line, which has to be the command for the kept file."""
    command = errors.rstrip('\n').replace('\r', '').split('\n')[-1]
    assert kept(folder).name in command
    return command


def run_in_shell(command: str, folder: pathlib.Path,
                 **env: str) -> 'subprocess.CompletedProcess[str]':
    """Run a command as a person would who copies it."""
    return subprocess.run(
        ['sh', '-c', command], cwd=folder, stdin=subprocess.DEVNULL,
        env={'PATH': os.environ.get('PATH', os.defpath), 'LC_ALL': 'C.UTF-8',
             **(env or {'SMTP_PASSWORD': PASSWORD})},
        capture_output=True, encoding='utf-8', timeout=PATIENCE)


def assert_sends(errors: str, folder: pathlib.Path, post: Post,
                 people: List[str], **env: str) -> Any:
    """The command sends what was kept to these people, once; return it."""
    command = command_of(errors, folder)
    content = kept(folder).read_bytes()
    post.accept()
    done = run_in_shell(command, folder, **env)
    errors = re.sub('(?m)^smtp.py: note: .*\n', '', done.stderr)
    assert (done.returncode, errors) == (0, '')
    received = post.only()
    assert sorted(received.recipients) == sorted(people)
    assert not re.search(rb'(?im)^(resent-)?bcc', received.content)
    assert kept(folder).read_bytes() == content
    return received


def text_of(received: Any) -> str:
    """Return the text of a message, with its line ends as typed."""
    body = received.parse().get_body(('plain',))
    return str(body.get_content()).replace('\r\n', '\n')


def what_is_left(errors: str, folder: pathlib.Path) -> bytes:
    """Return the kept file that is named in the errors, else the errors."""
    for name in re.findall(r'[^\s\'"]*unsent-[\w.-]+\w', errors):
        path = folder / name
        if path.is_file() and not path.is_symlink() and path.stat().st_size:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            return path.read_bytes()
    return errors.encode()
