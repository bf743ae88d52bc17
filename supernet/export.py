"""`python -m supernet.export`; what it does is in `supernet/commands/export.py`."""

from supernet.commands.export import command

if __name__ == "__main__":
    command()
