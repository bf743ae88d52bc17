"""`python -m supernet.reproduce`; what it does is in `supernet/commands/reproduce.py`."""

from supernet.commands.reproduce import command

if __name__ == "__main__":
    command()
