"""`python -m supernet.race`; what it does is in `supernet/commands/race.py`."""

from supernet.commands.race import command

if __name__ == "__main__":
    command()
