"""Draw a real session with --explain as the picture of a terminal.

    python tests/pictures/draw_session.py

What differs from run to run is replaced. It needs the package rich.
"""

import html
import io
import pathlib
import re
import subprocess
import sys

FOLDER = pathlib.Path(__file__).resolve().parent
PICTURE = FOLDER / 'session.svg'
TITLE = 'python tests/practice.py --explain'
COLUMNS = 80

SHOWN = [  # what the lines from ... to ... begin with; dots for the rest
    ('-- Wait for', '-- x2z: '), ('-- Ask for', '-- TLS begins'),
    ('-- Prove', '-- X.7.X: '), ('-- Send', '-- its 250'),
    ('C: Hello', 'S: 250'), ('C: QUIT', 'Sent to')]
FIXED = [  # what differs from run to run, and what the picture shows
    (r'   # \d+ ms$', ''), (r'<[0-9a-f]{20,}@', '<7f3c9a1e@'),
    (r'TLSv1\.\d', 'TLSv1.3')]
STYLES = [('C: ', 'bold cyan'), ('S: ', 'green'),
          ('-- ', 'white'), ('Sent to', 'bold green')]


def hold_session():
    """Return the shown lines of a fresh session, without what differs."""
    done = subprocess.run(
        [sys.executable, str(FOLDER.parent / 'practice.py'), '--explain'],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True,
        encoding='utf-8')
    found = re.search('.*?'.join(f'(^{first}.*?^{last}.*?\n)'
                                 for first, last in SHOWN),
                      done.stdout, re.MULTILINE | re.DOTALL)
    if not found:
        raise ValueError('the lines that SHOWN names are not there')
    session = '...\n'.join(found.groups())
    for pattern, text in FIXED:
        session = re.sub(pattern, text, session, flags=re.MULTILINE)
    return session.splitlines()


def draw(lines):
    """Return the picture of these lines."""
    import rich.console
    import rich.text
    console = rich.console.Console(record=True, width=COLUMNS,
                                   file=io.StringIO())
    for line in lines:
        style = next((style for start, style in STYLES
                      if re.match(start, line)), '')
        for part in re.findall(f'.{{1,{COLUMNS}}}', line):
            console.print(rich.text.Text(part, style), no_wrap=True)
    picture = console.export_svg(title=TITLE, unique_id='session')
    # A picture in a page must not load a font from elsewhere.
    return re.sub(r'(?s)\s*(@font-face \{.*?\}|<!--.*?-->)', '', picture)


def is_fresh():
    """Return whether the picture has the text of a fresh session."""
    texts = re.findall('(?s)<text [^>]*>(.*?)</text>',
                       PICTURE.read_text(encoding='utf-8'))
    seen, expected = (re.sub(r'\s', '', ''.join(lines)) for lines in (
        map(html.unescape, texts), [TITLE, *hold_session()]))
    return seen == expected


if __name__ == '__main__':
    PICTURE.write_text(draw(hold_session()), encoding='utf-8')
