"""The practice server as the tests use it: emptied, and willing again."""

from support import practice_server
from support.cli import reach

PASSWORD, TOKEN = practice_server.PASSWORD, practice_server.TOKEN
ALICE = practice_server.USER
BOB, CAROL = 'bob@example.org', 'carol@example.org'
HIDDEN = 'hidden@example.net'       # gets blind copies
BASIC = ['-f', ALICE, '-t', BOB, '-s', 'Lunch']
MAIL = [*BASIC, '--body', 'Hello Bob']


class Post(practice_server.PracticeServer):
    """A practice server; `options` and `session` lead to it."""

    @property
    def options(self):
        """What leads smtp.py to it."""
        return reach(self.port, self.ca_file)

    @property
    def session(self):
        """What leads the library to it."""
        return {'server': 'localhost', 'port': self.port, 'timeout': 10,
                'ca_file': self.ca_file}

    def only(self):
        """Return the one message that has arrived."""
        assert len(self.messages) == 1, self.messages
        return self.messages[0]

    def accept(self):
        """Refuse nothing from now on, and forget what has arrived."""
        self.refuse()
        self.drop_after_dot = False
        self.messages.clear()
