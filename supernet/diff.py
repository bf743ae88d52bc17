"""`python -m supernet.diff`; what it does is in `supernet/commands/diff.py`."""

from supernet.commands.diff import command

if __name__ == "__main__":
    command()
