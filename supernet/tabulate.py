"""`python -m supernet.tabulate`; what it does is in `supernet/commands/tabulate.py`."""

from supernet.commands.tabulate import command

if __name__ == "__main__":
    command()
