"""`python -m supernet.rank`; what it does is in `supernet/commands/rank.py`."""

from supernet.app.command_line import cli
from supernet.commands.rank import main

if __name__ == "__main__":
    cli(main)
