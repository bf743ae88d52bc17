"""`python -m supernet.deploy`; what it does is in `supernet/commands/deploy.py`."""

from supernet.commands.deploy import command

if __name__ == "__main__":
    command()
