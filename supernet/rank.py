"""`python -m supernet.rank`; what it does is in `supernet/commands/rank.py`."""

from supernet.commands.rank import command

if __name__ == "__main__":
    command()
