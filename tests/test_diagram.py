"""--diagram: the session as a picture, and mermaid itself can read it."""

import html
import json
import os
import pathlib
import re
import select
import shutil
import signal
import subprocess
import sys
import tarfile
from typing import Any, Callable, Dict, List, Tuple

import pytest
from at_terminal import PATIENCE, wait_until, waits
from calling import POSIX
from posting import PASSWORD, PROGRAM, Post
from sessions import (
    GREETING,
    LETTER,
    LOGIN,
    OPENING,
    QUIT,
    SESSION,
    Done,
    Play,
    lines_of,
    on_one_line,
)

SECRET = 'correct horse battery staple'


def arrows(drawn: str) -> List[str]:
    """Return the lines of a diagram's arrows, in the transcript's notation."""
    found = re.findall(r'(?m)^\s*([CS])-+>>[CS]: ?(.*)$', drawn)
    return [f'{who}: ' + re.sub(
        '#([0-9]+);', lambda number: chr(int(number[1])), text)
        for who, text in found]


def without_message(lines: List[str]) -> List[str]:
    """Return the lines of a session, those between 354 and the dot aside.

    A picture has room for no more than a hint of the message.
    """
    start = next((number + 1 for number, line in enumerate(lines)
                  if line.startswith('S: 354')), len(lines))
    end = lines.index('C: .', start) if start < len(lines) else start
    return [on_one_line(line) for line in lines[:start] + lines[end:]]


def test_diagram_shows_what_the_transcript_shows(play: Play) -> None:
    """Client, server, and a box where TLS protects the rest."""
    done, _ = play(SESSION, '-v', '--diagram', 'session.mmd', *LETTER,
                   password='open sesame')
    drawn = pathlib.Path('session.mmd').read_text(encoding='utf-8')
    assert drawn.startswith('sequenceDiagram\n')
    assert without_message(arrows(drawn)) \
        == without_message(lines_of(done.stderr))
    assert len(arrows(drawn)) > len(without_message(arrows(drawn)))
    begin = re.search(r'(?m)^ *(rect|box)\b', drawn)
    assert begin
    in_clear = arrows(drawn[:begin.start()])
    assert in_clear[-1].startswith('S: 220 2.0.0 Ready')
    assert re.fullmatch(r'\s+end', drawn.rstrip().split('\n')[-1])


def test_diagram_does_not_depend_on_the_transcript(play: Play) -> None:
    """It is the session that just ran, whatever was shown of it."""
    drawn = []
    for options in [], ['-v']:
        play(SESSION, *options, '--diagram', 'session.mmd', *LETTER,
             '-H', 'X-Test: 1', password='open sesame')
        drawn.append([line for line in arrows(
            pathlib.Path('session.mmd').read_text(encoding='utf-8'))
            if not re.match('C: (Date|Message-ID):', line)])
    assert drawn[0] == drawn[1]


def test_diagram_of_a_session_that_failed(play: Play) -> None:
    """This is when one needs it most."""
    done, _ = play(OPENING + LOGIN.replace('235 2.7.0 Welcome', '535 no')
                   + QUIT, '--diagram', 'session.mmd', *LETTER,
                   password='open sesame')
    assert done.returncode == 77
    drawn = pathlib.Path('session.mmd').read_text(encoding='utf-8')
    assert arrows(drawn)[-2:] == ['C: QUIT', 'S: 221 2.0.0 Bye']


def test_diagram_that_cannot_be_written(play: Play, tmp_path: pathlib.Path
                                        ) -> None:
    """The mail is sent all the same; a note says what is missing."""
    path = tmp_path / 'missing' / 'session.mmd'
    done, _ = play(SESSION, '--diagram', str(path), *LETTER,
                   password='open sesame')
    assert done.returncode == 0
    assert done.stdout.startswith('Sent to ')
    assert re.fullmatch(
        rf'smtp\.py: note: .*diagram.* {re.escape(str(path))}: .*\n',
        done.stderr)


@POSIX
@pytest.mark.skipif(not os.path.exists('/proc/self/stat'), reason='no /proc')
def test_diagram_that_nobody_reads(post: Post, tmp_path: pathlib.Path,
                                   clean_environment: Dict[str, str]) -> None:
    """A FIFO waits for a reader; the verdict does not, and Ctrl-C ends it."""
    os.mkfifo(tmp_path / 'fifo')
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), *post.options, *LETTER,
         '--diagram', 'fifo'], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path,
        env={**clean_environment, 'SMTP_PASSWORD': PASSWORD})
    try:
        assert select.select([process.stdout], [], [], PATIENCE)[0]
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b'Sent to bob@')
        wait_until(lambda: waits(f'/proc/{process.pid}'))
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, output, errors) == (0, b'', b'')
    post.only()


NODE = """
import fs from 'fs';
// The parser cleans texts with DOMPurify, which wants a browser's window; with
// this one it finds nothing that it supports, and leaves texts as they are.
globalThis.window = {
  document: {nodeType: 9, implementation: {}, createElement: () => ({})},
  Element: class {}, DocumentFragment: class {}};
const {default: mermaid} = await import(
  './package/dist/mermaid.esm.min.mjs');
const results = [];
for (const path of process.argv.slice(2)) {
  const text = fs.readFileSync(path, 'utf8');
  await mermaid.parse(text);
  const diagram = await mermaid.mermaidAPI.getDiagramFromText(text);
  results.push({type: diagram.type, messages: diagram.db.getMessages()});
}
console.log(JSON.stringify(results));
"""
SPECIAL = ('#hash; &amp; "quoted" \'single\' <tag> <br/> %% {braces} -->> '
           '[x] (y) $1 `z` \\n ~ end é 你 #9829; # a;')


@pytest.fixture
def parse_with_mermaid(tmp_path: pathlib.Path
                       ) -> Callable[..., List[Dict[str, Any]]]:
    """A function that reads diagrams with mermaid's own parser, from npm."""
    def need(condition: Any, reason: str) -> None:
        if condition:
            return
        if os.environ.get('SMTP_TEST_REAL_SERVERS') == 'required':
            pytest.fail(f"mermaid's parser is required, but {reason}")
        pytest.skip(f"no parser of mermaid's: {reason}")

    node, npm = shutil.which('node'), shutil.which('npm')
    need(node and npm, 'node and npm are missing')
    assert node and npm
    try:
        packed = subprocess.run(
            [npm, 'pack', 'mermaid@11', '--loglevel=error',
             '--fetch-retries=0', '--cache', str(tmp_path / 'cache')],
            cwd=tmp_path, timeout=25, capture_output=True, text=True)
    except subprocess.TimeoutExpired:
        need(False, 'npm does not get it in 25 seconds')
    need(packed.returncode == 0, f'npm says: {packed.stderr[-500:]}')
    with tarfile.open(next(tmp_path.glob('mermaid-*.tgz'))) as archive:
        for member in archive:
            packed_file = archive.extractfile(member)
            if packed_file and re.fullmatch(
                    r'package/dist/(chunks/)?mermaid\.esm\.min(/[\w.-]+)?'
                    r'\.mjs', member.name):
                path = tmp_path / member.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(packed_file.read())
    (tmp_path / 'parse.mjs').write_text(NODE, encoding='utf-8')

    def parse(*paths: pathlib.Path) -> List[Dict[str, Any]]:
        done = subprocess.run(
            [node, 'parse.mjs', *map(str, paths)], cwd=tmp_path, timeout=60,
            capture_output=True, text=True, encoding='utf-8')
        assert done.returncode == 0, done.stderr[-2000:]
        results: List[Dict[str, Any]] = json.loads(done.stdout)
        return results
    return parse


def as_rendered(text: str) -> str:
    """Return a text of the parser's as the picture has it."""
    # Inside, mermaid writes '#35;' as 'ﬂ°°35¶ß'. The text goes into the SVG,
    # and there these become character references.
    svg = html.escape(text, quote=False)
    svg = svg.replace('ﬂ°°', '&#').replace('ﬂ°', '&').replace('¶ß', ';')
    return html.unescape(svg)


def test_mermaid_reads_the_diagrams(
        parse_with_mermaid: Callable[..., List[Dict[str, Any]]],
        play: Play, run_main: Callable[..., Done]) -> None:
    """They are valid, and every text in them is what was said."""
    def drawn(name: str, *arguments: str, session: str, **more: Any
              ) -> Tuple[pathlib.Path, List[str]]:
        done, _ = play(session, '-v', '--diagram', name, *arguments, **more)
        return pathlib.Path(name).resolve(), lines_of(done.stderr)

    reply = SPECIAL.replace('\\', '\\\\')
    special = SESSION.replace('Queued as 9F1', reply).replace(
        'Recipient OK', '; end').replace('mail.example.com Hello', 'rect')
    sessions = [
        drawn('special.mmd', *LETTER, '--subject', SPECIAL[:60], '--body',
              f'{SPECIAL}\n.\nend\n\n%%{{init: {{}}}}%%\nNote over C: no\n; x',
              session=special, password=SECRET),
        drawn('greeting.mmd', '-q', 'connect', session=GREETING + QUIT),
        drawn('failed.mmd', *LETTER, session=OPENING + LOGIN.replace(
            '235 2.7.0 Welcome', f'535 5.7.8 {reply}') + QUIT,
            password=SECRET)]
    run_main('--server', 'localhost', '-4', '-p', '1', '--diagram',
             'nothing.mmd', *LETTER, password=SECRET)
    sessions.append((pathlib.Path('nothing.mmd').resolve(), []))
    results = parse_with_mermaid(*(path for path, _ in sessions))
    assert len(results) == len(sessions)
    for (path, shown), result in zip(sessions, results):  # noqa: B905
        assert result['type'] == 'sequence'
        texts = [f'{message["from"]}: {as_rendered(message["message"])}'
                 for message in result['messages'] if message.get('to')
                 and message.get('placement') is None]
        assert without_message(texts) == without_message(shown), path.name
        assert SECRET not in json.dumps(result)
    boxes = [sum(message['message'].startswith('rgb')
                 for message in result['messages']) for result in results]
    assert boxes == [1, 0, 1, 0]
