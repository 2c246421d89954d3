"""Tables of cases: the .ini files of data/, a case in each section."""

import configparser
import pathlib
import re

DATA = pathlib.Path(__file__).resolve().parents[1] / 'data'


def read(name):
    """Return the cases of a table: (name, values), in their order.

    A value may go on in indented lines; `#` begins a comment at the start of
    a line only, and everything else stands for itself.
    """
    parser = configparser.ConfigParser(
        interpolation=None, delimiters=('=',), comment_prefixes=('#',))
    parser.optionxform = str
    parser.read_string((DATA / f'{name}.ini').read_text('utf-8'))
    return [(section, dict(parser[section])) for section in parser.sections()]


def rows(name, section, split=' => '):
    r"""Return the lines of a section: the key, and the cells of the line.

    What `\x1b`, `\u200b`, `\r`, `\n` and `\t` stand for is put in.
    """
    return [[key, *(re.sub(
        r'\\(x[0-9a-f]{2}|u[0-9a-f]{4}|[rnt])',
        lambda found: found[0].encode().decode('unicode_escape'), cell)
        for cell in re.split(split, line))]
        for key, value in dict(read(name))[section].items()
        for line in value.strip().split('\n')]
