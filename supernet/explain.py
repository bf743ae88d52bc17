"""`python -m supernet.explain`; what it does is in `supernet/commands/explain.py`."""

from supernet.commands.explain import command

if __name__ == "__main__":
    command()
