"""Outputs that are closed, full, or read by nobody: the exit code is true."""

import os
import pathlib
import re
import subprocess
import sys
from typing import Dict, List, Optional

import conftest
import practice_server
import pytest
from calling import (
    BASIC,
    MAIL,
    POSIX,
    SECRET,
    Call,
    Done,
    no_mishap,
    not_sent,
    text_of,
)


@POSIX
@pytest.mark.parametrize('shell', ['>&-', '> /dev/full'])
def test_sent_without_standard_output(start: Call, session: List[str],
                                      server: practice_server.PracticeServer,
                                      shell: str) -> None:
    """It is sent, and where the verdict cannot go, standard error takes it."""
    if 'full' in shell and not os.path.exists('/dev/full'):
        pytest.skip('this system has no /dev/full')
    done = start(*MAIL, *session, shell=shell, env={'SMTP_PASSWORD': SECRET})
    assert done.code == 0, done.errors
    assert re.match('Sent to bob@example.org: 250 ', done.errors)
    no_mishap(done)
    assert len(server.messages) == 1


@POSIX
@pytest.mark.parametrize('args', [
    ['-n', *MAIL], ['--timezones'], ['--version'], ['--help']],
    ids=lambda args: args[0])
@pytest.mark.parametrize('shell', ['>&-', '> /dev/full'])
def test_printed_to_nowhere(start: Call, args: List[str], shell: str) -> None:
    """No traceback, and for the message itself: no success either."""
    if 'full' in shell and not os.path.exists('/dev/full'):
        pytest.skip('this system has no /dev/full')
    done = start(*args, shell=shell)
    no_mishap(done)
    if args[0] == '-n':
        assert done.code not in (0, 1, 120), done


@POSIX
def test_a_reader_that_has_gone(tmp_path: pathlib.Path,
                                clean_environment: Dict[str, str]) -> None:
    """As in `smtp.py -n ... | head -1`."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, str(conftest.PROGRAM), '-n', *MAIL],
        stdin=subprocess.DEVNULL, stdout=write_end, stderr=subprocess.PIPE,
        env=clean_environment, cwd=str(tmp_path), timeout=30)
    os.close(write_end)
    no_mishap(Done(done.returncode, b'', done.stderr.decode()))
    assert done.returncode not in (1, 120)


@POSIX
def test_nobody_reads_the_list_of_zones(tmp_path: pathlib.Path,
                                        clean_environment: Dict[str, str]
                                        ) -> None:
    """As in `smtp.py --timezones | head -1`: there is nothing to complain."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, str(conftest.PROGRAM), '--timezones'],
        stdin=subprocess.DEVNULL, stdout=write_end, stderr=subprocess.PIPE,
        env=clean_environment, cwd=str(tmp_path), timeout=30)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (0, b'')


@POSIX
@pytest.mark.parametrize('last', [
    None, 'S: 220', 'C: MAIL', 'C: DATA', 'S: 354', 'C: .', 'C: QUIT'])
def test_nobody_reads_the_transcript(
        last: Optional[str], session: List[str], tmp_path: pathlib.Path,
        server: practice_server.PracticeServer,
        clean_environment: Dict[str, str]) -> None:
    """As in `smtp.py -v ... 2>&1 | head`: the exit code is true all the same.

    The reader goes away after this line; where the program is by then is a
    matter of chance.
    """
    process = subprocess.Popen(
        [sys.executable, str(conftest.PROGRAM), *MAIL, *session, '-v'],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, cwd=str(tmp_path),
        env={**clean_environment, 'SMTP_PASSWORD': SECRET})
    assert process.stderr
    with process.stderr:
        for line in process.stderr if last else ():
            if line.decode().startswith(last or ''):
                break
    try:
        code = process.wait(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert code in ((0, 74) if server.messages else (69, 74, 75))


@POSIX
@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no /dev/full')
def test_no_room_for_the_transcript(
        start: Call, session: List[str],
        server: practice_server.PracticeServer) -> None:
    """The same when it goes to a disk that is full."""
    done = start(*MAIL, *session, '-v', shell='2> /dev/full',
                 env={'SMTP_PASSWORD': SECRET})
    assert done.code in ((0, 74) if server.messages else (69, 74, 75))


@POSIX
@pytest.mark.parametrize('args, code', [
    (['-n', *MAIL], 0), (['-n', *MAIL, '-t', 'nobody'], 65),
    (['--no-such-option'], 64)], ids=['fine', 'address', 'usage'])
@pytest.mark.parametrize('shell', ['2>&-', '2> /dev/full'])
def test_nowhere_for_errors(start: Call, args: List[str], code: int,
                            shell: str) -> None:
    """The exit code is still right."""
    if 'full' in shell and not os.path.exists('/dev/full'):
        pytest.skip('this system has no /dev/full')
    assert start(*args, shell=shell).code == code


@POSIX
def test_standard_input_closed(start: Call) -> None:
    """The text is empty; nobody can be asked."""
    assert text_of(start('-n', *BASIC, shell='<&-')) == ''
    not_sent(start('-n', shell='<&-'), 64, '--from')
    not_sent(start('-n', '--message', '-', shell='<&-'), 65, 'From')


def test_a_diagram_that_cannot_be_written(
        call: Call, session: List[str],
        server: practice_server.PracticeServer) -> None:
    """The verdict is true all the same."""
    done = call(*MAIL, *session, '--diagram', 'no-such-folder/x',
                password=SECRET)
    no_mishap(done)
    assert (done.code, len(server.messages)) == (0, 1)
    assert done.output.startswith(b'Sent to ')
