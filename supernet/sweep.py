"""`python -m supernet.sweep`; what it does is in `supernet/commands/sweep.py`."""

from supernet.commands.sweep import command

if __name__ == "__main__":
    command()
