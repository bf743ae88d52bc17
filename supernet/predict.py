"""`python -m supernet.predict`; what it does is in `supernet/commands/predict.py`."""

from supernet.commands.predict import command

if __name__ == "__main__":
    command()
