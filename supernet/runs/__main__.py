"""`python -m supernet.runs`; what it does is in `supernet/commands/runs.py`."""

from supernet.commands.runs import command

if __name__ == "__main__":
    command()
