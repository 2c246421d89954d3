"""Change one place of smtp.py at a time, in a copy: do the tests see it?

    python tests/mutants.py --seed 1 --count 150 --jobs 2 [tests/lab ...]

First the tests run once under coverage, to learn which of them run which line,
here or in a process of their own. Then each mutant gets the fastest tests of
its line, and if it survives them the whole files; a line that runs at import
gets the tests of what uses its name.
"""

import argparse
import collections
import concurrent.futures as futures
import contextlib
import io
import itertools
import os
import pathlib
import queue
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tokenize
from typing import NamedTuple

import coverage

ROOT = pathlib.Path(__file__).resolve().parents[1]
LEFT_OUT = shutil.ignore_patterns('.*', '__pycache__', 'unsent-*')
RULES = ('[run]\nparallel = true\npatch = _exit\ninclude = */smtp.py\n'
         'context = ${{PYTEST_CURRENT_TEST-}}\ndata_file = {}/data/x\n')
EDITS = {'==': '!=', '!=': '==', '<': '<=', '<=': '<', '>': '>=', '>=': '>',
         'and': 'or', 'or': 'and', 'in': 'not in', 'is': 'is not', 'not': '',
         '+': '-', '-': '+', 'True': 'False', 'False': 'True', 'if': 'if not',
         'elif': 'elif not', 'while': 'while not', 'return': 'return None and',
         'continue': 'pass', 'break': 'pass', 'finally': 'else'}
KEPT = ('def', 'class', 'import', 'from', '@')
BLOCKS = ('if', 'elif', 'else', 'while', 'for', 'with', 'try', 'except',
          'finally', 'pass', 'continue', 'break')


class Mutant(NamedTuple):
    """A text instead of another, and what tells who notices."""

    start: int
    end: int
    new: str
    lines: range
    name: str

    def of(self, source):
        """Return the source with the change."""
        return source[:self.start] + self.new + source[self.end:]


def pytest_runtest_setup(item):
    """Tell coverage which test runs; pytest has loaded this as a plugin."""
    coverage.Coverage.current().switch_context(item.nodeid)


def pytest_runtest_logreport(report):
    """Note how long a test took that has passed."""
    if report.when == 'call' and report.passed:
        with open(os.environ['MUTANTS'], 'a', encoding='utf-8') as file:
            file.write(f'{report.duration:.3f} {report.nodeid}\n')


def edit(token):
    """Return what becomes of a token; None: it stays."""
    if token.type == tokenize.NUMBER:
        return f'({token.string} + 1)'
    if re.fullmatch(r"r?'[^'\s]{1,23}'", token.string):     # no sentence
        return f"{token.string[:-1]}~'"
    return EDITS.get(token.string)


def find(source):
    """Yield all changes, also some that do not compile."""
    starts = [0, 0, *(match.end() for match in re.finditer('\n', source))]
    line = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.NEWLINE:
            if token.string.strip() and token.type != tokenize.COMMENT:
                line.append(token)
            continue
        first, lines = line[0], range(line[0].start[0], token.start[0] + 1)
        edits = [(each, edit(each)) for each in line
                 if first.string not in KEPT]
        if edits and first.type != tokenize.STRING and (
                first.string not in BLOCKS):
            edits.append((first, f'if 0: {first.string}'))
        for each, new in edits:
            if new is not None:
                start, end = (starts[row] + column
                              for row, column in (each.start, each.end))
                yield Mutant(start, end, new, lines, first.string)
        line = []


def choose(source, seed, count):
    """Choose some mutants that compile."""
    mutants, chosen = list(find(source)), []
    random.Random(seed).shuffle(mutants)
    while mutants and len(chosen) < count:
        mutant = mutants.pop()
        with contextlib.suppress(SyntaxError):
            compile(mutant.of(source), 'smtp.py', 'exec')
            chosen.append(mutant)
    return sorted(chosen)


def pytest(folder, *args, limit, **env):
    """Run tests of a copy of the tree; return pytest's exit code, or -9."""
    process = subprocess.Popen(
        [sys.executable, '-W', 'ignore', '-m', *args, '-q', '-p',
         'no:randomly', '-p', 'no:cacheprovider', '--hypothesis-seed=0'],
        cwd=folder / 'tests', env={
            **os.environ, 'PYTHONPATH': '.', 'PYTHONDONTWRITEBYTECODE': '1',
            **env}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return -9
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def learn(folder, tests):
    """Run the tests once: return those of each line, and their seconds."""
    rules, times = folder / 'rules', folder / 'times'
    rules.write_text(RULES.format(folder))
    (folder / 'data').mkdir()
    pytest(folder, 'coverage', 'run', f'--rcfile={rules}', '-m', 'pytest',
           '-p', 'mutants', *(os.path.relpath(one, 'tests') for one in tests),
           limit=3600, MUTANTS=str(times), COVERAGE_PROCESS_START=str(rules))
    seconds = {name: float(number) for number, name in (
        line.split(' ', 1) for line in times.read_text().splitlines())}
    found = coverage.Coverage(config_file=str(rules))
    found.combine([str(folder / 'data')])
    contexts = found.get_data().contexts_by_lineno(str(folder / 'smtp.py'))
    return {line: {re.sub(r'^\|| \(\w+\)\|?$', '', name) for name in names}
            & set(seconds) for line, names in contexts.items()
            if '' not in names}, seconds        # '': it runs at import


def pick(names, seconds, most):
    """Pick the fastest test of each function, then the second, and so on."""
    functions = collections.defaultdict(list)
    for name in sorted(names, key=seconds.__getitem__):
        functions[name.partition('[')[0]].append(name)
    return [name for some in itertools.zip_longest(*functions.values())
            for name in some if name][:most]


def tests_of(mutant, tests, lines):
    """Return the tests of its line; at import, those of what uses its name."""
    where, words = mutant.lines, {mutant.name}
    for _ in range(3):      # a constant, in a class, in its methods
        names = {name for number in where for name in tests.get(number, ())}
        if names:
            return names
        where = [number for number, line in enumerate(lines, 1)
                 if words & set(re.findall(r'\w+', line))]
        words = {lines[number - 1].split()[0] for number in where}
    return set()


def main():
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description='Do the tests notice?')
    for name, default in (('seed', 1), ('count', 150), ('jobs', 2),
                          ('most', 100), ('limit', 60)):
        parser.add_argument(f'--{name}', type=int, default=default)
    parser.add_argument('tests', nargs='*', default=['tests'])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix='mutants-') as base:
        folders = queue.Queue()
        for number in range(options.jobs):
            folders.put(pathlib.Path(base, str(number)))
            shutil.copytree(ROOT, folders.queue[-1], ignore=LEFT_OUT)
        source = (folders.queue[0] / 'smtp.py').read_text(encoding='utf-8')
        tests, seconds = learn(folders.queue[0], options.tests)
        lines = source.split('\n')

        def kill(mutant):
            names = tests_of(mutant, tests, lines) or set(seconds)
            folder = folders.get()
            (folder / 'smtp.py').write_text(mutant.of(source), 'utf-8')
            code = pytest(folder, 'pytest', '-x', *pick(
                names, seconds, options.most), limit=options.limit) or pytest(
                    folder, 'pytest', '-x', *{name.partition('::')[0]
                                              for name in names},
                    limit=10 * options.limit)
            folders.put(folder)
            return bool(code)
        chosen, survived = choose(source, options.seed, options.count), 0
        with futures.ThreadPoolExecutor(options.jobs) as pool:
            for mutant, killed in zip(chosen, pool.map(kill, chosen)):
                survived += not killed
                number = source.count('\n', 0, mutant.start)
                print(f'{"killed  " if killed else "SURVIVED"} {number + 1}\n'
                      f'  - {lines[number].strip()}\n  + '
                      + mutant.of(source).split('\n')[number].strip(),
                      flush=True)
    print(f'{survived} of {len(chosen)} survived')


if __name__ == '__main__':
    main()
