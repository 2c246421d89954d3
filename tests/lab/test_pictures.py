"""The pictures of the README: a session that is true, and drawn sessions."""

import pathlib
import subprocess
import sys
import xml.etree.ElementTree

import pytest
from pictures import draw_diagram, draw_session

DIALOGUES = sorted(pathlib.Path(draw_diagram.__file__).parent.parent.glob(
    'dialogues/**/*.txt'))
TRANSCRIPT = r'''
S: 220-mail.example.com ESMTP   # 12 ms
S: 220 a "quote"; {and} more
C: STARTTLS
-- TLS begins: TLSv1.3, TLS_AES_256_GCM_SHA384
-- certificate for mail.example.com
C: AUTH LOGIN YWxpY2U=   # alice
S: 354 Go on
C: Subject: S: 250 not a reply
C:
C: ..
C: .
S: 554 No
smtp.py: Not sent: the server refused the message.
  S: 554 No
'''
DIAGRAM = '''sequenceDiagram
    participant C as Client
    participant S as Server
    S-->>C: 220-mail.example.com ESMTP
    S-->>C: 220 a #34;quote#34;#59; #123;and#125; more
    C->>S: STARTTLS
    rect rgb(128, 192, 128, 0.2)
    note over C,S: TLS begins: TLSv1.3, TLS_AES_256_GCM_SHA384
    C->>S: AUTH LOGIN YWxpY2U=
    S-->>C: 354 Go on
    C->>S: (the message)
    C->>S: .
    S-->>C: 554 No
    end
'''


@pytest.mark.parametrize('code, arguments', [
    (0, ['session.txt']), (1, []), (1, ['--help']), (1, ['a', 'b'])])
def test_a_transcript_is_drawn(code, arguments, tmp_path):
    """Each line is an arrow, but the message is one; or it gives the usage."""
    (tmp_path / 'session.txt').write_text(TRANSCRIPT, encoding='utf-8')
    done = subprocess.run([sys.executable, draw_diagram.__file__, *arguments],
                          capture_output=True, timeout=20, cwd=tmp_path,
                          encoding='utf-8')
    assert (done.returncode, done.stdout) == (code, '' if code else DIAGRAM)
    assert bool(code) == ('session.txt' in done.stderr)


def test_every_dialogue_can_be_drawn():
    """An arrow for each reply, and one `end` for each background."""
    for path in DIALOGUES:
        lines = path.read_text(encoding='utf-8').splitlines()
        drawn = draw_diagram.draw(lines).splitlines()
        assert sum(line.startswith('S:') for line in lines) == sum(
            line.startswith('    S-->>C: ') for line in drawn), path
        assert drawn.count('    end') == sum(
            line.startswith('    rect ') for line in drawn), path


def test_the_session_is_true(tmp_path, monkeypatch):
    """Else: python tests/pictures/draw_session.py; it loads nothing."""
    assert draw_session.is_fresh()
    picture = draw_session.PICTURE.read_text(encoding='utf-8')
    assert xml.etree.ElementTree.fromstring(picture).get('viewBox')
    assert picture.replace('http://www.w3.org/2000/svg', '').count('//') == 0
    monkeypatch.setattr(draw_session, 'PICTURE', tmp_path / 'session.svg')
    draw_session.PICTURE.write_text(picture.replace('235', '236'),
                                    encoding='utf-8')
    assert not draw_session.is_fresh()
