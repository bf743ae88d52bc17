"""`python -m supernet.ensemble`; what it does is in `supernet/commands/ensemble.py`."""

from supernet.commands.ensemble import command

if __name__ == "__main__":
    command()
