"""The verdict is the last word, and the exit code goes with it.

Where the verdict goes when an output is closed or full is in
test_output_streams.py; each fault of a server in test_hostile.py.
"""

import pathlib
import re
from typing import Any, List, Optional

import practice_server
import pytest
import reading
from calling import MAIL, SECRET, Call, not_sent


def test_the_verdict_of_success(
        call: Call, session: List[str],
        server: practice_server.PracticeServer) -> None:
    """One line on standard output, and nothing else anywhere."""
    done = call(*MAIL, *session, password=SECRET)
    assert (done.code, done.errors) == (0, '')
    content = server.messages[0].content
    message_id, = reading.fields(content, 'Message-ID')
    assert re.fullmatch(
        r'Sent to bob@example\.org: 250 2\.0\.0 OK .* queued '
        rf'\(Message-ID {re.escape(message_id)}\)\r?\n', done.output.decode())


def test_interrupted(call: Call, lookup: Any) -> None:
    """130 for Ctrl-C."""
    lookup(KeyboardInterrupt())
    not_sent(call(*MAIL, password=SECRET), 130, 'interrupted')


def test_a_bug_of_ours(call: Call, lookup: Any) -> None:
    """70, with a verdict all the same."""
    lookup(RuntimeError('the lookup is broken'))
    done = call(*MAIL, password=SECRET)
    assert done.code == 70
    assert 'smtp.py: Not sent: ' in done.errors


@pytest.mark.parametrize('content', [None, b'', b'no certificate', b'\xff'])
def test_settings_that_are_at_fault(
        call: Call, content: Optional[bytes], tmp_path: pathlib.Path,
        session: List[str], server: practice_server.PracticeServer) -> None:
    """A CA file that is missing or none: 66, as for any other file."""
    path = tmp_path / 'ca.pem'
    if content is not None:
        path.write_bytes(content)
    done = call(*MAIL, *session, '--ca-file', str(path), password=SECRET)
    not_sent(done, 66, 'ca.pem')
    assert not server.messages
