"""`python -m supernet.compare`; what it does is in `supernet/commands/compare.py`."""

from supernet.commands.compare import command

if __name__ == "__main__":
    command()
