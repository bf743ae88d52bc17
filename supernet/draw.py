"""`python -m supernet.draw`; what it does is in `supernet/commands/draw.py`."""

from supernet.commands.draw import command

if __name__ == "__main__":
    command()
