"""`python -m supernet.tabulate`; what it does is in `supernet/commands/tabulate.py`."""

from supernet.app.command_line import cli
from supernet.commands.tabulate import main

if __name__ == "__main__":
    cli(main)
