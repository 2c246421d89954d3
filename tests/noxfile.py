"""The tests on each Python that is found, and the checks of the source.

nox -f tests/noxfile.py              all of it
nox -f tests/noxfile.py -s lint      one of it
"""

import pathlib
import shutil

import nox

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOUND = [f'3.{minor}' for minor in range(9, 15)
         if shutil.which(f'python3.{minor}')]


@nox.session(python=FOUND or None)
def tests(session):
    """Run the tests, or those that are named after `--`."""
    session.chdir(ROOT)
    session.install('-r', 'tests/requirements.txt')
    session.run('pytest', '-n', '2', *(session.posargs or ['tests']))


@nox.session
def lint(session):
    """Look at style and types."""
    session.chdir(ROOT)
    session.install('-r', 'tests/requirements.txt')
    session.run('ruff', 'check', '--config', 'tests/ruff.toml', 'smtp.py',
                'tests')
    session.run('mypy', '--strict', 'smtp.py')
