"""`python -m supernet.report`; what it does is in `supernet/commands/report.py`."""

from supernet.commands.report import command

if __name__ == "__main__":
    command()
