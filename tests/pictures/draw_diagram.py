"""Draw a saved session as a sequence diagram for Mermaid.

    python smtp.py ... -v 2> session.txt
    python tests/pictures/draw_diagram.py session.txt > session.mmd

A file of tests/dialogues works as well. The message is one arrow.
"""

import re
import sys

START = '''\
sequenceDiagram
    participant C as Client
    participant S as Server'''
BEFORE = {'C:': '    C->>S: ', 'S:': '    S-->>C: ', '--':
          '    rect rgb(128, 192, 128, 0.2)\n    note over C,S: '}
ENTITIES = {ord(character): f'#{ord(character)};' for character in '#;<>{}"'}
LINE = re.compile(r'(C:|S:|--(?= TLS begins))(?: (.*?))?(?: {2,}# .*)?$')


def draw(lines):
    """Return the diagram of a session."""
    drawn, encrypted, in_message = [START], False, False
    for found in filter(None, (LINE.match(line.rstrip()) for line in lines)):
        who, text = found.groups('')
        encrypted |= who == '--'
        if who == 'C:' and in_message:
            in_message = text != '.'
            if in_message:
                continue
        drawn.append(BEFORE[who] + (text.translate(ENTITIES) or ' '))
        if who == 'S:' and text.startswith('354'):
            drawn.append(BEFORE['C:'] + '(the message)')
            in_message = True
    return '\n'.join([*drawn, *['    end'] * encrypted, ''])


if __name__ == '__main__':
    if len(sys.argv) != 2 or sys.argv[1].startswith('-'):
        sys.exit(__doc__)
    with open(sys.argv[1], encoding='utf-8') as file:
        sys.stdout.reconfigure(encoding='utf-8')
        print(draw(file), end='')
