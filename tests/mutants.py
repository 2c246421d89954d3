"""Change one place of smtp.py at a time, in a copy: do the tests see it?

    python tests/mutants.py --seed 1 --count 150 --jobs 2 [tests/lab ...]

First the tests run once under coverage, to learn which of them run which line,
here or in a process of their own. Then each mutant gets the fastest tests of
its line; a line that runs at import gets those of what uses its name. The
places are spread over the sections of smtp.py.
"""

from __future__ import annotations

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
from typing import Any, Iterator, NamedTuple

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

    def of(self, source: str) -> str:
        """Return the source with the change."""
        return source[:self.start] + self.new + source[self.end:]


def pytest_runtest_setup(item: Any) -> None:
    """Tell coverage which test runs; pytest has loaded this as a plugin."""
    running = coverage.Coverage.current()
    if running:
        running.switch_context(item.nodeid)


def pytest_runtest_logreport(report: Any) -> None:
    """Note how long a test took that has passed."""
    if report.when == 'call' and report.passed and 'MUTANTS' in os.environ:
        with open(os.environ['MUTANTS'], 'a', encoding='utf-8') as file:
            file.write(f'{report.duration:.3f} {report.nodeid}\n')


def edit(token: tokenize.TokenInfo) -> str | None:
    """Return what becomes of a token; None: it stays."""
    text = token.string
    if token.type == tokenize.NUMBER:
        return f'({text} + 1)'
    if re.fullmatch(r"r?'[^'\s]{1,23}'", text):     # no sentence
        return f"{text[:-1]}~'"
    return EDITS.get(text)


def find(source: str) -> Iterator[Mutant]:
    """Yield all changes, also some that do not compile."""
    starts = [0, 0, *(match.end() for match in re.finditer('\n', source))]
    line: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.NEWLINE:
            line += [token] * bool(token.string.strip() and
                                   token.type != tokenize.COMMENT)
            continue
        lines = range(line[0].start[0], token.start[0] + 1)
        edits = [(each, edit(each)) for each in line]
        if line[0].type != tokenize.STRING and line[0].string not in BLOCKS:
            edits.append((line[0], f'if 0: {line[0].string}'))
        for each, new in edits if line[0].string not in KEPT else ():
            if new is not None:
                yield Mutant(starts[each.start[0]] + each.start[1],
                             starts[each.end[0]] + each.end[1], new, lines,
                             line[0].string)
        line = []


def choose(source: str, seed: int, count: int) -> list[tuple[str, Mutant]]:
    """Choose mutants that compile, evenly from all sections."""
    sections: dict[str, list[Mutant]] = collections.defaultdict(list)
    heads = [(match.start(), match[1]) for match in
             re.finditer(r'(?m)^# (\d+  .*)', source)]
    for mutant in find(source):
        for name in [name for start, name in heads if start < mutant.start
                     ][-1:]:        # not the imports above section 1
            sections[name].append(mutant)
    for some in sections.values():
        random.Random(seed).shuffle(some)
    chosen: list[tuple[str, Mutant]] = []
    while any(sections.values()) and len(chosen) < count:
        for name in [name for name in sections if sections[name]]:
            mutant = sections[name].pop()
            with contextlib.suppress(SyntaxError):
                compile(mutant.of(source), 'smtp.py', 'exec')
                chosen.append((name, mutant))
    return sorted(chosen[:count], key=lambda one: one[1].start)


def pytest(folder: pathlib.Path, *args: str, limit: float, **env: str) -> int:
    """Run tests of a copy of the tree; return pytest's exit code, or -9."""
    process = subprocess.Popen(
        [sys.executable, '-W', 'ignore', '-m', *args, '-q', '-p',
         'no:randomly', '-p', 'no:cacheprovider', '--hypothesis-seed=0'],
        cwd=folder / 'tests',
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
        env={**os.environ, 'PYTHONPATH': '.', 'PYTHONDONTWRITEBYTECODE': '1',
             **env})
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return -9
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def learn(folder: pathlib.Path, tests: list[str]
          ) -> tuple[dict[int, set[str]], dict[str, float]]:
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


def pick(names: set[str], seconds: dict[str, float], most: int) -> list[str]:
    """Pick the fastest test of each function, then the second, and so on."""
    functions: dict[str, list[str]] = collections.defaultdict(list)
    for name in sorted(names, key=seconds.__getitem__):
        functions[name.partition('[')[0]].append(name)
    return [name for some in itertools.zip_longest(*functions.values())
            for name in some if name][:most]


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description='Do the tests notice?')
    for name, default in (('seed', 1), ('count', 150), ('jobs', 2),
                          ('most', 100), ('limit', 60)):
        parser.add_argument(f'--{name}', type=int, default=default)
    parser.add_argument('tests', nargs='*', default=['tests'])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix='mutants-') as base:
        folders: queue.Queue[pathlib.Path] = queue.Queue()
        for number in range(options.jobs):
            folders.put(pathlib.Path(base, str(number)))
            shutil.copytree(ROOT, folders.queue[-1], ignore=LEFT_OUT)
        source = (folders.queue[0] / 'smtp.py').read_text(encoding='utf-8')
        tests, seconds = learn(folders.queue[0], options.tests)
        lines = source.split('\n')

        def kill(mutant: Mutant) -> int:
            where: Any = mutant.lines
            for _ in range(3):      # a constant, in a class, in its methods
                names = {name for number in where
                         for name in tests.get(number, ())}
                words = {mutant.name} if where == mutant.lines else {
                    lines[number - 1].split()[0] for number in where}
                if names:
                    break
                where = [number for number, line in enumerate(lines, 1)
                         if words & set(re.findall(r'\w+', line))]
            names = pick(names or set(seconds), seconds, options.most)
            folder = folders.get()
            (folder / 'smtp.py').write_text(mutant.of(source), 'utf-8')
            code = pytest(folder, 'pytest', '-x', *names, limit=options.limit)
            folders.put(folder)
            return code
        if kill(Mutant(0, 0, '', range(1, len(lines)), '')):
            print('(some tests that passed fail without a mutant, too)')
        chosen = choose(source, options.seed, options.count)
        results: dict[str, list[bool]] = collections.defaultdict(list)
        with futures.ThreadPoolExecutor(options.jobs) as pool:
            for (section, mutant), code in zip(chosen, pool.map(
                    kill, [mutant for _, mutant in chosen])):
                results[section].append(bool(code))
                number = source.count('\n', 0, mutant.start)
                print(f'{"killed  " if code else "SURVIVED"} {number + 1}\n'
                      f'  - {lines[number].strip()}\n  + '
                      + mutant.of(source).split('\n')[number].strip(),
                      flush=True)
    results['all'] = [code for codes in results.values() for code in codes]
    for section, codes in results.items():
        print(f'{sum(codes):4} of {len(codes):3} killed, '
              f'{100 * sum(codes) // len(codes):3} %  {section}')


if __name__ == '__main__':
    main()
