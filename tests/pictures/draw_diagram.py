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
BEFORE = {'C': '    C->>S: ', 'S': '    S-->>C: ', 'TLS':
          '    rect rgb(128, 192, 128, 0.2)\n    note over C,S: '}
ENTITIES = {ord(character): f'#{ord(character)};' for character in '#;<>{}"'}


def read_events(lines):
    """Yield (who, text): who is C, S, or TLS for the start of encryption."""
    in_message = False
    for line in lines:
        found = re.match(r'([CS]):(?: (.*?))?(?: {2,}# .*)?$', line.rstrip())
        if found:
            who, text = found[1], found[2] or ''
            if who == 'C' and in_message:
                in_message = text != '.'
                if in_message:
                    continue
            yield who, text
            if who == 'S' and text.startswith('354'):
                yield 'C', '(the message)'
                in_message = True
        elif line.startswith('-- TLS begins'):
            yield 'TLS', line[3:].strip()


def draw(lines):
    """Return the diagram of a session."""
    drawn, encrypted = [START], False
    for who, text in read_events(lines):
        encrypted |= who == 'TLS'
        drawn.append(BEFORE[who] + (text.translate(ENTITIES) or ' '))
    return '\n'.join([*drawn, *['    end'] * encrypted, ''])


if __name__ == '__main__':
    if len(sys.argv) != 2 or sys.argv[1].startswith('-'):
        sys.exit(__doc__)
    with open(sys.argv[1], encoding='utf-8') as file:
        sys.stdout.reconfigure(encoding='utf-8')
        print(draw(file), end='')
