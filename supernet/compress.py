"""`python -m supernet.compress`; what it does is in `supernet/commands/compress.py`."""

from supernet.commands.compress import command

if __name__ == "__main__":
    command()
